package pool

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"
)

// States of a slot, in the low bits of its word. Only the holder of a slot
// changes it, but for the step from idle to busy, which anyone may try.
const (
	empty    uint64 = iota // no connection
	dialing                // a goroutine of the pool is making one
	idle                   // free to take
	busy                   // lent, or being closed
	cleaning               // a goroutine of the pool is cleaning it

	stateMask uint64 = 7
	oneUse    uint64 = 8 // the bits above count how often the slot was taken
)

// slot is the place of one connection. Each has cache lines of its own, so that
// sessions on different connections do not slow each other down.
type slot struct {
	slotFields
	_ [128 - unsafe.Sizeof(slotFields{})%128]byte
}

type slotFields struct {
	word    atomic.Uint64        // state and number of uses
	conn    atomic.Pointer[Conn] // nil while empty or dialing
	retired atomic.Bool          // the connection is closed when it is released

	stop     context.CancelCauseFunc // guarded by Pool.mu; ends the dial or the cleaning under way, else nil
	expires  time.Time               // guarded by Pool.mu; when the connection is too old; zero: never
	seenWord uint64                  // guarded by Pool.mu; word at seenAt
	seenAt   time.Time               // guarded by Pool.mu; since when nobody has used the slot, as far as sweeps saw
}

// take makes an idle slot busy and reports whether it did.
func (s *slot) take() bool {
	old := s.word.Load()
	return old&stateMask == idle && s.word.CompareAndSwap(old, old+oneUse+(busy-idle))
}

// change takes the slot from one state to another. The caller holds the slot; if
// it does not, two sessions share a connection, and nothing is safe any more.
func (s *slot) change(from, to uint64) {
	old := s.word.Load()
	if old&stateMask != from || !s.word.CompareAndSwap(old, old-from+to) {
		panic(fmt.Sprintf("pool: a connection has one holder at a time: slot in state %d, want %d", old&stateMask, from))
	}
}

// state returns the slot's state at this moment.
func (s *slot) state() uint64 { return s.word.Load() & stateMask }

// slotOf returns the slot of a connection that is lent.
func (p *Pool) slotOf(c *Conn) *slot {
	s := &p.slots[c.slot]
	if s.conn.Load() != c {
		panic("pool: a connection has one holder at a time: it was given back before")
	}
	return s
}

// takeIdle takes the hinted slot, or the first idle one: low slots stay hot, and
// high ones fall idle when less is going on. While others wait it takes nothing:
// they come first.
func (p *Pool) takeIdle(hint *Hint) *Conn {
	if hint != nil && hint.slot > 0 && int(hint.slot) <= len(p.slots) {
		if s := &p.slots[hint.slot-1]; s.take() {
			return s.conn.Load()
		}
	}
	if p.waiting.Load() > 0 {
		return nil
	}
	return p.scan()
}

// scan takes the first idle slot and returns its connection; nil if there is
// none.
func (p *Pool) scan() *Conn {
	for i := range p.slots[:p.used.Load()] {
		if s := &p.slots[i]; s.take() {
			return s.conn.Load()
		}
	}
	return nil
}

// reserveLocked takes the first empty slot for a connection that is to be made.
// The caller has made sure that there is one.
func (p *Pool) reserveLocked() int {
	for i := range p.slots {
		s := &p.slots[i]
		if s.state() != empty {
			continue
		}
		s.change(empty, dialing)
		p.taken++
		if int(p.used.Load()) <= i {
			p.used.Store(int32(i) + 1)
		}
		return i
	}
	panic("pool: taken counts the slots that are not empty, and is off")
}
