package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/beat"
	"github.com/heliosdb/helios/wal"
)

// reconcileInterval is how often the server is compared with the assignment when
// nothing is known to have changed.
const reconcileInterval = time.Second

// reconcile takes the server step by step to where the newest assignment wants
// it, until ctx ends.
func (a *Agent) reconcile(ctx context.Context) {
	tick := time.NewTimer(beat.Next(reconcileInterval))
	defer tick.Stop()
	var last failure
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-tick.C:
			tick.Reset(beat.Next(reconcileInterval))
		}
		began := a.clock()
		did, err := a.step(ctx, &last)
		if last.note(did, err, began, a.clock()) && ctx.Err() == nil {
			a.log.WarnContext(ctx, "a step failed, and is tried again", "step", string(did.step), "error", err)
		}
	}
}

// Between two tries of a step that fails there is a pause, from the first of these
// to the second, or as long as the try took, up to the third. Assignments come many
// times a second, what keeps a server from becoming a standby often lasts, and a
// clone that ends for lack of room costs the primary as much as one that succeeds.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = reconcileInterval
	maxPause   = time.Minute
)

// An attempt is a step for a reign.
type attempt struct {
	step    step
	epoch   failover.Epoch
	phase   failover.Phase
	primary string
}

// A failure is the attempt that failed last. The zero failure is none.
type failure struct {
	of    attempt
	text  string
	pause time.Duration
	until time.Duration // not tried again before that
}

// note takes the outcome of an attempt, and reports whether it is a failure of
// another kind than the one before.
func (f *failure) note(did attempt, err error, began, now time.Duration) (isNews bool) {
	switch {
	case errors.Is(err, errPause):
		return false
	case err == nil:
		*f = failure{}
		return false
	}
	isNews = firstLine(err) != f.text
	pause := min(2*f.pause, lastPause)
	if did != f.of || pause == 0 {
		pause = firstPause
	}
	pause = max(pause, min(now-began, maxPause))
	*f = failure{of: did, text: firstLine(err), pause: pause, until: now + pause}
	return isNews
}

// errPause means that an attempt was left out, since the same one has just failed.
var errPause = errors.New("agent: it has just failed")

// firstLine is what an error says before it quotes the server's log, which has
// another time in it whenever the same thing happens again.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// step does what is to be done next, unless that has failed a moment ago. What ends
// a primary never waits.
func (a *Agent) step(ctx context.Context, last *failure) (attempt, error) {
	if err := a.take(ctx); err != nil {
		return attempt{step: stepNone}, err
	}
	defer a.put()
	v := a.view()
	did := attempt{decide(v), v.as.Epoch, v.as.Phase, v.as.Primary.Name}
	ends := did.step == stepHardStop || did.step == stepWithdraw
	if did == last.of && a.clock() < last.until && !ends {
		return did, errPause
	}
	return did, a.perform(ctx, did.step, v.as)
}

// view is what there is to decide by.
func (a *Agent) view() view {
	data, signal := a.HasData(), a.isReplica()
	running, promised := a.pg.Running(), a.promises.get()
	a.mu.Lock()
	as := a.as // what is found out about this one is nothing about the next
	a.mu.Unlock()
	unproven, behind := a.unproven(as)
	a.mu.Lock()
	defer a.mu.Unlock()
	v := view{
		me: a.cfg.Name, promise: promised, assigned: a.assigned, as: as, data: data,
		standby: signal, running: running, known: a.known, diverged: a.diverged, unproven: unproven, behind: behind,
		anew: a.anew.Load(), alone: a.alone != "", withdrawn: a.withdrawn != "",
		stopped: a.stoppedIn != 0 && a.stoppedIn == as.Epoch, answered: as.Run == a.run && as.Seq > a.downSeq,
		grace: a.cfg.HardStopGrace,
	}
	now := a.clock()
	if running && a.known {
		v.standby, v.replaying = a.facts.Recovery, a.facts.Replaying
		_, long := a.relay.Stranded(a.cfg.Name)
		v.stranded = v.standby && !a.facts.Receiver && long >= a.cfg.strandedFor
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
		return a.startStandby(ctx)
	case stepHardStop:
		return a.hardStop(ctx, as)
	case stepWithdraw:
		return a.withdraw(ctx)
	case stepRejoin:
		return a.rejoin(ctx, as)
	case stepClone:
		if at, long := a.relay.Stranded(a.cfg.Name); !a.anew.Load() {
			a.log.WarnContext(ctx, "the WAL that the standby needs was removed: it is cloned anew", "from", at, "after", long.Round(time.Second))
		}
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

// startStandby starts a standby of nobody: the way to the primary that it knows may lead
// to one whose epoch is closed.
func (a *Agent) startStandby(ctx context.Context) error {
	if running, err := a.pg.Adopt(ctx); err != nil || running {
		return a.startedOr(err)
	}
	if err := a.orphan(); err != nil {
		return err
	}
	return a.start(ctx)
}

// orphan has a server that does not run start as a standby of nobody.
func (a *Agent) orphan() error {
	conninfo := a.conninfoTo(failover.Member{})
	if err := a.pg.SetStandby(conninfo); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pointed = conninfo
	return nil
}

// starting tells that the server is on its way.
func (a *Agent) starting(why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.salvaged = wal.Position{}
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
