package consensus

import (
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A transport is raft's own, but it notes which voters follow. Raft counts
// non-voters as well when it verifies its leadership, so that a leader which is
// cut off with some of them would be sure of itself until its lease ends.
type transport struct {
	raft.Transport
	prevote raft.WithPreVote
	target  func(raft.ServerID, raft.ServerAddress) raft.ServerAddress

	mu    sync.Mutex
	acks  map[raft.ServerID]ack
	heard chan struct{} // closed at the next ack
}

// An ack says that a node followed the leader of a term at some time after sent.
type ack struct {
	sent time.Time
	term uint64
}

// newTransport wraps inner. named says that inner wants to know who is meant.
func newTransport(inner raft.Transport, named bool) *transport {
	t := &transport{Transport: inner, acks: map[raft.ServerID]ack{}, heard: make(chan struct{})}
	t.prevote, _ = inner.(raft.WithPreVote)
	t.target = func(_ raft.ServerID, addr raft.ServerAddress) raft.ServerAddress { return addr }
	if named {
		t.target = target
	}
	return t
}

// AppendEntries sends a heartbeat, or entries.
func (t *transport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	sent := time.Now()
	err := t.Transport.AppendEntries(id, t.target(id, addr), args, resp)
	if err == nil && resp.Success && resp.Term == args.Term {
		t.note(id, ack{sent, args.Term})
	}
	return err
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
