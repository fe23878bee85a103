package memnet

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// A Net is where addresses mean something. It is safe for concurrent use.
type Net struct {
	mu        sync.Mutex
	listeners map[string]*Listener
	dialled   int // gives every client a port of its own
}

// New returns a Net where nobody listens.
func New() *Net { return &Net{listeners: map[string]*Listener{}} }

// Listen listens at addr, host:port. Who listened there before hears of no new
// connections.
func (n *Net) Listen(addr string) *Listener {
	l := &Listener{addr: address(addr), backlog: make(chan net.Conn), closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[addr] = l
	return l
}

// DialContext connects to who listens at addr, from the loopback address. Where nobody
// does, it is refused.
func (n *Net) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	l := n.listeners[addr]
	n.dialled++
	here := address(fmt.Sprintf("127.0.0.1:%d", 20000+n.dialled))
	n.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "mem", Addr: address(addr), Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	client, server := net.Pipe()
	select {
	case l.backlog <- conn{server, l.addr, here}:
		return conn{client, here, l.addr}, nil
	case <-l.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A Listener is a net.Listener of a Net.
type Listener struct {
	addr    address
	backlog chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.addr }

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections stay.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

type address string

func (address) Network() string  { return "mem" }
func (a address) String() string { return string(a) }

// A conn is one end of a pipe that knows where it is.
type conn struct {
	net.Conn

	here, there address
}

func (c conn) LocalAddr() net.Addr  { return c.here }
func (c conn) RemoteAddr() net.Addr { return c.there }
