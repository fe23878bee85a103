package pgfake

import (
	"net"
	"os"
	"sync"
	"time"
)

// A Conn is one end of an in-memory connection. It behaves as a TCP connection
// with a large socket buffer: writes do not wait for the reader, deadlines work
// (with fake time too), and bytes written before Close still arrive.
type Conn struct {
	in, out       *stream
	local, remote addr
	mu            sync.Mutex
	writeDeadline time.Time // guarded by mu
}

var _ net.Conn = (*Conn)(nil)

// addr is a node's address, such as n1:5432.
type addr string

// Network returns "tcp": the driver should treat a fake node as a real one.
func (addr) Network() string { return "tcp" }

// String returns the address itself.
func (a addr) String() string { return string(a) }

// pipe returns the two ends of a connection without delay.
func pipe(client, server addr) (c, s *Conn) {
	up, down := newStream(), newStream()
	c = &Conn{in: down, out: up, local: client, remote: server}
	s = &Conn{in: up, out: down, local: server, remote: client}
	return c, s
}

// Read waits for bytes, the end of the stream or the deadline.
func (c *Conn) Read(b []byte) (int, error) { return c.in.read(b) }

// Write buffers b for the other side and never waits.
func (c *Conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	late := !c.writeDeadline.IsZero() && !time.Now().Before(c.writeDeadline)
	c.mu.Unlock()
	if late {
		return 0, os.ErrDeadlineExceeded
	}
	return c.out.write(b)
}

// Close ends both directions; the other side still reads what was written.
func (c *Conn) Close() error {
	c.in.update(func() { c.in.gone, c.in.chunks = true, nil })
	c.out.end()
	return nil
}

// Quiet reports whether neither bytes nor the end of the stream wait to be
// read: what a peek into a socket tells about an idle connection.
func (c *Conn) Quiet() bool { return c.in.quiet() }

// LocalAddr returns the address of this end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline bounds reads and writes.
func (c *Conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline bounds reads: they end with os.ErrDeadlineExceeded at t.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(t)
	return nil
}

// SetWriteDeadline makes writes after t fail.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeDeadline = t
	return nil
}

// abort resets the connection: both sides fail at once, what is under way is lost.
func (c *Conn) abort() {
	for _, s := range []*stream{c.in, c.out} {
		s.update(func() { s.reset, s.chunks = true, nil })
	}
}

// hold stops everything that is under way, until it is called with false.
func (c *Conn) hold(held bool) {
	for _, s := range []*stream{c.in, c.out} {
		s.update(func() { s.held = held })
	}
}
