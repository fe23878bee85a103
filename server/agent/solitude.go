package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/beat"
)

// Around is what a companion has heard when it asked all others at once.
type Around struct {
	Voters  int            // members that vote, this companion too if it does
	Silent  int            // those of them that neither answered nor refused the connection
	Epoch   failover.Epoch // the newest with a primary that anybody knows of
	Primary string         // of Epoch
}

// outvoted reports whether those who are not heard are enough to elect somebody.
// Whose port is refused is not among them: where no companion runs, none votes.
func (a Around) outvoted() bool { return a.Silent > a.Voters/2 }

const (
	// askAroundBudget is how long others have to answer.
	askAroundBudget = time.Second
	// askAroundInterval is the pause between two questions of a primary that has no
	// lease, and the least between two looks whether it has one.
	askAroundInterval = 200 * time.Millisecond
	// askAroundTimes is how often they have to be silent: one question may come to
	// nothing because the machine has just woken up.
	askAroundTimes = 2
)

// rules are what a solitude is judged by.
type rules struct {
	me      string
	reign   failover.Epoch // whose primary this node is
	grace   time.Duration
	lenient bool // nothing is done upon a mere suspicion
}

// A solitude is the time for which a primary has had no lease, and has not heard
// enough of the others to know that there is no other primary.
type solitude struct {
	since time.Duration // when it was asked first
	times int           // how often since then
}

// after takes what was heard of a question asked between asked and now, and returns
// why the primary must not go on; "" if it may.
func (s *solitude) after(seen Around, asked, now time.Duration, r rules) string {
	if seen.Epoch > r.reign && seen.Primary != "" && seen.Primary != r.me {
		return fmt.Sprintf("%s is the primary of epoch %d", seen.Primary, seen.Epoch)
	}
	if !seen.outvoted() || r.lenient {
		*s = solitude{}
		return ""
	}
	if s.times == 0 {
		s.since = asked
	}
	s.times++
	if s.times < askAroundTimes || now-s.since < r.grace {
		return ""
	}
	return fmt.Sprintf("it has no lease, and %d of %d voters are not heard, who may have elected another primary", seen.Silent, seen.Voters)
}

// watchLease asks around while a primary has no lease, until ctx ends.
func (a *Agent) watchLease(ctx context.Context) {
	if a.cfg.Around == nil {
		return
	}
	var alone solitude
	next := time.NewTimer(beat.Next(askAroundInterval))
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		if a.lacksLease() {
			a.askAround(ctx, &alone)
			next.Reset(beat.Next(askAroundInterval))
		} else {
			alone = solitude{}
			a.judge("", a.clock())
			every := askAroundInterval
			if a.LeaseRemaining() >= time.Second { // it lasts for so long at least; who has none is no primary
				every = time.Second
			}
			next.Reset(beat.Next(every))
		}
	}
}

// lacksLease reports whether the server runs as a primary, and may confirm nothing.
func (a *Agent) lacksLease() bool {
	if a.LeaseRemaining() > 0 || !a.pg.Running() {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.assigned && a.known && !a.facts.Recovery
}

// askAround asks all other companions once.
func (a *Agent) askAround(parent context.Context, alone *solitude) {
	ctx, cancel := context.WithTimeoutCause(parent, askAroundBudget, fmt.Errorf("no answer within %v", askAroundBudget))
	defer cancel()
	asked := a.clock()
	seen := a.cfg.Around(ctx)
	if parent.Err() != nil {
		return
	}
	paused := a.cfg.State != nil && a.cfg.State().Paused
	why := alone.after(seen, asked, a.clock(), rules{
		me: a.cfg.Name, reign: a.promises.get().Reign, grace: a.cfg.HardStopGrace, lenient: paused || a.cfg.Fencing == FencingRelaxed,
	})
	if !a.judge(why, asked) {
		*alone = solitude{}
	}
}

// judge notes why the primary must not go on, by what was asked at asked; "" if it
// may. It reports whether that was of this one: who has been started since then had
// been told to.
func (a *Agent) judge(why string, asked time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.downSince > asked {
		return false
	}
	if a.alone = why; why != "" {
		poke(a.wake)
	}
	return true
}

// withdraw ends a primary that may not be it any more: who still reaches it would
// read old data for as long as it is cut off. The lease is wanted again as soon as
// the leader is heard.
func (a *Agent) withdraw(ctx context.Context) error {
	a.mu.Lock()
	why := a.alone
	if why == "" || a.LeaseRemaining() > 0 {
		a.mu.Unlock()
		return nil // it has come meanwhile
	}
	a.withdrawn = "it was stopped, and comes back when the cluster is heard: " + why
	a.reason = a.withdrawn
	a.mu.Unlock()
	a.lease.GiveBack(a.clock())
	a.log.WarnContext(ctx, "the server is stopped hard, until the cluster is heard again", "because", why)
	return a.pg.HardStop(ctx, time.Second)
}
