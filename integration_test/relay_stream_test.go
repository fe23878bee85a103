package integration_test

import (
	"context"
	"testing"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// A standby behind one relay, and one behind two with LZ4 between them, are the
// primary's equals: in position, in rows, in indexes, and in every page.
func TestStandbysBehindRelaysHaveEveryRow(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	ctx := pgtest.Context(t)
	withChecksums(ctx, t, c)
	primary, n2, n3 := c.Primary(), c.Nodes[1], c.Nodes[2]
	near := startRelay(t, primary.Server().Conninfo("near"))
	far := startRelay(t, near.conninfo("far"))
	streamFrom(ctx, t, n2, near.conninfo("n2"))
	streamFrom(ctx, t, n3, far.conninfo("n3"))
	seconds, scale := "3", "2"
	if testing.Short() {
		seconds, scale = "1", "1"
	}
	pgtest.OK(t, primary.Exec(ctx, "CREATE EXTENSION amcheck"))
	pgbench(ctx, t, primary, "-i", "-s", scale, "-q")
	pgbench(ctx, t, primary, "-c", "4", "-T", seconds)
	awaitSame(ctx, t, primary, n2, n3)
	awaitRest(ctx, t, primary, n2, n3)
	t.Logf("FIGURES near: %+v", near.Status().Metrics)
	t.Logf("FIGURES far: %+v", far.Status().Metrics)
	if far := far.Status().Metrics; far.Head != near.Status().Head || far.Head == 0 {
		t.Errorf("the relays stand at %s and %s, want the same", near.Status().Head, far.Head)
	}
	checkPages(ctx, t, c, n2, n3)
}

// withChecksums gives every page of a cluster a checksum.
func withChecksums(ctx context.Context, t testing.TB, c *pgtest.Cluster) {
	t.Helper()
	on, err := pgtest.Value[bool](ctx, c.Primary(), "SELECT current_setting('data_checksums')::bool")
	pgtest.OK(t, err)
	if on { // by default from PostgreSQL 18 on
		return
	}
	for _, n := range c.Nodes {
		pgtest.OK(t, c.Stop(ctx, n, pgctl.Fast))
		run(ctx, t, "pg_checksums", "--enable", "--no-sync", "-D", ownServer(t, n).Dir())
	}
	for _, n := range c.Nodes {
		pgtest.OK(t, c.Start(ctx, n))
	}
}

// checkPages has pg_amcheck compare every table and index of the nodes, and,
// once they are stopped, pg_checksums every page. PostgreSQL 13 has no pg_amcheck.
func checkPages(ctx context.Context, t testing.TB, c *pgtest.Cluster, nodes ...*pgtest.Node) {
	t.Helper()
	for _, n := range nodes {
		if major >= 14 {
			run(ctx, t, "pg_amcheck", "--heapallindexed", "--jobs=2", "--all", "--maintenance-db="+n.Server().Conninfo("pg_amcheck"))
		}
		pgtest.OK(t, c.Stop(ctx, n, pgctl.Fast))
		t.Logf("%s: %s", n.Name, run(ctx, t, "pg_checksums", "--check", "-D", ownServer(t, n).Dir()))
	}
}
