package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/bits"
	"strconv"
)

// Sizes and numbers of records (access/xlogrecord.h).
const (
	recordHeader  = 24
	maxRecord     = 1 << 30 // no server can allocate more to read it
	maxBlocks     = 33      // XLR_MAX_BLOCK_ID + 1
	idDataShort   = 255     // what an announcement of data is about: a block, or one of these
	idDataLong    = 254
	idOrigin      = 253
	idTopXID      = 252  // since PostgreSQL 14
	relationBlock = 8192 // BLCKSZ
)

// castagnoli is the polynomial of the checksums of records.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Record is one entry of the log. What a [Decoder] returns, with all slices in
// it, is valid until the next call of its methods.
type Record struct {
	LSN      LSN      // where it begins
	End      LSN      // where the next one may begin; of a SWITCH the end of the segment, if its size is known
	Prev     LSN      // where the one before it begins
	XID      uint32   // transaction id; 0 for none
	Timeline Timeline // of the page it begins in
	Version  int      // major version of the PostgreSQL that wrote it
	Manager  Manager
	Info     uint8  // what the manager has it for, see Operation; low 4 bits are not the manager's
	Checksum uint32 // CRC-32C of the rest, which has been compared
	Origin   uint16 // replication origin; 0 for none
	TopXID   uint32 // transaction that XID is a subtransaction of, where it is told; 0 elsewhere
	Main     []byte // what is not about one block
	Raw      []byte // all of it, without the page headers in between

	blocks [maxBlocks]Block
	used   int
	images int
}

// Blocks returns the blocks of relations that the record is about.
func (r *Record) Blocks() []Block { return r.blocks[:r.used] }

// ImageBytes returns how much of the record is images of pages.
func (r *Record) ImageBytes() int { return r.images }

// A Block is a record's reference to a block of a relation.
type Block struct {
	ID          uint8 // within the record
	Fork        Fork
	WillInit    bool // replay makes the page anew
	HasImage    bool
	Apply       bool // replay restores the image; false if it is there to be compared only
	Compression Compression
	HoleOffset  uint16 // where the bytes left out of the image are, and how many
	HoleLength  uint16
	File        RelFile
	Number      uint32 // of the block in the fork
	Image       []byte // as it is in the log: compressed, and without the hole
	Data        []byte

	imageLength, dataLength uint16
}

// A RelFile names the files of a relation, as the log does. A relation keeps its
// name and gets other files when it is rewritten.
type RelFile struct {
	Tablespace, Database uint32 // oids; Database is 0 for relations that all databases share
	Number               uint32 // relfilenode
}

// String returns it as pg_waldump does, such as 1663/5/16384.
func (f RelFile) String() string {
	text := strconv.AppendUint(make([]byte, 0, 32), uint64(f.Tablespace), 10)
	text = strconv.AppendUint(append(text, '/'), uint64(f.Database), 10)
	return string(strconv.AppendUint(append(text, '/'), uint64(f.Number), 10))
}

// A Fork is one of the files that make up a relation.
type Fork uint8

// The forks of a relation (common/relpath.h).
const (
	MainFork Fork = iota
	FreeSpaceFork
	VisibilityFork
	InitFork
)

// String returns the suffix of the fork's file.
func (f Fork) String() string {
	switch f {
	case MainFork:
		return "main"
	case FreeSpaceFork:
		return "fsm"
	case VisibilityFork:
		return "vm"
	case InitFork:
		return "init"
	default:
		return fmt.Sprintf("fork%d", uint8(f))
	}
}

// Compression is how the image of a page was made smaller.
type Compression uint8

// The ways that wal_compression knows.
const (
	Uncompressed Compression = iota
	PGLZ
	LZ4  // since PostgreSQL 15
	Zstd // since PostgreSQL 15
)

// checkHeader looks at the record header as ValidXLogRecordHeader does, but for
// the link to the record before.
func (r *Record) checkHeader(raw []byte) error {
	manager := Manager(raw[17])
	if !manager.valid(r.Version) {
		return corrupt(r.LSN, "invalid resource manager ID %d", manager)
	}
	return nil
}

// parse takes a whole record apart, whose LSN, Timeline and Version are known.
func (r *Record) parse(raw []byte) error {
	if err := r.checkHeader(raw); err != nil {
		return err
	}
	r.Checksum = binary.LittleEndian.Uint32(raw[20:])
	if crc32.Update(crc32.Update(0, castagnoli, raw[recordHeader:]), castagnoli, raw[:20]) != r.Checksum {
		return corrupt(r.LSN, "incorrect resource manager data checksum in record")
	}
	r.Raw = raw
	r.XID = binary.LittleEndian.Uint32(raw[4:])
	r.Prev = LSN(binary.LittleEndian.Uint64(raw[8:]))
	r.Info, r.Manager = raw[16], Manager(raw[17])
	r.Origin, r.TopXID, r.Main, r.used, r.images = 0, 0, nil, 0, 0
	return r.parseBody(raw[recordHeader:])
}

// parseBody reads the headers of blocks and data, and then what they announce:
// DecodeXLogRecord in xlogreader.c.
func (r *Record) parseBody(body []byte) error {
	f := fields{rest: body}
	announced := 0
	for last := false; !last && len(f.rest) > announced; {
		switch id := f.u8(); {
		case id == idDataShort: // main data is announced last
			announced, last = announced+int(f.u8()), true
		case id == idDataLong:
			announced, last = announced+int(f.u32()), true
		case id == idOrigin:
			r.Origin = f.u16()
		case id == idTopXID && r.Version >= 14:
			r.TopXID = f.u32()
		case id < maxBlocks:
			b, err := r.parseBlock(id, &f)
			if err != nil {
				return err
			}
			announced += int(b.imageLength) + int(b.dataLength)
		default:
			return corrupt(r.LSN, "invalid block_id %d", id)
		}
	}
	if f.short || len(f.rest) != announced {
		return corrupt(r.LSN, "record with invalid length")
	}
	for i := range r.used {
		b := &r.blocks[i]
		b.Image, b.Data = f.take(int(b.imageLength)), f.take(int(b.dataLength))
		r.images += len(b.Image)
	}
	r.Main = f.rest
	return nil
}

// String returns the record as pg_waldump prints it, but for what the manager has
// to say about it behind the operation.
func (r *Record) String() string { return string(r.Append(nil, RelFile.String)) }

// Append appends what String returns to text, with relations named by name.
func (r *Record) Append(text []byte, name func(RelFile) string) []byte {
	text = append(append(text, "rmgr: "...), r.Manager.String()...)
	text = appendBlanks(text, 11-len(r.Manager.String()))
	text = appendNumber(append(text, " len (rec/tot): "...), len(r.Raw)-r.images, 6)
	text = appendNumber(append(text, '/'), len(r.Raw), 6)
	text = appendNumber(append(text, ", tx: "...), int(r.XID), 10)
	text = appendWide(append(text, ", lsn: "...), r.LSN)
	text = appendWide(append(text, ", prev "...), r.Prev)
	text = append(append(text, ", desc: "...), r.Operation()...)
	for i := range r.Blocks() {
		text = r.blocks[i].append(text, name)
	}
	return text
}

// append appends the reference as pg_waldump prints it.
func (b *Block) append(text []byte, name func(RelFile) string) []byte {
	text = strconv.AppendUint(append(text, ", blkref #"...), uint64(b.ID), 10)
	text = append(append(text, ": rel "...), name(b.File)...)
	if b.Fork != MainFork {
		text = append(append(text, " fork "...), b.Fork.String()...)
	}
	text = strconv.AppendUint(append(text, " blk "...), uint64(b.Number), 10)
	switch {
	case b.HasImage && b.Apply:
		text = append(text, " FPW"...)
	case b.HasImage:
		text = append(text, " FPW for WAL verification"...)
	}
	return text
}

// appendBlanks appends n blanks, none if n is negative.
func appendBlanks(text []byte, n int) []byte {
	for ; n > 0; n-- {
		text = append(text, ' ')
	}
	return text
}

// appendNumber appends n with blanks in front up to a width.
func appendNumber(text []byte, n, width int) []byte {
	var digits [20]byte
	decimal := strconv.AppendInt(digits[:0], int64(n), 10)
	return append(appendBlanks(text, width-len(decimal)), decimal...)
}

// appendWide appends a position with all the zeros that pg_waldump prints.
func appendWide(text []byte, l LSN) []byte {
	text = appendHex(text, uint32(l>>32), 1)
	return appendHex(append(text, '/'), uint32(l), 8)
}

// appendHex appends n in upper case with zeros in front up to a width.
func appendHex(text []byte, n uint32, width int) []byte {
	const digits = "0123456789ABCDEF"
	for i := max(width, (bits.Len32(n)+3)/4) - 1; i >= 0; i-- {
		text = append(text, digits[n>>(4*i)&0xF])
	}
	return text
}
