package relay

import (
	"context"
	"time"

	"github.com/heliosdb/helios/internal/walfile"
	"github.com/heliosdb/helios/wal"
)

// A salvage is what Salvage wants of the goroutine that fills the buffer.
type salvage struct {
	done chan struct{} // closed when it is
	end  wal.Position
	err  error
}

// Salvage takes from Config.WALDir what its server wrote before it crashed and did not
// send, up to the last whole record, so that the standbys can have it. A server that comes
// back goes on behind that record, and has what is taken on its disk: Salvage sees to that
// first. It is for a server that has ended and is the source, one call at a time, and takes
// Run: without it, it waits for ctx. The position is where its WAL ends then; zero if there
// never was a source, and so nothing that could be gone on from.
func (r *Relay) Salvage(ctx context.Context) (wal.Position, error) {
	s := &salvage{done: make(chan struct{})}
	r.salvaging.Store(s)
	r.followAgain()
	select {
	case <-s.done:
		return s.end, s.err
	case <-ctx.Done():
		r.salvaging.CompareAndSwap(s, nil) // if it has not begun, it had better not
		return wal.Position{}, context.Cause(ctx)
	}
}

// salvageBack is how far before the end of the buffer a record is looked for that
// begins there: the buffer may end inside one, which only its beginning tells to
// be whole.
const salvageBack = 1 << 20

// salvage is Salvage's part of follow.
func (r *Relay) salvage(ctx context.Context) (wal.Position, error) {
	b := r.branch.Load()
	if b == nil || r.cfg.WALDir == "" {
		return wal.Position{}, nil
	}
	var dir *walfile.Dir
	for _, d := range r.dirs {
		if d.Path() == r.cfg.WALDir {
			dir = d
		}
	}
	head := r.buffer.Head()
	end, err := lastRecord(dir, b, head)
	if err != nil {
		return wal.Position{}, err
	}
	if end <= head {
		return wal.Position{Timeline: b.timeline(), LSN: head}, nil
	}
	segment := wal.LSN(b.identity.SegmentSize) //nolint:gosec // positive
	for at := head; at < end; at = at - at%segment + segment {
		if err := dir.Sync(at, b.owners(at)...); err != nil {
			return wal.Position{}, err
		}
	}
	buf := make([]byte, maxMessage)
	for at := head; at < end; {
		n, err := dir.ReadAt(buf[:min(wal.LSN(len(buf)), end-at)], at, b.owners(at)...)
		if err != nil {
			return wal.Position{}, err
		}
		to := at + wal.LSN(n) //nolint:gosec // positive
		if to < end && to.PageStart() > at {
			to = to.PageStart() // records are split at page boundaries only
		}
		data := buf[:to-at]
		err = r.buffer.AppendFrom(at, len(data), func(p []byte) error {
			data = data[copy(p, data):]
			return nil
		})
		if err != nil {
			return wal.Position{}, err
		}
		at = to
		r.replicator.arrived(at, time.Now())
	}
	r.log.InfoContext(ctx, "the rest of the server's WAL was taken from its files", "from", head, "to", end)
	return wal.Position{Timeline: b.timeline(), LSN: end}, nil
}

// lastRecord returns where the last whole record ends that dir has behind head, on
// the timeline that goes on; 0 if there is none.
func lastRecord(dir *walfile.Dir, b *branch, head wal.LSN) (end wal.LSN, err error) {
	chunk := make([]byte, salvageBack)
	at := (head - min(head, salvageBack)).PageStart()
	if _, err := dir.ReadAt(chunk[:1], at, b.owners(at)...); err != nil {
		at = head &^ wal.LSN(b.identity.SegmentSize-1) // the segment before is gone
	}
	d := wal.NewDecoder(at)
	for d.Err() == nil {
		n, err := dir.ReadAt(chunk, at, b.owners(at)...)
		if walfile.IsEnd(err) {
			break
		}
		if err != nil {
			return 0, err
		}
		d.Feed(chunk[:n])
		for r := d.Next(); r != nil; r = d.Next() {
			end = r.End
		}
		at += wal.LSN(n) //nolint:gosec // positive
	}
	return end, nil
}
