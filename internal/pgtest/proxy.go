package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy stands between clients and one server and can do to their bytes what
// networks do. It works on TCP and knows nothing of PostgreSQL's protocol.
// It is safe for concurrent use.
//
// A fault holds for connections that exist and those to come, until [Proxy.Heal].
type Proxy struct {
	target string
	port   int

	running sync.WaitGroup // the acceptor and both directions of every link
	stop    context.CancelFunc

	mu       sync.Mutex
	faults   faults             // guarded by mu
	changed  chan struct{}      // guarded by mu; closed when faults is replaced
	listener net.Listener       // guarded by mu; nil while connections are refused
	links    map[*link]struct{} // guarded by mu
	down     bool               // guarded by mu; the server behind is known to be dead
	dial     func() (net.Conn, error)

	accepted atomic.Int64
	toServer atomic.Int64
	toClient atomic.Int64
}

// faults is what happens to bytes now. It is a value: a link looks at a copy.
type faults struct {
	delay     time.Duration // each way
	rate      float64       // bytes a second, each way of each connection; 0 for as many as there are
	dropReply bool          // bytes from the server are thrown away
	blackHole bool          // bytes wait, both ways
	refuse    bool          // nothing listens

	// Bytes that may still go that way before a cut, shared by all links; nil for
	// no cut.
	toServer, toClient *atomic.Int64
}

// ProxyStats are counted from the start of the proxy on.
type ProxyStats struct {
	Accepted int64 // connections accepted
	Open     int   // connections now
	ToServer int64 // bytes delivered to the server
	ToClient int64 // bytes delivered to clients
}

// StartProxy listens on a free port of 127.0.0.1 and forwards to target, a
// host:port. The caller closes it.
func StartProxy(target string) (*Proxy, error) {
	ctx, stop := context.WithCancel(context.Background())
	p := &Proxy{target: target, stop: stop, changed: make(chan struct{}), links: map[*link]struct{}{}}
	p.dial = func() (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", target) }
	port, err := TakePort(ctx)
	if err != nil {
		stop()
		return nil, err
	}
	p.port = port
	if err := p.Heal(); err != nil {
		GivePort(port)
		stop()
		return nil, err
	}
	return p, nil
}

// Addr returns where clients connect, as host:port.
func (p *Proxy) Addr() string { return loopback(p.port) }

// Stats returns the counters.
func (p *Proxy) Stats() ProxyStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return ProxyStats{
		Accepted: p.accepted.Load(),
		Open:     len(p.links),
		ToServer: p.toServer.Load(),
		ToClient: p.toClient.Load(),
	}
}

// Delay makes every byte arrive d later than it was sent, each way: a round
// trip takes 2d longer. Zero takes the delay away. The throughput stays.
func (p *Proxy) Delay(d time.Duration) { p.change(func(f *faults) { f.delay = d }) } //nolint:errcheck // only listening fails

// Rate lets so many bytes a second pass, each way on each connection. Zero takes
// the bound away.
func (p *Proxy) Rate(bytes float64) { p.change(func(f *faults) { f.rate = bytes }) } //nolint:errcheck // only listening fails

// DropReplies throws away what the server sends: it executes statements, and
// the client waits. Follow it with Cut for a connection lost after execution.
func (p *Proxy) DropReplies() { p.change(func(f *faults) { f.dropReply = true }) } //nolint:errcheck // only listening fails

// CutAfter delivers n more bytes from the server, counted over all connections,
// and then closes the connection that has a further one. With 0 the server
// executes the next statement and the client sees its connection end instead of
// the reply. The cut happens once.
func (p *Proxy) CutAfter(n int64) {
	budget := new(atomic.Int64)
	budget.Store(n)
	p.change(func(f *faults) { f.toClient = budget }) //nolint:errcheck // only listening fails
}

// CutRequestAfter is CutAfter for the other direction: the server gets the
// beginning of what was sent and then the end of the connection.
func (p *Proxy) CutRequestAfter(n int64) {
	budget := new(atomic.Int64)
	budget.Store(n)
	p.change(func(f *faults) { f.toServer = budget }) //nolint:errcheck // only listening fails
}

// BlackHole holds back every byte both ways, ends of connections included, and
// answers nothing on new connections, though the kernel completes their
// handshake. After Heal the bytes arrive, as after a partition that TCP outlives.
func (p *Proxy) BlackHole() { p.change(func(f *faults) { f.blackHole = true }) } //nolint:errcheck // only listening fails

// Refuse stops listening: new connections are reset, existing ones go on.
func (p *Proxy) Refuse() { p.change(func(f *faults) { f.refuse = true }) } //nolint:errcheck // only listening fails

// Heal ends every fault. It fails if the port, given up by Refuse, was taken by
// another process meanwhile.
func (p *Proxy) Heal() error { return p.change(func(f *faults) { *f = faults{} }) }

// Cut closes all existing connections now, whatever they carry.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
	}
}

// Reset is like Cut, but both ends see a reset instead of an orderly end.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.abort()
	}
}

// Close ends the proxy and its connections. When it returns, nothing it started
// is still running.
func (p *Proxy) Close() error {
	p.stop()
	err := p.change(func(f *faults) { *f = faults{refuse: true} }) // nothing waits in a black hole
	p.Cut()
	p.running.Wait()
	GivePort(p.port)
	return err
}

// setDown makes the port refuse connections while the server behind it is known
// to be dead, as the server's own port does.
func (p *Proxy) setDown(down bool) error {
	p.mu.Lock()
	p.down = down
	p.mu.Unlock()
	return p.change(func(*faults) {})
}

// change replaces the faults and wakes every link.
func (p *Proxy) change(edit func(*faults)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	edit(&p.faults)
	close(p.changed)
	p.changed = make(chan struct{})
	if p.faults.refuse || p.down {
		return p.deafenLocked()
	}
	return p.listenLocked()
}

func (p *Proxy) deafenLocked() error {
	if p.listener == nil {
		return nil
	}
	err := p.listener.Close()
	p.listener = nil
	return err
}

func (p *Proxy) listenLocked() error {
	if p.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", p.Addr()) //nolint:noctx // a local bind does not wait
	if err != nil {
		return fmt.Errorf("pgtest: proxy of %s: %w", p.target, err)
	}
	p.listener = l
	p.running.Go(func() { p.accept(l) })
	return nil
}

// now returns the faults in force and the channel that is closed when they change.
func (p *Proxy) now() (faults, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults, p.changed
}

// accept serves one listener until it is closed.
func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the client has left already
		}
		p.accepted.Add(1)
		p.running.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

// serve connects one client to the server and forwards until both directions
// have ended. If there is no server the client is reset.
func (p *Proxy) serve(client *net.TCPConn) {
	l := newLink(p, client)
	p.mu.Lock()
	p.links[l] = struct{}{}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
		l.close()
	}()
	l.run()
}
