package walfile

import (
	"slices"

	"github.com/heliosdb/helios/wal"
)

// SpoolStats is what a spool holds and has done.
type SpoolStats struct {
	Bytes   int64   // in segment files
	Oldest  wal.LSN // first byte; zero if there is none
	Written wal.LSN // end, zero if the spool is empty
	Flushed wal.LSN // up to where it is there after a crash
	Files   int     // segment files
	Syncs   int64   // how often it waited for the device since it was opened
	Lost    int64   // bytes that were flushed once and missing or damaged when the files were looked at
	Stuck   error   // why an old segment could not be removed; nil if all could
}

// Stats returns what the spool holds and has done.
func (s *Spool) Stats() SpoolStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SpoolStats{
		Written: s.written.LSN, Flushed: s.control.Flushed.LSN, Files: len(s.kept),
		Syncs: s.disk.syncs.Load(), Lost: s.lost, Stuck: s.stuck,
	}
	for _, k := range s.kept {
		st.Bytes += k.size
	}
	if len(s.kept) > 0 {
		st.Oldest = s.kept[0].start(s.cfg.SegmentSize)
	}
	return st
}

// oldest returns the first position that is kept; the spool's end if there is
// nothing.
func (s *Spool) oldest() wal.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == 0 {
		return s.written.LSN
	}
	return s.kept[0].start(s.cfg.SegmentSize)
}

// SetFloor says from which position on somebody needs what the spool holds: it
// is kept although it is more than Keep, but no more than MaxKeep. Zero means
// that nobody does.
func (s *Spool) SetFloor(lsn wal.LSN) {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	s.floor = lsn
	s.mu.Unlock()
	s.retainLocked()
}

// retainLocked removes what is too much. What cannot be removed is tried again
// with the next segment. The caller holds syncing.
func (s *Spool) retainLocked() {
	s.mu.Lock()
	n := surplus(s.kept, s.floor, s.cfg)
	victims := s.kept[:n]
	stale := s.stale || s.closed
	s.mu.Unlock()
	if stale {
		return
	}
	removed := 0
	var err error
	for _, v := range victims {
		if err = s.disk.remove(v.name(s.cfg.SegmentSize)); err != nil {
			break
		}
		removed++
		s.dir.drop(func(o *segment) bool { return o.id.number == v.number })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = slices.Clone(s.kept[removed:])
	s.stuck = failed(err)
}

// surplus returns how many of the first files are too much. A segment goes with
// all its files or not at all, and the last one stays.
func surplus(kept []keptSegment, floor wal.LSN, cfg SpoolConfig) int {
	total := int64(0)
	for _, k := range kept {
		total += k.size
	}
	gone := 0
	for i := 0; i < len(kept); {
		next := i
		var size int64
		for ; next < len(kept) && kept[next].number == kept[i].number; next++ {
			size += kept[next].size
		}
		limit := cfg.Keep
		if floor != 0 && kept[i].start(cfg.SegmentSize)+wal.LSN(cfg.SegmentSize) > floor {
			limit = max(cfg.Keep, cfg.MaxKeep)
		}
		if next == len(kept) || total <= limit {
			break
		}
		total -= size
		gone, i = next, next
	}
	return gone
}
