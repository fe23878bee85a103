package relay

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A road is what WAL has to pass, in nanoseconds a byte, and what the network keeps in
// buffers on the way.
type road struct {
	encoder float64 // to be compressed
	packed  float64 // what is left of it
	wire    float64 // for a byte on it
	source  float64 // until it is there at all
	buffers float64 // bytes that are taken before the wire has carried them
}

// A trip is what was sent over roads.
type trip struct {
	took        time.Duration
	raw, packed int64

	queued float64 // in the buffers
	rnd    *rand.Rand
}

const piece = 64 << 10

// send sends a piece.
func (tr *trip) send(r road, packs bool) (bytes int, packing time.Duration) {
	if tr.rnd == nil {
		tr.rnd = rand.New(rand.NewPCG(1, 2))
	}
	bytes = piece
	took := 0.1 * piece
	if packs {
		bytes = int(piece * r.packed)
		packing = time.Duration(piece * r.encoder * (0.9 + 0.2*tr.rnd.Float64()))
		took += float64(packing)
		tr.packed += piece
	} else {
		tr.raw += piece
	}
	took = max(took, piece*r.source)
	tr.queued = max(0, tr.queued-took/r.wire) + float64(bytes)
	if over := tr.queued - r.buffers; over > 0 { // the sender waits for room
		took += over * r.wire
		tr.queued = r.buffers
	}
	tr.took += time.Duration(took)
	return bytes, packing
}

// travel sends so much WAL over a road, by what h says.
func (tr *trip) travel(h *thrift, r road, size int64, behind uint64) {
	start := time.Unix(1, 0)
	for range size / piece {
		packs := h.packs(behind, start.Add(tr.took))
		bytes, packing := tr.send(r, packs)
		h.note(piece, bytes, packing)
	}
}

// always sends so much WAL one way.
func (tr *trip) always(r road, size int64, packs bool) {
	for range size / piece {
		tr.send(r, packs)
	}
}

const farBehind = 1 << 30

func TestCompressionIsLeftWhereItDoesNotPay(t *testing.T) {
	const buffers = 8 << 20
	for name, tt := range map[string]struct {
		road
		raw bool
	}{
		"loopback":                           {road{1.5, 0.2, 0.3, 0, buffers}, true},
		"10 Gbit/s":                          {road{1.5, 0.2, 0.8, 0, buffers}, true},
		"1 Gbit/s":                           {road{1.5, 0.2, 8, 0, buffers}, false},
		"1 Gbit/s, and little is left":       {road{1.5, 0.1, 8, 0, 2 * buffers}, false},
		"200 Mbit/s":                         {road{1.5, 0.2, 40, 0, buffers}, false},
		"10 Mbit/s":                          {road{1.5, 0.2, 800, 0, buffers}, false},
		"the encoder is a little slower":     {road{1.0, 0.5, 1, 0, buffers}, false},
		"the source is slower than either":   {road{1.5, 0.2, 0.3, 3, buffers}, false},
		"the encoder makes little of it":     {road{2, 0.85, 1.2, 0, buffers}, true},
		"it makes little, on a slow link":    {road{2, 0.6, 40, 0, buffers}, false},
		"the encoder is as fast as the link": {road{0.9, 0.2, 1, 0, buffers}, false},
	} {
		t.Run(name, func(t *testing.T) {
			const size = int64(8) << 30
			var got, best trip
			got.travel(new(thrift), tt.road, size, farBehind)
			best.always(tt.road, size, !tt.raw)
			if got.took > best.took*110/100 {
				t.Errorf("it took %v, and %v the better way", got.took, best.took)
			}
			if tt.raw && got.packed > size/10 {
				t.Errorf("%d MiB were compressed", got.packed>>20)
			}
			if !tt.raw && got.raw > size/10 {
				t.Errorf("%d MiB were not compressed", got.raw>>20)
			}
		})
	}
}

// What goes over a slow link without compression waits there, and all behind it: nothing
// does as long as the buffers of the network hide how slow it is.
func TestASlowLinkIsNotTakenForAFastOne(t *testing.T) {
	slow := road{1.5, 0.15, 40, 0, 8 << 20}
	var got, best trip
	got.travel(new(thrift), slow, 256<<20, farBehind)
	best.always(slow, 256<<20, true)
	if got.raw > 0 || got.took > best.took*101/100 {
		t.Errorf("%d MiB were not compressed, and it took %v instead of %v", got.raw>>20, got.took, best.took)
	}
}

// A link becomes slow, and fast again.
func TestCompressionComesBackWhenItPays(t *testing.T) {
	fast, slow := road{1.5, 0.2, 0.3, 0, 4 << 20}, road{1.5, 0.2, 40, 0, 4 << 20}
	h := new(thrift)
	var tr trip
	raw := func(r road, size int64) int64 {
		before := tr.raw
		tr.travel(h, r, size, farBehind)
		return tr.raw - before
	}
	if before, during := raw(fast, 2<<30), raw(slow, 2<<30); before == 0 || during > 6*thriftWindow {
		t.Errorf("%d MiB went without compression over the fast link, %d over the slow one", before>>20, during>>20)
	}
	if after := raw(fast, 12<<30); after < 4<<30 {
		t.Errorf("%d MiB of 12 GiB went without compression when the link was fast again", after>>20)
	}
}

// One window is slow, since this machine has something else to do.
func TestOneSlowWindowIsNoReason(t *testing.T) {
	fast, h := road{1.5, 0.2, 0.3, 0, 4 << 20}, new(thrift)
	var tr trip
	tr.travel(h, fast, 400<<20, farBehind)
	if !h.raw || h.trial {
		t.Fatalf("%+v, want a fast link to be found", *h)
	}
	packed := tr.packed
	tr.took += time.Second
	tr.travel(h, fast, 3*thriftWindow, farBehind)
	if tr.packed > packed {
		t.Errorf("%d bytes were compressed after a moment of nothing", tr.packed-packed)
	}
}

func TestWhoFollowsIsSentCompressedFrames(t *testing.T) {
	fast, h := road{5, 0.9, 0.1, 0, 4 << 20}, new(thrift)
	var tr trip
	tr.travel(h, fast, 1<<30, thriftBulk-1)
	if tr.raw > 0 {
		t.Errorf("%d bytes were not compressed", tr.raw)
	}
	tr.travel(h, fast, 1<<30, farBehind)
	tr.travel(h, fast, piece, thriftBulk-1)
	packed := tr.packed
	tr.travel(h, fast, thriftWindow, farBehind)
	if tr.raw == 0 || tr.packed > packed {
		t.Errorf("%d bytes were not compressed for a peer far behind; and %d were when it was again", tr.raw, tr.packed-packed)
	}
}
