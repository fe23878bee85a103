package failover

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/heliosdb/helios/wal"
)

// Apply returns what s is after c, or why c is refused. It changes nothing, reads no clock,
// and comes to the same everywhere.
func (s *State) Apply(c Command) (*State, error) {
	if c.Epoch != 0 && c.Epoch != s.Epoch {
		return nil, fmt.Errorf("failover: meant for epoch %d, and it is %d", c.Epoch, s.Epoch)
	}
	var applied []func(*State) error
	add := func(set bool, f func(*State) error) {
		if set {
			applied = append(applied, f)
		}
	}
	add(c.Found != nil, func(n *State) error { return n.begin(c.At, *c.Found) })
	add(c.Join != nil, func(n *State) error { return n.join(*c.Join) })
	add(c.Leave != "", func(n *State) error { return n.leave(c.Leave) })
	add(c.Settings != nil, func(n *State) error { return n.settle(*c.Settings) })
	add(c.Pause != nil, func(n *State) error { n.Paused = *c.Pause; return nil })
	add(c.Switchover != nil, func(n *State) error { return n.wish(*c.Switchover) })
	add(c.Cancel != "", func(n *State) error { return n.cancel(c.Cancel) })
	add(c.Fence != nil, func(n *State) error { return n.fence(c.At, *c.Fence) })
	add(c.Elect != nil, func(n *State) error { return n.elect(*c.Elect) })
	add(c.Ready != nil, func(n *State) error { return n.ready(*c.Ready) })
	add(c.SyncSet != nil, func(n *State) error { return n.agree(*c.SyncSet) })
	if len(applied) != 1 {
		return nil, fmt.Errorf("failover: a command says %d things, not one", len(applied))
	}
	next := s.clone()
	if err := applied[0](next); err != nil {
		return nil, fmt.Errorf("failover: %w", err)
	}
	return next, nil
}

// clone returns a copy that shares nothing which Apply changes. A state that nothing was
// applied to yet gets the settings of a new cluster.
func (s *State) clone() *State {
	next := *s
	next.Members = slices.Clone(s.Members)
	next.History = slices.Clone(s.History)
	if next.Settings == (Settings{}) {
		next.Settings = DefaultSettings()
		next.LongestLease = next.Settings.Lease
	}
	return &next
}

func (s *State) begin(at time.Time, f Found) error {
	m, ok := s.Member(f.Node)
	switch {
	case s.Phase != "" && s.Phase != PhaseForming:
		return errors.New("the cluster has had a primary before")
	case !ok || m.Witness:
		return fmt.Errorf("%q is no member with a PostgreSQL", f.Node)
	case f.SystemID == 0 || f.Timeline == 0:
		return errors.New("a first primary has a system identifier and a timeline")
	}
	s.SystemID, s.Origin, s.Timeline = f.SystemID, f.Timeline, f.Timeline
	s.Epoch, s.Phase, s.Primary = 1, PhaseElected, f.Node
	s.remember(Transition{Epoch: 1, To: f.Node, Reason: "the first primary", At: at})
	return nil
}

// join adds m, or changes it. What m is may not contradict what it does now.
func (s *State) join(m Member) error {
	switch {
	case m.Name == "" || m.Companion == "":
		return errors.New("a member has a name and the address of its companion")
	case strings.ContainsAny(m.Name, " \t\r\n'\"\\"):
		return fmt.Errorf("%q has blanks or quotes, and would have to be the name of a standby", m.Name)
	case m.Witness == (m.Postgres != ""):
		return fmt.Errorf("%s: a witness has no PostgreSQL, and everybody else has one", m.Name)
	case m.Witness && (s.Primary == m.Name || s.SyncSet.Has(m.Name)):
		return fmt.Errorf("%s holds data that count", m.Name)
	}
	for _, other := range s.Members {
		if other.Name != m.Name && (other.Companion == m.Companion || m.Postgres != "" && other.Postgres == m.Postgres) {
			return fmt.Errorf("%s has an address of %s", m.Name, other.Name)
		}
	}
	if s.Phase == "" {
		s.Phase = PhaseForming
	}
	i, known := slices.BinarySearchFunc(s.Members, m.Name, func(m Member, name string) int { return strings.Compare(m.Name, name) })
	if known {
		s.Members[i] = m
	} else {
		s.Members = slices.Insert(s.Members, i, m)
	}
	return nil
}

func (s *State) leave(name string) error {
	switch _, ok := s.Member(name); {
	case !ok:
		return fmt.Errorf("%q is no member", name)
	case s.Primary == name:
		return fmt.Errorf("%s is the primary", name)
	case s.Switchover != nil && s.Switchover.To == name:
		return fmt.Errorf("%s is about to be the primary", name)
	case s.SyncSet.Has(name):
		return fmt.Errorf("commits were confirmed by %s: it leaves the sync set first, by nosync or maintenance", name)
	}
	s.Members = slices.DeleteFunc(s.Members, func(m Member) bool { return m.Name == name })
	return nil
}

// settle changes the settings. Leases of the old length may still be out there.
func (s *State) settle(to Settings) error {
	if err := to.Check(); err != nil {
		return err
	}
	s.LongestLease = max(s.LongestLease, to.Lease)
	s.Settings = to
	return nil
}

func (s *State) wish(w Switchover) error {
	m, ok := s.Member(w.To)
	switch {
	case s.Phase != PhaseReady:
		return errors.New("there is no primary to take over from")
	case s.Switchover != nil:
		return errors.New("another switchover is under way")
	case w.To == "":
	case !ok || m.Witness:
		return fmt.Errorf("%q is no member with a PostgreSQL", w.To)
	case w.To == s.Primary:
		return fmt.Errorf("%s is the primary already", w.To)
	case !m.Candidate():
		return fmt.Errorf("%s is no candidate: it is in maintenance, or nocandidate", w.To)
	}
	s.Switchover, s.Cancelled = &w, ""
	return nil
}

func (s *State) cancel(why string) error {
	if s.Switchover == nil || s.Phase != PhaseReady {
		return errors.New("there is no switchover that could be cancelled")
	}
	s.Switchover, s.Cancelled = nil, why
	return nil
}

func (s *State) fence(at time.Time, f Fence) error {
	switch {
	case s.Epoch == 0:
		return errors.New("there has never been a primary")
	case f.Epoch != s.Epoch+1:
		return fmt.Errorf("fence of epoch %d, and it is %d", f.Epoch, s.Epoch)
	case f.Planned && f.Forced:
		return errors.New("a fence is planned or forced, not both")
	case f.Planned && (s.Phase != PhaseReady || s.Switchover == nil):
		return errors.New("a planned fence is for a switchover")
	case f.Planned && f.To == "" && s.Switchover.To == "":
		return errors.New("a planned fence says who takes over")
	}
	if m, ok := s.Member(f.To); f.To != "" && (!ok || m.Witness || !f.Planned && !f.Forced) {
		return fmt.Errorf("cannot fail over to %q", f.To)
	}
	if last := s.last(); s.Phase != PhaseReady && last != nil && last.Aborted == "" {
		last.Aborted = f.Reason
	}
	if !f.Planned {
		s.Switchover = nil
	}
	if f.To != "" {
		s.Switchover = &Switchover{To: f.To, At: at}
	}
	s.Epoch, s.Phase = f.Epoch, PhaseFenced
	s.remember(Transition{
		Epoch: f.Epoch, From: s.Primary, Reason: f.Reason, Planned: f.Planned, Forced: f.Forced,
		At: at, Timing: Timing{Detect: f.Detect},
	})
	return nil
}

func (s *State) elect(e Elect) error {
	if e.Epoch != s.Epoch || s.Phase != PhaseFenced {
		return fmt.Errorf("election in epoch %d, and %d is %s", e.Epoch, s.Epoch, s.Phase)
	}
	if err := s.electable(e); err != nil {
		return err
	}
	again := e.Node == s.Primary && s.whole()
	s.Phase, s.Primary, s.Until = PhaseElected, e.Node, e.Until
	if !again {
		s.LongestLease = s.Settings.Lease // all others have surely ended
	}
	last := s.last()
	last.To, last.Sealed = e.Node, slices.Clone(e.Sealed)
	if again || last.Planned || last.Forced {
		last.Reason += "; " + e.Reason
	}
	last.Timing = last.Timing.plus(e.Timing)
	return nil
}

// electable says why e is refused.
func (s *State) electable(e Elect) error {
	m, ok := s.Member(e.Node)
	if !ok || m.Witness {
		return fmt.Errorf("%q is no member with a PostgreSQL", e.Node)
	}
	if e.Node == s.Primary && s.whole() {
		return nil // it has all there is
	}
	i := slices.IndexFunc(e.Sealed, func(a Sealed) bool { return a.Node == e.Node })
	if i < 0 || e.Sealed[i].Position.LSN == 0 {
		return fmt.Errorf("%s has not been sealed", e.Node)
	}
	if s.last().Forced {
		return nil
	}
	at, far := e.Sealed[i].Position, s.furthest(e.Sealed).Position
	if e.Until != (wal.Position{}) {
		at = e.Until
	}
	switch {
	case s.Astray(e.Sealed[i].Reign, e.Sealed[i].Position):
		return fmt.Errorf("%s is at %s, of a primary that never was ready", e.Node, e.Sealed[i].Position)
	case !m.Candidate():
		return fmt.Errorf("%s is no candidate", e.Node)
	case e.Sealed[i].Err != "":
		return fmt.Errorf("%s cannot be promoted: %s", e.Node, e.Sealed[i].Err)
	case !s.found(e.Sealed):
		return fmt.Errorf("%d of %v have to be sealed: others may have confirmed commits", s.SyncSet.Need(), s.SyncSet.Members)
	case at != far:
		return fmt.Errorf("%s would come to %s, and there is WAL up to %s", e.Node, at, far)
	case at.Timeline < s.Timeline: // it would give the number away a second time
		return fmt.Errorf("%s is at %s, and has nothing of timeline %s", e.Node, at, s.Timeline)
	}
	return nil
}

func (s *State) ready(r Ready) error {
	switch {
	case r.Epoch != s.Epoch || s.Phase != PhaseElected:
		return fmt.Errorf("ready in epoch %d, and %d is %s", r.Epoch, s.Epoch, s.Phase)
	case r.Timeline < s.Timeline, r.Timeline == s.Timeline && s.Primary != s.Ruler() && !s.last().Forced:
		return fmt.Errorf("ready on timeline %s, and %s of %s is the last", r.Timeline, s.Timeline, s.Ruler())
	case r.Timeline > s.Timeline && r.SwitchLSN == 0:
		return fmt.Errorf("timeline %s began nowhere", r.Timeline)
	case !s.whole() && r.Timeline <= s.Until.Timeline, !s.whole() && r.SwitchLSN < s.Until.LSN:
		return fmt.Errorf("timeline %s began at %s, before %s, which was to be fetched", r.Timeline, r.SwitchLSN, s.Until)
	}
	// By force, one may be ready that never heard of Timeline, and has begun another one of that number.
	if r.Timeline > s.Timeline || s.Primary != s.Ruler() && r.SwitchLSN != 0 {
		s.Timeline, s.SwitchLSN = r.Timeline, r.SwitchLSN
	}
	s.Phase, s.Switchover, s.Until = PhaseReady, nil, wal.Position{}
	last := s.last()
	last.Timeline, last.SwitchLSN = s.Timeline, s.SwitchLSN
	last.Timing = last.Timing.plus(r.Timing)
	return nil
}

// agree changes by whom commits are confirmed. That the primary's gate fits both the old
// set and the new one, the engine has seen to.
func (s *State) agree(set SyncSet) error {
	if s.Phase != PhaseReady {
		return fmt.Errorf("the sync set changes only under a primary, and epoch %d is %s", s.Epoch, s.Phase)
	}
	if set.K < 0 || set.K > len(set.Members) || set.K == 0 && len(set.Members) > 0 {
		return fmt.Errorf("%d of %d cannot confirm a commit", set.K, len(set.Members))
	}
	if s.Settings.Mode == Semisync && set.K < s.Settings.MinReplicas {
		return fmt.Errorf("commits wait for %d at least, not %d", s.Settings.MinReplicas, set.K)
	}
	for i, name := range set.Members {
		m, ok := s.Member(name)
		switch {
		case i > 0 && set.Members[i-1] >= name:
			return fmt.Errorf("%v is not in order", set.Members)
		case !ok || m.Witness:
			return fmt.Errorf("%q is no member with a PostgreSQL", name)
		case name == s.Primary:
			return fmt.Errorf("%s is the primary", name)
		}
	}
	s.SyncSet = SyncSet{Members: slices.Clone(set.Members), K: set.K}
	return nil
}

// remember appends a transition, and forgets the oldest if there are too many; but never the
// last one that became ready.
func (s *State) remember(t Transition) {
	s.History = append(s.History, t)
	if len(s.History) <= HistoryLimit {
		return
	}
	oldest := 0
	if later := s.History[1:]; !slices.ContainsFunc(later, func(t Transition) bool { return t.Timeline != 0 }) {
		oldest = 1
	}
	s.History = slices.Delete(s.History, oldest, oldest+1)
}

// Ruler returns who was ready last, on Timeline; before anybody was, who is to be; "" where
// nobody has been elected yet.
func (s *State) Ruler() string {
	if len(s.History) == 0 {
		return ""
	}
	for _, t := range slices.Backward(s.History) {
		if t.Timeline != 0 {
			return t.To
		}
	}
	return s.History[0].To
}

// last returns the newest transition, which a state that is still private may change; nil
// if there is none.
func (s *State) last() *Transition {
	if len(s.History) == 0 {
		return nil
	}
	return &s.History[len(s.History)-1]
}

// wasReady reports whether the last primary ever took writes.
func (s *State) wasReady() bool {
	for _, t := range slices.Backward(s.History) {
		if t.To != "" {
			return t.Timeline != 0
		}
	}
	return false
}

// failures counts how often each node was elected and did not become ready, since one did.
func (s *State) failures() map[string]int {
	n := map[string]int{}
	for _, t := range slices.Backward(s.History) {
		if t.Timeline != 0 {
			break
		}
		if t.To != "" && t.Aborted != "" {
			n[t.To]++
		}
	}
	return n
}

// broken returns the last primary that was ready, if an asynchronous election had better go on
// without what it has; "" otherwise. It was elected again and did not go on, or others were who
// could not fetch that from it: once if it may not be elected itself, twice if it may.
func (s *State) broken() string {
	ruler := s.Ruler()
	m, ok := s.Member(ruler)
	failed, all := s.failures(), 0
	for _, n := range failed {
		all += n
	}
	if s.SyncSet.Need() == 0 && ok && (failed[ruler] > 0 || all > 1 || all == 1 && !m.Candidate()) {
		return ruler
	}
	return ""
}

func (t Timing) plus(u Timing) Timing {
	return Timing{
		Detect: t.Detect + u.Detect, Fence: t.Fence + u.Fence, Seal: t.Seal + u.Seal,
		Elect: t.Elect + u.Elect, Promote: t.Promote + u.Promote,
	}
}

// Check says which of the invariants s breaks; nil if none. What Apply returns breaks none.
func (s *State) Check() error {
	names := map[string]bool{}
	for i, m := range s.Members {
		if i > 0 && s.Members[i-1].Name >= m.Name {
			return fmt.Errorf("failover: members are not in order: %v", slices.Sorted(maps.Keys(names)))
		}
		names[m.Name] = true
	}
	last := s.last()
	switch {
	case (s.Epoch == 0) != (s.Phase == PhaseForming || s.Phase == ""):
		return fmt.Errorf("failover: epoch %d is %s", s.Epoch, s.Phase)
	case s.Epoch > 0 && (!names[s.Primary] || s.SystemID == 0):
		return fmt.Errorf("failover: epoch %d has %q, of system %d", s.Epoch, s.Primary, s.SystemID)
	case s.Epoch > 0 && (last == nil || last.Epoch != s.Epoch):
		return fmt.Errorf("failover: the history does not end with epoch %d", s.Epoch)
	case len(s.History) > HistoryLimit:
		return fmt.Errorf("failover: %d transitions are remembered", len(s.History))
	case s.SyncSet.K < 0 || s.SyncSet.K > len(s.SyncSet.Members):
		return fmt.Errorf("failover: %d of %v confirm commits", s.SyncSet.K, s.SyncSet.Members)
	case s.Phase == PhaseReady && !s.whole():
		return fmt.Errorf("failover: %s is ready and lacks %s", s.Primary, s.Until)
	case s.LongestLease < s.Settings.Lease:
		return fmt.Errorf("failover: leases of %v, and the longest is %v", s.Settings.Lease, s.LongestLease)
	}
	for _, m := range s.SyncSet.Members {
		if !names[m] {
			return fmt.Errorf("failover: %s confirms commits and is no member", m)
		}
	}
	return nil
}
