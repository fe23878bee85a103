package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/server/api"
)

// maxVoters is how many companions vote: more make every commit of the log wait
// for more, and tolerate no fault that matters.
const maxVoters = 5

// belong makes this companion a member: of a new cluster, of the one that
// Config.Join names, or again of its own, whose log it has.
func (s *Server) belong(ctx context.Context) error {
	said := "" // last
	for ctx.Err() == nil && !s.isMember() {
		var err error
		if s.founds() {
			err = s.found(ctx)
		} else {
			err = s.join(ctx)
		}
		if err == nil {
			s.logger.InfoContext(ctx, "this companion is a member of the cluster", "name", s.cfg.Self.Name)
			break
		}
		if refusal, ok := errors.AsType[*api.Error](err); s.founds() || ok && refusal.Code == codeTaken {
			return err
		}
		if why := err.Error(); why != said {
			said = why
			s.logger.InfoContext(ctx, "this companion is no member yet", "error", err)
		}
		pause(ctx, 200*time.Millisecond)
	}
	s.fill(ctx)
	<-ctx.Done()
	return context.Cause(ctx)
}

// isMember reports whether the log knows this companion as it is now.
func (s *Server) isMember() bool {
	m, ok := s.log.State().Member(s.cfg.Self.Name)
	return ok && sameMember(m, s.cfg.Self)
}

// founds reports whether this companion begins a new cluster. One whose log is not
// empty may have been interrupted in the middle of that: it knows only as the
// leader, who has applied all there is.
func (s *Server) founds() bool {
	return len(s.cfg.Join) == 0 && (s.log.Fresh() || s.conductor.isLeading() && s.log.State().Epoch == 0)
}

// fill copies the primary's data to a node that has none.
func (s *Server) fill(ctx context.Context) {
	for ctx.Err() == nil && !s.node.HasData() {
		state, changed := s.log.Watch()
		primary, ok := state.Member(state.Primary)
		if state.Phase != failover.PhaseReady || !ok {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		s.logger.InfoContext(ctx, "the data directory is made as a copy of the primary's", "primary", primary.Name)
		if err := s.node.CloneFrom(ctx, primary); err != nil && ctx.Err() == nil {
			s.logger.WarnContext(ctx, "the copy failed, and is tried again", "primary", primary.Name, "error", err)
			pause(ctx, time.Second)
		}
	}
}

// found begins a new cluster with this node as its first primary. If it ended in
// the middle, it goes on at the next start.
func (s *Server) found(ctx context.Context) error {
	first, err := s.node.Found(ctx)
	if err != nil {
		return fmt.Errorf("%s cannot be the first node of a cluster: %w", s.cfg.Self.Name, err)
	}
	if s.log.Fresh() {
		if err := s.log.Bootstrap(ctx, s.cfg.Self); err != nil {
			return err
		}
	}
	for !s.conductor.isLeading() {
		if pause(ctx, 10*time.Millisecond); ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	for _, c := range []failover.Command{{Settings: &s.cfg.Settings}, {Join: &s.cfg.Self}, {Found: &first}} {
		if s.log.State().Epoch > 0 {
			return nil
		}
		c.At = time.Now()
		if err := s.log.Propose(ctx, c); err != nil {
			return fmt.Errorf("the new cluster cannot be written down: %w", err)
		}
	}
	s.logger.InfoContext(ctx, "a new cluster begins", "primary", s.cfg.Self.Name, "system", first.SystemID)
	return nil
}

// sameMember reports whether the log knows a member as it is configured. What an
// operator decides while it runs is not compared.
func sameMember(known, configured failover.Member) bool {
	configured.NonVoter, configured.Maintenance = known.NonVoter, known.Maintenance
	return known == configured
}

// join asks for membership wherever the leader may be.
func (s *Server) join(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("nobody answers within 5 s"))
	defer cancel()
	var ask []string
	if name, addr := s.log.Leader(); name != "" {
		ask = append(ask, addr)
	}
	ask = append(ask, s.cfg.Join...)
	for _, m := range s.log.State().Members {
		ask = append(ask, m.Companion)
	}
	var errs []error
	for _, addr := range ask {
		if addr == s.cfg.Self.Companion {
			continue
		}
		err := s.joinBy(ctx, addr)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if s.conductor.isLeading() {
		_, err := s.hearJoin(ctx, s.cfg.Self)
		return err
	}
	return errors.Join(errs...)
}

// joinBy asks one companion, and whom it names as the leader.
func (s *Server) joinBy(ctx context.Context, addr string) error {
	for range 3 {
		err := s.callers.call(ctx, addr, pathJoin, s.cfg.Self, &failover.State{})
		refusal, ok := errors.AsType[*api.Error](err)
		if !ok || refusal.Code != api.CodeNotLeader || refusal.Leader == "" || refusal.Leader == addr {
			return err
		}
		addr = refusal.Leader
	}
	return errors.New("the leader changes all the time")
}

// hearJoin makes a companion a member, or takes note of its new address.
func (s *Server) hearJoin(ctx context.Context, m failover.Member) (*failover.State, error) {
	if !s.conductor.isLeading() {
		return nil, s.conductor.notLeader()
	}
	state := s.log.State()
	if m.Name == "" || m.Companion == "" || !m.Witness && m.Postgres == "" {
		return nil, &api.Error{Code: api.CodeBadRequest, Message: "a member has a name, and addresses of its companion and its PostgreSQL"}
	}
	voters := 0
	for _, other := range state.Members {
		switch {
		case other.Name == m.Name:
			m.NonVoter, m.Maintenance = other.NonVoter, other.Maintenance
			if other.Companion != m.Companion && s.answersAs(ctx, other, dialBudget) {
				return nil, &api.Error{Code: codeTaken, Message: fmt.Sprintf("there is a member %s at %s, and it answers", other.Name, other.Companion), Hint: "give every companion a --name of its own"}
			}
		case other.Companion == m.Companion || other.Postgres != "" && other.Postgres == m.Postgres:
			return nil, &api.Error{Code: codeTaken, Message: fmt.Sprintf("member %s has an address of %s already", other.Name, m.Name), Hint: "give every node addresses of its own, or remove the old member: helios replicas remove " + other.Name}
		case !other.NonVoter:
			voters++
		}
	}
	if _, known := state.Member(m.Name); !known && voters >= maxVoters {
		m.NonVoter = true
	}
	add := s.log.AddVoter
	if m.NonVoter {
		add = s.log.AddNonvoter
	}
	if err := add(ctx, m.Name, m.Companion); err != nil {
		return nil, fmt.Errorf("%s cannot take part in the consensus: %w", m.Name, err)
	}
	if err := s.log.Propose(ctx, failover.Command{At: time.Now(), Join: &m}); err != nil {
		return nil, err
	}
	return s.log.State(), nil
}

// answersAs reports whether the member's companion can be called where the log
// says it is, and answers in time.
func (s *Server) answersAs(ctx context.Context, m failover.Member, budget time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	as := failover.Assignment{Node: m.Name} // of no term: ignored by who is that member, refused by others
	return s.callers.call(ctx, m.Companion, pathAssign, as, &empty{}) == nil
}
