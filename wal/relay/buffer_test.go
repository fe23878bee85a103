package relay

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/heliosdb/helios/wal"
)

// walAt returns n bytes that tell where they belong, on the given branch.
func walAt(at wal.LSN, n int, branch byte) []byte {
	p := make([]byte, 0, n)
	for len(p) < n {
		x := uint64(at) + uint64(len(p)) //nolint:gosec // small
		row := walRows[byte(x>>8)*31^byte(x>>16)*131^byte(x>>24)^branch*77][byte(x):]
		p = append(p, row[:min(len(row), n-len(p))]...)
	}
	return p
}

// walRows[y][x] is x^y.
var walRows = func() (rows [256][256]byte) {
	for y := range rows {
		for x := range rows[y] {
			rows[y][x] = byte(x ^ y)
		}
	}
	return rows
}()

func newTestBuffer(t *testing.T, size int64) *Buffer {
	t.Helper()
	b, err := NewBuffer(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func fillBuffer(t *testing.T, b *Buffer, at wal.LSN, n int, branch byte) {
	t.Helper()
	for n > 0 {
		piece := min(n, 100_000)
		if err := b.Append(at, walAt(at, piece, branch)); err != nil {
			t.Fatal(err)
		}
		at += wal.LSN(piece)
		n -= piece
	}
}

// readTo reads up to to and checks every byte.
func readTo(t *testing.T, r *Reader, to wal.LSN, branch byte) {
	t.Helper()
	for r.Position() < to {
		at := r.Position()
		p, err := r.Next(128 << 10)
		if err != nil || len(p) == 0 {
			t.Fatalf("Next at %s = %d bytes, %v; want up to %s", at, len(p), err, to)
		}
		if !bytes.Equal(p, walAt(at, len(p), branch)) {
			t.Fatalf("the bytes at %s are not those that were written there", at)
		}
	}
}

func TestAReaderGetsWhatWasAppended(t *testing.T) {
	b := newTestBuffer(t, MinBufferSize)
	const at = 0x1000000 + 12345
	fillBuffer(t, b, at, 3<<20, 0)
	r := b.Reader(at)
	defer r.Close()
	readTo(t, r, at+3<<20, 0)
	if p, err := r.Next(1); len(p) != 0 || err != nil {
		t.Errorf("Next at the head = %d bytes, %v; want none", len(p), err)
	}
}

func TestTheBufferHoldsItsSizeAndNoMore(t *testing.T) {
	b := newTestBuffer(t, MinBufferSize)
	const at = 0x1000000
	if got := b.Stats().Memory; got != 0 {
		t.Errorf("an empty buffer uses %d bytes", got)
	}
	slow := b.Reader(at)
	defer slow.Close()
	fillBuffer(t, b, at, 1<<20, 0)
	readTo(t, slow, at+4096, 0) // reads no more than a page or so, and stands in the first chunk
	fillBuffer(t, b, at+1<<20, 40<<20, 0)
	s := b.Stats()
	if s.Held > MinBufferSize || s.Held < MinBufferSize-2*chunkSize {
		t.Errorf("it holds %d bytes, want about %d", s.Held, MinBufferSize)
	}
	if most := int64(MinBufferSize + 2*chunkSize); s.Memory > most {
		t.Errorf("it uses %d bytes of memory, want at most %d", s.Memory, most)
	}
	for {
		_, err := slow.Next(128 << 10)
		if errors.Is(err, ErrBehind) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	fresh := b.Reader(b.Tail())
	defer fresh.Close()
	readTo(t, fresh, b.Head(), 0)
}

func TestAppendMustGoOnWhereTheBufferEnds(t *testing.T) {
	b := newTestBuffer(t, MinBufferSize)
	fillBuffer(t, b, 0x1000000, 100, 0)
	for _, at := range []wal.LSN{0, 0x1000000, 0x1000063, 0x1000065, 0x2000000} {
		if err := b.Append(at, []byte("x")); err == nil {
			t.Errorf("Append at %s was taken; the buffer ends at %s", at, b.Head())
		}
	}
	if err := b.Append(b.Head(), make([]byte, MinBufferSize)); err == nil {
		t.Error("a message as large as the buffer was taken")
	}
}

func TestAFailedAppendLeavesNothing(t *testing.T) {
	b := newTestBuffer(t, MinBufferSize)
	const at = 0x1000000
	fillBuffer(t, b, at, chunkSize-10, 0)
	head := b.Head()
	broken := errors.New("cut")
	calls := 0
	err := b.AppendFrom(head, 1000, func(p []byte) error {
		if calls++; calls == 2 {
			return broken
		}
		clear(p)
		return nil
	})
	if !errors.Is(err, broken) || b.Head() != head {
		t.Fatalf("AppendFrom = %v, head %s; want %v, %s", err, b.Head(), broken, head)
	}
	fillBuffer(t, b, head, 2*chunkSize, 0)
	r := b.Reader(at)
	defer r.Close()
	readTo(t, r, b.Head(), 0)
}

func TestWhatIsCutIsCutAtAPage(t *testing.T) {
	b := newTestBuffer(t, MinBufferSize)
	const at = 0x1000000 + 100
	fillBuffer(t, b, at, 200_000, 0)
	r := b.Reader(at)
	defer r.Close()
	for _, limit := range []int{1, 8192, 10_000, 64 << 10} {
		if p, err := r.Next(limit); err != nil || r.Position()%pageSize != 0 || len(p) > max(limit, pageSize) {
			t.Errorf("Next(%d) = %d bytes, %v, and stands at %s", limit, len(p), err, r.Position())
		}
	}
	readTo(t, r, b.Head(), 0)
}

func TestTruncateTakesABranchBack(t *testing.T) {
	b := newTestBuffer(t, MinBufferSize)
	const at, fork = 0x1000000, 0x1000000 + chunkSize + 777
	fillBuffer(t, b, at, 2<<20, 1)
	before := b.Reader(fork - 77)
	defer before.Close()
	old, err := before.Next(64 << 10)
	if err != nil {
		t.Fatal(err)
	}
	want := walAt(fork-77, len(old), 1)
	if err := b.Truncate(fork); err != nil {
		t.Fatal(err)
	}
	fillBuffer(t, b, fork, 1<<20, 2)
	if !bytes.Equal(old, want) {
		t.Error("what a reader was given changed under it")
	}
	if _, err := b.Reader(b.Head() + 1).Next(1); !errors.Is(err, ErrAhead) {
		t.Errorf("a reader behind the head gets %v, want ErrAhead", err)
	}
	again := b.Reader(at)
	defer again.Close()
	readUntil(t, again, fork, 1)
	readTo(t, again, b.Head(), 2)
}

// readUntil reads the bytes before to, and none behind it.
func readUntil(t *testing.T, r *Reader, to wal.LSN, branch byte) {
	t.Helper()
	for r.Position() < to {
		at := r.Position()
		p, err := r.Next(pageSize)
		if err != nil || len(p) == 0 {
			t.Fatalf("Next at %s = %d bytes, %v", at, len(p), err)
		}
		p = p[:min(len(p), int(to-at))]
		if !bytes.Equal(p, walAt(at, len(p), branch)) {
			t.Fatalf("the bytes at %s are not those that were written there", at)
		}
		r.seek(at + wal.LSN(len(p)))
	}
}

func TestAReaderIsWokenAndCloseEndsIt(t *testing.T) {
	b := newTestBuffer(t, MinBufferSize)
	fillBuffer(t, b, 0x1000000, 1, 0)
	r := b.Reader(b.Head())
	changed := b.Changed()
	select {
	case <-changed:
		t.Fatal("woken before anything happened")
	default:
	}
	fillBuffer(t, b, b.Head(), 1, 0)
	<-changed
	changed = b.Changed()
	b.Close()
	<-changed
	<-b.Changed() // who comes late does not wait for ever
	if _, err := r.Next(1); !errors.Is(err, ErrClosed) {
		t.Errorf("Next after Close = %v, want ErrClosed", err)
	}
	if err := b.Append(b.Head(), []byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Close = %v, want ErrClosed", err)
	}
}

// Many readers, fast and slow, check every byte while the buffer wraps and is
// truncated under them.
func TestManyReadersSeeOneTruth(t *testing.T) {
	b := newTestBuffer(t, MinBufferSize)
	const start = wal.LSN(0x1000000)
	fillBuffer(t, b, start, 1, 0)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	errs := make(chan error, 64)
	for i := range 8 {
		readers.Go(func() { errs <- watchBuffer(b, uint64(i), stop) })
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		n := 1 + rnd.IntN(20_000)
		if err := b.Append(b.Head(), walAt(b.Head(), n, 0)); err != nil {
			t.Fatal(err)
		}
		if rnd.IntN(100) == 0 {
			back := wal.LSN(rnd.IntN(300_000))
			if at := b.Head() - back; at > b.Tail() {
				if err := b.Truncate(at); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	close(stop)
	b.wake()
	readers.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
}

// watchBuffer reads what comes, now and then slowly, until stop.
func watchBuffer(b *Buffer, seed uint64, stop chan struct{}) error {
	rnd := rand.New(rand.NewPCG(seed, 7))
	r := b.Reader(b.Tail())
	defer func() { r.Close() }()
	for {
		at := r.Position()
		p, err := r.Next(1 + rnd.IntN(200_000))
		switch {
		case errors.Is(err, ErrBehind), errors.Is(err, ErrAhead):
			r.Close()
			r = b.Reader(b.Tail() + (b.Head()-b.Tail())/2)
		case err != nil:
			return err
		case len(p) == 0:
			changed := b.Changed()
			if b.Head() > at {
				continue
			}
			select {
			case <-changed:
			case <-stop:
				return nil
			}
		case !bytes.Equal(p, walAt(at, len(p), 0)):
			return fmt.Errorf("the bytes at %s are not those that were written there", at)
		}
	}
}

func TestReadingAllocatesNothing(t *testing.T) {
	b := newTestBuffer(t, MinBufferSize)
	const at = wal.LSN(0x1000000)
	fillBuffer(t, b, at, 2<<20, 0)
	r := b.Reader(at)
	defer r.Close()
	if n := testing.AllocsPerRun(100, func() {
		r.seek(at)
		for r.Position() < b.Head() {
			if _, err := r.Next(64 << 10); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("reading 2 MiB allocates %v times", n)
	}
	data := make([]byte, 8192)
	if n := testing.AllocsPerRun(1000, func() {
		if err := b.Append(b.Head(), data); err != nil {
			t.Fatal(err)
		}
	}); n > 0.1 {
		t.Errorf("an append allocates %v times", n)
	}
}
