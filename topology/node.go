package topology

import (
	"time"

	"github.com/heliosdb/helios/wal"
)

// Role is what a node said it is when it last answered.
type Role uint8

const (
	// RoleUnknown means the node has not answered yet.
	RoleUnknown Role = iota
	// RolePrimary means the node is not in recovery.
	RolePrimary
	// RoleReplica means the node is in recovery: it replays another node's WAL.
	RoleReplica
)

// State says whether a node may be used.
type State uint8

const (
	// StateUnknown means the node has neither answered nor failed yet.
	StateUnknown State = iota
	// StateUp means the node answered and may be used in its role.
	StateUp
	// StateDown means the node does not answer; Reason says what was seen.
	StateDown
	// StateRefused means the node answers but must not be used: it belongs to
	// another cluster, is a primary of an older timeline, one of two primaries,
	// or a replica past the fork. Reason says which.
	StateRefused
)

// Node is one PostgreSQL server as last seen. It is a value: a copy is a
// picture of its own.
type Node struct {
	Name   string // host:port or socket path, as named in the DSN; unique in a view
	Zone   string // "" if not declared
	Weight int    // share of reads relative to other replicas; 1 unless declared

	Role   Role
	State  State
	Reason string // why State is Down or Refused, for people; "" otherwise

	SystemID   uint64        // PostgreSQL's system identifier; 0 if not known
	Timeline   wal.Timeline  // 0 if not known
	CurrentLSN wal.LSN       // primary: WAL written so far; 0 on a replica
	ReceiveLSN wal.LSN       // replica: WAL received so far, greatest(receive, replay)
	ReplayLSN  wal.LSN       // highest position this node's queries can see
	ReadOnly   bool          // default_transaction_read_only is on: a primary that is fenced softly
	Lag        time.Duration // replica: age of the newest data its queries see; -1 if not known
	Behind     uint64        // replica: bytes between the primary's position and ReplayLSN
	RTT        time.Duration // round trip of the last probe
	Version    int           // server_version_num, such as 150018
	SeenAt     time.Time     // when the node last answered
}

// Observation is what one look at one node found. Sources are the prober, the
// companion's stream, and the error or parameter status of an ordinary
// statement.
type Observation struct {
	Node string    // Node.Name
	At   time.Time // when the answer arrived, on the observer's clock
	Err  error     // why there was no answer; every field below is then ignored

	Role       Role
	SystemID   uint64
	Timeline   wal.Timeline
	SwitchLSN  wal.LSN // where Timeline began, if the node told; else 0
	CurrentLSN wal.LSN // as in Node
	ReceiveLSN wal.LSN
	ReplayLSN  wal.LSN
	ReadOnly   bool
	RTT        time.Duration
	Version    int
	Settings   Settings
}

// Settings are the server settings that decide how the driver talks to a
// cluster, as an ordinary session of the application's own user has them.
type Settings struct {
	SegmentSize     uint64 // wal_segment_size in bytes; 0 if not known
	SnapshotPerStmt bool   // default_transaction_isolation is read committed or weaker
}
