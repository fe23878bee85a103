package replication

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/heliosdb/helios/wal"
)

// copyData is the type of the message that everything in a stream travels in.
const copyData = 'd'

// Sizes of what stands in a CopyData message, with the byte that tells its kind.
const (
	copyHeader    = 5 // type and length of the CopyData message itself
	dataHeader    = 25
	keepaliveSize = 18
	statusSize    = 34
	feedbackSize  = 25
)

// epoch is what PostgreSQL's clock counts from, in microseconds of Unix time:
// the year 2000.
const epoch = 946_684_800_000_000

// AppendDataHeader appends what stands in front of size bytes of WAL: the header
// of a CopyData message that includes them, and that of the WAL data. Start is
// the position of the first byte, end how far the sender has flushed.
func AppendDataHeader(dst []byte, start, end wal.LSN, at time.Time, size int) []byte {
	dst = appendCopyHeader(dst, dataHeader+size)
	dst = append(dst, KindData)
	dst = binary.BigEndian.AppendUint64(dst, uint64(start))
	dst = binary.BigEndian.AppendUint64(dst, uint64(end))
	return appendTime(dst, at)
}

// AppendKeepalive appends a sender's keepalive. With reply the receiver is asked
// for its status at once.
func AppendKeepalive(dst []byte, end wal.LSN, at time.Time, reply bool) []byte {
	dst = appendCopyHeader(dst, keepaliveSize)
	dst = append(dst, KindKeepalive)
	dst = binary.BigEndian.AppendUint64(dst, uint64(end))
	dst = appendTime(dst, at)
	return appendBool(dst, reply)
}

// AppendStatus appends a standby's status update.
func AppendStatus(dst []byte, s Status) []byte {
	dst = appendCopyHeader(dst, statusSize)
	dst = append(dst, KindStatus)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Write))
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Flush))
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Apply))
	dst = appendTime(dst, s.SentAt)
	return appendBool(dst, s.Reply)
}

// AppendFeedback appends a standby's hot standby feedback.
func AppendFeedback(dst []byte, f Feedback) []byte {
	dst = appendCopyHeader(dst, feedbackSize)
	dst = append(dst, KindFeedback)
	dst = appendTime(dst, f.SentAt)
	dst = appendTransaction(dst, f.Xmin)
	return appendTransaction(dst, f.CatalogXmin)
}

// AppendCopy appends a CopyData message of any kind, whose payload is the given
// parts behind one another.
func AppendCopy(dst []byte, kind byte, payload ...[]byte) []byte {
	size := 1
	for _, part := range payload {
		size += len(part)
	}
	dst = appendCopyHeader(dst, size)
	dst = append(dst, kind)
	for _, part := range payload {
		dst = append(dst, part...)
	}
	return dst
}

// ParseStatus reads a standby's status update from the payload of a CopyData
// message, with the byte that tells its kind.
func ParseStatus(payload []byte) (Status, error) {
	if len(payload) != statusSize || payload[0] != KindStatus {
		return Status{}, malformed("status update", payload)
	}
	return Status{
		Write:  wal.LSN(binary.BigEndian.Uint64(payload[1:])),
		Flush:  wal.LSN(binary.BigEndian.Uint64(payload[9:])),
		Apply:  wal.LSN(binary.BigEndian.Uint64(payload[17:])),
		SentAt: parseTime(payload[25:]),
		Reply:  payload[33] != 0,
	}, nil
}

// ParseFeedback reads a standby's hot standby feedback from the payload of a
// CopyData message, with the byte that tells its kind.
func ParseFeedback(payload []byte) (Feedback, error) {
	if len(payload) != feedbackSize || payload[0] != KindFeedback {
		return Feedback{}, malformed("hot standby feedback", payload)
	}
	return Feedback{
		SentAt:      parseTime(payload[1:]),
		Xmin:        parseTransaction(payload[9:]),
		CatalogXmin: parseTransaction(payload[17:]),
	}, nil
}

func malformed(what string, payload []byte) error {
	kind := payload[:min(1, len(payload))]
	return fmt.Errorf("replication: %d bytes that begin with %q are no %s", len(payload), kind, what)
}

func appendCopyHeader(dst []byte, size int) []byte {
	return appendHeader(dst, copyData, size)
}

// appendHeader appends what every message begins with.
func appendHeader(dst []byte, kind byte, size int) []byte {
	dst = append(dst, kind)
	return binary.BigEndian.AppendUint32(dst, uint32(size+4))
}

func appendTime(dst []byte, at time.Time) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(at.UnixMicro()-epoch))
}

func parseTime(b []byte) time.Time {
	return time.UnixMicro(int64(binary.BigEndian.Uint64(b)) + epoch).UTC()
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// appendTransaction appends a full transaction id as PostgreSQL has it in
// messages: the id, then its epoch.
func appendTransaction(dst []byte, full uint64) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(full))
	return binary.BigEndian.AppendUint32(dst, uint32(full>>32))
}

// parseTransaction returns 0 for id 0, whatever the epoch: no transaction has
// that id, and a standby that holds nothing back sends its epoch nevertheless.
func parseTransaction(b []byte) uint64 {
	id := binary.BigEndian.Uint32(b)
	if id == 0 {
		return 0
	}
	return uint64(binary.BigEndian.Uint32(b[4:]))<<32 | uint64(id)
}
