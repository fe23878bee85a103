package failover

import "slices"

// keepSet keeps the gate and the sync set fit for the standbys that there are. The log and
// the gate never change at once; in between, what the gate confirms is found by an election
// after either set.
func (e *Engine) keepSet() {
	s := e.state
	if s.Phase != PhaseElected && s.Phase != PhaseReady {
		e.gate, e.gateSince = SyncSet{}, 0
		return
	}
	if e.asked != nil && e.asked.SyncSet != nil {
		return // the gate fits both
	}
	want, known := e.wanted()
	switch {
	case !known:
		hold := s.SyncSet.without(s.Primary)
		hold.K = max(hold.K, s.Settings.MinReplicas)
		e.setGate(hold)
	case want.Equal(s.SyncSet):
		e.setGate(want)
	case e.gateSince != 0 && s.Phase == PhaseReady && e.settled(want):
		e.propose(Command{Epoch: s.Epoch, SyncSet: &want})
	default:
		e.setGate(bridge(s.SyncSet, want, s.Primary))
	}
}

// setGate changes what the primary is to confirm by.
func (e *Engine) setGate(g SyncSet) {
	if e.gateSince == 0 || !e.gate.Equal(g) {
		e.gate, e.gateSince = g, e.number+1
	}
}

// settled reports whether the log may go on to want: the primary surely runs with the gate
// that it was given last, that one confirms nothing which an election after want would
// miss, and what was confirmed before is on enough of want.
func (e *Engine) settled(want SyncSet) bool {
	s := e.state
	p := e.peer(s.Primary)
	if p.heard.IsZero() || p.Epoch != s.Epoch || p.Term != e.term || p.Number < e.gateSince || !p.Gate.Set.Equal(e.gate) {
		return false
	}
	if !want.covers(e.gate, s.Primary) {
		return false
	}
	n := 0
	for _, m := range want.Members {
		if p.Confirmed[m] >= p.Gate.Changed {
			n++
		}
	}
	return n >= want.K || p.Gate.Settled
}

// wanted returns the sync set that fits the standbys that stream now. It is false if they
// are too few: then nothing changes, and commits wait.
func (e *Engine) wanted() (SyncSet, bool) {
	s := e.state
	if s.Settings.Mode == Async {
		return SyncSet{}, true
	}
	var in, fresh []string
	for _, m := range e.data() {
		switch {
		case m.Name == s.Primary || !m.CanSync():
		case s.SyncSet.Has(m.Name) && e.streams(m.Name):
			in = append(in, m.Name)
		case !s.SyncSet.Has(m.Name) && e.caughtUp(m.Name):
			fresh = append(fresh, m.Name)
		}
	}
	for _, name := range fresh {
		// One that comes and goes is only taken at once if commits need it.
		if len(in) < s.Settings.K || e.due(e.peer(name).streams.Add(e.silence())) {
			in = append(in, name)
		}
	}
	slices.Sort(in)
	if len(in) < s.Settings.MinReplicas {
		return SyncSet{}, false
	}
	return SyncSet{Members: in, K: min(s.Settings.K, len(in))}, true
}

// streams reports whether the standby streams, or did so a moment ago.
func (e *Engine) streams(name string) bool {
	p := e.peer(name)
	return !p.dead && !e.due(later(p.good, e.led).Add(e.silence()))
}

// caughtUp reports whether the standby streams and has nearly everything.
func (e *Engine) caughtUp(name string) bool {
	p, primary := e.peer(name), e.peer(e.state.Primary)
	return e.present(name) && p.Streaming && p.Epoch == e.state.Epoch && primary.Epoch == e.state.Epoch &&
		primary.Confirmed[name] > 0 && primary.Confirmed[name].Behind(primary.LSN) <= smallBacklog
}
