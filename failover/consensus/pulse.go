package consensus

import (
	"context"
	"time"

	"github.com/hashicorp/raft"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/beat"
)

// A pulse is what a leader does for its followers from time to time. Raft does it for each
// of them at times of its own, which is most of what a quiet cluster costs: here it is
// done for all at once, together with what else the process does on the beat.
type pulse struct {
	n    *Node
	term uint64

	told      *failover.State // what the followers were told to be committed
	seen      *failover.State // what was committed at the last beat
	committed uint64          // up to here then
	stuck     bool            // and there was more, no more of which was committed than at the beat before
}

// run beats while the node leads in the term.
func (p *pulse) run() {
	every := p.n.timings.beat()
	next := time.NewTimer(beat.Next(every))
	defer next.Stop()
	for {
		select {
		case <-p.n.closing:
			return
		case <-next.C:
		}
		if p.n.raft.State() != raft.Leader || p.n.raft.CurrentTerm() != p.term {
			return
		}
		p.beat()
		next.Reset(beat.Next(every))
	}
}

// beat sends heartbeats to all followers. If they may not know what is committed, or an
// entry may have been lost on the way to them, it sends them one that says nothing:
// raft tells the first and repeats the other with it, or after lazyCommit by itself.
func (p *pulse) beat() {
	n := p.n
	if len(n.servers()) < 2 {
		return
	}
	n.raft.VerifyLeader() // which sends heartbeats at once; see Verify for who counts them
	state, committed := n.State(), n.raft.CommitIndex()
	settled := state == p.seen // otherwise there may be more to come, and tell it
	stuck := committed == p.committed && committed < n.raft.LastIndex()
	if n.transport.back.Swap(false) || settled && state != p.told || stuck && p.stuck {
		p.told, stuck = state, false
		n.running.Go(func() {
			_ = n.call(context.Background(), func() error { return n.raft.Barrier(0).Error() }) // if it is stuck, there is another
		})
	}
	p.seen, p.committed, p.stuck = state, committed, stuck
}
