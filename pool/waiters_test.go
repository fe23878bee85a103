package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

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

func TestNoWaiterIsOverlooked(t *testing.T) {
	var n fakeNode
	p := start(t, n.config(1, 1))
	var all sync.WaitGroup
	for range 2 { // with two, nobody else repairs a lost wake-up
		all.Go(func() {
			var hint Hint
			for range 100_000 {
				c, err := p.Acquire(context.Background(), &hint)
				if err != nil {
					t.Errorf("Acquire: %v", err)
					return
				}
				p.Release(c, &hint)
			}
		})
	}
	all.Wait()
}

// The moments between two instructions of Release, one at a time.
func TestWhatHappensJustBeforeIdleIsSeenAfter(t *testing.T) {
	t.Run("a waiter comes", func(t *testing.T) {
		var n fakeNode
		p := start(t, n.config(1, 1))
		c := acquire(t, p)
		w := p.newWaiter()
		if err := p.enqueue(w); err != nil {
			t.Fatal(err)
		}
		p.slotOf(c).change(busy, idle)
		p.afterIdle(p.slotOf(c))
		select {
		case <-w.answered:
		default:
			t.Fatal("the waiter was overlooked")
		}
		p.Release(w.conn, nil)
	})
	t.Run("a fence passes", func(t *testing.T) {
		var n fakeNode
		p := start(t, n.config(1, 1))
		c := acquire(t, p)
		s := p.slotOf(c)
		p.Fence(errors.New("fenced"))
		s.change(busy, idle)
		p.afterIdle(s)
		if got := p.Stats(); got.Open != 0 {
			t.Errorf("Stats() = %+v, want the fenced connection gone", got)
		}
	})
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
