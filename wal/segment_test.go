package wal_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/heliosdb/helios/internal/walfake"
	"github.com/heliosdb/helios/wal"
)

func TestASegmentIsNamedForWhereItIs(t *testing.T) {
	for _, tt := range []struct {
		size     wal.SegmentSize
		timeline wal.Timeline
		start    wal.LSN
		name     string
	}{
		{16 << 20, 1, 0x16_37000000, "000000010000001600000037"},
		{16 << 20, 0xAB, 0, "000000AB0000000000000000"},
		{16 << 20, 1, 0x1_FF000000, "0000000100000001000000FF"},
		{1 << 20, 1, 0x1_FFF00000, "000000010000000100000FFF"},
		{1 << 30, 2, 0x5_C0000000, "000000020000000500000003"},
	} {
		if got := tt.size.Name(tt.timeline, tt.start+12345); got != tt.name {
			t.Errorf("Name(%s, %s) of segments of %d is %s, want %s", tt.timeline, tt.start+12345, tt.size, got, tt.name)
		}
		timeline, start, err := tt.size.Parse(tt.name)
		if err != nil || timeline != tt.timeline || start != tt.start {
			t.Errorf("Parse(%s) of segments of %d = %s, %s, %v; want %s, %s", tt.name, tt.size, timeline, start, err, tt.timeline, tt.start)
		}
		if got := tt.size.End(tt.start + 1); got != tt.start+wal.LSN(tt.size) || tt.size.Start(got-1) != tt.start || tt.size.Number(got) != tt.size.Number(tt.start)+1 {
			t.Errorf("the segment at %s ends at %s", tt.start, got)
		}
	}
}

func TestWhatIsNoNameOfASegmentIsRefused(t *testing.T) {
	for _, name := range []string{
		"", "00000001000000160000003", "000000010000001600000037.partial", "00000001.history", "0000000100000016000000ab",
		"00000001000000160000G037", "000000000000001600000037", "000000010000001600000100", "+00000010000001600000037",
	} {
		if timeline, start, err := wal.SegmentSize(wal.DefaultSegmentSize).Parse(name); err == nil {
			t.Errorf("Parse(%q) = %s, %s, want an error", name, timeline, start)
		}
	}
}

func TestSegmentsHaveSizesThatInitdbTakes(t *testing.T) {
	for size, want := range map[wal.SegmentSize]bool{
		0: false, 1 << 19: false, 1 << 20: true, 3 << 20: false, 16 << 20: true, 1 << 30: true, 1 << 31: false, 1<<24 + 1: false,
	} {
		if err := size.Check(); (err == nil) != want {
			t.Errorf("SegmentSize(%d).Check() = %v, want it accepted: %v", size, err, want)
		}
	}
}

func FuzzParseSegment(f *testing.F) {
	f.Add("000000010000001600000037", uint8(4))
	f.Add("0000000A0000000100000FFF", uint8(0))
	f.Fuzz(func(t *testing.T, name string, shift uint8) {
		size := wal.MinSegmentSize << (shift % 11)
		timeline, start, err := size.Parse(name)
		if err == nil && size.Name(timeline, start) != name {
			t.Fatalf("%q reads as %s, %s, which is %q", name, timeline, start, size.Name(timeline, start))
		}
	})
}

func TestAPageHeaderTellsWhoWroteIt(t *testing.T) {
	for _, version := range []int{13, 14, 15, 16, 17, 18} {
		l := walfake.New(version, begin)
		l.Timeline, l.SegmentSize = 3, 4<<20
		l.Append(noop(wal.PageSize))
		h, err := wal.ParsePageHeader(l.Bytes())
		if err != nil || h.Version != version || h.Timeline != 3 || h.LSN != begin || !h.Long || h.SegmentSize != 4<<20 || h.SystemID != l.SystemID || h.Size() != 40 {
			t.Errorf("first page of PostgreSQL %d: %+v, %v", version, h, err)
		}
		h, err = wal.ParsePageHeader(l.Bytes()[wal.PageSize:])
		if err != nil || h.Version != version || h.LSN != begin+wal.PageSize || h.Long || h.Remaining == 0 || h.Size() != 24 {
			t.Errorf("second page of PostgreSQL %d: %+v, %v", version, h, err)
		}
	}
	l := walfake.New(15, begin)
	l.Append(noop(1))
	for _, n := range []int{0, 23, 39} {
		if h, err := wal.ParsePageHeader(l.Bytes()[:n]); err == nil {
			t.Errorf("%d bytes of a page are read as %+v", n, h)
		}
	}
}

func TestPositionsAreRoundedToPagesAndRecords(t *testing.T) {
	if got := wal.LSN(0x1003FFF).PageStart(); got != 0x1002000 {
		t.Errorf("the page of 0/1003FFF begins at %s", got)
	}
	for l, want := range map[wal.LSN]wal.LSN{0x10: 0x10, 0x11: 0x18, 0x17: 0x18} {
		if got := l.Aligned(); got != want {
			t.Errorf("%s.Aligned() = %s, want %s", l, got, want)
		}
	}
}

func TestErrorsSayWhereAndWhat(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&wal.CorruptError{LSN: 0x10, Reason: "torn"}, "wal: damaged at 0/10: torn"},
		{&wal.EndError{LSN: 0x10, Reason: "empty"}, "wal: ends at 0/10: empty"},
		{&wal.VersionError{LSN: 0x2000, Magic: 0xD11A}, "wal: page at 0/2000 has magic number D11A: want one of PostgreSQL 13 to 18"},
	} {
		if got := fmt.Errorf("%w", tt.err); got.Error() != tt.want || !errors.Is(got, tt.err) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
