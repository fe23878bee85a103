package integration_test

import (
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// A standby on a branch of history that was left behind, and that still runs,
// asks its new primary for WAL again and again, and says each time that it has
// flushed more than the primary has ever written. PostgreSQL takes its word, and
// lets synchronous commits go that nobody else has. The relay does not.
func TestADivergedStandbyNeverReleasesACommit(t *testing.T) {
	c := newSyncCluster(t, 2)
	ctx := pgtest.Context(t)
	next, diverged := c.Nodes[1], c.Nodes[2]
	strayed := divergeFrom(t, c, diverged, next)

	// It says so once in this time, however often it asks.
	pgtest.OK(t, c.Configure(ctx, diverged, map[string]string{"wal_receiver_status_interval": "1s"}))

	r := startRelay(t, next.Server().Conninfo(""), acknowledging(t, "ANY 1 (n3)"))
	streamFrom(ctx, t, diverged, r.conninfo("n3"))
	awaitHead(t, r.Relay, writtenOn(ctx, t, next))
	first := beginCommit(t, next, "on", 1)
	first.awaitWait(ctx)
	for range 2 {
		awaitClaim(t, r.Relay, "n3")
	}
	waits(t, r, first)
	if got := whatIsKnownOf(ctx, t, next, syncName); got.Flush.Valid {
		t.Errorf("the new primary knows of a flush of %s, though only a diverged standby was there", got.Flush.String)
	}

	// PostgreSQL itself lets the same commit go, and nobody has its row.
	r.halt()
	streamFrom(ctx, t, diverged, next.Server().Conninfo(syncName))
	first.returns()
	rows, err := pgtest.Value[int](ctx, diverged, "SELECT count(*) FROM t WHERE n = 1")
	pgtest.OK(t, err)
	if rows != 0 {
		t.Fatalf("the diverged standby has the row of the commit: it has not diverged")
	}

	// Brought back to the primary's history, it counts: for what lies behind the
	// position that PostgreSQL believed before.
	pgtest.OK(t, c.Rejoin(ctx, diverged))
	for writtenOn(ctx, t, next) <= strayed {
		pgtest.OK(t, next.Exec(ctx, "INSERT INTO t SELECT generate_series(1, 10000)"))
	}
	r.start()
	second := beginCommit(t, next, "on", 2)
	waits(t, r, second)
	streamFrom(ctx, t, diverged, r.conninfo("n3"))
	second.returns()
	awaitSame(ctx, t, next, diverged)
}

// awaitClaim returns when the subscriber has told once more what it says it has.
func awaitClaim(t testing.TB, r *relay.Relay, name string) {
	t.Helper()
	before, _ := subscriber(r, name)
	await(t, name+" says how far it is", func() bool {
		now, _ := subscriber(r, name)
		return now.Heard.After(before.Heard)
	})
}

// divergeFrom kills the primary and promotes next, which lacks the last of what
// stray has received, and returns how far stray has got. It has not noticed yet.
func divergeFrom(t *testing.T, c *pgtest.Cluster, stray, next *pgtest.Node) wal.LSN {
	t.Helper()
	ctx := pgtest.Context(t)
	old := c.Primary()
	// All that follows is in one segment: a standby asks from the start of its
	// own on, and would be refused if that lay behind the fork.
	pgtest.OK(t, old.Exec(ctx, "SELECT pg_switch_wal()"))
	pgtest.OK(t, old.Exec(ctx, "INSERT INTO t VALUES (0)"))
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	streamFrom(ctx, t, next, "host=127.0.0.1 port=1")
	pgtest.OK(t, old.Await(ctx, "SELECT count(*) = 1 FROM pg_stat_replication"))
	pgtest.OK(t, old.Exec(ctx, "INSERT INTO t SELECT n FROM generate_series(1000, 20000) n"))
	strayed := writtenOn(ctx, t, old)
	pgtest.OK(t, stray.WaitReplayed(ctx, strayed))
	pgtest.OK(t, c.Kill(old))
	pgtest.OK(t, c.Promote(ctx, next))
	return strayed
}
