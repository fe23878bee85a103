package failover

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// smallBacklog is how many bytes a standby may be behind, received or not yet replayed, to
// count as caught up: about a tenth of a second of replay on a slow machine.
const smallBacklog = 16 << 20

// prepareBudget is how long the checkpoint before a switchover may take. Nothing waits for
// it but the operator.
const prepareBudget = time.Minute

// prepare makes ready for a switchover while the primary goes on: is there somebody who can
// take over at once, and little left to write when the primary stops.
func (e *Engine) prepare() {
	s := e.state
	if e.wished.IsZero() {
		e.wished = e.now
	}
	to, why := e.successor(s.Switchover.To)
	switch {
	case why == "" && to == "": // not known yet
		return
	case why != "" && !e.wishHeard(): // it may have been so before the wish
		return
	case why != "":
	case e.prepared != nil && e.prepared.Err != "":
		why = "the checkpoint failed: " + e.prepared.Err
	case e.prepared == nil && e.due(e.wished.Add(prepareBudget)):
		why = fmt.Sprintf("the checkpoint took longer than %v", prepareBudget)
	}
	switch {
	case why != "":
		e.propose(Command{Epoch: s.Epoch, Cancel: why})
	case e.prepared != nil:
		e.fence(Fence{Planned: true, To: to, Reason: fmt.Sprintf("switchover from %s to %s", s.Primary, to)})
	case e.again(e.preparing, prepareBudget/4):
		e.preparing = e.now
		e.out = append(e.out, Prepare{Node: s.Primary, Epoch: s.Epoch})
	}
}

// wishHeard reports whether who may take over, and is heard of, has reported since the
// switchover was wished for, or has had the time for that.
func (e *Engine) wishHeard() bool {
	if e.due(e.wished.Add(e.silence())) {
		return true
	}
	to := e.state.Switchover.To
	return !slices.ContainsFunc(e.data(), func(m Member) bool {
		return m.Name != e.state.Primary && (to == "" || to == m.Name) && e.present(m.Name) && e.peer(m.Name).heard.Before(e.wished)
	})
}

// successor returns who takes over, or why nobody can; neither as long as too little has
// been heard.
func (e *Engine) successor(to string) (node, why string) {
	listening := !e.due(e.led.Add(e.silence()))
	if listening && (!e.present(e.state.Primary) || to != "" && !e.present(to)) {
		return "", ""
	}
	if to != "" {
		if why := e.unfit(to); why != "" {
			return "", why
		}
		return to, ""
	}
	var best Member
	for _, m := range e.data() {
		if m.Name == e.state.Primary || e.unfit(m.Name) != "" {
			continue
		}
		if best.Name == "" || m.Priority > best.Priority ||
			m.Priority == best.Priority && e.peer(m.Name).ReplayLSN > e.peer(best.Name).ReplayLSN {
			best = m
		}
	}
	if best.Name == "" && !listening {
		return "", "no standby could take over at once"
	}
	return best.Name, ""
}

// unfit returns why the node cannot take over at once, or "".
func (e *Engine) unfit(node string) string {
	s := e.state
	m, ok := s.Member(node)
	p, primary := e.peer(node), e.peer(s.Primary)
	have := max(p.LSN, primary.Confirmed[node])
	switch {
	case !ok || !m.Candidate():
		return node + " is no candidate"
	case !e.present(s.Primary):
		return s.Primary + " is not heard of"
	case !e.present(node):
		return node + " is not heard of"
	case p.Postgres != ServerUp:
		return because(fmt.Sprintf("PostgreSQL of %s is %s", node, p.Postgres), p.Reason)
	case !p.Streaming:
		return because(node+" does not stream", p.Reason)
	case p.Paused:
		return "replay of " + node + " is paused"
	case have.Behind(primary.LSN) > smallBacklog:
		return fmt.Sprintf("%s is %d bytes behind", node, have.Behind(primary.LSN))
	case p.ReplayLSN.Behind(have) > smallBacklog:
		return fmt.Sprintf("%s has %d bytes to replay", node, p.ReplayLSN.Behind(have))
	}
	return ""
}

// handOver carries a switchover out: the old primary stops, the new one has everything
// that it wrote, and takes over. If that cannot be done in time, the old one goes on.
func (e *Engine) handOver() {
	r, s := &e.race, e.state
	if e.proven(s.Primary) {
		r.planned = false
		e.succeed()
		return
	}
	switch {
	case r.giveUp != "":
	case e.due(r.began.Add(s.Settings.StopBudget)):
		r.giveUp = fmt.Sprintf("it took longer than %v", s.Settings.StopBudget)
	case r.halted == nil && !e.present(s.Primary) && e.due(e.lease.until):
		r.giveUp = s.Primary + " is silent" // and nothing that it may still do is confirmed
	}
	switch {
	case r.giveUp != "":
		e.goOn()
	case r.halted == nil:
		if e.again(r.stop, s.Settings.StopBudget/2) {
			r.stop = e.now
			e.out = append(e.out, Stop{Node: s.Primary, Epoch: s.Epoch})
		}
	default:
		e.follow()
	}
}

// stopped takes the answer to Stop. Who has shut down holds no lease.
func (e *Engine) stopped(in Stopped) {
	r := &e.race
	if in.Epoch != e.state.Epoch || e.state.Phase != PhaseFenced || !e.state.last().Planned {
		return
	}
	if in.Err != "" {
		r.giveUp = fmt.Sprintf("%s did not stop: %s", e.state.Primary, in.Err)
		return
	}
	r.halted = &in
	e.void(e.state.Primary)
}

// follow elects the successor of a primary that has stopped.
func (e *Engine) follow() {
	r, to := &e.race, e.state.Switchover.To
	e.sealOne(to)
	a, ok := r.sealed[to]
	if !ok {
		if e.due(e.led.Add(e.silence())) && !e.present(to) {
			r.giveUp = to + " is not heard of any more"
			e.goOn()
		}
		return
	}
	if a.Err != "" {
		r.giveUp = fmt.Sprintf("%s cannot be promoted: %s", to, a.Err)
		e.goOn()
		return
	}
	elect := Elect{Node: to, Reason: fmt.Sprintf("the old primary stopped at %s", r.halted.Position)}
	elect.Sealed = []Sealed{{Node: e.state.Primary, Position: r.halted.Position, Reign: a.Reign}, a}
	slices.SortFunc(elect.Sealed, func(a, b Sealed) int { return strings.Compare(a.Node, b.Node) })
	if a.Position.Compare(r.halted.Position) < 0 {
		elect.Until = r.halted.Position
	}
	e.elect(elect)
}

// goOn has the old primary go on if it is there, and fails over if not.
func (e *Engine) goOn() {
	r, s := &e.race, e.state
	if r.halted == nil && !e.present(s.Primary) {
		r.planned = false
		e.succeed()
		return
	}
	elect := Elect{Node: s.Primary, Reason: "given up: " + r.giveUp}
	if r.halted != nil {
		elect.Sealed = []Sealed{{Node: s.Primary, Position: r.halted.Position}}
	}
	e.elect(elect)
}
