package integration_test

import (
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal/relay"
)

// The relay stands for k of its standbys: a commit on the primary returns when so
// many have flushed it, and not before.
func TestACommitReturnsWhenEnoughStandbysHaveFlushedIt(t *testing.T) {
	for policy, of := range map[string]struct{ enough, standbys int }{
		"ANY 1 (n2, n3)":     {1, 2},
		"ANY 2 (n2, n3, n4)": {2, 3},
		"ANY 3 (*)":          {3, 3},
	} {
		if testing.Short() && of.enough == 3 {
			continue
		}
		t.Run(policy, func(t *testing.T) {
			c, enough := newSyncCluster(t, of.standbys), of.enough
			ctx := pgtest.Context(t)
			primary, standbys := c.Primary(), c.Replicas()
			r := startRelay(t, primary.Server().Conninfo(""), acknowledging(t, policy))
			for _, s := range standbys {
				streamFrom(ctx, t, s, r.conninfo(s.Name))
				awaitConfirmed(ctx, t, r.Relay, primary, s.Name)
			}
			beginCommit(t, primary, "on", 1).returns()

			// With one too few that move, commits wait.
			for _, s := range standbys[enough-1:] {
				pgtest.OK(t, c.Freeze(s))
			}
			second := beginCommit(t, primary, "on", 2)
			waits(t, r, second)
			local := beginCommit(t, primary, "local", 3)
			local.returns()
			pgtest.OK(t, c.Thaw(standbys[enough-1]))
			second.returns()
			beginCommit(t, primary, "on", 4).returns()
			for _, s := range standbys[enough:] {
				pgtest.OK(t, c.Thaw(s))
			}
			awaitSame(ctx, t, primary, standbys...)
		})
	}
}

// What stands behind a second relay counts one by one, and the second relay itself
// does not, whatever it acknowledges.
func TestStandbysBehindTwoRelaysCountOneByOne(t *testing.T) {
	c := newSyncCluster(t, 3)
	ctx := pgtest.Context(t)
	primary, n2, n3, n4 := c.Primary(), c.Nodes[1], c.Nodes[2], c.Nodes[3]
	near := startRelay(t, primary.Server().Conninfo(""), acknowledging(t, "ANY 2 (*)"))
	far := startRelay(t, near.conninfo(""), func(cfg *relay.Config) {
		cfg.Name, cfg.SpoolDir = "far", t.TempDir()
		cfg.Acknowledge = relay.Policy{Mode: relay.ConfirmReceipt} // it has a disk, and says so
	})
	streamFrom(ctx, t, n2, near.conninfo("n2"))
	streamFrom(ctx, t, n3, far.conninfo("n3"))
	streamFrom(ctx, t, n4, far.conninfo("n4"))
	awaitConfirmed(ctx, t, near.Relay, primary, "n2", "n3", "n4", "far")

	pgtest.OK(t, c.Freeze(n2))
	beginCommit(t, primary, "on", 1).returns() // n3 and n4
	pgtest.OK(t, c.Freeze(n3))
	first := beginCommit(t, primary, "on", 2)
	waits(t, near, first) // n4 alone, though the far relay has it as well
	pgtest.OK(t, c.Thaw(n2))
	first.returns()
	pgtest.OK(t, c.Freeze(n4))
	second := beginCommit(t, primary, "on", 3)
	waits(t, near, second) // n2 alone
	pgtest.OK(t, c.Thaw(n3))
	second.returns()
	pgtest.OK(t, c.Thaw(n4))
	awaitSame(ctx, t, primary, n2, n3, n4)
}

// A standby is one, however often its name is connected, and in whatever letters:
// PostgreSQL does not tell capitals in application_name either.
func TestANameThatIsConnectedTwiceCountsOnce(t *testing.T) {
	c := newSyncCluster(t, 0)
	ctx := pgtest.Context(t)
	primary := c.Primary()
	near := startRelay(t, primary.Server().Conninfo(""), acknowledging(t, "ANY 2 (s1, s2)"))
	far := startRelay(t, near.conninfo(""), func(cfg *relay.Config) { cfg.Name = "far" })
	for _, at := range []struct {
		relay *relayUnderTest
		name  string
	}{{near, "s1"}, {near, "S1"}, {far, "s1"}, {far, "S1"}} {
		startStandIn(t, at.relay.conninfo(at.name)).confirm(true, true, true)
	}
	twice := beginCommit(t, primary, "on", 1)
	at := writtenOn(ctx, t, primary)
	await(t, "four of one name have confirmed it", func() bool {
		have := 0
		for _, s := range near.Status().Subscribers {
			if s.Name != "far" && s.Confirmed.Flush >= at {
				have++
			}
		}
		return have >= 3 // the far relay may tell of one name once
	})
	waits(t, near, twice)
	startStandIn(t, far.conninfo("s2")).confirm(true, true, true)
	twice.returns()
}

// Each level of synchronous_commit waits for what it says.
func TestLevelsOfSynchronousCommitPassThroughTheRelay(t *testing.T) {
	c := newSyncCluster(t, 1)
	ctx := pgtest.Context(t)
	primary, n2 := c.Primary(), c.Nodes[1]
	r := startRelay(t, primary.Server().Conninfo(""), acknowledging(t, "ANY 1 (s1)"))
	s := startStandIn(t, r.conninfo("s1"))
	s.confirm(true, true, true) // who has never flushed does not count, with PostgreSQL
	awaitConfirmed(ctx, t, r.Relay, primary, "s1")
	s.confirm(false, false, false)
	levels := []string{"remote_write", "on", "remote_apply"}
	pending := make([]*commit, len(levels))
	for n, level := range levels {
		pending[n] = beginCommit(t, primary, level, n)
	}
	for n := range levels {
		waits(t, r, pending[n:]...)
		s.confirm(true, n >= 1, n >= 2)
		pending[n].returns()
	}
	s.leave()

	// A real standby, whose replay is held up.
	r.halt()
	r.cfg.Acknowledge = relay.Policy{Mode: relay.ConfirmQuorum, K: 1, Names: []string{"n2"}}
	r.start()
	streamFrom(ctx, t, n2, r.conninfo("n2"))
	beginCommit(t, primary, "remote_apply", 4).returns()
	pgtest.OK(t, n2.Exec(ctx, "SELECT pg_wal_replay_pause()"))
	beginCommit(t, primary, "on", 5).returns()
	applied := beginCommit(t, primary, "remote_apply", 6)
	waits(t, r, applied)
	pgtest.OK(t, n2.Exec(ctx, "SELECT pg_wal_replay_resume()"))
	applied.returns()
	seen, err := pgtest.Value[int](ctx, n2, "SELECT count(*) FROM t WHERE n = 6")
	pgtest.OK(t, err)
	if seen != 1 {
		t.Errorf("%d rows on the standby of a commit that it has applied, want 1", seen)
	}
}
