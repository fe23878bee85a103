package agent

import (
	"context"
	"fmt"
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
	lateMost   = time.Second
)

// refuseBudget bounds what it takes to have writes refused, which is milliseconds: the
// rest of the time is the stop's.
const refuseBudget = time.Second

// fenceSetting is on while a server is about to be stopped in order. Drivers take it
// for a fence (topology.Observation.ReadOnly), and other clients get the error that
// they know from standbys.
const fenceSetting = "default_transaction_read_only"

const (
	// clientsSQL counts the sessions of clients.
	clientsSQL = `SELECT count(*) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'helios probe'`

	// busySQL counts those that are in the middle of something, or were $1 seconds ago.
	busySQL = clientsSQL + `
   AND (state <> 'idle' OR state_change > clock_timestamp() - make_interval(secs => $1))`

	// lateSQL counts those in the middle of what they began in the last $1 seconds.
	lateSQL = clientsSQL + `
   AND state <> 'idle' AND coalesce(xact_start, query_start) > clock_timestamp() - make_interval(secs => $1)`

	// lateWritesSQL counts those of them that write, or wait for their commit.
	lateWritesSQL = lateSQL + ` AND state = 'active' AND backend_xid IS NOT NULL`
)

// drain waits until no client is in the middle of anything, for drainMost at most,
// so that a planned stop cuts nobody off who is about to finish. Whoever begins a
// write even then is refused it, and so knows that it was not executed; what was
// begun before that has as long again to finish, and a write that is being executed
// has until lateMost.
func (a *Agent) drain(ctx context.Context) {
	began := a.clock()
	a.awaitQuiet(ctx)
	if err := a.refuseWrites(ctx); err != nil {
		a.log.WarnContext(ctx, "writes may be cut off by the stop: they can't be refused before it", "error", err)
		return
	}
	refused := a.clock()
	poll(ctx, drainPoll, func() bool {
		now, sql := a.clock(), lateSQL
		if now-refused > drainMost {
			sql = lateWritesSQL
		}
		late, err := a.sessions(ctx, sql, now-began)
		return err == nil && late == 0 || a.clock()-refused >= lateMost
	})
}

// awaitQuiet waits until clients have done nothing for a moment, for drainMost at most.
func (a *Agent) awaitQuiet(ctx context.Context) {
	began, quiet := a.clock(), drainQuiet
	poll(ctx, drainPoll, func() bool {
		looks := a.clock()
		busy, err := a.sessions(ctx, busySQL, quiet)
		// Where this takes long, drivers take long to hear of the fence, too.
		looked := a.clock() - looks
		if err != nil || busy == 0 && quiet >= 2*looked {
			return true
		}
		quiet = max(quiet, drainQuiet+2*looked)
		return a.clock()-began >= drainMost
	})
}

// sessions counts sessions of clients by one of the statements above.
func (a *Agent) sessions(ctx context.Context, sql string, within time.Duration) (n int, err error) {
	err = a.probing.do(ctx, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, sql, within.Seconds()).Scan(&n) })
	return n, err
}

// poll asks every so often until done says yes or ctx ends.
func poll(ctx context.Context, every time.Duration, done func() bool) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// refuseWrites has transactions that begin from now on refuse writes. It lasts until
// the server is started or promoted again, by [Agent.ensure] at the latest.
func (a *Agent) refuseWrites(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, refuseBudget, fmt.Errorf("not done within %v", refuseBudget))
	defer cancel()
	if err := a.pg.Configure(map[string]string{fenceSetting: "on"}); err != nil {
		return err
	}
	return a.pg.Reload(ctx)
}
