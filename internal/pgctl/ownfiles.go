package pgctl

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxOwnFile bounds what counts as a configuration file.
const maxOwnFile = 4 << 20

// serverFiles are the files in a data directory that the server makes itself.
var serverFiles = []string{
	"PG_VERSION", "postmaster.pid", "postmaster.opts", "backup_label", "backup_label.old", "backup_manifest",
	"tablespace_map", "tablespace_map.old", "current_logfiles", "standby.signal", "recovery.signal", "recovery.done",
	"promote", "fallback_promote", "logrotate", cloneMark,
}

// ownFiles returns the files of a data directory that say how this server is set
// up: what stands there and PostgreSQL has not made, such as postgresql.conf,
// pg_hba.conf and certificates. A rewind and a copy bring those of the source.
func ownFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if !e.Type().IsRegular() || slices.Contains(serverFiles, e.Name()) ||
			strings.HasPrefix(e.Name(), "pg_internal") || strings.HasPrefix(e.Name(), socketPrefix) {
			continue
		}
		if info, err := e.Info(); err == nil && info.Size() <= maxOwnFile {
			found = append(found, e.Name())
		}
	}
	return found, nil
}

// keepDir is where keepOwnFiles keeps, and keepDone its entry that says that all
// are there.
const (
	keepDir  = "keep"
	keepDone = ".complete"
)

// keepOwnFiles copies our configuration files out of the data directory, before
// pg_rewind replaces them.
func (i *Instance) keepOwnFiles() error {
	if err := i.makeState(); err != nil {
		return err
	}
	dir := filepath.Join(i.cfg.State, keepDir)
	if err := errors.Join(os.RemoveAll(dir), i.user.mkdir(dir)); err != nil {
		return err
	}
	if err := i.copyOwnFiles(i.cfg.Dir, dir); err != nil {
		return err
	}
	return errors.Join(i.user.writeFile(filepath.Join(dir, keepDone), ""), syncDir(dir), syncDir(i.cfg.State))
}

// restoreOwnFiles brings back what keepOwnFiles has kept, after a crash too.
func (i *Instance) restoreOwnFiles() error {
	dir := filepath.Join(i.cfg.State, keepDir)
	if _, err := os.Stat(filepath.Join(dir, keepDone)); err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	if err := i.copyOwnFiles(dir, i.cfg.Dir); err != nil {
		return err
	}
	return errors.Join(syncDir(i.cfg.Dir), os.RemoveAll(dir))
}

// copyOwnFiles copies configuration files from one directory to another, over
// those that are there.
func (i *Instance) copyOwnFiles(from, to string) error {
	names, err := ownFiles(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == keepDone {
			continue
		}
		if err := i.installFile(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	return nil
}

// installFile copies a file for the server's user, with its mode; the target is
// replaced whole, and lasts over a crash.
func (i *Instance) installFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	info, err := in.Stat()
	if err != nil {
		return err
	}
	next := to + ".new"
	out, err := os.OpenFile(next, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Sync(), out.Close())
	if err != nil {
		return err
	}
	return errors.Join(os.Chmod(next, info.Mode().Perm()), i.user.own(next), os.Rename(next, to))
}

// syncDir makes the names in a directory last over a crash.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
