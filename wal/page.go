package wal

import "encoding/binary"

// recordAlign is what the positions of records are multiples of (MAXALIGN).
const recordAlign = 8

// Bits of a page header (xlp_info in access/xlog_internal.h).
const (
	pageContinues  = 0x0001 // the page begins with the rest of a record
	pageLongHeader = 0x0002
	pageOverwrites = 0x0008 // the record that the page before ends with was never finished
	pageAllFlags   = 0x000F // 0x0004 says that a tool may leave page images out
)

// A PageHeader stands in front of the records of every page.
type PageHeader struct {
	Version   int      // major version of the PostgreSQL that wrote it, such as 15
	Timeline  Timeline // of the page's first record
	LSN       LSN      // where the page is
	Remaining uint32   // how much of the record that the page before ends with is left; 0 if none
	Long      bool     // the page begins a segment, and the header has the fields below

	SystemID    uint64
	SegmentSize SegmentSize

	flags uint16
}

// Size returns how many bytes the header takes.
func (h *PageHeader) Size() int {
	if h.Long {
		return longPageHeader
	}
	return shortPageHeader
}

// VersionOf returns the major version that writes pages with this magic number
// (XLOG_PAGE_MAGIC), 0 if none is known to.
func VersionOf(magic uint16) int {
	switch magic {
	case 0xD106:
		return 13
	case 0xD10D:
		return 14
	case 0xD110:
		return 15
	case 0xD113:
		return 16
	case 0xD116:
		return 17
	case 0xD118:
		return 18
	default:
		return 0
	}
}

// ParsePageHeader reads the header that a page begins with. A page begins every
// segment, so this tells the version and the segment size of a file. What comes
// back is one of the errors of [Decoder].
//
// page may hold as little as the header: 24 bytes, or 40 at the beginning of a
// segment.
func ParsePageHeader(page []byte) (PageHeader, error) {
	if len(page) < shortPageHeader {
		return PageHeader{}, &CorruptError{Reason: "page is shorter than its header"}
	}
	h, err := parseShortHeader(page)
	if err != nil || !h.Long {
		return h, err
	}
	if len(page) < longPageHeader {
		return h, &CorruptError{LSN: h.LSN, Reason: "page is shorter than its header"}
	}
	return h, h.parseLong(page)
}

// parseShortHeader reads what all page headers have.
func parseShortHeader(page []byte) (h PageHeader, err error) {
	magic := binary.LittleEndian.Uint16(page)
	h = PageHeader{
		Version:   VersionOf(magic),
		Timeline:  Timeline(binary.LittleEndian.Uint32(page[4:])),
		LSN:       LSN(binary.LittleEndian.Uint64(page[8:])),
		Remaining: binary.LittleEndian.Uint32(page[16:]),
		flags:     binary.LittleEndian.Uint16(page[2:]),
	}
	h.Long = h.flags&pageLongHeader != 0
	switch {
	case [shortPageHeader]byte(page) == [shortPageHeader]byte{}:
		return h, &EndError{Reason: "invalid magic number 0000"}
	case h.Version == 0 && magic>>8 >= 0xD0 && magic>>8 <= 0xD3:
		return h, &VersionError{Magic: magic}
	case h.Version == 0:
		return h, corrupt(0, "invalid magic number %04X", magic)
	case h.flags&^pageAllFlags != 0:
		return h, corrupt(0, "invalid info bits %04X in page header", h.flags)
	}
	return h, nil
}

// parseLong reads what the header of a segment's first page has besides.
func (h *PageHeader) parseLong(page []byte) error {
	h.SystemID = binary.LittleEndian.Uint64(page[24:])
	h.SegmentSize = SegmentSize(binary.LittleEndian.Uint32(page[32:]))
	if h.SegmentSize.Check() != nil {
		return corrupt(0, "invalid segment size %d in page header", h.SegmentSize)
	}
	if size := binary.LittleEndian.Uint32(page[36:]); size != PageSize {
		return corrupt(0, "pages of %d bytes: only %d are supported", size, PageSize)
	}
	return nil
}
