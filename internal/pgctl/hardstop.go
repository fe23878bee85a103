package pgctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// HardStop ends the server for sure: by an immediate shutdown, and after grace,
// or when ctx ends, by killing every process of it, frozen or not. It does not wait for a Start or
// Stop under way. When it returns without error nothing of the server runs, not
// even a backend whose postmaster had died before.
func (i *Instance) HardStop(ctx context.Context, grace time.Duration) error {
	p := i.current()
	if p == nil || !p.alive() {
		return i.failed(i.endStragglers())
	}
	quick, cancel := context.WithTimeoutCause(ctx, grace, errors.New("no end of an immediate shutdown"))
	defer cancel()
	if err := p.stop(quick, Immediate); err != nil {
		err = p.killTree()
		return i.failed(errors.Join(err, i.endStragglers()))
	}
	return i.failed(i.endStragglers())
}

// clearTheWay ends what is left of a dead server, and refuses to touch a living
// one that nobody has adopted.
func (i *Instance) clearTheWay() error {
	lock, ok, err := i.settledLockFile()
	if err != nil || !ok {
		return errors.Join(err, i.endStragglers(), removeSocketLocks(i.cfg.Dir))
	}
	p, err := i.prove(lock)
	if err != nil {
		return err
	}
	if p != nil {
		p.abandon()
		return fmt.Errorf("%w: somebody else has started process %d in %s", errRunning, lock.pid, i.cfg.Dir)
	}
	return errors.Join(i.endStragglers(), removeSocketLocks(i.cfg.Dir), i.disownLockFiles(lock))
}

// socketPrefix begins the names of a server's Unix socket and of the file that locks it.
const socketPrefix = ".s.PGSQL."

// removeSocketLocks removes the files that lock a socket from a data directory where no
// server runs. A rewind and a copy bring those of the source, or an empty one, with
// which PostgreSQL refuses to start.
func removeSocketLocks(dir string) error {
	locks, err := filepath.Glob(filepath.Join(dir, socketPrefix+"*.lock"))
	for _, lock := range locks {
		err = errors.Join(err, ignoreGone(os.Remove(lock)))
	}
	return err
}

// settledLockFile is readLockFile that gives a server time to write the file. One
// that stays empty was left by a crash, and is removed: PostgreSQL refuses to
// start with it.
func (i *Instance) settledLockFile() (lockFile, bool, error) {
	path := filepath.Join(i.cfg.Dir, "postmaster.pid")
	for deadline := time.Now().Add(time.Second); ; time.Sleep(watchInterval) {
		lock, ok, err := readLockFile(i.cfg.Dir)
		if ok || err != nil {
			return lock, ok, err
		}
		info, err := os.Stat(path)
		if err != nil {
			return lock, false, ignoreGone(err)
		}
		if info.Size() == 0 && time.Now().After(deadline) {
			return lock, false, ignoreGone(os.Remove(path))
		}
	}
}

// disownLockFiles makes postmaster.pid, and the file that locks the socket, name
// us, if the process that they name is there and no postmaster: a zombie, or
// another one that got the number. PostgreSQL would take it for the server, and
// refuses to start; its own parent it does not (CreateLockFile in miscinit.c).
// It still makes sure that nobody has the shared memory that the file names.
func (i *Instance) disownLockFiles(lock lockFile) error {
	if err := syscall.Kill(lock.pid, 0); err != nil {
		return nil //nolint:nilerr // there is none, and PostgreSQL finds so too
	}
	err := i.disown(filepath.Join(i.cfg.Dir, "postmaster.pid"), lock.pid)
	if lock.socketDir != "" {
		socket := filepath.Join(lock.socketDir, fmt.Sprintf("%s%d.lock", socketPrefix, lock.port))
		err = errors.Join(err, i.disown(socket, lock.pid))
	}
	return err
}

// disown makes a lock file that names pid name us.
func (i *Instance) disown(path string, pid int) error {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	first, rest, _ := bytes.Cut(content, []byte("\n"))
	if err != nil || string(first) != strconv.Itoa(pid) {
		return err
	}
	return i.user.writeFile(path, fmt.Sprintf("%d\n%s", os.Getpid(), rest))
}

// endStragglers kills what is left of a server whose postmaster is dead, and
// returns when that is gone. Nobody can start the server before.
func (i *Instance) endStragglers() error {
	for deadline := time.Now().Add(settleTimeout); ; time.Sleep(time.Millisecond) {
		pids, err := stragglers(i.cfg.Dir)
		if err != nil || len(pids) == 0 {
			reapOrphans()
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v of a dead postmaster live %v after SIGKILL", pids, settleTimeout)
		}
		for _, pid := range pids {
			err = errors.Join(err, endStraggler(pid, i.cfg.Dir))
		}
		if err != nil {
			return err
		}
	}
}

// endStraggler kills a process, if it still is one of a server in dir and not a
// postmaster that has begun meanwhile.
func endStraggler(pid int, dir string) error {
	p, err := watch(pid)
	if err != nil || p == nil {
		return err
	}
	defer p.abandon()
	if ours, err := worksIn(pid, dir); err != nil || !ours {
		return err
	}
	return p.signal(syscall.SIGKILL)
}
