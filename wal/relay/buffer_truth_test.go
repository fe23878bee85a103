package relay

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/heliosdb/helios/wal"
)

// A truth is what a buffer has to hold while it is truncated again and again:
// each truncation begins a branch with bytes of its own.
type truth struct {
	forks []wal.LSN // where each branch began; made large enough at first
	begun atomic.Int64
	// done is the newest branch that Truncate has returned for; one behind it
	// may be seen or not.
	done atomic.Int64
}

// fork notes that a branch begins at at, and returns its number.
func (w *truth) fork(at wal.LSN) byte {
	w.forks[w.begun.Load()] = at
	return byte(w.begun.Add(1) - 1)
}

// check returns an error unless data is what lies at at on one of the branches
// from the one that was the newest before it was read.
func (w *truth) check(before int64, at wal.LSN, data []byte) error {
	begun := w.begun.Load()
	for v := begun; v > before; v-- {
		if bytes.Equal(data, bytesOn(w.forks[:v], at, len(data))) {
			return nil
		}
	}
	return fmt.Errorf("%d bytes at %s are of no branch that was there (%d to %d)", len(data), at, before, begun-1)
}

// bytesOn returns n bytes as they are on the last of the branches.
func bytesOn(forks []wal.LSN, at wal.LSN, n int) []byte {
	p := make([]byte, 0, n)
	for n > 0 {
		branch, end := 0, at+wal.LSN(n)
		for i, f := range slices.Backward(forks) {
			if f <= at {
				branch = i
				break
			}
			end = min(end, f)
		}
		p = append(p, walAt(at, int(end-at), byte(branch))...)
		n -= int(end - at)
		at = end
	}
	return p
}

// A reader that looks while the buffer is truncated and goes on with another
// branch gets the bytes of one or of the other, and never those that the chunk
// it stands in had behind the fork.
func TestAReaderNeverMixesBranches(t *testing.T) {
	b := newTestBuffer(t, MinBufferSize)
	const start = wal.LSN(0x1000000)
	const rounds = 10_000
	w := &truth{forks: make([]wal.LSN, rounds+1)}
	w.fork(start)
	fillBuffer(t, b, start, 1000, 0)
	var stop atomic.Bool
	var readers sync.WaitGroup
	errs := make(chan error, 8)
	for i := range 4 {
		readers.Go(func() { errs <- w.watch(b, uint64(i), &stop) })
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for range rounds {
		at := b.Head() - wal.LSN(rnd.IntN(200))
		branch := w.fork(at)
		if err := b.Truncate(at); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			n := 1 + rnd.IntN(200)
			if err := b.Append(b.Head(), walAt(b.Head(), n, branch)); err != nil {
				t.Fatal(err)
			}
		}
		w.done.Add(1)
	}
	stop.Store(true)
	readers.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
}

// watch reads at the head without a pause.
func (w *truth) watch(b *Buffer, seed uint64, stop *atomic.Bool) error {
	rnd := rand.New(rand.NewPCG(seed, 9))
	r := b.Reader(b.Head())
	defer r.Close()
	for !stop.Load() {
		before := w.done.Load()
		at := r.Position()
		data, err := r.Next(pageSize)
		switch {
		case errors.Is(err, ErrAhead), errors.Is(err, ErrBehind):
		case err != nil:
			return err
		default:
			if err := w.check(before, at, data[:min(len(data), 400)]); err != nil {
				return err
			}
		}
		r.seek(b.Head() - wal.LSN(rnd.IntN(300)))
	}
	return nil
}
