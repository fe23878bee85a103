package pgctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lockFile is what postmaster.pid says (miscadmin.h lists its lines). Lines that
// are not written yet are zero.
type lockFile struct {
	pid       int // negative: a server in single-user mode
	dir       string
	start     time.Time // to the second
	port      int
	socketDir string // the first one; "" if there is none
	listen    string // the first address; "" if it does not listen
	shmem     string // number of the System V segment; "" if not known
	status    string // starting, stopping, ready, standby
}

// readLockFile reads postmaster.pid; false if there is no such file, or nothing
// in it: a server that starts has made it and not written it yet.
func readLockFile(dir string) (lockFile, bool, error) {
	content, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil || len(content) == 0 {
		return lockFile{}, false, ignoreGone(err)
	}
	lines := strings.Split(string(content), "\n")
	line := func(n int) string {
		if n > len(lines) {
			return ""
		}
		return strings.TrimSpace(lines[n-1])
	}
	l := lockFile{dir: line(2), socketDir: line(5), listen: line(6), status: line(8)}
	if l.pid, err = strconv.Atoi(line(1)); err != nil || l.pid == 0 {
		return lockFile{}, false, fmt.Errorf("postmaster.pid begins with %q", line(1))
	}
	if start, err := strconv.ParseInt(line(3), 10, 64); err == nil {
		l.start = time.Unix(start, 0)
	}
	l.port, _ = strconv.Atoi(line(4))
	if key := strings.Fields(line(7)); len(key) == 2 {
		l.shmem = key[1]
	}
	return l, true, nil
}

// host returns what a client on this machine connects to: the socket, else the
// address; "" if neither is known.
func (l lockFile) host() string {
	switch {
	case l.socketDir != "":
		return l.socketDir
	case l.listen == "*", l.listen == "0.0.0.0":
		return "127.0.0.1"
	case l.listen == "::":
		return "::1"
	}
	return l.listen
}

// gone reports whether an error means that a file or a process is not there.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}
