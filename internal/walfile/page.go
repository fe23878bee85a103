package walfile

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/heliosdb/helios/wal"
)

// ErrNotKept means that the WAL asked for is not, or not yet, or no longer in
// the directory.
var ErrNotKept = errors.New("walfile: not kept")

// A PageError says that a page of WAL is where it should be and is not what it
// should be: of another cluster, or damaged.
type PageError struct {
	Path   string  // the file
	LSN    wal.LSN // where the page begins
	Reason string
}

// Error implements error.
func (e *PageError) Error() string {
	return fmt.Sprintf("walfile: %s: page at %s: %s", e.Path, e.LSN, e.Reason)
}

// IsEnd reports whether a read failed with err since a server that has ended wrote no further:
// what is there is nothing, or is from before.
func IsEnd(err error) bool {
	_, old := errors.AsType[*PageError](err)
	return old || errors.Is(err, ErrNotKept)
}

// Sizes of page headers in bytes: SizeOfXLogShortPHD, and SizeOfXLogLongPHD for
// the first page of a segment (access/xlog_internal.h).
const (
	shortHeader = 24
	longHeader  = 40
)

// xlpLongHeader is the flag in xlp_info of a page with a long header.
const xlpLongHeader = 0x0002

// pageStart returns where the page that holds the byte at a position begins.
func pageStart(at wal.LSN) wal.LSN { return at.PageStart() }

// pageAddress returns the position that a page header claims.
func pageAddress(header []byte) wal.LSN { return wal.LSN(binary.LittleEndian.Uint64(header[8:])) }

// isFiller reports whether a page has no header, as those between the end of WAL
// in a segment and its own end, after pg_switch_wal (CopyXLogRecordToWAL in
// xlog.c). A segment's first page is never one.
func isFiller(header []byte) bool {
	return [shortHeader]byte(header) == [shortHeader]byte{}
}

// badHeader says what is wrong with the first 24 bytes of a page in timeline
// t's file, whose address is right; "" if nothing is. Pages that t has from its
// predecessors keep their timelines.
func badHeader(h []byte, t wal.Timeline) string {
	if m := binary.LittleEndian.Uint16(h); wal.VersionOf(m) == 0 {
		return fmt.Sprintf("magic number %04X is of no known release", m)
	}
	if of := wal.Timeline(binary.LittleEndian.Uint32(h[4:])); of == 0 || of > t {
		return fmt.Sprintf("is of timeline %s, in the file of timeline %s", of, t)
	}
	return ""
}

// badLongHeader says what is wrong with the first 40 bytes of a segment whose
// address is right; "" if nothing is.
func badLongHeader(h []byte, t wal.Timeline, size int64, system uint64) string {
	if reason := badHeader(h, t); reason != "" {
		return reason
	}
	if binary.LittleEndian.Uint16(h[2:])&xlpLongHeader == 0 {
		return "is the first of its segment and has no long header"
	}
	if of := binary.LittleEndian.Uint64(h[24:]); of != system {
		return fmt.Sprintf("is of system %d instead of %d", of, system)
	}
	if of := binary.LittleEndian.Uint32(h[32:]); int64(of) != size {
		return fmt.Sprintf("is of a segment of %d bytes instead of %d", of, size)
	}
	if of := binary.LittleEndian.Uint32(h[36:]); of != wal.PageSize {
		return fmt.Sprintf("is of %d bytes instead of %d", of, wal.PageSize)
	}
	return ""
}
