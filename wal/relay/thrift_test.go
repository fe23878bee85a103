package relay

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A road is what a byte of WAL has to pass, in nanoseconds a byte.
type road struct {
	encoder float64 // to be compressed
	packed  float64 // what is left of it
	wire    float64 // for a byte on it
	source  float64 // until it is there at all
}

// take returns how long a piece takes, and the encoder for it. What happens at once
// takes as long as the slowest.
func (r road) take(n int, packs bool) (took, packing time.Duration) {
	each, size := 0.0, 1.0
	if packs {
		each, size = r.encoder, r.packed
	}
	return time.Duration(float64(n) * max(each+0.1, r.wire*size, r.source)), time.Duration(float64(n) * each)
}

// A trip is what was sent over roads.
type trip struct {
	took        time.Duration
	raw, packed int
}

// travel sends so much WAL over a road, by what h says.
func (tr *trip) travel(h *thrift, r road, size int, behind uint64) {
	const piece = 64 << 10
	start := time.Unix(1, 0)
	rnd := rand.New(rand.NewPCG(1, uint64(size)))
	for sent := 0; sent < size; sent += piece {
		packs := h.packs(behind, start.Add(tr.took))
		took, packing := r.take(piece, packs)
		tr.took += time.Duration(float64(took) * (0.9 + 0.2*rnd.Float64()))
		bytes := piece
		if packs {
			bytes = int(piece * r.packed)
		}
		h.note(piece, bytes, packing)
		if packs {
			tr.packed += piece
		} else {
			tr.raw += piece
		}
	}
}

const farBehind = 1 << 30

func TestCompressionIsLeftWhereItDoesNotPay(t *testing.T) {
	for name, tt := range map[string]struct {
		road
		raw bool
	}{
		"loopback":                           {road{1.5, 0.2, 0.3, 0}, true},
		"10 Gbit/s":                          {road{1.5, 0.2, 0.8, 0}, true},
		"1 Gbit/s":                           {road{1.5, 0.2, 8, 0}, false},
		"200 Mbit/s":                         {road{1.5, 0.2, 40, 0}, false},
		"10 Mbit/s":                          {road{1.5, 0.2, 800, 0}, false},
		"the encoder is a little slower":     {road{0.95, 0.5, 1, 0}, false},
		"the source is slower than either":   {road{1.5, 0.2, 0.3, 3}, false},
		"the encoder makes little of it":     {road{2, 0.85, 1.2, 0}, true},
		"it makes little, on a slow link":    {road{2, 0.6, 40, 0}, false},
		"the encoder is as fast as the link": {road{0.9, 0.2, 1, 0}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var got, best trip
			const size = 4 << 30
			got.travel(new(thrift), tt.road, size, farBehind)
			best.took, _ = tt.take(size, !tt.raw)
			if got.took > best.took*112/100 {
				t.Errorf("it took %v, and %v the better way", got.took, best.took)
			}
			if most := got.packed; tt.raw && most > size/5 {
				t.Errorf("%d MiB were compressed", most>>20)
			}
			if most := got.raw; !tt.raw && most > size/10 {
				t.Errorf("%d MiB were not compressed", most>>20)
			}
		})
	}
}

// A link becomes slow, and fast again.
func TestCompressionComesBackWhenItPays(t *testing.T) {
	fast, slow := road{1.5, 0.2, 0.3, 0}, road{1.5, 0.2, 40, 0}
	h := new(thrift)
	var before, during, after trip
	before.travel(h, fast, 200<<20, farBehind)
	during.travel(h, slow, 2<<30, farBehind)
	if during.raw > 6*thriftWindow {
		t.Errorf("%d MiB went without compression over the slow link", during.raw>>20)
	}
	after.travel(h, fast, 8<<30, farBehind)
	if after.raw < 4<<30 {
		t.Errorf("%d MiB of 8 GiB went without compression when the link was fast again", after.raw>>20)
	}
	h.packs(thriftBulk-1, time.Now())
	if *h != (thrift{}) {
		t.Errorf("of a peer that follows %+v is kept", *h)
	}
}

func TestWhoFollowsIsSentCompressedFrames(t *testing.T) {
	var got trip
	got.travel(new(thrift), road{5, 0.9, 0.1, 0}, 1<<30, thriftBulk-1)
	if got.raw > 0 {
		t.Errorf("%d bytes were not compressed", got.raw)
	}
}
