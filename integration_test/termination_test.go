package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// slowCommits makes every commit take a while in front of its record, by a
// deferred trigger, and once it is written, by the wait for others to join the
// flush: whoever interrupts a backend finds many of them there.
var slowCommits = map[string]string{"fsync": "on", "commit_delay": "2000", "commit_siblings": "0"}

// linger makes commits to the table of the calls take a while before their record.
func linger(t testing.TB, primary *pgtest.Node) {
	t.Helper()
	for _, sql := range []string{
		"CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.001); RETURN NULL; END'",
		`CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON once DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW WHEN (NEW.part = 0) EXECUTE FUNCTION linger()`,
	} {
		pgtest.OK(t, primary.Exec(pgtest.Context(t), sql))
	}
}

// Somebody ends backends and cancels statements at random while programs write.
func TestATerminatedBackendNeverMeansASecondExecution(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Settings: slowCommits})
	all := newCalls(t, c.Primary())
	linger(t, c.Primary())
	dbs, closeAll := reckless(t, c)
	killer := c.Primary().Conn(t)
	all.start(t, dbs, 8)
	did := map[string]int{}
	for all.done.Load() < 2000 {
		all.awaitDone(t, 1+rand.Int64N(10))
		name, signal, which := "terminated", "pg_terminate_backend", "state = 'active'"
		switch rand.IntN(8) {
		case 0, 1:
			name, signal = "cancelled", "pg_cancel_backend"
		case 2:
			name, which = "terminated while idle", "state = 'idle'"
		case 3:
			name, which = "terminated in a transaction", "state LIKE 'idle in%'"
		}
		var n int
		pgtest.OK(t, killer.QueryRow(t.Context(), `SELECT count(`+signal+`(pid)) FROM (SELECT pid FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND `+which+`
			ORDER BY random() LIMIT 1) AS victim`).Scan(&n))
		did[name] += n
	}
	all.stop()
	retries := uint64(0)
	for _, db := range dbs {
		retries += clusterOf(t, db).Stats().Retries
	}
	closeAll()
	t.Logf("FIGURES terminations: %s; %d statements sent again", listed(did), retries)
	tally := all.audit(t, "terminations", c.Primary())
	onlyKinds(t, tally, "ok", "outcome unknown", "not committed", "session lost", "57014")
	if retries == 0 {
		t.Error("no statement was sent again after 57P01, which says that it was not executed")
	}
}

// Commits wait for a standby that stands still, and somebody ends the wait:
// what is committed here only is no success.
func TestAnInterruptedWaitForAStandbyIsNoSuccess(t *testing.T) {
	const clients = 8
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	all := newCalls(t, c.Primary())
	replicated(t, c)
	dbs, closeAll := reckless(t, c, "failover_wait=1s", "probe_timeout=1s") // to look for an outcome that nobody can know takes no longer
	standby, killer := c.Nodes[1], c.Primary().Conn(t)
	all.start(t, dbs, clients)
	t.Cleanup(func() { c.Thaw(standby) }) // before the clients are waited for
	t.Cleanup(func() { listWaits(t, c.Primary()) })
	signals := 0
	for range 15 {
		pgtest.OK(t, c.Freeze(standby))
		frozen := all.next.Load() // what begins from here on, no standby can have
		for range 3 {
			awaitWaiting(t, c.Primary(), clients) // whoever was told calls again
			signals += interruptWaiting(t, killer)
		}
		awaitWaiting(t, c.Primary(), clients)
		if told := all.ackedFrom(int(frozen)); len(told) > 0 {
			t.Errorf("%v were acknowledged while no standby could have them", told)
		}
		pgtest.OK(t, c.Thaw(standby))
		all.awaitDone(t, 20)
	}
	all.stop()
	closeAll()
	t.Logf("FIGURES standby: %d waits for it were interrupted", signals)
	tally := all.audit(t, "interrupted waits", c.Primary())
	// What the standby has sent before it stood still ends waits, too, and then a
	// signal that was meant for one meets what comes after it.
	onlyKinds(t, tally, "ok", "outcome unknown", "not committed", "session lost", "57014")
}

// What a transaction asks of its commit, it asks of the look for it too: here
// nobody else waits for standbys.
func TestACommitThatWaitedForAStandbyByItsOwnWishIsNoSuccessWithoutOne(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	pgtest.OK(t, c.Primary().Exec(ctx, "CREATE TABLE t (n int)"))
	pgtest.OK(t, c.Configure(ctx, c.Primary(), map[string]string{"synchronous_standby_names": "nobody", "synchronous_commit": "local"}))
	killer := c.Primary().Conn(t)
	for _, params := range []string{"resolve=transactions", "resolve=all"} {
		db := open(t, c, params, "failover_wait=1s")
		for name, write := range map[string]func(db *sql.DB) error{
			"transaction": func(db *sql.DB) error {
				tx, err := db.BeginTx(ctx, nil)
				pgtest.OK(t, err)
				defer tx.Rollback()
				exec(t, ctx, tx, "SET LOCAL synchronous_commit = on")
				exec(t, ctx, tx, "INSERT INTO t VALUES (1)")
				return tx.Commit()
			},
			"session": func(db *sql.DB) error {
				conn, err := db.Conn(ctx)
				pgtest.OK(t, err)
				defer conn.Close()
				exec(t, ctx, conn, "SET synchronous_commit = remote_apply")
				_, err = conn.ExecContext(ctx, "INSERT INTO t VALUES (1)")
				return err
			},
		} {
			result := make(chan error, 1)
			go func() { result <- write(db) }()
			awaitWaiting(t, c.Primary(), 1)
			_, err := killer.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
			pgtest.OK(t, err)
			if err := <-result; !errors.Is(err, helios.ErrOutcomeUnknown) {
				t.Errorf("%s, %s: the write ends with %v, want %v", params, name, err, helios.ErrOutcomeUnknown)
			}
			// The look for it was given up, and its wait with it: the next write is alone.
			awaitNobodyWaiting(t, c.Primary())
		}
		pgtest.OK(t, db.Close())
	}
}

// awaitWaiting returns when at least so many commits wait for a standby.
func awaitWaiting(t testing.TB, primary *pgtest.Node, n int) {
	t.Helper()
	pgtest.OK(t, primary.Await(pgtest.Context(t), "SELECT count(*) >= $1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'", n))
}

// awaitNobodyWaiting returns when no commit waits for a standby.
func awaitNobodyWaiting(t testing.TB, primary *pgtest.Node) {
	t.Helper()
	pgtest.OK(t, primary.Await(pgtest.Context(t), "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')"))
}

// listWaits logs what the sessions on a node do, and where this program's
// goroutines are, if the test has failed.
func listWaits(t testing.TB, n *pgtest.Node) {
	t.Helper()
	if !t.Failed() {
		return
	}
	ctx := context.Background() // that of the test has ended
	conn, err := n.Connect(ctx)
	pgtest.OK(t, err)
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT concat_ws(' ', pid, application_name, state, wait_event, 'for', clock_timestamp() - state_change, query)
		FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender')`)
	pgtest.OK(t, err)
	sessions, err := pgx.CollectRows(rows, pgx.RowTo[string])
	pgtest.OK(t, err)
	var stacks strings.Builder
	pgtest.OK(t, pprof.Lookup("goroutine").WriteTo(&stacks, 1))
	t.Logf("sessions on %s:\n%s\ngoroutines:\n%s", n.Name, strings.Join(sessions, "\n"), stacks.String())
}

// interruptWaiting terminates or cancels each commit that waits for a standby,
// and returns how many they were when they do not wait any more.
func interruptWaiting(t testing.TB, killer *pgx.Conn) int {
	t.Helper()
	type wait struct {
		PID int
		At  time.Time
	}
	ctx := pgtest.Context(t)
	// The two columns are not of one moment: the wait may be younger than the rest.
	rows, err := killer.Query(ctx, "SELECT pid, xact_start FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND xact_start IS NOT NULL")
	pgtest.OK(t, err)
	waits, err := pgx.CollectRows(rows, pgx.RowToStructByPos[wait])
	pgtest.OK(t, err)
	for _, w := range waits {
		signal := "SELECT pg_terminate_backend($1)"
		if rand.IntN(2) == 0 {
			signal = "SELECT pg_cancel_backend($1)"
		}
		_, err := killer.Exec(ctx, signal, w.PID)
		pgtest.OK(t, err)
	}
	for _, w := range waits {
		awaitGone(t, ctx, killer, w.PID, w.At)
	}
	return len(waits)
}

// awaitGone returns when a backend does not wait for a standby with the
// transaction that began then.
func awaitGone(t testing.TB, ctx context.Context, killer *pgx.Conn, pid int, at time.Time) {
	t.Helper()
	await(t, "an interrupted commit to stop waiting", func() bool {
		var gone bool
		pgtest.OK(t, killer.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM pg_stat_activity
			WHERE pid = $1 AND xact_start = $2 AND wait_event = 'SyncRep')`, pid, at).Scan(&gone))
		return gone
	})
}

// What was idle when it was terminated is seen before it is used: no program
// notices.
func TestIdleBackendsAreTerminatedUnnoticed(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	all := newCalls(t, c.Primary())
	dbs, closeAll := reckless(t, c)
	killed := 0
	for range ways { // each of them comes to each handle
		for _, db := range dbs {
			pgtest.OK(t, all.one(pgtest.Context(t), db))
			value[int](t, helios.WithConsistency(pgtest.Context(t), helios.Eventual), db, "SELECT 1")
		}
		killed += terminateAll(t, c.Primary()) + terminateAll(t, c.Nodes[1])
	}
	for _, db := range dbs {
		for _, n := range clusterOf(t, db).Status().Nodes {
			if n.State != "up" {
				t.Errorf("%s is %s: %s", n.Name, n.State, n.Reason)
			}
		}
	}
	closeAll()
	t.Logf("FIGURES idle: %d idle backends were terminated", killed)
	onlyKinds(t, all.audit(t, "idle", c.Primary()), "ok")
}

// terminateAll ends every backend of a node's clients, and returns how many they
// were when they are gone.
func terminateAll(t testing.TB, n *pgtest.Node) int {
	t.Helper()
	const clients = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name NOT IN ('pgtest', 'helios probe')"
	ctx := pgtest.Context(t)
	killed, err := pgtest.Value[int](ctx, n, "SELECT count(pg_terminate_backend(pid)) "+clients)
	pgtest.OK(t, err)
	pgtest.OK(t, n.Await(ctx, "SELECT NOT EXISTS (SELECT "+clients+")"))
	return killed
}
