package pool

import (
	"net"
	"sync/atomic"
)

// wire is the socket of a connection. It counts the bytes that went out and
// came in, so that "was anything sent?" has an answer of our own; nobody else's
// is trusted (pgconn.SafeToRetry says yes after an answer was lost). Under TLS
// it counts the encrypted bytes. The counters may be read by any goroutine.
type wire struct {
	net.Conn
	sent     atomic.Int64
	received atomic.Int64
	traffic  *Traffic
	peek     peeker
}

// Traffic counts the bytes of all connections of a node.
type Traffic struct {
	Sent     atomic.Int64
	Received atomic.Int64
}

// quieter is a connection that knows without a system call whether nothing
// waits in it.
type quieter interface{ Quiet() bool }

// newWire wraps a freshly dialed socket.
func newWire(conn net.Conn, traffic *Traffic) *wire {
	w := &wire{Conn: conn, traffic: traffic}
	w.peek.init(conn)
	return w
}

// Write counts what the kernel took, also of a write that failed half-way.
func (w *wire) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	if n > 0 {
		w.sent.Add(int64(n))
		w.traffic.Sent.Add(int64(n))
	}
	return n, err
}

// Read counts what arrived.
func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 {
		w.received.Add(int64(n))
		w.traffic.Received.Add(int64(n))
	}
	return n, err
}
