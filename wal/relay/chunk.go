package relay

import (
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
	base wal.LSN
	data []byte
	refs atomic.Int32 // the buffer's own, and one for each reader that stands in it
	home *chunkPool
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

// A chunkPool hands out chunks and takes them back. The memory comes from
// outside the garbage collector's heap where there is such a place: a gigabyte
// of WAL on the heap would let it grow to two before it is swept.
type chunkPool struct {
	free chan *chunk // some kept for the next, so that a buffer that wraps asks the system for nothing
	used atomic.Int64
}

// newChunkPool keeps up to spare chunks that nobody uses.
func newChunkPool(spare int) *chunkPool { return &chunkPool{free: make(chan *chunk, spare)} }

// get returns a chunk for the WAL from base on, with one reference.
func (p *chunkPool) get(base wal.LSN) (*chunk, error) {
	var c *chunk
	select {
	case c = <-p.free:
	default:
		data, err := allocate(chunkSize)
		if err != nil {
			return nil, err
		}
		c = &chunk{data: data, home: p}
	}
	c.base = base
	c.refs.Store(1)
	p.used.Add(chunkSize)
	return c, nil
}

func (p *chunkPool) put(c *chunk) {
	p.used.Add(-chunkSize)
	select {
	case p.free <- c:
	default:
		release(c.data)
		c.data = nil
	}
}

// drain gives the spare chunks back to the system.
func (p *chunkPool) drain() {
	for {
		select {
		case c := <-p.free:
			release(c.data)
			c.data = nil
		default:
			return
		}
	}
}
