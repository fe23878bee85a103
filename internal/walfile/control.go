package walfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"github.com/heliosdb/helios/wal"
)

// controlName is the file that says how far a spool is to be believed.
const controlName = "spool.control"

// control is what a spool knows of itself over a crash.
type control struct {
	Sequence    uint64 // grows with each writing; its parity says in which slot
	System      uint64
	SegmentSize int64
	Start       wal.LSN      // where the spool began; what is older is of no use
	Flushed     wal.Position // end of what surely is on disk; zero if the spool is empty
}

// The control file has two slots that are written in turn, each in a sector and
// a page of its own: one is whole whatever becomes of the other, and a flush
// costs one wait for the device instead of the three of a rename.
const (
	controlMagic   = "helioswal\x00\x00\x01" // the last byte is the version
	controlSlot    = 4096                    // bytes from one slot to the next
	controlSize    = len(controlMagic) + 6*8 + 4
	controlSlots   = 2
	controlFileLen = controlSlots * controlSlot
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode returns what a slot holds.
func (c control) encode() []byte {
	b := make([]byte, 0, controlSize)
	b = append(b, controlMagic...)
	for _, v := range []uint64{
		c.Sequence, c.System, uint64(c.SegmentSize), uint64(c.Start),
		uint64(c.Flushed.Timeline), uint64(c.Flushed.LSN),
	} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// decodeControl is the inverse of encode; false for what was not written whole.
func decodeControl(b []byte) (c control, ok bool) {
	if len(b) < controlSize {
		return control{}, false
	}
	b = b[:controlSize]
	sum := binary.LittleEndian.Uint32(b[controlSize-4:])
	if !bytes.HasPrefix(b, []byte(controlMagic)) || sum != crc32.Checksum(b[:controlSize-4], castagnoli) {
		return control{}, false
	}
	v := func(i int) uint64 { return binary.LittleEndian.Uint64(b[len(controlMagic)+8*i:]) }
	c = control{
		Sequence: v(0), System: v(1), SegmentSize: int64(v(2)), Start: wal.LSN(v(3)),
		Flushed: wal.Position{Timeline: wal.Timeline(v(4)), LSN: wal.LSN(v(5))},
	}
	consistent := v(4) <= 1<<32-1 && checkSegmentSize(c.SegmentSize) == nil &&
		uint64(c.Start)%v(2) == 0 && c.Start <= c.Flushed.LSN && (c.Flushed.Timeline == 0) == (c.Flushed.LSN == 0)
	return c, consistent
}

// newestControl returns the newer of the slots that are whole.
func newestControl(file []byte) (newest control, ok bool) {
	for i := range controlSlots {
		at := min(i*controlSlot, len(file))
		c, whole := decodeControl(file[at:])
		if whole && (!ok || c.Sequence > newest.Sequence) {
			newest, ok = c, true
		}
	}
	return newest, ok
}

// openControl reads the control file, or makes it where there is no WAL yet.
func (s *Spool) openControl() error {
	name := s.disk.file(controlName)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		err = s.makeControl()
		text = nil
	}
	if err != nil {
		return err
	}
	if text != nil {
		c, ok := newestControl(text)
		if !ok {
			return fmt.Errorf("%s is damaged: what the directory holds cannot be trusted", name)
		}
		if c.System != s.cfg.System || c.SegmentSize != s.cfg.SegmentSize {
			return fmt.Errorf("%s is of system %d with segments of %d bytes, not of %d with %d",
				name, c.System, c.SegmentSize, s.cfg.System, s.cfg.SegmentSize)
		}
		s.control = c
	}
	s.controlFile, err = os.OpenFile(name, os.O_RDWR, 0)
	return err
}

// makeControl writes the control file of an empty spool. A directory that holds
// WAL without one is somebody's archive, and is left alone.
func (s *Spool) makeControl() error {
	files, err := s.dir.segments()
	if err != nil {
		return err
	}
	if len(files) > 0 {
		return fmt.Errorf("%s holds WAL and no %s: it is no spool", s.disk.path, controlName)
	}
	s.control = control{System: s.cfg.System, SegmentSize: s.cfg.SegmentSize}
	content := make([]byte, controlFileLen)
	copy(content, s.control.encode())
	return s.disk.replace(controlName, io.NewSectionReader(bytes.NewReader(content), 0, controlFileLen))
}

// saveControlLocked makes c, whose sequence it sets, what is known after a
// crash. If it fails, the other slot still has what was known before; the next
// call writes the same slot.
func (s *Spool) saveControlLocked(c control) error {
	c.Sequence = s.control.Sequence + 1
	offset := int64(c.Sequence%controlSlots) * controlSlot
	if err := s.disk.writeAt(s.controlFile, c.encode(), offset); err != nil {
		return err
	}
	if err := s.disk.sync(s.controlFile); err != nil {
		return err
	}
	s.mu.Lock()
	s.control = c
	s.mu.Unlock()
	return nil
}
