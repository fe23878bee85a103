package agent

import (
	"time"

	"github.com/heliosdb/helios/failover"
)

// A view is what a step is decided by.
type view struct {
	me       string
	promise  promise
	assigned bool // since this agent's start
	as       failover.Assignment

	data      bool // there is a data directory
	standby   bool // its server is, or will be at its start, a standby
	running   bool // the postmaster lives
	known     bool // the server has said since its start what it is
	diverged  bool // a standby past the fork
	unproven  bool // its log may be that of a primary which never was ready
	behind    bool // the companions' log has not come here up to the assignment
	replaying bool // a standby that was started, and has not replayed all it has: whose that is, only its files tell
	anew      bool // an operator wants the data directory made anew
	stranded  bool // the WAL that it needs next is gone
	stopped   bool // was stopped because the leader of this epoch said so
	alone     bool // a primary that must not go on without a lease
	withdrawn bool // was stopped for that reason
	answered  bool // as answers a report that told that the server does not run
	downFor   time.Duration
	fencedFor time.Duration // since an assignment first told that another node is primary
	grace     time.Duration
}

// A step is what is to be done next.
type step string

const (
	stepNone         step = "wait"
	stepReign        step = "be primary"       // the server is it, and goes on
	stepFollow       step = "follow"           // the server is a standby, and takes its WAL from the primary
	stepStartPrimary step = "start as primary" // it crashed, and nobody took over
	stepStartStandby step = "start as standby" // of nobody yet
	stepHardStop     step = "stop hard"        // another node is primary
	stepWithdraw     step = "withdraw"         // another node may be it
	stepRejoin       step = "rejoin"           // become a standby of the primary by whatever it takes
	stepClone        step = "clone"            // by an operator's wish, or since nothing else helps
)

// restartPatience is how long the leader has to close the epoch of a primary that
// has crashed. Then it is started again.
const restartPatience = 500 * time.Millisecond

// decide returns what is to be done next. It changes nothing, and asks nobody.
func decide(v view) step {
	switch {
	case v.assigned && v.alone && v.running && v.known && !v.standby:
		return stepWithdraw // whatever it was told last
	case !v.assigned, v.as.Epoch < v.promise.newest():
		return stepNone // the leader has not spoken, or does not know yet what was promised
	case !v.data:
		return stepNone
	case v.as.Phase == failover.PhaseFenced:
		return decideFenced(v)
	case v.as.Phase != failover.PhaseElected && v.as.Phase != failover.PhaseReady, v.as.Primary.Name == "":
		return stepNone
	case v.as.Primary.Name == v.me:
		return decidePrimary(v)
	default:
		return decideStandby(v)
	}
}

// decideFenced is for a cluster without a primary: a standby that does not run
// can at least be asked how far it is. A primary that runs confirms nothing, and
// may be elected again.
func decideFenced(v view) step {
	if !v.running && v.standby && !v.stopped {
		return stepStartStandby
	}
	return stepNone
}

// decidePrimary is for the node that is to be primary.
func decidePrimary(v view) step {
	switch {
	case v.running && v.known && !v.standby:
		return stepReign
	case v.running || v.standby || v.as.Phase != failover.PhaseReady:
		return stepNone // until it is told to promote
	case v.promise.Reign == v.as.Epoch && v.answered && (v.withdrawn || v.downFor >= restartPatience):
		return stepStartPrimary
	default:
		return stepNone
	}
}

// decideStandby is for all others.
func decideStandby(v view) step {
	elsewhere := v.promise.Reign < v.as.Epoch
	switch {
	case v.running && !v.known:
		return stepNone
	case v.running && !v.standby:
		// What another node was elected for is surely not ours any more.
		if elsewhere || v.fencedFor >= v.grace {
			return stepHardStop
		}
		return stepNone
	case v.unproven && v.behind:
		return stepNone // whose WAL this is, the companions' log tells
	case v.anew:
		return stepClone
	case v.running && !v.diverged && v.unproven && v.as.Phase != failover.PhaseReady:
		return stepNone // once it follows, its log counts as the epoch's
	case v.stranded && v.as.Phase == failover.PhaseReady:
		return stepClone
	case v.running && !v.diverged && v.unproven && v.replaying:
		return stepRejoin
	case v.running && !v.diverged:
		return stepFollow
	case v.as.Phase == failover.PhaseReady:
		return stepRejoin
	case !v.running && v.standby && !v.stopped:
		return stepStartStandby
	default:
		return stepNone // until the primary takes writes, nobody knows where its timeline begins
	}
}
