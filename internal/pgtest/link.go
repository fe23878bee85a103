package pgtest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Sizes of a link's queue each way: 256 chunks of up to 32 KiB may be under way
// before the sender feels that its bytes do not arrive.
const (
	chunkSize  = 32 << 10
	chunkQueue = 256
)

// link is one client's connection through a proxy.
type link struct {
	proxy  *Proxy
	client *net.TCPConn
	closed chan struct{} // closed by close

	mu     sync.Mutex
	server *net.TCPConn // guarded by mu; nil until dialled
	ended  bool         // guarded by mu; closed is closed
}

// chunk is what was read at one moment, or how reading ended.
type chunk struct {
	data []byte
	err  error
	at   time.Time
}

func newLink(p *Proxy, client *net.TCPConn) *link {
	return &link{proxy: p, client: client, closed: make(chan struct{})}
}

// close ends the link at once. It may be called often and from anywhere.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended = true
	close(l.closed)
	l.client.Close() //nolint:errcheck // it may be dead
	if l.server != nil {
		l.server.Close() //nolint:errcheck // it may be dead
	}
}

// abort is close by a reset of both connections.
func (l *link) abort() {
	l.mu.Lock()
	server := l.server
	l.mu.Unlock()
	if server != nil {
		server.SetLinger(0) //nolint:errcheck // it may be dead
	}
	l.reset(l.client)
}

// run forwards both ways and returns when both have ended.
func (l *link) run() {
	server, ok := l.connect()
	if !ok {
		l.reset(l.client)
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.forward(server, l.client, false) })
	both.Go(func() { l.forward(l.client, server, true) })
	both.Wait()
}

// connect dials the server, unless the link is closed or a black hole keeps it
// from being reached.
func (l *link) connect() (*net.TCPConn, bool) {
	if !l.pass() {
		return nil, false
	}
	conn, err := l.proxy.dial()
	if err != nil {
		return nil, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		conn.Close() //nolint:errcheck // never used
		return nil, false
	}
	l.server = conn.(*net.TCPConn)
	return l.server, true
}

// forward carries bytes from src to dst. Reading does not wait for the delayed
// writing, so that a delay costs no throughput.
func (l *link) forward(dst, src *net.TCPConn, reply bool) {
	queue := make(chan chunk, chunkQueue)
	var reading sync.WaitGroup
	reading.Go(func() { l.read(queue, src) })
	var free time.Time // when the line can take the next chunk
	for c := range queue {
		free = l.proxy.paced(free, c)
		c.at = later(c.at, free)
		if !l.deliver(dst, c, reply) {
			l.close()
		}
	}
	reading.Wait()
}

// paced returns when the line is free again that takes c as soon as it is free.
func (p *Proxy) paced(free time.Time, c chunk) time.Time {
	f, _ := p.now()
	if f.rate <= 0 {
		return time.Time{}
	}
	return later(free, c.at.Add(-paceSlack)).Add(time.Duration(float64(len(c.data)) / f.rate * float64(time.Second)))
}

// paceSlack is how late a chunk may be delivered without a loss of rate: what a
// busy machine wakes up late by is made good.
const paceSlack = 20 * time.Millisecond

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// read fills the queue until src ends; the last chunk says how.
func (l *link) read(queue chan<- chunk, src *net.TCPConn) {
	defer close(queue)
	buf := make([]byte, chunkSize)
	for {
		n, err := src.Read(buf)
		select {
		case queue <- chunk{data: bytes.Clone(buf[:n]), err: err, at: time.Now()}:
		case <-l.closed:
			return
		}
		if err != nil {
			return
		}
	}
}

// deliver writes a chunk when its time has come; false ends the link.
func (l *link) deliver(dst *net.TCPConn, c chunk, reply bool) bool {
	if !l.await(c.at) || !l.pass() {
		return false
	}
	if !l.write(dst, c.data, reply) {
		return false
	}
	switch {
	case c.err == nil:
		return true
	case errors.Is(c.err, io.EOF):
		return dst.CloseWrite() == nil // the other direction may go on
	case errors.Is(c.err, syscall.ECONNRESET):
		l.reset(dst)
	}
	return false
}

// write gives dst what the faults in force leave of data.
func (l *link) write(dst *net.TCPConn, data []byte, reply bool) bool {
	if len(data) == 0 {
		return true
	}
	f, _ := l.proxy.now()
	if reply && f.dropReply {
		return true
	}
	counter := &l.proxy.toServer
	if reply {
		counter = &l.proxy.toClient
	}
	data, cut := f.spend(l.proxy, data, reply)
	n, err := dst.Write(data)
	counter.Add(int64(n))
	return err == nil && !cut
}

// budget returns where it stands what may still go one way.
func (f *faults) budget(reply bool) **atomic.Int64 {
	if reply {
		return &f.toClient
	}
	return &f.toServer
}

// spend returns what the budget of CutAfter, or CutRequestAfter, leaves of data,
// and whether this is the connection that is cut.
func (f *faults) spend(p *Proxy, data []byte, reply bool) (rest []byte, cut bool) {
	budget := *f.budget(reply)
	if budget == nil {
		return data, false
	}
	left := budget.Add(-int64(len(data)))
	if left >= 0 {
		return data, false
	}
	p.change(func(now *faults) { //nolint:errcheck // only listening fails
		if b := now.budget(reply); *b == budget {
			*b = nil
		}
	})
	keep := left + int64(len(data))
	if keep < 0 {
		return data, false // another connection has been cut meanwhile
	}
	return data[:keep], true
}

// await returns when bytes read at the given time may arrive; false if the link
// was closed before.
func (l *link) await(read time.Time) bool {
	for {
		f, changed := l.proxy.now()
		wait := time.Until(read.Add(f.delay))
		if wait <= 0 {
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-l.closed:
			timer.Stop()
			return false
		}
		timer.Stop()
	}
}

// pass returns when no black hole is in force; false if the link was closed
// before.
func (l *link) pass() bool {
	for {
		f, changed := l.proxy.now()
		if !f.blackHole {
			return true
		}
		select {
		case <-changed:
		case <-l.closed:
			return false
		}
	}
}

// reset makes conn's peer see a reset instead of an orderly end.
func (l *link) reset(conn *net.TCPConn) {
	conn.SetLinger(0) //nolint:errcheck // it may be dead
	l.close()
}
