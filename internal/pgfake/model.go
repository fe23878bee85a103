package pgfake

import (
	"time"

	"github.com/heliosdb/helios/wal"
)

// A replayed is WAL that a replica will have replayed at a time.
type replayed struct {
	at  time.Time
	lsn wal.LSN
}

// follow is how a replica replays.
type follow uint8

const (
	followNow   follow = iota // as soon as the primary has flushed
	followLater               // after the node's delay
	followNever               // only what Replay says
)

// Replay sets the position up to which the replica's queries see the WAL and
// stops it from following the primary.
func (n *Node) Replay(lsn wal.LSN) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.follow, n.pending, n.replay = followNever, nil, lsn
}

// FollowImmediately makes the replica replay what the primary flushes at once,
// and catch up now.
func (n *Node) FollowImmediately() {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.follow, n.pending = followNow, nil
	n.catchUpLocked()
}

// FollowAfter makes the replica replay what the primary flushes d later; it
// has caught up with the past d from now.
func (n *Node) FollowAfter(d time.Duration) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.follow, n.lag = followLater, d
	n.catchUpLocked()
}

// StopReplay makes the replica stand still where it is.
func (n *Node) StopReplay() {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.caughtUpLocked()
	n.follow, n.pending = followNever, nil
}

// catchUpLocked follows the primary of the node's own timeline.
func (n *Node) catchUpLocked() {
	for _, p := range n.cluster.nodes {
		if p.primary && p.timeline == n.timeline && !n.primary {
			n.followLocked(p.flush)
		}
	}
}

// followLocked hears that the primary has flushed up to lsn.
func (n *Node) followLocked(lsn wal.LSN) {
	n.caughtUpLocked()
	switch n.follow {
	case followNow:
		n.replay = max(n.replay, lsn)
	case followLater:
		n.pending = append(n.pending, replayed{time.Now().Add(n.lag), lsn})
	case followNever:
	}
}

// caughtUpLocked replays what is due. A dead replica replays nothing.
func (n *Node) caughtUpLocked() {
	now := time.Now()
	for len(n.pending) > 0 && !n.pending[0].at.After(now) {
		n.replay = max(n.replay, n.pending[0].lsn)
		n.pending = n.pending[1:]
	}
}

// commitLocked grows the WAL of a primary by one commit and, if durable,
// flushes it.
func (n *Node) commitLocked(size wal.LSN, durable bool) {
	n.insert += size
	if durable {
		n.flushLocked()
	}
}

func (n *Node) flushLocked() {
	n.flush = n.insert
	for _, other := range n.cluster.nodes {
		if !other.primary && !other.down && other.timeline == n.timeline {
			other.followLocked(n.flush)
		}
	}
}

// Flush flushes what commits with synchronous_commit = off left behind, as the
// WAL writer does.
func (n *Node) Flush() {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.flushLocked()
}

// SetInsertLSN moves the primary's insert position alone, for example behind a
// page header (…018).
func (n *Node) SetInsertLSN(lsn wal.LSN) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.insert = lsn
}

// Position returns the node's timeline and what its queries can see of the
// WAL: the flush LSN of a primary, the replay LSN of a replica.
func (n *Node) Position() wal.Position {
	s := n.state()
	if s.primary {
		return wal.Position{Timeline: s.timeline, LSN: s.flush}
	}
	return wal.Position{Timeline: s.timeline, LSN: s.replay}
}

// Follow makes the node a replica of p, without the WAL it may have of its own:
// what pg_rewind and a restart do to an old primary. Its connections are cut.
func (n *Node) Follow(p *Node) {
	n.Kill()
	n.cluster.mu.Lock()
	n.primary, n.timeline, n.replay, n.pending = false, p.timeline, p.flush, nil
	n.follow = followNow
	n.cluster.mu.Unlock()
	n.Start()
}

// state is a copy of what the model knows of a node at one moment.
type state struct {
	primary, readOnly     bool
	timeline              wal.Timeline
	insert, flush, replay wal.LSN
	started               time.Time
}

// state returns the node as it is now.
func (n *Node) state() state {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.caughtUpLocked()
	return state{
		primary: n.primary, readOnly: n.readOnly, timeline: n.timeline,
		insert: n.insert, flush: n.flush, replay: n.replay, started: n.started,
	}
}
