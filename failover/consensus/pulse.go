package consensus

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/heliosdb/helios/internal/beat"
)

// A pulse is what a leader does for its followers from time to time. Raft does it for each
// of them at times of its own, which is most of what a quiet cluster costs: here it is
// done for all at once, together with what else the process does on the beat.
type pulse struct {
	n       *Node
	stopped chan struct{}

	beats     time.Time // when heartbeats are due next
	committed uint64    // up to here at the last look
	told      uint64    // committed up to here, and told by an entry behind it; or more
	asked     uint64    // there are so many entries if raft has taken the last one that it was given
	stuck     bool      // at the last look there were entries that are not committed, and none had come to be since the look before

	repairs time.Time     // not before this
	pause   time.Duration // from one repair to the next

	asking atomic.Bool // raft has not taken the last entry yet
}

// maxRepairPause is how long a pulse waits at most before it tries again to mend what
// did not get better: each try is one more entry on every disk.
const maxRepairPause = 10 * time.Second

// startPulse begins to look after the followers, until stop is called.
func (n *Node) startPulse() (stop func()) {
	p := &pulse{n: n, stopped: make(chan struct{})}
	n.running.Go(p.run)
	return sync.OnceFunc(func() { close(p.stopped) })
}

func (p *pulse) run() {
	next := time.NewTimer(beat.Next(p.n.timings.look()))
	defer next.Stop()
	for {
		select {
		case <-p.n.closing:
			return
		case <-p.stopped:
			return
		case <-next.C:
		}
		if p.n.raft.State() == raft.Leader { // otherwise it is about to be stopped
			p.look(time.Now())
		}
		next.Reset(beat.Next(p.n.timings.look()))
	}
}

// look sends heartbeats, if they are due, and what a follower may lack.
func (p *pulse) look(now time.Time) {
	n := p.n
	others, voters := false, 0
	for _, s := range n.servers() {
		others = others || string(s.ID) != n.name
		if s.Suffrage == raft.Voter {
			voters++
		}
	}
	n.pace(func(t *tempo) { t.pulse = voters > 1 })
	if !others {
		return
	}
	if every := n.timings.beat(); !now.Before(p.beats) {
		p.beats = now.Add(every - n.timings.look()/2)
		n.raft.VerifyLeader() // sends them at once; see Verify for who counts the answers
	}
	if !n.transferring() {
		p.mend(now)
	}
}

// mend has raft send what a follower may lack, if there may be such a one. Raft does so when there
// is a new entry, or after lazyCommit: here is one that says nothing.
func (p *pulse) mend(now time.Time) {
	committed, last := p.n.raft.CommitIndex(), p.n.raft.LastIndex()
	still := committed == p.committed // otherwise there may be more to come, and tell it
	stuck := still && committed < last
	back, lost := p.n.transport.amiss()
	broken := back || lost || stuck && p.stuck
	p.committed, p.stuck = committed, stuck
	switch {
	case last < p.asked, still && committed > p.told:
	case broken && !now.Before(p.repairs):
		p.pause = min(max(2*p.pause, 2*p.n.timings.look()), maxRepairPause)
		p.repairs = now.Add(p.pause)
	default:
		if !broken && now.Sub(p.repairs) > p.pause {
			p.pause = 0
		}
		return
	}
	if p.asking.Swap(true) {
		return
	}
	p.asked, p.told = last+1, committed
	if committed == last {
		p.told = p.asked // which tells all, and is nothing to be told
	}
	p.n.transport.mended()
	p.n.running.Go(func() {
		p.n.raft.Barrier(0) // whether it was taken, and is committed, is seen at the next look
		p.asking.Store(false)
	})
}
