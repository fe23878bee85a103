package integration_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// syncName is what relays are called that synchronous commits wait for.
const syncName = "relay"

// newSyncCluster starts a cluster whose synchronous commits wait for a relay
// called syncName. Nothing is synchronous but what says so: see beginCommit.
func newSyncCluster(t testing.TB, replicas int) *pgtest.Cluster {
	t.Helper()
	c := pgtest.New(t, pgtest.Options{Replicas: replicas, Settings: map[string]string{
		"synchronous_standby_names": syncName,
		"synchronous_commit":        "local",
	}})
	pgtest.OK(t, c.Primary().Exec(pgtest.Context(t), "CREATE TABLE t (n int)"))
	commitsWait(t, c.Primary())
	return c
}

// acknowledging makes a relay the one that synchronous commits wait for.
func acknowledging(t testing.TB, policy string) func(*relay.Config) {
	t.Helper()
	p, err := relay.ParsePolicy(policy)
	pgtest.OK(t, err)
	return func(cfg *relay.Config) { cfg.Name, cfg.Acknowledge = syncName, p }
}

// A commit is one row that is being inserted into table t.
type commit struct {
	t       testing.TB
	primary *pgtest.Node
	pid     uint32
	done    chan error // holds one: how it ended
}

// beginCommit inserts n with the given synchronous_commit, on a session of its
// own.
func beginCommit(t testing.TB, primary *pgtest.Node, level string, n int) *commit {
	t.Helper()
	ctx, cancel := context.WithCancel(pgtest.Context(t))
	conn, err := primary.Connect(ctx)
	pgtest.OK(t, err)
	_, err = conn.Exec(ctx, "SET synchronous_commit = "+level)
	pgtest.OK(t, err)
	c := &commit{t: t, primary: primary, pid: conn.PgConn().PID(), done: make(chan error, 1)}
	var running sync.WaitGroup
	running.Go(func() {
		defer conn.Close(context.Background())
		_, err := conn.Exec(ctx, "INSERT INTO t VALUES ($1)", n)
		c.done <- err
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return c
}

// waits sees that the commits stand in the wait for their standbys, and still do
// when the relay has told the primary again how far it is.
func waits(t testing.TB, r *relayUnderTest, commits ...*commit) {
	t.Helper()
	ctx := pgtest.Context(t)
	for _, c := range commits {
		c.awaitWait(ctx)
	}
	awaitWord(ctx, t, r.Relay, commits[0].primary)
	for _, c := range commits {
		c.stillWaits()
	}
}

// awaitWait returns when the commit waits for standbys.
func (c *commit) awaitWait(ctx context.Context) {
	c.t.Helper()
	pgtest.OK(c.t, c.primary.Await(ctx, "SELECT coalesce(bool_or(wait_event = 'SyncRep'), false) FROM pg_stat_activity WHERE pid = $1", int64(c.pid)))
}

// stillWaits sees that the commit has not returned.
func (c *commit) stillWaits() {
	c.t.Helper()
	select {
	case err := <-c.done:
		c.t.Fatalf("a commit returned %v, and should have waited", err)
	default:
	}
}

// returns waits for the commit to end well.
func (c *commit) returns() {
	c.t.Helper()
	select {
	case err := <-c.done:
		pgtest.OK(c.t, err)
	case <-time.After(time.Minute):
		c.t.Fatal("a commit still waits after a minute")
	}
}

// awaitWord returns when the relay has told the primary what it knew at the call.
func awaitWord(ctx context.Context, t testing.TB, r *relay.Relay, primary *pgtest.Node) {
	t.Helper()
	now, err := pgtest.Value[time.Time](ctx, primary, "SELECT clock_timestamp()")
	pgtest.OK(t, err)
	r.Release() // else it speaks once in a second
	pgtest.OK(t, primary.Await(ctx, "SELECT coalesce(bool_or(reply_time > $1), false) FROM pg_stat_replication WHERE application_name = $2", now, syncName))
}

// heardBy is what the primary knows of its relay, in pg_stat_replication's words;
// nothing is NULL.
type heardBy struct{ Write, Flush, Replay pgtype.Text }

func whatIsKnownOf(ctx context.Context, t testing.TB, primary *pgtest.Node, name string) heardBy {
	t.Helper()
	conn, err := primary.Connect(ctx)
	pgtest.OK(t, err)
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT write_lsn::text, flush_lsn::text, replay_lsn::text FROM pg_stat_replication WHERE application_name = $1", name)
	pgtest.OK(t, err)
	known, err := pgx.CollectExactlyOneRow(rows, pgx.RowToStructByPos[heardBy])
	pgtest.OK(t, err)
	return known
}

// awaitHead returns when the relay has the WAL up to at.
func awaitHead(t testing.TB, r *relay.Relay, at wal.LSN) {
	t.Helper()
	await(t, "the relay has WAL up to "+at.String(), func() bool { return r.Status().Head >= at })
}

// subscriber returns what the relay knows of the subscriber of that name, and
// false if there is none.
func subscriber(r *relay.Relay, name string) (relay.SubscriberMetrics, bool) {
	for _, s := range r.Status().Subscribers {
		if s.Name == name {
			return s, true
		}
	}
	return relay.SubscriberMetrics{}, false
}

// awaitConfirmed returns when each of the named has flushed what the primary has
// written, as far as the relay knows.
func awaitConfirmed(ctx context.Context, t testing.TB, r *relay.Relay, primary *pgtest.Node, names ...string) {
	t.Helper()
	at := writtenOn(ctx, t, primary)
	for _, name := range names {
		await(t, name+" has flushed "+at.String(), func() bool {
			s, ok := subscriber(r, name)
			return ok && s.Confirmed.Flush >= at
		})
	}
}
