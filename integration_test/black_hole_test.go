package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// soon is far more than anything here takes that is bounded by probes, and less
// than what bounds it otherwise: COMMIT waits 30 s, and TCP a quarter of an hour.
const soon = 9 * time.Second

// quickProbes declare a node down within little more than a second, and cut it off
// after one more. With less, a server that was promoted on a busy machine, and to
// which everybody turns at once, is taken for another that fell silent.
var quickProbes = []string{"probe_interval=200ms", "probe_timeout=1s"}

// timed runs f and fails the test if it takes longer than limit.
func timed(t testing.TB, what string, limit time.Duration, f func()) time.Duration {
	t.Helper()
	begun := time.Now()
	f()
	took := time.Since(begun)
	if took > limit {
		t.Errorf("%s took %v, want at most %v", what, took, limit)
	}
	return took.Round(time.Millisecond)
}

// The network swallows all that goes to the primary and comes from it, while
// statements, transactions and sessions are under way there. Another node takes
// over, and later what was swallowed arrives.
func TestAPrimaryInABlackHoleIsLeft(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2, Proxied: true})
	all := newCalls(t, c.Primary())
	replicated(t, c)
	dbs, closeAll := reckless(t, c, quickProbes...)
	db := dbs[0]
	ctx := pgtest.Context(t)
	old, next := c.Primary(), c.Nodes[1]
	all.start(t, dbs, 8)
	all.awaitDone(t, 200)
	ended := openTransactions(t, db, 3)
	mine := helios.WithSession(ctx, helios.NewSession())
	exec(t, mine, db, "INSERT INTO aside VALUES (4)")

	old.Proxy.BlackHole()
	swallowed := time.Now()
	committed := make(chan error, 1)
	go func() { committed <- ended[0].Commit() }()
	took := timed(t, "Rollback", soon, func() { pgtest.OK(t, ended[1].Rollback()) })
	t.Logf("FIGURES black hole: Rollback without an answer returned after %v", took)
	timed(t, "a statement with a deadline", soon, func() {
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if _, err := db.ExecContext(short, "INSERT INTO aside VALUES (5)"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write with a deadline = %v, want that the deadline has passed", err)
		}
	})
	timed(t, "reads", soon, func() {
		for range 50 {
			if n := value[int](t, mine, db, "SELECT count(*) FROM aside WHERE n = 4"); n != 1 {
				t.Errorf("the session that wrote a row sees it %d times", n)
			}
			value[int](t, helios.WithConsistency(ctx, helios.Eventual), db, "SELECT count(*) FROM once")
		}
	})
	await(t, "all that was under way on the old primary to end", func() bool {
		return statusOf(clusterOf(t, db), old).Conns.Busy == 1 // the third transaction has not noticed yet
	})
	t.Logf("FIGURES black hole: nothing was under way any more after %v", time.Since(swallowed).Round(time.Millisecond))
	if _, err := ended[2].ExecContext(ctx, "INSERT INTO aside VALUES (6)"); !errors.Is(err, helios.ErrSessionLost) || !helios.SafeToRetry(err) {
		t.Errorf("the next statement of a transaction = %v, want that it is lost and not committed", err)
	}
	if err := ended[2].Commit(); !errors.Is(err, helios.ErrNotCommitted) {
		t.Errorf("Commit of a transaction that was cut off = %v, want that it is not committed", err)
	}

	pgtest.OK(t, c.Promote(ctx, next))
	promoted := time.Now()
	exec(t, ctx, db, "INSERT INTO aside VALUES (7)")
	t.Logf("FIGURES black hole: the first write after the promotion returned after %v", time.Since(promoted).Round(time.Millisecond))
	timed(t, "Commit, once there is a primary", soon, func() { committedOrNot(t, <-committed, next) })
	pgtest.OK(t, c.Follow(ctx, next))
	all.awaitDone(t, 200)

	began := all.next.Load()
	pgtest.OK(t, old.Proxy.Heal()) // what was sent before arrives, and is answered
	await(t, "the old primary to be refused", func() bool { return statusOf(clusterOf(t, db), old).State == "refused" })
	all.awaitDone(t, 200)
	all.stop()
	closeAll()
	tally := all.audit(t, "black hole", next)
	onlyKinds(t, tally, "ok", "outcome unknown", "not committed", "session lost")
	left, err := pgtest.Value[int](ctx, old, "SELECT count(*) FROM once WHERE id >= $1", began)
	pgtest.OK(t, err)
	if left > 0 {
		t.Errorf("%d rows of calls that began after the return of the old primary are there", left)
	}
}

// committedOrNot compares what Commit said in a black hole with what the new
// primary holds.
func committedOrNot(t testing.TB, said error, next *pgtest.Node) {
	t.Helper()
	rows, err := pgtest.Value[int](pgtest.Context(t), next, "SELECT count(*) FROM aside WHERE n = 1")
	pgtest.OK(t, err)
	switch {
	case said == nil && rows != 1:
		t.Error("Commit in a black hole succeeded, and the row is not there")
	case errors.Is(said, helios.ErrNotCommitted) && rows != 0:
		t.Errorf("Commit in a black hole = %v, and the row is there", said)
	case said != nil && !errors.Is(said, helios.ErrNotCommitted) && !errors.Is(said, helios.ErrOutcomeUnknown):
		t.Errorf("Commit in a black hole = %v", said)
	}
	t.Logf("FIGURES black hole: Commit said %v", said)
}

// openTransactions begins transactions of which each has written its number to a
// table aside, from 1 on.
func openTransactions(t testing.TB, db *sql.DB, n int) []*sql.Tx {
	t.Helper()
	exec(t, pgtest.Context(t), db, "CREATE TABLE IF NOT EXISTS aside (n int)")
	all := make([]*sql.Tx, n)
	for i := range all {
		tx, err := db.BeginTx(context.Background(), nil)
		pgtest.OK(t, err)
		exec(t, pgtest.Context(t), tx, "INSERT INTO aside VALUES ($1)", i+1)
		all[i] = tx
	}
	return all
}

// The network swallows what is sent to the primary for so long that the driver
// gives the connections up, and then delivers it: what nobody waits for any more
// is executed then. What the programs were told before is true all the same.
func TestWhatWasSwallowedArrivesLateAndChangesNothing(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1, Proxied: true})
	all := newCalls(t, c.Primary())
	dbs, closeAll := reckless(t, c, "probe_interval=50ms", "probe_timeout=300ms", "failover_wait=20s")
	proxy := c.Primary().Proxy
	all.start(t, dbs, 12)
	for range 12 {
		all.awaitDone(t, 1+rand.Int64N(30))
		proxy.BlackHole()
		for _, db := range dbs {
			await(t, "the primary to be given up", func() bool {
				st := statusOf(clusterOf(t, db), c.Primary())
				return st.State == "down" && st.Conns.Busy == 0
			})
		}
		pgtest.OK(t, proxy.Heal())
	}
	all.awaitDone(t, 100)
	all.stop()
	resolved := uint64(0)
	for _, db := range dbs {
		resolved += clusterOf(t, db).Stats().Resolved
	}
	closeAll()
	t.Logf("FIGURES swallowed: %d lost answers found out", resolved)
	onlyKinds(t, all.audit(t, "swallowed", c.Primary()), "ok", "outcome unknown", "not committed", "session lost")
}

// A replica falls silent with reads under way: they are answered by others, and
// so are all that follow.
func TestAReplicaInABlackHoleIsLeft(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2, Proxied: true})
	db := open(t, c, quickProbes...)
	known := clusterOf(t, db)
	ctx := pgtest.Context(t)
	silent := c.Nodes[1]
	readers := startCrowd(t, db, 8)
	awaitRoles(t, known, c.Primary(), 2)
	awaitReads(t, known, silent, 100)

	silent.Proxy.BlackHole()
	swallowed := time.Now()
	took := timed(t, "reads on a replica that fell silent", soon, func() {
		await(t, "the reads under way to end", func() bool { return statusOf(known, silent).Conns.Busy == 0 && statusOf(known, silent).State == "down" })
	})
	t.Logf("FIGURES silent replica: its reads were answered by others after %v", took)
	awaitReads(t, known, c.Nodes[2], 200)
	before := statusOf(known, silent).Reads
	timed(t, "a read with a deadline", soon, func() { value[int](t, ctx, db, "SELECT 1") })
	if n := statusOf(known, silent).Reads - before; n > 0 {
		t.Errorf("%d reads were answered by the silent replica", n)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := known.RemoveReplica(short, silent.Addr()); err != nil {
		t.Errorf("RemoveReplica of a silent replica on which nothing runs = %v", err)
	}
	pgtest.OK(t, known.AddReplica(ctx, silent.Addr()))
	pgtest.OK(t, silent.Proxy.Heal())
	awaitReads(t, known, silent, 100)
	t.Logf("FIGURES silent replica: it was back %v after it fell silent", time.Since(swallowed).Round(time.Millisecond))
	readers.stop(t)
}

// A silence that is shorter than what declares a node down is a wait and
// nothing else.
func TestAShortSilenceIsOnlyAWait(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1, Proxied: true})
	all := newCalls(t, c.Primary())
	dbs, closeAll := reckless(t, c, "probe_timeout=30s")
	witness := open(t, c, "probe_timeout=30s")
	pgtest.OK(t, witness.Ping())
	all.start(t, dbs, 6)
	for range 5 {
		all.awaitDone(t, 30)
		for _, n := range c.Nodes {
			n.Proxy.BlackHole()
		}
		short, cancel := context.WithTimeout(pgtest.Context(t), 50*time.Millisecond)
		if err := witness.PingContext(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Ping in a black hole = %v, want DeadlineExceeded", err)
		}
		cancel()
		for _, n := range c.Nodes {
			pgtest.OK(t, n.Proxy.Heal())
		}
	}
	all.awaitDone(t, 100)
	all.stop()
	closeAll()
	pgtest.OK(t, witness.Close())
	onlyKinds(t, all.audit(t, "short silences", c.Primary()), "ok")
}

// Closing the handle waits for nobody who does not answer.
func TestCloseInABlackHoleReturnsAtOnce(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1, Proxied: true})
	db := open(t, c, "pool_max_conns=12")
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE t (n int)")
	txs := openTransactions(t, db, 2)
	pinned := conn(t, db)
	exec(t, ctx, pinned, "SET work_mem = '6MB'")
	var waiting sync.WaitGroup
	for range 4 {
		waiting.Go(func() {
			if _, err := db.ExecContext(context.Background(), "INSERT INTO t SELECT 1 FROM pg_sleep(55)"); !errors.Is(err, helios.ErrOutcomeUnknown) {
				t.Errorf("a write whose handle was closed = %v, want that its outcome is unknown", err)
			}
		})
		waiting.Go(func() {
			if err := db.QueryRowContext(context.Background(), "SELECT 1 FROM pg_sleep(55)").Scan(new(int)); err == nil {
				t.Error("a read whose handle was closed succeeded")
			}
		})
	}
	for _, n := range c.Nodes {
		pgtest.OK(t, n.Await(ctx, "SELECT count(*) = 4 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
		n.Proxy.BlackHole()
	}
	took := timed(t, "Close", soon, func() { pgtest.OK(t, db.Close()) })
	waiting.Wait()
	t.Logf("FIGURES black hole: Close returned after %v", took)
	for _, tx := range txs {
		if err := tx.Commit(); err == nil {
			t.Error("Commit after Close succeeded")
		}
	}
	if _, err := pinned.ExecContext(ctx, "SELECT 1"); err == nil {
		t.Error("a pinned session works after Close")
	}
}

// A handle that is opened while the primary is silent reads at once, and writes
// when there is a primary again.
func TestAHandleOpenedDuringASilenceReadsAndWaitsToWrite(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2, Proxied: true})
	ctx := pgtest.Context(t)
	pgtest.OK(t, c.Primary().Exec(ctx, "CREATE TABLE t (n int)"))
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	c.Primary().Proxy.BlackHole()
	db := open(t, c, append(quickProbes, "failover_wait=30s")...)
	took := timed(t, "the first read", soon, func() { value[int](t, ctx, db, "SELECT count(*) FROM t") })
	t.Logf("FIGURES black hole: the first read of a new handle took %v", took)
	impatient := open(t, c, append(quickProbes, "failover_wait=100ms")...)
	if _, err := impatient.ExecContext(ctx, "INSERT INTO t VALUES (1)"); !errors.Is(err, helios.ErrNoPrimary) || !helios.SafeToRetry(err) {
		t.Errorf("a write while the primary is silent = %v, want ErrNoPrimary, and that nothing was sent", err)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := db.ExecContext(ctx, "INSERT INTO t VALUES (2)")
		wrote <- err
	}()
	pgtest.OK(t, c.Promote(ctx, c.Nodes[1]))
	pgtest.OK(t, <-wrote)
	if n := value[int](t, ctx, db, "SELECT count(*) FROM t WHERE n = 2"); n != 1 {
		t.Errorf("%d rows of the write that waited, want 1", n)
	}
}
