package relay

import (
	"encoding/binary"
	"math/bits"
)

// The LZ4 block format: sequences of a token (four bits for how many literals,
// four for how long the match is, less lz4MinMatch), the literals, and how far
// back the match lies, in two bytes. What does not fit into the token's four bits
// follows it, for the literals, or the offset, for the match.
const (
	lz4MinMatch = 4
	lz4Tail     = 5  // the last bytes are literals
	lz4Limit    = 14 // no match begins later than this before the end: 12, and two that are looked at ahead
	lz4Nibble   = 15 // in the token: more of the length follows
	lz4HashLog  = 12
	// lz4Patience says how long without a match it takes until the steps grow: as
	// many bytes as this is the logarithm of.
	lz4Patience = 6
)

// A packer writes LZ4 blocks as lz4.Compressor does, and finds nearly the same
// matches in WAL. But its table is of 8 KiB, not of 136, and stays in the
// processor's nearest cache while the WAL, and the kernel's copies of it, pass
// through: that one is slower by half alone, and by two thirds where processors
// have other things to do.
type packer struct {
	table [1 << lz4HashLog]uint16 // by hash of six bytes: the last position of such, its lower half
}

func lz4Hash(x uint64) uint64 {
	const prime6bytes = 227718039650203
	return ((x << 16) * prime6bytes) >> (64 - lz4HashLog)
}

// back returns how far before at the position lies of which a table holds the
// lower half: less than 64 KiB.
func back(half uint16, at int) int { return int(lowerHalf(at) - half) }

func lowerHalf(at int) uint16 { return uint16(at) } //nolint:gosec // see its name
func lower32(x uint64) uint32 { return uint32(x) }  //nolint:gosec // see its name

func load64(src []byte, at int) uint64 { return binary.LittleEndian.Uint64(src[at:]) }
func load32(src []byte, at int) uint32 { return binary.LittleEndian.Uint32(src[at:]) }

// pack writes src into dst as one block, and returns its length; 0 if it does not
// fit. All that the table says is checked against src: whatever is in it, an
// offset leads back to within src, since it is less than 64 KiB and of the same
// lower half as a position that was.
//
// It is one loop because it is run for every twenty bytes of WAL or so: calls
// would cost a fifth.
func (p *packer) pack(dst, src []byte) int {
	table := &p.table
	clear(table[:])
	di, anchor, last := 0, 0, len(src)-lz4Limit
	for si := 1; si <= last; {
		// A match is looked for at si and the two places behind it.
		x := load64(src, si)
		h, h2 := lz4Hash(x), lz4Hash(x>>8)
		offset, offset2 := back(table[h], si), back(table[h2], si+1)
		table[h], table[h2] = lowerHalf(si), lowerHalf(si+1)
		if offset == 0 || load32(src, si-offset) != lower32(x) {
			h = lz4Hash(x >> 16)
			offset3 := back(table[h], si+2)
			si++
			offset = offset2
			if offset == 0 || load32(src, si-offset) != lower32(x>>8) {
				si++
				offset = offset3
				table[h] = lowerHalf(si)
				if offset == 0 || load32(src, si-offset) != lower32(x>>16) {
					si += 2 + (si-anchor)>>lz4Patience
					continue
				}
			}
		}
		at := si
		for at > anchor && at > offset && src[at-1] == src[at-1-offset] {
			at--
		}
		si += lz4MinMatch
		for si+8 <= len(src)-lz4Tail {
			if x := load64(src, si) ^ load64(src, si-offset); x != 0 {
				si += bits.TrailingZeros64(x) >> 3
				goto ended
			}
			si += 8
		}
		for si < len(src)-lz4Tail && src[si] == src[si-offset] {
			si++
		}
	ended:
		literals, more := at-anchor, si-at-lz4MinMatch
		if literals < lz4Nibble && more < lz4Nibble && di+24 <= len(dst) && anchor+16 <= len(src) {
			// Most are short: one copy of fixed length, of which the rest is written over.
			d := dst[di : di+24 : di+24]
			*(*[16]byte)(d[1:]) = *(*[16]byte)(src[anchor:])
			d[0] = byte(literals<<4 | more)
			binary.LittleEndian.PutUint16(d[1+literals:], lowerHalf(offset))
			di += 3 + literals
		} else if di = putSequence(dst, di, src[anchor:at], offset, more); di == 0 {
			return 0
		}
		anchor = si
		if si <= last {
			table[lz4Hash(load64(src, si-2))] = lowerHalf(si - 2)
		}
	}
	return putLast(dst, di, src[anchor:])
}

// putSequence writes one sequence at di: literals, and a match of lz4MinMatch and
// more bytes. It returns where the next one goes; 0 if there is no room.
func putSequence(dst []byte, di int, literals []byte, offset, more int) int {
	if di+sequenceBound(len(literals), more) > len(dst) {
		return 0
	}
	dst[di] = byte(min(len(literals), lz4Nibble)<<4 | min(more, lz4Nibble))
	di = putLength(dst, di+1, len(literals))
	di += copy(dst[di:], literals)
	binary.LittleEndian.PutUint16(dst[di:], lowerHalf(offset))
	return putLength(dst, di+2, more)
}

// putLast writes the sequence that ends a block, which has no match.
func putLast(dst []byte, di int, literals []byte) int {
	if di+sequenceBound(len(literals), 0) > len(dst) {
		return 0
	}
	dst[di] = byte(min(len(literals), lz4Nibble) << 4)
	di = putLength(dst, di+1, len(literals))
	return di + copy(dst[di:], literals)
}

// sequenceBound returns how long a sequence is at most.
func sequenceBound(literals, more int) int { return 1 + literals/255 + 1 + literals + 2 + more/255 + 1 }

// putLength writes what of a length does not fit into the token.
func putLength(dst []byte, di, n int) int {
	if n < lz4Nibble {
		return di
	}
	for n -= lz4Nibble; n >= 255; n -= 255 {
		dst[di] = 255
		di++
	}
	dst[di] = byte(n)
	return di + 1
}
