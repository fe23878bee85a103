package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pierrec/lz4/v4"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// Frames are how WAL travels between two relays: in place of PostgreSQL's 'w'
// messages, inside the same CopyData, so that everything else of the
// replication protocol stays as it is. A relay says by the parameter
// frameParameter, when a connection begins, which version it speaks; the other
// asks for one by an option of START_REPLICATION.
//
// A frame has, in network byte order:
//
//	byte    kindFrame
//	uint8   flags: frameLZ4
//	uint32  timeline
//	uint64  epoch, which changes when WAL that was sent has been taken back
//	uint64  position of the first byte
//	uint64  how far the sender has come
//	int64   the sender's clock, microseconds since 2000-01-01
//	uint32  bytes of WAL
//	uint32  CRC-32C of the WAL, and then of all between the kind and here
//	bytes   WAL, as it is or as one LZ4 block
const (
	kindFrame      = 'z'
	kindPositions  = 'p' // see positions.go
	frameVersion   = "1"
	frameParameter = "helios_relay"
	frameOption    = "helios_frames"
	lz4Option      = "helios_lz4"
	frameHeader    = 45 // after the kind
	frameSum       = 41 // where in the header the checksum is
	frameLZ4       = 1
	copyHeader     = 5 // 'd' and the length

	// maxFrame is the largest piece of WAL in a frame. What a sender says is
	// not believed beyond that.
	maxFrame = 1 << 20
	// minCompressed is the smallest piece that is worth a try.
	minCompressed = 128
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	epoch2000  = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
)

// A frame is one that has been built, whole as it goes on the wire.
type frame struct {
	start, end wal.LSN
	buf        []byte
	refs       atomic.Int32
	ready      chan struct{} // closed once buf is there
}

func (f *frame) release() {
	if f.refs.Add(-1) == 0 {
		framePool.Put(&f.buf)
	}
}

var framePool = sync.Pool{New: func() any { return new([]byte) }}

// A frameCache builds frames, and keeps the newest so that several peers at the
// same place are sent the same one. It is safe for concurrent use.
type frameCache struct {
	stats *counter

	mu     sync.Mutex
	frames map[frameKey]*frame
	order  []frameKey // oldest first
}

type frameKey struct {
	timeline wal.Timeline // a peer on an older one is sent the same WAL as its own
	epoch    uint64
	start    wal.LSN
	lz4      bool
}

// cachedFrames at 64 KiB each are 2 MiB at most.
const cachedFrames = 32

func newFrameCache(stats *counter) *frameCache {
	return &frameCache{stats: stats, frames: make(map[frameKey]*frame)}
}

// get returns a frame that begins at h.start, which the caller releases: one
// that is there if it holds no more than data, else one of data.
func (c *frameCache) get(h frameHead, data []byte) *frame {
	key := frameKey{h.timeline, h.epoch, h.start, h.lz4}
	c.mu.Lock()
	if f := c.frames[key]; f != nil && f.end <= h.start+wal.LSN(len(data)) {
		f.refs.Add(1)
		c.mu.Unlock()
		<-f.ready
		c.stats.reused.Add(1)
		return f
	}
	f := &frame{start: h.start, end: h.start + wal.LSN(len(data)), ready: make(chan struct{})}
	f.refs.Store(2) // the caller's and the cache's
	if old := c.frames[key]; old != nil {
		old.release()
	} else {
		c.order = append(c.order, key)
	}
	c.frames[key] = f
	if len(c.order) > cachedFrames {
		c.frames[c.order[0]].release()
		delete(c.frames, c.order[0])
		c.order = append(c.order[:0], c.order[1:]...)
	}
	c.mu.Unlock()
	f.buf = appendFrame((*framePool.Get().(*[]byte))[:0], h, data)
	close(f.ready)
	c.stats.frames.Add(1)
	c.stats.raw.Add(int64(len(data)))
	c.stats.sent.Add(int64(len(f.buf)))
	return f
}

// A frameHead is what a frame says of the WAL in it.
type frameHead struct {
	timeline wal.Timeline
	epoch    uint64
	start    wal.LSN
	end      wal.LSN // how far the sender has come
	lz4      bool
}

var compressors = sync.Pool{New: func() any { return new(lz4.Compressor) }}

// appendFrame appends a whole CopyData message.
func appendFrame(dst []byte, h frameHead, data []byte) []byte {
	first := len(dst)
	dst = append(dst, 'd', 0, 0, 0, 0, kindFrame, 0)
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.timeline))
	dst = binary.BigEndian.AppendUint64(dst, h.epoch)
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.start))
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.end))
	dst = binary.BigEndian.AppendUint64(dst, uint64(time.Since(epoch2000).Microseconds())) //nolint:gosec // read back as an int64
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(data)))                            //nolint:gosec // at most maxFrame
	dst = append(dst, 0, 0, 0, 0)
	packed := 0
	if h.lz4 && len(data) >= minCompressed {
		dst, packed = appendLZ4(dst, data)
	}
	if packed == 0 {
		dst = append(dst, data...)
	} else {
		dst[first+copyHeader+1] |= frameLZ4
	}
	head := dst[first+copyHeader+1:]
	binary.BigEndian.PutUint32(head[frameSum:], checksum(head, data))
	binary.BigEndian.PutUint32(dst[first+1:], uint32(len(dst)-first-1)) //nolint:gosec // bounded by maxFrame
	return dst
}

// checksum returns that of a frame with this header and WAL.
func checksum(head, data []byte) uint32 {
	return crc32.Update(crc32.Checksum(data, castagnoli), castagnoli, head[:frameSum])
}

// appendLZ4 appends data as one LZ4 block and returns the block's length; 0 and
// dst as it was if that would save less than an eighth.
func appendLZ4(dst, data []byte) ([]byte, int) {
	at := len(dst)
	most := len(data) - len(data)/8
	if need := at + most; cap(dst) < need {
		dst = append(make([]byte, 0, max(need, at+lz4.CompressBlockBound(len(data)))), dst...)
	}
	c := compressors.Get().(*lz4.Compressor)
	defer compressors.Put(c)
	n, err := c.CompressBlock(data, dst[at:at+most])
	if err != nil || n == 0 { // it did not fit, or cannot be compressed
		return dst[:at], 0
	}
	return dst[:at+n], n
}

// A frameReader takes frames apart.
type frameReader struct {
	head   [frameHeader]byte
	packed []byte
	raw    []byte
}

// errFrame is what a damaged frame is.
var errFrame = errors.New("relay: damaged frame")

// A received frame, without its WAL.
type received struct {
	timeline wal.Timeline
	epoch    uint64
	start    wal.LSN
	end      wal.LSN
}

// An arriving frame is one of which the WAL has not been taken yet.
type arriving struct {
	received
	length int // bytes of WAL
	packed int // bytes that follow
	lz4    bool
	sum    uint32
}

// begin takes what stands in front of the WAL in a frame of size bytes.
func (r *frameReader) begin(in io.Reader, size int) (arriving, error) {
	var f arriving
	if size < frameHeader {
		return f, fmt.Errorf("%w: %d bytes", errFrame, size)
	}
	if _, err := io.ReadFull(in, r.head[:]); err != nil {
		return f, err
	}
	flags := r.head[0]
	f.timeline = wal.Timeline(binary.BigEndian.Uint32(r.head[1:]))
	f.epoch = binary.BigEndian.Uint64(r.head[5:])
	f.start = wal.LSN(binary.BigEndian.Uint64(r.head[13:]))
	f.end = wal.LSN(binary.BigEndian.Uint64(r.head[21:]))
	f.length, f.sum = int(binary.BigEndian.Uint32(r.head[37:])), binary.BigEndian.Uint32(r.head[frameSum:])
	f.packed, f.lz4 = size-frameHeader, flags&frameLZ4 != 0
	if f.length == 0 || f.length > maxFrame || f.packed > f.length || flags&^frameLZ4 != 0 || !f.lz4 && f.packed != f.length {
		return f, fmt.Errorf("%w at %s: %d bytes of WAL in %d, flags %d", errFrame, f.start, f.length, f.packed, flags)
	}
	return f, nil
}

// fill takes the frame's WAL into p, which has room for all of it, and checks it.
func (r *frameReader) fill(in io.Reader, f arriving, p []byte) error {
	into := p
	if f.lz4 {
		r.packed = grown(r.packed, f.packed)
		into = r.packed
	}
	if _, err := io.ReadFull(in, into); err != nil {
		return err
	}
	if f.lz4 {
		if n, err := lz4.UncompressBlock(r.packed, p); err != nil || n != f.length {
			return fmt.Errorf("%w at %s: %d bytes of LZ4 do not hold %d of WAL", errFrame, f.start, f.packed, f.length)
		}
	}
	if got := checksum(r.head[:], p); got != f.sum {
		return fmt.Errorf("%w at %s: its checksum is %08x, and it says %08x", errFrame, f.start, got, f.sum)
	}
	return nil
}

// read takes one frame of size bytes from in. The WAL is good until the next
// call, and has been checked.
func (r *frameReader) read(in io.Reader, size int) (received, []byte, error) {
	f, err := r.begin(in, size)
	if err != nil {
		return f.received, nil, err
	}
	r.raw = grown(r.raw, f.length)
	if err := r.fill(in, f, r.raw); err != nil {
		return f.received, nil, err
	}
	return f.received, r.raw, nil
}

// appendTo takes the frame's WAL into a buffer: to where it will lie, unless it
// lies in two chunks.
func (r *frameReader) appendTo(b *Buffer, in io.Reader, f arriving) error {
	var rest []byte // of WAL that has been taken and not put down
	return b.AppendFrom(f.start, f.length, func(p []byte) error {
		if len(p) == f.length {
			return r.fill(in, f, p)
		}
		if rest == nil {
			r.raw = grown(r.raw, f.length)
			if err := r.fill(in, f, r.raw); err != nil {
				return err
			}
			rest = r.raw
		}
		rest = rest[copy(p, rest):]
		return nil
	})
}

// grown returns buf with length n, a larger one if it must be.
func grown(buf []byte, n int) []byte {
	if cap(buf) < n {
		return make([]byte, n)
	}
	return buf[:n]
}

// frameOptions returns what START_REPLICATION asks a relay with these parameters
// for; nothing if it is none, or one that speaks another version.
func frameOptions(id replication.Identity, compress bool) string {
	if id.Parameters[frameParameter] != frameVersion {
		return ""
	}
	if !compress {
		return fmt.Sprintf(" (%s '%s')", frameOption, frameVersion)
	}
	return fmt.Sprintf(" (%s '%s', %s '1')", frameOption, frameVersion, lz4Option)
}
