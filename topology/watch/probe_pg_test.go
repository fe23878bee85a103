package watch_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/topology/watch"
	"github.com/heliosdb/helios/wal"
)

// Users of the clusters below, by what they may see.
const (
	ordinary = "app"       // what everybody may
	monitor  = "monitor"   // pg_monitor: all of pg_stat_wal_receiver
	reader   = "historian" // pg_read_file
)

// newCluster starts a primary and two replicas that know the three users.
func newCluster(t *testing.T) *pgtest.Cluster {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	ctx := pgtest.Context(t)
	for user, attributes := range map[string]string{ordinary: "", monitor: "IN ROLE pg_monitor", reader: ""} {
		pgtest.OK(t, c.CreateUser(ctx, user, attributes))
	}
	for _, sql := range []string{
		"GRANT EXECUTE ON FUNCTION pg_read_file(text, bigint, bigint, boolean) TO historian",
		"CREATE TABLE written (n int)",
	} {
		pgtest.OK(t, c.Primary().Exec(ctx, sql))
	}
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	return c
}

// watchAs watches c as the given user until the test ends.
func watchAs(t *testing.T, c *pgtest.Cluster, user string) *topology.Board {
	var nodes []topology.Node
	configs := map[string]*pgconn.Config{}
	for _, n := range c.Nodes {
		config, err := pgx.ParseConfig(n.DSN())
		pgtest.OK(t, err)
		config.User = user
		config.RuntimeParams["application_name"] = watch.ApplicationName
		configs[n.Name] = &config.Config
		nodes = append(nodes, topology.Node{Name: n.Name})
	}
	board := topology.NewBoard(nodes...)
	p := &watch.Prober{
		Board: board, Interval: 20 * time.Millisecond, Timeout: time.Second,
		Connect: func(ctx context.Context, node string) (*pgconn.PgConn, error) {
			return pgconn.ConnectConfig(ctx, configs[node])
		},
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	return board
}

// await waits until the newest view is as wanted, and returns it.
func await(t *testing.T, b *topology.Board, what string, wanted func(*topology.View) bool) *topology.View {
	t.Helper()
	late := time.After(20 * time.Second)
	for {
		v := b.Peek()
		if wanted(v) {
			return v
		}
		select {
		case <-time.After(5 * time.Millisecond): // positions change without notice
		case <-late:
			t.Fatalf("waited in vain until %s; view: %+v", what, v)
		}
	}
}

// awaitReplayed waits until the board shows that a node has replayed up to lsn.
func awaitReplayed(t *testing.T, b *topology.Board, node int, lsn wal.LSN) *topology.View {
	t.Helper()
	return await(t, b, fmt.Sprintf("n%d has replayed %s", node+1, lsn), func(v *topology.View) bool {
		return v.Nodes[node].ReplayLSN >= lsn
	})
}

func primaryIs(i int) func(*topology.View) bool {
	return func(v *topology.View) bool { return v.Primary == i && v.Settled }
}

// position returns where a primary is, after one more commit.
func position(t *testing.T, n *pgtest.Node) wal.LSN {
	t.Helper()
	ctx := pgtest.Context(t)
	pgtest.OK(t, n.Exec(ctx, "INSERT INTO written SELECT generate_series(1, 1000)"))
	lsn, err := n.LSN(ctx)
	pgtest.OK(t, err)
	return lsn
}

// historyFile returns what the history file of timeline 2 says.
func historyFile(t *testing.T, n *pgtest.Node) wal.History {
	t.Helper()
	text, err := pgtest.Value[string](pgtest.Context(t), n, "SELECT pg_read_file('pg_wal/00000002.history')")
	pgtest.OK(t, err)
	h, err := wal.ParseHistory(2, []byte(text))
	pgtest.OK(t, err)
	return h
}

func TestAnOrdinaryUserFollowsARealFailover(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx := pgtest.Context(t)
	plain, trusted := watchAs(t, c, ordinary), watchAs(t, c, monitor)

	v := await(t, plain, "n1 is the primary", primaryIs(0))
	if v.SystemID == 0 || v.Timeline != 1 || v.Settings.SegmentSize != wal.DefaultSegmentSize || !v.Settings.SnapshotPerStmt {
		t.Errorf("view %+v", v)
	}
	if n := v.Nodes[0]; n.Version < 130000 || n.CurrentLSN == 0 || n.ReadOnly || n.StartedAt.IsZero() {
		t.Errorf("primary %+v", n)
	}
	at := position(t, c.Nodes[0])
	for i := 1; i <= 2; i++ {
		v := awaitReplayed(t, plain, i, at)
		if n := v.Nodes[i]; n.State != topology.StateUp || n.Timeline != 1 || n.TimelineLSN == 0 {
			t.Errorf("replica %+v", n)
		}
	}
	await(t, trusted, "n1 is the primary", primaryIs(0))

	pgtest.OK(t, c.Kill(c.Nodes[0]))
	await(t, plain, "n1 is down", func(v *topology.View) bool { return v.Nodes[0].State == topology.StateDown })
	pgtest.OK(t, c.Promote(ctx, c.Nodes[1]))
	v = await(t, plain, "n2 is the primary", primaryIs(1))
	if want := historyFile(t, c.Nodes[1]); v.Timeline != 2 || !slices.Equal(v.History, want) {
		t.Errorf("timeline %s, history %v; want 2, %v", v.Timeline, v.History, want)
	}

	pgtest.OK(t, c.Follow(ctx, c.Nodes[1]))
	at = position(t, c.Nodes[1])
	await(t, trusted, "n3 is seen on timeline 2 by a monitor", func(v *topology.View) bool {
		return v.Nodes[2].OnTimeline(2) && v.Nodes[2].ReplayLSN >= at
	})
	if n := awaitReplayed(t, plain, 2, at).Nodes[2]; n.State != topology.StateUp {
		t.Errorf("n3 follows, but is %s: %s", n.State, n.Reason)
	}
	for _, sql := range []string{"CREATE TABLE dropped (n int)", "DROP TABLE dropped"} {
		pgtest.OK(t, c.Nodes[1].Exec(ctx, sql))
	}
	await(t, plain, "n3 is seen on timeline 2 by anybody", func(v *topology.View) bool { return v.Nodes[2].OnTimeline(2) })
}

func TestARealReplicaPastTheForkIsRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx := pgtest.Context(t)
	plain, trusted := watchAs(t, c, ordinary), watchAs(t, c, monitor)
	await(t, plain, "n1 is the primary", primaryIs(0))
	await(t, trusted, "n1 is the primary", primaryIs(0))

	// n2 is promoted; n1 is not told, and n3 goes on following n1.
	pgtest.OK(t, c.Promote(ctx, c.Nodes[1]))
	at := position(t, c.Nodes[0])
	for _, b := range []*topology.Board{plain, trusted} {
		v := await(t, b, "n2 is the primary", primaryIs(1))
		if n := v.Nodes[0]; n.State != topology.StateRefused || n.Reason != "primary of timeline 1, the cluster is on 2" {
			t.Errorf("n1 is %s: %s", n.State, n.Reason)
		}
	}
	past := func(v *topology.View) bool { return v.Nodes[2].State == topology.StateRefused }
	await(t, trusted, "a monitor sees n3 past the fork", past)
	if n := awaitReplayed(t, plain, 2, at).Nodes[2]; n.OnTimeline(2) {
		t.Errorf("n3 seems to be on timeline 2: %+v", n)
	}
	for _, sql := range []string{"CREATE TABLE dropped (n int)", "DROP TABLE dropped"} {
		pgtest.OK(t, c.Nodes[0].Exec(ctx, sql))
	}
	await(t, plain, "anybody sees n3 past the fork", past)
}

func TestACrashedPrimaryDoesNotMoveItsSwitchPoint(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx := pgtest.Context(t)
	pgtest.OK(t, c.Kill(c.Nodes[0]))
	pgtest.OK(t, c.Promote(ctx, c.Nodes[1]))
	position(t, c.Nodes[1])
	pgtest.OK(t, c.Kill(c.Nodes[1]))
	pgtest.OK(t, c.Start(ctx, c.Nodes[1]))

	replayed, err := pgtest.Value[*string](ctx, c.Nodes[1], "SELECT pg_last_wal_replay_lsn()::text")
	pgtest.OK(t, err)
	if want := historyFile(t, c.Nodes[1]); replayed == nil || *replayed == want[0].LSN.String() {
		t.Logf("pg_last_wal_replay_lsn() = %v: no trap in this version", replayed)
	}
	if v := await(t, watchAs(t, c, ordinary), "n2 is the primary", primaryIs(1)); len(v.History) != 0 {
		t.Errorf("an ordinary user is told %v, want nothing", v.History)
	}
	v := await(t, watchAs(t, c, reader), "n2 is the primary", primaryIs(1))
	if want := historyFile(t, c.Nodes[1]); !slices.Equal(v.History, want) {
		t.Errorf("who may read the history file is told %v, want %v", v.History, want)
	}
}

func TestARealSoftFenceIsSeen(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx := pgtest.Context(t)
	b := watchAs(t, c, ordinary)
	await(t, b, "n1 is the primary", primaryIs(0))
	pgtest.OK(t, c.Fence(ctx, c.Nodes[0]))
	v := await(t, b, "nobody takes writes", func(v *topology.View) bool { return v.Primary < 0 })
	if n := v.Nodes[0]; n.Role != topology.RolePrimary || n.State != topology.StateUp || !n.ReadOnly {
		t.Errorf("n1 is %+v, want up and read-only", n)
	}
	pgtest.OK(t, c.Unfence(ctx, c.Nodes[0]))
	await(t, b, "n1 takes writes again", primaryIs(0))
}
