package pgctl

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// worksIn reports whether a process is a PostgreSQL server program that has dir
// as its working directory, as every process of a server has. Not even another
// server's process with a number that was given anew passes.
func worksIn(pid int, dir string) (bool, error) {
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return false, unreadable(pid, dir, err)
	}
	if !isServerProgram(program) {
		return false, nil
	}
	same, err := sameDir(fmt.Sprintf("/proc/%d/cwd", pid), dir)
	return same, unreadable(pid, dir, err)
}

// unreadable explains why a process cannot be looked at; nil if it is gone, or
// does not belong to the owner of dir, as every process of its server does.
func unreadable(pid int, dir string, err error) error {
	if err == nil || gone(err) {
		return nil
	}
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	process, noProcess := os.Stat(fmt.Sprintf("/proc/%d", pid))
	data, noData := os.Stat(dir)
	if noProcess != nil || noData != nil {
		return ignoreGone(noData)
	}
	if process.Sys().(*syscall.Stat_t).Uid != data.Sys().(*syscall.Stat_t).Uid {
		return nil
	}
	return fmt.Errorf("process %d may be the server, and this user may not look at it; run as root or as the user of the server: %w", pid, err)
}

// isPostmaster reports whether the process that lock names is a living postmaster
// of dir: it works there, and its parent does not, which that of a backend does.
func isPostmaster(lock lockFile, dir string) (bool, error) {
	q, ok, err := readProc(lock.pid)
	if err != nil || !ok || q.dead() {
		return false, err
	}
	if ours, err := worksIn(q.pid, dir); err != nil || !ours {
		return false, err
	}
	child, err := worksIn(q.parent, dir)
	return !child, err
}

// commandLine returns the arguments of a process.
func commandLine(pid int) ([]string, error) {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(line) == 0 {
		return nil, unreadable(pid, "/", err)
	}
	args := []string{}
	for _, arg := range bytes.Split(bytes.TrimSuffix(line, []byte{0}), []byte{0})[1:] {
		args = append(args, string(arg))
	}
	return args, nil
}

// stragglers returns the living processes of a server in dir whose postmaster is
// dead: a backend that is frozen, or busy outside of PostgreSQL's own code, does
// not notice that at once.
func stragglers(dir string) ([]int, error) {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		ours, err := worksIn(pid, dir)
		if err != nil {
			return nil, err
		}
		q, ok, err := readProc(pid)
		if err != nil {
			return nil, err
		}
		if ours && ok && !q.dead() {
			found = append(found, pid)
		}
	}
	slices.Sort(found)
	return found, nil
}
