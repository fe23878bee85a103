package relay

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/heliosdb/helios/wal"
)

// chunkSize is the unit of memory. A subscriber that is stuck in a write holds
// on to one chunk, no more.
const chunkSize = 256 << 10

// A chunk is memory for the WAL from base on. It is filled by the buffer's one
// writer; bytes below the buffer's head never change again, so that readers
// with a reference take them as they lie.
type chunk struct {
	base  wal.LSN
	data  []byte
	refs  atomic.Int32 // the buffer's own, and one for each reader that stands in it
	home  *chunkPool
	arena *arena
}

// chunkOf returns the position at which the chunk with at begins.
func chunkOf(at wal.LSN) wal.LSN { return at &^ (chunkSize - 1) }

// release gives up one reference. The last one gives the memory back.
func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		c.home.put(c)
	}
}

// retain takes a reference beside one that the caller knows to exist.
func (c *chunk) retain() { c.refs.Add(1) }

// arenaSize is how much is asked of the system at once. What has not been
// written to takes no memory.
const arenaSize = 16 << 20

// An arena is memory of the system's that is divided into chunks.
type arena struct {
	mapped []byte // as the system gave it
	lent   int    // chunks of it that are somewhere else than in the pool; guarded by the pool's mu
}

// A chunkPool hands out chunks and takes them back. The memory comes from
// outside the garbage collector's heap where there is such a place: a gigabyte
// of WAL on the heap would let it grow to two before it is swept. It is used
// again before more is taken, and kept until the pool is drained: the first
// write to a page of new memory costs many times what a write to it costs later.
type chunkPool struct {
	used atomic.Int64 // bytes in chunks that are lent

	mu      sync.Mutex
	free    []*chunk // guarded by mu; the last one is the next
	arenas  []*arena // guarded by mu
	drained bool     // guarded by mu; what comes back is not wanted
}

// get returns a chunk for the WAL from base on, with one reference.
func (p *chunkPool) get(base wal.LSN) (*chunk, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) == 0 {
		if err := p.growLocked(); err != nil {
			return nil, err
		}
	}
	last := len(p.free) - 1
	c := p.free[last]
	p.free[last] = nil
	p.free = p.free[:last]
	c.arena.lent++
	c.base = base
	c.refs.Store(1)
	p.used.Add(chunkSize)
	return c, nil
}

// growLocked takes another arena from the system.
func (p *chunkPool) growLocked() error {
	mapped, usable, err := allocate(arenaSize)
	if err != nil {
		return err
	}
	a := &arena{mapped: mapped}
	p.arenas = append(p.arenas, a)
	for at := len(usable); at > 0; at -= chunkSize { // so that the lowest is used first
		p.free = append(p.free, &chunk{data: usable[at-chunkSize : at : at], home: p, arena: a})
	}
	return nil
}

func (p *chunkPool) put(c *chunk) {
	p.used.Add(-chunkSize)
	p.mu.Lock()
	defer p.mu.Unlock()
	c.arena.lent--
	if p.drained {
		p.releaseLocked()
		return
	}
	p.free = append(p.free, c)
}

// drain gives all memory back to the system: what is lent, when it comes back.
func (p *chunkPool) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drained = true
	p.free = nil
	p.releaseLocked()
}

// releaseLocked gives back the arenas of which nothing is lent.
func (p *chunkPool) releaseLocked() {
	p.arenas = slices.DeleteFunc(p.arenas, func(a *arena) bool {
		if a.lent == 0 {
			release(a.mapped)
		}
		return a.lent == 0
	})
}
