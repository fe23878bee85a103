package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/beat"
)

// fastest is how often a standby that moves reports: lag and read-your-writes
// live on it.
const fastest = 100 * time.Millisecond

// hasty is how often a primary without a lease reports: commits wait for it. The
// answer to what it said when it had just been promoted may be from before the leader
// knew that it is ready.
const hasty = 10 * time.Millisecond

// reporter tells the leader how the local node is, and the node what the leader
// wants.
type reporter struct {
	s     *Server
	last  failover.Report
	known failover.Epoch // of the log, when last was made
}

// run reports until ctx ends.
func (r *reporter) run(ctx context.Context) error {
	for ctx.Err() == nil {
		changed := r.s.node.Changed()
		r.known = r.s.log.State().Epoch
		answered := r.once(ctx, changed)
		wait := r.interval()
		if !answered {
			wait = min(wait, 50*time.Millisecond)
		}
		r.await(ctx, changed, wait)
	}
	return context.Cause(ctx)
}

// await returns when the next report is due: after d, at a change of the node, or
// with a new epoch.
func (r *reporter) await(ctx context.Context, changed <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		s, moved := r.s.log.Watch()
		if s.Epoch != r.known {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
			return
		case <-t.C:
			return
		case <-moved:
		}
	}
}

// interval is how long to wait before the next report. All but a primary that waits for its
// lease report together with what else a node does from time to time.
func (r *reporter) interval() time.Duration {
	lease := r.s.log.State().Settings.Lease
	switch {
	case r.last.WantsLease && r.s.node.LeaseRemaining() <= 0:
		return hasty
	case r.last.WantsLease && lease > 0:
		return beat.Next(lease / 5)
	case r.last.Postgres == failover.ServerUp && !r.last.Primary && r.s.node.Picture().ReplayLSN != r.last.ReplayLSN:
		return beat.Next(min(fastest, r.s.cfg.Interval))
	}
	return beat.Next(r.s.cfg.Interval)
}

// once sends one report, and gives up when the node has changed meanwhile. It
// reports whether there was an answer.
func (r *reporter) once(ctx context.Context, changed <-chan struct{}) bool {
	report := r.s.report()
	r.last = report
	sent := r.s.node.Clock()
	ctx, cancel := context.WithTimeoutCause(ctx, r.patience(), errors.New("the leader does not answer"))
	defer cancel()
	type result struct {
		as  failover.Assignment
		err error
	}
	done := make(chan result, 1)
	r.s.work.Go(func() {
		as, err := r.s.askLeader(ctx, report)
		done <- result{as, err}
	})
	select {
	case got := <-done:
		if got.err != nil {
			r.s.logger.DebugContext(ctx, "the leader has not answered", "error", got.err)
			return false
		}
		r.s.node.Assign(got.as, sent)
		return true
	case <-changed:
		return true // the next report goes out at once
	}
}

// patience is how long a report waits for its answer before it is sent again.
func (r *reporter) patience() time.Duration {
	if lease := r.s.log.State().Settings.Lease; r.last.WantsLease && lease > 0 {
		return lease * 2 / 5
	}
	return time.Second
}

// report is the node's report, with what only the server knows.
func (s *Server) report() failover.Report {
	r := s.node.Report()
	if r.Node = s.cfg.Self.Name; r.Run == 0 { // a witness does not count its reports
		r.Run, r.Seq = s.run, s.seq.Add(1)
	}
	if left := s.leaving.Load(); left > 0 {
		r.Restarting = time.Duration(left)
	}
	return r
}

// askLeader brings a report to whoever leads.
func (s *Server) askLeader(ctx context.Context, r failover.Report) (failover.Assignment, error) {
	if s.conductor.isLeading() {
		return s.conductor.report(ctx, r)
	}
	name, addr := s.log.Leader()
	if name == s.cfg.Self.Name || name == "" {
		return failover.Assignment{}, fmt.Errorf("no leader is known")
	}
	var as failover.Assignment
	err := s.callers.call(ctx, addr, pathReport, r, &as)
	return as, err
}
