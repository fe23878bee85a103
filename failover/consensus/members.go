package consensus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"

	"github.com/heliosdb/helios/failover"
)

// A Server is one node of the log.
type Server struct {
	Name    string
	Address string // of its companion
	Voter   bool
}

// Servers returns the nodes of the log, as far as this one knows.
func (n *Node) Servers() []Server {
	var servers []Server
	for _, s := range n.servers() {
		servers = append(servers, Server{Name: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return servers
}

func (n *Node) servers() []raft.Server { return n.raft.GetConfiguration().Configuration().Servers }

// Fresh reports whether the node is no member of any cluster yet: it has nothing on disk, and
// may found one or be added to one.
func (n *Node) Fresh() bool { return len(n.servers()) == 0 }

// Bootstrap makes a new cluster, of which this node is the first member and the
// only voter, and returns when it leads it. What was cut off in the middle may be repeated.
func (n *Node) Bootstrap(ctx context.Context, m failover.Member) error {
	if m.Name != n.name || m.NonVoter {
		return fmt.Errorf("consensus: %s cannot found a cluster for %s", n.name, m.Name)
	}
	if !n.Fresh() && (len(n.servers()) != 1 || len(n.State().Members) > 0) {
		return fmt.Errorf("consensus: %s %w", n.name, ErrExists)
	}
	if n.Fresh() {
		if err := n.found(ctx); err != nil {
			return err
		}
	}
	for {
		err := n.Propose(ctx, failover.Command{At: time.Now(), Join: &m})
		if !errors.Is(err, ErrNotLeader) {
			return err
		}
		select {
		case <-time.After(n.timings.Heartbeat / 10): // it will win the election: nobody else votes
		case <-ctx.Done():
			return fmt.Errorf("consensus: %w", context.Cause(ctx))
		}
	}
}

// found makes this node the only voter of a new log.
func (n *Node) found(ctx context.Context) error {
	if err := n.identity.found(); err != nil {
		return fmt.Errorf("consensus: %w", err)
	}
	alone := raft.Configuration{Servers: []raft.Server{{
		Suffrage: raft.Voter, ID: raft.ServerID(n.name), Address: n.transport.LocalAddr(),
	}}}
	return n.call(ctx, func() error { return n.raft.BootstrapCluster(alone).Error() })
}

// found gives the cluster that is being made its number.
func (i *identity) found() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cluster != 0 {
		return nil
	}
	cluster := rand.Uint64() | 1
	if err := i.store.setCluster(cluster); err != nil {
		return err
	}
	i.cluster = cluster
	return nil
}

// AddVoter makes the node at addr a voter, whether it is new, had no vote, or
// has another address now. Only the leader can. The node has to answer there: one voter
// that cannot be reached is enough to stop a small cluster for good. It may not
// have the log yet when AddVoter returns.
func (n *Node) AddVoter(ctx context.Context, name, addr string) error {
	if err := n.reach(ctx, name, addr); err != nil {
		return err
	}
	return n.call(ctx, func() error {
		return n.raft.AddVoter(raft.ServerID(name), raft.ServerAddress(addr), 0, left(ctx)).Error()
	})
}

// AddNonvoter makes the node at addr one that hears the log without a vote,
// whether it is new, had a vote, or has another address now. Only the leader can.
func (n *Node) AddNonvoter(ctx context.Context, name, addr string) error {
	if err := n.reach(ctx, name, addr); err != nil {
		return err
	}
	for _, s := range n.Servers() {
		if s.Name != name || !s.Voter {
			continue
		}
		if err := n.call(ctx, func() error { return n.raft.DemoteVoter(raft.ServerID(name), 0, left(ctx)).Error() }); err != nil {
			return err
		}
	}
	return n.call(ctx, func() error {
		return n.raft.AddNonvoter(raft.ServerID(name), raft.ServerAddress(addr), 0, left(ctx)).Error()
	})
}

// Remove takes a node out of the log. Only the leader can; if it removes itself,
// the others elect a new one. A node that was removed may be added again.
func (n *Node) Remove(ctx context.Context, name string) error {
	return n.call(ctx, func() error { return n.raft.RemoveServer(raft.ServerID(name), 0, left(ctx)).Error() })
}

// reach returns an error if the node called name does not answer at addr. It
// asks for a vote in a term that is long past, which changes nothing there.
func (n *Node) reach(ctx context.Context, name, addr string) error {
	if n.raft.State() != raft.Leader {
		return n.explain(raft.ErrNotLeader)
	}
	if name == n.name {
		return nil
	}
	self := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.name), Addr: []byte(n.transport.LocalAddr())}
	err := n.call(ctx, func() error {
		var resp raft.RequestPreVoteResponse
		err := n.transport.RequestPreVote(raft.ServerID(name), raft.ServerAddress(addr), &raft.RequestPreVoteRequest{RPCHeader: self}, &resp)
		if err == nil && string(resp.ID) != name {
			err = fmt.Errorf("%s at %s: %w: %s", name, addr, ErrOtherNode, resp.ID)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w; it has to answer there to be added", err)
	}
	return nil
}
