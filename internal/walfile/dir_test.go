package walfile

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/heliosdb/helios/wal"
)

func TestSegmentNamesArePostgreSQLs(t *testing.T) {
	for name, tt := range map[string]struct {
		id   segmentID
		size int64
		want string
	}{
		"first of a cluster": {segmentID{number: 1, timeline: 1}, 16 << 20, "000000010000000000000001"},
		"last before 1/0":    {segmentID{number: 255, timeline: 1}, 16 << 20, "0000000100000000000000FF"},
		"first after 1/0":    {segmentID{number: 256, timeline: 1}, 16 << 20, "000000010000000100000000"},
		"1 MiB":              {segmentID{number: 4096 + 4095, timeline: 26}, 1 << 20, "0000001A0000000100000FFF"},
		"1 GiB":              {segmentID{number: 7, timeline: 3}, 1 << 30, "000000030000000100000003"},
		"partial":            {segmentID{number: 7, timeline: 3, partial: true}, 1 << 30, "000000030000000100000003.partial"},
	} {
		if got := tt.id.name(tt.size); got != tt.want {
			t.Errorf("%s: name of %+v = %s, want %s", name, tt.id, got, tt.want)
		}
		if got, ok := parseSegmentName(tt.want, tt.size); !ok || got != tt.id {
			t.Errorf("%s: parseSegmentName(%s) = %+v, %v; want %+v", name, tt.want, got, ok, tt.id)
		}
	}
	for _, name := range []string{
		"", "00000001.history", "00000001000000000000000", "0000000100000000000000ff", "000000000000000000000001",
		"000000010000000000000100", "00000001+00000000000001F", "xlogtemp.1234", "000000010000000000000001.gz",
	} {
		if id, ok := parseSegmentName(name, 16<<20); ok {
			t.Errorf("parseSegmentName(%q) = %+v, want none", name, id)
		}
	}
}

func TestAPositionIsInTheFilesOfTimelinesThatBeginInItsSegment(t *testing.T) {
	const seg = wal.LSN(testSize)
	h := wal.History{{Timeline: 2, LSN: 5*seg + 100}, {Timeline: 3, LSN: 5*seg + 900}, {Timeline: 5, LSN: 8 * seg}}
	for name, tt := range map[string]struct {
		h    wal.History
		now  wal.Timeline
		at   wal.LSN
		want []wal.Timeline
	}{
		"one timeline":                     {nil, 1, 5 * seg, []wal.Timeline{1}},
		"nothing known":                    {nil, 4, 5 * seg, []wal.Timeline{4}},
		"long before a switch":             {h, 5, 2*seg + 1, []wal.Timeline{1}},
		"before two switches":              {h, 5, 5*seg + 1, []wal.Timeline{3, 2, 1}},
		"at a switch":                      {h, 5, 5*seg + 100, []wal.Timeline{3, 2}},
		"between two":                      {h, 5, 5*seg + 500, []wal.Timeline{3, 2}},
		"behind them":                      {h, 5, 5*seg + 901, []wal.Timeline{3}},
		"before a switch at a start":       {h, 5, 8*seg - 1, []wal.Timeline{3}},
		"a switch at the segment's start":  {h, 5, 8 * seg, []wal.Timeline{5}},
		"after the last":                   {h, 5, 80 * seg, []wal.Timeline{5}},
		"an older timeline is asked about": {h, 2, 80 * seg, []wal.Timeline{2}},
		"before what is known of it":       {h, 2, 5*seg + 1, []wal.Timeline{2, 1}},
	} {
		if got := TimelinesAt(tt.h, tt.now, tt.at, testSize); !slices.Equal(got, tt.want) {
			t.Errorf("%s: TimelinesAt(%s) = %v, want %v", name, tt.at, got, tt.want)
		}
	}
}

func TestOnlyPagesOfTheirPlaceAreRead(t *testing.T) {
	const seg = wal.LSN(testSize)
	l := newFakeLog(testRand(1), 3*seg, 2)
	l.grow(int(3 * seg))
	u16, u32, u64 := binary.LittleEndian.PutUint16, binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	for name, tt := range map[string]struct {
		spoil  func(file []byte) []byte
		at     wal.LSN
		length int
		want   int    // bytes
		reason string // of a PageError; "" with want 0 means ErrNotKept
	}{
		"a whole page":                {nil, 3 * seg, 8192, 8192, ""},
		"within a page":               {nil, 3*seg + 5000, 100, 100, ""},
		"over many pages":             {nil, 3*seg + 5000, 100_000, 100_000, ""},
		"to the end of the segment":   {nil, 4*seg - 1000, 100_000, 1000, ""},
		"the beginning of a header":   {nil, 3*seg + 8000, 192 + 10, 192 + 10, ""},
		"an empty file":               {func([]byte) []byte { return nil }, 3 * seg, 100, 0, ""},
		"a file that ends":            {func(b []byte) []byte { return b[:20_000] }, 3*seg + 10_000, 100_000, 10_000, ""},
		"behind the end of a file":    {func(b []byte) []byte { return b[:20_000] }, 3*seg + 20_000, 100, 0, ""},
		"a header that ends":          {func(b []byte) []byte { return b[:8192+10] }, 3*seg + 8000, 1000, 192, ""},
		"recycled":                    {func(b []byte) []byte { u64(b[8:], uint64(2*seg)); return b }, 3*seg + 9000, 100, 0, ""},
		"zeros":                       {func(b []byte) []byte { return make([]byte, len(b)) }, 3*seg + 9000, 100, 0, ""},
		"zeros of a replica":          {func(b []byte) []byte { clear(b[8192:]); return b }, 3*seg + 5000, 100_000, 3192, ""},
		"within zeros of a replica":   {func(b []byte) []byte { clear(b[8192:]); return b }, 3*seg + 50_000, 100_000, 0, ""},
		"zeros in a recycled segment": {func(b []byte) []byte { clear(b[8192:]); u64(b[8:], uint64(seg)); return b }, 3*seg + 50_000, 100_000, 0, ""},
		"recycled further on":         {func(b []byte) []byte { u64(b[16384+8:], uint64(seg)); return b }, 3*seg + 9000, 100_000, 16384 - 9000, ""},
		"only what was recycled":      {func(b []byte) []byte { u64(b[16384+8:], uint64(seg)); return b }, 3*seg + 17_000, 100, 0, ""},
		"a page of no release":        {func(b []byte) []byte { u16(b[16384:], 0xD000); return b }, 3*seg + 9000, 100_000, 16384 - 9000, ""},
		"only a page of no release":   {func(b []byte) []byte { u16(b[16384:], 0xD000); return b }, 3*seg + 17_000, 100, 0, "magic number D000"},
		"a segment of no release":     {func(b []byte) []byte { u16(b, 0xD999); return b }, 3*seg + 9000, 100, 0, "magic number D999"},
		"a page of a later timeline":  {func(b []byte) []byte { u32(b[4:], 3); return b }, 3 * seg, 100, 0, "is of timeline 3, in the file of timeline 2"},
		"a page of an earlier one":    {func(b []byte) []byte { u32(b[4:], 1); return b }, 3 * seg, 100, 100, ""},
		"another cluster":             {func(b []byte) []byte { u64(b[24:], 99); return b }, 3*seg + 9000, 100, 0, "is of system 99 instead of 7316482219234876543"},
		"another segment size":        {func(b []byte) []byte { u32(b[32:], 16<<20); return b }, 3 * seg, 100, 0, "is of a segment of 16777216 bytes"},
		"another page size":           {func(b []byte) []byte { u32(b[36:], 4096); return b }, 3 * seg, 100, 0, "is of 4096 bytes instead of 8192"},
		"a short header at the start": {func(b []byte) []byte { u16(b[2:], 0); return b }, 3 * seg, 100, 0, "has no long header"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := slices.Clone(l.bytes(3*seg, 4*seg))
			if tt.spoil != nil {
				file = tt.spoil(file)
			}
			writeFile(t, filepath.Join(dir, segmentID{number: 3, timeline: 2}.name(testSize)), file)
			d := OpenDir(dir, testSize, testSystem)
			defer d.Close()
			buf := make([]byte, tt.length)
			n, err := d.ReadAt(buf, tt.at, 2)
			page, isPage := errors.AsType[*PageError](err)
			switch {
			case n != tt.want, n > 0 && err != nil:
				t.Errorf("ReadAt = %d, %v; want %d", n, err, tt.want)
			case n > 0:
				if string(buf[:min(n, 20)]) != string(file[tt.at-3*seg:][:min(n, 20)]) {
					t.Errorf("ReadAt yields other bytes than the file has")
				}
			case tt.reason == "" && !errors.Is(err, ErrNotKept):
				t.Errorf("ReadAt = %v, want %v", err, ErrNotKept)
			case tt.reason != "" && (!isPage || !strings.Contains(page.Error(), tt.reason)):
				t.Errorf("ReadAt = %v, want a PageError: %s", err, tt.reason)
			}
		})
	}
}

// What is behind the end of WAL in a segment is filler once the next one has begun.
// Before that a replica has room there that it has not used yet.
func TestZerosAreWALWhenTheNextSegmentHasBegun(t *testing.T) {
	const seg = wal.LSN(testSize)
	l := newFakeLog(testRand(1), 3*seg, 2)
	l.grow(int(3 * seg))
	switched := slices.Clone(l.bytes(3*seg, 4*seg))
	clear(switched[8192:])
	recycled := slices.Clone(l.bytes(3*seg, 4*seg))
	for name, tt := range map[string]struct {
		next []byte
		want int // bytes, of 100,000 from the first page on
	}{
		"it is not there":          {nil, 8192},
		"it has begun":             {l.bytes(4*seg, 5*seg), 100_000},
		"it is a recycled file":    {recycled, 8192},
		"it is a preallocated one": {make([]byte, seg), 8192},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, segmentID{number: 3, timeline: 2}.name(testSize)), switched)
			if tt.next != nil {
				writeFile(t, filepath.Join(dir, segmentID{number: 4, timeline: 2}.name(testSize)), tt.next)
			}
			d := OpenDir(dir, testSize, testSystem)
			defer d.Close()
			if n, err := d.ReadAt(make([]byte, 100_000), 3*seg, 2); n != tt.want || err != nil {
				t.Errorf("ReadAt = %d, %v; want %d", n, err, tt.want)
			}
		})
	}
}

func TestASegmentIsFoundUnderTheNamesOfItsTimelines(t *testing.T) {
	const seg = wal.LSN(testSize)
	dir, l := t.TempDir(), newFakeLog(testRand(2), 3*seg, 1)
	l.grow(int(2*seg) + 50_000)
	l.segmentFile(t, dir, segmentID{number: 3, timeline: 1})
	l.segmentFile(t, dir, segmentID{number: 4, timeline: 1})
	l.promote(2, l.place(5*seg+20_000, 5*seg+40_000))
	l.segmentFile(t, dir, segmentID{number: 5, timeline: 1, partial: true})
	d := OpenDir(dir, testSize, testSystem)
	defer d.Close()
	fork := l.end()
	l.wantRead(t, d, 3*seg, fork) // only the old timeline's .partial has its end
	wantNotKept(t, d, fork, 2)

	l.grow(int(seg))
	l.segmentFile(t, dir, segmentID{number: 5, timeline: 2})
	l.segmentFile(t, dir, segmentID{number: 6, timeline: 2, partial: true})
	l.wantRead(t, d, 3*seg, l.end())
	wantNotKept(t, d, l.end(), 2)
	wantNotKept(t, d, 2*seg, 2, 1)
	wantNotKept(t, d, 3*seg, 2)
	wantNotKept(t, d, 3*seg)

	ok(t, os.Remove(filepath.Join(dir, segmentID{number: 5, timeline: 1, partial: true}.name(testSize))))
	l.wantRead(t, d, 3*seg, l.end())
}

func TestASegmentThatIsRecycledWhileItIsOpenIsNotRead(t *testing.T) {
	const seg = wal.LSN(testSize)
	dir, l := t.TempDir(), newFakeLog(testRand(3), 3*seg, 1)
	l.grow(int(4 * seg))
	third, sixth := segmentID{number: 3, timeline: 1}, segmentID{number: 6, timeline: 1}
	l.segmentFile(t, dir, third)
	d := OpenDir(dir, testSize, testSystem)
	defer d.Close()
	l.wantRead(t, d, 3*seg, 4*seg)

	ok(t, os.Rename(filepath.Join(dir, third.name(testSize)), filepath.Join(dir, sixth.name(testSize))))
	wantNotKept(t, d, 6*seg, 1)
	f, err := os.OpenFile(filepath.Join(dir, sixth.name(testSize)), os.O_WRONLY, 0)
	ok(t, err)
	_, err = f.WriteAt(l.bytes(6*seg, 6*seg+4*wal.PageSize), 0)
	ok(t, errors.Join(err, f.Close()))
	wantNotKept(t, d, 3*seg+100, 1)
	l.wantRead(t, d, 6*seg, 6*seg+4*wal.PageSize)
	wantNotKept(t, d, 6*seg+4*wal.PageSize, 1)
}

func TestADirectoryKeepsFewFilesOpen(t *testing.T) {
	const seg, segments = wal.LSN(testSize), 3 * maxOpen
	dir, l := t.TempDir(), newFakeLog(testRand(4), 3*seg, 1)
	l.grow(segments * int(seg))
	for i := range uint64(segments) {
		l.segmentFile(t, dir, segmentID{number: 3 + i, timeline: 1})
	}
	d := OpenDir(dir, testSize, testSystem)
	for range 2 {
		l.wantRead(t, d, 3*seg, l.end())
		if got := len(d.open); got > maxOpen {
			t.Errorf("%d files are open, want at most %d", got, maxOpen)
		}
	}
	for i := range uint64(segments) {
		ok(t, os.Remove(filepath.Join(dir, segmentID{number: 3 + i, timeline: 1}.name(testSize))))
	}
	l.segmentFile(t, dir, segmentID{number: 3, timeline: 1})
	l.wantRead(t, d, 3*seg, 4*seg)
	if got := len(d.open); got != 1 {
		t.Errorf("%d files are open after all others were removed, want 1", got)
	}
	ok(t, d.Close())
	if n, err := d.ReadAt(make([]byte, 1), 3*seg, 1); n != 0 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("ReadAt after Close = %d, %v; want 0, %v", n, err, os.ErrClosed)
	}
}

func TestReadAtDoesNotAllocate(t *testing.T) {
	const seg = wal.LSN(testSize)
	dir, l := t.TempDir(), newFakeLog(testRand(5), 3*seg, 1)
	l.grow(int(seg))
	l.segmentFile(t, dir, segmentID{number: 3, timeline: 1})
	d := OpenDir(dir, testSize, testSystem)
	defer d.Close()
	buf, list := make([]byte, 100_000), []wal.Timeline{2, 1}
	got := testing.AllocsPerRun(100, func() {
		if _, err := d.ReadAt(buf, 3*seg+5000, list...); err != nil {
			t.Fatal(err)
		}
	})
	if got != 0 {
		t.Errorf("ReadAt allocates %v times, want 0", got)
	}
}

func TestOldestIsWhereTheWALBeginsThatHasNoGap(t *testing.T) {
	const seg = wal.LSN(testSize)
	old := newFakeLog(testRand(6), 3*seg, 1)
	old.grow(int(5 * seg))
	now := old.clone()
	fork := now.place(6*seg+1000, 7*seg-1000)
	history := now.promote(2, fork)
	now.grow(int(3 * seg))
	id := func(number uint64, t wal.Timeline) segmentID { return segmentID{number: number, timeline: t} }
	partial := func(number uint64, t wal.Timeline) segmentID {
		return segmentID{number: number, timeline: t, partial: true}
	}
	for name, tt := range map[string]struct {
		files    []segmentID
		recycled uint64 // a segment whose file has contents of the past; 0 for none
		want     wal.LSN
		found    bool
	}{
		"nothing":                    {nil, 0, 0, false},
		"all":                        {[]segmentID{id(3, 1), id(4, 1), id(5, 1), id(6, 2), id(7, 2), partial(8, 2)}, 0, 3 * seg, true},
		"a gap":                      {[]segmentID{id(3, 1), id(5, 1), id(6, 2), id(7, 2)}, 0, 5 * seg, true},
		"recycled names above":       {[]segmentID{id(5, 1), id(6, 2), id(7, 2)}, 8, 5 * seg, true},
		"only recycled names":        {nil, 8, 0, false},
		"both names of a segment":    {[]segmentID{id(5, 1), partial(6, 1), id(6, 2), id(7, 2)}, 0, 5 * seg, true},
		"the wrong branch":           {[]segmentID{id(5, 1), id(6, 2), id(7, 1)}, 0, 5 * seg, true},
		"the old name of the switch": {[]segmentID{id(5, 1), id(6, 1)}, 0, 5 * seg, true},
		"half a segment in between":  {[]segmentID{id(5, 1), partial(6, 1), id(7, 2)}, 0, 7 * seg, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, historyName(2)), history)
			for _, f := range tt.files {
				l := now
				if f.timeline == 1 {
					l = old
				}
				l.segmentFile(t, dir, f)
				if f.partial && f.number == 6 {
					ok(t, os.Truncate(filepath.Join(dir, f.name(testSize)), int64(fork%seg)))
				}
			}
			if tt.recycled != 0 {
				writeFile(t, filepath.Join(dir, id(tt.recycled, 2).name(testSize)), old.bytes(4*seg, 5*seg))
			}
			d := OpenDir(dir, testSize, testSystem)
			got, found, err := d.Oldest(2)
			if got != tt.want || found != tt.found || err != nil {
				t.Errorf("Oldest(2) = %s, %v, %v; want %s, %v", got, found, err, tt.want, tt.found)
			}
		})
	}
}

func TestHistoryIsTheFileAsItIs(t *testing.T) {
	dir := t.TempDir()
	d := OpenDir(dir, testSize, testSystem)
	text := "1\t0/3000148\tno recovery target specified\n"
	writeFile(t, filepath.Join(dir, "0000000A.history"), []byte(text))
	if got, err := d.History(10); string(got) != text || err != nil {
		t.Errorf("History(10) = %q, %v; want %q", got, err, text)
	}
	if got, err := d.History(2); len(got) != 0 || !errors.Is(err, ErrNotKept) {
		t.Errorf("History(2) = %q, %v; want %v", got, err, ErrNotKept)
	}
	writeFile(t, filepath.Join(dir, "0000000B.history"), make([]byte, maxHistory+1))
	if _, err := d.History(11); err == nil || errors.Is(err, ErrNotKept) {
		t.Errorf("History of %d bytes = %v, want an error", maxHistory+1, err)
	}
}

func TestADirectoryOfNoSegmentSizeIsNotRead(t *testing.T) {
	for _, size := range []int64{0, -1, 1 << 19, 1 << 31, 3 << 20} {
		d := OpenDir(t.TempDir(), size, testSystem)
		if _, err := d.ReadAt(make([]byte, 1), 1<<20, 1); err == nil || errors.Is(err, ErrNotKept) {
			t.Errorf("ReadAt with segments of %d bytes = %v, want an error", size, err)
		}
		if _, _, err := d.Oldest(1); err == nil {
			t.Errorf("Oldest with segments of %d bytes = %v, want an error", size, err)
		}
	}
}
