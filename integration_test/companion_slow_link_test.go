package integration_test

import (
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/pgtest"
)

// All that companions say to each other takes its time, and nobody is given up for it.
func TestASlowLinkBetweenCompanionsIsNoFault(t *testing.T) {
	var links []*pgtest.Proxy
	c := startCompanions(t, companions.Options{Nodes: 3, Place: func(n *companions.Node) error {
		link, err := pgtest.StartProxy(n.Companion)
		if err != nil {
			return err
		}
		t.Cleanup(func() { link.Close() })
		links, n.Advertise = append(links, link), link.Addr()
		return nil
	}})
	k := employ(t, c, clerks)
	before := epochOf(t, c)
	for _, delay := range []time.Duration{25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond} {
		for _, link := range links {
			link.Delay(delay)
		}
		slow := time.Now()
		await(t, "the cluster to live with it for longer than a lease", func() bool { return time.Since(slow) > 3*time.Second })
		k.await(50)
		t.Logf("FIGURES %v each way between companions: write gap %v", delay, k.ledger.Gap(slow))
		if now := epochOf(t, c); now != before {
			t.Errorf("with %v each way: %s, want %s to stay", delay, now, before)
		}
	}
	for _, link := range links {
		link.Delay(0)
	}
	awaitBulletin(t, c, "all nodes stream", companions.Healthy(3))
	k.audit(0)
}
