package pool

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/sony/gobreaker/v2"
)

// BreakerConfig says when a breaker opens. The zero value is usable.
type BreakerConfig struct {
	Failures int           // failures in a row that open it; 3 if less than 1
	Window   time.Duration // failures further apart than this are not in a row; 10s if 0
	Cooldown time.Duration // how long, once open, only a probe can close it; 5s if 0

	// OnChange, if not nil, is called after Open has changed, by the goroutine
	// that brought it about. Calls do not overlap, they alternate, and the last
	// one is up to date. It must not call Failure, Success or Probe.
	OnChange func(open bool)
}

// withDefaults returns c with its zeros filled in.
func (c BreakerConfig) withDefaults() BreakerConfig {
	if c.Failures < 1 {
		c.Failures = 3
	}
	if c.Window <= 0 {
		c.Window = 10 * time.Second
	}
	if c.Cooldown <= 0 {
		c.Cooldown = 5 * time.Second
	}
	return c
}

// Breaker remembers whether a node answers. It is told of failures, successes
// and probes; the query path only asks Open. It is safe for concurrent use.
//
// gobreaker decides. It takes a lock and leaves its open state only when asked,
// so that its answer is mirrored in a word of ours.
type Breaker struct {
	open   atomic.Bool // the mirror
	failed atomic.Bool // there were failures since the last success

	name string
	cfg  BreakerConfig

	mu      sync.Mutex
	breaker *gobreaker.CircuitBreaker[struct{}] // guarded by mu

	telling sync.Mutex
	told    bool // guarded by telling; what OnChange was told last
}

// NewBreaker returns a closed breaker for the node called name.
func NewBreaker(name string, cfg BreakerConfig) *Breaker {
	b := &Breaker{name: name, cfg: cfg.withDefaults()}
	b.breaker = b.fresh()
	return b
}

// fresh returns a closed gobreaker without memory.
func (b *Breaker) fresh() *gobreaker.CircuitBreaker[struct{}] {
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:     b.name,
		Interval: b.cfg.Window,
		Timeout:  b.cfg.Cooldown,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= uint32(b.cfg.Failures)
		},
		// Half-open is open to those who ask: one success decides, not a rush
		// of statements. gobreaker holds its lock here: asking it would deadlock.
		OnStateChange: func(_ string, _, to gobreaker.State) {
			b.open.Store(to != gobreaker.StateClosed)
		},
	})
}

// Open reports whether the node should be left alone. It costs one load.
func (b *Breaker) Open() bool { return b.open.Load() }

// Failure tells the breaker that a statement or a dial failed with err. Only
// what [Counts] is counted.
func (b *Breaker) Failure(err error) {
	if Counts(err) {
		b.count(err)
	}
}

// Success tells the breaker that the node has answered. After a failure it ends
// the row; while the breaker is open it closes it, but not before Cooldown is
// over, since it may be an echo from before the failures. Otherwise it costs one
// load.
func (b *Breaker) Success() {
	if b.failed.Load() {
		b.count(nil)
	}
}

// Probe tells the breaker how the prober's question to the node ended. An answer
// closes it at once, even one that is an error, such as a missing privilege.
// Silence until the deadline is a failure, as is whatever [Counts].
func (b *Breaker) Probe(err error) {
	switch {
	case err == nil:
		b.reset()
	case errors.Is(err, context.Canceled): // the prober was stopped
	case Counts(err), isTimeout(err):
		b.count(err)
	default:
		if _, ok := errors.AsType[*pgconn.PgError](err); ok {
			b.reset()
		}
	}
}

// count lets gobreaker count one outcome. While it is open and cools down it
// refuses, which is as well.
func (b *Breaker) count(err error) {
	b.mu.Lock()
	b.failed.Store(true)
	b.breaker.Execute(func() (struct{}, error) { return struct{}{}, err }) //nolint:errcheck // it is ours, or a refusal
	if err == nil {
		b.failed.Store(b.open.Load())
	}
	b.mu.Unlock()
	b.tell()
}

// reset closes the breaker. gobreaker has no such verb: it gets a successor.
func (b *Breaker) reset() {
	if !b.failed.Load() {
		return
	}
	b.mu.Lock()
	b.breaker = b.fresh()
	b.failed.Store(false)
	b.open.Store(false)
	b.mu.Unlock()
	b.tell()
}

// tell passes a change on.
func (b *Breaker) tell() {
	if b.cfg.OnChange == nil {
		return
	}
	b.telling.Lock()
	defer b.telling.Unlock()
	if open := b.open.Load(); open != b.told {
		b.told = open
		b.cfg.OnChange(open)
	}
}

// Counts reports whether err says that the node does not answer: a connection
// that could not be made, broke, or was ended by a server that goes down. Errors
// of SQL, contexts that ended and "too many connections" (53300) say nothing of
// the kind.
func Counts(err error) bool {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return countsState(pgErr.Code)
	}
	if lost, ok := errors.AsType[*LostError](err); ok && lost.LastWords != nil {
		return countsState(lost.LastWords.Code)
	}
	if errors.Is(err, context.Canceled) {
		return false
	}
	if _, ok := errors.AsType[*DialError](err); ok {
		return true // its deadline, too, is the pool's and not the caller's
	}
	if isTimeout(err) || errors.Is(err, net.ErrClosed) {
		return false // the caller's impatience, our own Abort
	}
	return isBroken(err)
}

// countsState tells the SQLSTATEs of a node that goes away from all others.
func countsState(code string) bool {
	switch code {
	case "57P01", "57P02", "57P03": // admin_shutdown, crash_shutdown, cannot_connect_now
		return true
	default:
		return strings.HasPrefix(code, "08")
	}
}

// isTimeout reports whether a deadline of ours has passed, in a context or on a
// socket. The kernel's ETIMEDOUT is another matter.
func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// isBroken reports whether a socket, a name service or a handshake has failed.
func isBroken(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return true
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return true
	}
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return true
	}
	_, ok := errors.AsType[*pgconn.ConnectError](err)
	return ok
}
