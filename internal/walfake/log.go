package walfake

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/heliosdb/helios/wal"
)

// magic is what the pages of a version begin with.
var magic = map[int]uint16{13: 0xD106, 14: 0xD10D, 15: 0xD110, 16: 0xD113, 17: 0xD116, 18: 0xD118}

// Flags of pages.
const (
	Continues  = 1
	Long       = 2
	Overwrites = 8
)

// A Log is the log of one server from the beginning of a segment on.
type Log struct {
	Version     int // 13 to 18
	Timeline    wal.Timeline
	SystemID    uint64
	SegmentSize wal.SegmentSize

	start wal.LSN
	bytes []byte
	prev  wal.LSN
	flags uint16 // of the next page, besides
}

// New returns an empty log of a version that begins at start, where a segment of
// 16 MB does.
func New(version int, start wal.LSN) *Log {
	return &Log{Version: version, Timeline: 1, SystemID: 7000000000000000001, SegmentSize: wal.DefaultSegmentSize, start: start}
}

// A Record is what a caller says of one.
type Record struct {
	XID     uint32
	Manager wal.Manager
	Info    uint8
	Body    []byte // all that follows the header: what is announced, and then that
}

// Main returns the body of a record that has nothing but main data.
func Main(data []byte) []byte {
	if len(data) < 256 {
		return append([]byte{255, byte(len(data))}, data...)
	}
	return append(binary.LittleEndian.AppendUint32([]byte{254}, uint32(len(data))), data...)
}

// At returns where the next byte is written.
func (l *Log) At() wal.LSN { return l.start + wal.LSN(len(l.bytes)) }

// Bytes returns what was written, up to the last record's last byte. The caller
// may change it.
func (l *Log) Bytes() []byte { return l.bytes }

// Segment returns the first segment, with zeros behind the last record.
func (l *Log) Segment() []byte {
	segment := make([]byte, l.SegmentSize)
	copy(segment, l.bytes)
	return segment
}

// Append writes a record and returns where it begins.
func (l *Log) Append(r Record) wal.LSN {
	l.align()
	begin := l.begin()
	raw := l.record(r)
	for len(raw) > 0 {
		if l.At()%wal.PageSize == 0 {
			l.page(uint32(len(raw)), Continues)
		}
		n := min(len(raw), int(wal.PageSize-l.At()%wal.PageSize))
		l.bytes = append(l.bytes, raw[:n]...)
		raw = raw[n:]
	}
	l.prev = begin
	return begin
}

// Switch writes a SWITCH record, and zeros up to the end of the segment.
func (l *Log) Switch() wal.LSN {
	at := l.Append(Record{Manager: wal.ManagerXLOG, Info: 0x40})
	if rest := l.At() % wal.LSN(l.SegmentSize); rest != 0 {
		l.bytes = append(l.bytes, make([]byte, wal.LSN(l.SegmentSize)-rest)...)
	}
	return at
}

// Abandon writes the beginning of a record, as a server that crashes does, and
// what the next one writes at the page after it.
func (l *Log) Abandon(r Record) (lost, overwrite wal.LSN) {
	l.align()
	lost = l.begin()
	raw := l.record(r)
	room := int(wal.PageSize - l.At()%wal.PageSize)
	l.bytes = append(l.bytes, raw[:room]...)
	l.flags = Overwrites
	overwrite = l.Append(Record{Manager: wal.ManagerXLOG, Info: 0xD0, Body: Main(make([]byte, 16))})
	return lost, overwrite
}

// Pad writes NOOP records until n bytes of the page are left.
func (l *Log) Pad(n int) {
	l.align()
	l.begin()
	room := int(wal.PageSize-l.At()%wal.PageSize) - n
	if room < 0 || room > 0 && room < 32 {
		room += wal.PageSize - 24 // on the next page
	}
	for room > 0 {
		size := min(room, 256)
		if room-size > 0 && room-size < 32 {
			size -= 32
		}
		l.Append(Record{Manager: wal.ManagerXLOG, Info: 0x20, Body: Main(make([]byte, size-26))})
		l.align()
		room -= size
	}
}

// align goes to where a record may begin.
func (l *Log) align() {
	for len(l.bytes)%8 != 0 {
		l.bytes = append(l.bytes, 0)
	}
}

// begin returns where a record begins, behind a page header if there has to be one.
func (l *Log) begin() wal.LSN {
	if l.At()%wal.PageSize == 0 {
		l.page(0, l.flags)
		l.flags = 0
	}
	return l.At()
}

// page writes the header of a page.
func (l *Log) page(remaining uint32, flags uint16) {
	at := l.At()
	long := uint64(at)%uint64(l.SegmentSize) == 0
	if long {
		flags |= Long
	}
	h := binary.LittleEndian.AppendUint16(l.bytes, magic[l.Version])
	h = binary.LittleEndian.AppendUint16(h, flags)
	h = binary.LittleEndian.AppendUint32(h, uint32(l.Timeline))
	h = binary.LittleEndian.AppendUint64(h, uint64(at))
	h = binary.LittleEndian.AppendUint64(h, uint64(remaining))
	if long {
		h = binary.LittleEndian.AppendUint64(h, l.SystemID)
		h = binary.LittleEndian.AppendUint32(h, uint32(l.SegmentSize))
		h = binary.LittleEndian.AppendUint32(h, wal.PageSize)
	}
	l.bytes = h
}

// record returns the bytes of a record.
func (l *Log) record(r Record) []byte {
	raw := binary.LittleEndian.AppendUint32(nil, uint32(24+len(r.Body)))
	raw = binary.LittleEndian.AppendUint32(raw, r.XID)
	raw = binary.LittleEndian.AppendUint64(raw, uint64(l.prev))
	raw = append(raw, r.Info, uint8(r.Manager), 0, 0, 0, 0, 0, 0)
	raw = append(raw, r.Body...)
	Seal(raw)
	return raw
}

// Seal writes the checksum of a record into it.
func Seal(raw []byte) {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Checksum(raw[24:], table), table, raw[:20])
	binary.LittleEndian.PutUint32(raw[20:], sum)
}
