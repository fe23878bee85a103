package failover

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heliosdb/helios/wal"
)

var (
	seeds = flag.Int("seeds", 400, "how many clusters TestSim breaks")
	seed  = flag.Uint64("seed", 0, "the only one to break, with its story")
)

// A flaw is what a mutation breaks, to see that the simulation finds it.
type flaw string

const (
	flawNone           flaw = ""
	flawNoWait         flaw = "a new leader does not wait"
	flawNoQuorum       flaw = "R + K > N is ignored"
	flawNoDriftRoom    flaw = "leases are thought to end before they do"
	flawNotSettled     flaw = "the sync set changes before the gate has settled"
	flawDeadIfSilent   flaw = "who is silent counts as dead"
	flawNoLease        flaw = "commits are confirmed without a lease"
	flawOldAssignments flaw = "assignments are taken in any order"
	flawNoReign        flaw = "timelines of primaries that never were ready count"
)

// TestSim breaks clusters at random. -seeds says how many, -seed which one.
func TestSim(t *testing.T) {
	if *seed != 0 {
		w := simulate(*seed, flawNone)
		t.Logf("story of seed %d:\n%s", *seed, strings.Join(w.trace, "\n"))
		if w.failed != nil {
			t.Fatal(w.failed)
		}
		return
	}
	counts := map[string]int{}
	sweep(1, *seeds, flawNone, func(seed uint64, w *world) bool {
		for what, n := range w.counts {
			counts[what] += n
		}
		if w.failed != nil {
			t.Errorf("seed %d: %v\n%s", seed, w.failed, strings.Join(w.trace[max(0, len(w.trace)-60):], "\n"))
		}
		return w.failed == nil
	})
	t.Logf("%d clusters: %v", *seeds, counts)
	for _, what := range []string{"elect", "ready", "again", "fetch", "planned", "sync set", "acknowledged"} {
		if counts[what] == 0 && *seeds >= 100 {
			t.Errorf("no cluster ever came to %q: %v", what, counts)
		}
	}
}

// TestSimBites breaks the engine itself: each flaw is found by some seed.
func TestSimBites(t *testing.T) {
	for f, hint := range map[flaw]uint64{ // where one was last found: a good place to begin
		flawNoWait: 572, flawNoQuorum: 70, flawNoDriftRoom: 162, flawNotSettled: 2152,
		flawDeadIfSilent: 1, flawNoLease: 33, flawOldAssignments: 2674, flawNoReign: 1891,
	} {
		t.Run(string(f), func(t *testing.T) {
			var found atomic.Pointer[string]
			sweep(hint, 10000, f, func(seed uint64, w *world) bool {
				if w.failed != nil {
					text := fmt.Sprintf("seed %d: %v", seed, w.failed)
					found.CompareAndSwap(nil, &text)
				}
				return w.failed == nil
			})
			if found.Load() == nil {
				t.Fatalf("nobody noticed that %s", f)
			}
			t.Log(*found.Load())
		})
	}
}

// sweep simulates n clusters, until report is not content.
func sweep(from uint64, n int, f flaw, report func(uint64, *world) bool) {
	var running sync.WaitGroup
	var mu sync.Mutex
	var next atomic.Uint64
	var stop atomic.Bool
	for range runtime.GOMAXPROCS(0) {
		running.Go(func() {
			for !stop.Load() {
				i := next.Add(1)
				if i > uint64(n) {
					return
				}
				seed := from + i - 1
				w := simulate(seed, f)
				mu.Lock()
				if !stop.Load() && !report(seed, w) {
					stop.Store(true)
				}
				mu.Unlock()
			}
		})
	}
	running.Wait()
}

// simulate breaks one cluster for a while, lets it heal, and sees whether it has.
func simulate(seed uint64, f flaw) *world {
	w := newWorld(seed, f)
	w.chaos = true
	w.wild = seed%2 == 0
	w.late = []int{60, 60, 6}[seed/2%3]
	w.pause = []int{2500, 1000, 400}[seed%3]
	w.run(time.Duration(8+w.rng.IntN(20)) * time.Second)
	w.heal()
	well, healed := w.healthy(), w.now
	for ; well != nil && w.failed == nil && w.now-healed < patience; well = w.healthy() {
		w.run(time.Second)
	}
	if well != nil {
		for _, n := range w.nodes {
			w.logf("%s: %s, standby %v, PostgreSQL %v, epoch %d, assigned %+v, gate %+v, confirmed %v", n.name, n.at.position(), n.standby, n.postgres, n.promised, n.as, n.gate, n.confirmed)
			if n == w.leader {
				for _, p := range n.engine.peers {
					w.logf("    heard: %+v", *p)
				}
			}
		}
		w.fail("%v after it was healed: %v", patience, well)
	}
	return w
}

// patience is how long a cluster may take to heal: some promotions that fail, and the rest
// between them.
const patience = 45 * time.Second

// newWorld makes a cluster with its first primary.
func newWorld(seed uint64, f flaw) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), flaw: f, cut: map[[2]string]bool{}, counts: map[string]int{},
	}
	shape := [][]string{{"n1", "n2", "n3"}, {"n1", "n2", "n3"}, {"n1", "n2", "w1"}, {"n1", "n2", "n3", "n4", "n5"}}[w.rng.IntN(4)]
	log := &State{}
	apply := func(c Command) {
		next, err := log.Apply(c)
		if err != nil {
			w.fail("%v", err)
			return
		}
		log = next
	}
	first := &branch{number: 1}
	for _, name := range shape {
		m := Member{Name: name, Companion: name + ":1", Postgres: name + ":2", Priority: w.rng.IntN(2)}
		if name[0] == 'w' {
			m.Witness, m.Postgres = true, ""
		} else if name != "n1" && w.rng.IntN(6) == 0 {
			m.NoCandidate = true
		}
		apply(Command{Join: &m})
		n := &simNode{w: w, name: name, rate: 0.98 + 0.04*w.rng.Float64(), power: true, at: place{first, 0x1000}, standby: name != "n1", reign: 1, postgres: name[0] != 'w'}
		w.nodes = append(w.nodes, n)
	}
	settings := DefaultSettings()
	settings.Lease = time.Duration(300+w.rng.IntN(1000)) * time.Millisecond
	settings.PromoteBudget = 2 * time.Second
	settings.StopBudget = time.Second
	if w.rng.IntN(4) > 0 {
		settings.Mode = Semisync
		settings.K = 1 + w.rng.IntN(2)
	}
	apply(Command{Settings: &settings})
	apply(Command{Found: &Found{Node: "n1", SystemID: 7, Timeline: 1}})
	w.states = []*State{log}
	for _, n := range w.nodes {
		n.slow = w.rng.IntN(3) * w.rng.IntN(10)
		n.start()
	}
	w.raft()
	w.after(0, w.turn)
	w.after(2*time.Second, w.nemesis)
	return w
}

// run lets d pass, or less if something is found.
func (w *world) run(d time.Duration) {
	for end := w.now + d; w.events.Len() > 0 && w.events.events[0].at <= end && w.failed == nil; {
		next := heap.Pop(&w.events).(event)
		w.now = next.at
		next.f()
		w.checkLeases()
	}
}

// turn moves the nodes on.
func (w *world) turn() {
	for _, n := range w.nodes {
		n.turn()
	}
	w.after(time.Duration(10+w.rng.IntN(20))*time.Millisecond, w.turn)
}

// nemesis breaks something, and something else later.
func (w *world) nemesis() {
	if !w.chaos {
		return
	}
	w.harm(w.victim(), w.nodes[w.rng.IntN(len(w.nodes))], w.rng.IntN(16))
	w.after(time.Duration(50+w.rng.IntN(w.pause))*time.Millisecond, w.nemesis)
}

// victim picks a node, and rather one that matters.
func (w *world) victim() *simNode {
	switch w.rng.IntN(4) {
	case 0:
		return w.node(w.state().Primary)
	case 1:
		if w.leader != nil {
			return w.leader
		}
	}
	return w.nodes[w.rng.IntN(len(w.nodes))]
}

// ambush strikes just after something was committed: that is when most is at stake.
func (w *world) ambush(c Command) {
	if !w.chaos || w.rng.IntN(6) > 0 || kindOf(c) == "" {
		return
	}
	w.after(time.Duration(w.rng.IntN(60))*time.Millisecond, func() {
		for range 1 + w.rng.IntN(2) {
			w.harm(w.victim(), w.victim(), 2+w.rng.IntN(8))
		}
	})
}

// harm does one thing to n, or between n and o, and most often undoes it later.
func (w *world) harm(n, o *simNode, what int) {
	later := func(f func()) { w.after(time.Duration(200+w.rng.IntN(4000))*time.Millisecond, f) }
	switch what {
	case 0, 1:
		w.logf("kill PostgreSQL of %s", n.name)
		n.crash()
	case 2:
		w.logf("kill the companion of %s", n.name)
		w.kill(n, false)
		later(func() { w.revive(n) })
	case 3, 4:
		w.logf("kill everything of %s", n.name)
		w.kill(n, true)
		later(func() { w.revive(n) })
	case 5:
		w.logf("%s loses power", n.name)
		n.power = false
		w.kill(n, true)
		later(func() { w.revive(n) })
	case 6, 7:
		w.logf("freeze %s", n.name)
		n.frozen = true
		later(func() { w.thaw(n) })
	case 8, 9:
		w.logf("isolate %s", n.name)
		for _, p := range w.nodes {
			w.cut[[2]string{n.name, p.name}], w.cut[[2]string{p.name, n.name}] = true, true
		}
		later(func() { clear(w.cut) })
	case 10:
		w.logf("cut %s to %s", n.name, o.name)
		w.cut[[2]string{n.name, o.name}] = true
		later(func() { clear(w.cut) })
	case 11:
		w.logf("everything loses power")
		for _, p := range w.nodes {
			p.power = false
			w.kill(p, true)
			later(func() { w.revive(p) })
		}
	default:
		w.operate(n, o, what)
	}
}

// operate is what operators do.
func (w *world) operate(n, o *simNode, what int) {
	s := w.state()
	var c Command
	switch what {
	case 12:
		to := o.name
		if w.rng.IntN(2) == 0 {
			to = ""
		}
		c.Switchover = &Switchover{To: to}
	case 13:
		t := s.Settings
		t.Lease = time.Duration(300+w.rng.IntN(1700)) * time.Millisecond
		if t.Mode == Semisync {
			t.K = 1 + w.rng.IntN(2)
		}
		if w.rng.IntN(4) == 0 {
			t.Mode = map[ReplicationMode]ReplicationMode{Async: Semisync, Semisync: Async}[t.Mode]
		}
		c.Settings = &t
	case 14:
		on := w.rng.IntN(3) == 0
		c.Pause = &on
	default:
		m, _ := s.Member(n.name)
		m.Maintenance = !m.Maintenance && !m.Witness
		c.Join = &m
		if w.leader != nil && w.rng.IntN(2) == 0 {
			l, run := w.leader, w.leader.run
			w.on(l, func() {
				if l.run == run && l.engine.term != 0 {
					w.step(l, Lost{Node: n.name})
				}
			})
			return
		}
	}
	if w.leader == nil || !w.quorum(w.leader) {
		return
	}
	if next, err := s.Apply(c); err == nil {
		w.logf("operator: %+v", c)
		w.committed(c, next)
	}
}

// kill ends the processes of a node. If its kernel lives, the leader hears of it.
func (w *world) kill(n *simNode, postgres bool) {
	n.companion, n.frozen, n.backlog, n.promoting = false, false, nil, false
	n.run++
	if w.leader == n {
		w.leader, w.led = nil, w.now
	}
	n.leaseUntil = 0
	if postgres {
		n.postgres = false
	}
	if l := w.leader; l != nil && l != n && n.power && w.linked(n, l) {
		run := l.run
		w.after(time.Duration(1+w.rng.IntN(20))*time.Millisecond, func() {
			w.on(l, func() {
				if l.run == run && l.engine.term != 0 {
					w.step(l, Lost{Node: n.name})
				}
			})
		})
	}
}

func (w *world) revive(n *simNode) {
	if !n.companion {
		w.logf("%s is back", n.name)
		n.power = true
		n.start()
	}
}

func (w *world) thaw(n *simNode) {
	if !n.frozen {
		return
	}
	w.logf("%s thaws", n.name)
	n.frozen = false
	backlog := n.backlog
	n.backlog = nil
	for _, f := range backlog {
		w.on(n, f)
	}
}

// heal ends all trouble.
func (w *world) heal() {
	w.logf("healed")
	w.chaos, w.wild = false, false
	clear(w.cut)
	for _, n := range w.nodes {
		w.thaw(n)
		w.revive(n)
	}
	s := w.state()
	off := false
	for _, c := range []Command{{Pause: &off}} {
		next, err := s.Apply(c)
		if err != nil {
			w.fail("%v", err)
			return
		}
		w.committed(c, next)
		s = next
	}
	for _, m := range s.Members {
		m.Maintenance, m.NoCandidate = false, false
		if next, err := w.state().Apply(Command{Join: &m}); err == nil {
			w.committed(Command{Join: &m}, next)
		}
	}
}

// acknowledge notes that a client was told that its commit is there for good.
func (w *world) acknowledge(n *simNode, at place) {
	w.counts["acknowledged"]++
	if n.promised < w.ready {
		w.fail("%s acknowledges %s in epoch %d, and epoch %d is ready", n.name, at.position(), n.promised, w.ready)
	}
	for i, a := range w.acked {
		if a.branch == at.branch {
			w.acked[i].lsn = max(a.lsn, at.lsn)
			return
		}
	}
	w.acked = append(w.acked, at)
}

// checkLeases sees that at most one node may confirm commits.
func (w *world) checkLeases() {
	var holder *simNode
	for _, n := range w.nodes {
		if !n.leased() {
			continue
		}
		if holder != nil {
			w.fail("both %s (epoch %d) and %s (epoch %d) hold a lease", holder.name, holder.leaseEpoch, n.name, n.leaseEpoch)
		}
		holder = n
	}
}

// checkElected sees that nobody is elected while somebody else may confirm commits.
func (w *world) checkElected(c Elect) {
	for _, o := range w.nodes {
		if o.leased() && o.name != c.Node {
			w.fail("%s is elected, and %s holds a lease of epoch %d", c.Node, o.name, o.leaseEpoch)
		}
	}
}

// checkLog sees that a command which was committed was right to be.
func (w *world) checkLog(before *State, c Command, after *State) {
	w.counts[kindOf(c)]++
	switch {
	case c.Fence != nil && c.Fence.Planned:
		w.counts["planned"]++
	case c.Elect != nil:
		if before.Phase != PhaseFenced || before.Epoch != c.Elect.Epoch {
			w.fail("elected without a fence: %s", tell(c))
		}
		w.checkElected(*c.Elect)
		if c.Elect.Node == before.Primary {
			w.counts["again"]++
		}
		if c.Elect.Until != (wal.Position{}) {
			w.counts["fetch"]++
		} else {
			w.checkHolds(before, c.Elect.Node, "is elected")
		}
	case c.Ready != nil:
		w.ready = c.Ready.Epoch
		w.checkHolds(before, after.Primary, "is ready")
		if before.SyncSet.K == 0 { // what asynchronous commits were lost is lost
			at := w.node(after.Primary).at
			for i, a := range w.acked {
				w.acked[i].lsn = min(a.lsn, at.limitOn(a.branch))
			}
		}
	}
}

// checkHolds sees that where commits wait for standbys, node has all that were acknowledged.
func (w *world) checkHolds(s *State, node, what string) {
	if s.SyncSet.K == 0 || s.last().Forced {
		return
	}
	for _, a := range w.acked {
		if at := w.node(node).at; !at.holds(a) {
			w.fail("%s %s at %s, and %s was acknowledged", node, what, at.position(), a.position())
		}
	}
}

// healthy says what of the cluster does not work; nil if all does.
func (w *world) healthy() error {
	s := w.state()
	p := w.node(s.Primary)
	if s.Phase != PhaseReady || !p.serves() || p.standby || !p.leased() {
		return fmt.Errorf("there is no primary: epoch %d is %s, %s", s.Epoch, s.Phase, s.Primary)
	}
	if p.acked+500 < p.at.lsn {
		return fmt.Errorf("%s confirms nothing: %s of %s, gate %v, sync set %v", p.name, p.acked, p.at.lsn, p.gate, s.SyncSet)
	}
	for _, n := range w.nodes {
		if n != p && !w.witness(n.name) && (!n.standby || !p.at.holds(n.at) || n.at.lsn+500 < p.at.lsn) {
			return fmt.Errorf("%s does not follow %s: %s and %s", n.name, p.name, n.at.position(), p.at.position())
		}
	}
	return nil
}
