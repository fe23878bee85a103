package walfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/heliosdb/helios/wal"
)

const (
	testSize   = int64(wal.MinSegmentSize)
	testSystem = uint64(7316482219234876543)
)

// fakeLog is the WAL of a cluster: pages with headers, and noise in them.
type fakeLog struct {
	rng       *rand.Rand
	noise     *rand.ChaCha8
	start     wal.LSN
	data      []byte       // from start
	first     wal.Timeline // where it began
	timeline  wal.Timeline
	histories map[wal.Timeline][]byte
}

func newFakeLog(rng *rand.Rand, start wal.LSN, t wal.Timeline) *fakeLog {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], rng.Uint64())
	return &fakeLog{rng: rng, noise: rand.NewChaCha8(seed), start: start, first: t, timeline: t, histories: map[wal.Timeline][]byte{}}
}

func (l *fakeLog) clone() *fakeLog {
	c := *l
	c.data, c.histories = slices.Clone(l.data), maps.Clone(l.histories)
	return &c
}

func (l *fakeLog) end() wal.LSN { return l.start + wal.LSN(len(l.data)) }

// header returns the header of a page.
func header(at wal.LSN, t wal.Timeline) []byte {
	h := make([]byte, longHeader)
	binary.LittleEndian.PutUint16(h, 0xD110)
	binary.LittleEndian.PutUint32(h[4:], uint32(t))
	binary.LittleEndian.PutUint64(h[8:], uint64(at))
	if uint64(at)%uint64(testSize) != 0 {
		return h[:shortHeader]
	}
	binary.LittleEndian.PutUint16(h[2:], xlpLongHeader)
	binary.LittleEndian.PutUint64(h[24:], testSystem)
	binary.LittleEndian.PutUint32(h[32:], uint32(testSize))
	binary.LittleEndian.PutUint32(h[36:], wal.PageSize)
	return h
}

// grow writes n bytes, or a few more to end behind a page header, and returns
// them.
func (l *fakeLog) grow(n int) []byte {
	from := len(l.data)
	for len(l.data) < from+n {
		at := l.end()
		if at%wal.PageSize == 0 {
			l.data = append(l.data, header(at, l.timeline)...)
			continue
		}
		room := min(int(wal.PageSize-at%wal.PageSize), from+n-len(l.data))
		l.data = append(l.data, make([]byte, room)...)
		l.noise.Read(l.data[len(l.data)-room:])
	}
	return l.data[from:]
}

// place returns a random position from low to high at which a record may end.
func (l *fakeLog) place(low, high wal.LSN) wal.LSN {
	at := low + wal.LSN(l.rng.Uint64N(uint64(high-low)+1))
	if at%wal.PageSize < longHeader {
		at = max(pageStart(at), low)
	}
	return at
}

func (l *fakeLog) cut(at wal.LSN) { l.data = l.data[:at-l.start] }

// promote makes the log go on on another timeline from a position on.
func (l *fakeLog) promote(t wal.Timeline, at wal.LSN) []byte {
	l.cut(at)
	line := fmt.Sprintf("%d\t%s\tno recovery target specified\n", l.timeline, at)
	l.histories[t] = append(slices.Clone(l.histories[l.timeline]), line...)
	l.timeline = t
	return l.histories[t]
}

func (l *fakeLog) history(t testing.TB) wal.History {
	t.Helper()
	h, err := wal.ParseHistory(l.timeline, l.histories[l.timeline])
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// bytes returns what was written from a position on.
func (l *fakeLog) bytes(from, to wal.LSN) []byte { return l.data[from-l.start : to-l.start] }

// segmentFile writes one segment of the log into a directory.
func (l *fakeLog) segmentFile(t testing.TB, dir string, id segmentID) {
	t.Helper()
	from := id.start(testSize)
	to := min(from+wal.LSN(testSize), l.end())
	writeFile(t, filepath.Join(dir, id.name(testSize)), l.bytes(from, to))
}

func writeFile(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func testRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantRead fails the test unless a directory yields exactly what the log has
// between two positions.
func (l *fakeLog) wantRead(t testing.TB, d *Dir, from, to wal.LSN) {
	t.Helper()
	h := l.history(t)
	var got []byte
	buf := make([]byte, 100_000)
	for at := from; at < to; {
		// A read must not run past the end of the timeline that owns it.
		list := TimelinesAt(h, l.timeline, at, testSize)
		stop := to
		for _, s := range h {
			if s.LSN > at {
				stop = min(stop, s.LSN)
			}
		}
		n, err := d.ReadAt(buf[:min(len(buf), int(stop-at))], at, list...)
		if err != nil {
			t.Fatalf("ReadAt(%s, %v) = %d, %v; want bytes up to %s", at, list, n, err, to)
		}
		got = append(got, buf[:n]...)
		at += wal.LSN(n)
	}
	if want := l.bytes(from, to); !bytes.Equal(got, want) {
		t.Fatalf("ReadAt from %s to %s yields other bytes than were written", from, to)
	}
}

func wantNotKept(t testing.TB, d *Dir, at wal.LSN, timelines ...wal.Timeline) {
	t.Helper()
	var b [100]byte
	if n, err := d.ReadAt(b[:], at, timelines...); n != 0 || !errors.Is(err, ErrNotKept) {
		t.Errorf("ReadAt(%s, %v) = %d, %v; want 0, %v", at, timelines, n, err, ErrNotKept)
	}
}

func open(t testing.TB, path string, cfg SpoolConfig) *Spool {
	t.Helper()
	cfg.SegmentSize, cfg.System = testSize, testSystem
	if cfg.Keep == 0 {
		cfg.Keep = 1 << 40
	}
	s, err := OpenSpool(path, cfg)
	ok(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func wantPosition(t testing.TB, s *Spool, timeline wal.Timeline, lsn wal.LSN) {
	t.Helper()
	if got, want := s.Position(), (wal.Position{Timeline: timeline, LSN: lsn}); got != want {
		t.Fatalf("Position() = %s, want %s", got, want)
	}
}

func wantFiles(t testing.TB, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	ok(t, err)
	var got []string
	for _, e := range entries {
		if e.Name() != lockName && e.Name() != controlName {
			got = append(got, e.Name())
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("files in the directory = %q, want %q", got, want)
	}
}
