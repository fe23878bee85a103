package walfile

import (
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/heliosdb/helios/wal"
)

// keptSegment is a file of a spool.
type keptSegment struct {
	segmentID

	size int64 // bytes
}

// loadLocked makes the files what control says they are, and the spool what the
// files are: nothing beyond the flushed position is believed, nor anything older
// than the start. It is how a spool starts, how it recovers from an error, and
// the second half of every change of branch. Nobody reads meanwhile.
func (s *Spool) loadLocked() error {
	s.dir.gate.Lock()
	defer s.dir.gate.Unlock()
	s.dir.drop(func(*segment) bool { return true })
	s.setFile(nil)
	c := s.control
	// If the files cannot be looked at now, this is what they hold at least.
	s.moved(c.Flushed)
	tail, err := s.openTail(c.Flushed)
	if err != nil {
		return err
	}
	lost := int64(c.Flushed.LSN - tail)
	c.Flushed.LSN = tail
	kept, err := s.tidy(c)
	if err != nil {
		return err
	}
	if err := s.saveControlLocked(c); err != nil {
		return err
	}
	s.adopt(c.Flushed, kept, lost)
	s.retainLocked()
	return nil
}

// adopt takes over what was found.
func (s *Spool) adopt(pos wal.Position, kept []keptSegment, lost int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written, s.kept, s.fresh, s.stale = pos, kept, false, false
	s.lost += lost
	s.end.Store(uint64(pos.LSN))
}

// moved takes over another end.
func (s *Spool) moved(end wal.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = end
	s.end.Store(uint64(end.LSN))
}

// setFile changes the open segment.
func (s *Spool) setFile(f *os.File) {
	s.mu.Lock()
	old := s.file
	s.file = f
	s.mu.Unlock()
	if old != nil {
		old.Close() //nolint:errcheck // what counts was flushed
	}
}

// openTail opens the segment in which the spool ends, cuts it there, and returns
// where that is: before pos if the file has less or is damaged. At the end of a
// segment nothing is open.
func (s *Spool) openTail(pos wal.Position) (wal.LSN, error) {
	offset := s.dir.offset(pos.LSN)
	if offset == 0 {
		return pos.LSN, nil
	}
	f, err := s.openPartial(s.segmentAt(pos))
	start := pos.LSN - wal.LSN(offset)
	if errors.Is(err, fs.ErrNotExist) {
		return start, nil
	}
	if err != nil {
		return 0, err
	}
	verified, err := s.verify(f, s.segmentAt(pos), offset)
	if err == nil {
		err = s.disk.truncate(f, verified)
	}
	if err == nil {
		err = s.disk.sync(f)
	}
	if err != nil || verified == 0 {
		return start, errors.Join(err, f.Close())
	}
	s.setFile(f)
	return start + wal.LSN(verified), nil
}

// openPartial opens the file of a segment for writing. If it has its final name
// already it loses it, as the spool ends in it.
func (s *Spool) openPartial(id segmentID) (*os.File, error) {
	final := id.name(s.cfg.SegmentSize)
	_, err := os.Stat(s.disk.file(final))
	if err == nil {
		err = s.disk.rename(final, final+partialSuffix)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(s.disk.file(final+partialSuffix), os.O_RDWR, 0)
}

// verify returns how many of the first size bytes of a segment are on pages that
// belong there.
func (s *Spool) verify(f *os.File, id segmentID, size int64) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	size = min(size, info.Size())
	if size < longHeader {
		return size, nil // too short to be judged
	}
	if err := s.dir.checkFirstPage(f, id); err != nil {
		return 0, notDamage(err)
	}
	h := make([]byte, shortHeader)
	for page := int64(wal.PageSize); page+shortHeader <= size; page += wal.PageSize {
		if _, err := f.ReadAt(h, page); err != nil {
			return 0, err
		}
		err := s.dir.checkPage(h, id.start(s.cfg.SegmentSize)+wal.LSN(page), &segment{file: f, id: id})
		if err != nil {
			return page, notDamage(err)
		}
	}
	return size, nil
}

// notDamage returns err unless it only says that a page is not right.
func notDamage(err error) error {
	if _, ok := errors.AsType[*PageError](err); ok || errors.Is(err, ErrNotKept) {
		return nil
	}
	return err
}

// tidy removes the files that a spool in state c has no use for and returns the
// others.
func (s *Spool) tidy(c control) ([]keptSegment, error) {
	files, err := s.dir.segments()
	if err != nil {
		return nil, err
	}
	keep, leave := sortOut(files, c, s.cfg.SegmentSize)
	kept, torn, err := s.withoutGap(keep, c.Flushed.LSN)
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Concat(leave, torn) {
		if err := s.disk.remove(id.name(s.cfg.SegmentSize)); err != nil {
			return nil, err
		}
	}
	if err := s.finish(kept); err != nil {
		return nil, err
	}
	return kept, s.disk.syncNames()
}

// finish gives segments that are whole their final names, where a crash came
// between their last flush and that.
func (s *Spool) finish(kept []keptSegment) error {
	for i, k := range kept {
		if !k.partial || k.size != s.cfg.SegmentSize {
			continue
		}
		kept[i].partial = false
		if err := s.disk.rename(k.name(s.cfg.SegmentSize), kept[i].name(s.cfg.SegmentSize)); err != nil {
			return err
		}
	}
	return nil
}

// sortOut says which segment files belong to a spool in state c, and which are of
// no use: half made when a crash came, or of a branch or a time that the spool
// has left. Both are in the order of files.
func sortOut(files []segmentID, c control, size int64) (keep, leave []segmentID) {
	first := uint64(c.Start) / uint64(size)
	end := (uint64(c.Flushed.LSN) + uint64(size) - 1) / uint64(size)
	for _, f := range files {
		if f.number >= first && f.number < end && f.timeline <= c.Flushed.Timeline {
			keep = append(keep, f)
		} else {
			leave = append(leave, f)
		}
	}
	return keep, leave
}

// withoutGap returns those of files that reach up to the end of the spool without
// a gap, and those that do not. Of a segment's files the newest timeline's
// counts; the others are what a timeline ended with.
func (s *Spool) withoutGap(files []segmentID, end wal.LSN) (kept []keptSegment, torn []segmentID, err error) {
	size := wal.LSN(s.cfg.SegmentSize)
	next, gap := end, false // up to where the next segment below has to reach
	for i, id := range slices.Backward(files) {
		start := id.start(s.cfg.SegmentSize)
		newest := i == len(files)-1 || files[i+1].number != id.number
		length, err := s.length(id)
		if err != nil {
			return nil, nil, err
		}
		if newest {
			gap = gap || start+size < next || start+wal.LSN(length) < next
			next = start
		}
		if gap {
			torn = append(torn, id)
			continue
		}
		kept = append(kept, keptSegment{id, length})
	}
	slices.Reverse(kept)
	return kept, torn, nil
}

// length returns the size of a segment's file; 0 if it does not begin as it
// should.
func (s *Spool) length(id segmentID) (size int64, err error) {
	f, err := os.Open(s.disk.file(id.name(s.cfg.SegmentSize)))
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() < longHeader {
		return info.Size(), nil
	}
	if err := s.dir.checkFirstPage(f, id); err != nil {
		return 0, notDamage(err)
	}
	return info.Size(), nil
}
