package walfile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/heliosdb/helios/wal"
)

// partialSuffix ends the name of a segment that is not whole.
const partialSuffix = ".partial"

// checkSegmentSize returns an error unless n is a size that a segment may have.
func checkSegmentSize(n int64) error {
	if err := wal.SegmentSize(n).Check(); err != nil { //nolint:gosec // what is negative is refused
		return fmt.Errorf("walfile: %w", err)
	}
	return nil
}

// A segmentID says which segment a file holds.
type segmentID struct {
	number   uint64 // position of its first byte, in segments
	timeline wal.Timeline
	partial  bool
}

// name returns the file's name: timeline, and the number in two parts, as
// XLogFileName in xlog_internal.h.
func (s segmentID) name(size int64) string {
	name := wal.SegmentSize(size).Name(s.timeline, s.start(size))
	if s.partial {
		name += partialSuffix
	}
	return name
}

// start returns the position of the segment's first byte.
func (s segmentID) start(size int64) wal.LSN { return wal.LSN(s.number * uint64(size)) }

// compareSegments orders by position, then by timeline.
func compareSegments(a, b segmentID) int {
	switch {
	case a.number != b.number:
		return compare(a.number, b.number)
	case a.timeline != b.timeline:
		return compare(uint64(a.timeline), uint64(b.timeline))
	case a.partial == b.partial:
		return 0
	case a.partial:
		return -1
	default:
		return 1
	}
}

func compare(a, b uint64) int {
	if a < b {
		return -1
	}
	return 1
}

// parseSegmentName is the inverse of name; false for any other file.
func parseSegmentName(name string, size int64) (segmentID, bool) {
	whole, partial := strings.CutSuffix(name, partialSuffix)
	t, at, err := wal.SegmentSize(size).Parse(whole)
	if err != nil {
		return segmentID{}, false
	}
	return segmentID{number: wal.SegmentSize(size).Number(at), timeline: t, partial: partial}, true
}

// parseHex reads eight hexadecimal digits; strconv alone takes a sign as well.
func parseHex(s string) (uint64, bool) {
	if s[0] == '+' || s[0] == '-' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 16, 32)
	return n, err == nil
}

// historyName returns the name of the file that tells where t began.
func historyName(t wal.Timeline) string { return t.HistoryFile() }

// isHistoryName reports whether a file tells of a timeline's beginning.
func isHistoryName(name string) bool {
	digits, ok := strings.CutSuffix(name, ".history")
	if !ok || len(digits) != 8 {
		return false
	}
	_, ok = parseHex(digits)
	return ok
}

// TimelinesAt returns the timelines under whose name a segment file may hold
// the byte at a position of timeline now's past, newest first: what
// [Dir.ReadAt] takes. A timeline's first segment begins with a copy of what its
// predecessor wrote there, so that there may be more than one. The first
// timeline of a history is taken to be 1; without a history it is now.
func TimelinesAt(h wal.History, now wal.Timeline, at wal.LSN, segmentSize int64) []wal.Timeline {
	end := at - at%wal.LSN(segmentSize) + wal.LSN(segmentSize)
	var found []wal.Timeline
	for _, s := range slices.Backward(h) {
		if s.Timeline > now || s.LSN >= end {
			continue
		}
		found = append(found, s.Timeline)
		if s.LSN <= at {
			return found
		}
	}
	if len(h) == 0 || h[0].Timeline > now {
		return []wal.Timeline{now}
	}
	return append(found, 1)
}
