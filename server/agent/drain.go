package agent

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Drivers that listen to companions begin no write once an epoch is fenced. They
// have all heard of it after drainLeast, and what they began before has ended
// soon after; a transaction that is still open after drainMost is ended by the stop.
const (
	drainLeast = 20 * time.Millisecond
	drainMost  = 250 * time.Millisecond
	drainPoll  = 5 * time.Millisecond
)

// busySQL counts the sessions that are in the middle of something, but for its own.
const busySQL = `SELECT count(*) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND state <> 'idle' AND pid <> pg_backend_pid()`

// drain waits until no client is in the middle of anything, for drainMost at most,
// so that a planned stop cuts nobody off who is about to finish.
func (a *Agent) drain(ctx context.Context) {
	began := a.clock()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for a.clock()-began < drainMost {
		busy := 1
		err := a.probing.do(ctx, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, busySQL).Scan(&busy) })
		if err != nil || busy == 0 && a.clock()-began >= drainLeast {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
