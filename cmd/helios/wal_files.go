package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/heliosdb/helios/wal"
)

// segmentFile is one file of the log.
type segmentFile struct {
	path     string
	start    wal.LSN
	timeline wal.Timeline
}

// logFiles is a log in files, one after the other.
type logFiles struct {
	files []segmentFile
	open  *os.File
	skip  int64 // of the first file
}

// openFiles returns the log in files, or in one directory, from the page on that
// from is in; from the beginning if from is 0.
func openFiles(args []string, from wal.LSN) (*logFiles, error) {
	files, size, err := listFiles(args)
	if err != nil {
		return nil, err
	}
	if from != 0 {
		files = slices.DeleteFunc(files, func(f segmentFile) bool { return size.End(f.start) <= from })
	}
	switch {
	case len(files) == 0:
		return nil, &failure{code: exitFailed, err: fmt.Errorf("nothing of the log from %s on is in %s", from, args[0])}
	case from != 0 && files[0].start > from:
		return nil, &failure{code: exitFailed, err: fmt.Errorf("the log in %s begins at %s only, behind %s", args[0], files[0].start, from)}
	}
	for i, f := range files[1:] {
		if want := size.End(files[i].start); f.start != want {
			return nil, failed(fmt.Errorf("%s does not follow %s", f.path, files[i].path), "the segment in between is "+size.Name(f.timeline, want))
		}
	}
	log := &logFiles{files: files}
	if from != 0 {
		log.skip = int64(from.PageStart() - files[0].start)
	}
	log.open, err = os.Open(files[0].path)
	if err == nil {
		_, err = log.open.Seek(log.skip, io.SeekStart)
	}
	return log, err
}

// Start returns where the first byte is in the log.
func (l *logFiles) Start() wal.LSN { return l.files[0].start + wal.LSN(l.skip) }

// Read reads on, from file to file.
func (l *logFiles) Read(p []byte) (int, error) {
	for {
		n, err := l.open.Read(p)
		if n > 0 || !errors.Is(err, io.EOF) || len(l.files) == 1 {
			return n, err
		}
		next, err := os.Open(l.files[1].path)
		if err != nil {
			return 0, err
		}
		l.open.Close() //nolint:errcheck // it was only read
		// The first file stays: it says where the log begins.
		l.open, l.files = next, append(l.files[:1], l.files[2:]...)
	}
}

// Close closes the file that is open.
func (l *logFiles) Close() error { return l.open.Close() }

// listFiles returns the segments that args name, and how large they are.
func listFiles(args []string) ([]segmentFile, wal.SegmentSize, error) {
	info, err := os.Stat(args[0])
	if err != nil {
		return nil, 0, err
	}
	if !info.IsDir() {
		size, err := segmentSizeOf(args[0], info)
		if err != nil {
			return nil, 0, err
		}
		files := make([]segmentFile, len(args))
		for i, path := range args {
			if files[i], err = segmentAt(path, size); err != nil {
				return nil, 0, err
			}
		}
		return files, size, nil
	}
	if len(args) > 1 {
		return nil, 0, usageError("a directory stands alone", "helios help wal dump")
	}
	return listDirectory(args[0])
}

// listDirectory returns the segments of a directory in the order of the log, up to
// where its newest timeline ends.
func listDirectory(dir string) (files []segmentFile, size wal.SegmentSize, err error) {
	if info, err := os.Stat(filepath.Join(dir, "pg_wal")); err == nil && info.IsDir() {
		dir = filepath.Join(dir, "pg_wal")
	}
	paths, err := filepath.Glob(filepath.Join(dir, "????????????????????????"))
	if err != nil {
		return nil, 0, err
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, 0, err
		}
		if size == 0 {
			size = wal.SegmentSize(info.Size())
		}
		if timeline, start, err := size.Parse(filepath.Base(path)); err == nil && size.Check() == nil {
			files = append(files, segmentFile{path, start, timeline})
		}
	}
	slices.SortFunc(files, func(a, b segmentFile) int {
		return cmp.Or(cmp.Compare(a.start, b.start), cmp.Compare(b.timeline, a.timeline))
	})
	files = slices.CompactFunc(files, func(a, b segmentFile) bool { return a.start == b.start })
	for i := 1; i < len(files); i++ {
		if files[i].timeline < files[i-1].timeline { // left behind where the newer timeline branched off
			files = files[:i]
		}
	}
	if len(files) == 0 {
		return nil, 0, failed(fmt.Errorf("%s holds no WAL segments", dir), "want a server's pg_wal, or its data directory")
	}
	return files, size, nil
}

// segmentSizeOf returns how large the segments are that a file is one of: what its
// first page says, or as large as it is.
func segmentSizeOf(path string, info os.FileInfo) (wal.SegmentSize, error) {
	size := wal.SegmentSize(info.Size())
	if header, err := readHeader(path); err == nil && header.Long {
		size = header.SegmentSize
	}
	if size.Check() != nil {
		return 0, fmt.Errorf("%s is no WAL segment: it has %d bytes, and does not begin with a page's header", path, info.Size())
	}
	return size, nil
}

// segmentAt returns what a file is by its name, or if that tells nothing, by its
// first page.
func segmentAt(path string, size wal.SegmentSize) (segmentFile, error) {
	name := filepath.Base(path)
	if timeline, start, err := size.Parse(name[:min(24, len(name))]); err == nil {
		return segmentFile{path, start, timeline}, nil
	}
	header, err := readHeader(path)
	if err != nil {
		return segmentFile{}, fmt.Errorf("%s: %w", path, trimmed(err))
	}
	return segmentFile{path, header.LSN, header.Timeline}, nil
}

// readHeader reads the header of a file's first page.
func readHeader(path string) (wal.PageHeader, error) {
	f, err := os.Open(path)
	if err != nil {
		return wal.PageHeader{}, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	page := make([]byte, 64)
	n, err := io.ReadFull(f, page)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return wal.PageHeader{}, err
	}
	return wal.ParsePageHeader(page[:n])
}
