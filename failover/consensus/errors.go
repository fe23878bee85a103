package consensus

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

var (
	// ErrNotLeader means that another node has to be asked, or that there is no leader now.
	// Nothing has been done. A [NotLeaderError] says whom.
	ErrNotLeader = errors.New("is not the leader")
	// ErrLeadershipLost means that the node led when it began, and does not any
	// more: what was proposed may be committed or not.
	ErrLeadershipLost = errors.New("leadership was lost on the way: it may have been done or not")
	// ErrClosed means that the node is closed. Nothing has been done.
	ErrClosed = errors.New("node is closed")
	// ErrInUse means that another process has the directory open.
	ErrInUse = errors.New("is in use by another process")
	// ErrExists means that there is a cluster already.
	ErrExists = errors.New("is a member of a cluster already")
	// ErrOtherNode means that at an address another node answers than the one that was meant.
	ErrOtherNode = errors.New("another node answers there")
	// ErrOtherCluster means that a node belongs to another cluster.
	ErrOtherCluster = errors.New("the node there belongs to another cluster")
)

// A NotLeaderError says who leads, as far as is known. It matches [ErrNotLeader].
type NotLeaderError struct {
	Leader  string // "" if nobody, or nobody knows
	Address string // of Leader's companion
}

func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return "consensus: " + ErrNotLeader.Error() + ", and knows of none"
	}
	return fmt.Sprintf("consensus: %s: that is %s at %s", ErrNotLeader, e.Leader, e.Address)
}

// Is makes the error match ErrNotLeader.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// A RefusedError says why the state does not allow a command. Nothing has been
// changed by it, on any node.
type RefusedError struct {
	Err error // of State.Apply
}

func (e *RefusedError) Error() string { return "consensus: refused: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Err }

// explain turns raft's errors into those of this package.
func (n *Node) explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		// While leadership is handed over nothing is accepted, and it is not known yet who will have it.
		name, address := n.Leader()
		if name == n.name {
			name, address = "", ""
		}
		return &NotLeaderError{Leader: name, Address: address}
	case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrAbortedByRestore):
		return fmt.Errorf("consensus: %w", ErrLeadershipLost)
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("consensus: %w", ErrClosed)
	}
	if _, refused := errors.AsType[*RefusedError](err); refused {
		return err
	}
	return fmt.Errorf("consensus: %w", err)
}
