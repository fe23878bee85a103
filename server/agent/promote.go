package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/wal"
)

// Promote makes the server the primary of an epoch, whatever it is now: a standby
// is promoted, a primary that nobody has replaced goes on, and one that was
// stopped is started. It returns when writes can be made. Nothing of them is
// acknowledged before the gate is connected and there is a lease.
func (a *Agent) Promote(ctx context.Context, p failover.Promote) failover.Promoted {
	done := failover.Promoted{Epoch: p.Epoch}
	began := a.clock()
	took, err := a.promote(ctx, p)
	if err != nil {
		a.log.ErrorContext(ctx, "the server was not promoted", "epoch", p.Epoch, "error", err)
		done.Err = err.Error()
		return done
	}
	done.Timeline, done.SwitchLSN = took.Timeline, took.SwitchLSN
	a.log.InfoContext(ctx, "the server is primary", "epoch", p.Epoch, "timeline", took.Timeline, "began", took.SwitchLSN,
		"took", (a.clock() - began).Round(time.Millisecond))
	return done
}

func (a *Agent) promote(ctx context.Context, p failover.Promote) (pgctl.Promotion, error) {
	if err := a.take(ctx); err != nil {
		return pgctl.Promotion{}, err
	}
	defer a.put()
	if err := a.ascend(p.Epoch); err != nil {
		return pgctl.Promotion{}, err
	}
	if !a.pg.Running() {
		if err := a.standAgain(ctx, p); err != nil {
			return pgctl.Promotion{}, err
		}
		if err := a.start(ctx); err != nil {
			return pgctl.Promotion{}, err
		}
	}
	recovery, err := a.inRecovery(ctx)
	if err != nil {
		return pgctl.Promotion{}, err
	}
	if recovery {
		if err := a.awaitWAL(ctx, p); err != nil {
			return pgctl.Promotion{}, err
		}
	}
	if err := a.ensure(ctx); err != nil {
		return pgctl.Promotion{}, err
	}
	// The gate is on its way before there can be anything to confirm.
	if err := a.sourceLocal(p.Epoch); err != nil {
		return pgctl.Promotion{}, err
	}
	var took pgctl.Promotion
	err = a.acting.do(ctx, func(conn *pgx.Conn) (err error) {
		took, err = a.pg.TakeOver(ctx, conn)
		return err
	})
	if err != nil {
		return took, err
	}
	if err := a.ask(ctx); err != nil {
		return took, err
	}
	a.mu.Lock()
	a.pointed = "" // there is none that it would follow
	a.mu.Unlock()
	a.awaitGate(ctx, took.Timeline)
	if !took.Already {
		a.checkpointLater(ctx)
	}
	return took, nil
}

// standAgain has a server that does not run come up as what it is promoted from. One that
// crashed while it was promoted is no standby any more by its files, and has not begun its
// timeline: by itself it would go on with that of the primary before, from another place than
// that one did.
func (a *Agent) standAgain(ctx context.Context, p failover.Promote) error {
	if running, err := a.pg.Adopt(ctx); err != nil || running {
		return err
	}
	switch {
	case a.isReplica():
		return a.orphan() // the way that it knows may lead to a primary whose epoch is closed
	case p.Ruler == a.cfg.Name || p.Ruler == "":
		return nil
	}
	c, err := a.pg.ControlData(ctx)
	if err != nil || c.Reached() > p.Timeline { // else it has begun
		return err
	}
	a.log.InfoContext(ctx, "the server crashed while it was promoted, and is started as a standby first", "timeline", p.Timeline)
	return a.orphan()
}

// inRecovery asks a server that runs what it is, once it answers.
func (a *Agent) inRecovery(ctx context.Context) (bool, error) {
	if err := a.ask(ctx); err != nil {
		if err := a.pg.AwaitReady(ctx); err != nil {
			return false, err
		}
		if err := a.ask(ctx); err != nil {
			return false, err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.facts.Recovery, nil
}

// ascend promises to be the primary of epoch, unless a newer one is known.
func (a *Agent) ascend(epoch failover.Epoch) error {
	a.source.Lock()
	defer a.source.Unlock()
	if newest := a.promises.get().newest(); epoch < newest {
		return fmt.Errorf("agent: epoch %d is known, and %d is older", newest, epoch)
	}
	err := a.promises.change(func(p *promise) {
		p.Sealed, p.Epoch, p.Reign, p.Taken, p.Primary = epoch, max(p.Epoch, epoch), epoch, max(p.Taken, epoch), a.cfg.Name
	})
	if err != nil {
		return err
	}
	a.gate.reign(epoch)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.as.Epoch == epoch && a.as.Primary.Name == a.cfg.Name {
		a.gate.use(epoch, a.as.Gate)
	}
	if a.pg.Running() && a.state == failover.ServerUp {
		a.back = false
	}
	a.tellLocked() // the lease can be had meanwhile
	return nil
}

// gateWait is how long a promotion waits for the gate, without which commits
// wait.
const gateWait = time.Second

// awaitGate waits until the relay takes WAL of the new timeline from the local
// server.
func (a *Agent) awaitGate(ctx context.Context, t wal.Timeline) {
	ctx, cancel := context.WithTimeout(ctx, gateWait)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if s := a.relay.Status(); s.Connected && s.Timeline >= t {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			a.log.WarnContext(ctx, "the gate is not connected yet: commits wait for it", "error", a.relay.Status().Error)
			return
		}
	}
}

// checkpointLater has the new timeline written into the control file, where
// pg_rewind of PostgreSQL 15 and older looks for it.
func (a *Agent) checkpointLater(ctx context.Context) {
	a.later(ctx, func(ctx context.Context) {
		if err := a.checkpoint(ctx); err != nil && ctx.Err() == nil {
			a.log.WarnContext(ctx, "no checkpoint after the promotion", "error", err)
		}
	})
}

// checkpointBudget bounds how long a checkpoint is waited for.
const checkpointBudget = 5 * time.Minute

func (a *Agent) checkpoint(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, checkpointBudget, errors.New("no checkpoint within 5 minutes"))
	defer cancel()
	conn, err := a.pg.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // it has done its work
	_, err = conn.Exec(ctx, "CHECKPOINT")
	return err
}
