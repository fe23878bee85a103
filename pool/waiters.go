package pool

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// waiter is one Acquire that stands in line. It is in the line, or it has been
// answered exactly once.
type waiter struct {
	answered chan struct{} // capacity 1; conn or err is set
	conn     *Conn
	err      error

	queued     bool    // guarded by Pool.mu; still in the line
	number     uint64  // guarded by Pool.mu; place in the order of arrival
	prev, next *waiter // guarded by Pool.mu
}

// give answers the waiter with a connection that is busy.
func (w *waiter) give(c *Conn) {
	w.conn = c
	w.answered <- struct{}{}
}

// fail answers the waiter with an error.
func (w *waiter) fail(err error) {
	w.err = err
	w.answered <- struct{}{}
}

// line is a doubly linked list of waiters in the order of their arrival.
type line struct {
	head, tail *waiter
	length     int
	arrivals   uint64 // number of the last arrival
}

// push lets w stand at the end.
func (l *line) push(w *waiter) {
	l.arrivals++
	w.number, w.queued = l.arrivals, true
	w.prev, w.next = l.tail, nil
	if l.tail == nil {
		l.head = w
	} else {
		l.tail.next = w
	}
	l.tail = w
	l.length++
}

// remove takes w out, wherever it stands.
func (l *line) remove(w *waiter) {
	if w.prev == nil {
		l.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
	l.length--
}

// wait stands in line until a connection is free, ctx ends or the pool gives up.
func (p *Pool) wait(ctx context.Context) (*Conn, error) {
	if ctx.Err() != nil {
		return nil, p.interrupted(ctx)
	}
	w := p.newWaiter()
	start := time.Now()
	if err := p.enqueue(w); err != nil {
		return nil, err
	}
	select {
	case <-w.answered:
	case <-ctx.Done():
		if p.leave(w) {
			p.recycle(w, start)
			return nil, p.interrupted(ctx)
		}
		<-w.answered
		if w.conn != nil {
			p.Release(w.conn, nil)
			p.recycle(w, start)
			return nil, p.interrupted(ctx)
		}
	}
	c, err := w.conn, w.err
	p.recycle(w, start)
	return c, err
}

// enqueue lets w stand in line and sees to it that it will be answered: by a
// connection that fell idle since, by a dial, or by whoever releases one.
func (p *Pool) enqueue(w *waiter) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	p.line.push(w)
	p.waiting.Add(1)
	p.serveLocked()
	p.dialLocked()
	return nil
}

// leave takes w out of the line; it reports false if w has been answered.
func (p *Pool) leave(w *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !w.queued {
		return false
	}
	p.line.remove(w)
	p.waiting.Add(-1)
	return true
}

// popLocked takes the one who has waited longest out of the line; nil if nobody
// waits.
func (p *Pool) popLocked() *waiter {
	w := p.line.head
	if w != nil {
		p.line.remove(w)
		p.waiting.Add(-1)
	}
	return w
}

// serveLocked brings idle connections and waiters together.
func (p *Pool) serveLocked() {
	for p.line.length > 0 {
		c := p.scan()
		if c == nil {
			return
		}
		p.popLocked().give(c)
	}
}

// handOver gives a connection that is busy to the one who has waited longest. It
// reports false if nobody waits any more.
func (p *Pool) handOver(c *Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.popLocked()
	if w == nil {
		return false
	}
	p.slots[c.slot].word.Add(oneUse)
	w.give(c)
	return true
}

// newWaiter returns a waiter, one that served before if possible.
func (p *Pool) newWaiter() *waiter {
	if w, ok := p.waiters.Get().(*waiter); ok {
		return w
	}
	return &waiter{answered: make(chan struct{}, 1)}
}

// recycle notes how long w waited and keeps it for another.
func (p *Pool) recycle(w *waiter, start time.Time) {
	waited := time.Since(start)
	w.conn, w.err = nil, nil
	p.mu.Lock()
	p.counts.waits++
	p.counts.waitTime += waited
	p.mu.Unlock()
	p.waiters.Put(w)
}

// interrupted says that ctx ended before a connection was free.
func (p *Pool) interrupted(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return fmt.Errorf("helios: node %s: no free connection: %w", p.cfg.Name, cause)
	}
	return fmt.Errorf("helios: node %s: no free connection: %w (%w)", p.cfg.Name, cause, err)
}
