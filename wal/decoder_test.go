package wal_test

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/heliosdb/helios/internal/walfake"
	"github.com/heliosdb/helios/wal"
)

// begin is where the logs of these tests do.
const begin wal.LSN = 0x1000000

// decode returns the records of a log that is fed in chunks of a size, each as a
// line, and how it ended.
func decode(start wal.LSN, log []byte, chunk int) (lines []string, err error) {
	d := wal.NewDecoder(start)
	for len(log) > 0 {
		n := min(chunk, len(log))
		d.Feed(log[:n:n])
		for r := d.Next(); r != nil; r = d.Next() {
			lines = append(lines, fmt.Sprintf("%s %s %s/%s %d", r.LSN, r.End, r.Manager, r.Operation(), len(r.Raw)))
		}
		log = log[n:]
	}
	return lines, d.Err()
}

// noop is a record with n bytes of main data.
func noop(n int) walfake.Record {
	return walfake.Record{Manager: wal.ManagerXLOG, Info: 0x20, Body: walfake.Main(make([]byte, n))}
}

// zoo is a log with all that makes decoding hard: records over page ends, one over
// many pages, an abandoned one, and a switch to the next segment.
func zoo(version int) []byte {
	l := walfake.New(version, begin)
	l.SegmentSize = wal.MinSegmentSize
	for left := 8; left < 64; left += 8 {
		l.Pad(left)
		l.Append(noop(100)) // its header is on two pages
	}
	l.Append(noop(3 * wal.PageSize))
	l.Pad(0)
	l.Append(noop(1))
	l.Abandon(noop(2 * wal.PageSize))
	l.Append(noop(5))
	l.Switch()
	l.Append(noop(7))
	l.Append(noop(300))
	return l.Bytes()
}

func TestRecordsAreTheSameHoweverTheLogIsCut(t *testing.T) {
	for _, version := range []int{13, 14, 15, 16, 17, 18} {
		log := zoo(version)
		want, err := decode(begin, log, len(log))
		if err != nil || len(want) < 200 {
			t.Fatalf("PostgreSQL %d: %d records, %v", version, len(want), err)
		}
		for _, chunk := range []int{1, 3, 7, 100, 1000, 4096, 9999} {
			if got, err := decode(begin, log, chunk); err != nil || !slices.Equal(got, want) {
				t.Errorf("PostgreSQL %d in chunks of %d: %d records, %v; want %d", version, chunk, len(got), err, len(want))
			}
		}
	}
}

func TestALogMayBeginInTheMiddleOfASegment(t *testing.T) {
	log := zoo(15)
	all, err := decode(begin, log, len(log))
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range all { // where a switch ends is known only to those who know the segment size
		if strings.Contains(line, "SWITCH") {
			all = all[:i]
		}
	}
	log = log[:wal.MinSegmentSize/2]
	for _, at := range []int{wal.PageSize, 3 * wal.PageSize, 9 * wal.PageSize, 5000, 7*wal.PageSize + 8} {
		got, err := decode(begin+wal.LSN(at), log[at:], 500)
		if len(got) > 0 {
			got = got[:len(got)-1] // the switch
		}
		if err != nil || len(got) == 0 || !slices.Equal(got, all[len(all)-len(got):]) {
			t.Errorf("from byte %d: %d records, %v; want the last ones of the log", at, len(got), err)
		}
	}
}

func TestAnAbandonedRecordIsLeftOut(t *testing.T) {
	l := walfake.New(17, begin)
	l.Append(noop(1))
	lost, overwrite := l.Abandon(noop(wal.PageSize))
	got, err := decode(begin, l.Bytes(), 64)
	if err != nil || len(got) != 2 || !strings.HasPrefix(got[1], overwrite.String()) || !strings.Contains(got[1], "OVERWRITE_CONTRECORD") {
		t.Errorf("without the record at %s there are %q, %v; want one before and the one at %s", lost, got, err, overwrite)
	}
}

func TestAfterASwitchTheRestOfTheSegmentIsPassedOver(t *testing.T) {
	l := walfake.New(15, begin)
	l.SegmentSize = wal.MinSegmentSize
	l.Append(noop(1))
	at := l.Switch()
	next := l.Append(noop(2))
	d := wal.NewDecoder(begin)
	d.Feed(l.Bytes())
	d.Next()
	r := d.Next()
	if r == nil || !r.IsSwitch() || r.LSN != at || r.End != begin+wal.LSN(wal.MinSegmentSize) {
		t.Fatalf("the second record is %+v, %v; want a switch at %s", r, d.Err(), at)
	}
	if r := d.Next(); r == nil || r.LSN != next {
		t.Errorf("after the switch comes %+v, %v; want the record at %s", r, d.Err(), next)
	}
	// One who begins on the second page is not told how long the segment is.
	l = walfake.New(15, begin)
	l.Pad(0)
	l.Append(noop(1))
	l.Switch()
	next = l.Append(noop(2))
	got, err := decode(begin+wal.PageSize, l.Bytes()[wal.PageSize:], 1000)
	if err != nil || len(got) != 3 || !strings.HasPrefix(got[2], next.String()) {
		t.Errorf("from the second page on: %q, %v; want the last record at %s", got, err, next)
	}
}

func TestTheEndOfALogIsToldFromDamage(t *testing.T) {
	const second = begin + wal.PageSize
	for name, tt := range map[string]struct {
		change func(l *walfake.Log) []byte
		end    wal.LSN // 0 if it is damage
		text   string
	}{
		"zeros after the last record": {func(l *walfake.Log) []byte { return l.Segment() }, begin + 80, "invalid record length: expected at least 24, got 0"},
		"an empty page": {func(l *walfake.Log) []byte {
			l.Pad(0)
			return l.Segment()
		}, second, "invalid magic number 0000"},
		"a recycled page": {func(l *walfake.Log) []byte {
			l.Pad(0)
			old := walfake.New(15, begin-wal.DefaultSegmentSize)
			old.Pad(0)
			old.Append(noop(1))
			return append(l.Bytes(), old.Segment()[wal.PageSize:]...)
		}, second, "unexpected pageaddr 0/2000, of an earlier use"},
		"a recycled record": {func(l *walfake.Log) []byte {
			old := walfake.New(15, begin-wal.DefaultSegmentSize)
			old.Append(noop(8))
			old.Append(noop(8))
			old.Append(noop(8))
			return append(l.Bytes(), old.Bytes()[len(l.Bytes()):]...)
		}, begin + 80, "record with incorrect prev-link 0/28, of an earlier use"},
		"an unfinished record": {func(l *walfake.Log) []byte {
			l.Pad(64)
			l.Append(noop(300))
			clear(l.Bytes()[wal.PageSize:])
			return l.Segment()
		}, second - 64, "invalid magic number 0000"},
	} {
		t.Run(name, func(t *testing.T) {
			l := walfake.New(15, begin)
			l.Append(noop(12)) // 24+2+12, aligned 40: the next would be at 0x50
			_, err := decode(begin, tt.change(l), 1000)
			end, ok := errors.AsType[*wal.EndError](err)
			if !ok || end.LSN != tt.end || !strings.Contains(end.Reason, tt.text) {
				t.Errorf("ends with %v, want the end at %s: %s", err, tt.end, tt.text)
			}
		})
	}
}

func TestDamageIsNamedWithItsPlace(t *testing.T) {
	const record = begin + 80 // the second one, on the first page
	put := func(at int, bytes ...byte) func([]byte) {
		return func(log []byte) { copy(log[at:], bytes) }
	}
	for name, tt := range map[string]struct {
		change func([]byte)
		at     wal.LSN
		text   string
	}{
		"bad magic":            {put(0, 1, 2), begin, "invalid magic number 0201"},
		"magic of zero":        {put(0, 0, 0), begin, "invalid magic number 0000"},
		"unknown page flags":   {put(2, 0xF2), begin, "invalid info bits 00F2"},
		"wrong page address":   {put(8, 0, 0, 0, 2), begin, "unexpected pageaddr 0/2000000"},
		"odd page address":     {put(wal.PageSize+8, 0, 0x10), begin + wal.PageSize, "unexpected pageaddr 0/1001000"},
		"segment size":         {put(32, 1), begin, "invalid segment size"},
		"page size":            {put(36, 0, 0x40), begin, "pages of 16384 bytes"},
		"timeline goes back":   {put(wal.PageSize+4, 0), begin + wal.PageSize, "out-of-sequence timeline ID 0 (after 1)"},
		"other version":        {put(wal.PageSize, 0x13), begin + wal.PageSize, "page of PostgreSQL 16 after one of 15"},
		"long header inside":   {put(wal.PageSize+2, 3), begin + wal.PageSize, "segment size"},
		"no continuation":      {put(wal.PageSize+2, 0), begin + wal.PageSize - 64, "there is no contrecord flag at 0/1002000"},
		"other rest":           {put(wal.PageSize+16, 9, 0), begin + wal.PageSize - 64, "invalid contrecord length 9"},
		"wrong checksum":       {put(80+30, 1), record, "incorrect resource manager data checksum"},
		"torn record":          {put(wal.PageSize+100, make([]byte, 50)...), begin + wal.PageSize - 64, "incorrect resource manager data checksum"},
		"short record":         {put(80, 23), record, "invalid record length: expected at least 24, got 23"},
		"absurd record length": {put(80, 0, 0, 0, 0x40), record, "record length 1073741824 is too long"},
		"unknown manager":      {put(80+17, 22), record, "invalid resource manager ID 22"},
		"link to nowhere": {func(log []byte) {
			log[80+8]++
			walfake.Seal(log[80 : 80+38])
		}, record, "incorrect prev-link 0/1000029"},
	} {
		t.Run(name, func(t *testing.T) {
			l := walfake.New(15, begin)
			l.Append(noop(12))
			l.Append(noop(12))
			l.Pad(64)
			long := noop(300)
			for i := range long.Body[5:] {
				long.Body[5+i] = 7
			}
			l.Append(long)
			log := l.Bytes()
			tt.change(log)
			_, err := decode(begin, log, 1000)
			damage, ok := errors.AsType[*wal.CorruptError](err)
			if !ok || damage.LSN != tt.at || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("ends with %v, want damage at %s: %s", err, tt.at, tt.text)
			}
		})
	}
}

func TestAVersionThatIsNotKnownIsNoDamage(t *testing.T) {
	l := walfake.New(18, begin)
	l.Append(noop(1))
	l.Bytes()[0] = 0x1A
	_, err := decode(begin, l.Bytes(), 1000)
	unknown, ok := errors.AsType[*wal.VersionError](err)
	if !ok || unknown.LSN != begin || unknown.Magic != 0xD11A {
		t.Errorf("ends with %v, want an unknown version D11A at %s", err, begin)
	}
}

func TestADecoderHoldsNoMoreThanItWasFed(t *testing.T) {
	l := walfake.New(15, begin)
	l.Append(noop(12))
	at := l.Append(noop(1 << 20))
	log := l.Bytes()[:80+16] // a record of a megabyte, and no more of it than its length
	d := wal.NewDecoder(begin)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d.Feed(log)
	for d.Next() != nil {
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 100<<10 {
		t.Errorf("%d bytes were fed, and %d taken", len(log), grown)
	}
	if open, ok := d.Unfinished(); !ok || open != at || d.Position() != begin+wal.LSN(len(log)) {
		t.Errorf("Unfinished() = %s, %v at %s; want the record at %s", open, ok, d.Position(), at)
	}
}

func TestWhatWasNotTakenIsNotLostByTheNextFeed(t *testing.T) {
	log := zoo(15)
	want, _ := decode(begin, log, len(log))
	d := wal.NewDecoder(begin)
	n := 0
	for i := 0; i < len(log); i += 1000 {
		d.Feed(log[i:min(len(log), i+1000)])
		if d.Next() != nil { // one of several
			n++
		}
	}
	for d.Next() != nil {
		n++
	}
	if n != len(want) || d.Err() != nil {
		t.Errorf("%d records, %v; want %d", n, d.Err(), len(want))
	}
}

func TestAReaderTellsHowTheStreamEnds(t *testing.T) {
	l := walfake.New(15, begin)
	l.Append(noop(12))
	last := l.Append(noop(100))
	broken := errors.New("disk on fire")
	for name, tt := range map[string]struct {
		stream io.Reader
		want   error
	}{
		"after a record":    {strings.NewReader(string(l.Bytes())), io.EOF},
		"inside a record":   {strings.NewReader(string(l.Bytes()[:len(l.Bytes())-1])), io.ErrUnexpectedEOF},
		"with an error":     {io.MultiReader(strings.NewReader(string(l.Bytes())), failing{broken}), broken},
		"where it is empty": {strings.NewReader(string(l.Segment())), &wal.EndError{}},
	} {
		entries, err := wal.EntriesFrom(tt.stream, begin, begin, 100)
		_, end := errors.AsType[*wal.EndError](err)
		if _, want := errors.AsType[*wal.EndError](tt.want); want != end || !want && !errors.Is(err, tt.want) || len(entries) < 1 {
			t.Errorf("%s: %d entries, %v; want %v", name, len(entries), err, tt.want)
		}
	}
	entries, err := wal.EntriesFrom(strings.NewReader(string(l.Bytes())), begin, last, 1)
	if err != nil || len(entries) != 1 || entries[0].LSN != last || entries[0].Operation != "NOOP" || len(entries[0].Data) != 24+2+100 {
		t.Errorf("EntriesFrom the second record, limit 1 = %+v, %v", entries, err)
	}
}

// failing is a stream that does.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestDecodingAllocatesNothingPerRecord(t *testing.T) {
	l := walfake.New(15, begin)
	const records = 20000
	for i := range records {
		l.Append(noop(i % 300)) // every page ends inside one
	}
	got := testing.AllocsPerRun(5, func() {
		d := wal.NewDecoder(begin)
		d.Feed(l.Bytes())
		for r := d.Next(); r != nil; r = d.Next() {
			_ = r.Entry()
		}
	})
	if got > 10 { // the decoder, and a buffer for records on two pages, which grows
		t.Errorf("%v allocations for %d records", got, records)
	}
}

// FuzzDecoder reads any bytes in the middle of a log, cut in any way, from any
// place on.
func FuzzDecoder(f *testing.F) {
	f.Add(uint8(0), uint16(0), uint16(0), []byte{}, uint16(1))
	f.Add(uint8(3), uint16(wal.PageSize), uint16(100), []byte{1, 2, 3}, uint16(100))
	f.Add(uint8(5), uint16(8), uint16(wal.PageSize+8), []byte{0xFF}, uint16(77))
	f.Add(uint8(2), uint16(0), uint16(40), make([]byte, 30), uint16(3))
	f.Add(uint8(4), uint16(0), uint16(wal.PageSize+2), []byte{8}, uint16(5000))
	f.Fuzz(func(t *testing.T, version uint8, from, at uint16, damage []byte, chunk uint16) {
		l := walfake.New(13+int(version%6), begin)
		for range 3 {
			l.Append(noop(wal.PageSize / 4))
		}
		l.Append(noop(wal.PageSize))
		l.Pad(40)
		l.Abandon(noop(2 * wal.PageSize))
		l.Append(noop(9))
		log := l.Bytes()
		copy(log[min(int(at), len(log)):], damage)
		skip := min(int(from), len(log))
		start, log := begin+wal.LSN(skip), append(log[skip:], damage...)
		whole, wantErr := decode(start, log, len(log)+1)
		cut, err := decode(start, log, int(chunk)+1)
		if !slices.Equal(whole, cut) || fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Fatalf("in chunks of %d: %q, %v; at once: %q, %v", int(chunk)+1, cut, err, whole, wantErr)
		}
	})
}

// FuzzRecord looks at what the checksums hide from FuzzDecoder: any body in a
// record whose checksum fits.
func FuzzRecord(f *testing.F) {
	f.Add(uint8(15), uint8(10), uint8(0), walfake.Main([]byte("data")))
	f.Add(uint8(13), uint8(1), uint8(0x80), walfake.Main(make([]byte, 300)))
	f.Add(uint8(18), uint8(1), uint8(0xB0), append(walfake.Main(make([]byte, 8)), 0xFF, 1, 0, 0))
	f.Add(uint8(16), uint8(10), uint8(0), []byte{0, 0x20, 2, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 1, 2})
	f.Add(uint8(14), uint8(10), uint8(0), []byte{0, 0x10, 0, 0, 4, 0, 1, 0, 3, 0, 0x1F, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, version, manager, info uint8, body []byte) {
		l := walfake.New(13+int(version%6), begin)
		l.Append(walfake.Record{Manager: wal.Manager(manager), Info: info, Body: body})
		d := wal.NewDecoder(begin)
		d.Feed(l.Bytes())
		r := d.Next()
		if r == nil {
			if _, ok := errors.AsType[*wal.CorruptError](d.Err()); !ok {
				t.Fatalf("a whole record is neither read nor refused: %v", d.Err())
			}
			return
		}
		e := r.Entry()
		size := len(r.Main)
		for _, b := range r.Blocks() {
			size += len(b.Image) + len(b.Data)
		}
		if e.Operation == "" || size > len(body) {
			t.Fatalf("%+v has %d bytes of %d", e, size, len(body))
		}
		if end, ok := r.TransactionEnd(); ok {
			for range end.Subtransactions() {
				size++
			}
		}
	})
}
