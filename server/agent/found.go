package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

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
	if err := a.pg.AwaitTools(ctx); err != nil {
		return failover.Found{}, err
	}
	fresh := !exists(filepath.Join(a.cfg.DataDir, "PG_VERSION"))
	if fresh {
		if err := a.make(ctx); err != nil {
			return failover.Found{}, err
		}
	}
	running, err := a.pg.Adopt(ctx)
	switch {
	case err != nil:
		return failover.Found{}, err
	case running:
		a.begun()
		if err = a.ensure(ctx); err == nil {
			err = a.examine(ctx)
		}
	default:
		err = a.start(ctx)
	}
	if err != nil {
		return failover.Found{}, err
	}
	if fresh && a.cfg.Role != "" {
		if err := a.makeRole(ctx); err != nil {
			return failover.Found{}, err
		}
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

// make makes the data directory of a new cluster.
func (a *Agent) make(ctx context.Context) error {
	if err := a.pg.Init(ctx); err != nil {
		return err
	}
	if err := a.pg.Configure(a.own()); err != nil || len(a.cfg.HBA) == 0 {
		return err
	}
	path := filepath.Join(a.cfg.DataDir, "pg_hba.conf")
	now, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return pgctl.WriteFile(path, string(now)+strings.Join(a.cfg.HBA, "\n")+"\n")
}

// longestSocketDir leaves room for the name of a socket in sun_path, which holds
// 104 bytes on macOS.
const longestSocketDir = 80

// own returns the settings of a server that is made here and nobody else's.
func (a *Agent) own() map[string]string {
	set := map[string]string{"listen_addresses": a.cfg.Host}
	if a.cfg.SocketDir == "" {
		set["unix_socket_directories"] = a.socketDir()
	}
	if dir := a.cfg.Certificates; dir != "" {
		set["ssl"] = "on"
		set["ssl_ca_file"] = filepath.Join(dir, "ca.crt")
		set["ssl_cert_file"] = filepath.Join(dir, "node.crt")
		set["ssl_key_file"] = filepath.Join(dir, "node.key")
	}
	return set
}

// socketDir makes a directory for the sockets of a server that is made here: where
// systems have theirs not everybody may make one. It is not the data directory,
// since pg_rewind takes what it finds there for data, the locks of sockets too.
func (a *Agent) socketDir() string {
	dir := filepath.Clean(a.cfg.DataDir) + ".run"
	if len(dir) > longestSocketDir {
		return "/tmp"
	}
	if err := pgctl.MakeDir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		a.log.Warn("there is no directory for sockets", "error", err)
		return "/tmp"
	}
	return dir
}

// makeRole makes the role by which other nodes replicate, and rewind when they
// come back. Nobody confirms commits yet, so it does not wait for that.
func (a *Agent) makeRole(ctx context.Context) error {
	role := pgx.Identifier{a.cfg.Role}.Sanitize()
	return a.acting.do(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, `BEGIN;
SET LOCAL synchronous_commit = local;
CREATE ROLE `+role+` LOGIN REPLICATION;
GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean),
	pg_read_binary_file(text), pg_read_binary_file(text, bigint, bigint, boolean) TO `+role+`;
COMMIT`)
		return err
	})
}

// ensure gives a server that runs the settings it needs, if it has others: with
// them it is gated from its promotion on. Some count from its next start.
func (a *Agent) ensure(ctx context.Context) error {
	settings, err := a.pg.Settings()
	if err != nil {
		return err
	}
	wanted := a.cfg.settings()
	same := true
	for name, value := range wanted {
		now, ok := settings[name]
		same = same && ok && now == value
	}
	a.mu.Lock()
	gated := !a.known || a.facts.Gate == gateName // else something that counts for more has been set elsewhere
	a.mu.Unlock()
	if same && gated {
		return nil
	}
	if err := a.pg.Configure(wanted); err != nil {
		return err
	}
	overridden, err := a.pg.ClearOverrides(ctx)
	if err != nil {
		return err
	}
	for _, o := range overridden {
		a.log.WarnContext(ctx, "a setting that was made elsewhere is taken back", "name", o.Name, "value", o.Value, "by", o.By)
	}
	return a.pg.Reload(ctx)
}

// examine looks for what is in the way of failover on a server that others have
// set up.
func (a *Agent) examine(ctx context.Context) error {
	problems, err := a.pg.Check(ctx, pgctl.CheckOptions{Nodes: 3, Gate: gateName, Replication: a.serverOf(a.cfg.Self)})
	if err != nil {
		return err
	}
	var fatal []error
	for _, p := range problems {
		a.log.WarnContext(ctx, "something is in the way of failover", "what", p.What, "hint", p.Hint)
		if p.Fatal {
			fatal = append(fatal, fmt.Errorf("agent: %s (%s)", p.What, p.Hint))
		}
	}
	return errors.Join(fatal...)
}

// CloneFrom makes the data directory, which must not be there, a copy of a
// member's, and starts the server as its standby.
func (a *Agent) CloneFrom(ctx context.Context, m failover.Member) error {
	if err := a.take(ctx); err != nil {
		return err
	}
	defer a.put()
	if err := a.pg.AwaitTools(ctx); err != nil {
		return err
	}
	if exists(filepath.Join(a.cfg.DataDir, "PG_VERSION")) {
		return fmt.Errorf("agent: %s holds a server already", a.cfg.DataDir)
	}
	if err := a.pg.Configure(a.own()); err != nil {
		return err
	}
	a.mu.Lock()
	as, other := failover.Assignment{Epoch: max(a.as.Epoch, a.promises.get().newest()), Primary: m}, a.as.Primary.Name
	a.mu.Unlock()
	if other != "" && other != m.Name {
		return fmt.Errorf("agent: %s is the primary, as the leader says, and not %s", other, m.Name)
	}
	return a.become(ctx, as, pgctl.Reclone)
}
