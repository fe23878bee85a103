package consensus

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/heliosdb/helios/failover"
)

// Propose commits a command and returns when State has it. The error is a
// [RefusedError] if the state does not allow it, and matches [ErrNotLeader] if it
// has to be proposed elsewhere: then nothing has been done. With
// [ErrLeadershipLost], and at the end of ctx, it may have been done or not.
func (n *Node) Propose(ctx context.Context, c failover.Command) error {
	entry, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("consensus: %w", err)
	}
	return n.call(ctx, func() error {
		applied := n.raft.Apply(entry, left(ctx))
		if err := applied.Error(); err != nil {
			return err
		}
		if refused, ok := applied.Response().(*RefusedError); ok {
			return refused
		}
		return nil
	})
}

// left returns how long ctx lasts; 0 if it has no end.
func left(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(time.Until(deadline), 1)
}

// Verify returns nil if the node led the log at some time after Verify was called: a majority
// of the voters has said so since. Otherwise it matches [ErrNotLeader] or [ErrLeadershipLost], or
// is why ctx ended.
func (n *Node) Verify(ctx context.Context) error {
	term, since := n.raft.CurrentTerm(), time.Now()
	// Raft's own verification sends heartbeats at once.
	if err := n.call(ctx, func() error { return n.raft.VerifyLeader().Error() }); err != nil {
		return err
	}
	for n.raft.State() == raft.Leader && n.raft.CurrentTerm() == term {
		verified, more := n.transport.follow(n.servers(), raft.ServerID(n.name), term, since)
		if verified {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("consensus: %w", context.Cause(ctx))
		case <-time.After(n.timings.LeaderLease / 5): // leadership may be lost without a word
		}
	}
	return n.explain(raft.ErrNotLeader)
}

// Transfer hands leadership to the voter named to, or to the one that is most
// up to date if to is "". It returns when this node does not lead any more; the other
// one may then still lose the election.
func (n *Node) Transfer(ctx context.Context, to string) error {
	n.pace(func(t *tempo) { t.transfers++ })
	defer n.pace(func(t *tempo) { t.transfers-- })
	if to == "" {
		return n.call(ctx, func() error { return n.raft.LeadershipTransfer().Error() })
	}
	for _, s := range n.servers() {
		if string(s.ID) != to {
			continue
		}
		if s.Suffrage != raft.Voter {
			return fmt.Errorf("consensus: %s has no vote", to)
		}
		return n.call(ctx, func() error { return n.raft.LeadershipTransferToServer(s.ID, s.Address).Error() })
	}
	return fmt.Errorf("consensus: there is no %s", to)
}
