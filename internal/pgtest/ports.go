package pgtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
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
}{taken: map[int]bool{}}

// TakePort returns a port of 127.0.0.1 on which nothing listens and which this
// process has not taken before. It is below the range of outgoing connections,
// so that none of them can be on it while the server that it is for is down.
func TakePort(ctx context.Context) (int, error) {
	ports.mu.Lock()
	defer ports.mu.Unlock()
	for range 1000 {
		port := lowestPort + rand.IntN(highestPort-lowestPort+1)
		if ports.taken[port] {
			continue
		}
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", loopback(port))
		if err != nil {
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
	delete(ports.taken, port)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
