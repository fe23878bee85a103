package relay

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/pierrec/lz4/v4"
)

// unpacked checks that a block holds data, as others read it.
func unpacked(t *testing.T, block, data []byte) {
	t.Helper()
	got := make([]byte, len(data))
	n, err := lz4.UncompressBlock(block, got)
	if err != nil || n != len(data) || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes were packed into %d: %d and %v come out", len(data), len(block), n, err)
	}
}

func TestWhatIsPackedUnpacksAgain(t *testing.T) {
	p := &packer{}
	for _, size := range []int{lz4Limit, 15, 16, 17, 23, 24, 25, 100, 1000, pageSize, 64<<10 - 1, 64 << 10, 64<<10 + 1, 150_000, maxFrame} {
		noises := []int{0, 1, 5, 20, 50, 90, 99, 100}
		if size == maxFrame {
			noises = []int{0, 50} // slow to make
		}
		for _, noise := range noises {
			data := compressible(size, noise, uint64(size+noise))
			block := make([]byte, lz4.CompressBlockBound(size)+8)
			n := p.pack(block, data)
			if n == 0 {
				t.Fatalf("%d bytes with %d %% noise do not fit into %d", size, noise, len(block))
			}
			unpacked(t, block[:n], data)
		}
	}
}

func TestMatchesReachAsFarBackAsTheFormat(t *testing.T) {
	for _, period := range []int{1, 2, 3, 4, 5, 7, 8, 9, 255, 4096, 1<<16 - 2, 1<<16 - 1, 1 << 16, 1<<16 + 1, 1 << 17} {
		one := compressible(period, 100, uint64(period))
		data := bytes.Repeat(one, max(3, 2000/period))
		block := make([]byte, lz4.CompressBlockBound(len(data))+8)
		n := (&packer{}).pack(block, data)
		unpacked(t, block[:n], data)
		if far := period > 1<<16-1; far == (n < period+period/2+100) {
			t.Errorf("what comes again after %d bytes is packed into %d of %d", period, n, len(data))
		}
	}
}

func TestAPackedBlockKeepsWithinItsRoom(t *testing.T) {
	p := &packer{}
	for _, noise := range []int{0, 5, 30, 100} {
		data := compressible(3000, noise, 1)
		whole := make([]byte, 4000)
		full := p.pack(whole, data)
		for room := range full + 40 {
			block := bytes.Repeat([]byte{0xAA}, room+30)
			n := p.pack(block[:room:room], data)
			if n == 0 && room >= full+24 {
				t.Fatalf("%d bytes do not fit into %d", full, room)
			}
			if n != 0 {
				unpacked(t, block[:n], data)
			}
			if slices.ContainsFunc(block[room:], func(b byte) bool { return b != 0xAA }) {
				t.Fatalf("more than %d bytes were written", room)
			}
		}
	}
}

// What the table holds of blocks before is never believed.
func TestAPackerIsNotLedAstrayByItsTable(t *testing.T) {
	p, rnd := &packer{}, rand.New(rand.NewPCG(1, 2))
	for range 300 {
		data := compressible(rnd.IntN(5000), rnd.IntN(101), rnd.Uint64())
		block := make([]byte, lz4.CompressBlockBound(len(data))+8)
		n := p.pack(block, data)
		if fresh := (&packer{}).pack(make([]byte, len(block)), data); fresh != n {
			t.Fatalf("%d bytes are packed into %d by a used packer, and into %d by a new one", len(data), n, fresh)
		}
		unpacked(t, block[:n], data)
	}
}

func FuzzPack(f *testing.F) {
	f.Add([]byte("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), uint16(20), uint16(3))
	f.Add(compressible(300, 10, 1), uint16(400), uint16(300))
	f.Fuzz(func(t *testing.T, data []byte, room, times uint16) {
		data = bytes.Repeat(data, min(int(times), (200<<10)/max(1, len(data))))
		block := make([]byte, room)
		if n := (&packer{}).pack(block, data); n != 0 {
			unpacked(t, block[:n], data)
		}
	})
}

func BenchmarkPack(b *testing.B) {
	for _, noise := range []int{0, 5, 20, 100} {
		b.Run(fmt.Sprintf("noise=%d%%", noise), func(b *testing.B) {
			p, data := &packer{}, compressible(64<<10, noise, 1)
			block := make([]byte, len(data))
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				p.pack(block, data)
			}
		})
	}
}
