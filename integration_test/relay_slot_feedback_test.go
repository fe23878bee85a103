package integration_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// What the oldest query on any standby still needs is kept on the primary: hot
// standby feedback passes through one relay and through two, and is taken back
// when the query ends, or the standby leaves.
func TestTheOldestQueryOfAnyStandbyHoldsRowsOnThePrimary(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2, Settings: map[string]string{
		"hot_standby_feedback": "on", "wal_receiver_status_interval": "1s", "autovacuum": "off",
	}})
	ctx := storyContext(t)
	primary, n2, n3 := c.Primary(), c.Nodes[1], c.Nodes[2]
	near := startRelay(t, primary.Server().Conninfo(""))
	far := startRelay(t, near.conninfo(""))
	streamFrom(ctx, t, n2, near.conninfo("n2"))
	streamFrom(ctx, t, n3, far.conninfo("n3"))
	pgtest.OK(t, primary.Exec(ctx, "CREATE TABLE t AS SELECT generate_series(1, 1000) n"))
	awaitFlow(t, primary, n2, n3)

	old, oldest := snapshot(ctx, t, n3)
	for range 5 {
		pgtest.OK(t, primary.Exec(ctx, "UPDATE t SET n = n + 1"))
	}
	awaitFlow(t, primary, n2, n3)
	newer, younger := snapshot(ctx, t, n2)
	if younger <= oldest {
		t.Fatalf("the later snapshot needs %d, and the earlier one %d", younger, oldest)
	}
	holds := func(xmin int64) {
		t.Helper()
		pgtest.OK(t, primary.Await(ctx, "SELECT coalesce(bool_or(backend_xmin::text::bigint = $1), false) FROM pg_stat_replication", xmin))
	}
	holds(oldest)
	pgtest.OK(t, primary.Exec(ctx, "VACUUM t"))
	awaitFlow(t, primary, n3)
	if got := countOf(ctx, t, old); got != 1000 {
		t.Errorf("the old snapshot sees %d rows after a vacuum, want 1000", got)
	}
	pgtest.OK(t, old.Close(ctx))
	holds(younger)
	pgtest.OK(t, newer.Close(ctx))
	for _, n := range []*pgtest.Node{n2, n3} {
		pgtest.OK(t, c.Stop(ctx, n, pgctl.Fast))
	}
	pgtest.OK(t, primary.Await(ctx, "SELECT count(*) = 1 AND count(backend_xmin) = 0 FROM pg_stat_replication"))
}

// snapshot begins a transaction that sees a node as it is now, and returns it with
// the oldest transaction that it needs.
func snapshot(ctx context.Context, t testing.TB, n *pgtest.Node) (*pgx.Conn, int64) {
	t.Helper()
	conn := n.Conn(t)
	_, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	pgtest.OK(t, err)
	countOf(ctx, t, conn)
	var xmin int64
	pgtest.OK(t, conn.QueryRow(ctx, "SELECT txid_snapshot_xmin(txid_current_snapshot())").Scan(&xmin))
	return conn, xmin
}

func countOf(ctx context.Context, t testing.TB, conn *pgx.Conn) (n int) {
	t.Helper()
	pgtest.OK(t, conn.QueryRow(ctx, "SELECT count(*) FROM t WHERE n > 0").Scan(&n))
	return n
}
