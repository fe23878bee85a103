package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// rejoin makes the server a standby of the primary, whatever it is now, and with
// as little effort as that takes.
func (a *Agent) rejoin(ctx context.Context, as failover.Assignment) error {
	return a.become(ctx, as, pgctl.Follow)
}

// reinit makes the data directory anew. The old one goes when that is complete.
func (a *Agent) reinit(ctx context.Context, as failover.Assignment) error {
	if err := a.become(ctx, as, pgctl.Reclone); err != nil {
		return err
	}
	a.anew.Store(false)
	return nil
}

// become makes the server a standby of the primary, from a rung of the ladder on.
func (a *Agent) become(ctx context.Context, as failover.Assignment, from pgctl.Rung) error {
	began := a.clock()
	if a.pg.Running() {
		a.starting("it becomes a standby of " + as.Primary.Name)
		if err := a.pg.HardStop(ctx, stopBudget); err != nil {
			return a.startedOr(err)
		}
	}
	opt, err := a.ladder(ctx, as, from)
	if err != nil {
		return a.startedOr(err)
	}
	a.starting("it becomes a standby of " + as.Primary.Name)
	if err := a.pg.Configure(a.cfg.settings()); err != nil {
		return a.startedOr(err)
	}
	// Not before what the data are has been judged: this makes them the epoch's.
	if err := a.sourceFrom(as.Epoch, as.Primary); err != nil {
		return a.startedOr(err)
	}
	done, err := a.pg.Rejoin(ctx, opt)
	if err != nil {
		return a.startedOr(err)
	}
	if err := a.promises.change(func(p *promise) { p.Astray = false }); err != nil {
		return a.startedOr(err)
	}
	a.mu.Lock()
	a.pointed, a.diverged = opt.Primary, false
	a.rejoining = rejoining{string(done.Rung), began}
	a.mu.Unlock()
	a.log.InfoContext(ctx, "the server is a standby", "of", as.Primary.Name, "by", string(done.Rung), "was", done.Was.Position,
		"fork", done.Fork, "diverged", done.Diverged, "kept", cmp.Or(done.Archived, done.Kept), "took", (a.clock() - began).Round(time.Millisecond))
	return a.startedOr(nil)
}

// rejoining is how the server was made a standby that has not been seen to stream yet,
// and since when.
type rejoining struct {
	by    string // "" if there is nothing to wait for
	began time.Duration
}

// streams counts a server that streams again.
func (a *Agent) streams() {
	a.mu.Lock()
	back := a.rejoining
	a.rejoining = rejoining{}
	a.mu.Unlock()
	if back.by != "" {
		a.cfg.Metrics.Rejoined(back.by, a.clock()-back.began)
	}
}

// ladder decides how the server becomes a standby of the primary.
func (a *Agent) ladder(ctx context.Context, as failover.Assignment, from pgctl.Rung) (pgctl.RejoinOptions, error) {
	opt := pgctl.RejoinOptions{
		Source: a.serverOf(as.Primary), Primary: a.conninfoTo(as.Primary), From: from, DropOld: true,
	}
	var err error
	if opt.SystemID, opt.Target, opt.History, err = a.past(ctx, as.Primary); err != nil {
		return opt, fmt.Errorf("agent: the past of %s is not known: %w", as.Primary.Name, err)
	}
	if opt.Target < as.Timeline {
		return opt, fmt.Errorf("agent: %s is on timeline %s, and the cluster on %s", as.Primary.Name, opt.Target, as.Timeline)
	}
	local, err := a.pg.LocalData(ctx)
	if ctx.Err() != nil {
		return opt, context.Cause(ctx)
	}
	if err != nil { // where the log ends is not known, nor whose it is: only a copy helps
		a.log.WarnContext(ctx, "what the data directory holds cannot be told", "error", err)
		opt.From, opt.DropOld = pgctl.Reclone, false
		return opt, a.promises.change(func(p *promise) { p.Astray = true })
	}
	known := a.localData(local)
	if err := a.promises.change(func(p *promise) { p.Astray = known.Foreign }); err != nil {
		return opt, err
	}
	opt.DropOld = !known.Foreign // what it holds beyond the cluster's history cannot be told apart
	plan := failover.Rejoin(known, opt.History, opt.Target, opt.SystemID)
	if plan != a.plan {
		a.log.InfoContext(ctx, "how the server comes back", "step", string(plan.Step), "reason", plan.Reason)
		a.plan = plan
	}
	if plan.Step != failover.RejoinStart && (known.Foreign || known.Position.Timeline >= opt.Target) {
		a.relay.Forget() // what it holds came from where this node has been
	}
	switch plan.Step {
	case failover.RejoinStart:
	case failover.RejoinRewind:
		opt.From = later(from, pgctl.Rewind)
	case failover.RejoinClone:
		opt.From = pgctl.Reclone
	case failover.RejoinQuarantine:
		if from != pgctl.Reclone || opt.Target == 0 || opt.SystemID == 0 {
			return opt, errors.New("agent: the data directory is left alone: " + plan.Reason)
		}
		// Somebody has looked, and wants it made anew. What is there is nobody else's, so
		// it stays, beside the copy.
		opt.From, opt.DropOld, opt.ReplaceForeign = pgctl.Reclone, false, true
	}
	return opt, nil
}

// later returns the rung that takes longer.
func later(a, b pgctl.Rung) pgctl.Rung {
	if a == pgctl.Follow || a == pgctl.Rewind && b == pgctl.Reclone {
		return b
	}
	return a
}

// localData is what a directory holds, with what is known of how it came to that.
func (a *Agent) localData(d pgctl.LocalData) failover.LocalData {
	local := failover.LocalData{
		Empty: d.Empty, SystemID: d.SystemID, Position: d.Position, History: d.History, CleanShutdown: d.CleanShutdown, CanRewind: d.CanRewind,
	}
	local.Foreign = a.isAstray(d.Position)
	local.Forgotten = a.cfg.State != nil && a.cfg.State().Forgotten(a.promises.get().Taken)
	return local
}

// isAstray reports whether the data, whose log ends at p, came from a primary that
// never was ready: two promotions, of which one failed, may have taken the same
// number for their timelines.
func (a *Agent) isAstray(p wal.Position) bool {
	promised := a.promises.get()
	return promised.Astray || a.cfg.State != nil && a.cfg.State().Astray(promised.Taken, p)
}

// unproven reports whether WAL was last taken in an epoch before that of an assignment,
// and that was never ready as far as the companions' log has come here. Whether it is the
// cluster's is seen when the next one is ready. behind says that the log lacks something
// that the leader knew: after a start it may lack much.
func (a *Agent) unproven(as failover.Assignment) (unproven, behind bool) {
	taken := a.promises.get().Taken
	if a.cfg.State == nil || taken >= as.Epoch {
		return false, false
	}
	s := a.cfg.State()
	behind = s.Epoch < as.Epoch || s.Epoch == as.Epoch && s.Phase != failover.PhaseReady && as.Phase == failover.PhaseReady
	for _, t := range s.History {
		if t.Epoch == taken {
			return t.Timeline == 0, behind
		}
	}
	return taken > s.Epoch, behind // else it is so long ago that it is not remembered
}

// past asks a primary what cluster it is of, on which timeline, and where its
// timelines began.
func (a *Agent) past(ctx context.Context, m failover.Member) (uint64, wal.Timeline, wal.History, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, askBudget, fmt.Errorf("no answer within %v", askBudget))
	defer cancel()
	cfg, err := a.cfg.PeerConn(m, false)
	if err != nil {
		return 0, 0, nil, err
	}
	client, err := replication.Connect(ctx, cfg)
	if err != nil {
		return 0, 0, nil, err
	}
	defer client.Close() //nolint:errcheck // it has answered
	id, err := client.Identify(ctx)
	if err != nil {
		return 0, 0, nil, err
	}
	system, err := strconv.ParseUint(id.System, 10, 64)
	if err != nil {
		return 0, 0, nil, err
	}
	if id.InRecovery {
		return 0, 0, nil, errors.New("it is a standby still")
	}
	if id.Timeline == 1 {
		return system, 1, nil, nil
	}
	file, err := client.History(ctx, id.Timeline)
	if err != nil {
		return 0, 0, nil, err
	}
	history, err := wal.ParseHistory(id.Timeline, file)
	return system, id.Timeline, history, err
}

// askBudget is how long another server has to say what it is.
const askBudget = 5 * time.Second
