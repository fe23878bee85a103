package relay

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"testing"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// compressible returns n bytes of which about the given share, in percent, is
// noise.
func compressible(n, noise int, seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 11))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i / 64)
		if rnd.IntN(100) < noise {
			p[i] = byte(rnd.Uint32())
		}
	}
	return p
}

// body returns what a frame's CopyData message holds behind the kind.
func body(t testing.TB, message []byte) []byte {
	t.Helper()
	size := int(message[1])<<24 | int(message[2])<<16 | int(message[3])<<8 | int(message[4])
	if message[0] != 'd' || size != len(message)-1 || message[copyHeader] != kindFrame {
		t.Fatalf("% x begins a message of %d bytes", message[:copyHeader+1], len(message))
	}
	return message[copyHeader+1:]
}

func TestAFrameHoldsWhatWasPutIn(t *testing.T) {
	var r frameReader
	sizes := []int{1, 2, minCompressed - 1, minCompressed, minCompressed + 1, 511, pageSize, 64 << 10, maxMessage, maxFrame - 1, maxFrame}
	for size := 3; size < 3000; size += 397 {
		sizes = append(sizes, size)
	}
	for _, size := range sizes {
		for _, noise := range []int{0, 5, 40, 80, 90, 100} {
			if size > maxMessage && noise%100 != 0 {
				continue // slow to make
			}
			data := compressible(size, noise, uint64(size))
			for _, lz4 := range []bool{false, true} {
				h := frameHead{timeline: 7, epoch: 1 << 60, start: 0xF_1234_5678, end: 0xFF_0000_0000, lz4: lz4}
				message := appendFrame(nil, h, data)
				if most := size + copyHeader + 1 + frameHeader; len(message) > most {
					t.Errorf("%d bytes make a frame of %d, want at most %d", size, len(message), most)
				}
				f, got, err := r.read(bytes.NewReader(body(t, message)), len(body(t, message)))
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%d bytes with %d %% noise, LZ4 %v: %d bytes and %v come out", size, noise, lz4, len(got), err)
				}
				if want := (received{timeline: 7, epoch: 1 << 60, start: h.start, end: h.end}); f != want {
					t.Fatalf("the head is %+v, want %+v", f, want)
				}
			}
		}
	}
}

func TestAFrameIsCompressedWhereThatPays(t *testing.T) {
	plain := compressible(pageSize, 0, 1)
	noise := compressible(pageSize, 100, 1)
	for name, tt := range map[string]struct {
		data   []byte
		lz4    bool
		packed bool
	}{
		"zeros, not asked for": {plain, false, false},
		"zeros":                {plain, true, true},
		"noise":                {noise, true, false},
		"too small":            {plain[:minCompressed-1], true, false},
	} {
		m := appendFrame(nil, frameHead{lz4: tt.lz4}, tt.data)
		if got := m[copyHeader+1]&frameLZ4 != 0; got != tt.packed {
			t.Errorf("%s: compressed is %v, want %v", name, got, tt.packed)
		}
	}
}

// What LZ4 has in two ways for the same bytes may be changed into the other: the
// WAL is right then.
func TestDamageIsFound(t *testing.T) {
	for name, data := range map[string][]byte{
		"raw": compressible(300, 100, 3), "LZ4": compressible(3000, 3, 3),
	} {
		m := body(t, appendFrame(nil, frameHead{timeline: 1, start: 100, end: 100 + wal.LSN(len(data)), lz4: true}, data))
		var r frameReader
		in := bytes.NewReader(nil)
		for i := range m {
			for bit := range 8 {
				m[i] ^= 1 << bit
				in.Reset(m)
				_, got, err := r.read(in, len(m))
				m[i] ^= 1 << bit
				if err == nil && !bytes.Equal(got, data) {
					t.Fatalf("%s: bit %d of byte %d is changed, and %d bytes of wrong WAL come out", name, bit, i, len(got))
				}
				if err == nil && (i < frameHeader || m[0]&frameLZ4 == 0) {
					t.Fatalf("%s: bit %d of byte %d is changed, and nobody notices", name, bit, i)
				}
			}
		}
	}
}

func TestACutFrameIsAnError(t *testing.T) {
	data := compressible(2000, 10, 4)
	whole := body(t, appendFrame(nil, frameHead{lz4: true, start: 1}, data))
	for n := range whole {
		var r frameReader
		if _, _, err := r.read(bytes.NewReader(whole[:n]), len(whole)); err == nil {
			t.Fatalf("%d of %d bytes are taken for a frame", n, len(whole))
		}
		if _, _, err := r.read(bytes.NewReader(whole[:n]), n); err == nil {
			t.Fatalf("a message of %d of %d bytes is taken for a frame", n, len(whole))
		}
	}
}

func TestAFrameCannotAskForMemory(t *testing.T) {
	head := body(t, appendFrame(nil, frameHead{}, make([]byte, 10)))[:frameHeader]
	for name, change := range map[string]func([]byte){
		"4 GB":               func(h []byte) { copy(h[37:], []byte{255, 255, 255, 255}) },
		"one more than most": func(h []byte) { copy(h[37:], []byte{0, 0x10, 0, 1}) },
		"nothing":            func(h []byte) { copy(h[37:], []byte{0, 0, 0, 0}) },
		"other flags":        func(h []byte) { h[0] = 2 },
	} {
		h := append(bytes.Clone(head), make([]byte, 10)...)
		change(h)
		var r frameReader
		if _, _, err := r.read(bytes.NewReader(h), len(h)); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v, want a damaged frame", name, err)
		}
		if cap(r.raw) > 0 || cap(r.packed) > 0 {
			t.Errorf("%s: %d bytes were asked for", name, cap(r.raw)+cap(r.packed))
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, noise := range []int{0, 50, 100} {
		m := appendFrame(nil, frameHead{timeline: 1, start: 1 << 24, lz4: true}, compressible(400, noise, 5))
		f.Add(m[copyHeader+1:])
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		var r frameReader
		h, data, err := r.read(bytes.NewReader(message), len(message))
		if err != nil {
			return
		}
		if len(data) == 0 || len(data) > maxFrame {
			t.Fatalf("%d bytes come out", len(data))
		}
		for _, lz4 := range []bool{false, true} {
			again := body(t, appendFrame(nil, frameHead{timeline: h.timeline, epoch: h.epoch, start: h.start, end: h.end, lz4: lz4}, data))
			var o frameReader
			h2, data2, err := o.read(bytes.NewReader(again), len(again))
			if err != nil || h2 != h || !bytes.Equal(data2, data) {
				t.Fatalf("%+v with %d bytes comes back as %+v with %d, %v", h, len(data), h2, len(data2), err)
			}
		}
	})
}

// FuzzFrameDamage changes a good frame at two places.
func FuzzFrameDamage(f *testing.F) {
	f.Add(uint16(300), byte(50), uint16(46), byte(1), uint16(60), byte(255))
	f.Fuzz(func(t *testing.T, size uint16, noise byte, at1 uint16, x1 byte, at2 uint16, x2 byte) {
		data := compressible(1+int(size)%4096, int(noise)%101, 6)
		m := body(t, appendFrame(nil, frameHead{timeline: 1, start: 1, lz4: true}, data))
		m[int(at1)%len(m)] ^= x1
		m[int(at2)%len(m)] ^= x2
		var r frameReader
		if _, got, err := r.read(bytes.NewReader(m), len(m)); err == nil && !bytes.Equal(got, data) {
			t.Fatalf("wrong WAL came out of a damaged frame")
		}
	})
}

// raced reports whether the race detector looks on.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

func TestBuildingAndReadingFramesAllocatesNothing(t *testing.T) {
	if raced() {
		return // the race detector makes pools forget
	}
	for _, noise := range []int{0, 20, 100} {
		data := compressible(64<<10, noise, 7)
		var buf []byte
		if n := testing.AllocsPerRun(100, func() {
			buf = appendFrame(buf[:0], frameHead{start: 1, lz4: true}, data)
		}); n > 0.1 {
			t.Errorf("building a frame with %d %% noise allocates %v times", noise, n)
		}
		var r frameReader
		in := bytes.NewReader(nil)
		if n := testing.AllocsPerRun(100, func() {
			in.Reset(buf[copyHeader+1:])
			if _, _, err := r.read(in, len(buf)-copyHeader-1); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("reading a frame with %d %% noise allocates %v times", noise, n)
		}
		// The frame and its channel; the bytes come from the pool.
		c, at := newFrameCache(new(counter)), wal.LSN(1)
		if n := testing.AllocsPerRun(500, func() {
			c.get(frameHead{start: at, lz4: true}, data).release()
			at += wal.LSN(len(data))
		}); n > 3 {
			t.Errorf("a new frame in the cache with %d %% noise allocates %v times, want at most 3", noise, n)
		}
	}
}

func TestPeersAtOnePlaceGetOneFrame(t *testing.T) {
	data := compressible(pageSize, 10, 8)
	head := frameHead{timeline: 1, start: 1 << 24, lz4: true}
	for name, tt := range map[string]struct {
		change func(*frameHead)
		data   []byte
		same   bool
	}{
		"the same place":        {func(*frameHead) {}, data, true},
		"with more behind it":   {func(*frameHead) {}, append(bytes.Clone(data), 1), true},
		"another timeline":      {func(h *frameHead) { h.timeline = 2 }, data, false},
		"after a truncation":    {func(h *frameHead) { h.epoch = 1 }, data, false},
		"without compression":   {func(h *frameHead) { h.lz4 = false }, data, false},
		"another place":         {func(h *frameHead) { h.start++ }, data, false},
		"where it ends earlier": {func(*frameHead) {}, data[:100], false},
	} {
		c := newFrameCache(new(counter))
		first := c.get(head, data)
		h := head
		tt.change(&h)
		f := c.get(h, tt.data)
		if same := f.end == first.end && &f.buf[0] == &first.buf[0]; same != tt.same {
			t.Errorf("%s: the same frame is %v, want %v", name, same, tt.same)
		}
		var r frameReader
		got, raw, err := r.read(bytes.NewReader(body(t, f.buf)), len(f.buf)-copyHeader-1)
		if err != nil || got.timeline != h.timeline || got.start != h.start || !bytes.Equal(raw, tt.data[:len(raw)]) {
			t.Errorf("%s: the frame is %+v, %v", name, got, err)
		}
		f.release()
		first.release()
	}
}

// Many peers, at places near to each other, each check what they are given
// while the cache drops and reuses frames.
func TestTheCacheIsSafeForManyPeers(t *testing.T) {
	c := newFrameCache(new(counter))
	var peers sync.WaitGroup
	errs := make(chan error, 16)
	for i := range 16 {
		peers.Go(func() { errs <- readFrames(c, uint64(i)) })
	}
	peers.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if n := len(c.frames); n > cachedFrames || n != len(c.order) {
		t.Errorf("%d frames are kept, in an order of %d; want at most %d", n, len(c.order), cachedFrames)
	}
	if got := c.stats.frames.Load() + c.stats.reused.Load(); got != 16*200 {
		t.Errorf("%d frames were built or reused, want %d", got, 16*200)
	}
}

func readFrames(c *frameCache, seed uint64) error {
	rnd := rand.New(rand.NewPCG(seed, 12))
	var r frameReader
	for step := range 200 {
		start := wal.LSN(0x1000000 + (step/5)*1000)
		timeline := wal.Timeline(1 + rnd.IntN(2))
		data := walAt(start, 1+rnd.IntN(2000), 0)
		f := c.get(frameHead{timeline: timeline, start: start, lz4: rnd.IntN(2) == 0}, data)
		h, got, err := r.read(bytes.NewReader(f.buf[copyHeader+1:]), len(f.buf)-copyHeader-1)
		switch {
		case err != nil:
			return err
		case h.start != start, h.timeline != timeline, f.end != start+wal.LSN(len(got)), len(got) > len(data), !bytes.Equal(got, data[:len(got)]):
			return errFrame
		}
		f.release()
	}
	return nil
}

func TestOnlyARelayIsAskedForFrames(t *testing.T) {
	asked := func(version string, compress bool) string {
		return frameOptions(replication.Identity{Parameters: map[string]string{frameParameter: version}}, compress)
	}
	for name, tt := range map[string]struct{ got, want string }{
		"PostgreSQL":              {asked("", true), ""},
		"another version":         {asked("2", true), ""},
		"a relay":                 {asked(frameVersion, true), " (helios_frames '1', helios_lz4 '1')"},
		"a relay, no compression": {asked(frameVersion, false), " (helios_frames '1')"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s is asked for %q, want %q", name, tt.got, tt.want)
		}
	}
}

func TestAFrameGoesWhereItWillLie(t *testing.T) {
	for name, at := range map[string]wal.LSN{"inside of a chunk": chunkSize + 5, "in two chunks": 2*chunkSize - 1000} {
		for _, lz4 := range []bool{false, true} {
			b, err := NewBuffer(MinBufferSize)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			data := compressible(5000, 5, 9)
			m := body(t, appendFrame(nil, frameHead{start: at, end: at + 5000, lz4: lz4}, data))
			take := func() error {
				var r frameReader
				in := bytes.NewReader(m)
				f, err := r.begin(in, len(m))
				if err != nil {
					t.Fatal(err)
				}
				return r.appendTo(b, in, f)
			}
			m[len(m)-1] ^= 1
			if err := take(); err == nil || b.Head() > at {
				t.Errorf("%s, LZ4 %v: a damaged frame gives %v, and the buffer ends at %s", name, lz4, err, b.Head())
			}
			m[len(m)-1] ^= 1
			if err := take(); err != nil {
				t.Fatalf("%s, LZ4 %v: %v", name, lz4, err)
			}
			var got []byte
			r := b.Reader(at)
			defer r.Close()
			for len(got) < len(data) {
				p, err := r.Next(1 << 20)
				if err != nil || len(p) == 0 {
					t.Fatalf("%s: %d bytes, then %v", name, len(got), err)
				}
				got = append(got, p...)
			}
			if !bytes.Equal(got, data) {
				t.Errorf("%s, LZ4 %v: other bytes came out", name, lz4)
			}
		}
	}
}
