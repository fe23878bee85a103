package pgtest

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
)

// Ports are taken from below what systems give to outgoing connections. Such a
// connection could otherwise sit on the port of a killed server when that
// server is started again.
const (
	lowestPort  = 15000
	highestPort = 31999
)

// ports remembers what this process has taken, since a killed server listens on
// nothing and yet keeps its port.
var ports = struct {
	mu    sync.Mutex
	taken map[int]bool // guarded by mu
	file  *os.File     // guarded by mu; nil until it is opened
}{taken: map[int]bool{}}

// portsFile has a byte for each port, on which whoever has taken the port holds a
// lock. Tests of several packages run at the same time, and seconds may pass
// between the taking of a port and the first to listen on it. It is the same for all of
// them: a test may give itself another TMPDIR later.
var portsFile = filepath.Join(os.TempDir(), "helios-test-ports")

// lockPortLocked takes the port from other processes, or gives it back to them,
// and reports whether that worked. Where there can be no such file it always does.
func lockPortLocked(port int, kind int16) bool {
	if ports.file == nil {
		f, err := os.OpenFile(portsFile, os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			if f, err = os.OpenFile(portsFile, os.O_RDWR|os.O_CREATE, 0o666); err == nil {
				err = f.Chmod(0o666) // other users run tests, too
			}
		}
		if err != nil {
			return true
		}
		ports.file = f
	}
	lock := syscall.Flock_t{Type: kind, Start: int64(port), Len: 1}
	return syscall.FcntlFlock(ports.file.Fd(), syscall.F_SETLK, &lock) == nil
}

// TakePort returns a port of 127.0.0.1 on which nothing listens and which neither
// this process nor another one's tests have taken before. It is below the range of outgoing connections,
// so that none of them can be on it while the server that it is for is down.
func TakePort(ctx context.Context) (int, error) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for range 1000 {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		if ports.taken[port] || !lockPortLocked(port, syscall.F_WRLCK) {
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", loopback(port))
		if err != nil {
			lockPortLocked(port, syscall.F_UNLCK)
			continue
		}
		ports.taken[port] = true
		return port, l.Close()
	}
	return 0, errors.New("pgtest: no free port found")
}

// GivePort lets a port that TakePort returned be taken again.
func GivePort(port int) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	if ports.taken[port] {
		delete(ports.taken, port)
		lockPortLocked(port, syscall.F_UNLCK)
	}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
