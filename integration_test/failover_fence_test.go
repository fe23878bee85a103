package integration_test

import (
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
)

// A planned change of the primary: the old one is told to take no writes, the
// new one is promoted when it has everything. Clients wait, and see no error.
func TestASwitchoverByFenceIsOnlyAWait(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	db := open(t, c)
	known := clusterOf(t, db)
	ctx := pgtest.Context(t)
	l := startLoad(t, db, 8, 0, 4)
	l.awaitWrites(t, 200)

	old, next := c.Primary(), c.Nodes[1]
	fenced := time.Now()
	pgtest.OK(t, c.Fence(ctx, old))
	pgtest.OK(t, old.Await(ctx, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_xid IS NOT NULL)"))
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	promoting := time.Now()
	pgtest.OK(t, c.Promote(ctx, next))
	promoted := time.Now()
	pgtest.OK(t, c.Follow(ctx, next))
	l.awaitWrites(t, 500)
	l.stop()

	gap := l.firstSince(promoting).Sub(promoted)
	t.Logf("FIGURES fence: promoted %v after the fence, first write %v after that; writes %d, reads %d, errors: %s",
		promoted.Sub(fenced).Round(time.Millisecond), gap.Round(time.Microsecond), l.count.Load(), l.reads.Load(), l.kinds())
	if gap > maxGap {
		t.Errorf("the first write was acknowledged %v after the promotion, want at most %v", gap, maxGap)
	}
	l.allow(t)
	l.verify(t, next)
	if t.Failed() {
		listNodes(t, known)
	}
}
