package failover

import (
	"time"

	"github.com/heliosdb/helios/wal"
)

// A Command is one entry of the log. Exactly one of its fields but At and Epoch is set.
type Command struct {
	At    time.Time `json:"at"`              // by the leader's clock, for people
	Epoch Epoch     `json:"epoch,omitempty"` // if it is set, the command is refused in any other epoch

	Found      *Found      `json:"found,omitempty"`
	Join       *Member     `json:"join,omitempty"`  // adds a member, or changes one
	Leave      string      `json:"leave,omitempty"` // never the primary
	Settings   *Settings   `json:"settings,omitempty"`
	Pause      *bool       `json:"pause,omitempty"`
	Switchover *Switchover `json:"switchover,omitempty"`
	Cancel     string      `json:"cancel,omitempty"` // ends a switchover before its fence; why
	Fence      *Fence      `json:"fence,omitempty"`
	Elect      *Elect      `json:"elect,omitempty"`
	Ready      *Ready      `json:"ready,omitempty"`
	SyncSet    *SyncSet    `json:"sync_set,omitempty"`
}

// Found makes the first primary of a cluster, or that of one which existed before
// it had companions. It begins epoch 1, elected.
type Found struct {
	Node     string       `json:"node"`
	SystemID uint64       `json:"system_id"`
	Timeline wal.Timeline `json:"timeline"`
}

// A Fence closes the epoch before its own.
type Fence struct {
	Epoch   Epoch         `json:"epoch"` // the state's plus one
	Reason  string        `json:"reason"`
	Planned bool          `json:"planned,omitempty"`
	Forced  bool          `json:"forced,omitempty"` // an operator accepts that acknowledged commits are lost
	To      string        `json:"to,omitempty"`     // Planned or Forced: who is to take over; "" lets the engine choose
	Detect  time.Duration `json:"detect"`
}

// An Elect gives an epoch its primary. It is refused unless the epoch is fenced,
// and has nobody yet, and, but by force, unless enough of the SyncSet are among Sealed and
// nobody of Sealed is ahead of Node, or of Until, which it fetches first. A switchover that
// gives up elects the old primary again: it has all there is.
type Elect struct {
	Epoch  Epoch    `json:"epoch"`
	Node   string   `json:"node"`
	Reason string   `json:"reason"`
	Sealed []Sealed `json:"sealed"`
	Timing Timing   `json:"timing"`

	// Until is what one of Sealed has and Node lacks; zero if it lacks nothing.
	Until wal.Position `json:"until"`
}

// A Ready says that the elected node takes writes.
type Ready struct {
	Epoch     Epoch        `json:"epoch"`
	Timeline  wal.Timeline `json:"timeline"`
	SwitchLSN wal.LSN      `json:"switch_lsn"`
	Timing    Timing       `json:"timing"`
}
