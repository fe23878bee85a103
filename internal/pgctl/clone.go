package pgctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Clone makes the data directory a copy of another server's: of its files if it
// is stopped, else by pg_basebackup. There must be none yet; after an error
// there is none again. The copy keeps this server's own port and settings and
// is no standby before [Instance.SetStandby].
func (i *Instance) Clone(ctx context.Context, from *Instance) error {
	i.control.Lock()
	defer i.control.Unlock()
	if _, err := os.Stat(i.cfg.Dir); !errors.Is(err, fs.ErrNotExist) {
		return i.failed(fmt.Errorf("cannot clone into %s: it exists", i.cfg.Dir))
	}
	var err error
	if from.Running() {
		err = i.baseBackup(ctx, from.ConnString())
	} else {
		err = i.copyFiles(ctx, from)
	}
	if err != nil {
		return errors.Join(i.failed(err), os.RemoveAll(i.cfg.Dir))
	}
	return nil
}

// CloneFrom is Clone of a running server that a connection string names, on
// this machine or another.
func (i *Instance) CloneFrom(ctx context.Context, conninfo string) error {
	i.control.Lock()
	defer i.control.Unlock()
	if err := i.baseBackup(ctx, conninfo); err != nil {
		return i.failed(err)
	}
	return nil
}

// baseBackup leaves nothing behind when it fails, as pg_basebackup promises.
func (i *Instance) baseBackup(ctx context.Context, conninfo string) error {
	_, err := i.tool(ctx, "", "pg_basebackup", "--pgdata", i.cfg.Dir, "--dbname", conninfo,
		"--wal-method", "stream", "--checkpoint", "fast", "--no-sync")
	return err
}

// Rewind makes the files of a stopped server those of the running one that
// conninfo names, whose timeline has left this server's; less is copied than by
// a clone. A server that had not gone past the fork is left as it is.
//
// The source must have completed a checkpoint on its timeline: PostgreSQL 15
// and older otherwise find nothing to do and leave a broken standby.
func (i *Instance) Rewind(ctx context.Context, conninfo string) error {
	i.control.Lock()
	defer i.control.Unlock()
	if i.Running() {
		return i.failed(errRunning)
	}
	_, err := i.tool(ctx, "", "pg_rewind", "--target-pgdata", i.cfg.Dir,
		"--source-server", conninfo, "--no-sync")
	return i.failed(err)
}

// copyFiles copies a stopped server's data directory.
func (i *Instance) copyFiles(ctx context.Context, from *Instance) error {
	from.control.RLock() // it stays stopped
	defer from.control.RUnlock()
	return filepath.WalkDir(from.cfg.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		target := i.cfg.Dir + strings.TrimPrefix(path, from.cfg.Dir)
		switch {
		case entry.IsDir():
			return i.user.mkdir(target)
		case entry.Type().IsRegular() && !ofOneServer(entry.Name()):
			return i.copyFile(target, path)
		}
		return nil
	})
}

// ofOneServer reports whether a file says something of the server it was made
// by that is not true of its copy.
func ofOneServer(name string) bool {
	switch name {
	case "postmaster.pid", "postmaster.opts", "standby.signal", settingsFile:
		return true
	}
	return false
}

func (i *Instance) copyFile(target, source string) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close(), i.user.own(target))
}
