package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/wal"
)

// How long the local standby has to flush what the relay holds, which is lost if it is
// promoted without. Mostly that takes no time; a new segment has to be filled with zeros
// first, on a slow disk or a busy machine for some 100 ms. A seal comes too late for an
// election that has waited for seal_budget; who was elected has more time.
const (
	sealWait    = 100 * time.Millisecond
	promoteWait = 500 * time.Millisecond
)

// sealBudget bounds all that is asked of the server for a seal.
const sealBudget = time.Second

// Seal promises that no WAL of an epoch before epoch is taken any more, and says
// how far the server is. Once it has answered, that is on disk.
func (a *Agent) Seal(ctx context.Context, epoch failover.Epoch) failover.SealAnswer {
	answer := failover.SealAnswer{Epoch: epoch, Node: a.cfg.Name, Sealed: failover.Sealed{Node: a.cfg.Name}}
	if err := a.promiseEpoch(epoch); err != nil {
		answer.Err = err.Error()
		return answer
	}
	answer.Sealed.Reign = a.promises.get().Taken
	ctx, cancel := context.WithTimeoutCause(ctx, sealBudget, fmt.Errorf("no answer within %v", sealBudget))
	defer cancel()
	if err := a.measure(ctx, &answer.Sealed); err != nil {
		answer.Sealed.Err = err.Error()
	}
	at := a.relay.Replicator().Position()
	answer.Sealed.Relayed = at.Timeline == answer.Sealed.Position.Timeline && at.LSN >= answer.Sealed.Position.LSN
	a.afterSeal(ctx)
	return answer
}

// promiseEpoch closes all epochs before epoch, unless a newer one is known.
func (a *Agent) promiseEpoch(epoch failover.Epoch) error {
	a.source.Lock()
	defer a.source.Unlock()
	newest := a.promises.get().newest()
	if epoch < newest {
		return fmt.Errorf("agent: epoch %d is known, and %d is older", newest, epoch)
	}
	sealed := a.promises.get().Sealed
	if err := a.promises.change(func(p *promise) { p.Sealed = epoch }); err != nil {
		return err
	}
	a.gate.fence(epoch)
	if a.gate.reigns() < epoch {
		a.lease.GiveBack(a.clock())
	}
	if sealed == epoch { // what was taken since then is of this epoch
		return nil
	}
	return a.setSourceLocked("", nil)
}

// measure says how far the server is. What has no position counts for nothing, whatever
// else is said of it.
func (a *Agent) measure(ctx context.Context, s *failover.Sealed) error {
	if a.promises.get().Astray {
		return errors.New("its data are of a primary that never was ready")
	}
	if !a.pg.Running() {
		return a.measureStopped(ctx, s)
	}
	a.mu.Lock()
	diverged := a.diverged
	a.mu.Unlock()
	var f facts
	err := a.acting.do(ctx, func(conn *pgx.Conn) (err error) {
		if f, err = a.awaitReplay(ctx, conn); err != nil || !f.Recovery {
			return err
		}
		return a.awaitFlush(ctx, conn, &f, sealWait)
	})
	s.Position, s.ReplayLSN = f.position(), f.Replay
	switch {
	case err != nil:
		return err
	case diverged:
		return errors.New("it is past the fork of an older epoch, and waits to be rewound")
	case f.Paused:
		return errors.New("replay is paused")
	}
	return nil
}

// replayWait is how long a seal waits for a standby that has just been started to
// replay what it has: until then nobody knows how much that is.
const replayWait = 500 * time.Millisecond

var errReplaying = errors.New("it still replays what it had when it was started, and how much that is, is not known")

// replayedSQL asks a standby whether it has replayed what it had, or will never receive more.
const replayedSQL = `SELECT NOT pg_is_in_recovery() OR pg_last_wal_receive_lsn() IS NOT NULL OR current_setting('primary_conninfo') = ''`

// awaitReplay asks the server how far it is, once it knows that.
func (a *Agent) awaitReplay(ctx context.Context, conn *pgx.Conn) (facts, error) {
	f, err := readFacts(ctx, conn)
	if err != nil || !f.Replaying {
		return f, err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for by := a.clock() + replayWait; ; {
		var through bool
		if err := conn.QueryRow(ctx, replayedSQL).Scan(&through); err != nil {
			return facts{}, err
		}
		if through {
			return readFacts(ctx, conn)
		}
		if a.clock() >= by {
			return facts{}, errReplaying
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return facts{}, errReplaying
		}
	}
}

// awaitFlush gives the standby so much time to flush what the relay holds for it.
func (a *Agent) awaitFlush(ctx context.Context, conn *pgx.Conn, f *facts, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, sealBudget)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	by := a.clock() + most
	head := a.relay.Replicator().Position()
	for head.Timeline == f.Timeline && f.LSN < head.LSN && a.streamsHere() && a.clock() < by {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil // what it has told is true
		}
		flushed, replayed, err := received(ctx, conn)
		if err != nil {
			return err
		}
		f.LSN, f.Replay = max(f.LSN, flushed), max(f.Replay, replayed)
	}
	return nil
}

// streamsHere reports whether the local standby takes its WAL from the own relay.
func (a *Agent) streamsHere() bool {
	for _, s := range a.relay.Replicator().Metrics().Subscribers {
		if s.Name == a.cfg.Name && s.Via == "" && s.Timeline != 0 {
			return true
		}
	}
	return false
}

// measureStopped is measure of a server that does not run, but might.
func (a *Agent) measureStopped(ctx context.Context, s *failover.Sealed) error {
	if !exists(filepath.Join(a.cfg.DataDir, "PG_VERSION")) {
		return errors.New("there is no data directory")
	}
	select {
	case a.hands <- struct{}{}:
		defer a.put()
	default:
		return errors.New("the server is being started, rewound or cloned")
	}
	a.mu.Lock()
	end := a.salvaged
	a.mu.Unlock()
	if end == (wal.Position{}) || end.Compare(a.relay.Replicator().Position()) < 0 {
		var err error
		if end, err = a.pg.WALEnd(ctx); err != nil {
			return err
		}
	}
	s.Position, s.ReplayLSN = end, wal.LSN(0)
	return nil
}

// sealedFor is how long a standby that streams from its relay still knows the way
// to the old primary. Most often it is promoted before that, or has another one to
// follow.
const sealedFor = time.Second

// afterSeal has a standby forget the way to the old primary: one that lost its
// relay would else go there. A reload makes the walreceiver connect again, so
// nobody waits for that, and where there is no need it is left until later.
func (a *Agent) afterSeal(ctx context.Context) {
	a.later(ctx, func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, sealedFor+5*time.Second)
		defer cancel()
		if a.streamsHere() {
			wait := time.NewTimer(sealedFor)
			defer wait.Stop()
			select {
			case <-wait.C:
			case <-ctx.Done():
				return
			}
		}
		if err := a.take(ctx); err != nil {
			return
		}
		defer a.put()
		v := a.view()
		// Meanwhile there may be somebody to follow, or this node may be it.
		followed := v.as.Epoch >= v.promise.Sealed && v.as.Phase != failover.PhaseFenced
		if !v.running || !v.standby || followed || v.promise.Reign >= v.promise.Sealed {
			return
		}
		if err := a.point(ctx, a.conninfoTo(failover.Member{})); err != nil {
			a.log.WarnContext(ctx, "the standby still knows the way to the primary of the closed epoch", "error", err)
		}
	})
}
