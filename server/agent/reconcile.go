package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/heliosdb/helios/failover"
)

// reconcileInterval is how often the server is compared with the assignment when
// nothing is known to have changed.
const reconcileInterval = time.Second

// reconcile takes the server step by step to where the newest assignment wants
// it, until ctx ends.
func (a *Agent) reconcile(ctx context.Context) {
	tick := time.NewTicker(reconcileInterval)
	defer tick.Stop()
	var failed string
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-tick.C:
		}
		did, err := a.step(ctx)
		switch {
		case err == nil:
			failed = ""
		case ctx.Err() == nil && firstLine(err) != failed:
			failed = firstLine(err)
			a.log.WarnContext(ctx, "a step failed, and is tried again", "step", string(did), "error", err)
		}
	}
}

// firstLine is what an error says before it quotes the server's log, which has
// another time in it whenever the same thing happens again.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// step does what is to be done next.
func (a *Agent) step(ctx context.Context) (step, error) {
	if err := a.take(ctx); err != nil {
		return stepNone, err
	}
	defer a.put()
	v := a.view()
	s := decide(v)
	return s, a.perform(ctx, s, v.as)
}

// view is what there is to decide by.
func (a *Agent) view() view {
	data, signal := a.HasData(), a.isReplica()
	running, promised := a.pg.Running(), a.promises.get()
	a.mu.Lock()
	epoch := a.as.Epoch
	a.mu.Unlock()
	unproven := a.unproven(epoch)
	a.mu.Lock()
	defer a.mu.Unlock()
	v := view{
		me: a.cfg.Name, promise: promised, assigned: a.assigned, as: a.as, data: data,
		standby: signal, running: running, known: a.known, diverged: a.diverged, unproven: unproven,
		anew: a.anew.Load(), alone: a.alone != "", withdrawn: a.withdrawn,
		stopped: a.stoppedIn != 0 && a.stoppedIn == a.as.Epoch, answered: a.as.Run == a.run && a.as.Seq > a.downSeq,
		grace: a.cfg.HardStopGrace,
	}
	now := a.clock()
	if running && a.known {
		v.standby = a.facts.Recovery
	}
	if !running {
		v.downFor = now - a.downSince
	}
	if a.elsewhere != 0 {
		v.fencedFor = now - a.elsewhere
	}
	return v
}

// perform does the step.
func (a *Agent) perform(ctx context.Context, s step, as failover.Assignment) error {
	switch s {
	case stepNone:
		return nil
	case stepReign:
		return a.reignOn(ctx, as)
	case stepFollow:
		return a.follow(ctx, as)
	case stepStartPrimary:
		a.log.InfoContext(ctx, "the server is started again as the primary: nobody has taken over", "epoch", as.Epoch)
		return a.start(ctx)
	case stepStartStandby:
		return a.start(ctx)
	case stepHardStop:
		return a.hardStop(ctx, as)
	case stepWithdraw:
		return a.withdraw(ctx)
	case stepRejoin:
		return a.rejoin(ctx, as)
	case stepClone:
		return a.reinit(ctx, as)
	}
	panic(fmt.Sprintf("agent: step %q", s))
}

// reignOn keeps a primary what it is.
func (a *Agent) reignOn(ctx context.Context, as failover.Assignment) error {
	if a.promises.get().Reign != as.Epoch {
		err := a.promises.change(func(p *promise) { p.Reign = max(p.Reign, as.Epoch) })
		if err != nil {
			return err
		}
	}
	if err := a.sourceLocal(as.Epoch); err != nil {
		return err
	}
	a.gate.reign(as.Epoch)
	a.gate.use(as.Epoch, as.Gate)
	return a.ensure(ctx)
}

// start starts the server with the settings that all servers have, unless one
// runs already that nobody has noticed.
func (a *Agent) start(ctx context.Context) error {
	if running, err := a.pg.Adopt(ctx); err != nil || running {
		return a.startedOr(err)
	}
	if err := a.pg.Configure(a.cfg.settings()); err != nil {
		return err
	}
	a.starting("it is being started")
	err := a.pg.Start(ctx)
	return a.startedOr(err)
}

// starting tells that the server is on its way.
func (a *Agent) starting(why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state != failover.ServerStarting || a.reason != why {
		a.state, a.reason, a.known = failover.ServerStarting, why, false
		a.tellLocked()
	}
}

// startedOr notes what became of a start.
func (a *Agent) startedOr(err error) error {
	if a.pg.Running() {
		a.begun()
		a.retrySource()
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state, a.reason = failover.ServerDown, "it could not be started"
	if err != nil {
		a.reason = err.Error()
	}
	a.tellLocked()
	return err
}

// hardStop ends a primary that another node has taken the place of.
func (a *Agent) hardStop(ctx context.Context, as failover.Assignment) error {
	a.lease.GiveBack(a.clock())
	a.log.WarnContext(ctx, "the server is stopped hard: another node is the primary", "epoch", as.Epoch, "primary", as.Primary.Name)
	return a.pg.HardStop(ctx, time.Second)
}
