package pgctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// cloneSuffix ends the name of the directory that a copy is made in.
	cloneSuffix = ".clone"
	// oldSuffix is added to it for what is replaced, where that takes two steps.
	oldSuffix = ".old"
	// cloneMark is a file in a copy that is complete and not settled yet. It holds
	// the name that the directory gets which is replaced.
	cloneMark = "pgctl.clone"
)

// replaceByClone makes a copy of the source beside the data directory and, when
// it is complete, puts it in its place. It returns where the old one is kept.
func (i *Instance) replaceByClone(ctx context.Context, opt RejoinOptions, s source, done Rejoined) (kept string, err error) {
	was := done.Was
	if err := replaceable(i.cfg.Dir); err != nil {
		return "", err
	}
	copied := i.cfg.Dir + cloneSuffix
	// What is there is of an attempt that did not end. We may make a directory where
	// the server's user may not.
	if err := errors.Join(os.RemoveAll(copied), i.user.mkdir(copied)); err != nil {
		return "", err
	}
	args := []string{
		"--pgdata", copied, "--dbname", opt.Source, "--wal-method", "stream", "--checkpoint", "fast",
	}
	if opt.MaxRate > 0 {
		args = append(args, "--max-rate", strconv.Itoa(opt.MaxRate))
	}
	for _, place := range s.tablespaces {
		if empty, err := isEmpty(place); err != nil || !empty {
			other := fmt.Sprintf("%s.%s-%d", place, i.cfg.Name, time.Now().Unix())
			args = append(args, "--tablespace-mapping", escapeMapping(place)+"="+escapeMapping(other))
		}
	}
	// A pg_wal on another device stays on it.
	if log, err := filepath.EvalSymlinks(filepath.Join(i.cfg.Dir, "pg_wal")); err == nil && filepath.Dir(log) != resolved(i.cfg.Dir) {
		args = append(args, "--waldir", fmt.Sprintf("%s.%s-%d", log, i.cfg.Name, time.Now().Unix()))
	}
	if _, err := i.tool(ctx, opt.Password, "pg_basebackup", args...); err != nil {
		return "", errors.Join(err, os.RemoveAll(copied))
	}
	if err := i.furnish(copied, s, was); err != nil {
		return "", err
	}
	kept = fmt.Sprintf("%s.diverged-%s", i.cfg.Dir, time.Now().UTC().Format("20060102T150405.000"))
	if was.Empty {
		kept = ""
	}
	if err := errors.Join(i.user.writeFile(filepath.Join(copied, cloneMark), kept), syncDir(copied)); err != nil {
		return "", err
	}
	if err := i.finishClone(); err != nil {
		return "", err
	}
	if opt.DropOld && kept != "" && was.Position.LSN != 0 {
		return "", os.RemoveAll(kept)
	}
	return kept, nil
}

// resolved returns a path without links in it, or as it is.
func resolved(path string) string {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target
	}
	return path
}

// escapeMapping makes a path fit for pg_basebackup --tablespace-mapping.
func escapeMapping(path string) string { return strings.ReplaceAll(path, "=", `\=`) }

// replaceable returns an error if a directory cannot be renamed: at the root of a
// file system.
func replaceable(dir string) error {
	here, err := identityOf(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	above, err := identityOf(filepath.Dir(dir))
	if err != nil {
		return err
	}
	if device(here) != device(above) {
		return fmt.Errorf("%s is the root of a file system and cannot be replaced by a copy at one moment; let the data directory be one below it", dir)
	}
	return nil
}

func device(identity string) string {
	dev, _, _ := strings.Cut(identity, ":")
	return dev
}

// furnish gives a copy the configuration of this server: the files that stood in
// its data directory, and where the source has none in its own, as on Debian, what
// a server needs to start.
func (i *Instance) furnish(copied string, s source, was LocalData) error {
	if !was.Empty {
		if err := i.copyOwnFiles(i.cfg.Dir, copied); err != nil {
			return err
		}
		opts := "postmaster.opts" // tells where the configuration is
		if err := ignoreGone(i.installFile(filepath.Join(i.cfg.Dir, opts), filepath.Join(copied, opts))); err != nil {
			return err
		}
	} else if err := i.dropSettings(copied); err != nil {
		return err
	}
	i.mu.Lock()
	outside, err := i.configFileLocked()
	i.mu.Unlock()
	if err != nil {
		return err
	}
	if inside, err := sameDir(filepath.Dir(outside), i.cfg.Dir); err == nil && !inside {
		return nil // has its own elsewhere
	}
	var conf strings.Builder
	conf.WriteString("# The source had no postgresql.conf in its data directory.\n")
	for _, name := range slices.Sorted(maps.Keys(s.settings)) {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, quoteConf.Replace(s.settings[name]))
	}
	return errors.Join(
		i.writeIfMissing(filepath.Join(copied, "postgresql.conf"), conf.String()),
		i.writeIfMissing(filepath.Join(copied, "pg_hba.conf"), minimalAccess),
		i.writeIfMissing(filepath.Join(copied, "pg_ident.conf"), ""),
		i.writeIfMissing(filepath.Join(copied, autoConf), ""),
	)
}

// minimalAccess lets the server's own user in, and who has a password.
const minimalAccess = `# The source had no pg_hba.conf in its data directory.
local all all peer
host all all all scram-sha-256
host replication all all scram-sha-256
`

func (i *Instance) writeIfMissing(path, content string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return i.user.writeFile(path, content)
}

// dropSettings removes another server's settings file from a copy.
func (i *Instance) dropSettings(copied string) error {
	if err := os.Remove(filepath.Join(copied, settingsFile)); err != nil && !gone(err) {
		return err
	}
	return nil
}

// finishClone puts a copy that is complete in the place of the data directory,
// and goes on where a crash has ended that.
func (i *Instance) finishClone() error {
	copied := i.cfg.Dir + cloneSuffix
	kept, err := os.ReadFile(filepath.Join(i.cfg.Dir, cloneMark))
	if gone(err) {
		if _, err := os.Stat(filepath.Join(copied, cloneMark)); err != nil {
			return ignoreGone(err)
		}
		if err := exchange(copied, i.cfg.Dir); err != nil {
			return err
		}
		kept, err = os.ReadFile(filepath.Join(i.cfg.Dir, cloneMark))
	}
	if err != nil {
		return err
	}
	if len(kept) > 0 {
		for _, old := range []string{copied, copied + oldSuffix} {
			if err := ignoreGone(os.Rename(old, string(kept))); err != nil {
				return err
			}
		}
	}
	err = errors.Join(os.Remove(filepath.Join(i.cfg.Dir, cloneMark)), i.setBroken(false))
	return errors.Join(err, syncDir(i.cfg.Dir), syncDir(filepath.Dir(i.cfg.Dir)))
}

// ignoreGone drops the error of a file that is not there.
func ignoreGone(err error) error {
	if gone(err) {
		return nil
	}
	return err
}

// exchange gives a directory the name of another, which gets its name: at one
// moment where the file system can do that. One that is empty or not there is
// replaced.
func exchange(from, to string) error {
	empty, err := isEmpty(to)
	if err != nil {
		return err
	}
	if empty {
		return os.NewSyscallError("rename", syscall.Rename(from, to)) // os.Rename refuses
	}
	if err := exchangeNames(from, to); err == nil {
		return nil
	}
	// A crash in between leaves no data directory, which finishClone mends.
	aside := from + oldSuffix
	return errors.Join(os.Rename(to, aside), os.Rename(from, to), os.Rename(aside, from))
}

// isEmpty reports whether a directory holds nothing, or is not there.
func isEmpty(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return gone(err), ignoreGone(err)
	}
	return len(entries) == 0, nil
}
