package consensus

import (
	"errors"
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
	raft    atomic.Pointer[raft.Raft] // nil while it is being made
	closing <-chan struct{}           // closed when the node is

	transferring func() bool // leadership is being handed over

	mu     sync.Mutex
	acks   map[raft.ServerID]ack
	heard  chan struct{}            // closed at the next ack
	silent map[raft.ServerID]uint64 // of whom did not answer the last heartbeat: its term
	back   bool                     // one of those has answered again
	lost   map[raft.ServerID]bool   // whom something else may not have reached
}

// An ack says that a node followed the leader of a term at some time after sent.
type ack struct {
	sent time.Time
	term uint64
}

// newTransport wraps inner for n. named says that inner wants to know who is meant.
func newTransport(inner raft.Transport, named bool, n *Node) *transport {
	t := &transport{
		Transport: inner, every: n.timings.beat(), closing: n.closing, transferring: n.transferring,
		acks: map[raft.ServerID]ack{}, heard: make(chan struct{}),
		silent: map[raft.ServerID]uint64{}, lost: map[raft.ServerID]bool{},
	}
	t.prevote, _ = inner.(raft.WithPreVote)
	t.target = func(_ raft.ServerID, addr raft.ServerAddress) raft.ServerAddress { return addr }
	if named {
		t.target = target
	}
	return t
}

// AppendEntries sends a heartbeat, or entries.
//
// A heartbeat without an answer is sent again, at first after retryAtOnce and then on the beat. Entries wait while a
// node does not answer heartbeats. Raft's own pauses between tries grow for as long as a node is away, to
// seconds, and it would wait for their end when it is back.
func (t *transport) AppendEntries(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if len(args.Entries) > 0 || args.PrevLogEntry > 0 || args.LeaderCommitIndex > 0 {
		if err := t.hold(id, addr, args.Term); err != nil {
			return err
		}
		err := t.append(id, addr, args, resp)
		if err != nil {
			t.mayLack(id)
		}
		return err
	}
	for try := 1; ; try++ {
		err := t.append(id, addr, args, resp)
		t.heartbeat(id, args.Term, err == nil)
		pause := retryAtOnce
		if try > streams {
			pause = beat.Next(t.every)
		}
		if err == nil || !t.again(id, addr, args.Term, pause, nil) {
			return err
		}
	}
}

// retryAtOnce is the pause before a heartbeat is sent again while that may be because its
// stream had come to an end: as often as there may be such.
const retryAtOnce = 10 * time.Millisecond

func (t *transport) append(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	sent := time.Now()
	err := t.Transport.AppendEntries(id, t.target(id, addr), args, resp)
	if err == nil && resp.Success && resp.Term == args.Term {
		t.note(id, ack{sent, args.Term})
	}
	return err
}

// hold waits while a node does not answer the heartbeats of a term. A transfer of leadership
// has an end, and must not wait for what has none.
func (t *transport) hold(id raft.ServerID, addr raft.ServerAddress, term uint64) error {
	for !t.transferring() {
		silent, heard := t.isSilent(id, term)
		if !silent {
			return nil
		}
		if !t.again(id, addr, term, beat.Next(t.every), heard) {
			return errSilent
		}
	}
	return nil
}

// errSilent is why entries are not sent.
var errSilent = errors.New("it does not answer heartbeats")

// again waits for as long, or until something is heard, and reports whether it makes sense then to send
// what is of a term: the node still leads in it, and the follower is there.
func (t *transport) again(id raft.ServerID, addr raft.ServerAddress, term uint64, pause time.Duration, heard <-chan struct{}) bool {
	next := time.NewTimer(pause)
	defer next.Stop()
	select {
	case <-t.closing:
		return false
	case <-heard:
	case <-next.C:
	}
	r := t.raft.Load()
	return r != nil && r.State() == raft.Leader && r.CurrentTerm() == term &&
		slices.ContainsFunc(r.GetConfiguration().Configuration().Servers, func(s raft.Server) bool { return s.ID == id && s.Address == addr })
}

// heartbeat notes whether a node has answered one of a term.
func (t *transport) heartbeat(id raft.ServerID, term uint64, answered bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !answered {
		t.silent[id] = term
	} else if t.silent[id] != 0 {
		delete(t.silent, id)
		t.back = true
	}
}

// isSilent reports whether a node did not answer the last heartbeat of a term, and returns
// a channel that is closed when another one is answered.
func (t *transport) isSilent(id raft.ServerID, term uint64) (bool, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.silent[id] == term, t.heard
}

// mayLack notes that something that was sent to a node may not have arrived.
func (t *transport) mayLack(id raft.ServerID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lost[id] = true
}

// amiss reports whether a node is back that was silent, and whether one that is not
// may lack something.
func (t *transport) amiss() (back, lost bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range t.lost {
		lost = lost || t.silent[id] == 0
	}
	return t.back, lost
}

// mended notes that all that are not silent are sent everything once more.
func (t *transport) mended() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.back = false
	for id := range t.lost {
		if t.silent[id] == 0 {
			delete(t.lost, id)
		}
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
	p, err := t.Transport.AppendEntriesPipeline(id, t.target(id, addr))
	if err != nil {
		return nil, err
	}
	return &pipeline{p, func() { t.mayLack(id) }}, nil
}

// A pipeline is raft's own. Raft closes it when something went wrong on it, and does not say what
// was lost.
type pipeline struct {
	raft.AppendPipeline
	ended func()
}

// Close closes what is beneath.
func (p *pipeline) Close() error {
	p.ended()
	return p.AppendPipeline.Close()
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
	if err := t.hold(id, addr, args.Term); err != nil {
		return err
	}
	err := t.Transport.InstallSnapshot(id, t.target(id, addr), args, resp, data)
	if err != nil {
		t.mayLack(id)
	}
	return err
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
