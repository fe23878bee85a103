package pgctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/wal"
)

// source is what the server says that another is made a replica of.
type source struct {
	systemID    uint64
	checkpoint  wal.Timeline // of its latest checkpoint
	tablespaces []string     // where they are
	settings    map[string]string
}

// replicaNeeds are settings that a replica must not have lower than its primary,
// or it does not start (CheckRequiredParameterValues in xlog.c).
var replicaNeeds = []string{
	"max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions", "max_locks_per_transaction",
}

// askSource connects to the source and makes sure that it is one.
func askSource(ctx context.Context, opt RejoinOptions) (source, error) {
	cfg, err := pgx.ParseConfig(opt.Source)
	if err != nil {
		return source{}, fmt.Errorf("source: %w", err)
	}
	cfg.Password = cmp.Or(opt.Password, cfg.Password)
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return source{}, fmt.Errorf("source: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // the answers have come
	s := source{settings: map[string]string{}}
	var system, timeline int64
	err = conn.QueryRow(ctx, `SELECT system_identifier, timeline_id FROM pg_control_system(), pg_control_checkpoint()`).Scan(&system, &timeline)
	if err != nil {
		return s, fmt.Errorf("source: %w", err)
	}
	s.systemID, s.checkpoint = uint64(system), wal.Timeline(timeline)
	if opt.SystemID != 0 && s.systemID != opt.SystemID {
		return s, fmt.Errorf("source: %w", foreign(s.systemID, opt.SystemID))
	}
	rows, err := conn.Query(ctx, "SELECT l FROM pg_tablespace, pg_tablespace_location(oid) l WHERE l <> ''")
	if err != nil {
		return s, fmt.Errorf("source: %w", err)
	}
	if s.tablespaces, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
		return s, fmt.Errorf("source: %w", err)
	}
	for _, name := range replicaNeeds {
		var value string
		if err := conn.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value); err != nil {
			return s, fmt.Errorf("source: %w", err)
		}
		s.settings[name] = value
	}
	return s, nil
}

// rewindFiles takes back by pg_rewind what the server wrote beyond the fork.
func (i *Instance) rewindFiles(ctx context.Context, opt RejoinOptions, s source, was LocalData) error {
	if s.checkpoint < opt.Target {
		return fmt.Errorf("%w: that is on %s, not %s", ErrNoCheckpoint, s.checkpoint, opt.Target)
	}
	// pg_rewind understands the files of a server that was shut down in order only,
	// and would recover others without knowing where their configuration is.
	if err := i.recoverAlone(ctx, was); err != nil {
		return err
	}
	if err := i.keepOwnFiles(); err != nil {
		return err
	}
	if err := i.setBroken(true); err != nil {
		return err
	}
	said, err := i.tool(ctx, opt.Password, "pg_rewind", "--target-pgdata", i.cfg.Dir,
		"--source-server", opt.Source, "--no-ensure-shutdown", "--progress")
	if err != nil {
		// What comes before this line only looks.
		if !strings.Contains(said, "need to copy") {
			err = errors.Join(err, i.setBroken(false))
		}
		err = errors.Join(err, i.restoreOwnFiles())
		if ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("%w: %w", errCannotRewind, err)
	}
	if err := i.restoreOwnFiles(); err != nil {
		return err
	}
	if err := i.checkRewound(ctx, opt); err != nil {
		return fmt.Errorf("%w: %w", errCannotRewind, err)
	}
	return i.setBroken(false)
}

// recoverAlone brings the files of a server that crashed to the end of its log,
// as pg_rewind does where it is told nothing else. A replica is recovered without
// being one, since there is no such thing in single-user mode.
func (i *Instance) recoverAlone(ctx context.Context, was LocalData) error {
	if was.CleanShutdown {
		return nil
	}
	for _, signal := range []string{"standby.signal", "recovery.signal"} {
		if err := os.Remove(filepath.Join(i.cfg.Dir, signal)); err != nil && !gone(err) {
			return err
		}
	}
	i.mu.Lock()
	args, err := i.argsLocked()
	i.mu.Unlock()
	if err != nil {
		return err
	}
	args = append(append([]string{"--single", "-F"}, args...), "template1")
	if _, err := i.tool(ctx, "", "postgres", args...); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("%w: it cannot be recovered: %w", errCannotRewind, err)
	}
	return nil
}

// checkRewound makes sure that the files are where the source was. pg_rewind may
// have found nothing to do, which is right only if nothing is beyond the fork.
func (i *Instance) checkRewound(ctx context.Context, opt RejoinOptions) error {
	c, err := i.ControlData(ctx)
	if err != nil {
		return err
	}
	if c.State.Replica() && c.Reached() >= opt.Target && c.Timeline >= opt.Target {
		return nil
	}
	now, err := i.localData(ctx)
	if err != nil {
		return err
	}
	if fork, diverged := now.Fork(opt.Target, opt.History); diverged {
		return fmt.Errorf("after pg_rewind the log still ends at %s, beyond the fork at %s", now.Position, fork)
	}
	return nil
}

// brokenFile names the data directory that a rewind has begun to change.
const brokenFile = "rewinding"

// setBroken says, so that it is known after a crash, whether the files are
// between two states. It is of this very directory, not of one that replaces it.
func (i *Instance) setBroken(broken bool) error {
	path := filepath.Join(i.cfg.State, brokenFile)
	if !broken {
		if err := os.Remove(path); err != nil && !gone(err) {
			return err
		}
		return syncDir(i.cfg.State)
	}
	identity, err := identityOf(i.cfg.Dir)
	if err != nil {
		return err
	}
	if err := i.makeState(); err != nil {
		return err
	}
	return errors.Join(i.user.writeFile(path, identity), syncDir(i.cfg.State))
}

// isBroken reports whether setBroken was told so of the directory as it is now.
func (i *Instance) isBroken() bool {
	of, err := os.ReadFile(filepath.Join(i.cfg.State, brokenFile))
	if err != nil {
		return false
	}
	identity, err := identityOf(i.cfg.Dir)
	return err == nil && string(of) == identity
}

// identityOf tells one directory from another that gets its name.
func identityOf(dir string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}

// makeState makes Config.State.
func (i *Instance) makeState() error { return i.user.mkdir(i.cfg.State) }
