package agent

import (
	"context"
	"errors"

	"github.com/heliosdb/helios/failover"
)

// rejoin makes the server a standby of the primary, whatever it is now, and with
// as little effort as that takes.
func (a *Agent) rejoin(ctx context.Context, as failover.Assignment) error {
	if err := a.sourceFrom(as.Epoch, as.Primary); err != nil {
		return err
	}
	a.starting("it becomes a standby of " + as.Primary.Name)
	if a.pg.Running() {
		if err := a.pg.HardStop(ctx, stopBudget); err != nil {
			return err
		}
	}
	end, err := a.pg.WALEnd(ctx)
	if err != nil {
		return a.startedOr(err)
	}
	if end.Timeline < as.Timeline && as.SwitchLSN != 0 && end.LSN > as.SwitchLSN {
		if err := a.pg.Rewind(ctx, a.serverOf(as.Primary)); err != nil {
			return a.startedOr(err)
		}
	}
	return a.startStandby(ctx, as)
}

// startStandby starts the server as a standby of the primary.
func (a *Agent) startStandby(ctx context.Context, as failover.Assignment) error {
	conninfo := a.conninfoTo(as.Primary)
	if err := a.pg.SetStandby(conninfo); err != nil {
		return a.startedOr(err)
	}
	a.mu.Lock()
	a.pointed, a.diverged = conninfo, false
	a.mu.Unlock()
	return a.start(ctx)
}

// reinit makes the data directory anew.
func (a *Agent) reinit(context.Context, failover.Assignment) error {
	return errors.New("agent: a data directory is not made anew yet")
}

// serverOf is how pg_basebackup and pg_rewind connect to a member's server.
func (a *Agent) serverOf(m failover.Member) string {
	return a.conninfo(m.Postgres) + " dbname=postgres"
}
