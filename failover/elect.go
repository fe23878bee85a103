package failover

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/heliosdb/helios/wal"
)

// A race is what the leader knows of how an epoch gets its primary.
type race struct {
	epoch   Epoch
	began   time.Time // when the fence was seen to be committed
	hunt    time.Time // when candidates were first looked for
	decided time.Time // when it was proposed; zero if another leader did
	sealed  map[string]Sealed
	said    map[string]time.Time // when each answered
	asked   map[string]time.Time // whom to seal was asked last, and when
	enough  time.Time            // when enough had answered
	chosen  time.Time            // when the election was proposed

	planned bool // the old primary is to stop by itself; without meaning but in a planned epoch
	stop    time.Time
	halted  *Stopped
	giveUp  string // why the switchover is given up

	elected  time.Time
	promote  time.Time // when Promote was asked for last
	promoted *Promoted
}

// succeed finds the fenced epoch its primary.
func (e *Engine) succeed() {
	if e.race.planned && e.state.last().Planned {
		e.handOver()
		return
	}
	if e.race.hunt.IsZero() {
		e.race.hunt = e.now
	}
	if e.now.Before(e.lease.until) {
		e.proven(e.state.Primary)
	}
	e.seal()
	e.choose()
}

// seal has everybody with data promise the epoch, all at once. Of the last primary only a
// companion that is heard of is asked.
func (e *Engine) seal() {
	for _, m := range e.data() {
		if m.Name != e.state.Primary || e.present(m.Name) {
			e.sealOne(m.Name)
		}
	}
}

func (e *Engine) sealOne(node string) {
	r := &e.race
	every := e.state.Settings.SealBudget
	if !e.present(node) {
		every = max(every, min(e.now.Sub(r.began)/4, time.Second))
	}
	if e.answered(node) {
		if r.sealed[node].Err == "" {
			return
		}
		every = time.Second // it may have mended
		if node == e.state.Primary {
			every = e.state.Settings.SealBudget // it may be starting, and may have the most
		}
	}
	if !e.again(r.asked[node], every) {
		return
	}
	r.asked[node] = e.now
	e.due(e.now.Add(every))
	e.out = append(e.out, Seal{Node: node, Epoch: r.epoch})
}

// sealed takes the answer to a seal. Whoever promised a newer epoch holds no lease; but one
// that comes when that epoch has its primary is too old to say so.
func (e *Engine) sealed(a SealAnswer) {
	if a.Epoch != e.state.Epoch || e.state.Phase != PhaseFenced || a.Err != "" {
		return
	}
	if m, ok := e.state.Member(a.Node); !ok || m.Witness {
		return
	}
	a.Sealed.Node = a.Node
	e.race.sealed[a.Node], e.race.said[a.Node] = a.Sealed, e.now
	e.void(a.Node)
}

// answered reports whether the node was sealed, and is still there.
func (e *Engine) answered(node string) bool {
	at, ok := e.race.said[node]
	return ok && (e.present(node) || !e.due(at.Add(e.silence())))
}

// answers returns who was sealed, by name. Of a primary that was ready, the answer counts only
// where the others are not enough without it: what it alone has was not acknowledged, or had
// better be lost than waited for any longer. One that never was ready is a standby like the
// others, and so is the one before it, unless it is broken.
func (e *Engine) answers() []Sealed {
	s := e.state
	apart := s.Primary
	if !s.wasReady() {
		apart = s.broken()
	}
	var all, others []Sealed
	for _, m := range e.data() {
		if !e.answered(m.Name) {
			continue
		}
		a := e.race.sealed[m.Name]
		all = append(all, a)
		if m.Name != apart {
			others = append(others, a)
		}
	}
	if (!s.wasReady() || s.SyncSet.Need() > 0) && !e.enough(others) && e.enough(all) {
		return all
	}
	return others
}

// waiting reports whether one of the others has not answered yet.
func (e *Engine) waiting(answers []Sealed) bool {
	n := len(e.data()) - 1
	for _, a := range answers {
		if a.Node != e.state.Primary {
			n--
		}
	}
	return n > 0
}

// choose elects, once enough were sealed, the others had their time, and the last lease is
// surely over.
func (e *Engine) choose() {
	r, s := &e.race, e.state
	answers := e.answers()
	if !e.enough(answers) {
		r.enough = time.Time{}
		e.choseLast("too few others were sealed")
		return
	}
	if r.enough.IsZero() {
		r.enough = e.now
	}
	if e.waiting(answers) && !e.due(r.enough.Add(s.Settings.SealBudget)) {
		return
	}
	ranked := e.rank(answers)
	if len(ranked) == 0 {
		e.choseLast("none of the others can be promoted")
		return
	}
	best := ranked[0]
	last, why := e.remainder(best)
	if why != "" {
		e.electLast(why)
		return
	}
	e.over("nobody")
	if last.Node != "" {
		answers = append(answers, last)
	}
	elect := Elect{Node: best.Node, Sealed: answers, Reason: fmt.Sprintf("%s is at %s", best.Node, best.Position)}
	if far := s.furthest(answers); s.further(best, far) < 0 && !s.last().Forced {
		elect.Until = far.Position
		elect.Reason += fmt.Sprintf(", and fetches up to %s", far.Position)
	}
	if e.due(e.lease.until) && e.restedFor(best.Node) {
		e.elect(elect)
	}
}

// enough reports whether answers are enough to elect from: by R + K > N where commits wait
// for standbys; where they do not, half of the others, so that a single one that was left
// behind does not win while the rest are still starting; by force, whoever there is.
func (e *Engine) enough(answers []Sealed) bool {
	s := e.state
	if last := s.last(); last.Forced {
		to := s.Switchover
		return len(answers) > 0 && (to == nil || slices.ContainsFunc(answers, func(a Sealed) bool { return a.Node == to.To }))
	}
	if s.SyncSet.Need() > 0 {
		return s.found(answers)
	}
	return len(answers) > 0 && 2*len(answers) >= len(e.data())-1
}

// remainder is for an asynchronous election. Where the last primary is heard of and has WAL that
// best lacks, some of that may have been acknowledged. It returns the answer of the last primary
// if best can fetch that WAL from there, or else why the last primary is waited for: to say how far
// it is, or to go on. It has as long for that as the lease of a silent one would have lasted.
// Where it or another was elected since, it is one of the standbys: see answers.
func (e *Engine) remainder(best Sealed) (last Sealed, why string) {
	s := e.state
	name := s.Primary
	switch {
	case s.SyncSet.Need() > 0, s.last().Forced, !s.wasReady(),
		!e.present(name), e.peer(name).Postgres == ServerHung,
		e.due(e.race.hunt.Add(s.Settings.Lease)):
		return Sealed{}, ""
	}
	last, promised := e.race.sealed[name]
	switch {
	case !promised || last.Err != "" || s.Astray(last.Reign, last.Position):
		return Sealed{}, name + " has not said how far it is"
	case s.further(last, best) <= 0:
		return Sealed{}, ""
	case last.Relayed && last.Position.Timeline == best.Position.Timeline:
		return last, ""
	}
	return Sealed{}, fmt.Sprintf("%s has more than the %s of %s", name, best.Position, best.Node)
}

// choseLast elects the last primary again if it shows that it is still there. It has every
// commit that was acknowledged, so it may always come back; but a standby is quicker, and
// has its chance first.
func (e *Engine) choseLast(why string) {
	if len(e.data()) == 1 || e.due(e.race.hunt.Add(e.state.Settings.SealBudget)) {
		e.electLast(why)
	}
}

// electLast elects the last primary again, or says why nobody takes over as long as it cannot go on.
func (e *Engine) electLast(why string) {
	s := e.state
	if !e.isBack() {
		if e.due(e.race.hunt.Add(s.Settings.SealBudget)) {
			e.warn("nobody", fmt.Sprintf("epoch %d has nobody who could take over: %s", s.Epoch, why))
		}
		return
	}
	if e.lease.holder != s.Primary && !e.due(e.lease.until) || !e.restedFor(s.Primary) {
		return
	}
	elect := Elect{Node: s.Primary, Reason: s.Primary + " is back, and has all there is"}
	if a, promised := e.race.sealed[s.Primary]; promised {
		elect.Sealed = []Sealed{a}
	}
	e.elect(elect)
}

// isBack reports whether the last primary shows that it could go on.
func (e *Engine) isBack() bool {
	s := e.state
	p := e.peer(s.Primary)
	a, promised := e.race.sealed[s.Primary]
	runs := p.Postgres == ServerUp && p.Primary && p.Epoch == s.Epoch && p.Timeline >= s.Timeline
	other := s.last().Forced && s.Switchover != nil && s.Switchover.To != s.Primary
	return (promised && a.Err == "" || runs) && s.whole() && !other && p.Postgres != ServerHung && e.present(s.Primary)
}

// restedFor makes an epoch wait whose next candidate has failed before, longer each time.
func (e *Engine) restedFor(node string) bool {
	n := e.state.failures()[node]
	if n == 0 {
		return true
	}
	rest := e.state.Settings.Lease / 4 << min(n-1, 6)
	return e.due(e.race.began.Add(min(rest, e.state.Settings.PromoteBudget)))
}

func (e *Engine) elect(c Elect) {
	r := &e.race
	c.Epoch = r.epoch
	if !r.decided.IsZero() {
		c.Timing.Fence = r.began.Sub(r.decided)
	}
	c.Timing.Seal = e.now.Sub(r.began)
	e.propose(Command{Elect: &c})
	if e.asked != nil && e.asked.at.Equal(e.now) {
		r.chosen = e.now
	}
}

// rank returns who of the sealed may be promoted, best first: who has not failed just now,
// then the highest timeline and LSN, the highest priority, the zone where most are, the
// least to replay, and the name.
func (e *Engine) rank(sealed []Sealed) []Sealed {
	may := slices.DeleteFunc(slices.Clone(sealed), func(a Sealed) bool { return !e.eligible(a, sealed) })
	failed := e.state.failures()
	slices.SortFunc(may, func(a, b Sealed) int {
		m, _ := e.state.Member(a.Node)
		n, _ := e.state.Member(b.Node)
		return cmp.Or(
			cmp.Compare(failed[a.Node], failed[b.Node]),
			e.state.further(b, a),
			cmp.Compare(n.Priority, m.Priority),
			cmp.Compare(e.near(n, sealed), e.near(m, sealed)),
			cmp.Compare(a.ReplayLSN.Behind(a.Position.LSN), b.ReplayLSN.Behind(b.Position.LSN)),
			strings.Compare(a.Node, b.Node),
		)
	})
	return may
}

// eligible reports whether a may be promoted.
func (e *Engine) eligible(a Sealed, all []Sealed) bool {
	s := e.state
	m, _ := s.Member(a.Node)
	if a.Position.LSN == 0 {
		return false
	}
	if s.last().Forced {
		return s.Switchover == nil || s.Switchover.To == a.Node
	}
	if !m.Candidate() || a.Err != "" || a.Node == s.Primary && e.peer(a.Node).Postgres == ServerHung {
		return false
	}
	far := s.furthest(all)
	switch {
	case s.forked(a.Position) && a.Position.Timeline < far.Position.Timeline:
		return false // it cannot fetch what far has
	case s.Astray(a.Reign, a.Position):
		return false
	case a.Position.Timeline > s.Timeline && a.Reign != far.Reign:
		return false // on a timeline that nobody was ready on, and that does not lead to far
	}
	// It fetches what the others have before it is promoted.
	return e.current(far.Position)
}

// current reports whether WAL up to p is of the last reign, and not too far behind what its
// primary is known to have had.
func (e *Engine) current(p wal.Position) bool {
	s := e.state
	if p.Timeline < s.Timeline {
		e.warn("stale", fmt.Sprintf("nobody has anything of timeline %s; the most there is ends at %s", s.Timeline, p))
		return false
	}
	old := e.peer(s.Primary)
	lag := p.LSN.Behind(old.LSN)
	if s.SyncSet.K == 0 && s.Settings.MaxLag > 0 && old.Timeline == p.Timeline && lag > s.Settings.MaxLag {
		e.warn("stale", fmt.Sprintf("the most there is ends at %s, %d bytes behind %s: max_failover_lag is %d", p, lag, s.Primary, s.Settings.MaxLag))
		return false
	}
	e.over("stale")
	return true
}

// near counts how many of the sealed are in m's zone.
func (e *Engine) near(m Member, sealed []Sealed) int {
	n := 0
	for _, a := range sealed {
		if o, _ := e.state.Member(a.Node); o.Name != m.Name && o.Zone == m.Zone {
			n++
		}
	}
	return n
}

// takeOver has the elected node promoted, and closes its epoch if that does not work.
func (e *Engine) takeOver() {
	r, s := &e.race, e.state
	if why := e.failing(); why != "" {
		e.fence(Fence{Reason: why, Detect: e.now.Sub(r.elected)})
		return
	}
	if r.promoted != nil {
		ready := Ready{Epoch: s.Epoch, Timeline: r.promoted.Timeline, SwitchLSN: r.promoted.SwitchLSN}
		ready.Timing.Promote = e.now.Sub(r.elected)
		if !r.chosen.IsZero() {
			ready.Timing.Elect = r.elected.Sub(r.chosen)
		}
		if _, err := s.Apply(Command{Ready: &ready}); err != nil {
			r.promoted = &Promoted{Epoch: s.Epoch, Err: err.Error()}
			e.takeOver()
			return
		}
		e.propose(Command{Ready: &ready})
		return
	}
	if e.again(r.promote, s.Settings.PromoteBudget/4) {
		r.promote = e.now
		e.out = append(e.out, Promote{Node: s.Primary, Epoch: s.Epoch, Until: s.Until, Fetch: s.sources(), Ruler: s.Ruler(), Timeline: s.reached()})
	}
	e.due(r.promote.Add(s.Settings.PromoteBudget / 4))
}

// failing returns why the elected node cannot become primary, or "".
func (e *Engine) failing() string {
	r, s := &e.race, e.state
	p := e.peer(s.Primary)
	switch {
	case r.promoted != nil && r.promoted.Err != "":
		return fmt.Sprintf("%s was not promoted: %s", s.Primary, r.promoted.Err)
	case e.proven(s.Primary):
		return s.Primary + " died while it took over"
	case e.due(r.elected.Add(s.Settings.PromoteBudget)) && r.promoted == nil:
		return fmt.Sprintf("%s was not promoted within %v", s.Primary, s.Settings.PromoteBudget)
	case e.due(later(later(r.elected, p.heard).Add(max(s.Settings.Lease, time.Second)), p.away)):
		return s.Primary + " fell silent while it took over"
	}
	return ""
}
