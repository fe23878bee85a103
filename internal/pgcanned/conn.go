package pgcanned

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// conn is a connection to a node: the client's end, with the server's inside.
type conn struct {
	node *Node

	mu      sync.Mutex
	changed sync.Cond // signalled when a Read may have something to say; its lock is mu
	session session   // guarded by mu
	rest    []byte    // guarded by mu; the beginning of a message that was written in parts
	at      int       // guarded by mu; how much of the session's answer was read
	closed  bool      // guarded by mu

	readDeadline, writeDeadline time.Time // guarded by mu
}

var _ net.Conn = (*conn)(nil)

// newConn returns a connection that waits for the client's first message.
func newConn(n *Node) *conn {
	c := &conn{node: n, session: newSession(n)}
	c.changed.L = &c.mu
	return c
}

// Write has the server answer b.
func (c *conn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return 0, net.ErrClosed
	case passed(c.writeDeadline):
		return 0, os.ErrDeadlineExceeded
	case c.session.over:
		return 0, io.ErrClosedPipe
	}
	in := b
	if len(c.rest) > 0 {
		c.rest = append(c.rest, b...)
		in = c.rest
	}
	if left := c.session.take(in); len(left) > 0 || len(c.rest) > 0 {
		c.rest = append(c.rest[:0], left...)
	}
	c.changed.Broadcast()
	return len(b), nil
}

// Read hands out the server's answer, and waits for one if there is none.
func (c *conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch out := c.session.out; {
		case c.closed:
			return 0, net.ErrClosed
		case passed(c.readDeadline):
			return 0, os.ErrDeadlineExceeded
		case c.at < len(out):
			n := copy(b, out[c.at:])
			if c.at += n; c.at == len(out) {
				c.session.out, c.at = out[:0], 0
			}
			return n, nil
		case c.session.over:
			return 0, io.EOF
		}
		c.waitLocked()
	}
}

// waitLocked waits until something has changed or the deadline has passed.
func (c *conn) waitLocked() {
	if !c.readDeadline.IsZero() {
		timer := time.AfterFunc(time.Until(c.readDeadline), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.changed.Broadcast()
		})
		defer timer.Stop()
	}
	c.changed.Wait()
}

// passed reports whether a deadline is over; the zero time is none.
func passed(deadline time.Time) bool {
	return !deadline.IsZero() && !time.Now().Before(deadline)
}

// Quiet reports whether nothing waits to be read: what a look into a socket
// tells about an idle connection.
func (c *conn) Quiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at == len(c.session.out) && !c.session.over && !c.closed
}

// Close ends the connection; what waits in it is lost.
func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	c.changed.Broadcast()
	return nil
}

// SetDeadline bounds reads and writes.
func (c *conn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readDeadline, c.writeDeadline = t, t
	c.changed.Broadcast()
	return nil
}

// SetReadDeadline bounds reads, also the one that is waiting.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readDeadline = t
	c.changed.Broadcast()
	return nil
}

// SetWriteDeadline makes writes after t fail.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeDeadline = t
	return nil
}

// LocalAddr returns the client's address.
func (c *conn) LocalAddr() net.Addr { return addr("client:1") }

// RemoteAddr returns the node's address.
func (c *conn) RemoteAddr() net.Addr { return addr(net.JoinHostPort(c.node.name, "5432")) }

// addr is an address, such as n1:5432.
type addr string

// Network returns "tcp": a driver should treat the node as any other.
func (addr) Network() string { return "tcp" }

// String returns the address itself.
func (a addr) String() string { return string(a) }
