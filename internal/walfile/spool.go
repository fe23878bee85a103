package walfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/heliosdb/helios/wal"
)

// SpoolConfig says what a spool holds.
type SpoolConfig struct {
	SegmentSize int64  // of the cluster, in bytes
	System      uint64 // the cluster's system identifier
	Keep        int64  // bytes; the oldest segments are removed beyond it. 0 keeps the open segment alone
	MaxKeep     int64  // bytes; as far may be kept beyond Keep what SetFloor asks for. Below Keep it means Keep
}

// A Spool keeps WAL in a directory, over crashes too. One goroutine at a time
// writes; Sync, and everything that only looks, may run meanwhile, and readers
// use Dir. All methods are safe for concurrent use.
//
// A new spool is empty: [Spool.Reset] says where it begins.
type Spool struct {
	cfg         SpoolConfig
	disk        *disk
	dir         *Dir
	lock        *os.File
	controlFile *os.File

	writing sync.Mutex // taken first; held by whoever moves the position
	syncing sync.Mutex // taken second; held by whoever changes what is known after a crash, or the names of files

	mu      sync.Mutex    // taken last, and held briefly
	written wal.Position  // guarded by mu, changed with writing held; end of what is kept
	control control       // guarded by mu, changed with syncing held; what is known after a crash
	file    *os.File      // guarded by mu, changed with writing and syncing held; the open segment, nil if there is none
	fresh   bool          // guarded by mu; the name of file may not last over a crash
	kept    []keptSegment // guarded by mu, changed with syncing held; by position
	floor   wal.LSN       // guarded by mu
	lost    int64         // guarded by mu
	stuck   error         // guarded by mu
	stale   bool          // guarded by mu; what is here may differ from what is on disk
	closed  bool          // guarded by mu
	end     atomic.Uint64 // written.LSN, for readers
}

// OpenSpool opens the spool in a directory, which is made if it is missing, and
// goes on where the last flush ended. It fails with [ErrInUse] while somebody
// else has it open, and if it holds the WAL of another cluster.
func OpenSpool(path string, cfg SpoolConfig) (*Spool, error) {
	return openSpool(&disk{path: path}, cfg)
}

func openSpool(d *disk, cfg SpoolConfig) (_ *Spool, err error) {
	if err := checkSegmentSize(cfg.SegmentSize); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, failed(err)
	}
	s := &Spool{cfg: cfg, disk: d, dir: OpenDir(d.path, cfg.SegmentSize, cfg.System)}
	s.dir.end = &s.end
	if s.lock, err = d.lock(); err != nil {
		return nil, failed(err)
	}
	err = d.removeTemporary()
	if err == nil {
		err = s.openControl()
	}
	if err == nil {
		err = s.recallFloor()
	}
	if err == nil {
		err = s.loadLocked()
	}
	if err != nil {
		return nil, failed(errors.Join(err, s.release()))
	}
	return s, nil
}

// recallFloor makes what the saved slots need the floor until SetFloor is called:
// what they need is not to be removed at every start.
func (s *Spool) recallFloor() error {
	slots, err := s.LoadSlots()
	for _, at := range slots {
		if at != 0 && (s.floor == 0 || at < s.floor) {
			s.floor = at
		}
	}
	return err
}

// release closes all files, and with them gives the directory free.
func (s *Spool) release() error {
	errs := []error{s.dir.Close()}
	for _, f := range []*os.File{s.file, s.controlFile, s.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Close flushes what was written and closes the spool, also for readers of Dir.
func (s *Spool) Close() error {
	_, err := s.Sync()
	s.writing.Lock()
	defer s.writing.Unlock()
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if again {
		return nil
	}
	return errors.Join(err, failed(s.release()))
}

// Dir returns the spool's files for readers, who see what was written at once,
// flushed or not.
func (s *Spool) Dir() *Dir { return s.dir }

// Position returns where the spool ends, which is where Write has to go on. It
// is zero if the spool is empty and Reset has not told where it begins.
func (s *Spool) Position() wal.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written
}

// Flushed returns how much of the spool is there after a crash.
func (s *Spool) Flushed() wal.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.control.Flushed
}

// Write adds WAL at the spool's end, where at has to be. The timeline is the one
// of Position. If it fails, some of p may have been written, or with a segment
// that could not be flushed more than p be lost: Position says where to go on.
func (s *Spool) Write(at wal.LSN, p []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.ready(); err != nil {
		return failed(err)
	}
	pos := s.Position()
	switch {
	case pos.LSN == 0:
		return fmt.Errorf("walfile: write at %s: the spool is empty, and nobody has said where it begins", at)
	case at != pos.LSN:
		return fmt.Errorf("walfile: write at %s does not continue the spool, which ends at %s", at, pos.LSN)
	}
	if err := s.checkPages(p, pos); err != nil {
		return err
	}
	for len(p) > 0 {
		n, err := s.append(p)
		if err != nil {
			return failed(err)
		}
		p = p[n:]
	}
	return nil
}

// checkPages returns an error if a page that begins in p is not of its place:
// nobody could read it.
func (s *Spool) checkPages(p []byte, pos wal.Position) error {
	end := pos.LSN + wal.LSN(len(p))
	for page := pageStart(pos.LSN + wal.PageSize - 1); page+shortHeader <= end; page += wal.PageSize {
		header := p[page-pos.LSN:]
		var reason string
		first := uint64(page)%uint64(s.cfg.SegmentSize) == 0
		switch {
		case !first && isFiller(header):
		case pageAddress(header) != page:
			reason = fmt.Sprintf("says that it is at %s", pageAddress(header))
		case first && len(header) >= longHeader:
			reason = badLongHeader(header, pos.Timeline, s.cfg.SegmentSize, s.cfg.System)
		default:
			reason = badHeader(header, pos.Timeline)
		}
		if reason != "" {
			id := segmentID{number: uint64(page) / uint64(s.cfg.SegmentSize), timeline: pos.Timeline}
			return &PageError{Path: s.disk.file(id.name(s.cfg.SegmentSize)), LSN: page, Reason: reason}
		}
	}
	return nil
}

// append writes the beginning of p, up to the end of the segment, which it then
// completes. The caller holds writing.
func (s *Spool) append(p []byte) (int, error) {
	pos := s.Position()
	offset := s.dir.offset(pos.LSN)
	p = p[:min(int64(len(p)), s.cfg.SegmentSize-offset)]
	if s.file == nil {
		if err := s.begin(pos); err != nil {
			return 0, err
		}
	}
	if err := s.disk.writeAt(s.file, p, offset); err != nil {
		return 0, err
	}
	s.mu.Lock()
	s.written.LSN += wal.LSN(len(p))
	s.end.Store(uint64(s.written.LSN))
	s.kept[len(s.kept)-1].size = offset + int64(len(p))
	s.mu.Unlock()
	if offset+int64(len(p)) == s.cfg.SegmentSize {
		return len(p), s.complete()
	}
	return len(p), nil
}

// begin makes the file of the segment that begins at pos.
func (s *Spool) begin(pos wal.Position) error {
	id := s.segmentAt(pos)
	id.partial = true
	s.syncing.Lock()
	defer s.syncing.Unlock()
	f, err := s.disk.create(id.name(s.cfg.SegmentSize))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file, s.fresh = f, true
	s.kept = append(s.kept, keptSegment{segmentID: id})
	return nil
}

// segmentAt says which segment the byte after pos belongs to.
func (s *Spool) segmentAt(pos wal.Position) segmentID {
	return segmentID{number: uint64(pos.LSN) / uint64(s.cfg.SegmentSize), timeline: pos.Timeline}
}

// complete gives the open segment, which is full, its final name.
func (s *Spool) complete() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if err := s.completeLocked(); err != nil {
		return s.reloadLocked(err)
	}
	s.retainLocked()
	return nil
}

func (s *Spool) completeLocked() error {
	if err := s.disk.sync(s.file); err != nil {
		return err
	}
	s.mu.Lock()
	id, c := s.kept[len(s.kept)-1].segmentID, s.control
	c.Flushed = s.written
	s.mu.Unlock()
	partial := id.name(s.cfg.SegmentSize)
	id.partial = false
	if err := s.disk.rename(partial, id.name(s.cfg.SegmentSize)); err != nil {
		return err
	}
	if err := s.saveControlLocked(c); err != nil {
		return err
	}
	err := s.file.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file, s.fresh = nil, false
	s.kept[len(s.kept)-1].segmentID = id
	return err
}

// Sync makes what was written before the call last over a crash and returns up
// to where that is so. If the device refuses, whatever was not flushed before is
// given up, because nobody can say what of it will be written: Position is then
// what was returned last.
func (s *Spool) Sync() (wal.LSN, error) {
	err := s.flush()
	if err == nil {
		return s.Flushed().LSN, nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if reloadErr := s.ready(); reloadErr != nil && !errors.Is(err, reloadErr) {
		err = errors.Join(err, reloadErr)
	}
	return s.Flushed().LSN, failed(err)
}

func (s *Spool) flush() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	return s.flushLocked()
}

// errStale means that files have to be looked at before anything is done.
var errStale = errors.New("an earlier operation failed")

func (s *Spool) flushLocked() error {
	s.mu.Lock()
	file, fresh, c, written := s.file, s.fresh, s.control, s.written
	stale, closed := s.stale, s.closed
	s.mu.Unlock()
	switch {
	case closed:
		return fs.ErrClosed
	case stale:
		return errStale
	case written == c.Flushed:
		return nil
	}
	err := s.disk.sync(file)
	if err == nil && fresh {
		err = s.disk.syncNames()
	}
	s.mu.Lock()
	s.stale = err != nil
	s.fresh = s.fresh && err != nil
	s.mu.Unlock()
	if err != nil {
		return err
	}
	c.Flushed = written
	return s.saveControlLocked(c)
}

// ready makes sure that what is known of the files is true. The caller holds
// writing.
func (s *Spool) ready() error {
	s.mu.Lock()
	stale, closed := s.stale, s.closed
	s.mu.Unlock()
	if closed {
		return fs.ErrClosed
	}
	if !stale {
		return nil
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	return s.reloadLocked(nil)
}

// reloadLocked looks at the files again after an operation failed with cause,
// and goes back to what was flushed. The caller holds writing and syncing. It
// returns cause and what else went wrong.
func (s *Spool) reloadLocked(cause error) error {
	s.mu.Lock()
	s.stale = true
	s.mu.Unlock()
	return errors.Join(cause, s.loadLocked())
}
