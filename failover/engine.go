package failover

import (
	"time"

	"github.com/heliosdb/helios/wal"
)

// A Report is what a node says of itself to the leader: at an interval, and at once when
// something has changed. A primary's report asks for its lease.
type Report struct {
	Node  string `json:"node"`
	Run   uint64 `json:"run"`   // of the companion: a random number of each start
	Epoch Epoch  `json:"epoch"` // the newest that it knows
	Seq   uint64 `json:"seq"`   // grows with every report of a run

	Term   uint64 `json:"term"`   // of the newest assignment that it acts on, and
	Number uint64 `json:"number"` // that one's number: the leader may not be sure that it came

	Postgres   ServerState        `json:"postgres"`
	Reason     string             `json:"reason,omitempty"` // why Postgres is not well, for people
	SystemID   uint64             `json:"system_id,omitempty"`
	Primary    bool               `json:"primary"` // not in recovery
	Timeline   wal.Timeline       `json:"timeline"`
	LSN        wal.LSN            `json:"lsn"`              // a primary's flush LSN; of a standby what it has flushed
	ReplayLSN  wal.LSN            `json:"replay_lsn"`       // of a standby
	Paused     bool               `json:"paused,omitempty"` // a standby whose replay somebody has stopped
	Streaming  bool               `json:"streaming"`        // a standby that receives WAL of Epoch's primary
	Source     string             `json:"source,omitempty"`
	StartedAt  time.Time          `json:"started_at"`           // of the postmaster, by its own clock
	GivesBack  bool               `json:"gives_back"`           // a primary that does not want its lease any more: it confirms nothing by it from now on
	WantsLease bool               `json:"wants_lease"`          // asks for the lease of Epoch
	Restarting time.Duration      `json:"restarting,omitempty"` // the companion will be away for this long, on purpose
	Gate       GateState          `json:"gate"`
	Confirmed  map[string]wal.LSN `json:"confirmed,omitempty"` // a primary: flush LSN of each standby, by name
}

// A ServerState is how a companion sees its PostgreSQL.
type ServerState string

// What a companion may find.
const (
	ServerUp       ServerState = "up"       // answers
	ServerStarting ServerState = "starting" // is being started, rewound or cloned
	ServerDown     ServerState = "down"     // does not run
	ServerHung     ServerState = "hung"     // runs and does not answer, by two signs
	ServerDiverged ServerState = "diverged" // is past the fork, and waits to be rewound
	ServerNone     ServerState = "none"     // a witness
)

// A GateState is what a primary's gate does now.
type GateState struct {
	Set     SyncSet `json:"set"`     // by whose flushes it confirms
	Changed wal.LSN `json:"changed"` // where the WAL ended when Set came into force
	Settled bool    `json:"settled"` // K of Set have flushed everything up to Changed
}

// An Assignment is what the leader wants a node to do. It is the answer to a
// report, and is sent unasked when it changes. Nodes act on nothing else.
type Assignment struct {
	Leader string `json:"leader"`
	Term   uint64 `json:"term"`   // of the leader
	Number uint64 `json:"number"` // grows within a term; a node ignores what is older, by term and number, than what it acts on
	Node   string `json:"node"`   // whom it is for
	Run    uint64 `json:"run"`    // of the report it answers, if any
	Seq    uint64 `json:"seq"`

	Epoch     Epoch        `json:"epoch"`
	Phase     Phase        `json:"phase"`
	Primary   Member       `json:"primary"`    // zero while there is none
	Timeline  wal.Timeline `json:"timeline"`   // of the last epoch that was ready
	SwitchLSN wal.LSN      `json:"switch_lsn"` // where it began

	Lease time.Duration `json:"lease"` // granted: good for so long from when the report was sent
	Gate  SyncSet       `json:"gate"`  // for a primary: by whose flushes it is to confirm; K 0: at once
}

// Inputs of an Engine.
type (
	// Leads says that this companion leads the log from now on. State has all that was
	// committed before: nothing of an earlier term is applied later.
	Leads struct {
		Term  uint64
		State *State
	}
	// Follows says that it does not any more.
	Follows struct{}
	// Applied says that the log has come to a new state.
	Applied struct{ State *State }
	// Heard is a report; leadership was verified after it had arrived.
	Heard struct{ Report Report }
	// Lost says that a connection which is always open to a companion broke.
	Lost struct{ Node string }
	// Observed is the answer to the Probe of that Round: what became of dialling both
	// ports of Node.
	Observed struct {
		Node, By            string
		Round               uint64
		Companion, Postgres Dialled
	}
	// SealAnswer is the answer to Seal. Err is set if there was none.
	SealAnswer struct {
		Epoch  Epoch
		Node   string
		Sealed Sealed
		Err    string
	}
	// Stopped is the answer to Stop: the old primary has shut down, with its WAL ending at
	// Position; or Err says why not.
	Stopped struct {
		Epoch    Epoch
		Position wal.Position
		Err      string
	}
	// Prepared is the answer to Prepare.
	Prepared struct {
		Epoch Epoch
		Err   string
	}
	// Promoted is the answer to Promote.
	Promoted struct {
		Epoch     Epoch
		Timeline  wal.Timeline
		SwitchLSN wal.LSN
		Err       string
	}
	// Refused says that a command was not committed, and never will be.
	Refused struct {
		Command Command
		Err     string
	}
	// Forced is an operator's order to fail over at the risk of acknowledged commits.
	Forced struct {
		To     string
		Reason string
	}
	// Tick says only what time it is.
	Tick struct{}
)

// Dialled is what became of a TCP connection.
type Dialled string

// What may become of it.
const (
	DialledOpen    Dialled = "open"
	DialledRefused Dialled = "refused" // the kernel there says that nobody listens
	DialledSilent  Dialled = "silent"  // no answer
)

// An Input is one of Leads, Follows, Applied, Heard, Lost, Observed, SealAnswer, Prepared, Stopped, Promoted,
// Refused, Forced and Tick.
type Input interface{ input() }

func (Leads) input()      {}
func (Follows) input()    {}
func (Applied) input()    {}
func (Heard) input()      {}
func (Lost) input()       {}
func (Observed) input()   {}
func (SealAnswer) input() {}
func (Stopped) input()    {}
func (Prepared) input()   {}
func (Promoted) input()   {}
func (Refused) input()    {}
func (Forced) input()     {}
func (Tick) input()       {}

// Actions of an Engine. All but Assign are answered by an input.
type (
	// Propose commits a command; Applied or Refused answers.
	Propose struct{ Command Command }
	// Assign sends a node its assignment, in answer to its report or unasked.
	Assign struct{ Assignment Assignment }
	// Probe has By (this companion itself, or another) dial both ports of Node.
	Probe struct {
		Node, By string
		Round    uint64
	}
	// Seal has a companion promise Epoch and say how far its PostgreSQL is. It may go to a
	// primary of an older epoch too: that one then confirms nothing any more, and can be
	// elected again if the answer says so.
	Seal struct {
		Node  string
		Epoch Epoch
	}
	// Prepare has the primary make a checkpoint, so that its stop will be quick.
	Prepare struct {
		Node  string
		Epoch Epoch
	}
	// Stop has the primary shut down fast, for a switchover; it confirms what it
	// still writes.
	Stop struct {
		Node  string
		Epoch Epoch
	}
	// Promote has the elected node become primary, or go on as one. WAL up to Until is
	// wanted before that, if it is not zero: from those of Fetch and nobody else, since there may
	// be another timeline of that number, of a primary that was passed over.
	// Ruler was ready last: anybody else begins a timeline behind Timeline. The node's own part
	// of the log may not have come so far yet.
	Promote struct {
		Node     string
		Epoch    Epoch
		Until    wal.Position
		Fetch    []Member
		Ruler    string
		Timeline wal.Timeline
	}
	// Transfer moves the leadership of the log to another member.
	Transfer struct{ To string }
	// Warn tells people something that they should look at.
	Warn struct{ Text string }
)

// An Action is one of Propose, Assign, Probe, Seal, Prepare, Stop, Promote, Transfer and Warn.
type Action interface{ action() }

func (Propose) action()  {}
func (Assign) action()   {}
func (Probe) action()    {}
func (Seal) action()     {}
func (Prepare) action()  {}
func (Stop) action()     {}
func (Promote) action()  {}
func (Transfer) action() {}
func (Warn) action()     {}
