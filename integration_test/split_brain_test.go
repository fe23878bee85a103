package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// awaitRefused returns when the driver refuses a node for a reason that contains
// the given words.
func awaitRefused(t testing.TB, db *sql.DB, n *pgtest.Node, why string) {
	t.Helper()
	known := clusterOf(t, db)
	await(t, n.Name+" to be refused", func() bool { return statusOf(known, n).State == "refused" })
	if reason := statusOf(known, n).Reason; !strings.Contains(reason, why) {
		t.Errorf("%s is refused because %q, want a word about %s", n.Name, reason, why)
	}
}

// readsAvoid reads in sessions that have seen something and in others, and fails
// the test if n answers or a read fails.
func readsAvoid(t testing.TB, db *sql.DB, n *pgtest.Node) {
	t.Helper()
	ctx, known := pgtest.Context(t), clusterOf(t, db)
	before := statusOf(known, n).Reads
	for range 50 {
		value[int](t, ctx, db, "SELECT count(*) FROM t")
		value[int](t, helios.WithConsistency(ctx, helios.Eventual), db, "SELECT count(*) FROM t")
		value[int](t, helios.WithSession(ctx, helios.NewSession()), db, "SELECT count(*) FROM t")
	}
	if got := statusOf(known, n).Reads - before; got > 0 {
		t.Errorf("%d reads ran on %s", got, n.Name)
	}
	if err := db.QueryRowContext(helios.Node(ctx, n.Addr()), "SELECT 1").Scan(new(int)); err == nil || !helios.SafeToRetry(err) {
		t.Errorf("a read on %s, which is refused, = %v, want an error, and that nothing was sent", n.Name, err)
	}
}

// idsOn returns how many rows with the id a node holds.
func idsOn(t testing.TB, n *pgtest.Node, id int) int {
	t.Helper()
	found, err := pgtest.Value[int](pgtest.Context(t), n, "SELECT count(*) FROM t WHERE id = $1", id)
	pgtest.OK(t, err)
	return found
}

// Two replicas are promoted when the primary dies: both are primaries of the
// same timeline, and nobody can say which one is right. Neither gets a write
// until somebody decides.
func TestTwoPrimariesOfOneTimelineGetNoWrites(t *testing.T) {
	for name, decide := range map[string]func(*pgtest.Cluster, *helios.Cluster) error{
		"one is removed": func(c *pgtest.Cluster, known *helios.Cluster) error {
			return known.RemoveReplica(context.Background(), c.Nodes[2].Addr())
		},
		"one is stopped": func(c *pgtest.Cluster, _ *helios.Cluster) error {
			return c.Stop(context.Background(), c.Nodes[2], pgctl.Fast)
		},
	} {
		t.Run(name, func(t *testing.T) { splitBrain(t, decide) })
	}
}

func splitBrain(t *testing.T, decide func(*pgtest.Cluster, *helios.Cluster) error) {
	c := pgtest.New(t, pgtest.Options{Replicas: 3})
	ctx := pgtest.Context(t)
	db := open(t, c, "probe_interval=50ms", "failover_wait=300ms")
	patient := open(t, c, "probe_interval=50ms", "failover_wait=50s")
	known := clusterOf(t, db)
	exec(t, ctx, patient, "CREATE TABLE t (id int)")
	exec(t, ctx, patient, "INSERT INTO t VALUES (1)")
	value[int](t, ctx, db, "SELECT count(*) FROM t") // a handle looks at the cluster from its first use on
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	kept, other, replica := c.Nodes[1], c.Nodes[2], c.Nodes[3]
	pgtest.OK(t, c.Kill(c.Primary()))
	pgtest.OK(t, errors.Join(c.Promote(ctx, kept), c.Promote(ctx, other), c.FollowOne(ctx, replica, kept)))

	await(t, "the split to be seen, and a replica of the new timeline", func() bool {
		return known.Status().Split && clusterOf(t, patient).Status().Split && statusOf(known, replica).Timeline == 2
	})
	wrote := make(chan error, 1)
	go func() {
		_, err := patient.ExecContext(ctx, "INSERT INTO t VALUES (3)")
		wrote <- err
	}()
	refusesWrites(t, db, known, other)
	pgtest.OK(t, c.Freeze(other)) // which is no answer to the question
	await(t, "the frozen primary to be down", func() bool { return statusOf(known, other).State == "down" })
	refusesWrites(t, db, known, other)
	pgtest.OK(t, c.Thaw(other))
	awaitRefused(t, db, other, "two primaries")
	readsAvoid(t, db, other)
	if err := db.QueryRowContext(helios.Primary(ctx), "SELECT 1").Scan(new(int)); !errors.Is(err, helios.ErrSplitBrain) {
		t.Errorf("a read that needs the primary = %v, want ErrSplitBrain", err)
	}
	if a, b := idsOn(t, kept, 2)+idsOn(t, kept, 3), idsOn(t, other, 2)+idsOn(t, other, 3); a+b > 0 {
		t.Errorf("%d and %d writes ran on the two primaries", a, b)
	}

	pgtest.OK(t, decide(c, known))
	pgtest.OK(t, decide(c, clusterOf(t, patient)))
	pgtest.OK(t, <-wrote)
	await(t, "the other handle to write", func() bool {
		_, err := db.ExecContext(ctx, "INSERT INTO t VALUES (4)")
		return err == nil
	})
	if a, b := idsOn(t, kept, 3), idsOn(t, kept, 4); a != 1 || b != 1 {
		t.Errorf("the primary that was kept has %d and %d of the rows, want one of each", a, b)
	}
	if st := known.Status(); st.Split || st.Primary != kept.Addr() {
		t.Errorf("the primary is %s, split %v; want %s", st.Primary, st.Split, kept.Addr())
	}
}

// refusesWrites tries to write in a split cluster.
func refusesWrites(t testing.TB, db *sql.DB, known *helios.Cluster, n *pgtest.Node) {
	t.Helper()
	ctx := pgtest.Context(t)
	for range 3 {
		_, err := db.ExecContext(ctx, "INSERT INTO t VALUES (2)")
		if !errors.Is(err, helios.ErrSplitBrain) || !helios.SafeToRetry(err) {
			t.Errorf("a write = %v, want ErrSplitBrain, and that nothing was sent", err)
		}
		tx, err := db.BeginTx(ctx, nil)
		pgtest.OK(t, err)
		if _, err := tx.ExecContext(ctx, "INSERT INTO t VALUES (2)"); !errors.Is(err, helios.ErrSplitBrain) {
			t.Errorf("a write in a transaction = %v, want ErrSplitBrain", err)
		}
		pgtest.OK(t, tx.Rollback())
	}
	if st := known.Status(); !st.Split || st.Primary != "" {
		t.Errorf("%s is %s and the primary is %q, split %v; want none", n.Name, statusOf(known, n).State, st.Primary, st.Split)
	}
}

// The replica that had received the least is promoted. Another one shows rows
// that are not part of the cluster's history any more: it is not read.
func TestAReplicaPastTheForkIsNotRead(t *testing.T) {
	for name, attributes := range map[string]string{
		"by a superuser":            "SUPERUSER",
		"by a member of pg_monitor": "IN ROLE pg_monitor",
		"by an ordinary user":       "",
	} {
		t.Run(name, func(t *testing.T) { pastTheFork(t, attributes) })
	}
}

func pastTheFork(t *testing.T, attributes string) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	ctx := pgtest.Context(t)
	next, astray := c.Nodes[1], c.Nodes[2]
	pgtest.OK(t, c.CreateUser(ctx, "app", attributes))
	for _, sql := range []string{"CREATE TABLE t (id int)", "GRANT ALL ON t TO app"} {
		pgtest.OK(t, c.Primary().Exec(ctx, sql))
	}
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	db := openAs(t, c, "app", "probe_interval=50ms")
	known := clusterOf(t, db)
	exec(t, ctx, db, "INSERT INTO t VALUES (1)")
	pgtest.OK(t, next.WaitReplayed(ctx, known.Token().LSN))
	pgtest.OK(t, c.Configure(ctx, next, map[string]string{"primary_conninfo": ""})) // it receives nothing more
	pgtest.OK(t, next.Await(ctx, "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)"))
	exec(t, ctx, db, "INSERT INTO t VALUES (2)")
	lost := known.Token().LSN
	pgtest.OK(t, astray.WaitReplayed(ctx, lost))
	await(t, "the driver to see that one has replayed more", func() bool { return statusOf(known, astray).ReplayLSN >= lost })
	seen := time.Now()
	await(t, "the driver to see that the other is a replica yet", func() bool {
		st := statusOf(known, next)
		return st.SeenAt.Add(-st.RTT).After(seen)
	})
	pgtest.OK(t, c.Kill(c.Primary()))
	pgtest.OK(t, errors.Join(c.Promote(ctx, next), c.FollowOne(ctx, astray, next)))

	awaitRefused(t, db, astray, "past the switch")
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(new(int)); !errors.Is(err, helios.ErrWriteLost) {
		t.Errorf("the first read of the session whose write is gone = %v, want ErrWriteLost", err)
	}
	readsAvoid(t, db, astray)

	late := openAs(t, c, "app", "probe_interval=50ms") // has seen nothing of it
	exec(t, ctx, late, "INSERT INTO t VALUES (3)")
	if attributes == "SUPERUSER" { // who may read where the timeline began
		awaitRefused(t, late, astray, "past the switch")
		readsAvoid(t, late, astray)
	}
	for range 50 {
		if n := value[int](t, ctx, late, "SELECT count(*) FROM t WHERE id = 2"); n != 0 {
			t.Fatal("a read of a session that wrote shows a row that is gone")
		}
	}
}

// A server of another cluster is not used, whether the DSN names it first or it
// is added later.
func TestANodeOfAnotherClusterIsNotUsed(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	foreign := pgtest.New(t, pgtest.Options{Foreign: true})
	ctx := pgtest.Context(t)
	stranger := foreign.Primary()
	for _, n := range []*pgtest.Node{c.Primary(), stranger} {
		pgtest.OK(t, n.Exec(ctx, "CREATE TABLE t (id int)"))
	}
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	named := openDSN(t, strings.Replace(c.DSN("probe_interval=50ms"), c.Primary().Addr(), stranger.Addr()+","+c.Primary().Addr(), 1))
	added := open(t, c, "probe_interval=50ms")
	pgtest.OK(t, clusterOf(t, added).AddReplica(ctx, stranger.Addr()))
	for _, db := range []*sql.DB{named, added} {
		exec(t, ctx, db, "INSERT INTO t VALUES (1)")
		awaitRefused(t, db, stranger, "another cluster")
		for range 20 {
			exec(t, ctx, db, "INSERT INTO t VALUES (1)")
		}
		readsAvoid(t, db, stranger)
		if st := statusOf(clusterOf(t, db), stranger); st.Writes != 0 || st.Reads != 0 {
			t.Errorf("%d writes and %d reads ran on the stranger", st.Writes, st.Reads)
		}
		pgtest.OK(t, clusterOf(t, db).RemoveReplica(ctx, stranger.Addr()))
	}
	if n := idsOn(t, stranger, 1); n != 0 {
		t.Errorf("the stranger has %d rows of ours", n)
	}

	one := strings.Split(c.DSN("failover_wait=100ms", "probe_interval=50ms"), ",") // the primary alone against the stranger
	even := openDSN(t, one[0]+","+stranger.Addr()+one[1][strings.Index(one[1], "/"):])
	if _, err := even.ExecContext(ctx, "INSERT INTO t VALUES (1)"); err == nil || !strings.Contains(err.Error(), "different clusters") {
		t.Errorf("a write with one host of each of two clusters = %v, want that they are of different clusters", err)
	}
}

// A primary was fenced for a switchover, and lets writes in again when another
// node has taken over: it gets none.
func TestAFencedPrimaryThatIsUnfencedLaterGetsNoWrites(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	ctx := pgtest.Context(t)
	db := open(t, c, "probe_interval=50ms")
	l := startLoad(t, db, 4, 2, 4)
	l.awaitWrites(t, 50)
	old, next := c.Primary(), c.Nodes[1]
	pgtest.OK(t, c.Fence(ctx, old))
	pgtest.OK(t, old.Await(ctx, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_xid IS NOT NULL)"))
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	pgtest.OK(t, errors.Join(c.Promote(ctx, next), c.Follow(ctx, next)))
	l.awaitWrites(t, 50)
	awaitRefused(t, db, old, "timeline")
	begunLater := l.next.Load()
	pgtest.OK(t, c.Unfence(ctx, old))
	pgtest.OK(t, old.Await(ctx, "SELECT current_setting('default_transaction_read_only') = 'off'"))
	before := statusOf(clusterOf(t, db), old)
	late := open(t, c, "probe_interval=50ms")
	for range 20 {
		mustNotRunOn(t, late, old)
	}
	l.awaitWrites(t, 200)
	l.stop()
	if st := statusOf(clusterOf(t, db), old); st.State != "refused" || st.Writes != before.Writes || st.Reads != before.Reads {
		t.Errorf("the old primary is %s; it executed %d writes and %d reads after its fence was lifted, want none",
			st.State, st.Writes-before.Writes, st.Reads-before.Reads)
	}
	for id := range l.rows(t, old) {
		if max(id, -id) > begunLater {
			t.Errorf("id %d was written to the old primary", id)
		}
	}
	l.allow(t)
	l.verify(t, next)
}
