package agent

import (
	"cmp"
	"fmt"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// Picture returns how the server is now, for whoever asks. It is no report: it has
// no number, and nothing answers it.
func (a *Agent) Picture() failover.Report { return a.describe(false) }

// Report returns what the leader is to be told now. Its answer is known by its
// number.
func (a *Agent) Report() failover.Report {
	r := a.describe(true)
	if r.Streaming {
		a.streams()
	}
	return r
}

// describe numbers a report in the moment in which it says what it does: a lease that
// was given back later is not granted by it.
func (a *Agent) describe(numbered bool) failover.Report {
	status, gated := a.relay.Status(), a.gate.state()
	promised, reign, runs := a.promises.get(), a.gate.reigns(), a.pg.Running()
	a.mu.Lock()
	defer a.mu.Unlock()
	f := a.facts
	r := failover.Report{
		Node: a.cfg.Name, Run: a.run, Epoch: max(promised.newest(), a.as.Epoch), Term: a.as.Term, Number: a.as.Number,
		Postgres: a.state, Reason: a.reason, SystemID: f.SystemID, Primary: f.SystemID != 0 && !f.Recovery, Timeline: f.Timeline,
		LSN: f.LSN, ReplayLSN: f.Replay, StartedAt: f.StartedAt,
		GivesBack: a.back, WantsLease: reign != 0 && reign >= promised.newest() && !a.back && runs && a.known, Gate: gated,
	}
	switch {
	case !f.Recovery:
		a.addPrimary(&r, status)
	default:
		a.addStandby(&r, status)
	}
	if numbered {
		r.Seq = a.requests.add(a.clock(), r.WantsLease)
	}
	return r
}

// addPrimary adds what the relay knows of the primary and its standbys.
func (a *Agent) addPrimary(r *failover.Report, status relay.Status) {
	if !status.Connected || status.Timeline != r.Timeline {
		return
	}
	r.LSN = max(r.LSN, status.Head)
	r.ReplayLSN = r.LSN
	r.Confirmed = map[string]wal.LSN{}
	for _, s := range status.Subscribers {
		if s.Name != gateName && s.Timeline == status.Timeline {
			r.Confirmed[s.Name] = max(r.Confirmed[s.Name], s.Confirmed.Flush)
		}
	}
}

// addStandby adds what the relay knows of the standby behind it.
func (a *Agent) addStandby(r *failover.Report, status relay.Status) {
	if r.Paused = a.facts.Paused; r.Paused && r.Reason == "" {
		r.Reason = "replay is paused"
	}
	follows := failover.Epoch(a.follows.Load())
	r.Source = status.Source
	for _, s := range status.Subscribers {
		if s.Name == a.cfg.Name && s.Via == "" && s.Timeline != 0 && s.Timeline == r.Timeline {
			r.LSN, r.ReplayLSN = max(r.LSN, s.Confirmed.Flush), max(r.ReplayLSN, s.Confirmed.Apply)
			r.Streaming = status.Connected && r.Postgres == failover.ServerUp && follows == r.Epoch
		}
	}
	if at, _ := a.relay.Stranded(a.cfg.Name); at != 0 && !r.Streaming && r.Reason == "" {
		r.Reason = fmt.Sprintf("the WAL that it needs, from %s on, was removed at %s", at, cmp.Or(a.as.Primary.Name, "the primary"))
	}
	if !r.Streaming && a.facts.Receiver && r.Postgres == failover.ServerUp && a.misled != 0 && follows == r.Epoch {
		r.Streaming = true // from the primary itself
		r.Source = a.facts.Host
	}
}

// Changed returns a channel that is closed when a report should be sent at once.
// Take it before the Report, so that nothing is missed.
func (a *Agent) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// requests are the reports sent last, which may be answered with a lease.
type requests struct {
	seq  uint64
	last [64]request
}

// A request is when a report was made, and whether it asked for the lease.
type request struct {
	seq   uint64
	at    time.Duration
	wants bool
}

// add notes a report and returns its number.
func (r *requests) add(at time.Duration, wants bool) uint64 {
	r.seq++
	r.last[r.seq%uint64(len(r.last))] = request{r.seq, at, wants}
	return r.seq
}

// sent returns when the report of that number was made, and false if it did not
// ask for a lease, or that is not known any more.
func (r *requests) sent(seq uint64) (time.Duration, bool) {
	q := r.last[seq%uint64(len(r.last))]
	return q.at, seq != 0 && q.seq == seq && q.wants
}

// Assign takes what the leader wants. Sent is when the report was sent that as
// answers, by Config.Clock; 0 if it came unasked. One that is older than what was
// assigned or promised is ignored.
func (a *Agent) Assign(as failover.Assignment, sent time.Duration) {
	if as.Node != "" && as.Node != a.cfg.Name {
		return
	}
	if !a.accept(as) {
		return
	}
	mine := as.Primary.Name == a.cfg.Name && (as.Phase == failover.PhaseElected || as.Phase == failover.PhaseReady)
	switch {
	case mine:
		a.gate.reign(as.Epoch)
		if a.gate.use(as.Epoch, as.Gate) {
			a.relay.Release()
		}
	case as.Phase == failover.PhaseElected || as.Phase == failover.PhaseReady:
		a.gate.reign(0)
	}
	a.gate.fence(as.Epoch)
	if mine && as.Lease > 0 && sent > 0 && as.Run == a.run {
		a.mu.Lock()
		made, asked := a.requests.sent(as.Seq)
		a.mu.Unlock()
		now := a.clock()
		had := a.lease.Valid(now, as.Epoch)
		// The report was made before it was sent: the caller can only be late.
		if asked && a.lease.Grant(min(sent, made), as.Lease, as.Epoch) && !had {
			a.relay.Release()
		}
	}
	poke(a.wake)
}

// accept makes as the newest assignment, unless there is a newer one.
func (a *Agent) accept(as failover.Assignment) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.assigned && older(as, a.as) || as.Epoch < a.promises.get().newest() {
		return false
	}
	err := a.promises.change(func(p *promise) {
		p.Epoch = max(p.Epoch, as.Epoch)
		if as.Primary.Name != "" {
			p.Primary = as.Primary.Name
		}
	})
	if err != nil {
		a.log.Error("an assignment was not taken", "epoch", as.Epoch, "error", err)
		return false
	}
	if as.Primary.Name == "" || as.Primary.Name == a.cfg.Name || as.Phase == failover.PhaseFenced {
		a.elsewhere = 0
	} else if a.elsewhere == 0 {
		a.elsewhere = a.clock()
	}
	a.as, a.assigned = as, true
	return true
}

// older reports whether a was made before b: by an older leader, or by the same
// one earlier.
func older(a, b failover.Assignment) bool {
	if a.Term != b.Term {
		return a.Term < b.Term
	}
	return a.Epoch < b.Epoch || a.Number < b.Number
}
