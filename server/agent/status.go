package agent

import (
	"context"
	"errors"
	"path/filepath"
	"time"
)

// Clock reads the clock that leases are counted on.
func (a *Agent) Clock() time.Duration { return a.clock() }

// LeaseRemaining returns for how long commits may still be confirmed; 0 if they
// may not.
func (a *Agent) LeaseRemaining() time.Duration {
	return a.lease.Left(a.clock(), a.gate.reigns())
}

// HasData reports whether there is a data directory.
func (a *Agent) HasData() bool { return exists(filepath.Join(a.cfg.DataDir, "PG_VERSION")) }

// Reinit has the data directory made anew as a copy of the primary's. It returns
// before that is done.
func (a *Agent) Reinit(context.Context) error {
	if a.gate.reigns() != 0 {
		return errors.New("the server is the primary")
	}
	a.anew.Store(true)
	poke(a.wake)
	return nil
}
