package consensus

import (
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/heliosdb/helios/internal/beat"
)

// A transport is raft's own, but it notes which voters follow. Raft counts
// non-voters as well when it verifies its leadership, so that a leader which is
// cut off with some of them would be sure of itself until its lease ends. And it sends
// heartbeats again that were not answered.
type transport struct {
	raft.Transport
	prevote raft.WithPreVote
	target  func(raft.ServerID, raft.ServerAddress) raft.ServerAddress
	every   time.Duration             // between heartbeats
	closing <-chan struct{}           // closed when the node is
	raft    atomic.Pointer[raft.Raft] // nil while it is being made
	back    atomic.Bool               // a node that did not answer has answered since this was cleared

	mu     sync.Mutex
	acks   map[raft.ServerID]ack
	heard  chan struct{}              // closed at the next ack
	silent map[raft.ServerID]struct{} // who did not answer last
}

// An ack says that a node followed the leader of a term at some time after sent.
type ack struct {
	sent time.Time
	term uint64
}

// newTransport wraps inner. named says that inner wants to know who is meant.
func newTransport(inner raft.Transport, named bool, every time.Duration, closing <-chan struct{}) *transport {
	t := &transport{
		Transport: inner, every: every, closing: closing,
		acks: map[raft.ServerID]ack{}, heard: make(chan struct{}), silent: map[raft.ServerID]struct{}{},
	}
	t.prevote, _ = inner.(raft.WithPreVote)
	t.target = func(_ raft.ServerID, addr raft.ServerAddress) raft.ServerAddress { return addr }
	if named {
		t.target = target
	}
	return t
}

// AppendEntries sends a heartbeat, or entries. A heartbeat without an answer is sent again on the
// beat: raft's own pauses between them grow, to half of the Heartbeat that a leader has.
func (t *transport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	for {
		sent := time.Now()
		err := t.Transport.AppendEntries(id, t.target(id, addr), args, resp)
		if err == nil && resp.Success && resp.Term == args.Term {
			t.note(id, ack{sent, args.Term})
		}
		t.answers(id, err == nil)
		heartbeat := len(args.Entries) == 0 && args.PrevLogEntry == 0 && args.LeaderCommitIndex == 0
		if err == nil || !heartbeat || !t.again(id, addr, args.Term) {
			return err
		}
	}
}

// again waits for the next beat, and reports whether a heartbeat of a term makes sense
// then: the node still leads in it, and the follower is there.
func (t *transport) again(id raft.ServerID, addr raft.ServerAddress, term uint64) bool {
	next := time.NewTimer(beat.Next(t.every))
	defer next.Stop()
	select {
	case <-t.closing:
		return false
	case <-next.C:
	}
	r := t.raft.Load()
	return r != nil && r.State() == raft.Leader && r.CurrentTerm() == term &&
		slices.ContainsFunc(r.GetConfiguration().Configuration().Servers, func(s raft.Server) bool { return s.ID == id && s.Address == addr })
}

// answers notes whether a node has answered.
func (t *transport) answers(id raft.ServerID, yes bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !yes {
		t.silent[id] = struct{}{}
	} else if _, was := t.silent[id]; was {
		delete(t.silent, id)
		t.back.Store(true)
	}
}

func (t *transport) note(id raft.ServerID, a ack) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.sent.Before(t.acks[id].sent) {
		return
	}
	t.acks[id] = a
	close(t.heard)
	t.heard = make(chan struct{})
}

// follow reports whether a majority of the voters of servers followed the
// leader of a term at or after since, and returns a channel that is closed when more
// is known. The leader itself, self, follows always.
func (t *transport) follow(servers []raft.Server, self raft.ServerID, term uint64, since time.Time) (bool, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	voters, following := 0, 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if a := t.acks[s.ID]; s.ID == self || a.term == term && !a.sent.Before(since) {
			following++
		}
	}
	return following > voters/2, t.heard
}

// AppendEntriesPipeline opens a stream of entries.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	return t.Transport.AppendEntriesPipeline(id, t.target(id, addr))
}

// RequestVote asks for a vote.
func (t *transport) RequestVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.Transport.RequestVote(id, t.target(id, addr), args, resp)
}

// RequestPreVote asks whether a vote would be given.
func (t *transport) RequestPreVote(id raft.ServerID, addr raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.prevote.RequestPreVote(id, t.target(id, addr), args, resp)
}

// InstallSnapshot sends a snapshot.
func (t *transport) InstallSnapshot(id raft.ServerID, addr raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.Transport.InstallSnapshot(id, t.target(id, addr), args, resp, data)
}

// TimeoutNow hands over leadership.
func (t *transport) TimeoutNow(id raft.ServerID, addr raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.Transport.TimeoutNow(id, t.target(id, addr), args, resp)
}

// Close closes what is beneath.
func (t *transport) Close() error {
	if inner, ok := t.Transport.(raft.WithClose); ok {
		return inner.Close()
	}
	return nil
}
