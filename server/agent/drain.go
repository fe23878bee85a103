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
	drainMost  = 200 * time.Millisecond
	drainPoll  = 5 * time.Millisecond
	drainQuiet = 25 * time.Millisecond // the moment, and longer where looking at the sessions takes long
)

// busySQL counts the sessions that are in the middle of something, or were $1
// seconds ago, but for its own and those that only look at the server.
const busySQL = `SELECT count(*) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'helios probe'
   AND (state <> 'idle' OR state_change > clock_timestamp() - make_interval(secs => $1))`

// drain waits until no client is in the middle of anything, for drainMost at most,
// so that a planned stop cuts nobody off who is about to finish.
func (a *Agent) drain(ctx context.Context) {
	began, quiet := a.clock(), drainQuiet
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for a.clock()-began < drainMost {
		busy, looks := 1, a.clock()
		err := a.probing.do(ctx, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, busySQL, quiet.Seconds()).Scan(&busy) })
		// Where this takes long, drivers take long to hear of the fence, too.
		looked := a.clock() - looks
		if err != nil || busy == 0 && quiet >= 2*looked {
			return
		}
		quiet = max(quiet, drainQuiet+2*looked)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
