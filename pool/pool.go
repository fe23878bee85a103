package pool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is what a closed pool answers, and what it tells those who wait for
// a connection, or hold one, when it closes.
var ErrClosed = errors.New("helios: connection pool is closed")

// Config says how a pool makes and keeps connections.
type Config struct {
	Name string // node as named in the topology, for errors

	// Dial makes one new, authenticated connection. Its context is the pool's
	// own and carries no values: it ends with DialTimeout, Fence or Close, never
	// with the context of an Acquire. Dial must return soon after.
	Dial        func(context.Context) (*Conn, error)
	DialTimeout time.Duration // 0: no limit

	MaxConns int // slots: connections open, being made or being cleaned; 1 if less
	MaxDials int // connections being made at once; 1 if less
	MinConns int // kept open in the background from the first Warm on

	// Clean makes a connection that was released dirty fit for another session;
	// if it fails, the connection is closed. Nil closes them all.
	Clean        func(context.Context, *Conn) error
	CleanTimeout time.Duration // 0: no limit

	MaxIdle     time.Duration // an unused connection is closed soon after; 0: never
	MaxLifetime time.Duration // a connection is retired at 90 to 100 % of this age; 0: never
}

// Pool lends the connections to one node. It is safe for concurrent use.
//
// A session comes back to the slot it used last with one compare-and-swap, which
// keeps its prepared statements at hand; only who finds no idle connection takes
// the lock, to stand in line.
type Pool struct {
	cfg   Config
	slots []slot

	used    atomic.Int32 // slots beyond were never taken
	waiting atomic.Int32 // waiters in line; written with mu held

	_ [64]byte // what follows changes often, what precedes is read by everybody

	mu      sync.Mutex
	closed  bool        // guarded by mu
	warm    bool        // guarded by mu; MinConns are wanted
	epoch   uint64      // guarded by mu; counts fences
	line    line        // guarded by mu; who waits, longest first
	taken   int         // guarded by mu; slots that are not empty
	dialing int         // guarded by mu; slots whose connection is being made
	givenUp int         // guarded by mu; how many of those a Fence has cancelled
	timer   *time.Timer // guarded by mu; nil unless a sweep is due
	counts  counts      // guarded by mu

	waiters sync.Pool      // of *waiter, to be used again
	running sync.WaitGroup // every goroutine of the pool; added to with mu held and closed false
}

// New returns a pool without connections. The first Acquire or Warm dials.
func New(cfg Config) *Pool {
	cfg.MaxConns = max(cfg.MaxConns, 1)
	cfg.MaxDials = max(cfg.MaxDials, 1)
	cfg.MinConns = min(max(cfg.MinConns, 0), cfg.MaxConns)
	return &Pool{cfg: cfg, slots: make([]slot, cfg.MaxConns)}
}

// Hint remembers which connection a session used last. The zero Hint remembers
// none. It belongs to the session and is not safe for concurrent use.
type Hint struct {
	slot int32 // index + 1
}

// Acquire lends a connection: the session's last one if it is idle, another idle
// one, or the first that is released or made. hint may be nil.
//
// The error is a *[DialError], ErrClosed, the cause of a Fence, or says that ctx
// ended, in which case it wraps both ctx.Err and its cause. A connection that is
// idle is lent even if ctx has ended already.
func (p *Pool) Acquire(ctx context.Context, hint *Hint) (*Conn, error) {
	for {
		c := p.takeIdle(hint)
		if c == nil {
			var err error
			if c, err = p.wait(ctx); err != nil {
				return nil, err
			}
		}
		if c.Usable() {
			return c, nil
		}
		p.Discard(c)
	}
}

// Release gives back a connection that owes nothing and whose session state is
// untouched, and lets hint, which may be nil, remember it. A connection that was
// aborted or is too old is discarded. The caller must not use it any more.
func (p *Pool) Release(c *Conn, hint *Hint) {
	s := p.slotOf(c)
	if c.broken.Load() || s.retired.Load() {
		p.Discard(c)
		return
	}
	if hint != nil {
		hint.slot = c.slot + 1
	}
	if p.waiting.Load() > 0 && p.handOver(c) {
		return
	}
	s.change(busy, idle)
	p.afterIdle(s)
}

// afterIdle looks again at what may have changed just before s became idle: a
// waiter that did not see it, a Fence that saw it still busy.
func (p *Pool) afterIdle(s *slot) {
	if p.waiting.Load() > 0 {
		p.mu.Lock()
		p.serveLocked()
		p.mu.Unlock()
	}
	if c := s.conn.Load(); c != nil && c.broken.Load() && s.take() {
		p.Release(s.conn.Load(), nil)
	}
}

// ReleaseDirty gives back a connection that the pool has to clean first. It
// returns at once; until the connection is clean, or closed, its slot is taken.
func (p *Pool) ReleaseDirty(c *Conn) {
	s := p.slotOf(c)
	p.mu.Lock()
	if p.closed || p.cfg.Clean == nil || c.broken.Load() {
		p.mu.Unlock()
		p.Discard(c)
		return
	}
	s.change(busy, cleaning)
	// The pool's own context: the session that left the connection is gone.
	ctx, cancel := context.WithCancelCause(context.Background())
	s.stop = cancel
	p.running.Go(func() { p.clean(ctx, c) })
	p.mu.Unlock()
}

// clean makes c fit for the next session, or closes it.
func (p *Pool) clean(ctx context.Context, c *Conn) {
	ctx, cancel := withTimeout(ctx, p.cfg.CleanTimeout, "not clean")
	err := p.cfg.Clean(ctx, c)
	cancel()

	s := p.slotOf(c)
	p.mu.Lock()
	s.stop(nil)
	s.stop = nil
	s.change(cleaning, busy)
	if err == nil {
		p.counts.cleaned++
	}
	p.mu.Unlock()
	if err != nil {
		p.Discard(c)
		return
	}
	p.Release(c, nil)
}

// withTimeout bounds ctx; 0 is no bound. The cause of its end starts with what.
func withTimeout(ctx context.Context, d time.Duration, what string) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, d, &timeoutError{what, d})
}

// A timeoutError is the cause of a limit of the pool's own. It is a
// context.DeadlineExceeded that says which limit.
type timeoutError struct {
	what string
	d    time.Duration
}

func (e *timeoutError) Error() string { return fmt.Sprintf("%s within %v", e.what, e.d) }
func (e *timeoutError) Unwrap() error { return context.DeadlineExceeded }

// Discard closes a connection, if it is not closed yet, and frees its slot. The
// caller must not use it any more.
func (p *Pool) Discard(c *Conn) {
	s := p.slotOf(c)
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts.discarded++
	p.freeLocked(s, busy)
	p.dialLocked()
}

// freeLocked empties a slot that is in state from.
func (p *Pool) freeLocked(s *slot, from uint64) {
	s.conn.Store(nil)
	s.retired.Store(false)
	s.change(from, empty)
	p.taken--
}

// Fence closes every connection at once, those in use as well: whoever reads
// from one gets an error that wraps cause. Who waits for a connection gets cause,
// and dials under way are given up. The pool stays in use: a later Acquire
// dials anew, while MinConns wait for the next Warm.
func (p *Pool) Fence(cause error) {
	p.mu.Lock()
	p.fenceLocked(cause)
	p.mu.Unlock()
	p.abort(cause)
}

// fenceLocked fails those who wait and cancels what the pool itself is doing.
func (p *Pool) fenceLocked(cause error) {
	p.epoch++
	p.givenUp = p.dialing
	p.warm = false
	for w := p.popLocked(); w != nil; w = p.popLocked() {
		w.fail(cause)
	}
	for i := range p.slots {
		if stop := p.slots[i].stop; stop != nil {
			stop(cause)
		}
	}
}

// abort closes the sockets of all connections; the idle ones leave the pool,
// the others when their holders give them back.
func (p *Pool) abort(cause error) {
	for i := range p.slots {
		if c := p.slots[i].conn.Load(); c != nil {
			c.Abort(cause)
		}
	}
	for i := range p.slots {
		if s := &p.slots[i]; s.take() {
			p.Release(s.conn.Load(), nil) // keeps it only if it was made since
		}
	}
}

// Close aborts every connection, those in use as well, and fails those who wait
// with ErrClosed, as it does every later Acquire. When it returns, nothing the
// pool started is still running.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.fenceLocked(ErrClosed)
	p.mu.Unlock()
	for c := p.scan(); c != nil; c = p.scan() {
		p.Discard(c) // says goodbye
	}
	p.abort(ErrClosed)
	p.running.Wait()
	return nil
}
