package failover

import (
	"fmt"
	"maps"
	"time"

	"github.com/heliosdb/helios/wal"
)

// A branch is a timeline as it really is. Two of them may have the same number.
type branch struct {
	number wal.Timeline
	parent *branch
	begin  wal.LSN
}

// A place is a position as it really is.
type place struct {
	branch *branch
	lsn    wal.LSN
}

// holds reports whether what was written at q is in p's past.
func (p place) holds(q place) bool {
	limit := p.lsn
	for b := p.branch; b != nil; b = b.parent {
		if b == q.branch {
			return q.lsn <= limit
		}
		limit = min(limit, b.begin)
	}
	return false
}

// fork returns the last place that p and q have in common.
func (p place) fork(q place) place {
	for {
		if q.holds(p) {
			return p
		}
		if at := (place{p.branch, min(p.lsn, q.limitOn(p.branch))}); at.lsn > p.branch.begin || p.branch.parent == nil {
			return at
		}
		p = place{p.branch.parent, p.branch.begin}
	}
}

// limitOn returns up to where p's past is on branch b.
func (p place) limitOn(b *branch) wal.LSN {
	limit := p.lsn
	for c := p.branch; c != nil; c = c.parent {
		if c == b {
			return limit
		}
		limit = min(limit, c.begin)
	}
	return 0
}

func (p place) position() wal.Position { return wal.Position{Timeline: p.branch.number, LSN: p.lsn} }

// A simNode is a machine with a companion and a PostgreSQL, as far as an engine can tell.
type simNode struct {
	w    *world
	name string
	rate float64 // of its clock

	// The machine and its processes.
	power     bool // the kernel answers
	companion bool
	postgres  bool
	frozen    bool
	backlog   []func() // what arrived while it was frozen
	run       uint64   // also tells timers of an older run apart

	// On disk.
	at       place
	standby  bool  // has a standby.signal
	reign    Epoch // the newest that it wrote or took WAL in
	promised Epoch // the newest epoch it knows of
	halted   Epoch // in which it was shut down for a switchover

	// What the companion remembers.
	seq          uint64
	term, number uint64
	as           Assignment
	leaseUntil   time.Duration // by its own clock
	leaseEpoch   Epoch
	gaveBack     Epoch
	gate         GateState
	confirmed    map[string]wal.LSN
	acked        wal.LSN
	streamed     time.Duration // true time when WAL came last
	busy         time.Duration // true time until when PostgreSQL starts or is rewound
	promoting    bool
	engine       *Engine
	timer        uint64
	slow         int // how many of its turns it sleeps through
}

// clock is what the node's clock shows.
func (n *simNode) clock() time.Duration { return time.Duration(float64(n.w.now) * n.rate) }

func (n *simNode) wall() time.Time { return time.Unix(0, 0).Add(n.clock()) }

// alive reports whether the companion can do anything now.
func (n *simNode) alive() bool { return n.power && n.companion && !n.frozen }

// serves reports whether PostgreSQL runs now.
func (n *simNode) serves() bool {
	return n.power && n.postgres && !n.frozen && n.w.now >= n.busy
}

// leased reports whether the node may confirm commits, as it counts itself.
func (n *simNode) leased() bool {
	return n.companion && n.power && n.leaseEpoch != 0 && n.leaseEpoch == n.promised && n.clock() < n.leaseUntil
}

// start starts the companion. Whoever starts hears the whole log again.
func (n *simNode) start() {
	n.companion = true
	n.run = uint64(n.w.rng.Int64())
	n.seq, n.term, n.number, n.as = 0, 0, 0, Assignment{}
	n.leaseUntil, n.leaseEpoch, n.gate, n.confirmed = 0, 0, GateState{}, map[string]wal.LSN{}
	n.promoting, n.acked = false, 0
	n.engine = New(n.name)
	for _, s := range n.w.states {
		n.w.quiet(n, Applied{State: s})
	}
	n.w.quiet(n, Tick{})
	n.beat(n.run)
}

// beat sends reports for as long as the run goes on.
func (n *simNode) beat(run uint64) {
	if n.run != run || !n.companion {
		return
	}
	n.report()
	every := 500 * time.Millisecond
	if n.leads() || n.promoting {
		every = n.w.state().Settings.Lease / 5
	}
	n.w.after(every, func() { n.w.on(n, func() { n.beat(run) }) })
}

// leads reports whether the node was told that it is the primary.
func (n *simNode) leads() bool { return n.as.Primary.Name == n.name && n.as.Epoch == n.promised }

// report sends a picture of the node to whoever leads, or to whom the node takes for it.
func (n *simNode) report() {
	if !n.alive() {
		return
	}
	n.seq++
	r := Report{
		Node: n.name, Run: n.run, Seq: n.seq, Epoch: n.promised, Term: n.term, Number: n.number,
		SystemID: 7, Primary: n.serves() && !n.standby, LSN: n.at.lsn, ReplayLSN: n.at.lsn, Timeline: n.at.branch.number,
		Gate: n.gate, Confirmed: map[string]wal.LSN{}, GivesBack: n.gaveBack == n.promised && n.promised > 0,
	}
	switch {
	case n.w.witness(n.name):
		r.Postgres = ServerNone
	case n.serves():
		r.Postgres = ServerUp
	case n.postgres:
		r.Postgres = ServerStarting
	default:
		r.Postgres = ServerDown
	}
	r.WantsLease = r.Primary && n.leads() && !r.GivesBack
	r.Streaming = n.serves() && n.standby && n.w.now-n.streamed < 200*time.Millisecond
	maps.Copy(r.Confirmed, n.confirmed)
	sent := n.clock()
	to := n.w.leader
	if to == nil || n.w.rng.IntN(20) == 0 {
		to = n.w.nodes[n.w.rng.IntN(len(n.w.nodes))]
	}
	n.w.send(n, to, func() { n.w.hear(to, r, sent) })
}

// assign takes an assignment. sent is when the report was sent that it answers.
func (n *simNode) assign(a Assignment, sent time.Duration) {
	older := a.Term < n.term || a.Term == n.term && a.Number < n.number
	if older && n.w.flaw != flawOldAssignments || a.Epoch < n.promised {
		return
	}
	changed := n.as.Epoch != a.Epoch || n.as.Phase != a.Phase || !n.as.Gate.Equal(a.Gate) || n.term != a.Term
	n.term, n.number = max(n.term, a.Term), a.Number
	if n.term != a.Term {
		n.number = 0
	}
	n.promise(a.Epoch)
	n.as = a
	if n.leads() {
		if !n.gate.Set.Equal(a.Gate) || n.gate.Changed == 0 {
			n.gate = GateState{Set: a.Gate, Changed: n.at.lsn}
		}
		if a.Lease > 0 && a.Run == n.run {
			n.leaseUntil, n.leaseEpoch = max(n.leaseUntil, sent+a.Lease), a.Epoch
		}
	}
	n.act()
	if changed {
		n.report()
	}
}

// promise keeps a newer epoch. What belongs to an older one is over.
func (n *simNode) promise(e Epoch) {
	if e > n.promised {
		n.promised = e
		n.leaseUntil, n.leaseEpoch, n.gate, n.confirmed = 0, 0, GateState{}, map[string]wal.LSN{}
	}
}

// act brings PostgreSQL to where the assignment wants it.
func (n *simNode) act() {
	if n.w.witness(n.name) || n.as.Term == 0 || n.promoting || n.as.Epoch != n.promised {
		return
	}
	switch {
	case n.as.Primary.Name == "": // nobody is, and nothing changes
	case n.leads():
		if n.as.Phase == PhaseReady && !n.postgres && !n.standby && n.gaveBack != n.promised {
			n.up(time.Duration(n.w.rng.IntN(400)) * time.Millisecond)
		}
	case n.as.Phase == PhaseReady:
		if !n.standby || !n.postgres {
			n.rejoin()
		}
	case !n.standby && n.postgres: // somebody else takes over
		n.postgres = false
	}
}

func (n *simNode) up(after time.Duration) { n.postgres, n.busy = true, n.w.now+after }

// rejoin makes a standby of whatever there is.
func (n *simNode) rejoin() {
	n.standby = true
	n.up(200 * time.Millisecond)
}

// seal promises e.
func (n *simNode) seal(e Epoch) SealAnswer {
	a := SealAnswer{Epoch: e, Node: n.name}
	if e < n.promised {
		a.Err = fmt.Sprintf("has promised epoch %d", n.promised)
		return a
	}
	n.promise(e)
	a.Sealed = Sealed{Position: n.at.position(), ReplayLSN: n.at.lsn, Reign: n.reign}
	a.Sealed.Relayed = n.w.rng.IntN(3) > 0
	if n.w.flaw == flawNoReign {
		a.Sealed.Reign = 0
	}
	if n.standby && !n.serves() && n.w.rng.IntN(2) == 0 {
		a.Sealed.Err = "is down"
	}
	return a
}

// promote has the node take over, and calls done when that has worked or not.
func (n *simNode) promote(p Promote, done func(Promoted)) {
	fail := func(why string) { done(Promoted{Epoch: p.Epoch, Err: why}) }
	switch {
	case p.Epoch < n.promised:
		fail("promised a newer epoch")
		return
	case n.promoting:
		return // the first call answers
	case n.w.chaos && n.w.rng.IntN(8) == 0:
		fail("no luck")
		return
	}
	n.promise(p.Epoch)
	if !n.standby && n.as.Epoch == p.Epoch && n.leads() && n.postgres && n.w.now >= n.busy {
		n.reign = p.Epoch
		done(Promoted{Epoch: p.Epoch, Timeline: n.at.branch.number, SwitchLSN: n.at.branch.begin})
		return
	}
	n.promoting = true
	run := n.run
	if !n.postgres {
		n.up(100 * time.Millisecond)
	}
	n.w.after(time.Duration(20+n.w.rng.IntN(300))*time.Millisecond, func() {
		n.w.on(n, func() {
			if n.run != run || !n.promoting {
				return
			}
			n.promoting = false
			n.finish(p, done, fail)
		})
	})
}

// finish fetches what is missing, and begins a timeline.
func (n *simNode) finish(p Promote, done func(Promoted), fail func(string)) {
	switch {
	case p.Epoch != n.promised:
		fail("promised a newer epoch meanwhile")
		return
	case !n.postgres:
		fail("PostgreSQL is down")
		return
	case n.at.position().Compare(p.Until) < 0 && !n.fetch(p):
		fail("cannot fetch what is missing")
		return
	}
	if n.standby {
		n.at = place{&branch{number: n.at.branch.number + 1, parent: n.at.branch, begin: n.at.lsn}, n.at.lsn}
		n.at.lsn += 8
		n.standby = false
	}
	n.busy, n.reign = n.w.now, p.Epoch
	done(Promoted{Epoch: p.Epoch, Timeline: n.at.branch.number, SwitchLSN: n.at.branch.begin})
	n.report()
}

func (n *simNode) fetch(p Promote) bool {
	for _, m := range p.Fetch {
		o := n.w.node(m.Name)
		if at := o.at.position(); at.Timeline != p.Until.Timeline || at.LSN < p.Until.LSN {
			continue
		}
		if o != n && o.alive() && n.w.linked(n, o) && n.w.linked(o, n) && o.at.holds(n.at) {
			n.at, n.reign = o.at, o.reign
			return true
		}
	}
	return false
}

// stop shuts the primary down for a switchover.
func (n *simNode) stop(e Epoch, done func(Stopped)) {
	if e < n.promised {
		done(Stopped{Epoch: e, Err: "promised a newer epoch"})
		return
	}
	n.promise(e)
	if n.standby || n.w.chaos && n.w.rng.IntN(6) == 0 {
		done(Stopped{Epoch: e, Err: "cannot be stopped"})
		return
	}
	run := n.run
	n.w.after(time.Duration(20+n.w.rng.IntN(200))*time.Millisecond, func() {
		n.w.on(n, func() {
			if n.run == run && n.promised == e && !n.leads() {
				n.postgres, n.halted = false, e
				done(Stopped{Epoch: e, Position: n.at.position()})
			}
		})
	})
}

// crash ends the PostgreSQL of a node whose companion lives. The companion gives the lease
// back, or restarts it.
func (n *simNode) crash() {
	n.postgres, n.promoting = false, false
	if !n.alive() {
		return
	}
	switch {
	case !n.leads() || n.standby:
		n.up(time.Duration(200+n.w.rng.IntN(800)) * time.Millisecond)
	case n.w.rng.IntN(2) == 0:
		n.gaveBack, n.leaseUntil = n.promised, 0
		n.comeBack()
	default:
		n.up(time.Duration(50+n.w.rng.IntN(500)) * time.Millisecond)
	}
	n.report()
}

// comeBack has a companion that gave its lease back try again, if nobody has taken over.
func (n *simNode) comeBack() {
	run, epoch := n.run, n.promised
	n.w.after(time.Duration(100+n.w.rng.IntN(1500))*time.Millisecond, func() {
		n.w.on(n, func() {
			if n.run == run && n.promised == epoch && n.leads() && n.as.Phase == PhaseReady {
				n.gaveBack = 0
				n.up(0)
				n.report()
			}
		})
	})
}

// turn is what happens by itself every few milliseconds: writes, replication and confirmations.
func (n *simNode) turn() {
	if n.serves() && !n.standby && !n.w.witness(n.name) && n.w.rng.IntN(3) > 0 {
		n.at.lsn += wal.LSN(8 * (1 + n.w.rng.IntN(4)))
	}
	if n.alive() && n.serves() && !n.standby && n.leads() {
		n.confirm()
	}
	if n.slow > 0 && n.w.chaos && n.w.rng.IntN(n.slow) > 0 {
		return
	}
	if n.alive() && n.serves() && n.standby && n.as.Epoch == n.promised && n.as.Primary.Name != "" && !n.leads() {
		n.pull()
	}
}

// pull has the primary send what this standby lacks.
func (n *simNode) pull() {
	p := n.w.node(n.as.Primary.Name)
	if !p.alive() || !p.serves() || p.standby || p.promised != n.promised || !n.w.linked(p, n) {
		return
	}
	if !p.at.holds(n.at) {
		if n.as.Phase == PhaseReady && n.w.rng.IntN(10) == 0 { // pg_rewind, only of a primary that is sure to stay
			n.at = n.at.fork(p.at)
			n.up(500 * time.Millisecond)
		}
		return
	}
	at, epoch := p.at, p.promised
	n.w.send(p, n, func() {
		if n.promised != epoch || n.as.Epoch != epoch || !n.serves() || !n.standby || n.promoting || !at.holds(n.at) {
			return
		}
		n.at, n.streamed, n.reign = at, n.w.now, epoch
		n.w.send(n, p, func() {
			if p.promised == epoch && !p.standby && p.at.holds(at) {
				p.confirmed[n.name] = max(p.confirmed[n.name], at.lsn)
			}
		})
	})
}

// confirm acknowledges commits by the gate, as long as the lease holds.
func (n *simNode) confirm() {
	at := n.at.lsn
	if g := n.gate.Set; g.K > 0 {
		at = n.flushedBy(g)
	}
	n.gate.Settled = n.gate.Set.K == 0 || at >= n.gate.Changed && at > 0
	if (n.leased() || n.w.flaw == flawNoLease) && n.gate.Changed > 0 && at > n.acked {
		n.acked = at
		n.w.acknowledge(n, place{n.at.branch, at})
	}
}

// flushedBy returns what K of g have flushed.
func (n *simNode) flushedBy(g SyncSet) wal.LSN {
	var best wal.LSN
	for _, m := range g.Members {
		at, others := n.confirmed[m], 0
		for _, o := range g.Members {
			if n.confirmed[o] >= at {
				others++
			}
		}
		if others >= g.K {
			best = max(best, at)
		}
	}
	return best
}
