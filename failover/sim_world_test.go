package failover

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// A world is a cluster in which everything that can go wrong does: a log with one leader at
// a time, of which an old one need not know, nodes that die, freeze and come back, clocks
// that drift, and a network that loses, delays, doubles and reorders. Nothing in it waits:
// an hour is as long as its events take.
type world struct {
	rng    *rand.Rand
	flaw   flaw
	now    time.Duration
	events queue
	order  uint64
	nodes  []*simNode
	chaos  bool // as long as it is set, things go wrong
	wild   bool // the network too
	late   int  // one of so many messages is
	pause  int  // at most so many milliseconds pass between two harms
	cut    map[[2]string]bool

	states []*State // all that were ever committed, oldest first
	leader *simNode // the true one; nil while there is none
	term   uint64
	led    time.Duration

	acked  []place // the furthest that was acknowledged on each branch
	ready  Epoch   // the newest that was
	trace  []string
	failed error
	counts map[string]int
}

type event struct {
	at    time.Duration
	order uint64
	f     func()
}

// A queue is a heap of events, the next one first.
type queue struct{ events []event }

func (q *queue) Len() int { return len(q.events) }
func (q *queue) Less(i, j int) bool {
	a, b := q.events[i], q.events[j]
	return a.at < b.at || a.at == b.at && a.order < b.order
}
func (q *queue) Swap(i, j int) { q.events[i], q.events[j] = q.events[j], q.events[i] }
func (q *queue) Push(x any)    { q.events = append(q.events, x.(event)) }
func (q *queue) Pop() any {
	last := q.events[len(q.events)-1]
	q.events = q.events[:len(q.events)-1]
	return last
}

// after has f happen in d.
func (w *world) after(d time.Duration, f func()) {
	w.order++
	heap.Push(&w.events, event{w.now + max(d, 0), w.order, f})
}

// on has the companion of n do f: at once, when it is thawed, or never.
func (w *world) on(n *simNode, f func()) {
	switch {
	case !n.power || !n.companion:
	case n.frozen:
		n.backlog = append(n.backlog, f)
	default:
		f()
	}
}

func (w *world) node(name string) *simNode {
	return w.nodes[slices.IndexFunc(w.nodes, func(n *simNode) bool { return n.name == name })]
}

func (w *world) state() *State { return w.states[len(w.states)-1] }

func (w *world) witness(name string) bool {
	m, _ := w.state().Member(name)
	return m.Witness
}

func (w *world) linked(from, to *simNode) bool {
	return from == to || !w.cut[[2]string{from.name, to.name}]
}

// send carries a message from one node to another: late, twice, or not at all.
func (w *world) send(from, to *simNode, f func()) {
	if !w.linked(from, to) || w.wild && w.rng.IntN(40) == 0 {
		return
	}
	times := 1
	if w.wild && w.rng.IntN(50) == 0 {
		times = 2
	}
	for range times {
		d := time.Duration(200+w.rng.IntN(3000)) * time.Microsecond
		if w.wild && w.rng.IntN(w.late) == 0 {
			d = time.Duration(w.rng.IntN(3000)) * time.Millisecond
		}
		w.after(d, func() {
			if w.linked(from, to) {
				w.on(to, f)
			}
		})
	}
}

// call carries a request and its answer. If either is lost the caller hears of it or not.
func (w *world) call(from, to *simNode, request func(answer func(Input)), lost Input) {
	run, answered := from.run, false
	w.send(from, to, func() {
		request(func(in Input) {
			late := time.Duration(0)
			if w.wild && w.rng.IntN(1+w.late/4) == 0 {
				late = time.Duration(w.rng.IntN(4000)) * time.Millisecond
			}
			w.after(late, func() {
				w.send(to, from, func() {
					if from.run == run {
						answered = true
						w.step(from, in)
					}
				})
			})
		})
	})
	if lost != nil && w.rng.IntN(2) == 0 {
		w.after(150*time.Millisecond, func() {
			w.on(from, func() {
				if reached := to.alive() && w.linked(from, to) && w.linked(to, from); !reached && !answered && from.run == run {
					w.step(from, lost)
				}
			})
		})
	}
}

// quorum reports whether n and those that it can talk to are a majority of the voters.
func (w *world) quorum(n *simNode) bool {
	voters, reached := 0, 0
	for _, o := range w.nodes {
		voters++
		if o.alive() && w.linked(n, o) && w.linked(o, n) {
			reached++
		}
	}
	return n.alive() && 2*reached > voters
}

// raft ends leaderships that have lost their majority, and begins new ones. The old leader
// learns of it later, or never before it has done more harm.
func (w *world) raft() {
	defer w.after(time.Duration(50+w.rng.IntN(100))*time.Millisecond, w.raft)
	if old := w.leader; old != nil && !w.quorum(old) {
		w.leader = nil
		w.led = w.now
		w.depose(old, time.Duration(w.rng.IntN(1500))*time.Millisecond)
	}
	if w.leader == nil && w.now-w.led > time.Duration(200+w.rng.IntN(500))*time.Millisecond {
		able := slices.DeleteFunc(slices.Clone(w.nodes), func(n *simNode) bool { return !w.quorum(n) })
		if len(able) > 0 {
			w.lead(able[w.rng.IntN(len(able))])
		}
	}
}

func (w *world) depose(old *simNode, after time.Duration) {
	run, term := old.run, w.term
	w.after(after, func() {
		w.on(old, func() {
			if old.run == run && old.engine.term == term {
				w.step(old, Follows{})
			}
		})
	})
}

func (w *world) lead(n *simNode) {
	w.term++
	w.leader, w.led = n, w.now
	w.logf("%s leads term %d", n.name, w.term)
	w.step(n, Leads{Term: w.term, State: w.state()})
	if w.flaw == flawNoWait {
		n.engine.lease.until = time.Time{}
	}
}

// commit commits what the engine of n proposed, if n truly leads.
func (w *world) commit(n *simNode, c Command) {
	run := n.run
	w.after(time.Duration(1+w.rng.IntN(8))*time.Millisecond, func() {
		err := fmt.Errorf("not the leader")
		var next *State
		if w.leader == n && w.quorum(n) && n.run == run {
			next, err = w.apply(c)
		}
		if err != nil {
			w.on(n, func() {
				if n.run == run {
					w.step(n, Refused{Command: c, Err: err.Error()})
				}
			})
			return
		}
		w.committed(c, next)
	})
}

func (w *world) apply(c Command) (*State, error) {
	s := w.state()
	if w.flaw == flawNoQuorum && c.Elect != nil && !s.last().Forced {
		blind := *s
		blind.SyncSet = SyncSet{}
		next, err := blind.Apply(c)
		if err == nil {
			next.SyncSet = s.SyncSet
		}
		return next, err
	}
	return s.Apply(c)
}

// committed tells everybody about the new state.
func (w *world) committed(c Command, next *State) {
	before := w.state()
	w.logf("log: %s", tell(c))
	if err := next.Check(); err != nil {
		w.fail("%v", err)
	}
	w.states = append(w.states, next)
	w.checkLog(before, c, next)
	w.ambush(c)
	for _, n := range w.nodes {
		run := n.run
		w.after(time.Duration(w.rng.IntN(3000))*time.Microsecond, func() {
			w.on(n, func() {
				if n.run != run {
					return
				}
				if n.engine.term == 0 {
					w.quiet(n, Applied{State: next})
				} else if n.engine.state != w.state() {
					w.step(n, Applied{State: w.state()})
				}
			})
		})
	}
}

// hear carries a report to the engine of to: only if to truly leads, which it asks the
// others after the report has come.
func (w *world) hear(to *simNode, r Report, sent time.Duration) {
	if w.leader != to || !w.quorum(to) {
		return
	}
	run := to.run
	w.after(time.Duration(500+w.rng.IntN(4000))*time.Microsecond, func() {
		w.on(to, func() {
			if to.run != run {
				return
			}
			if w.flaw == flawNotSettled && r.Gate.Set.Equal(to.engine.gate) {
				r.Gate.Settled = true
				r.Term, r.Number = to.engine.term, to.engine.number
			}
			before := to.engine.lease
			w.stepSent(to, Heard{Report: r}, sent)
			if w.flaw == flawNoDriftRoom && to.engine.lease != before && to.engine.lease.until.After(to.wall()) {
				to.engine.lease.until = to.wall().Add(w.state().Settings.Lease * 9 / 10)
			}
		})
	})
}

// quiet has a following engine take a step, which must come to nothing.
func (w *world) quiet(n *simNode, in Input) {
	if got := n.engine.Step(n.wall(), in); len(got) > 0 {
		w.fail("%s follows, and answers %T with %v", n.name, in, got)
	}
}

func (w *world) step(n *simNode, in Input) { w.stepSent(n, in, 0) }

// stepSent has an engine take a step, and does what it wants. sent is when the report was sent.
func (w *world) stepSent(n *simNode, in Input, sent time.Duration) {
	if o, ok := in.(Observed); ok && w.flaw == flawDeadIfSilent {
		o.Companion, o.Postgres = DialledRefused, DialledRefused
		in = o
	}
	if l, ok := in.(Leads); ok && w.flaw == flawNoQuorum {
		in = Leads{Term: l.Term, State: blind(l.State)}
	}
	if a, ok := in.(Applied); ok && w.flaw == flawNoQuorum {
		in = Applied{State: blind(a.State)}
	}
	actions := n.engine.Step(n.wall(), in)
	for _, a := range actions {
		w.do(n, a, in, sent)
	}
	if w.flaw == flawDeadIfSilent && n.engine.term != 0 {
		for _, p := range n.engine.peers {
			p.lost = p.lost || n.wall().Sub(p.heard) > 600*time.Millisecond
		}
	}
	w.schedule(n)
}

// blind returns what an engine that ignores R + K > N sees while it elects.
func blind(s *State) *State {
	if s.Phase != PhaseFenced {
		return s
	}
	b := *s
	b.SyncSet = SyncSet{}
	return &b
}

// schedule brings the next tick of n's engine.
func (w *world) schedule(n *simNode) {
	next := n.engine.Next()
	n.timer++
	if next.IsZero() {
		return
	}
	timer, run := n.timer, n.run
	in := time.Duration(float64(next.Sub(n.wall())) / n.rate)
	w.after(in+time.Duration(1+w.rng.IntN(1000))*time.Microsecond, func() {
		w.on(n, func() {
			if n.timer == timer && n.run == run {
				w.step(n, Tick{})
			}
		})
	})
}

// do does what an engine wants.
func (w *world) do(n *simNode, action Action, in Input, sent time.Duration) {
	switch a := action.(type) {
	case Propose:
		w.commit(n, a.Command)
	case Assign:
		to := w.node(a.Assignment.Node)
		if h, ok := in.(Heard); !ok || h.Report.Node != to.name || a.Assignment.Run == 0 {
			sent = 0
		}
		w.send(n, to, func() { to.assign(a.Assignment, sent) })
	case Probe:
		w.probe(n, a)
	case Seal:
		to := w.node(a.Node)
		w.call(n, to, func(answer func(Input)) { answer(to.seal(a.Epoch)) }, SealAnswer{Epoch: a.Epoch, Node: a.Node, Err: "no answer"})
	case Prepare:
		to := w.node(a.Node)
		w.call(n, to, func(answer func(Input)) { answer(Prepared{Epoch: a.Epoch}) }, Prepared{Epoch: a.Epoch, Err: "no answer"})
	case Stop:
		to := w.node(a.Node)
		w.call(n, to, func(answer func(Input)) { to.stop(a.Epoch, func(s Stopped) { answer(s) }) }, nil)
	case Promote:
		to := w.node(a.Node)
		w.call(n, to, func(answer func(Input)) { to.promote(a, func(p Promoted) { answer(p) }) }, Promoted{Epoch: a.Epoch, Err: "no answer"})
	case Transfer:
		if to := w.node(a.To); w.leader == n && w.quorum(to) && w.linked(n, to) {
			w.depose(n, time.Duration(w.rng.IntN(20))*time.Millisecond)
			w.lead(to)
		}
	case Warn:
		w.logf("%s warns: %s", n.name, a.Text)
	}
}

// probe dials both ports of a node, as far as its kernel lets.
func (w *world) probe(n *simNode, a Probe) {
	by, to, run := w.node(a.By), w.node(a.Node), n.run
	w.send(n, by, func() {
		o := Observed{Node: a.Node, By: a.By, Round: a.Round, Companion: DialledSilent, Postgres: DialledSilent}
		if to.power && w.linked(by, to) && w.linked(to, by) {
			o.Companion, o.Postgres = DialledRefused, DialledRefused
			if to.companion {
				o.Companion = DialledOpen
			}
			if to.postgres {
				o.Postgres = DialledOpen
			}
		}
		w.send(by, n, func() {
			if n.run == run {
				w.step(n, o)
			}
		})
	})
}

func (w *world) logf(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%9.3f ", w.now.Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) fail(format string, args ...any) {
	if w.failed == nil {
		w.failed = fmt.Errorf(format, args...)
		w.logf("FAILED: %v", w.failed)
	}
}
