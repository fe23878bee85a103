package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/pgctl"
)

// Found makes the server the first primary of a cluster: one that runs is taken
// as it is, one that is stopped is started, and where there is none it is made.
func (a *Agent) Found(ctx context.Context) (failover.Found, error) {
	if err := a.take(ctx); err != nil {
		return failover.Found{}, err
	}
	defer a.put()
	if !exists(filepath.Join(a.cfg.DataDir, "PG_VERSION")) {
		if err := a.pg.Init(ctx); err != nil {
			return failover.Found{}, err
		}
		if err := a.pg.Configure(map[string]string{"listen_addresses": a.cfg.Host}); err != nil {
			return failover.Found{}, err
		}
	}
	running, err := a.pg.Adopt(ctx)
	switch {
	case err != nil:
		return failover.Found{}, err
	case running:
		a.begun()
		err = a.prepare(ctx)
	default:
		err = a.start(ctx)
	}
	if err != nil {
		return failover.Found{}, err
	}
	if err := a.ask(ctx); err != nil {
		return failover.Found{}, err
	}
	a.mu.Lock()
	f := a.facts
	a.mu.Unlock()
	if f.Recovery {
		return failover.Found{}, errors.New("agent: the server is a standby: begin with the primary")
	}
	return failover.Found{Node: a.cfg.Name, SystemID: f.SystemID, Timeline: f.Timeline}, nil
}

// prepare gives a server that runs already the settings it needs.
func (a *Agent) prepare(ctx context.Context) error {
	if err := a.pg.Configure(a.cfg.settings()); err != nil {
		return err
	}
	return a.pg.Reload(ctx)
}

// CloneFrom makes the data directory, which must not be there, a copy of a
// member's, and starts the server as its standby.
func (a *Agent) CloneFrom(ctx context.Context, m failover.Member) error {
	if err := a.take(ctx); err != nil {
		return err
	}
	defer a.put()
	if exists(filepath.Join(a.cfg.DataDir, "PG_VERSION")) {
		return fmt.Errorf("agent: %s holds a server already", a.cfg.DataDir)
	}
	if err := a.pg.Configure(map[string]string{"listen_addresses": a.cfg.Host}); err != nil {
		return err
	}
	a.mu.Lock()
	as := failover.Assignment{Epoch: max(a.as.Epoch, a.promises.get().newest()), Primary: m}
	a.mu.Unlock()
	return a.become(ctx, as, pgctl.Reclone)
}
