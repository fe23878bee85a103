package relay

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/heliosdb/helios/wal"
)

// Sizes of a [Buffer]: what it gets if nothing is said, and the least it works
// with.
const (
	DefaultBufferSize = 1 << 30
	MinBufferSize     = 4 << 20
)

var (
	// ErrBehind says that WAL is older than what the buffer holds.
	ErrBehind = errors.New("relay: older than the buffer")
	// ErrAhead says that WAL was asked for that has not arrived.
	ErrAhead = errors.New("relay: not yet received")
	// ErrClosed says that the buffer, or the relay, has been closed.
	ErrClosed = errors.New("relay: closed")
)

// A Buffer holds the newest WAL of one branch of history, addressed by LSN:
// the bytes from Tail to Head, at most Size of them. Memory grows with what it
// holds, not when it is made.
//
// One goroutine writes (Append, Truncate, Reset); any number read, each with a
// [Reader] of its own. Readers take the bytes where they lie, without a copy,
// and wait for each other nowhere: the lock is taken once for each chunk of
// 256 KiB and never held while bytes are moved. A reader that is too slow finds
// its position gone (ErrBehind); the writer does not wait for it.
type Buffer struct {
	size int64
	pool *chunkPool

	head, tail atomic.Uint64
	// epoch counts Truncate and Reset: what a reader holds may no longer be
	// the branch that the buffer is on.
	epoch atomic.Uint64

	mu      sync.Mutex
	chunks  map[wal.LSN]*chunk // by base; changed by the writer only
	closed  atomic.Bool
	changed chan struct{} // closed when the buffer has changed; replaced by whoever waits next
	armed   atomic.Bool   // somebody waits for changed

	writing *chunk // the writer's own: the chunk at head
	bytes   atomic.Int64
	appends atomic.Int64
	evicted atomic.Int64
}

// NewBuffer returns an empty buffer for up to size bytes; 0 means
// DefaultBufferSize. Its first Append may begin anywhere.
func NewBuffer(size int64) (*Buffer, error) {
	if size == 0 {
		size = DefaultBufferSize
	}
	if size < MinBufferSize {
		return nil, fmt.Errorf("relay: wal_buffer_size is %d bytes, and must be at least %d", size, MinBufferSize)
	}
	return &Buffer{size: size, pool: &chunkPool{}, chunks: make(map[wal.LSN]*chunk), changed: make(chan struct{})}, nil
}

// Size returns how many bytes of WAL the buffer holds at most.
func (b *Buffer) Size() int64 { return b.size }

// Head returns the position behind the newest byte.
func (b *Buffer) Head() wal.LSN { return wal.LSN(b.head.Load()) }

// Tail returns the position of the oldest byte. It is Head if there is none.
func (b *Buffer) Tail() wal.LSN { return wal.LSN(b.tail.Load()) }

// middle returns up to where somebody who catches up from elsewhere is carried
// before he is left to the buffer: half of it, so that he is not behind again at
// once. Each time costs a connection, while the tail moves on.
func (b *Buffer) middle() wal.LSN { return min(b.Tail()+wal.LSN(b.size/2), b.Head()) } //nolint:gosec // positive

// Append adds the WAL from at on. It must follow what is there: at is Head,
// unless the buffer has never held anything. Readers see all of it at once, so
// that who passes on what he sees passes on whole messages.
func (b *Buffer) Append(at wal.LSN, data []byte) error {
	return b.AppendFrom(at, len(data), func(p []byte) error {
		data = data[copy(p, data):]
		return nil
	})
}

// AppendFrom is Append of size bytes that read fills in where they will lie: it
// is called with one slice after the other. If it fails, or panics, the buffer
// is as it was before.
func (b *Buffer) AppendFrom(at wal.LSN, size int, read func(p []byte) error) error {
	if int64(size) > b.size/2 {
		return fmt.Errorf("relay: a message of %d bytes is too large for a wal_buffer_size of %d", size, b.size)
	}
	if err := b.begin(at); err != nil {
		return err
	}
	head := at
	for left := size; left > 0; {
		c, err := b.chunkAt(head)
		if err != nil {
			return err
		}
		n := min(left, chunkSize-int(head-c.base))
		if err := read(c.data[head-c.base:][:n]); err != nil {
			return err
		}
		head += wal.LSN(n)
		left -= n
	}
	b.bytes.Add(int64(size))
	b.appends.Add(1)
	b.head.Store(uint64(head))
	b.wake()
	return nil
}

// begin checks that at is where the buffer goes on, or makes it so.
func (b *Buffer) begin(at wal.LSN) error {
	head := b.Head()
	switch {
	case head == at && head != 0:
		return nil
	case head == 0 && at != 0:
		b.tail.Store(uint64(at))
		b.head.Store(uint64(at))
		return nil
	case at == 0:
		return errors.New("relay: WAL at position 0/0, where there is none")
	default:
		return fmt.Errorf("relay: WAL at %s does not follow %s, where the buffer ends", at, head)
	}
}

// chunkAt returns the chunk for the byte at head, a new one if there is none
// yet, for which the oldest may have to go.
func (b *Buffer) chunkAt(head wal.LSN) (*chunk, error) {
	base := chunkOf(head)
	if b.writing != nil && b.writing.base == base {
		return b.writing, nil
	}
	if c := b.chunks[base]; c != nil { // an AppendFrom that failed got beyond head, and this one goes back to it
		b.writing = c
		return c, nil
	}
	b.evict(base)
	c, err := b.pool.get(base)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() {
		c.release()
		return nil, ErrClosed
	}
	b.chunks[base] = c
	b.writing = c
	return c, nil
}

// evict drops the oldest chunks until one more, at base, keeps within size.
func (b *Buffer) evict(base wal.LSN) {
	if uint64(base)+chunkSize <= uint64(b.size) {
		return
	}
	oldest := chunkOf(base + chunkSize - wal.LSN(b.size) + chunkSize - 1) // the first base that may stay
	tail := b.Tail()
	if tail >= oldest {
		return
	}
	// The tail moves first: who has seen it does not look for what is dropped.
	b.tail.Store(uint64(min(oldest, b.Head())))
	b.mu.Lock()
	defer b.mu.Unlock()
	for at := chunkOf(tail); at < oldest; at += chunkSize {
		b.dropLocked(at)
		b.evicted.Add(1)
	}
}

// dropLocked forgets the chunk at base.
func (b *Buffer) dropLocked(base wal.LSN) {
	if c := b.chunks[base]; c != nil {
		delete(b.chunks, base)
		c.release()
	}
}

// Truncate forgets what lies at or behind at: the branch of history that the
// buffer holds ended there. What was handed out before stays readable to who
// has it. Nothing happens if at is Head or behind it.
func (b *Buffer) Truncate(at wal.LSN) error {
	if at >= b.Head() {
		return nil
	}
	if at < b.Tail() {
		return b.Reset(at)
	}
	base := chunkOf(at)
	var fresh *chunk
	if at > base { // readers may be looking at the bytes behind at: they keep the old chunk
		c, err := b.pool.get(base)
		if err != nil {
			return err
		}
		fresh = c
	}
	b.mu.Lock()
	if old := b.chunks[base]; fresh != nil && old != nil {
		copy(fresh.data[:at-base], old.data)
	}
	for lost := range b.chunks {
		if lost >= base {
			b.dropLocked(lost)
		}
	}
	if fresh != nil {
		b.chunks[base] = fresh
	}
	b.writing = fresh
	b.epoch.Add(1)
	b.head.Store(uint64(at))
	b.mu.Unlock()
	b.wake()
	return nil
}

// Reset forgets everything. The next Append begins at at; anywhere if that is 0.
func (b *Buffer) Reset(at wal.LSN) error {
	b.mu.Lock()
	if b.closed.Load() {
		b.mu.Unlock()
		return ErrClosed
	}
	b.emptyLocked()
	b.tail.Store(uint64(at))
	b.head.Store(uint64(at))
	b.mu.Unlock()
	b.wake()
	return nil
}

func (b *Buffer) emptyLocked() {
	for base := range b.chunks {
		b.dropLocked(base)
	}
	b.writing = nil
	b.epoch.Add(1)
}

// Close gives the memory back. What readers stand in goes with their Close.
// Append must not be under way.
func (b *Buffer) Close() {
	b.mu.Lock()
	b.closed.Store(true)
	b.emptyLocked()
	b.mu.Unlock()
	b.pool.drain()
	b.wake()
}

// Changed returns a channel that is closed when the buffer changes after this
// call: call it, look, then wait. That of a closed buffer, which changes no more,
// is closed already.
func (b *Buffer) Changed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	changed := b.changed
	if b.closed.Load() {
		b.wakeLocked()
	} else {
		b.armed.Store(true)
	}
	return changed
}

// wake ends the wait of everybody who waits.
func (b *Buffer) wake() {
	if !b.armed.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wakeLocked()
}

func (b *Buffer) wakeLocked() {
	b.armed.Store(false)
	close(b.changed)
	b.changed = make(chan struct{})
}

// BufferStats is what a [Buffer] has done and holds.
type BufferStats struct {
	Head, Tail wal.LSN
	Held       int64 // bytes of WAL from Tail to Head
	Memory     int64 // bytes of memory in use, those that only slow readers still hold included
	Bytes      int64 // bytes appended since it was made
	Appends    int64 // calls of Append
	Evicted    int64 // chunks of 256 KiB that made room
}

// Stats returns the buffer's counters.
func (b *Buffer) Stats() BufferStats {
	tail := b.Tail() // before the head: it never passes a head that is read later
	head := b.Head()
	return BufferStats{
		Head: head, Tail: tail, Held: int64(tail.Behind(head)), Memory: b.pool.used.Load(), //nolint:gosec // both bounded by memory
		Bytes: b.bytes.Load(), Appends: b.appends.Load(), Evicted: b.evicted.Load(),
	}
}
