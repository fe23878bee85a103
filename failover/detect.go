package failover

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// reign watches over a primary that is ready.
func (e *Engine) reign() {
	s := e.state
	why := e.suspicion()
	switch {
	case why == "":
		e.over("suspect")
		if s.Switchover != nil {
			e.prepare()
		}
	case s.Paused:
		e.warn("suspect", why+": paused, so that nothing is done")
	case !s.Settings.AutoFailover:
		e.warn("suspect", why+": auto_failover is off, so that an operator decides")
	default:
		e.fence(Fence{Reason: why, Detect: e.now.Sub(e.lastSign())})
	}
}

// lastSign returns when the primary was last heard of, if this leader ever did.
func (e *Engine) lastSign() time.Time {
	if p := e.peer(e.state.Primary); !p.heard.IsZero() {
		return p.heard
	}
	return e.led
}

// suspicion returns why the primary cannot stay, or "".
func (e *Engine) suspicion() string {
	s := e.state
	name, p := s.Primary, e.peer(s.Primary)
	if e.proven(name) {
		return fmt.Sprintf("%s is dead: %s found its ports closed", name, p.proof)
	}
	if p.heard.IsZero() {
		if e.due(later(e.lease.until, endOf(e.since, s.Settings.Lease))) {
			return fmt.Sprintf("%s has not been heard of", name)
		}
		return ""
	}
	ours := p.Epoch == s.Epoch && !p.heard.Before(e.since) // before, it may not have been its own
	switch {
	case ours && e.givesBack(p.Report):
		return because(name+" gave its lease back", p.Reason)
	case ours && p.Postgres == ServerHung:
		return because("PostgreSQL of "+name+" hangs", p.Reason)
	}
	if until := e.patience(p); !until.IsZero() && e.due(until) {
		return because(fmt.Sprintf("%s does not serve: PostgreSQL is %s", name, p.Postgres), p.Reason)
	}
	if e.due(later(e.lease.until, endOf(later(e.since, p.heard), s.Settings.Lease), p.away)) {
		return name + " is silent"
	}
	return ""
}

// patience returns until when a primary that is heard of and does not serve may go on like
// that; zero if it serves. A companion that has just started has its PostgreSQL down, and
// waits to be told what it is.
func (e *Engine) patience(p *peer) time.Time {
	serves := p.Postgres == ServerUp && p.Primary && p.WantsLease && p.Epoch == e.state.Epoch
	switch {
	case serves:
		p.idle = time.Time{}
		return time.Time{}
	case p.idle.IsZero():
		p.idle = e.now
	}
	if p.Postgres == ServerStarting {
		return later(p.starts, p.idle).Add(e.state.Settings.PromoteBudget)
	}
	return later(endOf(p.idle, e.state.Settings.Lease), p.away)
}

func because(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

func later(t time.Time, others ...time.Time) time.Time {
	for _, o := range others {
		if o.After(t) {
			t = o
		}
	}
	return t
}

// lose takes the news that a connection broke which is always open.
func (e *Engine) lose(node string) {
	if _, member := e.state.Member(node); !member {
		return
	}
	p := e.peer(node)
	p.lost, p.spoke, p.refused, p.probed = true, 0, nil, time.Time{}
	p.round++
}

// proven reports whether the node is surely dead: the connection to its companion broke,
// and since it was last heard of two observers, or the only other one, found the ports
// of companion and PostgreSQL closed by the kernel there. Nothing runs then that could
// confirm a commit, so its lease is over too. Until there is proof, it asks for more.
func (e *Engine) proven(node string) bool {
	p := e.peer(node)
	if p.dead || !p.lost {
		return p.dead
	}
	if len(p.refused) >= min(2, len(e.state.Members)-1) {
		p.dead, p.proof = true, strings.Join(slices.Sorted(maps.Keys(p.refused)), " and ")
		e.void(node)
		return true
	}
	if e.again(p.probed, max(e.state.Settings.Lease/20, 50*time.Millisecond)) {
		p.probed = e.now
		for _, m := range e.state.Members {
			if m.Name != node && (m.Name == e.self || e.present(m.Name)) {
				e.out = append(e.out, Probe{Node: node, By: m.Name, Round: p.round})
			}
		}
		e.due(p.probed.Add(max(e.state.Settings.Lease/20, 50*time.Millisecond)))
	}
	return false
}

// observe takes what somebody found at the ports of a node.
func (e *Engine) observe(o Observed) {
	p := e.peers[o.Node]
	if p == nil || o.Round != p.round || o.By == o.Node {
		return
	}
	switch {
	case o.Companion == DialledOpen:
		p.lost, p.refused = false, nil
	case o.Companion == DialledRefused && o.Postgres == DialledRefused:
		if p.refused == nil {
			p.refused = map[string]bool{}
		}
		p.refused[o.By] = true
	default:
		delete(p.refused, o.By)
	}
}
