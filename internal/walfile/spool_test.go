package walfile

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/heliosdb/helios/wal"
)

const third = 3 * wal.LSN(testSize) // where test spools begin

func name(number uint64, t wal.Timeline) string {
	return segmentID{number: number, timeline: t}.name(testSize)
}

// begin returns an open spool at the third segment, and its log.
func begin(t testing.TB, cfg SpoolConfig) (*Spool, *fakeLog) {
	t.Helper()
	s := open(t, filepath.Join(t.TempDir(), "spool"), cfg)
	ok(t, s.Reset(third, 1))
	return s, newFakeLog(testRand(7), third, 1)
}

func write(t testing.TB, s *Spool, l *fakeLog, n int) {
	t.Helper()
	at := l.end()
	ok(t, s.Write(at, l.grow(n)))
}

func flush(t testing.TB, s *Spool) {
	t.Helper()
	got, err := s.Sync()
	if want := s.Position().LSN; got != want || err != nil {
		t.Fatalf("Sync() = %s, %v; want %s", got, err, want)
	}
}

func TestASpoolGoesOnWhereItsLastFlushEnded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "spool")
	s := open(t, path, SpoolConfig{})
	if got := s.Position(); got != (wal.Position{}) {
		t.Errorf("Position of a new spool = %s, want none", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the directory = %v, %v; want 0700", info.Mode(), err)
	}
	if err := s.Write(third, []byte("x")); err == nil {
		t.Errorf("Write to an empty spool = %v, want an error", err)
	}
	ok(t, s.Reset(third, 1))
	wantPosition(t, s, 1, third)
	l := newFakeLog(testRand(8), third, 1)
	write(t, s, l, int(2*testSize)+100_000)
	wantFiles(t, path, name(3, 1), name(4, 1), name(5, 1)+".partial")
	l.wantRead(t, s.Dir(), third, l.end())
	wantNotKept(t, s.Dir(), l.end(), 1)
	flush(t, s)
	ok(t, s.Close())
	ok(t, s.Close())
	if err := s.Write(l.end(), []byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close = %v, want %v", err, os.ErrClosed)
	}

	s = open(t, path, SpoolConfig{})
	wantPosition(t, s, 1, l.end())
	write(t, s, l, int(testSize))
	l.wantRead(t, s.Dir(), third, l.end())
	for number := range uint64(3) {
		from := third + wal.LSN(number)*wal.LSN(testSize)
		got, err := os.ReadFile(filepath.Join(path, name(3+number, 1)))
		if want := l.bytes(from, from+wal.LSN(testSize)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("segment %d has %d other bytes than were written, %v", 3+number, len(got), err)
		}
	}
	if got, found, err := s.Dir().Oldest(1); got != third || !found || err != nil {
		t.Errorf("Oldest(1) = %s, %v, %v; want %s", got, found, err, third)
	}
}

func TestWriteHasToContinueTheSpool(t *testing.T) {
	s, l := begin(t, SpoolConfig{})
	write(t, s, l, 50_000)
	end := l.end()
	for _, at := range []wal.LSN{0, third, end - 1, end + 1} {
		err := s.Write(at, []byte("x"))
		if err == nil || !strings.Contains(err.Error(), at.String()) || !strings.Contains(err.Error(), end.String()) {
			t.Errorf("Write at %s = %v, want an error that names it and %s", at, err, end)
		}
	}
	for name, spoil := range map[string]func([]byte){
		"of another position": func(b []byte) { b[9]++ },
		"of a later timeline": func(b []byte) { b[4]++ },
		"of no release":       func(b []byte) { b[1] = 0 },
	} {
		bad := l.clone()
		p := bad.grow(20_000)
		spoil(p[(wal.PageSize-end%wal.PageSize)%wal.PageSize:])
		if _, isPage := errors.AsType[*PageError](s.Write(end, p)); !isPage {
			t.Errorf("Write of a page %s is no PageError", name)
		}
	}
	wantPosition(t, s, 1, end)
	write(t, s, l, 50_000)
	l.wantRead(t, s.Dir(), third, l.end())
}

func TestASpoolBeginsAtASegment(t *testing.T) {
	s := open(t, t.TempDir(), SpoolConfig{})
	for _, p := range []wal.Position{{Timeline: 1}, {LSN: third}, {Timeline: 1, LSN: third + 8192}} {
		if err := s.Reset(p.LSN, p.Timeline); err == nil {
			t.Errorf("Reset to %s = %v, want an error", p, err)
		}
	}
	if got := s.Position(); got != (wal.Position{}) {
		t.Errorf("Position = %s, want none", got)
	}
}

func TestOnlyOneHasTheSpoolOpen(t *testing.T) {
	s, _ := begin(t, SpoolConfig{})
	if _, err := OpenSpool(s.disk.path, s.cfg); !errors.Is(err, ErrInUse) {
		t.Errorf("second OpenSpool = %v, want %v", err, ErrInUse)
	}
	ok(t, s.Close())
	again, err := OpenSpool(s.disk.path, s.cfg)
	ok(t, err)
	ok(t, again.Close())
}

func TestASpoolIsOfOneCluster(t *testing.T) {
	s, l := begin(t, SpoolConfig{})
	write(t, s, l, 50_000)
	ok(t, s.Close())
	for name, cfg := range map[string]SpoolConfig{
		"another cluster":      {SegmentSize: testSize, System: 5},
		"another segment size": {SegmentSize: 2 * testSize, System: testSystem},
	} {
		if _, err := OpenSpool(s.disk.path, cfg); err == nil || !strings.Contains(err.Error(), fmt.Sprint(testSystem)) {
			t.Errorf("%s: OpenSpool = %v, want an error that names system %d", name, err, testSystem)
		}
	}
	ok(t, os.Remove(s.disk.file(controlName)))
	if _, err := OpenSpool(s.disk.path, s.cfg); err == nil || !strings.Contains(err.Error(), "no spool") {
		t.Errorf("OpenSpool of an archive = %v, want an error", err)
	}
	wantFiles(t, s.disk.path, name(3, 1)+".partial")
	writeFile(t, s.disk.file(controlName), make([]byte, controlFileLen))
	if _, err := OpenSpool(s.disk.path, s.cfg); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("OpenSpool with a damaged control file = %v, want an error", err)
	}
}

func TestASwitchInASegmentCopiesItAndLeavesAPartialOne(t *testing.T) {
	s, l := begin(t, SpoolConfig{})
	write(t, s, l, int(testSize)+200_000)
	fork := l.place(l.end()-100_000, l.end())
	ok(t, s.SwitchTimeline(2, fork, l.promote(2, fork)))
	wantPosition(t, s, 2, fork)
	wantFiles(t, s.disk.path, "00000002.history", name(3, 1), name(4, 1)+".partial", name(4, 2)+".partial")
	write(t, s, l, int(testSize))
	wantFiles(t, s.disk.path, "00000002.history", name(3, 1), name(4, 1)+".partial", name(4, 2), name(5, 2)+".partial")
	l.wantRead(t, s.Dir(), third, l.end())
	wantNotKept(t, s.Dir(), fork, 1)
	if n, err := s.Dir().ReadAt(make([]byte, 1000), fork-100, 1); n != 100 || err != nil {
		t.Errorf("ReadAt over the end of timeline 1 = %d, %v; want 100 bytes", n, err)
	}
	if got, err := s.Dir().History(2); !bytes.Equal(got, l.histories[2]) || err != nil {
		t.Errorf("History(2) = %q, %v; want %q", got, err, l.histories[2])
	}
	flush(t, s)
	ok(t, s.Close())
	s = open(t, s.disk.path, SpoolConfig{})
	wantPosition(t, s, 2, l.end())
	l.wantRead(t, s.Dir(), third, l.end())
}

func TestASwitchAtTheEndOfASegmentCopiesNothing(t *testing.T) {
	s, l := begin(t, SpoolConfig{})
	write(t, s, l, int(testSize))
	ok(t, s.SwitchTimeline(3, l.end(), l.promote(3, l.end())))
	wantFiles(t, s.disk.path, "00000003.history", name(3, 1))
	write(t, s, l, 50_000)
	wantFiles(t, s.disk.path, "00000003.history", name(3, 1), name(4, 3)+".partial")
	l.wantRead(t, s.Dir(), third, l.end())
}

func TestASwitchIsRefusedWhereTheHistoryDoesNotFit(t *testing.T) {
	s, l := begin(t, SpoolConfig{})
	write(t, s, l, 300_000)
	end := l.end()
	line := func(t wal.Timeline, at wal.LSN) []byte { return fmt.Appendf(nil, "%d\t%s\treason\n", t, at) }
	for name, tt := range map[string]struct {
		t       wal.Timeline
		at      wal.LSN
		history []byte
	}{
		"the same timeline": {1, end, nil},
		"no history":        {2, end, nil},
		"another position":  {2, end, line(1, end-8)},
		"not a history":     {2, end, []byte("one two three")},
		"beyond the end":    {2, end + 8, line(1, end+8)},
		"before the start":  {2, third - 8, line(1, third-8)},
	} {
		if err := s.SwitchTimeline(tt.t, tt.at, tt.history); err == nil {
			t.Errorf("%s: SwitchTimeline(%s, %s) = %v, want an error", name, tt.t, tt.at, err)
		}
		wantPosition(t, s, 1, end)
	}
	wantFiles(t, s.disk.path, name(3, 1)+".partial")
	l.wantRead(t, s.Dir(), third, end)

	ok(t, s.SwitchTimeline(2, end, l.promote(2, end)))
	if err := s.Truncate(end - 8); err == nil {
		t.Errorf("Truncate before the beginning of the timeline = %v, want an error", err)
	}
	wantPosition(t, s, 2, end)
}

func TestTruncateForgetsWhatComesAfter(t *testing.T) {
	for name, back := range map[string]wal.LSN{
		"nothing":            0,
		"in the segment":     50_000,
		"a whole segment":    100_000 + 24,
		"in the one before":  200_000,
		"to the start of it": wal.LSN(testSize) + 100_000 + 24,
		"everything":         2*wal.LSN(testSize) + 100_000 + 24,
	} {
		t.Run(name, func(t *testing.T) {
			s, l := begin(t, SpoolConfig{})
			write(t, s, l, 2*int(testSize)+100_000+24)
			l.wantRead(t, s.Dir(), third, l.end())
			at := l.end() - back
			ok(t, s.Truncate(at))
			wantPosition(t, s, 1, at)
			l.wantRead(t, s.Dir(), third, at)
			wantNotKept(t, s.Dir(), at, 1)
			l.cut(at)
			write(t, s, l, int(testSize))
			l.wantRead(t, s.Dir(), third, l.end())
		})
	}
}

func TestResetLeavesNothingOfTheOtherBranch(t *testing.T) {
	s, l := begin(t, SpoolConfig{})
	write(t, s, l, int(testSize)+50_000)
	ok(t, s.SwitchTimeline(2, l.end(), l.promote(2, l.end())))
	ok(t, s.SaveSlots(map[string]wal.LSN{"a": third}))
	l.wantRead(t, s.Dir(), third, l.end())
	ok(t, s.Reset(third, 3))
	wantPosition(t, s, 3, third)
	wantFiles(t, s.disk.path, slotsName)
	wantNotKept(t, s.Dir(), third, 2, 1)
	ok(t, s.SaveHistory(3, []byte("1\t0/28\treason\n")))
	wantFiles(t, s.disk.path, "00000003.history", slotsName)
	l = newFakeLog(testRand(9), third, 3)
	write(t, s, l, 100_000)
	l.wantRead(t, s.Dir(), third, l.end())
}

func TestTheOldestSegmentsGoUnlessSomebodyNeedsThem(t *testing.T) {
	const seg = wal.LSN(testSize)
	for name, tt := range map[string]struct {
		cfg   SpoolConfig
		floor wal.LSN
		want  uint64 // oldest segment after 10 and a half were written, from 3 on
	}{
		"room for all":              {SpoolConfig{Keep: 100 * testSize}, 0, 3},
		"the open one alone":        {SpoolConfig{Keep: 1}, 0, 13},
		"three":                     {SpoolConfig{Keep: 3*testSize + testSize/2}, 0, 10},
		"not quite four":            {SpoolConfig{Keep: 4 * testSize}, 0, 10},
		"a floor above":             {SpoolConfig{Keep: 4 * testSize, MaxKeep: 8 * testSize}, 12 * seg, 10},
		"a floor below":             {SpoolConfig{Keep: 4 * testSize, MaxKeep: 8 * testSize}, 8*seg + 1, 8},
		"a floor at a segment":      {SpoolConfig{Keep: 4 * testSize, MaxKeep: 8 * testSize}, 8 * seg, 8},
		"a floor beyond the limit":  {SpoolConfig{Keep: 4 * testSize, MaxKeep: 8 * testSize}, 3 * seg, 6},
		"a floor without a limit":   {SpoolConfig{Keep: 4 * testSize, MaxKeep: math.MaxInt64}, 3 * seg, 3},
		"a limit below what is due": {SpoolConfig{Keep: 4 * testSize, MaxKeep: testSize}, 3 * seg, 10},
	} {
		t.Run(name, func(t *testing.T) {
			s, l := begin(t, tt.cfg)
			s.SetFloor(tt.floor)
			write(t, s, l, 5*int(testSize)) // in several pieces, as a stream does
			write(t, s, l, 5*int(testSize)+int(testSize)/2)
			s.SetFloor(tt.floor)
			st, want := s.Stats(), wal.LSN(tt.want)*seg
			if st.Oldest != want || st.Written != l.end() || st.Bytes != int64(l.end()-want) || st.Files != int(14-tt.want) {
				t.Errorf("Stats() = %+v, want %d bytes in %d files from %s to %s", st, l.end()-want, 14-tt.want, want, l.end())
			}
			l.wantRead(t, s.Dir(), want, l.end())
			wantNotKept(t, s.Dir(), want-100, 1)
			if got, found, err := s.Dir().Oldest(1); got != want || !found || err != nil {
				t.Errorf("Oldest(1) = %s, %v, %v; want %s", got, found, err, want)
			}
		})
	}
}

// failing makes operations of one kind fail with an error until it is nil.
type failing struct {
	op  operation
	on  string // part of the file's name
	err error
}

func (f *failing) fault(op operation, name string) error {
	if op == f.op && strings.Contains(name, f.on) {
		return f.err
	}
	return nil
}

func TestAFullDiskLosesNothingThatWasFlushed(t *testing.T) {
	for name, f := range map[string]failing{
		"a write":                {opWrite, "0001", syscall.ENOSPC},
		"a flush":                {opSync, ".partial", syscall.EIO},
		"a new file":             {opCreate, ".partial", syscall.ENOSPC},
		"a name":                 {opRename, ".partial", syscall.EIO},
		"what is known":          {opWrite, controlName, syscall.ENOSPC},
		"what is known to flush": {opSync, controlName, syscall.EIO},
	} {
		t.Run(name, func(t *testing.T) {
			s, l := begin(t, SpoolConfig{})
			write(t, s, l, int(testSize)/2)
			flush(t, s)
			flushed := l.end()
			why := f.err
			s.disk.fault = f.fault
			err := s.Write(flushed, l.grow(int(testSize)))
			if err == nil {
				_, err = s.Sync()
			}
			if !errors.Is(err, why) || !strings.Contains(err.Error(), s.disk.path) {
				t.Errorf("Write and Sync = %v, want %v and the file's name", err, why)
			}
			if got := s.Flushed().LSN; got < flushed {
				t.Errorf("Flushed() = %s, want %s at least", got, flushed)
			}
			l.wantRead(t, s.Dir(), third, s.Position().LSN)

			s.disk.fault = nil
			if _, err := s.Sync(); err != nil && s.Position().LSN < flushed {
				t.Errorf("Sync with room again = %v at %s, want %s kept", err, s.Position(), flushed)
			}
			at := s.Position().LSN
			ok(t, s.Write(at, l.bytes(at, l.end())))
			flush(t, s)
			ok(t, s.Close())
			s = open(t, s.disk.path, SpoolConfig{})
			wantPosition(t, s, 1, l.end())
			l.wantRead(t, s.Dir(), third, l.end())
		})
	}
}

func TestAnOldSegmentThatCannotBeRemovedIsTriedAgain(t *testing.T) {
	f := failing{opRemove, "", syscall.EACCES}
	s, l := begin(t, SpoolConfig{Keep: testSize})
	s.disk.fault = f.fault
	write(t, s, l, 4*int(testSize))
	if st := s.Stats(); !errors.Is(st.Stuck, syscall.EACCES) || st.Files != 4 {
		t.Errorf("Stats() = %+v, want 4 files and %v", st, syscall.EACCES)
	}
	f.err = nil
	s.disk.fault = nil
	s.SetFloor(0)
	if st := s.Stats(); st.Stuck != nil || st.Files != 1 {
		t.Errorf("Stats() = %+v, want 1 file", st)
	}
}

func TestDamageToWhatWasFlushedIsFoundAndCounted(t *testing.T) {
	for name, tt := range map[string]struct {
		file   string
		spoil  func(path string) error
		kept   wal.LSN // from
		end    wal.LSN // to, 0 for the old end
		offset int64
	}{
		"the open segment is gone":   {name(5, 1) + ".partial", os.Remove, third, third + 2*wal.LSN(testSize), 0},
		"the open segment is short":  {name(5, 1) + ".partial", func(p string) error { return os.Truncate(p, 20_000) }, third, third + 2*wal.LSN(testSize) + 20_000, 0},
		"a page of it is not whole":  {name(5, 1) + ".partial", func(p string) error { return scribble(p, 2*wal.PageSize+8) }, third, third + 2*wal.LSN(testSize) + 2*wal.PageSize, 0},
		"its first page is damaged":  {name(5, 1) + ".partial", func(p string) error { return scribble(p, 8) }, third, third + 2*wal.LSN(testSize), 0},
		"an older one is short":      {name(4, 1), func(p string) error { return os.Truncate(p, 20_000) }, third + 2*wal.LSN(testSize), 0, 0},
		"an older one is gone":       {name(4, 1), os.Remove, third + 2*wal.LSN(testSize), 0, 0},
		"an older one is of another": {name(4, 1), func(p string) error { return scribble(p, 24) }, third + 2*wal.LSN(testSize), 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, l := begin(t, SpoolConfig{})
			write(t, s, l, 2*int(testSize)+100_000)
			flush(t, s)
			ok(t, s.Close())
			ok(t, tt.spoil(s.disk.file(tt.file)))
			end := tt.end
			if end == 0 {
				end = l.end()
			}
			s = open(t, s.disk.path, SpoolConfig{})
			wantPosition(t, s, 1, end)
			st := s.Stats()
			if st.Lost != int64(l.end()-end) || st.Oldest != tt.kept {
				t.Errorf("Stats() = %+v, want %d bytes lost and %s the oldest", st, l.end()-end, tt.kept)
			}
			l.wantRead(t, s.Dir(), tt.kept, end)
			ok(t, s.Write(end, l.bytes(end, l.end())))
			l.wantRead(t, s.Dir(), tt.kept, l.end())
		})
	}
}

func scribble(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{0xAA, 0x55, 0xAA}, at)
	return errors.Join(err, f.Close())
}

func TestASyncWithNothingNewWaitsForNoDevice(t *testing.T) {
	s, l := begin(t, SpoolConfig{})
	write(t, s, l, 10_000)
	flush(t, s)
	before := s.Stats().Syncs
	flush(t, s)
	if got := s.Stats().Syncs; got != before {
		t.Errorf("Sync of nothing waited %d times, want 0", got-before)
	}
	write(t, s, l, 10_000)
	flush(t, s)
	if got := s.Stats().Syncs - before; got != 2 {
		t.Errorf("Sync waited %d times, want 2: for the segment and for what is known of it", got)
	}
}

func TestReadersSeeWhatIsWrittenAndNothingElse(t *testing.T) {
	s, l := begin(t, SpoolConfig{Keep: 1 << 40})
	whole := l.clone()
	whole.grow(4*int(testSize) + 12345)
	var reading sync.WaitGroup
	defer reading.Wait()
	for range 4 {
		reading.Go(func() {
			buf := make([]byte, 70_000)
			deadline := time.Now().Add(time.Minute)
			for at := third; at < whole.end() && time.Now().Before(deadline); {
				limit := s.Position().LSN
				n, err := s.Dir().ReadAt(buf, at, 1)
				if err != nil && (!errors.Is(err, ErrNotKept) || at+longHeader < limit) {
					t.Errorf("ReadAt(%s) = %v with the spool at %s", at, err, limit)
					return
				}
				if !bytes.Equal(buf[:n], whole.bytes(at, at+wal.LSN(n))) {
					t.Errorf("ReadAt(%s) yields other bytes than were written", at)
					return
				}
				at += wal.LSN(n)
			}
		})
	}
	reading.Go(func() {
		for s.Position().LSN < whole.end() && !t.Failed() {
			if _, err := s.Sync(); err != nil {
				t.Errorf("Sync = %v", err)
			}
		}
	})
	rng := testRand(10)
	for at := third; at < whole.end(); {
		n := min(wal.LSN(1+rng.IntN(100_000)), whole.end()-at)
		if err := s.Write(at, whole.bytes(at, at+n)); err != nil {
			t.Errorf("Write(%s) = %v", at, err)
			ok(t, s.Close())
			return
		}
		at += n
	}
}

func TestAStartKeepsWhatSlotsNeed(t *testing.T) {
	cfg := SpoolConfig{Keep: 2 * testSize, MaxKeep: 8 * testSize}
	s, l := begin(t, cfg)
	begun := s.Stats().Written
	s.SetFloor(begun)
	ok(t, s.SaveSlots(map[string]wal.LSN{"n1": begun, "fresh": 0}))
	write(t, s, l, 5*int(testSize))
	ok(t, s.Close())
	s = open(t, s.disk.path, cfg)
	if got := s.Stats().Oldest; got != begun {
		t.Errorf("after a start the oldest byte is at %s, want %s, which a slot needs", got, begun)
	}
}

func TestSlotsAreKept(t *testing.T) {
	s, _ := begin(t, SpoolConfig{})
	if got, err := s.LoadSlots(); len(got) != 0 || got == nil || err != nil {
		t.Errorf("LoadSlots of a new spool = %v, %v; want an empty map", got, err)
	}
	want := map[string]wal.LSN{"n1": 0x16B374D848, "n2": 0}
	ok(t, s.SaveSlots(map[string]wal.LSN{"gone": 1}))
	ok(t, s.SaveSlots(want))
	ok(t, s.Close())
	s = open(t, s.disk.path, SpoolConfig{})
	if got, err := s.LoadSlots(); !maps.Equal(got, want) || err != nil {
		t.Errorf("LoadSlots = %v, %v; want %v", got, err, want)
	}
	text, err := os.ReadFile(s.disk.file(slotsName))
	if !strings.Contains(string(text), `"n1": "16/B374D848"`) || err != nil {
		t.Errorf("the file of slots is %s, %v; want PostgreSQL's form of a position", text, err)
	}
	writeFile(t, s.disk.file(slotsName), []byte(`{"n1": 7}`))
	if got, err := s.LoadSlots(); err == nil || !strings.Contains(err.Error(), slotsName) {
		t.Errorf("LoadSlots of something else = %v, %v; want an error that names the file", got, err)
	}
	writeFile(t, s.disk.file(slotsName), []byte(`null`))
	if got, err := s.LoadSlots(); got == nil || err != nil {
		t.Errorf("LoadSlots of null = %v, %v; want an empty map", got, err)
	}
}
