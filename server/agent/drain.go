package agent

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Drivers that listen to companions begin no write once an epoch is fenced. When
// no client has done anything for a moment they have all heard of it, and what they
// had begun has ended. Who is busy after drainMost is ended by the stop.
const (
	drainMost = 200 * time.Millisecond
	drainPoll = 5 * time.Millisecond
)

// busySQL counts the sessions that are in the middle of something, or were 25 ms
// ago, but for its own and those that only look at the server.
const busySQL = `SELECT count(*) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'helios probe'
   AND (state <> 'idle' OR state_change > clock_timestamp() - interval '25 ms')`

// drain waits until no client is in the middle of anything, for drainMost at most,
// so that a planned stop cuts nobody off who is about to finish.
func (a *Agent) drain(ctx context.Context) {
	began := a.clock()
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for a.clock()-began < drainMost {
		busy := 1
		err := a.probing.do(ctx, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, busySQL).Scan(&busy) })
		if err != nil || busy == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
