package integration_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// muchWAL is what is written while a standby is down: many times the buffer.
func muchWAL() int64 {
	if testing.Short() {
		return 16 << 20
	}
	return 56 << 20
}

// A standby that was down, or stood still, for longer than the buffer reaches
// back is brought up to date with older WAL: from the source, whose WAL goes
// through as many relays as there are, from the pg_wal directory of a server on
// the relay's machine, or from the relay's own spool, where the source has it no
// longer.
func TestAStandbyOlderThanTheBufferIsServed(t *testing.T) {
	for name, tt := range map[string]struct {
		edit    func(t *testing.T, c *pgtest.Cluster, cfg *relay.Config)
		removed bool // the source has it no longer
		frozen  bool // the standby is not down, but stands still
	}{
		"from the source": {func(*testing.T, *pgtest.Cluster, *relay.Config) {}, false, true},
		"from a directory of WAL": {func(t *testing.T, c *pgtest.Cluster, cfg *relay.Config) {
			cfg.WALDir = filepath.Join(ownServer(t, c.Nodes[2]).Dir(), "pg_wal")
		}, true, false},
		"from the spool": {func(t *testing.T, _ *pgtest.Cluster, cfg *relay.Config) {
			cfg.SpoolDir, cfg.Keep = t.TempDir(), 1<<30
			cfg.Acknowledge = relay.Policy{Mode: relay.ConfirmReceipt} // which tells what is flushed
		}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := pgtest.New(t, pgtest.Options{Replicas: 2}) // n3 streams from the primary, and keeps its WAL
			ctx := storyContext(t)
			primary, n2 := c.Primary(), c.Nodes[1]
			near := startRelay(t, primary.Server().Conninfo(""), smallBuffer, func(cfg *relay.Config) { tt.edit(t, c, cfg) })
			far := startRelay(t, near.conninfo(""), smallBuffer)
			away, back := func() error { return c.Stop(ctx, n2, pgctl.Fast) }, func() error { return c.Start(ctx, n2) }
			if tt.frozen {
				away, back = func() error { return c.Freeze(n2) }, func() error { return c.Thaw(n2) }
			}
			leaveBehind(ctx, t, c, near, far, away, tt.removed)
			pgtest.OK(t, back())
			awaitSame(ctx, t, primary, n2)
			awaitRest(ctx, t, primary, n2)
			t.Logf("FIGURES %+v", far.Status().Metrics.Subscribers)
		})
	}
}

// Where nobody has the WAL, the standby is told so in PostgreSQL's own words.
func TestAStandbyIsRefusedWALThatNobodyHas(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := storyContext(t)
	near := startRelay(t, c.Primary().Server().Conninfo(""), smallBuffer)
	far := startRelay(t, near.conninfo(""), smallBuffer)
	leaveBehind(ctx, t, c, near, far, func() error { return c.Stop(ctx, c.Nodes[1], pgctl.Fast) }, true)
	pgtest.OK(t, c.Start(ctx, c.Nodes[1]))
	awaitLog(t, c.Nodes[1], "could not receive data from WAL stream: ERROR:  requested WAL segment 0000000100000000", "has already been removed")
}

// A relay that was cut off for longer than its source keeps WAL cannot be waited
// for. It begins anew, so that those stream who need nothing older; the others
// are told what PostgreSQL would tell them.
func TestARelayThatItsSourceHasLeftBehindBeginsAnew(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	ctx := storyContext(t)
	primary, n2, n3 := c.Primary(), c.Nodes[1], c.Nodes[2]
	near := startRelay(t, primary.Server().Conninfo(""))
	link, err := pgtest.StartProxy(near.addr())
	pgtest.OK(t, err)
	t.Cleanup(func() { pgtest.OK(t, link.Close()) })
	far := startRelay(t, conninfoTo(t, link.Addr()), smallBuffer, func(cfg *relay.Config) { cfg.SpoolDir = t.TempDir() })
	streamFrom(ctx, t, n2, far.conninfo("n2"))
	fill(ctx, t, primary, 1<<20)
	awaitFlow(t, primary, n2, n3)
	stood := writtenOn(ctx, t, primary)

	link.Refuse()
	link.Cut()
	near.halt()
	fill(ctx, t, primary, 20<<20)
	removeWAL(ctx, t, c, stood)
	near.start() // with nothing of it in memory
	pgtest.OK(t, link.Heal())
	awaitLog(t, n2, "requested WAL segment 0000000100000000", "has already been removed")
	streamFrom(ctx, t, n3, far.conninfo("n3"))
	fill(ctx, t, primary, 1<<20)
	awaitSame(ctx, t, primary, n3)
	awaitRest(ctx, t, primary, n3)
}

func smallBuffer(cfg *relay.Config) { cfg.BufferSize = relay.MinBufferSize }

// leaveBehind has n2, which streams from far, go away, and writes until both relays' buffers begin
// behind it; and if that is wanted, the primary has removed what n2 needs.
func leaveBehind(ctx context.Context, t *testing.T, c *pgtest.Cluster, near, far *relayUnderTest, away func() error, removed bool) {
	t.Helper()
	primary, n2 := c.Primary(), c.Nodes[1]
	streamFrom(ctx, t, n2, far.conninfo("n2"))
	fill(ctx, t, primary, 1<<20)
	awaitFlow(t, primary, n2)
	stood := writtenOn(ctx, t, primary)
	pgtest.OK(t, away())
	fill(ctx, t, primary, muchWAL())
	if removed {
		written := writtenOn(ctx, t, primary)
		await(t, "the relays to have it, on disk where there is one", func() bool {
			s := near.Status()
			return far.Status().Head >= written && (near.cfg.SpoolDir == "" || s.Confirmed.Flush >= written)
		})
		removeWAL(ctx, t, c, stood)
	}
	written := writtenOn(ctx, t, primary)
	await(t, "the relays to have it all", func() bool { return far.Status().Head >= written })
	for _, r := range []*relayUnderTest{near, far} {
		if tail := r.Status().Tail; tail <= stood {
			t.Fatalf("the relay's buffer begins at %s, and the standby stood at %s: not left behind", tail, stood)
		}
	}
}

// removeWAL makes the primary remove what it wrote at stood, and keep what comes.
func removeWAL(ctx context.Context, t *testing.T, c *pgtest.Cluster, stood wal.LSN) {
	t.Helper()
	primary := c.Primary()
	pgtest.OK(t, c.Configure(ctx, primary, map[string]string{"wal_keep_size": "0", "min_wal_size": "32MB"}))
	pgtest.OK(t, primary.Exec(ctx, "SELECT pg_switch_wal()"))
	pgtest.OK(t, primary.Exec(ctx, "CREATE TABLE after_the_switch ()"))
	written := writtenOn(ctx, t, primary)
	for _, n := range c.Nodes[2:] {
		pgtest.OK(t, n.WaitReplayed(ctx, written))
	}
	await(t, "the primary to remove its WAL", func() bool {
		pgtest.OK(t, primary.Exec(ctx, "CHECKPOINT"))
		removed, err := pgtest.Value[bool](ctx, primary, `SELECT min(name) > pg_walfile_name($1::text::pg_lsn)
			FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'`, stood.String())
		pgtest.OK(t, err)
		return removed
	})
	pgtest.OK(t, c.Configure(ctx, primary, map[string]string{"wal_keep_size": "256MB"}))
}

// awaitLog returns when the node's log has a line with all the words.
func awaitLog(t testing.TB, n *pgtest.Node, words ...string) {
	t.Helper()
	await(t, n.Name+" to say "+strings.Join(words, " … "), func() bool {
		text, err := n.Server().Log()
		pgtest.OK(t, err)
		for line := range strings.Lines(text) {
			if containsAll(line, words...) {
				return true
			}
		}
		return false
	})
}

func containsAll(s string, words ...string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(s, w) })
}
