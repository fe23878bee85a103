package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// A wire is what a connection to a companion's port speaks.
type wire int

const (
	wireHTTP  wire = iota // the API, and other companions' calls
	wireRaft              // the consensus
	wireRelay             // PostgreSQL's streaming replication
	wires                 // how many there are
)

// First bytes. PostgreSQL's first packet begins with its length, which is short; a
// TLS record with its type; HTTP with a letter.
const (
	firstPostgres = 0x00
	firstRaft     = 0x01
	firstTLS      = 0x16
)

// helloTimeout is how long a new connection may take to say what it wants.
const helloTimeout = 10 * time.Second

// A mux shares one port. Each wire has a listener of its own, whose connections
// still have their first byte.
type mux struct {
	listener net.Listener
	tls      *tls.Config // nil: everything is in plain text
	log      *slog.Logger

	ways    [wires]*way
	greeted sync.WaitGroup // every connection whose first byte is not here yet
	mu      sync.Mutex
	young   map[net.Conn]struct{} // guarded by mu: those connections; nil when closed
}

func newMux(l net.Listener, config *tls.Config, log *slog.Logger) *mux {
	m := &mux{listener: l, tls: config, log: log, young: make(map[net.Conn]struct{})}
	for i := range m.ways {
		m.ways[i] = &way{addr: l.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})}
	}
	return m
}

// on returns the listener of one wire.
func (m *mux) on(w wire) net.Listener { return m.ways[w] }

// run accepts until ctx ends, and closes what has not been handed on by then.
func (m *mux) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { m.listener.Close() }) //nolint:errcheck // it ends Accept
	defer stop()
	defer m.close()
	for {
		conn, err := m.listener.Accept()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // such as too many open files: they may become fewer
			m.log.WarnContext(ctx, "a connection could not be accepted", "error", err)
			pause(ctx, 50*time.Millisecond)
			continue
		}
		m.greet(ctx, conn)
	}
}

// greet finds out what a connection wants, and hands it on.
func (m *mux) greet(ctx context.Context, conn net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.young[conn] = struct{}{}
	m.greeted.Go(func() {
		w, speaking, err := m.recognize(ctx, conn)
		m.mu.Lock()
		delete(m.young, conn)
		m.mu.Unlock()
		if err != nil {
			m.log.DebugContext(ctx, "a connection was turned away", "from", conn.RemoteAddr(), "error", err)
			conn.Close() //nolint:errcheck // it is of no use
			return
		}
		m.ways[w].deliver(ctx, speaking)
	})
}

// recognize returns what conn speaks, and the connection to speak it on.
func (m *mux) recognize(ctx context.Context, conn net.Conn) (wire, net.Conn, error) {
	if err := conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return 0, nil, err
	}
	first, conn, err := peek(conn)
	if err != nil {
		return 0, nil, err
	}
	secure := false
	if first == firstTLS && m.tls != nil {
		secure = true
		inner := tls.Server(conn, m.tls)
		if err := inner.HandshakeContext(ctx); err != nil {
			return 0, nil, err
		}
		if first, conn, err = peek(inner); err != nil {
			return 0, nil, err
		}
	}
	w := wireOf(first)
	switch {
	case first == firstTLS:
		return 0, nil, errors.New("it speaks TLS, and this companion has no certificate")
	case m.tls != nil && !secure && w != wireRelay: // a standby asks for TLS in PostgreSQL's own way
		return 0, nil, errors.New("it does not speak TLS")
	}
	return w, conn, conn.SetDeadline(time.Time{})
}

func wireOf(first byte) wire {
	switch first {
	case firstPostgres:
		return wireRelay
	case firstRaft:
		return wireRaft
	}
	return wireHTTP
}

func (m *mux) close() {
	m.mu.Lock()
	for conn := range m.young {
		conn.Close() //nolint:errcheck // ends its greeting
	}
	m.mu.Unlock()
	for _, w := range m.ways {
		w.Close() //nolint:errcheck // never fails
	}
	m.greeted.Wait()
}

// A way is the net.Listener of one wire.
type way struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// deliver waits until somebody accepts conn.
func (w *way) deliver(ctx context.Context, conn net.Conn) {
	select {
	case w.conns <- conn:
	case <-w.closed:
		conn.Close() //nolint:errcheck // nobody wants it
	case <-ctx.Done():
		conn.Close() //nolint:errcheck // nobody wants it
	}
}

// Accept implements [net.Listener].
func (w *way) Accept() (net.Conn, error) {
	select {
	case conn := <-w.conns:
		return conn, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener]. The port stays open for the other wires.
func (w *way) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}

// Addr implements [net.Listener].
func (w *way) Addr() net.Addr { return w.addr }

// peek returns the first byte of conn, and a connection on which it is still to be
// read. Where the socket lets one look without reading, that is conn itself, so
// that whoever gets it can use all that a socket offers.
func peek(conn net.Conn) (byte, net.Conn, error) {
	if first, ok, err := peekSocket(conn); ok || err != nil {
		return first, conn, err
	}
	var first [1]byte
	n, err := conn.Read(first[:])
	if n == 0 {
		return 0, nil, fmt.Errorf("it says nothing: %w", err)
	}
	return first[0], &replayed{Conn: conn, first: first[:]}, nil
}

// replayed is a connection whose first byte was read before.
type replayed struct {
	net.Conn
	first []byte
}

// Read implements [net.Conn].
func (r *replayed) Read(p []byte) (int, error) {
	if len(r.first) > 0 && len(p) > 0 {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// TLS returns the state of the connection below, if it is one of TLS.
func (r *replayed) TLS() (tls.ConnectionState, bool) {
	if c, ok := r.Conn.(*tls.Conn); ok {
		return c.ConnectionState(), true
	}
	return tls.ConnectionState{}, false
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
