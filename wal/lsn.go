package wal

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a byte position in the write-ahead log of one timeline. The zero LSN
// means "no position": PostgreSQL calls it InvalidXLogRecPtr.
type LSN uint64

// PageSize is the size of a WAL page in bytes (XLOG_BLCKSZ as PostgreSQL is
// built by every distribution).
const PageSize = 8192

// DefaultSegmentSize is the size of a WAL segment unless initdb was told
// otherwise, in bytes.
const DefaultSegmentSize = 16 << 20

// Sizes of the headers that stand in front of the records of a page, in bytes
// (SizeOfXLogShortPHD and SizeOfXLogLongPHD in access/xlog_internal.h).
const (
	shortPageHeader = 24
	longPageHeader  = 40
)

// ParseLSN reads PostgreSQL's text form of a pg_lsn: two hexadecimal numbers of
// up to 32 bits with a slash between them, such as 16/B374D848.
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	if !ok || !isHex32(high) || !isHex32(low) {
		return 0, fmt.Errorf("wal: %q is not an LSN: want two hexadecimal numbers like 16/B374D848", s)
	}
	h, _ := strconv.ParseUint(high, 16, 32) // isHex32 has looked at every digit
	l, _ := strconv.ParseUint(low, 16, 32)
	return LSN(h<<32 | l), nil
}

// isHex32 reports whether s is one to eight hexadecimal digits. strconv alone
// would take a sign and underscores as well.
func isHex32(s string) bool {
	if len(s) < 1 || len(s) > 8 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9', 'a' <= c && c <= 'f', 'A' <= c && c <= 'F':
		default:
			return false
		}
	}
	return true
}

// String returns PostgreSQL's text form, such as 16/B374D848.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l)) }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseLSN.
func (l *LSN) UnmarshalText(text []byte) error {
	v, err := ParseLSN(string(text))
	if err != nil {
		return err
	}
	*l = v
	return nil
}

// Behind returns by how many bytes l stands before other; 0 if it does not.
func (l LSN) Behind(other LSN) uint64 {
	if l >= other {
		return 0
	}
	return uint64(other - l)
}

// EndOfRecord turns an insert position into the end of the last record before
// it. PostgreSQL's pg_current_wal_insert_lsn() stands behind the page header
// when the next record starts a page or a segment, where a standby that has
// replayed everything never arrives (XLogBytePosToRecPtr in xlog.c).
func (l LSN) EndOfRecord(segmentSize uint64) LSN {
	switch {
	case segmentSize != 0 && uint64(l)%segmentSize == longPageHeader:
		return l - longPageHeader
	case uint64(l)%PageSize == shortPageHeader && (segmentSize == 0 || uint64(l)%segmentSize > PageSize):
		return l - shortPageHeader
	default:
		return l
	}
}
