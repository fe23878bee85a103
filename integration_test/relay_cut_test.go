package integration_test

import (
	"math/rand/v2"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
)

// The link between two relays breaks anywhere: in the header of a frame, within
// it, between two. What has come whole is kept, the rest is sent again, and no
// byte is wrong.
func TestALinkThatIsCutInTheMiddleOfFramesCostsNothing(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := storyContext(t)
	primary, n2 := c.Primary(), c.Nodes[1]
	near := startRelay(t, primary.Server().Conninfo(""))
	link, err := pgtest.StartProxy(near.addr())
	pgtest.OK(t, err)
	t.Cleanup(func() { pgtest.OK(t, link.Close()) })
	far := startRelay(t, conninfoTo(t, link.Addr()))
	streamFrom(ctx, t, n2, far.conninfo("n2"))
	load := startPgbench(t, c)
	cuts := 40
	if testing.Short() {
		cuts = 10
	}
	for range cuts {
		before := link.Stats().Accepted
		link.CutAfter(rand.Int64N(128 << 10))
		fill(ctx, t, primary, 256<<10)
		await(t, "the cut and a new connection", func() bool { return link.Stats().Accepted > before })
	}
	pgtest.OK(t, link.Heal())
	load.stop()
	awaitSame(ctx, t, primary, n2)
	awaitRest(ctx, t, primary, n2)
	t.Logf("FIGURES %d cuts, %d bytes in frames over the link, %+v", cuts, link.Stats().ToClient, near.Status().Metrics.FrameBytes)
}
