package walfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/heliosdb/helios/wal"
)

// Dir reads a directory of segment files that somebody else may be writing. It
// is safe for concurrent use, and keeps a few files open between reads.
type Dir struct {
	path   string
	size   int64
	system uint64
	bad    error          // why nothing can be read here; nil if all is well
	end    *atomic.Uint64 // LSN that no read goes beyond; nil if the caller knows

	gate sync.RWMutex // shared by reads; held by a spool that replaces what its files hold

	mu      sync.Mutex
	open    []*segment           // guarded by mu
	clock   uint64               // guarded by mu; counts uses
	headers []*[shortHeader]byte // guarded by mu; to read headers into, while no read has them
	closed  bool                 // guarded by mu
}

// OpenDir describes a directory of WAL of the cluster with the given system
// identifier. It touches nothing; the directory may be missing still.
func OpenDir(path string, segmentSize int64, system uint64) *Dir {
	return &Dir{path: path, size: segmentSize, system: system, bad: checkSegmentSize(segmentSize)}
}

// Path returns the directory.
func (d *Dir) Path() string { return d.path }

// Close closes the files that are open. Reads fail from then on.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.dropLocked(func(*segment) bool { return true })
	return nil
}

// ReadAt reads WAL that begins at a position into p, up to the end of the
// segment, of p or of what is there, and returns how many bytes that is. Without
// a byte the error is [ErrNotKept], or a [*PageError] if the WAL is of another
// cluster or damaged.
//
// The segment is looked for under the names of the timelines in their order:
// [TimelinesAt] has those that may hold a position. The caller ends a read where
// the timeline that owns the position ends, since the files of two timelines
// differ from there on.
//
// Pages without a header are given only if the segment behind theirs has begun.
// Only whole pages can be told from what a file held before. How far the last
// page was written is not in it: the caller asks for nothing that the server
// has not written yet, unless the directory is that of a [Spool], which knows.
//
// It does not allocate while the segment is open from a read before.
func (d *Dir) ReadAt(p []byte, at wal.LSN, timelines ...wal.Timeline) (int, error) {
	if d.bad != nil || len(p) == 0 {
		return 0, d.bad
	}
	d.gate.RLock()
	defer d.gate.RUnlock()
	p = p[:d.readable(len(p), at)]
	if len(p) == 0 {
		return 0, ErrNotKept
	}
	number := uint64(at) / uint64(d.size)
	if s := d.cached(number, timelines); s != nil {
		if n, err := d.readFrom(s, p, at); err == nil {
			return n, nil
		}
	}
	for _, t := range timelines {
		s, err := d.acquire(number, t)
		n := 0
		if err == nil {
			n, err = d.readFrom(s, p, at)
		}
		if !errors.Is(err, ErrNotKept) {
			return n, err
		}
	}
	return 0, ErrNotKept
}

// Sync has the disk keep what the segment with at holds, whoever wrote it.
func (d *Dir) Sync(at wal.LSN, timelines ...wal.Timeline) error {
	if d.bad != nil {
		return d.bad
	}
	for _, t := range timelines {
		s, err := d.acquire(uint64(at)/uint64(d.size), t)
		if err == nil {
			err = s.file.Sync()
			d.release(s)
		}
		if !errors.Is(err, ErrNotKept) {
			return failed(err)
		}
	}
	return ErrNotKept
}

// readable returns how many of n bytes from a position on may be read at once.
func (d *Dir) readable(n int, at wal.LSN) int {
	most := uint64(d.size) - uint64(at)%uint64(d.size)
	if d.end != nil {
		most = min(most, at.Behind(wal.LSN(d.end.Load())))
	}
	return int(min(uint64(n), most))
}

// readFrom reads from an open segment and releases it. One that disappoints is
// not kept open: what has its name may be another file by now.
func (d *Dir) readFrom(s *segment, p []byte, at wal.LSN) (int, error) {
	n, err := d.read(s, p, at)
	if err != nil {
		d.drop(func(o *segment) bool { return o == s })
	}
	d.release(s)
	return n, err
}

// read reads from an open segment and returns as many bytes as are on pages that
// belong there; ErrNotKept if that is none.
//
// A server may begin to overwrite the file, which then has another name, while
// it is being read. It does so from the front to the back. So the segment's
// first header, read after everything else, vouches for all the bytes.
func (d *Dir) read(s *segment, p []byte, at wal.LSN) (int, error) {
	n, err := s.file.ReadAt(p, d.offset(at))
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, failed(err)
	}
	h := d.takeHeader()
	defer d.giveHeader(h)
	end := at + wal.LSN(n)
	for page := pageStart(at); page < end; page += wal.PageSize {
		header := h[:]
		if page >= at && end-page >= shortHeader {
			header = p[page-at:]
		} else if _, err := s.file.ReadAt(header, d.offset(page)); err != nil {
			end = page
			break
		}
		if err := d.checkPage(header, page, s); err != nil {
			if page <= at {
				return 0, err
			}
			end = page
			break
		}
	}
	if _, err := s.file.ReadAt(h[:], 0); err != nil || pageAddress(h[:]) != s.id.start(d.size) || end <= at {
		return 0, ErrNotKept
	}
	return int(end - at), nil
}

// finished reports whether the server has written all of a segment. Pages without a
// header are filler then. Until then they may be room that is not yet used: a replica
// that has crashed has that between the end of what it received and the end of the
// file. A server begins a segment when the one before is whole, and on disk.
func (d *Dir) finished(s *segment) bool {
	if d.end != nil || s.finished.Load() { // of a spool, nobody reads beyond what was written
		return true
	}
	next := &segment{id: segmentID{number: s.id.number + 1, timeline: s.id.timeline}}
	if d.openSegment(next) != nil {
		return false
	}
	next.file.Close() //nolint:errcheck // only read
	s.finished.Store(true)
	return true
}

// checkPage returns an error unless a page header is right for its place.
func (d *Dir) checkPage(header []byte, page wal.LSN, s *segment) error {
	if isFiller(header) && d.offset(page) != 0 && d.finished(s) {
		return nil
	}
	if pageAddress(header) != page {
		return ErrNotKept
	}
	if reason := badHeader(header, s.id.timeline); reason != "" {
		return &PageError{Path: s.file.Name(), LSN: page, Reason: reason}
	}
	return nil
}

// takeHeader returns room for a header. On the stack it would not stay: the race
// detector looks at what a system call is given.
func (d *Dir) takeHeader() *[shortHeader]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.headers)
	if n == 0 {
		return new([shortHeader]byte)
	}
	h := d.headers[n-1]
	d.headers = d.headers[:n-1]
	return h
}

func (d *Dir) giveHeader(h *[shortHeader]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.headers = append(d.headers, h)
}

// offset returns where in its file a position is.
func (d *Dir) offset(at wal.LSN) int64 { return int64(uint64(at) % uint64(d.size)) }

// maxHistory bounds the history files that are read: one has a line for each
// promotion.
const maxHistory = 1 << 20

// History returns the history file of a timeline as it is; [ErrNotKept] if there
// is none, as for timeline 1.
func (d *Dir) History(t wal.Timeline) ([]byte, error) {
	path := filepath.Join(d.path, historyName(t))
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotKept
	}
	if err != nil {
		return nil, failed(err)
	}
	defer f.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(f, maxHistory+1))
	if err == nil && len(text) > maxHistory {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxHistory)
	}
	return text, failed(err)
}

// Oldest returns the first position from which on the directory has all WAL of
// timeline t and its past, up to the newest it has; false if it has none. It
// opens every segment in between, and is not meant to be called often.
func (d *Dir) Oldest(t wal.Timeline) (oldest wal.LSN, found bool, err error) {
	if d.bad != nil {
		return 0, false, d.bad
	}
	h, err := d.pastOf(t)
	if err != nil {
		return 0, false, err
	}
	files, err := d.segments()
	if err != nil {
		return 0, false, err
	}
	numbers := make([]uint64, len(files))
	for i, f := range files {
		numbers[i] = f.number
	}
	// From the top: there may be names whose contents are still of the past.
	for _, number := range slices.Backward(slices.Compact(numbers)) {
		at := segmentID{number: number}.start(d.size)
		if found && at+wal.LSN(d.size) != oldest {
			break
		}
		size, err := d.sizeOf(number, TimelinesAt(h, t, at, d.size))
		switch {
		case err != nil && !errors.Is(err, ErrNotKept):
			return 0, false, err
		case err == nil && (!found || size == d.size):
			oldest, found = at, true
		case found:
			return oldest, true, nil
		}
	}
	return oldest, found, nil
}

// pastOf returns what the history file of t tells; nothing if there is none.
func (d *Dir) pastOf(t wal.Timeline) (wal.History, error) {
	text, err := d.History(t)
	if errors.Is(err, ErrNotKept) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return wal.ParseHistory(t, text)
}

// segments lists the segment files by position and timeline.
func (d *Dir) segments() ([]segmentID, error) {
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failed(err)
	}
	var found []segmentID
	for _, e := range entries {
		if id, ok := parseSegmentName(e.Name(), d.size); ok {
			found = append(found, id)
		}
	}
	slices.SortFunc(found, compareSegments)
	return found, nil
}

// sizeOf returns the size of a segment's file under the first of timelines that
// has one which begins as it should.
func (d *Dir) sizeOf(number uint64, timelines []wal.Timeline) (int64, error) {
	for _, t := range timelines {
		s := &segment{id: segmentID{number: number, timeline: t}}
		err := d.openSegment(s)
		if errors.Is(err, ErrNotKept) {
			continue
		}
		if err != nil {
			return 0, err
		}
		info, err := s.file.Stat()
		if err = errors.Join(err, s.file.Close()); err != nil {
			return 0, failed(err)
		}
		return info.Size(), nil
	}
	return 0, ErrNotKept
}

// failed says who speaks; nil stays nil.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("walfile: %w", err)
}
