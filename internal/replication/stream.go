package replication

import (
	"time"

	"github.com/heliosdb/helios/wal"
)

// A Status is a standby's status update ('r'): how far it has written, flushed
// and applied the WAL it was sent. Zero is a position that is not told.
type Status struct {
	Write, Flush, Apply wal.LSN
	SentAt              time.Time // by the standby's clock, to the microsecond
	Reply               bool      // the sender is to answer with a keepalive at once
}

// A Feedback is a standby's hot standby feedback ('h'): the oldest transactions
// its queries still need. Each is a full transaction id, the epoch in the upper
// half; zero means that nothing is held back.
type Feedback struct {
	SentAt            time.Time
	Xmin, CatalogXmin uint64
}

// Kinds of the messages in a stream: the first byte of their payload.
const (
	KindData      = 'w' // WAL
	KindKeepalive = 'k'
	KindStatus    = 'r'
	KindFeedback  = 'h'
	KindEnd       = 0 // not a message: the stream is over
)

// An Event is what the stream of a [Client] holds next.
type Event struct {
	Kind   byte
	Start  wal.LSN   // KindData: position of the first byte
	End    wal.LSN   // KindData, KindKeepalive: how far the server has flushed
	SentAt time.Time // KindData, KindKeepalive: by the server's clock
	Reply  bool      // KindKeepalive: a status update is wanted at once
	Size   int       // bytes that Client.Read has for this event, after what is told here
	// KindEnd: the timeline that follows and where it begins. Zero if the
	// server ended the stream without one.
	Next wal.Position
}
