package agent

import (
	"sync"
	"time"

	"github.com/heliosdb/helios/failover"
)

// A Lease is the right to confirm commits of one epoch for a while. Its times are
// those of one clock, Config.Clock. The zero Lease is that of nobody. It is safe
// for concurrent use.
type Lease struct {
	mu    sync.Mutex
	epoch failover.Epoch
	sent  time.Duration // when the newest request was sent that was granted
	until time.Duration
	back  time.Duration // what was asked for until then was given back
}

// Grant notes that the request sent at sent was granted for d. What was asked
// for before an older grant, before a GiveBack or for an older epoch grants
// nothing; nor does sent 0, which says that nobody asked. It reports whether it
// was taken.
func (l *Lease) Grant(sent, d time.Duration, epoch failover.Epoch) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case sent <= 0 || d <= 0 || epoch == 0, epoch < l.epoch, sent <= l.back:
		return false
	case epoch == l.epoch && sent <= l.sent:
		return false
	}
	l.epoch, l.sent, l.until = epoch, sent, sent+d
	return true
}

// Valid reports whether the lease of epoch holds at now.
func (l *Lease) Valid(now time.Duration, epoch failover.Epoch) bool {
	return l.Left(now, epoch) > 0
}

// Left returns for how long the lease of epoch still holds; 0 if it does not.
func (l *Lease) Left(now time.Duration, epoch failover.Epoch) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch == 0 || epoch != l.epoch || now < l.sent {
		return 0
	}
	return max(0, l.until-now)
}

// GiveBack ends the lease at now, and what was asked for until now grants none.
func (l *Lease) GiveBack(now time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until, l.back = 0, max(l.back, now)
}
