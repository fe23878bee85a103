package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/failover/consensus"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal/relay"
)

// State implements [api.Cluster].
func (s *Server) State() *failover.State { return s.log.State() }

// Bulletin implements [api.Cluster].
func (s *Server) Bulletin() (*topology.Bulletin, <-chan struct{}) { return s.board.peek() }

// Local implements [api.Cluster].
func (s *Server) Local() failover.Report {
	r := s.node.Picture()
	r.Node = s.cfg.Self.Name
	return r
}

// Leader implements [api.Cluster].
func (s *Server) Leader() (name, addr string) { return s.log.Leader() }

// LeaseRemaining implements [api.Cluster].
func (s *Server) LeaseRemaining() time.Duration { return s.node.LeaseRemaining() }

// Consensus implements [api.Cluster].
func (s *Server) Consensus() api.Consensus { return api.Consensus{Term: s.log.Term()} }

// Lag implements [api.Cluster].
func (s *Server) Lag() any {
	if b, _ := s.board.peek(); b.Term == 0 {
		return nil
	}
	return s.lag.Report()
}

// WAL implements [api.Cluster].
func (s *Server) WAL() (relay.Status, bool) {
	r := s.node.Relay()
	if r == nil {
		return relay.Status{}, false
	}
	return r.Status(), true
}

// Do implements [api.Cluster]: it carries out an order here, or has the leader do it.
func (s *Server) Do(ctx context.Context, o api.Order) error {
	err := s.order(ctx, o)
	for range 3 {
		refusal, ok := errors.AsType[*api.Error](err)
		if !ok || refusal.Code != api.CodeNotLeader || refusal.Leader == "" {
			break
		}
		err = s.forward(ctx, refusal.Leader, o)
	}
	if refusal, ok := errors.AsType[*api.Error](err); ok && refusal.Code == api.CodeNotLeader {
		return &api.Error{Code: api.CodeNoLeader, Message: refusal.Message, Hint: refusal.Hint}
	}
	return err
}

// forward has the leader carry out an order. One that leads no more may be frozen.
func (s *Server) forward(ctx context.Context, leader string, o api.Order) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.work.Go(func() {
		for ctx.Err() == nil {
			if name, addr := s.log.Leader(); addr != "" && addr != leader {
				cancel(fmt.Errorf("%s leads now, and it is not known what the leader before has done: look at the cluster", name))
			}
			pause(ctx, 100*time.Millisecond)
		}
	})
	err := s.callers.call(ctx, leader, pathOrder, o, &empty{})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// refused makes an error of a person's order.
func refused(hint, format string, args ...any) error {
	return &api.Error{Code: api.CodeRefused, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// order carries out an order at the leader.
func (s *Server) order(ctx context.Context, o api.Order) error {
	if !s.conductor.isLeading() {
		return s.conductor.notLeader()
	}
	state := s.log.State()
	switch {
	case o.Switchover != nil:
		return s.switchOver(ctx, o.Switchover.To)
	case o.Failover != nil:
		return s.failOver(ctx, *o.Failover, o.By)
	case o.Promote != "" && state.Phase == failover.PhaseReady && s.primaryIsUp():
		return s.switchOver(ctx, o.Promote)
	case o.Promote != "":
		return s.failOver(ctx, api.Failover{To: o.Promote}, o.By)
	case o.Pause != nil:
		return s.propose(ctx, failover.Command{Pause: o.Pause})
	case o.Maintenance != nil:
		return s.change(ctx, o.Maintenance.Node, func(m *failover.Member) { m.Maintenance = o.Maintenance.On })
	case o.Settings != nil:
		next, err := o.Settings.Apply(state.Settings)
		if err != nil {
			return err
		}
		if check := s.cfg.CheckLease; check != nil && next.Lease != state.Settings.Lease {
			if err := check(next.Lease); err != nil {
				return refused("", "%s", err)
			}
		}
		return s.propose(ctx, failover.Command{Settings: &next})
	case o.Reinit != "":
		return s.reinit(ctx, o.Reinit)
	case o.Remove != "":
		return s.remove(ctx, o.Remove)
	}
	return refused("", "nothing is ordered")
}

// propose commits a command, and tells people why it was refused.
func (s *Server) propose(ctx context.Context, c failover.Command) error {
	c.At = time.Now()
	err := s.log.Propose(ctx, c)
	if why, ok := errors.AsType[*consensus.RefusedError](err); ok {
		return refused("", "%s", strings.TrimPrefix(why.Err.Error(), "failover: "))
	}
	switch {
	case errors.Is(err, consensus.ErrNotLeader):
		return s.conductor.notLeader()
	case errors.Is(err, consensus.ErrLeadershipLost):
		return &api.Error{Code: api.CodeTimeout, Message: "the leader lost its leadership meanwhile", Hint: "it may be done: helios status"}
	}
	return err
}

// change changes what the log knows of a member.
func (s *Server) change(ctx context.Context, node string, edit func(*failover.Member)) error {
	m, ok := s.log.State().Member(node)
	if !ok {
		return &api.Error{Code: api.CodeNoSuchNode, Message: fmt.Sprintf("there is no member %s", node)}
	}
	edit(&m)
	return s.propose(ctx, failover.Command{Join: &m})
}

// primaryIsUp reports whether the primary is there to hand over.
func (s *Server) primaryIsUp() bool {
	b, _ := s.board.peek()
	for _, n := range b.Nodes {
		if n.Name == b.Primary {
			return n.State == string(failover.ServerUp)
		}
	}
	return false
}

// orderDial is how long a node may take to answer that is to take over.
const orderDial = time.Second

// switchOver wishes for another primary, and waits for what comes of it.
func (s *Server) switchOver(ctx context.Context, to string) error {
	before := s.log.State()
	// What was heard of it may be from before its end. Found out later, nobody would be
	// primary meanwhile.
	if m, ok := before.Member(to); ok && to != s.cfg.Self.Name && !s.answersAs(ctx, m, orderDial) {
		return refused("start its companion, or name another node", "the companion of %s does not answer", to)
	}
	if err := s.propose(ctx, failover.Command{Switchover: &failover.Switchover{To: to, At: time.Now()}}); err != nil {
		return err
	}
	return s.settled(ctx, func(now *failover.State) (bool, error) {
		switch {
		case now.Epoch == before.Epoch && now.Switchover == nil:
			return true, refused("", "the switchover was given up: %s", now.Cancelled)
		case now.Epoch > before.Epoch && now.Phase == failover.PhaseReady && now.Primary == before.Primary:
			return true, refused("", "the switchover was given up, and %s is the primary again: %s", now.Primary, reasonOf(now))
		}
		return now.Epoch > before.Epoch && now.Phase == failover.PhaseReady, nil
	})
}

// reasonOf is why the newest epoch is as it is.
func reasonOf(s *failover.State) string {
	if len(s.History) == 0 {
		return ""
	}
	return s.History[len(s.History)-1].Reason
}

// settled waits until done says yes of the newest state.
func (s *Server) settled(ctx context.Context, done func(*failover.State) (bool, error)) error {
	for {
		now, changed := s.log.Watch()
		if ok, err := done(now); ok {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// failOver takes the primary's role away without its help.
func (s *Server) failOver(ctx context.Context, f api.Failover, by string) error {
	before := s.log.State()
	if before.Phase == failover.PhaseReady && s.primaryIsUp() && !f.Force {
		return refused("helios switchover does it without losing anything; helios failover --force does not ask the primary", "%s, the primary, is up", before.Primary)
	}
	if f.Force && f.AcceptLoss != "" && f.AcceptLoss != before.Primary {
		return refused("", "%s is not the primary whose commits may be lost; that is %s", f.AcceptLoss, before.Primary)
	}
	reason := "ordered"
	if by != "" {
		reason += " by " + by
	}
	s.conductor.give(ctx, failover.Forced{To: f.To, Reason: reason})
	return s.settled(ctx, func(now *failover.State) (bool, error) {
		return now.Epoch > before.Epoch && now.Phase == failover.PhaseReady, nil
	})
}

// reinit has a node make its data directory anew.
func (s *Server) reinit(ctx context.Context, node string) error {
	state := s.log.State()
	if state.Primary == node {
		return refused("helios switchover first", "%s is the primary", node)
	}
	if state.Phase != failover.PhaseReady {
		return refused("", "there is no primary to copy from")
	}
	m, _ := state.Member(node)
	if m.Witness {
		return refused("", "%s is a witness, and has no data", node)
	}
	return s.callers.call(ctx, m.Companion, pathReinit, epochCall{state.Epoch}, &empty{})
}

// remove takes a member out of the cluster.
func (s *Server) remove(ctx context.Context, node string) error {
	if node == s.cfg.Self.Name {
		if err := s.log.Transfer(ctx, ""); err != nil {
			return refused("", "%s leads, and nobody takes the leadership: %v", node, err)
		}
		return &api.Error{Code: api.CodeNotLeader, Message: "the leadership moves"}
	}
	if err := s.propose(ctx, failover.Command{Leave: node}); err != nil {
		return err
	}
	return s.log.Remove(ctx, node)
}
