package pgtest

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/heliosdb/helios/internal/pgctl"
)

// Kill ends all processes of a node at one moment, as the crash of its machine
// would. A proxy in front of it then refuses connections, as the port does.
func (*Cluster) Kill(n *Node) error {
	return n.failed(errors.Join(n.server.Kill(), n.setDown(true)))
}

// Stop stops a node in order and returns when it has stopped.
func (*Cluster) Stop(ctx context.Context, n *Node, mode pgctl.StopMode) error {
	if err := n.server.Stop(ctx, mode); err != nil {
		return n.failed(err)
	}
	return n.failed(n.setDown(true))
}

// Start starts a node that was stopped or killed, in the role it had, and
// returns when it accepts connections.
func (*Cluster) Start(ctx context.Context, n *Node) error {
	if err := n.server.Start(ctx); err != nil {
		return n.failed(err)
	}
	return n.failed(n.setDown(false))
}

// Restart stops a node, which ends its sessions, and starts it again.
func (c *Cluster) Restart(ctx context.Context, n *Node) error {
	if err := c.Stop(ctx, n, pgctl.Fast); err != nil {
		return err
	}
	return c.Start(ctx, n)
}

// Freeze makes all processes of a node stand still, as a hung machine would:
// connections stay open and nothing answers.
func (*Cluster) Freeze(n *Node) error { return n.failed(n.server.Freeze()) }

// Thaw lets a frozen node go on.
func (*Cluster) Thaw(n *Node) error { return n.failed(n.server.Thaw()) }

// Promote makes a replica the primary and returns when it takes writes. Neither
// the old primary nor the other replicas are touched: see Kill, Fence, Follow.
func (c *Cluster) Promote(ctx context.Context, n *Node) error {
	if err := n.server.Promote(ctx); err != nil {
		return n.failed(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.primary = n
	return nil
}

// Follow makes every other node that is in recovery replicate from primary. It
// does not wait until they stream. Nodes that are down, frozen or primaries
// themselves are left as they are.
func (c *Cluster) Follow(ctx context.Context, primary *Node) error {
	var errs []error
	for _, n := range c.Nodes {
		if n == primary || !n.inRecovery(ctx) {
			continue
		}
		errs = append(errs, c.FollowOne(ctx, n, primary))
	}
	return errors.Join(errs...)
}

// FollowOne makes one replica replicate from upstream, which may be a replica
// itself.
func (*Cluster) FollowOne(ctx context.Context, replica, upstream *Node) error {
	return replica.failed(replica.server.Configure(ctx, map[string]string{
		"primary_conninfo": upstream.server.Conninfo(replica.Name),
	}))
}

// Failover kills the primary, promotes the replica that has received the most
// and makes the others follow it. It returns the new primary.
func (c *Cluster) Failover(ctx context.Context) (*Node, error) {
	if err := c.Kill(c.Primary()); err != nil {
		return nil, err
	}
	next, err := c.BestReplica(ctx)
	if err != nil {
		return nil, err
	}
	return next, errors.Join(c.Promote(ctx, next), c.Follow(ctx, next))
}

// Rejoin makes a node a running replica of the primary, whatever it was before:
// by a rewind if its WAL went past the fork, by a new copy if that fails.
func (c *Cluster) Rejoin(ctx context.Context, n *Node) error {
	primary := c.Primary()
	if n == primary {
		return n.failed(errors.New("is the primary"))
	}
	// A rewind finds the fork by the last checkpoint of the new timeline.
	if err := primary.Exec(ctx, "CHECKPOINT"); err != nil {
		return err
	}
	if err := n.server.Rejoin(ctx, primary.server); err != nil {
		return n.failed(err)
	}
	return errors.Join(n.failed(n.setDown(false)), c.Unfence(ctx, n))
}

// Lag makes a replica apply each commit d after the primary made it; 0 makes it
// apply at once. Commits are received and flushed without delay.
func (*Cluster) Lag(ctx context.Context, n *Node, d time.Duration) error {
	return n.failed(n.server.Configure(ctx, map[string]string{
		"recovery_min_apply_delay": strconv.FormatInt(d.Milliseconds(), 10) + "ms",
	}))
}

// Configure changes settings of a node and returns when they are in force,
// except for those that need a restart.
func (*Cluster) Configure(ctx context.Context, n *Node, settings map[string]string) error {
	return n.failed(n.server.Configure(ctx, settings))
}

// Fence makes a node refuse writes that do not insist (default_transaction_
// read_only): its sessions see it within their next statement.
func (*Cluster) Fence(ctx context.Context, n *Node) error {
	return n.alterSystem(ctx, "SET default_transaction_read_only = on")
}

// Unfence ends Fence.
func (*Cluster) Unfence(ctx context.Context, n *Node) error {
	return n.alterSystem(ctx, "RESET default_transaction_read_only")
}

// alterSystem runs ALTER SYSTEM, which a node in recovery takes as well, and
// makes the node read what it wrote.
func (n *Node) alterSystem(ctx context.Context, change string) error {
	if err := n.Exec(ctx, "ALTER SYSTEM "+change); err != nil {
		return err
	}
	return n.failed(n.server.Configure(ctx, nil))
}

// answerTimeout is after how long a node of this machine counts as silent.
const answerTimeout = 2 * time.Second

// inRecovery reports whether the node answers and is a replica.
func (n *Node) inRecovery(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	replica, err := Value[bool](ctx, n, "SELECT pg_is_in_recovery()")
	return err == nil && replica
}
