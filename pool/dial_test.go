package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

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

func TestFailedDialIsNotBlamedOnWhoCameLater(t *testing.T) {
	var dials atomic.Int32
	cfg := Config{Name: "n1", MaxConns: 2, MaxDials: 1, Dial: func(context.Context) (*Conn, error) {
		if dials.Add(1) == 1 {
			time.Sleep(time.Second)
			return nil, errors.New("refused")
		}
		return testConn(), nil
	}}
	bubble(t, cfg, func(t *testing.T, p *Pool) {
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := p.Acquire(t.Context(), nil); err == nil {
				t.Error("the first Acquire worked, want the error of its dial")
			}
		})
		synctest.Wait()
		p.Release(acquire(t, p), nil)
		all.Wait()
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
