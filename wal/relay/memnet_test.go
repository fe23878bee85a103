package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A memNet connects clients and servers of one test in memory, so that time may
// be fake. As with TCP, what is written waits for its reader, up to a limit.
type memNet struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	conns     []*memConn
	next      int
}

func newMemNet() *memNet { return &memNet{listeners: make(map[string]*memListener), next: 5432} }

// listen opens a port that nobody has used.
func (n *memNet) listen() *memListener {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	l := &memListener{net: n, addr: memAddr(fmt.Sprintf("127.0.0.1:%d", n.next)), backlog: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[string(l.addr)] = l
	return l
}

// reopen listens at the address of a listener that was closed.
func (n *memNet) reopen(old *memListener) *memListener {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &memListener{net: n, addr: old.addr, backlog: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[string(l.addr)] = l
	return l
}

// dial is a pgconn.DialFunc.
func (n *memNet) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.next++
	here := memAddr(fmt.Sprintf("127.0.0.1:%d", n.next))
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "mem", Addr: memAddr(addr), Err: syscall.ECONNREFUSED}
	}
	one, other := newHalf(), newHalf()
	client := &memConn{in: one, out: other, here: here, there: l.addr}
	server := &memConn{in: other, out: one, here: l.addr, there: here}
	select {
	case l.backlog <- server:
		n.mu.Lock()
		n.conns = append(n.conns, client, server)
		n.mu.Unlock()
		return client, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "mem", Addr: l.addr, Err: syscall.ECONNREFUSED}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cut ends every connection to the address.
func (n *memNet) cut(addr net.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		if c.here == addr || c.there == addr {
			c.Close()
		}
	}
}

// config returns how the server at an address is connected to.
func (n *memNet) config(t testing.TB, addr net.Addr, name string) *pgconn.Config {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr.String())
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%s user=replicator password=%s sslmode=disable application_name=%s", host, port, memPassword, name))
	if err != nil {
		t.Fatal(err)
	}
	cfg.DialFunc = n.dial
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	return cfg
}

// memPassword must not be seen anywhere.
const memPassword = "5ecret-of-the-source"

type memAddr string

func (memAddr) Network() string  { return "mem" }
func (a memAddr) String() string { return string(a) }

type memListener struct {
	net     *memNet
	addr    memAddr
	backlog chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (l *memListener) Addr() net.Addr { return l.addr }

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		if l.net.listeners[string(l.addr)] == l {
			delete(l.net.listeners, string(l.addr))
		}
		l.net.mu.Unlock()
		close(l.closed)
	})
	return nil
}

// memLimit is how much a direction holds that was not read.
const memLimit = 256 << 10

// A half is one direction of a connection.
type half struct {
	mu             sync.Mutex
	data           []byte
	closed         bool          // no more is written; what is there can be read
	broken         bool          // nobody reads
	changed        chan struct{} // closed at each change
	readBy, giveBy time.Time
}

func newHalf() *half { return &half{changed: make(chan struct{})} }

func (h *half) change(do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do()
	close(h.changed)
	h.changed = make(chan struct{})
}

// wait waits for try to report that it is done, until the deadline.
func (h *half) wait(deadline func() time.Time, try func() bool) error {
	for {
		h.mu.Lock()
		by := deadline()
		if !by.IsZero() && !time.Now().Before(by) {
			h.mu.Unlock()
			return os.ErrDeadlineExceeded
		}
		if try() {
			close(h.changed)
			h.changed = make(chan struct{})
			h.mu.Unlock()
			return nil
		}
		changed := h.changed
		h.mu.Unlock()
		var late <-chan time.Time
		var timer *time.Timer
		if !by.IsZero() {
			timer = time.NewTimer(time.Until(by))
			late = timer.C
		}
		select {
		case <-changed:
		case <-late:
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

type memConn struct {
	in, out     *half
	here, there memAddr
}

func (c *memConn) LocalAddr() net.Addr  { return c.here }
func (c *memConn) RemoteAddr() net.Addr { return c.there }

func (c *memConn) Read(p []byte) (n int, err error) {
	late := c.in.wait(func() time.Time { return c.in.readBy }, func() bool {
		switch {
		case c.in.broken:
			err = net.ErrClosed
		case len(c.in.data) > 0:
			n = copy(p, c.in.data)
			c.in.data = c.in.data[n:]
		case c.in.closed:
			err = io.EOF
		default:
			return len(p) == 0
		}
		return true
	})
	if late != nil {
		return 0, late
	}
	return n, err
}

func (c *memConn) Write(p []byte) (n int, err error) {
	for {
		late := c.out.wait(func() time.Time { return c.out.giveBy }, func() bool {
			switch room := memLimit - len(c.out.data); {
			case c.out.closed:
				err = net.ErrClosed
			case c.out.broken:
				err = syscall.EPIPE
			case room <= 0 && len(p) > 0:
				return false
			default:
				m := min(room, len(p))
				c.out.data = append(c.out.data, p[:m]...)
				n, p = n+m, p[m:]
			}
			return true
		})
		if late != nil || err != nil || len(p) == 0 {
			if late != nil {
				err = late
			}
			return n, err
		}
	}
}

func (c *memConn) Close() error {
	c.in.change(func() { c.in.broken, c.in.data = true, nil })
	c.out.change(func() { c.out.closed = true })
	return nil
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.in.change(func() { c.in.readBy = t })
	return nil
}

func (c *memConn) SetWriteDeadline(t time.Time) error {
	c.out.change(func() { c.out.giveBy = t })
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// A cutConn ends when so many bytes have been read.
type cutConn struct {
	net.Conn
	left int
}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errors.Join(net.ErrClosed, c.Close())
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}
