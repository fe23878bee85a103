package integration_test

import (
	"path/filepath"
	"regexp"
	"testing"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal/relay"
)

// The standby that is promoted was behind the relay: what it did not have is not
// part of history any more. The relay takes it back. A standby that has it is
// refused as by PostgreSQL itself, until it is rewound or made anew; one that was
// away gets the new history only.
func TestWhatAPromotedStandbyLackedIsTakenBack(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 3})
	ctx := storyContext(t)
	n1, n2, n3, n4 := c.Nodes[0], c.Nodes[1], c.Nodes[2], c.Nodes[3]
	spool := &receivedWAL{dir: t.TempDir()}
	near := startRelay(t, n1.Server().Conninfo(""), func(cfg *relay.Config) { cfg.SpoolDir = spool.dir })
	far := startRelay(t, near.conninfo(""))
	streamFrom(ctx, t, n3, far.conninfo("n3"))
	streamFrom(ctx, t, n4, far.conninfo("n4"))
	write(ctx, t, n1, "common", n2, n3, n4)

	pgtest.OK(t, c.Freeze(n2))
	pgtest.OK(t, c.Stop(ctx, n4, pgctl.Fast))
	for _, table := range []string{"lost_1", "lost_2"} { // in more than one segment
		write(ctx, t, n1, table, n3)
		pgtest.OK(t, n1.Exec(ctx, "SELECT pg_switch_wal()"))
	}
	write(ctx, t, n1, "lost_3", n3)
	lost := far.Status().Head
	pgtest.OK(t, c.Kill(n1))
	// What was on its way to n2 arrives there when it thaws: it must not.
	pgtest.OK(t, c.Kill(n2))
	pgtest.OK(t, c.Start(ctx, n2))
	pgtest.OK(t, c.Promote(ctx, n2))
	source(t, near, n2)
	await(t, "both relays on timeline 2", func() bool { return near.Status().Timeline == 2 && far.Status().Timeline == 2 })

	write(ctx, t, n2, "won")
	pgtest.OK(t, c.Start(ctx, n4))
	awaitSame(ctx, t, n2, n4)
	if head := far.Status().Head; head >= lost {
		t.Errorf("the relay stands at %s, and what it took back went up to %s: the story shows nothing", head, lost)
	}
	awaitLog(t, n3, "requested starting point", "on timeline 1 is not in this server's history")
	if won, err := pgtest.Value[bool](ctx, n3, "SELECT to_regclass('won') IS NOT NULL"); err != nil || won {
		t.Errorf("the diverged standby has what came after the fork: %t, %v", won, err)
	}

	pgtest.OK(t, c.Rejoin(ctx, n3))
	streamFrom(ctx, t, n3, far.conninfo("n3"))
	write(ctx, t, n2, "healed", n3, n4)
	awaitSame(ctx, t, n2, n3, n4)
	// What the relay keeps on disk is the new history as well.
	for range 2 {
		pgtest.OK(t, n2.Exec(ctx, "SELECT pg_switch_wal()"))
		pgbench(ctx, t, n2, "-i", "-q")
	}
	last := spool.awaitSegment(t, segmentBefore(ctx, t, n2))
	spool.compare(t, filepath.Join(ownServer(t, n2).Dir(), "pg_wal"), regexp.MustCompile(`^00000002([0-9A-F]{16}|\.history)$`), last)
	for _, n := range []*pgtest.Node{n2, n3, n4} {
		lost, err := pgtest.Value[bool](ctx, n, "SELECT to_regclass('lost_1') IS NOT NULL")
		if err != nil || lost {
			t.Errorf("%s has a table of the history that was left: %t, %v", n.Name, lost, err)
		}
	}
}
