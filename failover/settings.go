package failover

import (
	"fmt"
	"time"
)

// The least that makes sense of the times in Settings.
const (
	shortestLease  = 250 * time.Millisecond // below it a garbage collection is a fault
	shortestSeal   = time.Millisecond
	shortestBudget = 100 * time.Millisecond // in which nothing could be promoted, or stopped
)

// Check says what no cluster can work with, beginning with the key. It is the one rule
// for what a command line says, what operators change, and what the log takes.
func (t Settings) Check() error {
	switch {
	case t.Mode != Async && t.Mode != Semisync:
		return fmt.Errorf("replication_mode: is %q; must be %s or %s", t.Mode, Async, Semisync)
	case t.K < 1:
		return fmt.Errorf("k: is %d; must be 1 or more; replication_mode=%s is for commits that wait for no standby", t.K, Async)
	case t.MinReplicas < 0 || t.MinReplicas > t.K:
		return fmt.Errorf("min_replicas: is %d; must be from 0 to k (%d)", t.MinReplicas, t.K)
	}
	for _, d := range []struct {
		key          string
		value, least time.Duration
	}{
		{"lease", t.Lease, shortestLease},
		{"seal_budget", t.SealBudget, shortestSeal},
		{"promote_budget", t.PromoteBudget, shortestBudget},
		{"stop_budget", t.StopBudget, shortestBudget},
	} {
		if d.value < d.least {
			return fmt.Errorf("%s: is %v; must be %v or more", d.key, d.value, d.least)
		}
	}
	return nil
}
