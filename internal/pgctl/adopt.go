package pgctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Adopt finds the postmaster that runs in the data directory, whoever started
// it, and from then on this Instance stands to it as to one that it started
// itself. It reports whether there is one; a server that has started already
// and not ended needs no adoption.
//
// What postmaster.pid says is not believed: the process has to be a postmaster
// that works in this very directory. The file of a server that crashed names a
// number that may be another process's by now.
//
// Port, socket and command line become those of the running server, so that it
// is started again as it was.
func (i *Instance) Adopt(ctx context.Context) (bool, error) {
	i.control.Lock()
	defer i.control.Unlock()
	for !i.Running() {
		lock, ok, err := readLockFile(i.cfg.Dir)
		if err != nil || !ok {
			return false, i.failed(err)
		}
		p, err := i.prove(lock)
		if err != nil {
			return false, i.failed(err)
		}
		if p != nil {
			return true, i.failed(i.take(p))
		}
		// It may have ended, and another have begun, after we read the file.
		if again, _, err := readLockFile(i.cfg.Dir); err != nil || again == lock {
			return false, i.failed(err)
		}
		if ctx.Err() != nil {
			return false, i.failed(context.Cause(ctx))
		}
	}
	return true, nil
}

// prove returns the process that lock names, watched; nil if it is no postmaster
// of the directory.
func (i *Instance) prove(lock lockFile) (*process, error) {
	if lock.pid < 0 {
		alone, err := watch(-lock.pid)
		if err != nil || alone == nil {
			return nil, err
		}
		defer alone.abandon()
		if ours, err := worksIn(-lock.pid, i.cfg.Dir); err != nil || !ours {
			return nil, err
		}
		return nil, fmt.Errorf("a server in single-user mode, process %d, uses %s", -lock.pid, i.cfg.Dir)
	}
	p, err := watch(lock.pid)
	if err != nil || p == nil {
		return nil, err
	}
	ours, err := isPostmaster(lock, i.cfg.Dir)
	if err != nil || !ours || !p.alive() {
		p.abandon()
		return nil, err
	}
	return p, nil
}

// take makes p the server of the instance.
func (i *Instance) take(p *process) error {
	args, err := commandLine(p.pid)
	if err != nil {
		p.abandon()
		return err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if args != nil {
		i.args = args
	}
	i.server = p
	return nil
}

// Release ends the watching of a detached or adopted server and leaves it as it
// is; to this Instance it does not run any more. Of others it does nothing: they
// end with this process.
func (i *Instance) Release() {
	i.mu.Lock()
	p := i.server
	if p != nil && p.leave != nil {
		i.server = nil
	}
	i.mu.Unlock()
	if p != nil {
		p.abandon()
	}
}

// abandon ends the watching and leaves the process alive.
func (p *process) abandon() {
	if p.leave != nil {
		p.leave()
		p.running.Wait()
	}
}

// isServerProgram reports whether a program's path is that of a PostgreSQL server;
// that of a replaced package ends in " (deleted)".
func isServerProgram(path string) bool {
	name := strings.TrimSuffix(filepath.Base(path), " (deleted)")
	return name == "postgres" || name == "postmaster" || name == "edb-postgres"
}

// sameDir reports whether two paths are of one directory.
func sameDir(a, b string) (bool, error) {
	first, err := os.Stat(a)
	if err != nil {
		return false, err
	}
	second, err := os.Stat(b)
	if err != nil {
		return false, err
	}
	return os.SameFile(first, second), nil
}

// savedCommandLine returns the arguments of the server that ran last, from
// postmaster.opts: the program, and then each argument in quotes
// (CreateOptsFile in postmaster.c). None if there is no such file.
func savedCommandLine(dir string) ([]string, error) {
	content, err := os.ReadFile(filepath.Join(dir, "postmaster.opts"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	parts := strings.Split(strings.TrimRight(string(content), "\n"), ` "`)
	args := parts[1:]
	for n := range args {
		args[n] = strings.TrimSuffix(args[n], `"`)
	}
	return args, nil
}
