package walfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/heliosdb/helios/wal"
)

func FuzzControl(f *testing.F) {
	c := control{Sequence: 7, System: testSystem, SegmentSize: testSize, Start: third, Flushed: wal.Position{Timeline: 2, LSN: third + 5}}
	f.Add(c.encode(), control{SegmentSize: testSize}.encode())
	f.Add([]byte{}, c.encode()[:controlSize-1])
	f.Fuzz(func(t *testing.T, a, b []byte) {
		for _, slot := range [][]byte{a, b} {
			if c, ok := decodeControl(slot); ok && !bytes.Equal(c.encode(), slot[:controlSize]) {
				t.Errorf("decodeControl(%x) = %+v, which is written as %x", slot, c, c.encode())
			}
		}
		if len(a) > controlSlot {
			return
		}
		file := append(append(bytes.Clone(a), make([]byte, controlSlot-len(a))...), b...)
		got, found := newestControl(file)
		for _, slot := range [][]byte{a, b} {
			if c, ok := decodeControl(slot); ok && (!found || got.Sequence < c.Sequence) {
				t.Errorf("newestControl = %+v, %v; want %+v at least", got, found, c)
			}
		}
	})
}

// What is read is in the file, and every page of it is of its place, whatever is
// in the file.
func FuzzReadAt(f *testing.F) {
	l := newFakeLog(testRand(11), third, 2)
	whole := l.grow(3 * wal.PageSize)
	f.Add(bytes.Clone(whole), uint32(0), uint32(len(whole)))
	f.Add(bytes.Clone(whole[:wal.PageSize+10]), uint32(5000), uint32(9000))
	spoilt := bytes.Clone(whole)
	spoilt[wal.PageSize+9]++
	f.Add(spoilt, uint32(100), uint32(20000))
	f.Fuzz(func(t *testing.T, file []byte, offset, length uint32) {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, segmentID{number: 3, timeline: 2}.name(testSize)), file)
		d := OpenDir(dir, testSize, testSystem)
		defer d.Close()
		at := third + wal.LSN(int64(offset)%testSize)
		p := make([]byte, length%100_000)
		n, err := d.ReadAt(p, at, 3, 2)
		if n == 0 {
			if _, isPage := errors.AsType[*PageError](err); len(p) > 0 && !isPage && !errors.Is(err, ErrNotKept) {
				t.Errorf("ReadAt = %v, want a PageError or %v", err, ErrNotKept)
			}
			return
		}
		from := int(at - third)
		if !bytes.Equal(p[:n], file[from:from+n]) {
			t.Errorf("ReadAt(%s) yields other bytes than the file has", at)
		}
		for page := pageStart(at); page < at+wal.LSN(n); page += wal.PageSize {
			h := file[page-third:]
			if got := pageAddress(h); got != page && (page == third || !isFiller(h)) {
				t.Errorf("ReadAt(%s) = %d bytes with a page of %s at %s", at, n, got, page)
			}
		}
	})
}

// A spool opens on whatever a damaged file holds, and shows only what is right.
func FuzzDamagedSpool(f *testing.F) {
	base := f.TempDir()
	s, err := OpenSpool(base, SpoolConfig{SegmentSize: testSize, System: testSystem, Keep: 1 << 30})
	ok(f, err)
	ok(f, s.Reset(third, 1))
	l := newFakeLog(testRand(12), third, 1)
	write(f, s, l, 5*wal.PageSize)
	flush(f, s)
	ok(f, s.Close())
	file := name(3, 1) + partialSuffix
	known, err := os.ReadFile(filepath.Join(base, controlName))
	ok(f, err)
	f.Add(uint16(0), byte(1), uint16(controlSlot), byte(1))
	f.Add(uint16(wal.PageSize+9), byte(7), uint16(3), byte(0))
	f.Fuzz(func(t *testing.T, at uint16, with byte, controlAt uint16, controlWith byte) {
		dir := t.TempDir()
		content := bytes.Clone(l.data)
		content[int(at)%len(content)] ^= with
		writeFile(t, filepath.Join(dir, file), content)
		damaged := bytes.Clone(known)
		damaged[int(controlAt)%len(damaged)] ^= controlWith
		writeFile(t, filepath.Join(dir, controlName), damaged)
		s, err := OpenSpool(dir, SpoolConfig{SegmentSize: testSize, System: testSystem, Keep: 1 << 30})
		if err != nil {
			return
		}
		defer s.Close()
		pos := s.Position()
		if pos.LSN > l.end() || pos.LSN != 0 && pos.LSN < third {
			t.Fatalf("Position = %s, want %s at most", pos, l.end())
		}
		buf := make([]byte, 1<<20)
		for from := s.oldest(); from < pos.LSN && pos.LSN-pageStart(from) >= shortHeader; {
			n, err := s.Dir().ReadAt(buf, from, 1)
			if err != nil {
				t.Fatalf("ReadAt(%s) = %v with the spool at %s", from, err, pos)
			}
			from += wal.LSN(n)
		}
	})
}
