package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
)

// fence closes the epoch in the leader's name, and returns the next.
func (m *team) fence() (epoch failover.Epoch) {
	m.change(func(as *failover.Assignment) {
		as.Epoch++
		epoch = as.Epoch
		as.Phase, as.Primary = failover.PhaseFenced, failover.Member{}
		m.history = append(m.history, failover.Transition{Epoch: epoch})
	})
	return epoch
}

// elect says who is to be the primary.
func (m *team) elect(n *testNode, set failover.SyncSet) {
	m.change(func(as *failover.Assignment) { as.Phase, as.Primary, as.Gate = failover.PhaseElected, n.member, set })
}

// seal has a node promise the epoch.
func (m *team) seal(n *testNode, epoch failover.Epoch) failover.Sealed {
	m.t.Helper()
	began := time.Now()
	s := n.Seal(pgtest.Context(m.t), epoch)
	m.t.Logf("FIGURES seal of %s: %v, %+v", n.member.Name, time.Since(began), s)
	if s.Err != "" {
		m.t.Fatalf("seal of %s: %s", n.member.Name, s.Err)
	}
	return s.Sealed
}

// stopped has the primary stop in order.
func (m *team) stopped(n *testNode, epoch failover.Epoch) failover.Stopped {
	m.t.Helper()
	pgtest.OK(m.t, n.Prepare(pgtest.Context(m.t)))
	began := time.Now()
	s := n.Stop(pgtest.Context(m.t), epoch)
	m.t.Logf("FIGURES stop of %s: %v, %+v", n.member.Name, time.Since(began), s)
	if s.Err != "" {
		m.t.Fatalf("stop of %s: %s", n.member.Name, s.Err)
	}
	return s
}

// writes has somebody insert row after row at whoever takes writes, until the
// test says stop; it counts what was acknowledged.
type writes struct {
	acknowledged int
	longest      time.Duration
	stop         context.CancelFunc
	done         chan struct{}
}

func (m *team) startWrites(nodes ...*testNode) *writes {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writes{stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		last := time.Now()
		for ctx.Err() == nil {
			for _, n := range nodes {
				conn, err := n.pg.Connect(ctx)
				if err != nil {
					continue
				}
				for err == nil {
					if _, err = conn.Exec(ctx, "INSERT INTO t VALUES (0)"); err == nil {
						w.acknowledged++
						w.longest, last = max(w.longest, time.Since(last)), time.Now()
					}
				}
				conn.Close(context.Background())
			}
		}
	}()
	return w
}

// end stops the writes and returns how many were acknowledged.
func (w *writes) end() int {
	w.stop()
	<-w.done
	return w.acknowledged
}

// awaitSame waits until all nodes have as many rows as the primary, where a write that
// nobody waits for any more may still end.
func (m *team) awaitSame(primary *testNode) int {
	m.t.Helper()
	for _, n := range m.nodes {
		await(m.t, n.member.Name+" has all rows", func() bool { return n.count("t") == primary.count("t") })
	}
	return primary.count("t")
}

// wantRows waits until all nodes have the same rows as the primary, and counts those.
func (m *team) wantRows(primary *testNode, want int) {
	m.t.Helper()
	if got := m.awaitSame(primary); got != want {
		m.t.Errorf("%d rows are there, want %d", got, want)
	}
}

// A standby is busy with something when it is to be promoted, such as with a new segment:
// what its companion holds for it is waited for.
func TestAPromotionWaitsForAStandbyThatIsSlowToFlush(t *testing.T) {
	m := newTeam(t, "n1", "n2")
	m.found(async)
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t (id int)")
	await(t, "n2 has the table", func() bool { return n2.count("t") == 0 })
	var receiver int
	pgtest.OK(t, n2.conn().QueryRow(pgtest.Context(t), "SELECT pid FROM pg_stat_wal_receiver").Scan(&receiver))
	pgtest.OK(t, syscall.Kill(receiver, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(receiver, syscall.SIGCONT) })
	n1.exec("INSERT INTO t VALUES (1)")
	at := n1.lsn("pg_current_wal_flush_lsn()")
	await(t, "n2's companion has the row", func() bool { return n2.relay.Replicator().Position().LSN >= at })
	epoch := m.fence()
	if sealed := m.seal(n2, epoch); sealed.Position.LSN >= at {
		t.Fatalf("n2 was sealed at %s, although it cannot have flushed %s", sealed.Position, at)
	}
	m.elect(n2, async)
	time.AfterFunc(150*time.Millisecond, func() { _ = syscall.Kill(receiver, syscall.SIGCONT) })
	m.promote(n2, failover.Promote{Node: n2.member.Name, Epoch: epoch})
	if rows := n2.count("t"); rows != 1 {
		t.Errorf("n2 has %d rows, and its companion held the one for it", rows)
	}
}

// A switchover under load: nothing that was acknowledged is lost, the old primary
// is back without a rewind, and then it has its turn again.
func TestTwoNodesTakeTurns(t *testing.T) {
	for name, set := range map[string]failover.SyncSet{"async": async, "semisync": {Members: []string{"n1", "n2"}, K: 1}} {
		t.Run(name, func(t *testing.T) {
			m := newTeam(t, "n1", "n2")
			without := func(name string) failover.SyncSet {
				if set.K == 0 {
					return set
				}
				return semisync(name)
			}
			m.found(without("n2"))
			n1, n2 := m.nodes[0], m.nodes[1]
			n1.exec("CREATE TABLE t (i int)")
			w := m.startWrites(n1, n2)
			await(t, "some rows", func() bool { return n1.count("t") > 50 })
			for _, turn := range []struct{ from, to *testNode }{{n1, n2}, {n2, n1}} {
				epoch := m.fence()
				s := m.stopped(turn.from, epoch)
				if got := m.seal(turn.to, epoch); got.Position.LSN < s.Position.LSN {
					t.Errorf("%s has sealed at %s, and %s was stopped at %s", turn.to.member.Name, got.Position, turn.from.member.Name, s.Position)
				}
				m.elect(turn.to, without(turn.from.member.Name))
				m.promote(turn.to, failover.Promote{Epoch: epoch, Until: s.Position})
				promoted := time.Now()
				before := turn.to.count("t")
				await(t, "writes go on", func() bool { return turn.to.count("t") > before+20 })
				await(t, "the old primary streams", func() bool { return turn.from.Report().Streaming })
				t.Logf("FIGURES promoted until the old primary streams: %v", time.Since(promoted))
			}
			acknowledged := w.end()
			t.Logf("FIGURES the longest gap between two of %d commits: %v", acknowledged, w.longest)
			if got := m.awaitSame(n1); got < acknowledged {
				t.Errorf("%d rows are there, and %d were acknowledged", got, acknowledged)
			}
		})
	}
}

// A switchover is given up after the old primary has stopped: it goes on as if
// nothing had been, on its timeline.
func TestASwitchoverIsGivenUp(t *testing.T) {
	m := newTeam(t, "n1", "n2")
	m.found(async)
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t (i int)")
	epoch := m.fence()
	m.stopped(n1, epoch)
	m.elect(n1, async)
	done := m.promote(n1, failover.Promote{Epoch: epoch})
	if done.Timeline != 1 {
		t.Errorf("the primary goes on on timeline %s, want 1", done.Timeline)
	}
	n1.exec("INSERT INTO t VALUES (1)")
	await(t, "n2 streams", func() bool { return n2.Report().Streaming })
	m.awaitSame(n1)

	// And once more without a stop: it confirms nothing until it is elected again.
	epoch = m.fence()
	m.seal(n1, epoch)
	c := n1.begin()
	c.waits(n1)
	m.elect(n1, async)
	if done := m.promote(n1, failover.Promote{Epoch: epoch}); done.Timeline != 1 {
		t.Errorf("the primary goes on on timeline %s, want 1", done.Timeline)
	}
	c.returns()
	m.awaitSame(n1)
}

// A primary that was cut off has written what nobody has. When it hears of its
// successor it is stopped, rewound, and follows; what it alone had is kept.
func TestAPrimaryThatWasCutOffIsRewound(t *testing.T) {
	m := newTeam(t, "n1", "n2")
	m.leased = time.Minute
	m.found(async)
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t (i int)")
	n1.exec("INSERT INTO t SELECT generate_series(1, 100)")
	await(t, "n2 has them", func() bool { return n2.count("t") == 100 })
	m.cut("n1", true)
	epoch := m.fence()
	m.seal(n2, epoch)
	n1.exec("INSERT INTO t SELECT generate_series(1, 5000)")
	m.elect(n2, async)
	m.promote(n2, failover.Promote{Epoch: epoch})
	n2.exec("INSERT INTO t SELECT generate_series(1, 100)")
	pid := n1.pg.PID()
	healed := time.Now()
	m.cut("n1", false)
	await(t, "n1 is another process", func() bool { now := n1.pg.PID(); return now != 0 && now != pid })
	await(t, "n1 streams", func() bool { return n1.Report().Streaming })
	t.Logf("FIGURES healed until the old primary streams, rewound: %v", time.Since(healed))
	m.wantRows(n2, 200)
}

// A standby that was not sealed has received more than the one that was promoted.
// It is not counted, and is rewound.
func TestAStandbyPastTheForkIsRewound(t *testing.T) {
	m := newTeam(t, "n1", "n2", "n3")
	m.leased = time.Minute
	m.found(async)
	n1, n2, n3 := m.nodes[0], m.nodes[1], m.nodes[2]
	n1.exec("CREATE TABLE t (i int)")
	await(t, "n2 has the table", func() bool { return n2.count("t") == 0 })
	m.cut("n1", true)
	m.cut("n3", true)
	epoch := m.fence()
	s := m.seal(n2, epoch)
	n1.exec("INSERT INTO t SELECT generate_series(1, 5000)")
	await(t, "n3 has what n2 has not", func() bool { return n3.count("t") == 5000 })
	pgtest.OK(t, n1.pg.Kill())
	m.elect(n2, async)
	m.promote(n2, failover.Promote{Epoch: epoch})
	n2.exec("INSERT INTO t SELECT generate_series(1, 100)")
	pid := n3.pg.PID()
	m.cut("n3", false)
	healed := time.Now()
	await(t, "n3 is another process", func() bool {
		if got := n2.Report().Confirmed["n3"]; n3.pg.PID() == pid && got > s.Position.LSN {
			t.Errorf("the diverged standby has confirmed %s, and the fork is at %s", got, s.Position)
		}
		now := n3.pg.PID()
		return now != 0 && now != pid
	})
	await(t, "n3 streams", func() bool { return n3.Report().Streaming })
	t.Logf("FIGURES healed until the diverged standby streams: %v", time.Since(healed))
	m.cut("n1", false)
	await(t, "n1 streams", func() bool { return n1.Report().Streaming })
	m.wantRows(n2, 100)
}

// PostgreSQL hangs, and its companion does not: the lease is given back, and the
// server is killed, so that it cannot go on when it is let go.
func TestAHungServerIsKilledAndReplaced(t *testing.T) {
	m := newTeam(t)
	for _, name := range []string{"n1", "n2"} {
		m.add(name, func(c *Config) { c.HealthInterval, c.HealthTimeout = 200*time.Millisecond, 500*time.Millisecond })
	}
	m.found(async)
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t (i int)")
	await(t, "n2 has the table", func() bool { return n2.count("t") == 0 })
	hung := time.Now()
	pgtest.OK(t, n1.pg.Freeze())
	await(t, "the lease is given back", func() bool { return m.report("n1").GivesBack })
	t.Logf("FIGURES hung until the lease is given back: %v", time.Since(hung))
	await(t, "the server is gone", func() bool { return m.report("n1").Postgres == failover.ServerDown })
	t.Logf("FIGURES hung until it is killed: %v", time.Since(hung))
	m.failover(n2, async)
	n2.exec("INSERT INTO t VALUES (1)")
	t.Logf("FIGURES hung until the first commit: %v", time.Since(hung))
	await(t, "n1 streams", func() bool { return n1.Report().Streaming })
	m.awaitSame(n2)
}

// A primary that has crashed, or was stopped by hand, and that nobody has taken
// the place of, is started again, and goes on once it has a lease.
func TestAPrimaryIsStartedAgainWhenNobodyTakesOver(t *testing.T) {
	for name, end := range map[string]func(*pgctl.Instance) error{
		"kill -9":        (*pgctl.Instance).Kill,
		"a stop by hand": func(i *pgctl.Instance) error { return i.Stop(context.Background(), pgctl.Fast) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newTeam(t, "n1", "n2")
			m.found(semisync("n2"))
			n1, n2 := m.nodes[0], m.nodes[1]
			n1.exec("CREATE TABLE t (i int)")
			n1.exec("INSERT INTO t VALUES (1)")
			began := time.Now()
			pgtest.OK(t, end(n1.pg))
			t.Logf("FIGURES the server ended after %v", time.Since(began))
			await(t, "the lease is given back", func() bool { return m.report("n1").GivesBack })
			t.Logf("FIGURES given back after %v", time.Since(began))
			await(t, "it has a lease again", func() bool { return n1.lease.Valid(n1.clock(), 1) })
			n1.exec("INSERT INTO t VALUES (2)")
			t.Logf("FIGURES ended until the first commit: %v", time.Since(began))
			await(t, "n2 streams", func() bool { return n2.Report().Streaming })
			if got := m.awaitSame(n1); got != 2 {
				t.Errorf("%d rows are there, want 2", got)
			}
		})
	}
}

// Companions end and begin, and the servers do not notice: they are adopted as
// they are.
func TestServersOutliveTheirCompanions(t *testing.T) {
	m := newTeam(t, "n1", "n2")
	m.found(semisync("n2"))
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t (i int)")
	one, two := n1.pg.PID(), n2.pg.PID()
	for _, n := range m.nodes {
		n.halt()
		n.start(m)
		began := time.Now()
		n1.begin().returns()
		t.Logf("FIGURES companion of %s back until a commit: %v", n.member.Name, time.Since(began))
	}
	if n1.pg.PID() != one || n2.pg.PID() != two {
		t.Errorf("the servers are %d and %d, want %d and %d as before", n1.pg.PID(), n2.pg.PID(), one, two)
	}
	epoch := m.fence()
	m.seal(n2, epoch)
	n2.halt()
	n2.start(m)
	if s := n2.Seal(pgtest.Context(t), epoch-1); s.Err == "" {
		t.Errorf("a companion has sealed epoch %d after %d: %+v", epoch-1, epoch, s)
	}
	if p := n2.Promote(pgtest.Context(t), failover.Promote{Epoch: epoch - 1}); p.Err == "" {
		t.Errorf("a companion has promoted in epoch %d after it had sealed %d: %+v", epoch-1, epoch, p)
	}
	m.elect(n2, async)
	m.promote(n2, failover.Promote{Epoch: epoch})
	n2.begin().returns()
	await(t, "n1 streams", func() bool { return n1.Report().Streaming })
	m.awaitSame(n2)
}

// sealEarly seals n2 of three nodes, while n1 does not hear that its epoch is closed, and goes on.
func sealEarly(t *testing.T) (m *team, epoch failover.Epoch, short failover.Sealed) {
	t.Helper()
	m = newTeam(t, "n1", "n2", "n3")
	m.leased = time.Minute
	m.found(async)
	m.nodes[0].exec("CREATE TABLE t (i int)")
	n2 := m.nodes[1]
	await(t, "n2 has the table", func() bool { return n2.count("t") == 0 })
	m.cut("n1", true)
	epoch = m.fence()
	return m, epoch, m.seal(n2, epoch)
}

// promoteWith makes n the primary, with all that from has, which was sealed.
func (m *team) promoteWith(n *testNode, epoch failover.Epoch, from *testNode, full failover.Sealed) {
	m.t.Helper()
	m.elect(n, async)
	n.blank.Store(true) // its own part of the log tells nothing, nor who the others are
	defer n.blank.Store(false)
	done := m.promote(n, failover.Promote{Epoch: epoch, Until: full.Position, Fetch: []failover.Member{from.member}})
	if done.SwitchLSN < full.Position.LSN {
		m.t.Errorf("the new timeline begins at %s, want not before %s", done.SwitchLSN, full.Position)
	}
}

// The primary of a closed epoch may write on. A standby that has sealed the epoch does not
// go there, though its relay is away, nor when it is started to be promoted.
func TestAStandbyOfAClosedEpochForgetsTheWayToItsPrimary(t *testing.T) {
	m := newTeam(t, "n1", "n2")
	m.found(async)
	n1, n2 := m.nodes[0], m.nodes[1]
	way := fmt.Sprintf("port=%s,%s ", portOf(t, n2.member.Companion), portOf(t, n1.member.Postgres))
	knows := func() bool {
		settings, err := n2.pg.Settings()
		pgtest.OK(t, err)
		return strings.Contains(settings["primary_conninfo"], way)
	}
	if !knows() {
		t.Fatal("the standby of n1 does not know the way to it")
	}
	m.cut("n1", true)
	epoch := m.fence()
	m.seal(n2, epoch)
	await(t, "n2 forgets the way to n1", func() bool { return !knows() })
	m.cut("n2", true)
	m.seal(n2, epoch+1) // what it was assigned is over: it does nothing by itself
	pgtest.OK(t, n2.pg.HardStop(pgtest.Context(t), stopBudget))
	pgtest.OK(t, n2.pg.SetStandby(n2.conninfoTo(n1.member)))
	m.promote(n2, failover.Promote{Epoch: epoch + 1, Ruler: "n1", Timeline: 1})
	if knows() {
		t.Error("n2 was started with the way to n1")
	}
}

// portOf returns the port of an address.
func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	pgtest.OK(t, err)
	return port
}

// The one that is to be primary lacks what another has received: it is fetched
// before the promotion.
func TestWhatIsMissingIsFetchedBeforeAPromotion(t *testing.T) {
	m, epoch, short := sealEarly(t)
	n1, n2, n3 := m.nodes[0], m.nodes[1], m.nodes[2]
	n1.exec("INSERT INTO t SELECT generate_series(1, 50000)")
	await(t, "n3 has all rows", func() bool { return n3.count("t") == 50000 })
	full := m.seal(n3, epoch)
	pgtest.OK(t, n1.pg.Kill())
	if short.Position.LSN >= full.Position.LSN {
		t.Fatalf("n2 is at %s and n3 at %s, want less", short.Position, full.Position)
	}
	m.promoteWith(n2, epoch, n3, full)
	n2.exec("INSERT INTO t VALUES (0)")
	await(t, "n3 streams", func() bool { return n3.Report().Streaming })
	m.cut("n1", false)
	await(t, "n1 streams", func() bool { return n1.Report().Streaming })
	m.wantRows(n2, 50001)
}

// A primary crashes, and its companion does not: that has what the standbys lack, and also
// what the server had not sent.
func TestWhatACrashedPrimaryHadIsFetchedFromItsCompanion(t *testing.T) {
	m, epoch, short := sealEarly(t)
	n1, n2, n3 := m.nodes[0], m.nodes[1], m.nodes[2]
	m.seal(n3, epoch)
	n1.exec("INSERT INTO t SELECT generate_series(1, 50000)")
	pgtest.OK(t, n1.pg.Kill())
	await(t, "n1 notices", func() bool { return n1.Report().Postgres == failover.ServerDown })
	full := m.seal(n1, epoch)
	if !full.Relayed || full.Position.LSN <= short.Position.LSN {
		t.Fatalf("n1 is at %+v, want it behind %s, and at its companion", full, short.Position)
	}
	m.promoteWith(n2, epoch, n1, full)
	m.cut("n1", false)
	await(t, "n1 streams", func() bool { return n1.Report().Streaming })
	await(t, "n3 streams", func() bool { return n3.Report().Streaming })
	m.wantRows(n2, 50000)
}

// A promotion came too late, and another node was promoted in the next epoch: both
// have a timeline of the same number, that begins at the same place.
func TestAPrimaryThatNeverWasReadyIsClonedAnew(t *testing.T) {
	m := newTeam(t, "n1", "n2", "n3")
	m.found(async)
	n1, n2, n3 := m.nodes[0], m.nodes[1], m.nodes[2]
	n1.exec("CREATE TABLE t (i int)")
	for _, n := range []*testNode{n2, n3} {
		await(t, n.member.Name+" has the table", func() bool { return n.count("t") == 0 })
	}
	pgtest.OK(t, n1.pg.Kill()) // it writes now and then by itself: what comes between the seals would set them apart
	await(t, "n2 and n3 have the same", func() bool {
		return n2.lsn("pg_last_wal_receive_lsn()") == n3.lsn("pg_last_wal_receive_lsn()")
	})
	epoch := m.fence()
	one, other := m.seal(n2, epoch), m.seal(n3, epoch)
	if one.Position != other.Position {
		t.Fatalf("n2 is at %s and n3 at %s, want them equal", one.Position, other.Position)
	}
	m.cut("n3", true)
	m.elect(n2, async)
	late := m.ascend(n2, failover.Promote{Epoch: epoch})
	n2.exec("INSERT INTO t SELECT generate_series(1, 100)")
	m.cut("n2", true)
	epoch = m.fence()
	m.seal(n3, epoch)
	m.elect(n3, async)
	done := m.promote(n3, failover.Promote{Epoch: epoch})
	if done.Timeline != late.Timeline || done.SwitchLSN != late.SwitchLSN {
		t.Fatalf("promoted to %+v after %+v, want the same timeline", done, late)
	}
	m.cut("n3", false)
	n3.exec("INSERT INTO t SELECT generate_series(1, 10)")
	n2.blank.Store(true)
	m.cut("n2", false)
	await(t, "the server of n2 to be stopped", func() bool { return !n2.pg.Running() })
	told := m.report("n2").Seq
	await(t, "n2 to be told what the cluster is", func() bool { return m.report("n2").Seq > told+10 })
	if n2.pg.Running() {
		t.Error("n2 has decided what to do with its data, and does not know yet whose they are")
	}
	n2.blank.Store(false)
	await(t, "n2 streams", func() bool { return n2.Report().Streaming })
	await(t, "n1 streams", func() bool { return n1.Report().Streaming })
	m.wantRows(n3, 10)
}

// The elected node crashes when it has begun to be promoted, and has not begun its timeline: by
// its files it is a primary on that of the one before. Its companion has crashed as well, and
// does not know the companions' log yet.
func TestAPromotionThatACrashCutShortIsMadeAgain(t *testing.T) {
	m := newTeam(t, "n1", "n2", "n3")
	m.found(async)
	n1, n2, n3 := m.nodes[0], m.nodes[1], m.nodes[2]
	n1.exec("CREATE TABLE t AS SELECT generate_series(1, 100) i")
	for _, n := range []*testNode{n2, n3} {
		await(t, n.member.Name+" has the rows", func() bool { return n.count("t") == 100 })
	}
	epoch := m.fence()
	m.seal(n2, epoch)
	m.seal(n3, epoch)
	pgtest.OK(t, n1.pg.Kill())
	m.elect(n2, async)
	pgtest.OK(t, n2.pg.Kill())
	pgtest.OK(t, os.Remove(filepath.Join(n2.cfg.DataDir, "standby.signal")))
	n2.blank.Store(true)
	done := m.promote(n2, failover.Promote{Epoch: epoch})
	if done.Timeline != 2 {
		t.Fatalf("promoted to %+v, want a new timeline", done)
	}
	n2.blank.Store(false)
	n2.exec("INSERT INTO t VALUES (0)")
	for _, n := range []*testNode{n1, n3} {
		await(t, n.member.Name+" streams", func() bool { return n.Report().Streaming })
	}
	m.wantRows(n2, 101)
}

// A standby that somebody has promoted past its companion is on a timeline which the
// cluster knows nothing of. It is left alone until an operator wants it made anew, and
// then what it had is kept.
func TestAStandbyThatWasPromotedByHandIsMadeAnewWhenThatIsWanted(t *testing.T) {
	m := newTeam(t, "n1", "n2")
	m.found(async)
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t (i int)")
	await(t, "n2 has the table", func() bool { return n2.count("t") == 0 })
	n2.exec("SELECT pg_promote(wait => false)")
	await(t, "n2 is left alone", func() bool { return strings.Contains(n2.Report().Reason, "is left alone") })
	n1.exec("INSERT INTO t SELECT generate_series(1, 100)")
	pgtest.OK(t, n2.Reinit(t.Context()))
	await(t, "n2 streams", func() bool { return n2.Report().Streaming })
	m.wantRows(n1, 100)
	if kept, err := filepath.Glob(n2.cfg.DataDir + ".diverged-*/PG_VERSION"); err != nil || len(kept) != 1 {
		t.Errorf("kept is %v, error %v; want the directory that was replaced", kept, err)
	}
}

// whileAway ends a standby's server, has something written, and has the primary's relay
// forget it. The standby's agent is to be started again by the caller.
func (m *team) whileAway(standby, primary *testNode, write func()) {
	standby.halt()
	standby.end()
	write()
	primary.halt()
	primary.start(m)
}

// A standby was away for longer than the primary keeps WAL. No WAL helps it any more,
// and it is made anew without anybody's help.
func TestAStandbyWhoseWALIsGoneIsMadeAnew(t *testing.T) {
	m := newTeam(t, "n1", "n2")
	m.found(async)
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t (i int)")
	await(t, "n2 has the table", func() bool { return n2.count("t") == 0 })
	n1.exec("ALTER SYSTEM SET wal_keep_size = 0")
	n1.exec("SELECT pg_reload_conf()")
	m.whileAway(n2, n1, func() {
		for range 3 {
			n1.exec("INSERT INTO t SELECT generate_series(1, 100)")
			n1.exec("SELECT pg_switch_wal()")
			n1.exec("CHECKPOINT")
		}
	})
	n1.exec("INSERT INTO t SELECT generate_series(1, 100)")
	n2.cfg.strandedFor = time.Second
	n2.start(m)
	await(t, "n2 says what it lacks", func() bool { return strings.Contains(n2.Report().Reason, "was removed at n1") })
	await(t, "n2 streams", func() bool { return n2.Report().Streaming })
	m.wantRows(n1, 400)
	if kept, err := filepath.Glob(n2.cfg.DataDir + ".*/PG_VERSION"); err != nil || len(kept) != 0 {
		t.Errorf("%v is kept, error %v; want nothing, since nothing in it is not in the copy", kept, err)
	}
}

// A standby crashes within a segment, and the primary goes on for some more. Behind
// what the standby has, its file of that segment is room that was not used: nobody
// takes that for WAL.
func TestAStandbyThatCrashedWithinASegmentComesBack(t *testing.T) {
	m := newTeam(t, "n1", "n2")
	m.found(async)
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t (i int)")
	await(t, "n2 has the table", func() bool { return n2.count("t") == 0 })
	m.whileAway(n2, n1, func() {
		n1.exec("INSERT INTO t SELECT generate_series(1, 20000)")
		for range 2 {
			n1.exec("SELECT pg_switch_wal()")
			n1.exec("INSERT INTO t SELECT generate_series(1, 100)")
		}
	})
	began := time.Now()
	n2.start(m)
	await(t, "n2 streams", func() bool { return n2.Report().Streaming })
	m.wantRows(n1, 20200)
	t.Logf("FIGURES the same after %v", time.Since(began))
}

// A standby that was just started takes queries before it has replayed all that it had
// flushed, and tells that it has received nothing. It counts for nothing until then: that
// it has flushed a commit may be all that is left of it.
func TestAStandbyThatStillReplaysIsNotSealed(t *testing.T) {
	m := newTeam(t, "n1", "n2")
	m.found(async)
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t (i int)")
	await(t, "n2 has the table", func() bool { return n2.count("t") == 0 })
	n2.exec("ALTER SYSTEM SET recovery_min_apply_delay = '1h'")
	n2.exec("SELECT pg_reload_conf()")
	n1.exec("INSERT INTO t SELECT generate_series(1, 1000)")
	at := n1.lsn("pg_current_wal_flush_lsn()")
	await(t, "n2 has flushed the rows", func() bool { return n2.lsn("pg_last_wal_receive_lsn()") >= at })
	pgtest.OK(t, n1.pg.Kill())
	pgtest.OK(t, n2.pg.Kill())
	epoch := m.fence()
	var answer failover.SealAnswer
	await(t, "n2 to answer while it replays", func() bool {
		answer = n2.Seal(pgtest.Context(t), epoch)
		return n2.pg.Running() && strings.Contains(answer.Sealed.Err, errReplaying.Error())
	})
	if p := answer.Sealed.Position; p != (wal.Position{}) {
		t.Errorf("n2 is sealed at %s although it has not replayed what it has up to %s", p, at)
	}
	n2.exec("ALTER SYSTEM RESET recovery_min_apply_delay")
	n2.exec("SELECT pg_reload_conf()")
	await(t, "n2 is sealed", func() bool { answer = n2.Seal(pgtest.Context(t), epoch); return answer.Sealed.Err == "" })
	if answer.Sealed.Position.LSN < at {
		t.Errorf("n2 is sealed at %s, and has flushed %s", answer.Sealed.Position, at)
	}
	m.elect(n2, async)
	m.promote(n2, failover.Promote{Epoch: epoch})
	if got := n2.count("t"); got != 1000 {
		t.Errorf("%d rows are there, want 1000", got)
	}
}

// What a server's files hold cannot be told any more: they are copied anew, and kept. Until
// there is a copy they count for nothing.
func TestAServerWhoseFilesTellNothingIsClonedAnew(t *testing.T) {
	m := newTeam(t, "n1", "n2")
	m.found(async)
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t AS SELECT generate_series(1, 10) i")
	m.cut("n2", true)
	pgtest.OK(t, n2.pg.Kill())
	segments, err := filepath.Glob(filepath.Join(n2.cfg.DataDir, "pg_wal", "0*"))
	pgtest.OK(t, err)
	for _, s := range segments {
		pgtest.OK(t, os.Remove(s))
	}
	pgtest.OK(t, n2.promises.change(func(p *promise) { p.Astray = true }))
	answer := n2.Seal(pgtest.Context(t), m.state().Epoch)
	if answer.Sealed.Err == "" || answer.Sealed.Position != (wal.Position{}) {
		t.Errorf("data that may be anybody's are sealed: %+v", answer.Sealed)
	}
	m.cut("n2", false)
	await(t, "n2 streams", func() bool { return n2.Report().Streaming })
	m.wantRows(n1, 10)
	if kept, err := filepath.Glob(n2.cfg.DataDir + ".*/PG_VERSION"); err != nil || len(kept) != 1 {
		t.Errorf("kept is %v, error %v; want the directory that was replaced", kept, err)
	}
	if _, _, back := n2.counts.read(); !slices.Contains(back, "reclone") {
		t.Errorf("n2 came back by %v, want a copy", back)
	}
	if n2.promises.get().Astray {
		t.Error("n2 still says that its data are nobody's")
	}
}
