package walfile

import "github.com/heliosdb/helios/wal"

// A KeptFile is a segment file, for tests outside of the package: those with real
// servers, whose helpers import it.
type KeptFile struct {
	Name     string
	Partial  bool
	Start    wal.LSN
	Timeline wal.Timeline
}

// Path returns the directory of the spool.
func (s *Spool) Path() string { return s.disk.path }

// Files lists the segment files of the spool.
func (s *Spool) Files(size int64) ([]KeptFile, error) { return s.dir.Files(size) }

// Files lists the segment files of the directory.
func (d *Dir) Files(size int64) ([]KeptFile, error) {
	segments, err := d.segments()
	var files []KeptFile
	for _, f := range segments {
		files = append(files, KeptFile{f.name(size), f.partial, f.start(size), f.timeline})
	}
	return files, err
}

// FileAt returns the name of the file that has a position.
func (s *Spool) FileAt(at wal.Position, partial bool) string {
	id := s.segmentAt(at)
	id.partial = partial
	return id.name(s.cfg.SegmentSize)
}
