package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/lag"
	"github.com/heliosdb/helios/server/client"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

// A board holds the newest bulletin. It is safe for concurrent use.
type board struct {
	mu      sync.Mutex
	newest  *topology.Bulletin // guarded by mu
	at      time.Time          // guarded by mu; when it came
	changed chan struct{}      // guarded by mu; closed when newest is replaced
}

func newBoard(companion string) *board {
	return &board{newest: &topology.Bulletin{Companion: companion, Phase: string(failover.PhaseForming)}, changed: make(chan struct{})}
}

// peek returns the newest bulletin, and a channel that is closed when there is a
// newer one.
func (b *board) peek() (*topology.Bulletin, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.newest, b.changed
}

// read returns the newest bulletin, and when it came.
func (b *board) read() (*topology.Bulletin, time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.newest, b.at
}

// post publishes a bulletin, unless a newer one is there.
func (b *board) post(next *topology.Bulletin) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if next.Term < b.newest.Term || next.Term == b.newest.Term && next.Seq < b.newest.Seq {
		return
	}
	b.newest, b.at = next, time.Now()
	close(b.changed)
	b.changed = make(chan struct{})
}

// An editor writes the bulletins of a leader. It is used by the conductor's
// goroutine alone.
type editor struct {
	s       *Server
	seq     uint64
	heard   map[string]heard
	primary lag.History // where the primary stood, by this companion's clock
}

// heard is a report and when it came.
type heard struct {
	failover.Report
	at time.Time
}

// note takes a report, or a change of the log, into the next bulletin.
func (e *editor) note(s *failover.State, warnings []string, in failover.Input) {
	switch in := in.(type) {
	case failover.Leads:
		e.heard = make(map[string]heard)
	case failover.Heard:
		now := time.Now()
		e.heard[in.Report.Node] = heard{in.Report, now}
		if in.Report.Node == s.Primary && in.Report.Primary && in.Report.Epoch == s.Epoch {
			e.primary.Add(now, in.Report.LSN)
		}
	case failover.Follows:
		return
	case failover.Applied:
	default:
		return
	}
	if e.heard == nil || !e.s.conductor.isLeading() {
		return
	}
	e.seq++
	e.s.board.post(e.compose(s, warnings, time.Now()))
}

// compose writes the bulletin of this moment.
func (e *editor) compose(s *failover.State, warnings []string, now time.Time) *topology.Bulletin {
	b := &topology.Bulletin{
		SystemID: s.SystemID, Epoch: uint64(s.Epoch), Phase: string(s.Phase),
		Hold:     s.Phase == failover.PhaseFenced || s.Phase == failover.PhaseElected,
		Timeline: s.Timeline, History: historyOf(s), Warnings: warnings,
		Companion: e.s.cfg.Self.Name, Term: e.s.log.Term(), Seq: e.seq,
	}
	if s.Phase == failover.PhaseReady {
		b.Primary = s.Primary
	}
	for _, m := range s.Members {
		b.Nodes = append(b.Nodes, e.describe(s, m, now))
	}
	return b
}

// historyOf returns where timelines began, as the log remembers. Of a number that was given
// away twice, by force, the last one counts.
func historyOf(s *failover.State) wal.History {
	var h wal.History
	for _, t := range s.History {
		if t.SwitchLSN != 0 && t.Timeline != 0 {
			h = h.With(wal.Switch{Timeline: t.Timeline, LSN: t.SwitchLSN})
		}
	}
	return h
}

// silentAfter is how old the newest report of a node may be before its state is
// called unknown.
const silentAfter = 3 * time.Second

// describe says what is known of one member.
func (e *editor) describe(s *failover.State, m failover.Member, now time.Time) topology.Reported {
	n := topology.Reported{
		Name: m.Name, Addr: m.Postgres, Companion: m.Companion, Zone: m.Zone,
		Role: "unknown", State: "unknown", Lag: -1,
	}
	if m.Witness {
		n.Role = "witness"
	}
	r, ok := e.heard[m.Name]
	if !ok {
		n.Reason = "this companion has not been heard of"
		return n
	}
	n.Age = now.Sub(r.at)
	n.State, n.Reason = string(r.Postgres), r.Reason
	if m.Witness {
		n.State = "up"
	}
	if n.Age > silentAfter {
		n.State, n.Reason = "unknown", fmt.Sprintf("its companion has been silent for %v", n.Age.Round(time.Second))
	} else if m.Maintenance {
		n.State = "maintenance"
	}
	n.Timeline, n.Streaming, n.StartedAt = r.Timeline, r.Streaming, r.StartedAt
	if m.Witness || r.Postgres == failover.ServerDown {
		return n
	}
	if r.Primary {
		n.Role, n.CurrentLSN, n.Lag = "primary", r.LSN, 0
		return n
	}
	n.Role, n.ReceiveLSN, n.ReplayLSN = "replica", r.LSN, r.ReplayLSN
	if age, ok := e.primary.LagOf(r.ReplayLSN, now); ok && r.Timeline == s.Timeline {
		n.Lag = age
	}
	if newest, ok := e.primary.Newest(); ok && newest > r.ReplayLSN {
		n.Behind = uint64(newest - r.ReplayLSN)
	}
	return n
}

// listen takes over the bulletins of the leader, while it is another companion.
func (s *Server) listen(ctx context.Context) error {
	for ctx.Err() == nil {
		name, addr := s.log.Leader()
		switch {
		case name == s.cfg.Self.Name && s.conductor.isLeading():
			select {
			case <-s.conductor.deposed:
			case <-ctx.Done():
			}
			continue
		case name == "" || name == s.cfg.Self.Name:
			pause(ctx, 50*time.Millisecond)
			continue
		}
		if err := s.listenTo(ctx, name, addr); err != nil && ctx.Err() == nil {
			s.logger.DebugContext(ctx, "the leader's bulletins ended", "leader", name, "error", err)
			pause(ctx, 100*time.Millisecond)
		}
	}
	return context.Cause(ctx)
}

// listenTo copies bulletins from one leader until it is the leader no longer.
func (s *Server) listenTo(ctx context.Context, leader, addr string) error {
	c, err := client.New([]string{addr}, client.Options{
		TLS: s.cfg.PeerTLS, Dial: s.cfg.Dial, Timeout: silentAfter, Heartbeat: time.Second, Positions: 50 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	defer c.Close()
	for b, err := range c.Watch(ctx) {
		if err != nil {
			return err
		}
		if now, _ := s.log.Leader(); now != leader {
			return nil
		}
		s.board.post(b)
	}
	return nil
}
