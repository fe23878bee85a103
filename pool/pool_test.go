package pool

import (
	"context"
	"errors"
	"fmt"
	"net"
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
