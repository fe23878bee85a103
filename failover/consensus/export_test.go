package consensus

import (
	"time"

	"github.com/hashicorp/raft"
)

// Snapshot has raft write a snapshot, and keep no entry before it.
func (n *Node) Snapshot() error {
	c := n.raft.ReloadableConfig()
	c.TrailingLogs = 0
	if err := n.raft.ReloadConfig(c); err != nil {
		return err
	}
	return n.raft.Snapshot().Error()
}

// Patience is raft's HeartbeatTimeout: a follower's patience, and what a leader's
// heartbeats are a tenth to a fifth of.
func (n *Node) Patience() time.Duration { return n.raft.ReloadableConfig().HeartbeatTimeout }

// VerifyAsRaftDoes asks raft alone whether the node leads.
func (n *Node) VerifyAsRaftDoes() error { return n.raft.VerifyLeader().Error() }

// NewRaftLog returns the adapter that raft logs to.
var NewRaftLog = newRaftLog

// Quiet is how long a warning is not repeated.
const Quiet = quiet

// Target is an address with the name of the node that is meant.
func Target(name, addr string) raft.ServerAddress {
	return target(raft.ServerID(name), raft.ServerAddress(addr))
}
