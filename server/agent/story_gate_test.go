package agent

import (
	"context"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
)

// A commit under way.
type commit struct {
	t     *testing.T
	began time.Time
	done  chan error
}

// begin has the node's server insert a row; the connection is the commit's own.
func (n *testNode) begin() *commit {
	n.t.Helper()
	conn := n.conn()
	c := &commit{n.t, time.Now(), make(chan error, 1)}
	go func() {
		_, err := conn.Exec(context.Background(), "INSERT INTO t VALUES (0)")
		c.done <- err
	}()
	return c
}

// returns waits for the commit to end well, and says how long it took.
func (c *commit) returns() time.Duration {
	c.t.Helper()
	select {
	case err := <-c.done:
		pgtest.OK(c.t, err)
	case <-time.After(time.Minute):
		c.t.Fatal("a commit still waits after a minute")
	}
	return time.Since(c.began)
}

// waits checks that the commit has not returned, and is waiting at the gate.
func (c *commit) waits(n *testNode) {
	c.t.Helper()
	conn := n.conn()
	await(c.t, "a commit that waits at the gate", func() bool {
		var waiting bool
		err := conn.QueryRow(pgtest.Context(c.t), "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'").Scan(&waiting)
		pgtest.OK(c.t, err)
		return waiting
	})
	select {
	case err := <-c.done:
		c.t.Errorf("a commit has returned %v, want it to wait", err)
	default:
	}
}

// commits returns how long n commits in a row take, one after the other.
func (n *testNode) commits(count int) time.Duration {
	n.t.Helper()
	conn := n.conn()
	began := time.Now()
	for range count {
		_, err := conn.Exec(pgtest.Context(n.t), "INSERT INTO t VALUES (0)")
		pgtest.OK(n.t, err)
	}
	return time.Since(began) / time.Duration(count)
}

// With nobody to wait for, commits wait for the lease alone. Its end holds them
// back at once, and the next one lets them go.
func TestCommitsWaitForTheLease(t *testing.T) {
	m := newTeam(t, "n1")
	m.found(async)
	n1 := m.nodes[0]
	n1.exec("CREATE TABLE t (i int)")
	t.Logf("FIGURES a commit through the gate: %v", n1.commits(200))

	m.cut("n1", true)
	left := n1.lease.Left(n1.clock(), 1)
	began, last := time.Now(), time.Now()
	conn := n1.conn()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		_, err := conn.Exec(ctx, "INSERT INTO t VALUES (0)")
		cancel()
		if err != nil {
			break
		}
		last = time.Now()
	}
	over := last.Sub(began) - left
	t.Logf("FIGURES the lease had %v left, the last commit was acknowledged %v after its end", left, over)
	if over > time.Second { // what was confirmed before the end has a way to go to the client
		t.Errorf("a commit was acknowledged %v after the end of the lease", over)
	}
	late := n1.begin()
	late.waits(n1)
	held := time.Now()
	_, confirmed, _ := n1.counts.read()
	await(t, "a commit to be held up for a while", func() bool { return time.Since(held) > 200*time.Millisecond })
	m.cut("n1", false)
	late.returns()
	longest, after, _ := n1.counts.read()
	if confirmed < 200 || after <= confirmed || longest < 200*time.Millisecond {
		t.Errorf("%d and then %d times WAL was confirmed, after %v at most; want 200, one more, and 200ms", confirmed, after, longest)
	}
}

// The companion was frozen, or the machine has slept: when it goes on its lease
// has ended, though nobody has told it so.
func TestAFrozenCompanionConfirmsNothingWhenItGoesOn(t *testing.T) {
	m := newTeam(t, "n1")
	m.leased = time.Hour
	m.found(async)
	n1 := m.nodes[0]
	n1.exec("CREATE TABLE t (i int)")
	n1.begin().returns()
	m.cut("n1", true)
	n1.lag.Store(int64(2 * time.Hour))
	c := n1.begin()
	c.waits(n1)
	// An answer that was waiting for it grants nothing: it counts from when it was asked for.
	m.mu.Lock()
	as, last := m.as, m.reports["n1"]
	m.mu.Unlock()
	as.Node, as.Run, as.Seq, as.Lease = "n1", last.Run, last.Seq, time.Hour
	n1.Assign(as, n1.clock()-2*time.Hour)
	n1.Assign(as, n1.clock())
	as.Seq, as.Run = 0, 0
	n1.Assign(as, 0)
	c.waits(n1)
	m.cut("n1", false)
	c.returns()
}

// A commit returns once a standby of the set has it, and waits while there is none.
func TestCommitsWaitForAStandbyOfTheSet(t *testing.T) {
	m := newTeam(t, "n1", "n2", "n3")
	m.found(async)
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t (i int)")
	changed := n1.Changed()
	m.setGate(semisync("n2"))
	await(t, "the set is settled", func() bool { g := n1.Report().Gate; return g.Settled && g.Set.K == 1 })
	<-changed
	t.Logf("FIGURES a commit that a standby has: %v", n1.commits(100))

	pgtest.OK(t, n2.pg.Freeze())
	c := n1.begin()
	c.waits(n1)
	m.setGate(semisync("n2", "n3"))
	c.returns()
	await(t, "the set is settled", func() bool { g := n1.Report().Gate; return g.Settled && len(g.Set.Members) == 2 })
	pgtest.OK(t, n2.pg.Thaw())
	if got := n1.Report().Confirmed["n3"]; got == 0 {
		t.Errorf("nothing is known of n3: %+v", n1.Report().Confirmed)
	}
}

// Nothing that a peer's relay says at the primary's own walsender, where it may
// come when the primary's companion is away, counts for commits.
func TestAPeersRelayReleasesNoCommits(t *testing.T) {
	m := newTeam(t, "n1", "n2")
	m.found(async)
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t (i int)")
	n1.halt()
	await(t, "n2's relay is at the primary itself", func() bool {
		s := n2.relay.Status()
		return s.Connected && s.Source == n1.member.Postgres
	})
	c := n1.begin()
	c.waits(n1)
	n1.start(m)
	t.Logf("FIGURES commits waited %v for the companion", c.returns())
	await(t, "n2's relay is back at the companion", func() bool {
		s := n2.relay.Status()
		return s.Connected && s.Source == n1.member.Companion
	})
}

// With relaxed fencing commits go on while the companion restarts in order.
func TestRelaxedFencingLetsCommitsGoOnWithoutTheCompanion(t *testing.T) {
	m := newTeam(t)
	n1 := m.add("n1", func(c *Config) { c.Fencing = FencingRelaxed })
	m.found(async)
	n1.exec("CREATE TABLE t (i int)")
	n1.halt()
	n1.begin().returns()
	n1.start(m)
	conn := n1.conn()
	await(t, "the gate is back", func() bool {
		var names string
		pgtest.OK(t, conn.QueryRow(pgtest.Context(t), "SHOW synchronous_standby_names").Scan(&names))
		return names == gateName
	})
	n1.begin().returns()
}

// The relay of a standby was away for longer than the standby waits, which has
// gone to the primary itself. It is brought back, since the primary's gate hears
// of it only there.
func TestAStandbyIsBroughtBackToItsRelay(t *testing.T) {
	m := newTeam(t, "n1", "n2")
	m.found(async)
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t (i int)")
	n2.halt()
	conn := n1.conn()
	await(t, "n2 streams from the primary itself", func() bool {
		var there bool
		err := conn.QueryRow(pgtest.Context(t), "SELECT count(*) > 0 FROM pg_stat_replication WHERE application_name = 'n2' AND state = 'streaming'").Scan(&there)
		pgtest.OK(t, err)
		return there
	})
	began := time.Now()
	n2.start(m)
	await(t, "n2 streams from its relay", func() bool {
		r := n2.Report()
		return r.Streaming && r.Source == n1.member.Companion && n1.Report().Confirmed["n2"] > 0
	})
	t.Logf("FIGURES companion back until its standby streams from it: %v", time.Since(began))
	m.setGate(semisync("n2"))
	n1.begin().returns()
}

// Somebody takes the gate off by hand, in the file that counts for more than ours.
func TestAGateThatIsTakenOffByHandIsPutBack(t *testing.T) {
	m := newTeam(t, "n1")
	m.found(async)
	n1 := m.nodes[0]
	n1.exec("CREATE TABLE t (i int)")
	n1.exec("ALTER SYSTEM SET synchronous_standby_names = ''")
	n1.exec("SELECT pg_reload_conf()")
	conn := n1.conn()
	await(t, "the gate to be back", func() bool {
		var names string
		err := conn.QueryRow(context.Background(), "SELECT setting FROM pg_file_settings WHERE name = 'synchronous_standby_names' AND applied").Scan(&names)
		return err == nil && names == gateName
	})
	n1.begin().returns()
}
