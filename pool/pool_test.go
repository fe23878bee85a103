package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// testConn returns a connection over an in-memory pipe, with nobody at the other
// end.
func testConn() *Conn {
	near, _ := net.Pipe()
	return &Conn{socket: near, born: time.Now()}
}

// fakeNode is what the pool under test dials.
type fakeNode struct {
	delay time.Duration // how long a dial takes
	err   atomic.Pointer[error]

	dials   atomic.Int32 // begun
	now     atomic.Int32 // under way
	most    atomic.Int32 // under way at once
	cleaned atomic.Int32
}

// fail makes dials end with err; nil makes them work again.
func (n *fakeNode) fail(err error) { n.err.Store(&err) }

func (n *fakeNode) dial(ctx context.Context) (*Conn, error) {
	n.dials.Add(1)
	now := n.now.Add(1)
	defer n.now.Add(-1)
	for most := n.most.Load(); now > most && !n.most.CompareAndSwap(most, now); most = n.most.Load() {
	}
	if n.delay > 0 {
		select {
		case <-time.After(n.delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := n.err.Load(); err != nil && *err != nil {
		return nil, *err
	}
	return testConn(), nil
}

// clean takes 10 ms.
func (n *fakeNode) clean(ctx context.Context, _ *Conn) error {
	select {
	case <-time.After(10 * time.Millisecond):
		n.cleaned.Add(1)
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// config returns a configuration with the fake node behind it.
func (n *fakeNode) config(conns, dials int) Config {
	return Config{
		Name: "n1", Dial: n.dial, Clean: n.clean,
		MaxConns: conns, MaxDials: dials, DialTimeout: 5 * time.Second, CleanTimeout: time.Second,
	}
}

// start returns a pool that is closed when the test ends.
func start(tb testing.TB, cfg Config) *Pool {
	tb.Helper()
	p := New(cfg)
	tb.Cleanup(func() { p.Close() })
	return p
}

// acquire fails the test if there is no connection.
func acquire(tb testing.TB, p *Pool) *Conn {
	tb.Helper()
	c, err := p.Acquire(context.Background(), nil)
	if err != nil {
		tb.Fatalf("Acquire: %v", err)
	}
	return c
}

// bubble runs f in a bubble with a pool, which it closes at the end: a goroutine
// that is left then fails the test.
func bubble(t *testing.T, cfg Config, f func(t *testing.T, p *Pool)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := New(cfg)
		defer p.Close()
		f(t, p)
	})
}

func TestSessionComesBackToItsConnection(t *testing.T) {
	var n fakeNode
	p := start(t, n.config(3, 3))
	a, b := acquire(t, p), acquire(t, p)
	var hint Hint
	p.Release(b, &hint)
	p.Release(a, nil)
	for range 3 {
		c, err := p.Acquire(t.Context(), &hint)
		if err != nil || c != b {
			t.Fatalf("Acquire with a hint = %p, %v, want %p", c, err, b)
		}
		p.Release(c, &hint)
	}
	if c := acquire(t, p); c != a {
		t.Errorf("Acquire without a hint = %p, want the lowest slot's %p", c, a)
	}
	if got := p.Stats(); got.Acquired != 6 || got.Open != 2 || got.Idle != 1 || got.Busy != 1 {
		t.Errorf("Stats() = %+v, want 6 acquired, 1 idle, 1 busy", got)
	}
}

func TestFewConnectionsAreOpenedWhenLittleGoesOn(t *testing.T) {
	var n fakeNode
	p := start(t, n.config(20, 20))
	for range 100 {
		a, b := acquire(t, p), acquire(t, p)
		p.Release(a, nil)
		p.Release(b, nil)
	}
	if got := n.dials.Load(); got != 2 {
		t.Errorf("%d dials for two connections in use", got)
	}
}

func TestNewMakesNoConnection(t *testing.T) {
	var n fakeNode
	p := start(t, n.config(4, 4))
	if got := p.Stats(); n.dials.Load() != 0 || got.Open != 0 || got.Max != 4 {
		t.Errorf("after New: %d dials, %+v", n.dials.Load(), got)
	}
}

func TestDeadConnectionIsNotLent(t *testing.T) {
	var n fakeNode
	p := start(t, n.config(2, 2))
	a, b := acquire(t, p), acquire(t, p)
	p.Release(a, nil)
	p.Release(b, nil)
	a.Abort(nil) // died in the pool
	if c := acquire(t, p); c != b {
		t.Errorf("Acquire = %p, want %p, the one that lives", c, b)
	}
	b.Abort(nil) // dies in use
	p.Release(b, nil)
	if got := p.Stats(); got.Open != 0 || got.Discarded != 2 {
		t.Errorf("Stats() = %+v, want nothing open", got)
	}
}

func TestWaitersAreServedInOrder(t *testing.T) {
	var n fakeNode
	bubble(t, n.config(1, 1), func(t *testing.T, p *Pool) {
		held := acquire(t, p)
		var order []int
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				c := acquire(t, p)
				order = append(order, i)
				time.Sleep(time.Millisecond)
				p.Release(c, nil)
			})
			synctest.Wait()
		}
		if got := p.Stats().Waiting; got != 50 {
			t.Fatalf("Stats().Waiting = %d, want 50", got)
		}
		p.Release(held, nil)
		all.Wait()
		if !slices.IsSorted(order) || len(order) != 50 {
			t.Errorf("served in the order %v", order)
		}
		if got := p.Stats(); got.Waits != 51 || got.WaitTime != 49*50/2*time.Millisecond {
			t.Errorf("Stats() = %+v, want 51 waits, 1.225s in all", got)
		}
	})
}

func TestSomebodyNewDoesNotOvertakeWaiters(t *testing.T) {
	var n fakeNode
	bubble(t, n.config(1, 1), func(t *testing.T, p *Pool) {
		var hint Hint
		served := false
		var all sync.WaitGroup
		held := acquire(t, p)
		all.Go(func() {
			c := acquire(t, p)
			served = true
			p.Release(c, nil)
		})
		synctest.Wait()
		p.Release(held, &hint)
		c, err := p.Acquire(t.Context(), &hint)
		if err != nil || !served {
			t.Errorf("Acquire = %v, waiter served: %v; want the waiter first", err, served)
		}
		p.Release(c, nil)
		all.Wait()
	})
}

func TestWaiterLeavesWhenItsContextEnds(t *testing.T) {
	var n fakeNode
	bubble(t, n.config(1, 1), func(t *testing.T, p *Pool) {
		held := acquire(t, p)
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("too slow for me"))
		defer cancel()
		_, err := p.Acquire(ctx, nil)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Acquire: %v, want a DeadlineExceeded", err)
		}
		const text = "helios: node n1: no free connection: too slow for me (context deadline exceeded)"
		if got := fmt.Sprint(err); got != text {
			t.Errorf("Acquire: %q, want %q", got, text)
		}
		if _, err := p.Acquire(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Acquire with an ended context: %v", err)
		}
		p.Release(held, nil)
		if got := p.Stats(); got.Waiting != 0 || got.Idle != 1 {
			t.Errorf("Stats() = %+v, want one idle connection and nobody waiting", got)
		}
	})
}

func TestCancelledWaiterLosesNoConnection(t *testing.T) {
	var n fakeNode
	p := start(t, n.config(1, 1))
	for range 2000 {
		held := acquire(t, p)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			c, err := p.Acquire(ctx, nil)
			if err == nil {
				p.Release(c, nil)
			} else if !errors.Is(err, context.Canceled) {
				t.Errorf("Acquire: %v", err)
			}
		})
		all.Go(cancel)
		all.Go(func() { p.Release(held, nil) })
		all.Wait()
	}
	if got := p.Stats(); got.Idle != 1 || got.Busy != 0 || got.Waiting != 0 || n.dials.Load() != 1 {
		t.Errorf("Stats() = %+v after %d dials, want the one connection idle", got, n.dials.Load())
	}
}

func TestCancelledWaiterLeavesItsDialToOthers(t *testing.T) {
	n := fakeNode{delay: 2 * time.Second}
	bubble(t, n.config(1, 1), func(t *testing.T, p *Pool) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.Acquire(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Acquire: %v", err)
		}
		began := time.Now()
		p.Release(acquire(t, p), nil)
		if got := time.Since(began); got != time.Second || n.dials.Load() != 1 {
			t.Errorf("the next waited %v for dial %d, want 1s for the first", got, n.dials.Load())
		}
	})
}

func TestDialsAreCapped(t *testing.T) {
	n := fakeNode{delay: time.Second}
	bubble(t, n.config(10, 3), func(t *testing.T, p *Pool) {
		var all sync.WaitGroup
		began := time.Now()
		for range 30 {
			all.Go(func() {
				c := acquire(t, p)
				time.Sleep(time.Hour)
				p.Release(c, nil)
			})
		}
		time.Sleep(3500 * time.Millisecond) // three rounds of three
		if got := p.Stats(); got.Open != 9 || got.Dialing != 1 || got.Waiting != 21 {
			t.Errorf("Stats() = %+v after 3.5s, want 9 open, 1 being made, 21 waiting", got)
		}
		all.Wait()
		if n.most.Load() != 3 || n.dials.Load() != 10 {
			t.Errorf("%d dials, %d at once; want 10, 3", n.dials.Load(), n.most.Load())
		}
		if got := time.Since(began); got > 3*time.Hour+10*time.Second {
			t.Errorf("it took %v, want three rounds of an hour", got)
		}
	})
}

func TestReleasedConnectionServesWhoWaitsForADial(t *testing.T) {
	n := fakeNode{}
	bubble(t, n.config(2, 1), func(t *testing.T, p *Pool) {
		held := acquire(t, p)
		n.delay = time.Second
		var all sync.WaitGroup
		all.Go(func() {
			began := time.Now()
			c := acquire(t, p)
			if c != held || time.Since(began) != 0 {
				t.Errorf("the waiter got %p after %v, want the released %p at once", c, time.Since(began), held)
			}
			p.Release(c, nil)
		})
		synctest.Wait()
		p.Release(held, nil)
		all.Wait()
		time.Sleep(2 * time.Second)
		if got := p.Stats(); got.Idle != 2 {
			t.Errorf("Stats() = %+v, want the dialed connection idle as well", got)
		}
	})
}

func TestSilentNodeCostsEverybodyOneTimeout(t *testing.T) {
	n := fakeNode{delay: time.Hour}
	bubble(t, n.config(20, 2), func(t *testing.T, p *Pool) {
		var all sync.WaitGroup
		began := time.Now()
		for range 100 {
			all.Go(func() {
				_, err := p.Acquire(t.Context(), nil)
				failed, ok := errors.AsType[*DialError](err)
				if !ok || failed.Node != "n1" || !errors.Is(err, context.DeadlineExceeded) || !Counts(err) {
					t.Errorf("Acquire: %v, want a DialError for a timeout, which counts", err)
				}
			})
			time.Sleep(time.Millisecond)
		}
		all.Wait()
		// Whoever came after the first two dials had begun shares the next two.
		if got := time.Since(began); got > 10*time.Second+time.Millisecond {
			t.Errorf("the last one waited until %v, want two timeouts at most", got)
		}
		if got := p.Stats(); got.Open != 0 || got.Waiting != 0 || got.DialErrors > 4 {
			t.Errorf("Stats() = %+v, want nothing left and 4 dials at most", got)
		}
	})
}

func TestDialErrorSaysWhere(t *testing.T) {
	var n fakeNode
	p := start(t, n.config(1, 1))
	refused := errors.New("connection refused")
	n.fail(refused)
	_, err := p.Acquire(t.Context(), nil)
	if got := fmt.Sprint(err); got != "helios: node n1: cannot connect: connection refused" || !errors.Is(err, refused) {
		t.Errorf("Acquire: %v", err)
	}
	n.fail(nil)
	p.Release(acquire(t, p), nil)
}

func TestStillbornConnectionIsADialError(t *testing.T) {
	p := start(t, Config{Name: "n1", MaxConns: 1, Dial: func(context.Context) (*Conn, error) {
		c := testConn()
		c.Abort(nil)
		return c, nil
	}})
	if _, err := p.Acquire(t.Context(), nil); !errors.Is(err, errStillborn) {
		t.Errorf("Acquire: %v, want %v", err, errStillborn)
	}
}

func TestDirtyConnectionIsCleanedBeforeItIsFree(t *testing.T) {
	var n fakeNode
	bubble(t, n.config(1, 1), func(t *testing.T, p *Pool) {
		c := acquire(t, p)
		began := time.Now()
		p.ReleaseDirty(c)
		synctest.Wait()
		if got := p.Stats(); got.Cleaning != 1 || got.Open != 1 {
			t.Errorf("Stats() = %+v, want one being cleaned", got)
		}
		if next := acquire(t, p); next != c || time.Since(began) != 10*time.Millisecond {
			t.Errorf("Acquire = %p after %v, want %p after 10ms", next, time.Since(began), c)
		}
		p.Release(c, nil)
	})
}

func TestConnectionThatStaysDirtyIsClosed(t *testing.T) {
	var n fakeNode
	cfg := n.config(1, 1)
	cfg.CleanTimeout = time.Millisecond
	bubble(t, cfg, func(t *testing.T, p *Pool) {
		c := acquire(t, p)
		p.ReleaseDirty(c)
		if next := acquire(t, p); next == c {
			t.Error("a connection that could not be cleaned was lent")
		} else {
			p.Release(next, nil)
		}
		if got := p.Stats(); got.Cleaned != 0 || got.Discarded != 1 {
			t.Errorf("Stats() = %+v, want one discarded", got)
		}
	})
}

func TestFenceEndsEverythingAtOnce(t *testing.T) {
	var n fakeNode
	bubble(t, n.config(3, 1), func(t *testing.T, p *Pool) {
		inUse, idleOne, dirty := acquire(t, p), acquire(t, p), acquire(t, p)
		p.Release(idleOne, nil)
		p.ReleaseDirty(dirty)
		fenced := errors.New("timeline 4 was left behind")
		p.Fence(fenced)
		buf := make([]byte, 1)
		if _, err := inUse.socket.Read(buf); err == nil {
			t.Error("the connection in use can still be read from")
		}
		synctest.Wait()
		if got := p.Stats(); got.Open != 1 || got.Busy != 1 {
			t.Errorf("Stats() = %+v, want only the one that its holder still has", got)
		}
		p.Release(inUse, nil)
		next := acquire(t, p)
		if slices.Contains([]*Conn{inUse, idleOne, dirty}, next) || !next.Usable() {
			t.Error("a connection from before the fence was lent")
		}
		p.Release(next, nil)
	})
}

func TestFenceFailsWaitersAndTheirDials(t *testing.T) {
	n := fakeNode{delay: time.Second}
	bubble(t, n.config(2, 2), func(t *testing.T, p *Pool) {
		fenced := errors.New("timeline 4 was left behind")
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				if _, err := p.Acquire(t.Context(), nil); !errors.Is(err, fenced) {
					t.Errorf("Acquire: %v, want the fence's cause", err)
				}
			})
		}
		time.Sleep(time.Millisecond)
		began := time.Now()
		p.Fence(fenced)
		all.Wait()
		if time.Since(began) != 0 {
			t.Errorf("waiters were told after %v", time.Since(began))
		}
		p.Release(acquire(t, p), nil)
		if got := time.Since(began); got != time.Second {
			t.Errorf("a connection after the fence took %v, want the time of a dial", got)
		}
		if got := p.Stats(); got.DialErrors != 0 || got.Open != 1 {
			t.Errorf("Stats() = %+v, want one open and no dial errors", got)
		}
	})
}

func TestConnectionDialedAcrossAFenceIsClosed(t *testing.T) {
	var dials atomic.Int32
	var first atomic.Pointer[Conn]
	cfg := Config{Name: "n1", MaxConns: 2, MaxDials: 2, Dial: func(context.Context) (*Conn, error) {
		c := testConn()
		if dials.Add(1) == 1 {
			time.Sleep(time.Minute) // does not listen to its context
			first.Store(c)
		}
		return c, nil
	}}
	bubble(t, cfg, func(t *testing.T, p *Pool) {
		var all sync.WaitGroup
		all.Go(func() { p.Acquire(t.Context(), nil) })
		synctest.Wait()
		p.Fence(errors.New("fenced"))
		began := time.Now()
		p.Release(acquire(t, p), nil)
		if got := time.Since(began); got != 0 {
			t.Errorf("a new dial waited %v for one that was given up", got)
		}
		time.Sleep(2 * time.Minute)
		if got := p.Stats(); first.Load().Usable() || got.Open != 1 || got.Dialing != 0 {
			t.Errorf("Stats() = %+v, want the connection whose dial began before the fence closed", got)
		}
		all.Wait()
	})
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	n := fakeNode{delay: time.Second}
	cfg := n.config(4, 1)
	cfg.MaxIdle, cfg.MinConns = time.Minute, 2
	synctest.Test(t, func(t *testing.T) {
		p := New(cfg)
		p.Warm()
		held, dirty := acquire(t, p), acquire(t, p)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				ctx := t.Context()
				if _, err := p.Acquire(ctx, nil); !errors.Is(err, ErrClosed) {
					t.Errorf("Acquire: %v, want ErrClosed", err)
				}
			})
		}
		synctest.Wait()
		p.ReleaseDirty(dirty)
		if err := p.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		all.Wait()
		if held.Usable() {
			t.Error("a connection in use outlived Close")
		}
		p.Release(held, nil)
		if _, err := p.Acquire(t.Context(), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Acquire after Close: %v, want ErrClosed", err)
		}
		p.Warm()
		if got := p.Stats(); got.Open != 0 || got.Dialing != 0 {
			t.Errorf("Stats() = %+v after Close", got)
		}
		p.Close()
	})
}

func TestConnectionHasOneHolder(t *testing.T) {
	var n fakeNode
	p := start(t, n.config(1, 1))
	c := acquire(t, p)
	p.Release(c, nil)
	defer func() {
		if recover() == nil {
			t.Error("a connection was given back twice and nobody noticed")
		}
	}()
	p.Release(c, nil)
}

func TestWarmKeepsConnectionsOpen(t *testing.T) {
	n := fakeNode{delay: time.Millisecond}
	cfg := n.config(8, 2)
	cfg.MinConns, cfg.MaxIdle = 4, time.Minute
	bubble(t, cfg, func(t *testing.T, p *Pool) {
		p.Warm()
		time.Sleep(10 * time.Millisecond)
		if got := p.Stats(); got.Idle != 4 || n.most.Load() > 2 {
			t.Errorf("Stats() = %+v, %d dials at once; want 4 idle, 2 at once", got, n.most.Load())
		}
		n.fail(errors.New("refused"))
		p.Discard(acquire(t, p))
		time.Sleep(time.Hour)
		if got := p.Stats().Idle; got != 3 {
			t.Errorf("%d idle while dials fail, want 3", got)
		}
		dials := n.dials.Load()
		if dials > 4+3600+2 {
			t.Errorf("%d dials in an hour, want one a second", dials)
		}
		n.fail(nil)
		time.Sleep(2 * time.Second)
		if got := p.Stats().Idle; got != 4 {
			t.Errorf("%d idle after the node came back, want 4", got)
		}
		p.Fence(errors.New("fenced"))
		time.Sleep(time.Hour)
		if got := p.Stats().Open; got != 0 {
			t.Errorf("%d open an hour after the fence, want none before the next Warm", got)
		}
	})
}

func TestUnusedConnectionsAreClosed(t *testing.T) {
	var n fakeNode
	cfg := n.config(8, 8)
	cfg.MaxIdle = time.Minute
	bubble(t, cfg, func(t *testing.T, p *Pool) {
		conns := []*Conn{acquire(t, p), acquire(t, p), acquire(t, p)}
		for _, c := range conns {
			p.Release(c, nil)
		}
		for range 10 { // one of them stays in use now and then
			time.Sleep(50 * time.Second)
			p.Release(acquire(t, p), nil)
		}
		if got := p.Stats().Open; got != 1 {
			t.Errorf("%d open, want the one that is in use now and then", got)
		}
		time.Sleep(59 * time.Second)
		if got := p.Stats().Open; got != 1 {
			t.Error("a connection was closed before MaxIdle was over")
		}
		time.Sleep(time.Minute)
		if got := p.Stats().Open; got != 0 {
			t.Errorf("%d open after MaxIdle, want none", got)
		}
	})
}

func TestOldConnectionsAreRetired(t *testing.T) {
	var n fakeNode
	cfg := n.config(8, 8)
	cfg.MaxLifetime = time.Hour
	bubble(t, cfg, func(t *testing.T, p *Pool) {
		held, idleOne := acquire(t, p), acquire(t, p)
		p.Release(idleOne, nil)
		time.Sleep(50 * time.Minute)
		if got := p.Stats().Open; got != 2 {
			t.Errorf("%d open after 50 minutes, want 2", got)
		}
		time.Sleep(15 * time.Minute)
		if idleOne.Usable() || !held.Usable() {
			t.Errorf("idle one usable: %v, lent one: %v; want false, true", idleOne.Usable(), held.Usable())
		}
		p.Release(held, nil)
		if got := p.Stats().Open; got != 0 {
			t.Errorf("%d open after an hour, want none", got)
		}
	})
}

func TestFastPathAllocatesNothing(t *testing.T) {
	var n fakeNode
	p := start(t, n.config(4, 4))
	var hint Hint
	p.Release(acquire(t, p), &hint)
	ctx := t.Context()
	if got := testing.AllocsPerRun(1000, func() {
		c, err := p.Acquire(ctx, &hint)
		if err != nil {
			t.Fatal(err)
		}
		p.Release(c, &hint)
	}); got != 0 {
		t.Errorf("Acquire and Release allocate %v times", got)
	}
}

// holders notes who has which connection.
type holders struct{ held sync.Map }

func (h *holders) take(tb testing.TB, c *Conn) {
	if _, loaded := h.held.LoadOrStore(c, true); loaded {
		tb.Error("two sessions hold one connection")
	}
}

func (h *holders) leave(c *Conn) { h.held.Delete(c) }

func TestManySessionsShareFewConnections(t *testing.T) {
	n := fakeNode{delay: 20 * time.Microsecond}
	cfg := n.config(4, 2)
	cfg.Clean = func(context.Context, *Conn) error { return nil }
	cfg.MaxIdle, cfg.MaxLifetime = time.Millisecond, 200*time.Millisecond
	p := start(t, cfg)
	var all sync.WaitGroup
	var h holders
	fenced := errors.New("fenced")
	for g := range 32 {
		all.Go(func() { stress(t, p, &h, g, fenced) })
	}
	stop := make(chan struct{})
	var troubles sync.WaitGroup
	troubles.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(3 * time.Millisecond):
			}
			p.Stats()
			if i%2 == 0 {
				p.Fence(fenced)
			} else {
				n.fail(errors.New("refused"))
				time.Sleep(time.Millisecond)
				n.fail(nil)
			}
		}
	})
	all.Wait()
	close(stop)
	troubles.Wait()
	if got := p.Stats(); got.Busy != 0 || got.Waiting != 0 || got.Open > 4 {
		t.Errorf("Stats() = %+v when all is over", got)
	}
}

// stress uses connections in all the ways there are.
func stress(t *testing.T, p *Pool, h *holders, g int, fenced error) {
	var hint Hint
	for i := range 1500 {
		ctx, cancel := t.Context(), context.CancelFunc(func() {})
		if (g+i)%7 == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(i%50)*time.Microsecond)
		}
		c, err := p.Acquire(ctx, &hint)
		cancel()
		if err != nil {
			_, dial := errors.AsType[*DialError](err)
			if !dial && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, fenced) {
				t.Errorf("Acquire: %v", err)
			}
			continue
		}
		h.take(t, c)
		h.leave(c)
		switch (g * i) % 97 {
		case 1:
			p.Discard(c)
		case 2:
			p.ReleaseDirty(c)
		case 3:
			c.Abort(nil)
			p.Release(c, nil)
		default:
			p.Release(c, &hint)
		}
	}
}

func BenchmarkAcquireRelease(b *testing.B) {
	for _, g := range []int{1, 8, 32, 256} {
		b.Run(fmt.Sprintf("goroutines=%d/conns=32", g), func(b *testing.B) { benchmarkPool(b, g, 32) })
	}
	b.Run("goroutines=256/conns=4", func(b *testing.B) { benchmarkPool(b, 256, 4) })
}

func benchmarkPool(b *testing.B, goroutines, conns int) {
	var n fakeNode
	p := start(b, n.config(conns, conns))
	b.ReportAllocs()
	b.ResetTimer()
	var all sync.WaitGroup
	left := atomic.Int64{}
	left.Store(int64(b.N))
	for range goroutines {
		all.Go(func() {
			var hint Hint
			for left.Add(-64) > -64 {
				for range 64 {
					c, err := p.Acquire(context.Background(), &hint)
					if err != nil {
						b.Error(err)
						return
					}
					p.Release(c, &hint)
				}
			}
		})
	}
	all.Wait()
}
