package integration_test

import (
	"context"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
)

// receiverPIDs are the processes that receive WAL on a standby.
type receiverPIDs struct {
	started  string // when the postmaster was
	receiver int    // the walreceiver
}

func receiverOf(ctx context.Context, t testing.TB, n *pgtest.Node) (r receiverPIDs) {
	t.Helper()
	conn, err := n.Connect(ctx)
	pgtest.OK(t, err)
	defer conn.Close(ctx) // read what it had
	pgtest.OK(t, n.Await(ctx, "SELECT count(*) = 1 FROM pg_stat_wal_receiver"))
	pgtest.OK(t, conn.QueryRow(ctx, "SELECT pg_postmaster_start_time()::text, (SELECT pid FROM pg_stat_wal_receiver)").Scan(&r.started, &r.receiver))
	return r
}

// awaitTimeline waits until the standby's walreceiver is on the timeline.
func awaitTimeline(ctx context.Context, t testing.TB, n *pgtest.Node, timeline int) {
	t.Helper()
	pgtest.OK(t, n.Await(ctx, "SELECT count(*) = 1 FROM pg_stat_wal_receiver WHERE received_tli = $1 AND status = 'streaming'", timeline))
}

// write makes something to follow, and returns when those have it that should.
func write(ctx context.Context, t testing.TB, primary *pgtest.Node, name string, standbys ...*pgtest.Node) {
	t.Helper()
	pgtest.OK(t, primary.Exec(ctx, "CREATE TABLE "+name+" AS SELECT i, md5(i::text) FROM generate_series(1, 2000) i"))
	awaitFlow(t, primary, standbys...)
}

// The primary dies and another standby is promoted. The standby behind the relay
// follows with the connection that it has, whether the relay's sources named
// both from the beginning or are changed now.
func TestAStandbyBehindARelayFollowsAFailover(t *testing.T) {
	for name, both := range map[string]bool{"the sources name both": true, "the source is changed": false} {
		t.Run(name, func(t *testing.T) {
			c := pgtest.New(t, pgtest.Options{Replicas: 2})
			ctx := storyContext(t)
			n1, n2, n3 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
			r := startRelay(t, n1.Server().Conninfo(""))
			if both {
				source(t, r, n1, n2)
			}
			streamFrom(ctx, t, n3, r.conninfo("n3"))
			load := startPgbench(t, c)
			awaitFlow(t, n1, n2, n3)
			load.stop()
			write(ctx, t, n1, "before", n2, n3)
			before := receiverOf(ctx, t, n3)

			pgtest.OK(t, c.Kill(n1))
			pgtest.OK(t, c.Promote(ctx, n2))
			promoted := time.Now()
			if !both {
				source(t, r, n2)
			}
			awaitTimeline(ctx, t, n3, 2)
			t.Logf("FIGURES promoted until the standby streams timeline 2: %v", time.Since(promoted))
			write(ctx, t, n2, "after", n3)
			load = resumePgbench(t, c)
			awaitFlow(t, n2, n3)
			load.stop()
			awaitSame(ctx, t, n2, n3)
			awaitRest(ctx, t, n2, n3)
			if after := receiverOf(ctx, t, n3); after != before {
				t.Errorf("the standby receives as %+v after the failover, want %+v as before", after, before)
			}
		})
	}
}

// The relay's source is a standby itself, and is promoted: the relay stays with
// it, and so does who stands behind the relay, or behind a second one.
func TestARelayStaysWithASourceThatIsPromoted(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 3})
	ctx := storyContext(t)
	n1, n2, n3, n4 := c.Nodes[0], c.Nodes[1], c.Nodes[2], c.Nodes[3]
	near := startRelay(t, n2.Server().Conninfo(""))
	far := startRelay(t, near.conninfo(""))
	streamFrom(ctx, t, n3, near.conninfo("n3"))
	streamFrom(ctx, t, n4, far.conninfo("n4"))
	write(ctx, t, n1, "before", n2, n3, n4)
	three, four := receiverOf(ctx, t, n3), receiverOf(ctx, t, n4)
	since := near.Status().Since

	pgtest.OK(t, c.Kill(n1))
	pgtest.OK(t, c.Promote(ctx, n2))
	write(ctx, t, n2, "after", n3, n4)
	awaitTimeline(ctx, t, n3, 2)
	awaitTimeline(ctx, t, n4, 2)
	awaitSame(ctx, t, n2, n3, n4)
	if after := receiverOf(ctx, t, n3); after != three {
		t.Errorf("n3 receives as %+v after the failover, want %+v as before", after, three)
	}
	if after := receiverOf(ctx, t, n4); after != four {
		t.Errorf("n4 receives as %+v after the failover, want %+v as before", after, four)
	}
	if again := near.Status().Since; again != since {
		t.Errorf("the relay has connected to its source again, at %v after %v", again, since)
	}
}

// Two relays in a row live through two failovers, and a standby that slept
// through both of them finds its way from timeline 1 to 3.
func TestTwoRelaysFollowTwoFailovers(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 4})
	ctx := storyContext(t)
	n1, n2, n3, n4, n5 := c.Nodes[0], c.Nodes[1], c.Nodes[2], c.Nodes[3], c.Nodes[4]
	near := startRelay(t, n1.Server().Conninfo(""))
	source(t, near, n1, n2, n3)
	far := startRelay(t, near.conninfo(""))
	streamFrom(ctx, t, n4, far.conninfo("n4"))
	streamFrom(ctx, t, n5, far.conninfo("n5"))
	write(ctx, t, n1, "on_1", n2, n3, n4, n5)
	before := receiverOf(ctx, t, n4)
	pgtest.OK(t, c.Kill(n5))

	pgtest.OK(t, c.Kill(n1))
	pgtest.OK(t, c.Promote(ctx, n2))
	pgtest.OK(t, c.FollowOne(ctx, n3, n2))
	write(ctx, t, n2, "on_2", n3, n4)
	pgtest.OK(t, c.Kill(n2))
	pgtest.OK(t, c.Promote(ctx, n3))
	write(ctx, t, n3, "on_3", n4)

	pgtest.OK(t, c.Start(ctx, n5))
	awaitTimeline(ctx, t, n4, 3)
	awaitTimeline(ctx, t, n5, 3)
	awaitSame(ctx, t, n3, n4, n5)
	if after := receiverOf(ctx, t, n4); after != before {
		t.Errorf("n4 receives as %+v after two failovers, want %+v as before", after, before)
	}
}

// A primary that was left behind comes back, and takes writes on its old
// timeline. It is not followed, not even when nobody else is there.
func TestAPrimaryThatWasLeftBehindIsNotFollowed(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	ctx := storyContext(t)
	n1, n2, n3 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	r := startRelay(t, n1.Server().Conninfo(""))
	source(t, r, n1, n2)
	streamFrom(ctx, t, n3, r.conninfo("n3"))
	write(ctx, t, n1, "before", n2, n3)
	pgtest.OK(t, c.Kill(n1))
	pgtest.OK(t, c.Promote(ctx, n2))
	write(ctx, t, n2, "after", n3)

	pgtest.OK(t, c.Start(ctx, n1))
	pgtest.OK(t, n1.Exec(ctx, "CREATE TABLE lost AS SELECT generate_series(1, 100000)"))
	write(ctx, t, n2, "meanwhile", n3)
	pgtest.OK(t, c.Kill(n2))
	await(t, "the relay to refuse the old primary", func() bool {
		s := r.Status()
		return !s.Connected && containsAll(s.Error, "timeline 1", "left behind")
	})
	head := r.Status().Head
	pgtest.OK(t, n1.Exec(ctx, "CREATE TABLE lost_too AS SELECT generate_series(1, 100000)"))
	pgtest.OK(t, c.Start(ctx, n2))
	write(ctx, t, n2, "again", n3)
	awaitSame(ctx, t, n2, n3)
	if r.Status().Timeline != 2 || r.Status().Head < head {
		t.Errorf("the relay is on timeline %s at %s, want 2 behind %s", r.Status().Timeline, r.Status().Head, head)
	}
}
