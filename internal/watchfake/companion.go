package watchfake

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/heliosdb/helios/topology"
)

// A Companion tells what it was told to tell. It is safe for concurrent use.
type Companion struct {
	Addr string // host:port; fixed

	backlog chan net.Conn
	closed  chan struct{}
	server  *http.Server
	running sync.WaitGroup

	mu      sync.Mutex
	said    []saying        // guarded by mu; oldest first
	changed chan struct{}   // guarded by mu; closed when streams have something to look at
	muted   bool            // guarded by mu
	refuses bool            // guarded by mu
	status  int             // guarded by mu; to answer with instead of a stream; 0: none
	conns   []net.Conn      // guarded by mu; accepted since the last cut
	asked   []*http.Request // guarded by mu
	streams int             // guarded by mu; that are open
}

// A saying is a bulletin or, if line is set, a line as it is.
type saying struct {
	bulletin topology.Bulletin
	line     string
}

// New returns a companion that says nothing yet.
func New(addr string) *Companion {
	c := &Companion{Addr: addr, backlog: make(chan net.Conn), closed: make(chan struct{}), changed: make(chan struct{})}
	c.server = &http.Server{Handler: http.HandlerFunc(c.serve), ReadHeaderTimeout: time.Minute}
	c.running.Go(func() {
		c.server.Serve(listener{c}) //nolint:errcheck // it ends with Close
	})
	return c
}

// Close ends every stream and waits until nothing of the companion runs.
func (c *Companion) Close() {
	c.Refuse(true)
	c.server.Close() //nolint:errcheck // there is nothing to lose
	c.running.Wait()
}

// Dial connects to the companion.
func (c *Companion) Dial(ctx context.Context) (net.Conn, error) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	c.mu.Lock()
	refuses := c.refuses
	c.mu.Unlock()
	if refuses {
		return nil, refused
	}
	client, server := net.Pipe()
	select {
	case c.backlog <- server:
		return client, nil
	case <-c.closed:
		return nil, refused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Say tells b to all who listen, and to those who come, and repeats it with each
// heartbeat. Where b has no Seq it gets the next one, and where it has no
// Companion the address.
func (c *Companion) Say(b topology.Bulletin) {
	c.set(func() {
		if b.Companion == "" {
			b.Companion = c.Addr
		}
		if b.Seq == 0 {
			b.Seq = 1
			if last := c.lastLocked(); last != nil {
				b.Seq = last.bulletin.Seq + 1
			}
		}
		c.said = append(c.said, saying{bulletin: b})
	})
}

// lastLocked returns the newest bulletin; nil if there is none.
func (c *Companion) lastLocked() *saying {
	for i := range slices.Backward(c.said) {
		if c.said[i].line == "" {
			return &c.said[i]
		}
	}
	return nil
}

// Write writes a line as it is to all who listen.
func (c *Companion) Write(line string) {
	c.set(func() { c.said = append(c.said, saying{line: line}) })
}

// Mute makes streams stay open and say nothing, or go on.
func (c *Companion) Mute(on bool) { c.set(func() { c.muted = on }) }

// Refuse makes the companion cut all streams and refuse connections, or take
// them again.
func (c *Companion) Refuse(on bool) {
	c.set(func() { c.refuses = on })
	if on {
		c.Cut()
	}
}

// Cut ends all streams; new ones may begin.
func (c *Companion) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		conn.Close() //nolint:errcheck // it is cut
	}
	c.conns = nil
}

// Answer makes the companion answer with a status instead of a stream; 0 ends
// that.
func (c *Companion) Answer(status int) { c.set(func() { c.status = status }) }

// Streams returns how many streams are open.
func (c *Companion) Streams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams
}

// Asked returns the requests that came.
func (c *Companion) Asked() []*http.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

// set changes the companion and wakes its streams.
func (c *Companion) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	close(c.changed)
	c.changed = make(chan struct{})
}

// serve answers one request with a stream.
func (c *Companion) serve(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.asked = append(c.asked, r)
	c.streams++
	status := c.status
	c.mu.Unlock()
	defer c.set(func() { c.streams-- })
	beat, err := time.ParseDuration(r.URL.Query().Get("heartbeat"))
	switch {
	case status != 0:
		http.Error(w, r.Header.Get("Authorization"), status) // as careless as can be
	case err != nil || r.URL.Path != "/v1/watch":
		http.Error(w, "want /v1/watch?heartbeat=2s", http.StatusBadRequest)
	default:
		w.Header().Set("Content-Type", "application/x-ndjson")
		c.stream(w, r, beat)
	}
}

// stream writes what is said until r ends, and repeats it with each beat.
func (c *Companion) stream(w http.ResponseWriter, r *http.Request, beat time.Duration) {
	tick := time.NewTicker(beat)
	defer tick.Stop()
	heard, beating := -1, true
	for {
		text, changed := c.next(&heard, beating)
		if text != "" {
			fmt.Fprint(w, text)
			http.NewResponseController(w).Flush() //nolint:errcheck // r ends with the connection
		}
		select {
		case <-changed:
			beating = false
		case <-tick.C:
			beating = true
		case <-r.Context().Done():
			return
		}
	}
}

// next returns what a stream has to write that has written all up to *heard; one
// that begins, or is beating, has the newest bulletin to write at least.
func (c *Companion) next(heard *int, beating bool) (text string, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.lastLocked()
	if c.muted || last == nil {
		return "", c.changed
	}
	if *heard < 0 {
		*heard, beating = len(c.said), true
	}
	for ; *heard < len(c.said); *heard++ {
		text += c.said[*heard].text()
	}
	if beating && text == "" {
		text = last.text()
	}
	return text, c.changed
}

// text returns the line of a saying.
func (s *saying) text() string {
	if s.line != "" {
		return s.line + "\n"
	}
	line, err := json.Marshal(s.bulletin)
	if err != nil {
		panic(err) // a bulletin is made of words and numbers
	}
	return string(line) + "\n"
}

// A listener accepts what Dial brings.
type listener struct{ c *Companion }

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.c.backlog:
		l.c.mu.Lock()
		l.c.conns = append(l.c.conns, conn)
		l.c.mu.Unlock()
		return conn, nil
	case <-l.c.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The server calls it once.
func (l listener) Close() error {
	close(l.c.closed)
	return nil
}

// Addr implements net.Listener.
func (l listener) Addr() net.Addr { return addr(l.c.Addr) }

// addr is where a companion listens.
type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }
