package wal

import (
	"encoding/binary"
	"slices"
)

// A Decoder turns the bytes of the log into records, however they are cut:
//
//	d := wal.NewDecoder(start)
//	for … {
//		d.Feed(chunk)
//		for r := d.Next(); r != nil; r = d.Next() {
//			…
//		}
//		if err := d.Err(); err != nil { … }
//	}
//
// It checks all that PostgreSQL checks when it replays, and holds what was fed
// of the record under way and nothing more. It is not safe for concurrent use.
type Decoder struct {
	at LSN    // of in[0]
	in []byte // what was fed and not looked at; not ours

	header [longPageHeader]byte // the page header under way
	headed int                  // how much of it is there

	page    PageHeader // of the last page begun; zero before the first
	segment SegmentSize
	system  uint64

	seeking  bool   // for the beginning of a page, since nothing tells the version before
	skipping uint64 // bytes of pages to pass over: the rest of a record, padding
	switched bool   // the rest of the segment is empty

	partial []byte // the record under way, if all of it was not fed at once
	want    int    // how long partial has to become for the next step
	record  Record
	prev    LSN // where the record before begins; 0 if that is not known
	err     error
}

// keepBuffer is the size up to which the buffer for a record is kept for others.
const keepBuffer = 1 << 20

// NewDecoder returns a decoder for the bytes from start on. If start is inside a
// page, what stands before the next one is passed over, since only the header
// of a page tells how records look; [LSN.PageStart] is a start that loses nothing.
// A record that began before start is left out.
func NewDecoder(start LSN) *Decoder {
	return &Decoder{at: start, seeking: start%PageSize != 0}
}

// Feed gives the decoder the bytes that follow those it was given before. It
// keeps chunk, which must not change until Next has returned nil.
func (d *Decoder) Feed(chunk []byte) {
	if d.err != nil {
		return
	}
	if len(d.in) > 0 { // the caller has not asked for all records: join, so that nothing is lost
		chunk = append(slices.Clip(d.in), chunk...)
	}
	d.in = chunk
}

// Next returns the next record; nil if it takes more bytes, or if Err says that
// there is none.
func (d *Decoder) Next() *Record {
	for d.err == nil && len(d.in) > 0 {
		switch {
		case d.seeking:
			d.seek()
		case d.headed > 0 || d.at%PageSize == 0:
			d.readPageHeader()
		case d.switched:
			d.pass(PageSize)
		case d.skipping > 0:
			d.skipping -= d.pass(d.skipping)
		default:
			if d.readRecord() {
				return &d.record
			}
		}
	}
	return nil
}

// Err returns why there are no more records, whatever is fed: an [EndError], a
// [CorruptError] or a [VersionError]. It is nil as long as there may be some.
func (d *Decoder) Err() error { return d.err }

// Position returns where the bytes begin that have not been looked at: once Next
// has returned nil without error, where the next chunk belongs.
func (d *Decoder) Position() LSN { return d.at }

// Buffered reports whether some of what was fed has not been looked at.
func (d *Decoder) Buffered() bool { return len(d.in) > 0 }

// Unfinished returns where the record under way began, and false if none is.
// If the log ends there it was never written to its end.
func (d *Decoder) Unfinished() (LSN, bool) { return d.record.LSN, len(d.partial) > 0 }

// Page returns the header of the last page begun, with what the first page of a
// segment has told; false if there was none.
func (d *Decoder) Page() (PageHeader, bool) {
	h := d.page
	h.SegmentSize, h.SystemID = d.segment, d.system
	return h, h.Version != 0
}

// seek passes over what stands before the first page.
func (d *Decoder) seek() {
	d.pass(PageSize)
	d.seeking = d.at%PageSize != 0
}

// pass goes on by up to n bytes, but not beyond the page, and returns by how many.
func (d *Decoder) pass(n uint64) uint64 {
	n = min(n, uint64(d.inPage()))
	d.at += LSN(n)
	d.in = d.in[n:]
	return n
}

// inPage returns how many of the bytes fed are on this page.
func (d *Decoder) inPage() int { return min(len(d.in), int(PageSize-d.at%PageSize)) }

// readPageHeader puts the header of a page together and looks at it once it is
// whole.
func (d *Decoder) readPageHeader() {
	size := shortPageHeader
	if d.headed >= shortPageHeader {
		size = longPageHeader
	}
	n := copy(d.header[d.headed:size], d.in)
	d.headed += n
	d.pass(uint64(n))
	if d.headed < size {
		return
	}
	start := d.at - LSN(d.headed)
	if d.switched && d.emptyPage(start) {
		d.headed = 0
		return
	}
	h, err := parseShortHeader(d.header[:])
	if err == nil && h.Long && size == shortPageHeader {
		return // for the rest of it
	}
	d.headed = 0
	if err == nil && h.Long {
		err = h.parseLong(d.header[:])
	}
	if err == nil {
		err = d.checkPage(&h, start)
	}
	if err == nil {
		err = d.enterPage(&h, start)
	}
	d.fail(err, start)
}

// emptyPage reports whether the page at start is one of those that follow a SWITCH
// up to the end of the segment.
func (d *Decoder) emptyPage(start LSN) bool {
	if d.segment != 0 {
		d.switched = uint64(start)%uint64(d.segment) != 0
	} else {
		// Nobody has told how long the segment is. PostgreSQL leaves zeros.
		d.switched = binary.LittleEndian.Uint16(d.header[:]) == 0
	}
	return d.switched
}

// fail keeps the first error, with the position that it is about.
func (d *Decoder) fail(err error, page LSN) {
	switch e := err.(type) { //nolint:errorlint // our own, never wrapped
	case nil:
		return
	case *EndError:
		e.LSN = page
		if len(d.partial) > 0 {
			e.LSN = d.record.LSN
		}
	case *VersionError:
		e.LSN = page
	case *CorruptError:
		if e.LSN == 0 {
			e.LSN = page
		}
	}
	d.err, d.in = err, nil
}

// checkPage looks at a page header as XLogReaderValidatePageHeader does.
func (d *Decoder) checkPage(h *PageHeader, start LSN) error {
	first := d.page.Version == 0
	switch {
	case d.recycled(h.LSN, start):
		return &EndError{Reason: "unexpected pageaddr " + h.LSN.String() + ", of an earlier use of the file"}
	case h.LSN != start:
		return corrupt(start, "unexpected pageaddr %s", h.LSN)
	case !first && h.Version != d.page.Version:
		return corrupt(start, "page of PostgreSQL %d after one of %d", h.Version, d.page.Version)
	case h.Timeline < d.page.Timeline:
		return corrupt(start, "out-of-sequence timeline ID %s (after %s)", h.Timeline, d.page.Timeline)
	case !h.Long && d.segment != 0 && uint64(start)%uint64(d.segment) == 0:
		return corrupt(start, "invalid info bits %04X in page header: it begins a segment", h.flags)
	case h.Long && uint64(start)%uint64(h.SegmentSize) != 0:
		return corrupt(start, "invalid info bits %04X in page header: it begins no segment", h.flags)
	case h.Long && d.segment != 0 && (h.SegmentSize != d.segment || h.SystemID != d.system):
		return corrupt(start, "WAL of another database system, %d and not %d", h.SystemID, d.system)
	}
	return nil
}

// recycled reports whether a page that says it is at said may stand at start since
// the file was in use before: it then was at the same place of another segment.
func (d *Decoder) recycled(said, start LSN) bool {
	segment := LSN(max(d.segment, MinSegmentSize))
	return said < start && (start-said)%segment == 0
}

// enterPage makes h the page under way. The record that the page before ended
// with has to go on here, unless it is said to have been given up.
func (d *Decoder) enterPage(h *PageHeader, start LSN) error {
	first := d.page.Version == 0
	left := uint64(d.want - len(d.partial))
	switch {
	case h.flags&pageOverwrites != 0:
		d.forget()
		d.skipping = 0
	case len(d.partial) > 0 && h.flags&pageContinues == 0:
		return corrupt(d.record.LSN, "there is no contrecord flag at %s", start)
	case len(d.partial) > 0 && uint64(h.Remaining) != left:
		return corrupt(d.record.LSN, "invalid contrecord length %d (expected %d) at %s", h.Remaining, left, start)
	case d.skipping > 0:
		if rest := (uint64(h.Remaining) + recordAlign - 1) &^ (recordAlign - 1); h.flags&pageContinues == 0 || rest != d.skipping {
			return corrupt(start, "invalid contrecord length %d", h.Remaining)
		}
	case len(d.partial) == 0 && h.flags&pageContinues != 0:
		if !first {
			return corrupt(start, "contrecord is requested by %s", start)
		}
		d.skipping = (uint64(h.Remaining) + recordAlign - 1) &^ (recordAlign - 1)
	}
	d.page = *h
	if h.Long {
		d.segment, d.system = h.SegmentSize, h.SystemID
	}
	return nil
}

// readRecord reads the record at this place, or more of the one under way, and
// reports whether that makes it whole.
func (d *Decoder) readRecord() bool {
	n := d.inPage()
	if len(d.partial) == 0 {
		d.record.LSN, d.record.Timeline, d.record.Version = d.at, d.page.Timeline, d.page.Version
		if n >= recordHeader {
			length := binary.LittleEndian.Uint32(d.in)
			if length >= recordHeader && uint64(length) <= uint64(n) {
				raw := d.in[:length:length]
				d.pass(uint64(length))
				return d.finish(raw)
			}
		}
		d.want = 4
	}
	n = min(n, d.want-len(d.partial))
	d.partial = append(d.partial, d.in[:n]...)
	d.pass(uint64(n))
	switch {
	case len(d.partial) < d.want:
		return false
	case d.want == 4:
		d.begin(binary.LittleEndian.Uint32(d.partial))
		return false
	}
	raw := d.partial
	d.forget()
	return d.finish(raw)
}

// begin looks at the length that a record begins with.
func (d *Decoder) begin(length uint32) {
	var err error
	switch {
	case length == 0:
		d.partial = d.partial[:0]
		err = &EndError{Reason: "invalid record length: expected at least 24, got 0"}
	case length < recordHeader:
		err = corrupt(d.record.LSN, "invalid record length: expected at least 24, got %d", length)
	case length >= maxRecord:
		err = corrupt(d.record.LSN, "record length %d is too long", length)
	default:
		d.want = int(length)
	}
	d.fail(err, d.record.LSN)
}

// forget makes room for another record. What the buffer holds stays as it is
// until something is fed.
func (d *Decoder) forget() {
	if cap(d.partial) > keepBuffer {
		d.partial = nil
	}
	d.partial, d.want = d.partial[:0], 0
}

// finish takes a whole record apart and goes on to where the next one may begin.
func (d *Decoder) finish(raw []byte) bool {
	r := &d.record
	err := r.parse(raw)
	if err == nil {
		err = d.checkPrev(r)
	}
	if err != nil {
		d.fail(err, r.LSN)
		return false
	}
	d.prev = r.LSN
	r.End = d.at.Aligned()
	d.skipping = uint64(r.End - d.at)
	if r.IsSwitch() {
		d.switched, d.skipping = true, 0
		if d.segment != 0 && uint64(d.at)%uint64(d.segment) != 0 {
			r.End = d.segment.End(d.at)
		}
	}
	return true
}

// checkPrev compares a record's link with where the record before began. A whole
// record whose link goes back further is what the file held before.
func (d *Decoder) checkPrev(r *Record) error {
	switch {
	case d.prev == 0 && r.Prev < r.LSN, r.Prev == d.prev:
		return nil
	case r.Prev < d.prev:
		return &EndError{Reason: "record with incorrect prev-link " + r.Prev.String() + ", of an earlier use of the file"}
	default:
		return corrupt(r.LSN, "record with incorrect prev-link %s", r.Prev)
	}
}
