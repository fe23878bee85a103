package wal

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// A SegmentSize is the size in bytes of the files that the log is kept in. It is
// chosen by initdb --wal-segsize, and is what SHOW wal_segment_size tells.
type SegmentSize uint64

// The sizes that initdb accepts are the powers of two from the one to the other.
const (
	MinSegmentSize SegmentSize = 1 << 20
	MaxSegmentSize SegmentSize = 1 << 30
)

// Check returns an error unless PostgreSQL can have segments of this size. The
// other methods panic or return nonsense where it does.
func (s SegmentSize) Check() error {
	if s < MinSegmentSize || s > MaxSegmentSize || bits.OnesCount64(uint64(s)) != 1 {
		return fmt.Errorf("wal: %d is no segment size: want a power of two from 1 MB to 1 GB", uint64(s))
	}
	return nil
}

// Number returns which segment a position is in, counted from the beginning of
// the log.
func (s SegmentSize) Number(l LSN) uint64 { return uint64(l) / uint64(s) }

// Start returns where the segment that a position is in begins.
func (s SegmentSize) Start(l LSN) LSN { return l - l%LSN(s) }

// End returns where the segment that a position is in ends and the next begins.
func (s SegmentSize) End(l LSN) LSN { return s.Start(l) + LSN(s) }

// Name returns the name of the file that holds position l of a timeline, such as
// 000000010000001600000037 (XLogFileName in xlog_internal.h).
func (s SegmentSize) Name(t Timeline, l LSN) string {
	perID := uint64(1<<32) / uint64(s)
	n := s.Number(l)
	return fmt.Sprintf("%08X%08X%08X", uint32(t), n/perID, n%perID)
}

// Parse reads the name of a segment's file and returns its timeline and where it
// begins. It refuses what PostgreSQL would not write, lower case included.
func (s SegmentSize) Parse(name string) (Timeline, LSN, error) {
	if len(name) != 24 || !isHex32(name[:8]) || !isHex32(name[8:16]) || !isHex32(name[16:]) || strings.ToUpper(name) != name {
		return 0, 0, fmt.Errorf("wal: %q is not the name of a WAL segment: want 24 digits like 000000010000001600000037", name)
	}
	t, _ := strconv.ParseUint(name[:8], 16, 32) // isHex32 has looked at every digit
	high, _ := strconv.ParseUint(name[8:16], 16, 32)
	low, _ := strconv.ParseUint(name[16:], 16, 32)
	if perID := uint64(1<<32) / uint64(s); t == 0 || low >= perID {
		return 0, 0, fmt.Errorf("wal: %q is not the name of a WAL segment of %d bytes", name, uint64(s))
	}
	return Timeline(t), LSN(high<<32 | low*uint64(s)), nil
}

// PageStart returns where the page that l is in begins.
func (l LSN) PageStart() LSN { return l - l%PageSize }

// Aligned returns l, or the next position after it where a record may begin.
func (l LSN) Aligned() LSN { return (l + recordAlign - 1) &^ (recordAlign - 1) }
