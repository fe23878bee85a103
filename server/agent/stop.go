package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/wal"
)

// Prepare makes a checkpoint, so that what the one of a shutdown has to write is
// little.
func (a *Agent) Prepare(ctx context.Context) error { return a.checkpoint(ctx) }

// stopBudget is how long a stop may take if the caller does not say it.
const stopBudget = 5 * time.Second

// Stop shuts the primary down in order for epoch, in which there will be another
// one or the same, and says where its WAL ends. What it still writes is confirmed
// while its lease holds. It returns when the standbys have all of it, or have had
// some time for that.
func (a *Agent) Stop(ctx context.Context, epoch failover.Epoch) failover.Stopped {
	done := failover.Stopped{Epoch: epoch}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, stopBudget, fmt.Errorf("not stopped within %v", stopBudget))
		defer cancel()
	}
	at, err := a.stop(ctx, epoch)
	if err != nil {
		done.Err = err.Error()
		return done
	}
	done.Position = at
	return done
}

func (a *Agent) stop(ctx context.Context, epoch failover.Epoch) (wal.Position, error) {
	if newest := a.promises.get().newest(); epoch < newest {
		return wal.Position{}, fmt.Errorf("agent: epoch %d is known, and %d is older", newest, epoch)
	}
	if err := a.take(ctx); err != nil {
		return wal.Position{}, err
	}
	defer a.put()
	if err := a.promises.change(func(p *promise) { p.Epoch = max(p.Epoch, epoch) }); err != nil {
		return wal.Position{}, err
	}
	a.mu.Lock()
	a.stoppedIn = epoch
	a.mu.Unlock()
	a.gate.fence(epoch)
	a.gate.stopping(true)
	defer a.gate.stopping(false)
	a.relay.Release()
	a.drain(ctx)
	began := a.clock()
	at, err := a.pg.FastStop(ctx)
	if err != nil {
		return wal.Position{}, err
	}
	a.lease.GiveBack(a.clock())
	if err := a.pg.Configure(map[string]string{fenceSetting: "off"}); err != nil {
		a.log.WarnContext(ctx, "a server that is started by hand would refuse writes", "setting", fenceSetting, "error", err)
	}
	stopped := a.clock()
	a.deliver(ctx, at.LSN)
	a.log.InfoContext(ctx, "the server is stopped in order", "epoch", epoch, "at", at,
		"took", (stopped - began).Round(time.Millisecond), "delivered", (a.clock() - stopped).Round(time.Millisecond))
	return at, nil
}

// deliverBudget is how long standbys have to flush the last of a primary that has
// stopped. Who needs longer fetches it: one that is frozen must not hold up the
// others.
const deliverBudget = 300 * time.Millisecond

// deliver waits until every standby that streams has flushed everything up to
// at, for a while.
func (a *Agent) deliver(ctx context.Context, at wal.LSN) {
	ctx, cancel := context.WithTimeout(ctx, deliverBudget)
	defer cancel()
	poll(ctx, 2*time.Millisecond, func() bool { return a.delivered(at) })
}

func (a *Agent) delivered(at wal.LSN) bool {
	m := a.relay.Replicator().Metrics()
	if m.Head < at {
		return false
	}
	for _, s := range m.Subscribers {
		if s.Name != gateName && s.Timeline != 0 && s.Confirmed.Flush < at {
			return false
		}
	}
	return true
}
