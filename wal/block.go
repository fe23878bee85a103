package wal

import "encoding/binary"

// Bits of what announces a block (fork_flags in access/xlogrecord.h).
const (
	blockForkMask     = 0x0F
	blockHasImage     = 0x10
	blockHasData      = 0x20
	blockWillInit     = 0x40
	blockSameRelation = 0x80
)

// Bits of what announces an image (bimg_info). PostgreSQL 15 moved them.
const (
	imageHasHole         = 0x01
	imageCompressedUntil = 0x02 // 13 and 14
	imageApplyUntil      = 0x04 // 13 and 14
	imageApply           = 0x02
	imagePGLZ            = 0x04
	imageLZ4             = 0x08
	imageZstd            = 0x10
)

// parseBlock reads what announces block id, into the next place for one.
func (r *Record) parseBlock(id uint8, f *fields) (*Block, error) {
	if r.used > 0 && id <= r.blocks[r.used-1].ID {
		return nil, corrupt(r.LSN, "out-of-order block_id %d", id)
	}
	b := &r.blocks[r.used]
	flags := f.u8()
	b.ID, b.Fork = id, Fork(flags&blockForkMask)
	b.WillInit, b.HasImage = flags&blockWillInit != 0, flags&blockHasImage != 0
	b.dataLength, b.imageLength = f.u16(), 0
	b.Apply, b.Compression, b.HoleOffset, b.HoleLength = false, Uncompressed, 0, 0
	if (flags&blockHasData != 0) != (b.dataLength != 0) && !f.short {
		return nil, corrupt(r.LSN, "block %d announces %d bytes of data against its flags", id, b.dataLength)
	}
	if b.HasImage {
		if err := r.parseImage(b, f); err != nil {
			return nil, err
		}
	}
	switch {
	case flags&blockSameRelation == 0:
		b.File = RelFile{Tablespace: f.u32(), Database: f.u32(), Number: f.u32()}
	case r.used == 0:
		return nil, corrupt(r.LSN, "BKPBLOCK_SAME_REL set but no previous rel")
	default:
		b.File = r.blocks[r.used-1].File
	}
	b.Number = f.u32()
	r.used++
	return b, nil
}

// parseImage reads what announces the image of block b.
func (r *Record) parseImage(b *Block, f *fields) error {
	b.imageLength, b.HoleOffset = f.u16(), f.u16()
	info := f.u8()
	hole := info&imageHasHole != 0
	b.Apply, b.Compression = imageFlags(info, r.Version)
	switch {
	case b.Compression == Uncompressed && b.imageLength <= relationBlock:
		b.HoleLength = relationBlock - b.imageLength
	case b.Compression != Uncompressed && hole:
		b.HoleLength = f.u16()
	}
	whole := b.imageLength == relationBlock
	switch {
	case f.short: // parseBody says so
	case hole && (b.HoleOffset == 0 || b.HoleLength == 0 || whole):
		return corrupt(r.LSN, "BKPIMAGE_HAS_HOLE set, but hole offset %d length %d block image length %d", b.HoleOffset, b.HoleLength, b.imageLength)
	case !hole && (b.HoleOffset != 0 || b.Compression == Uncompressed && !whole):
		return corrupt(r.LSN, "BKPIMAGE_HAS_HOLE not set, but hole offset %d, block image length %d", b.HoleOffset, b.imageLength)
	case b.Compression != Uncompressed && b.imageLength >= relationBlock:
		return corrupt(r.LSN, "BKPIMAGE_COMPRESSED set, but block image length %d", b.imageLength)
	}
	return nil
}

// imageFlags returns what info says of an image in the log of a version.
func imageFlags(info uint8, version int) (apply bool, c Compression) {
	switch {
	case version < 15:
		if info&imageCompressedUntil != 0 {
			c = PGLZ
		}
		return info&imageApplyUntil != 0, c
	case info&imagePGLZ != 0:
		c = PGLZ
	case info&imageLZ4 != 0:
		c = LZ4
	case info&imageZstd != 0:
		c = Zstd
	}
	return info&imageApply != 0, c
}

// fields reads numbers off the front of rest. Once there are too few bytes, all
// it reads is zero and short says so.
type fields struct {
	rest  []byte
	short bool
}

// take returns the next n bytes; nil if there are fewer.
func (f *fields) take(n int) []byte {
	if n > len(f.rest) {
		f.rest, f.short = nil, true
		return nil
	}
	taken := f.rest[:n:n]
	f.rest = f.rest[n:]
	return taken
}

func (f *fields) u8() uint8 {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) u16() uint16 {
	if b := f.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (f *fields) u32() uint32 {
	if b := f.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (f *fields) u64() uint64 {
	if b := f.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}
