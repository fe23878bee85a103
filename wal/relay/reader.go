package relay

import (
	"github.com/heliosdb/helios/wal"
)

// pageSize is PostgreSQL's XLOG_BLCKSZ. A message that must be cut is cut at a
// multiple of it.
const pageSize = 8192

// A Reader reads a [Buffer] from a position on. It is for one goroutine, and
// must be closed.
type Reader struct {
	b     *Buffer
	pos   wal.LSN
	epoch uint64
	c     *chunk // referenced; nil at first and between chunks
}

// Reader returns a reader that begins at at. It may begin where nothing is (any
// more, or yet): Next says so.
func (b *Buffer) Reader(at wal.LSN) *Reader {
	return &Reader{b: b, pos: at, epoch: b.epoch.Load()}
}

// Position returns where the next byte comes from.
func (r *Reader) Position() wal.LSN { return r.pos }

// Next returns WAL from Position on, and moves behind it: as much as there is,
// up to limit bytes and the end of a chunk; at least one page if there is more
// than limit. Nothing at all means that the reader has everything.
//
// The bytes are the buffer's own. They must not be changed, and are good until
// the next call of a method of the reader; what has not been used by then was
// not read.
//
// ErrBehind means that Position is no longer there, ErrAhead that it is behind
// Head (the buffer was truncated), ErrClosed that the buffer was closed.
func (r *Reader) Next(limit int) ([]byte, error) {
	head, err := r.enter()
	if err != nil || head == r.pos {
		return nil, err
	}
	end := min(head, r.c.base+chunkSize)
	if most := r.pos + wal.LSN(limit); end > most { //nolint:gosec // limit is positive
		end = max(most&^(pageSize-1), min(end, r.pos&^(pageSize-1)+pageSize))
	}
	data := r.c.data[r.pos-r.c.base : end-r.c.base]
	r.pos = end
	return data, nil
}

// enter makes sure that the reader holds the chunk with its position, if there
// is anything at it, and returns the buffer's head.
func (r *Reader) enter() (wal.LSN, error) {
	b := r.b
	for {
		// The head first, then the epoch, which Truncate changes before it: a head
		// that belongs to a later branch is never taken for one of the chunk's.
		head := b.Head()
		if epoch := b.epoch.Load(); epoch != r.epoch {
			r.drop()
			r.epoch = epoch
			continue
		}
		switch {
		case b.closed.Load():
			return 0, ErrClosed
		case r.pos > head:
			return 0, ErrAhead
		case r.pos == head, r.c != nil && r.c.base == chunkOf(r.pos):
			return head, nil
		}
		r.drop()
		b.mu.Lock()
		c, same := b.chunks[chunkOf(r.pos)], r.epoch == b.epoch.Load()
		if same && c != nil && r.pos >= b.Tail() {
			c.retain()
			r.c = c
		}
		b.mu.Unlock()
		if same && r.c == nil {
			return 0, ErrBehind
		}
		// Truncated between the two looks, or entered: look again.
	}
}

// seek moves the reader to at. What Next returned stays good.
func (r *Reader) seek(at wal.LSN) { r.pos = at }

// drop gives up the chunk that the reader stands in.
func (r *Reader) drop() {
	if r.c != nil {
		r.c.release()
		r.c = nil
	}
}

// Close ends the reader. Its bytes are no longer good.
func (r *Reader) Close() { r.drop() }
