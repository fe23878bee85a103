package failover

import (
	"reflect"
	"slices"
	"time"
)

// An Engine is what the companion that leads the log thinks with. Everything it remembers
// beside the log is of its own leadership and is forgotten with it, so that a new leader
// starts from the log and from what it hears, and nothing else. It is not safe for
// concurrent use.
type Engine struct {
	self string
	now  time.Time // of this step
	next time.Time // when a Tick is wanted
	out  []Action  // of this step

	term   uint64 // 0: somebody else leads
	led    time.Time
	since  time.Time // when this phase of the epoch began, or the leadership if that is later
	state  *State
	number uint64 // of the newest assignment
	peers  map[string]*peer
	lease  lease
	race   race
	asked  *asked
	force  *Forced

	gate      SyncSet // what the primary is to confirm by
	gateSince uint64  // number of the first assignment that says so
	calledOff time.Time
	prepared  *Prepared
	preparing time.Time // when Prepare was asked for last
	wished    time.Time // when the switchover was first seen
	moved     time.Time // when the leadership was last offered to another
	warned    map[string]string
}

// A peer is what the leader knows of one member.
type peer struct {
	Report // the newest

	heard   time.Time         // when Report came; zero if none has
	seqs    map[uint64]uint64 // the newest report of each run
	sent    Assignment        // the newest, without what only belongs to one report
	away    time.Time         // until when it said that it would be away
	idle    time.Time         // as the primary: since when it has been heard and did not serve
	starts  time.Time         // since when its PostgreSQL has been starting
	streams time.Time         // since when it has streamed without a break
	good    time.Time         // when it was last heard to stream

	lost    bool            // the connection to it broke, and nobody got through since
	spoke   int             // how many reports came since
	dead    bool            // proven: nothing of it runs any more
	proof   string          // who has proven that
	round   uint64          // of probes
	probed  time.Time       // when the last were sent
	refused map[string]bool // who found both ports closed
	second  string          // what was said of it as a second primary; "" if it is none
}

// A lease is the one that may be out there. There is never more than one.
type lease struct {
	holder string
	run    uint64    // of the holder's companion; 0 if another leader granted it
	until  time.Time // by the leader's clock, with room for drift; zero: it has ended
}

// asked is a command that was proposed and of which nothing is known yet.
type asked struct {
	Command
	at time.Time
}

// driftRoom is added to a lease: clocks may be 2 % fast here and 2 % slow there, and
// 1.02/0.98 is less than 1 + 1/24.
const driftRoom = 24

// endOf returns when a lease of that length has surely ended if it was asked for at t.
func endOf(t time.Time, lease time.Duration) time.Time { return t.Add(lease + lease/driftRoom) }

// New makes the engine of the companion self. It follows until it is told that it leads.
func New(self string) *Engine { return &Engine{self: self} }

// Next returns when a Tick is wanted, at the latest; zero if only other inputs matter.
func (e *Engine) Next() time.Time { return e.next }

// Step takes in what happened at now and returns what is to be done. As long as another
// companion leads that is nothing, whatever the log says: what is replayed after a restart
// looks like news and is none.
func (e *Engine) Step(now time.Time, in Input) []Action {
	e.now, e.next, e.out = now, time.Time{}, nil
	switch in := in.(type) {
	case Leads:
		e.lead(in)
	case Follows:
		*e = Engine{self: e.self}
	default:
		if e.term == 0 {
			return nil
		}
		e.take(in)
	}
	if e.term != 0 {
		e.think()
	}
	return e.out
}

// lead begins a leadership. Nobody told this engine which leases are out there, so it
// takes it that the longest possible one was granted a moment ago.
func (e *Engine) lead(in Leads) {
	*e = Engine{
		self: e.self, now: e.now,
		term: in.Term, led: e.now, state: in.State,
		peers: map[string]*peer{}, warned: map[string]string{},
		lease: lease{holder: in.State.Primary, until: endOf(e.now, max(in.State.Settings.Lease, in.State.LongestLease))},
	}
	e.enter()
}

// take remembers what in says.
func (e *Engine) take(in Input) {
	switch in := in.(type) {
	case Applied:
		e.apply(in.State)
	case Heard:
		e.hear(in.Report)
	case Lost:
		e.lose(in.Node)
	case Observed:
		e.observe(in)
	case SealAnswer:
		e.sealed(in)
	case Stopped:
		e.stopped(in)
	case Prepared:
		if in.Epoch == e.state.Epoch && !e.preparing.IsZero() {
			e.prepared = &in
		}
	case Promoted:
		if in.Epoch == e.state.Epoch && e.state.Phase == PhaseElected && e.race.promoted == nil {
			e.race.promoted = &in
		}
	case Refused:
		if e.asked != nil && kindOf(e.asked.Command) == kindOf(in.Command) {
			e.asked, e.calledOff = nil, e.now
		}
	case Forced:
		e.force = &in
	case Leads, Follows, Tick: // the first two are not for here, and a tick says nothing
	}
}

// think does what is to be done now, by all that is known.
func (e *Engine) think() {
	e.forced()
	e.calm()
	switch e.state.Phase {
	case PhaseFenced:
		e.succeed()
	case PhaseElected:
		e.takeOver()
	case PhaseReady:
		e.reign()
	case PhaseForming:
	}
	e.keepSet()
	e.push()
	e.move()
}

// apply takes a new state.
func (e *Engine) apply(s *State) {
	before := e.state
	e.state = s
	if e.asked != nil && e.asked.decided(s) {
		e.asked = nil
	}
	if s.Epoch != before.Epoch || s.Phase != before.Phase {
		e.enter()
	}
	if s.Switchover == nil {
		e.prepared, e.preparing, e.wished = nil, time.Time{}, time.Time{}
	}
	for name, p := range e.peers {
		if _, ok := s.Member(name); !ok {
			delete(e.peers, name)
		} else if name == s.Primary && s.Primary != before.Primary {
			p.idle = time.Time{}
		}
	}
}

// enter begins a phase.
func (e *Engine) enter() {
	e.since = e.now
	if e.race.epoch != e.state.Epoch {
		decided := e.race.decided
		e.race = race{epoch: e.state.Epoch, began: e.now, decided: decided, planned: true}
		e.race.sealed, e.race.said, e.race.asked = map[string]Sealed{}, map[string]time.Time{}, map[string]time.Time{}
		e.gate, e.gateSince = SyncSet{}, 0
	}
	if e.state.Phase == PhaseElected {
		e.race.elected = e.now
	}
	for _, about := range []string{"suspect", "nobody", "stale"} {
		e.over(about)
	}
	for _, p := range e.peers {
		p.good = e.now // who has to find a new primary first gets the time for it
		p.second = ""
	}
}

// propose commits c, one command at a time.
func (e *Engine) propose(c Command) {
	if e.asked != nil && e.due(e.asked.at.Add(max(2*e.state.Settings.Lease, 2*time.Second))) {
		e.asked = nil // nobody ever answered
	}
	if e.asked != nil || !e.calledOff.IsZero() && !e.due(e.calledOff.Add(e.state.Settings.Lease/20)) {
		return
	}
	c.At = e.now
	if _, err := e.state.Apply(c); err != nil {
		e.warn("refused", err.Error()) // a wrong command would be proposed again and again
		return
	}
	e.asked = &asked{c, e.now}
	e.out = append(e.out, Propose{c})
}

// fence closes the epoch for a reason.
func (e *Engine) fence(f Fence) {
	f.Epoch = e.state.Epoch + 1
	e.propose(Command{Fence: &f})
	if e.asked != nil && e.asked.at.Equal(e.now) {
		e.race.decided = e.now
	}
}

// forced closes the epoch because an operator says so.
func (e *Engine) forced() {
	if e.force == nil || e.asked != nil || e.state.Epoch == 0 {
		return
	}
	e.fence(Fence{Forced: true, To: e.force.To, Reason: e.force.Reason})
	if e.asked != nil {
		e.force = nil
	}
}

// kindOf names what c is about.
func kindOf(c Command) string {
	switch {
	case c.Fence != nil:
		return "fence"
	case c.Elect != nil:
		return "elect"
	case c.Ready != nil:
		return "ready"
	case c.SyncSet != nil:
		return "sync set"
	case c.Cancel != "":
		return "cancel"
	}
	return ""
}

// decided reports whether s tells what became of a.
func (a *asked) decided(s *State) bool {
	switch {
	case a.Fence != nil:
		return s.Epoch >= a.Fence.Epoch
	case a.Elect != nil:
		return s.Epoch != a.Elect.Epoch || s.Phase != PhaseFenced
	case a.Ready != nil:
		return s.Epoch != a.Ready.Epoch || s.Phase != PhaseElected
	case a.SyncSet != nil:
		return s.Epoch != a.Epoch || s.SyncSet.Equal(*a.SyncSet)
	default:
		return s.Switchover == nil
	}
}

// due reports whether t has come, and asks for a tick if not.
func (e *Engine) due(t time.Time) bool {
	if !e.now.Before(t) {
		return true
	}
	if e.next.IsZero() || t.Before(e.next) {
		e.next = t
	}
	return false
}

// again reports whether what was done at t is to be done once more, every so often.
func (e *Engine) again(t time.Time, every time.Duration) bool {
	return t.IsZero() || e.due(t.Add(every))
}

// warn tells people something once, until it is over or reads otherwise.
func (e *Engine) warn(about, text string) {
	if e.warned[about] != text {
		e.warned[about] = text
		e.out = append(e.out, Warn{text})
	}
}

// over says that there is nothing to warn about any more.
func (e *Engine) over(about string) { delete(e.warned, about) }

// Warnings returns what people should look at now, in words and in order: what keeps a
// primary that is not well in its place, or the cluster from having one. Only who leads
// knows of any.
func (e *Engine) Warnings() []string {
	var texts []string
	for about, text := range e.warned {
		if about != "refused" {
			texts = append(texts, text)
		}
	}
	for _, p := range e.peers {
		if p.second != "" {
			texts = append(texts, p.second)
		}
	}
	slices.Sort(texts)
	return texts
}

// peer returns what is known of the member of that name.
func (e *Engine) peer(name string) *peer {
	p := e.peers[name]
	if p == nil {
		p = &peer{seqs: map[uint64]uint64{}, good: e.led}
		e.peers[name] = p
	}
	return p
}

// silence is after what time a node that should report counts as away.
func (e *Engine) silence() time.Duration { return max(e.state.Settings.Lease/2, time.Second) }

// present reports whether the node was heard of lately.
func (e *Engine) present(name string) bool {
	p := e.peer(name)
	return !p.heard.IsZero() && !p.dead && !e.due(p.heard.Add(e.silence()))
}

// data returns the members that have a PostgreSQL.
func (e *Engine) data() []Member {
	return slices.DeleteFunc(slices.Clone(e.state.Members), func(m Member) bool { return m.Witness })
}

// assignment is what the node is to do now.
func (e *Engine) assignment(node string) Assignment {
	s := e.state
	a := Assignment{
		Leader: e.self, Term: e.term, Node: node,
		Epoch: s.Epoch, Phase: s.Phase, Timeline: s.Timeline, SwitchLSN: s.SwitchLSN,
	}
	if s.Phase == PhaseElected || s.Phase == PhaseReady {
		a.Primary, _ = s.Member(s.Primary)
		if node == s.Primary {
			a.Gate = e.gate
		}
	}
	return a
}

// assign sends the node its assignment, in answer to r if that is one.
func (e *Engine) assign(node string, r Report, lease time.Duration) {
	a := e.assignment(node)
	e.peer(node).sent = a
	e.number++
	a.Number, a.Run, a.Seq, a.Lease = e.number, r.Run, r.Seq, lease
	e.out = append(e.out, Assign{a})
}

// push sends assignments that have changed. Who is away asks when it comes back; a new leader
// tells everybody.
func (e *Engine) push() {
	for _, m := range e.state.Members {
		p := e.peer(m.Name)
		if !reflect.DeepEqual(p.sent, e.assignment(m.Name)) && (e.led.Equal(e.now) || e.present(m.Name)) {
			e.assign(m.Name, Report{}, 0)
		}
	}
}

// hear takes a report and answers it. Reports come late, twice, and in any order: only what
// is newer than all of its run says anything, but each is answered. Which run is the newer
// one cannot be told; the one that lives has the last word.
func (e *Engine) hear(r Report) {
	p := e.peer(r.Node)
	if _, member := e.state.Member(r.Node); !member {
		delete(e.peers, r.Node)
		return
	}
	if r.Seq <= p.seqs[r.Run] {
		e.assign(r.Node, r, 0)
		return
	}
	p.seqs[r.Run] = r.Seq
	p.Report, p.heard, p.dead = r, e.now, false
	p.round++ // what was seen before it says nothing now
	p.refused = nil
	if p.spoke++; p.spoke > 1 {
		p.lost = false // the first one may have been under way
	}
	p.note(e.now)
	if e.givesBack(r) {
		e.void(r.Node)
	}
	e.assign(r.Node, r, e.grant(r))
	e.doubt(r)
}

// note keeps since when the node has been as it reports.
func (p *peer) note(now time.Time) {
	p.away = now.Add(p.Restarting)
	since := func(t *time.Time, holds bool) {
		if !holds {
			*t = time.Time{}
		} else if t.IsZero() {
			*t = now
		}
	}
	since(&p.starts, p.Postgres == ServerStarting)
	since(&p.streams, p.Streaming)
	if p.Streaming {
		p.good = now
	}
}

// grant returns for how long the sender of r may confirm commits: not at all, unless it is
// the primary of the epoch, of which nobody wants to be rid.
func (e *Engine) grant(r Report) time.Duration {
	s := e.state
	switch {
	case s.Phase != PhaseReady, // before, an election could pass over what it confirms
		r.Node != s.Primary, r.Epoch != s.Epoch, !r.Primary, !r.WantsLease, r.GivesBack,
		e.asked != nil && e.asked.Fence != nil:
		return 0
	}
	until := endOf(e.now, s.Settings.Lease)
	if e.lease.until.After(until) {
		until = e.lease.until // one of an older, longer setting
	}
	e.lease = lease{r.Node, r.Run, until}
	return s.Settings.Lease
}

// givesBack reports whether the sender of r surely holds no lease any more. Of an older term
// r might be from before another leader's grant; but having acted on an assignment of this
// term, the node takes nothing of an older one. Nor can it speak for another run.
func (e *Engine) givesBack(r Report) bool {
	return r.GivesBack && r.Term == e.term && (e.lease.run == 0 || e.lease.run == r.Run)
}

// void notes that the node holds no lease any more.
func (e *Engine) void(node string) {
	if e.lease.holder == node {
		e.lease.until = time.Time{}
	}
}

// doubt warns of a second primary.
func (e *Engine) doubt(r Report) {
	s, p := e.state, e.peer(r.Node)
	is := s.Phase == PhaseReady && r.Primary && r.Postgres == ServerUp && r.Epoch == s.Epoch && r.Node != s.Primary
	switch {
	case !is:
		p.second = ""
	case p.second == "":
		p.second = r.Node + " runs as a primary, and so does " + s.Primary
		e.out = append(e.out, Warn{p.second})
	}
}

// calm forgets about second primaries that have fallen silent.
func (e *Engine) calm() {
	for _, p := range e.peers {
		if e.now.Sub(p.heard) > e.silence() {
			p.second = ""
		}
	}
}

// move gives the leadership to another voter if this one is beside the primary: what ends
// the one would end the other, and the cluster would have to elect twice.
func (e *Engine) move() {
	s := e.state
	if s.Phase != PhaseReady || s.Primary != e.self || s.Paused || s.Switchover != nil || e.asked != nil {
		return
	}
	var best Member
	for _, m := range s.Members {
		if m.Name != e.self && !m.NonVoter && e.present(m.Name) && (best.Name == "" || leadsBetter(m, best)) {
			best = m
		}
	}
	if best.Name != "" && e.due(e.led.Add(e.silence())) && e.again(e.moved, max(5*s.Settings.Lease, 5*time.Second)) {
		e.moved = e.now
		e.out = append(e.out, Transfer{best.Name})
	}
}

// leadsBetter prefers whoever is the least likely to be the next primary.
func leadsBetter(a, b Member) bool {
	if a.Witness != b.Witness {
		return a.Witness
	}
	if a.Candidate() != b.Candidate() {
		return b.Candidate()
	}
	return a.Priority < b.Priority
}
