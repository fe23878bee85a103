package walfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/heliosdb/helios/wal"
)

// maxOpen is how many segments a Dir keeps open while nobody reads them.
const maxOpen = 8

// A segment is an open file whose first page was found right.
type segment struct {
	file *os.File
	id   segmentID // without partial: the file may be renamed while it is open

	finished atomic.Bool // the server has begun the next one

	refs    int    // guarded by Dir.mu; reads that go on
	used    uint64 // guarded by Dir.mu; when it was asked for last, by Dir.clock
	dropped bool   // guarded by Dir.mu; the last read closes it
}

// cached returns the open segment of the first of timelines that there is one
// of, for the caller to release; nil if there is none.
func (d *Dir) cached(number uint64, timelines []wal.Timeline) *segment {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range timelines {
		for _, s := range d.open {
			if s.id.number == number && s.id.timeline == t {
				d.clock++
				s.used = d.clock
				s.refs++
				return s
			}
		}
	}
	return nil
}

// acquire opens a segment and keeps it open. The caller releases it.
func (d *Dir) acquire(number uint64, t wal.Timeline) (*segment, error) {
	s := &segment{id: segmentID{number: number, timeline: t}, refs: 1}
	if err := d.openSegment(s); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errors.Join(fs.ErrClosed, s.file.Close())
	}
	d.dropLocked((*segment).unlinked)
	if len(d.open) >= maxOpen {
		oldest := d.open[0]
		for _, o := range d.open {
			if o.used < oldest.used {
				oldest = o
			}
		}
		d.dropLocked(func(o *segment) bool { return o == oldest })
	}
	d.clock++
	s.used = d.clock
	d.open = append(d.open, s)
	return s, nil
}

// openSegment opens the file of s and looks at its first page.
func (d *Dir) openSegment(s *segment) error {
	path := filepath.Join(d.path, s.id.name(d.size))
	var err error
	// The third attempt is for a segment that got its final name in between.
	for _, name := range []string{path, path + partialSuffix, path} {
		s.file, err = os.Open(name)
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotKept
	}
	if err != nil {
		return failed(err)
	}
	if err := d.checkFirstPage(s.file, s.id); err != nil {
		return errors.Join(err, s.file.Close())
	}
	return nil
}

// checkFirstPage returns an error unless a file begins as the segment should.
func (d *Dir) checkFirstPage(f *os.File, id segmentID) error {
	var h [longHeader]byte
	if _, err := f.ReadAt(h[:], 0); err != nil {
		if errors.Is(err, io.EOF) {
			return ErrNotKept
		}
		return failed(err)
	}
	at := id.start(d.size)
	if pageAddress(h[:]) != at {
		return ErrNotKept
	}
	if reason := badLongHeader(h[:], id.timeline, d.size, d.system); reason != "" {
		return &PageError{Path: f.Name(), LSN: at, Reason: reason}
	}
	return nil
}

// unlinked reports whether the file has no name any more: as long as it is open
// the disk has not got its space back.
func (s *segment) unlinked() bool {
	info, err := s.file.Stat()
	if err != nil {
		return true
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Nlink == 0
}

// release ends the use of a segment.
func (d *Dir) release(s *segment) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.refs--
	if s.dropped && s.refs == 0 {
		s.file.Close() //nolint:errcheck // only read
	}
}

// drop closes the open segments that which names, those that are being read
// after their last read.
func (d *Dir) drop(which func(*segment) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropLocked(which)
}

func (d *Dir) dropLocked(which func(*segment) bool) {
	kept := d.open[:0]
	for _, s := range d.open {
		if !which(s) {
			kept = append(kept, s)
			continue
		}
		s.dropped = true
		if s.refs == 0 {
			s.file.Close() //nolint:errcheck // only read
		}
	}
	clear(d.open[len(kept):])
	d.open = kept
}
