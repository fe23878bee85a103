package integration_test

import (
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
)

// A standby behind one relay, and one behind two with LZ4 between them, are the
// primary's equals.
func TestStandbysBehindRelaysHaveEveryRow(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	ctx := pgtest.Context(t)
	primary := c.Primary()
	near := startRelay(t, primary.Server().Conninfo("near"))
	far := startRelay(t, near.conninfo("far"))
	streamFrom(ctx, t, c.Nodes[1], near.conninfo("n2"))
	streamFrom(ctx, t, c.Nodes[2], far.conninfo("n3"))
	pgbench(ctx, t, primary, "-i", "-s", "2", "-q")
	pgbench(ctx, t, primary, "-c", "4", "-T", "3")
	awaitSame(ctx, t, primary, c.Nodes[1], c.Nodes[2])
	t.Logf("FIGURES near: %+v", near.Status().Metrics)
	t.Logf("FIGURES far: %+v", far.Status().Metrics)
}
