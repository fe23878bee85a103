package topology

import (
	"time"

	"github.com/heliosdb/helios/wal"
)

// Role is what a node said it is when it last answered.
type Role uint8

const (
	// RoleUnknown means the node has not answered yet, or what it said has been
	// refuted since: a supposed primary refused a write.
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
	// a replica past the fork, or another node under a second name. Reason says
	// which.
	StateRefused
)

// String returns the role as people read it: primary, replica or unknown.
func (r Role) String() string {
	switch r {
	case RolePrimary:
		return "primary"
	case RoleReplica:
		return "replica"
	case RoleUnknown:
	}
	return "unknown"
}

// String returns the state as people read it: up, down, refused or unknown.
func (s State) String() string {
	switch s {
	case StateUp:
		return "up"
	case StateDown:
		return "down"
	case StateRefused:
		return "refused"
	case StateUnknown:
	}
	return "unknown"
}

// Node is one PostgreSQL server as last seen. It is a value: a copy is a
// picture of its own.
type Node struct {
	Name   string // host:port or socket path, as named in the DSN; unique in a view
	Zone   string // "" if not declared
	Weight int    // share of reads relative to other replicas; 1 unless declared

	Role   Role
	State  State
	Reason string // why the node is down, refused, or up without taking writes, for people; else ""

	SystemID   uint64        // PostgreSQL's system identifier; 0 if not known
	Timeline   wal.Timeline  // of a replica, the highest that is proven (see TimelineLSN); 0 if not known
	CurrentLSN wal.LSN       // primary: WAL written so far; 0 on a replica
	ReceiveLSN wal.LSN       // replica: WAL received so far, greatest(receive, replay)
	ReplayLSN  wal.LSN       // highest position this node's queries can see
	ReadOnly   bool          // default_transaction_read_only is on: a primary that is fenced softly
	Lag        time.Duration // replica: age of the newest data its queries see; -1 if not known
	Behind     uint64        // replica: bytes between the primary's position and ReplayLSN
	RTT        time.Duration // round trip of the last probe
	Version    int           // server_version_num, such as 150018
	SeenAt     time.Time     // when the node last answered

	// TimelineLSN is the highest position for which it is proven that the node
	// has what Timeline wrote. A replica that has replayed beyond it may be
	// following a newer timeline, and may as well stand past a fork. An ordinary
	// user learns a replica's timeline late, see package watch.
	TimelineLSN wal.LSN
	// StartedAt is when the node's postmaster started, on the node's own clock.
	// Two names with one system identifier and one start are one server.
	StartedAt time.Time

	heardAt    time.Time   // when the newest accepted observation arrived, failed ones included
	doubted    time.Time   // when Doubt was cast; what was asked before does not lift it
	replayedAt time.Time   // when the node first told of ReplayLSN
	settings   Settings    // as the node last told
	told       wal.History // the beginnings of timelines the node has told of
	stopped    bool        // is down, and nothing listens at its address
	split      bool        // was one of two primaries on one timeline, and has not said otherwise

	highest   wal.Timeline // on which the node was ever seen
	highestIn time.Time    // in which run of the server that was last

	reign    uint64    // the epoch in which companions told of its promotion last; 0 if they never did
	warning  string    // why companions say that it must not be used; "" if they do not
	warnedOf time.Time // of which run of the server they said so
}

// OnTimeline reports whether everything the node shows is proven to lie in the
// past of timeline t, as far as the node's own timeline says: only then do the
// node's positions compare with positions of t by LSN alone.
func (n *Node) OnTimeline(t wal.Timeline) bool { return t != 0 && n.Timeline == t }

// Observation is what one look at one node found. Sources are the prober, the
// companion's stream, and the error or parameter status of an ordinary
// statement. A zero field means "not known": what was known before then stays,
// as far as the role allows.
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

	History     wal.History // more beginnings of timelines, if the node told
	TimelineLSN wal.LSN     // as in Node; 0 means that Timeline holds for all the node shows
	StartedAt   time.Time   // as in Node

	// Replayed says that a replica has replayed the end of a transaction since it was
	// started. Before that its queries may miss what lies before ReplayLSN.
	Replayed bool
}

// Settings are the server settings that decide how the driver talks to a
// cluster, as an ordinary session of the application's own user has them.
type Settings struct {
	SegmentSize     uint64 // wal_segment_size in bytes; 0 if not known
	SnapshotPerStmt bool   // default_transaction_isolation is read committed or weaker
}
