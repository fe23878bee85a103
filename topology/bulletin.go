package topology

import (
	"time"

	"github.com/heliosdb/helios/wal"
)

// A Bulletin is what a companion server tells about a whole cluster: one line
// of JSON in the stream that drivers listen to. Each is complete; none builds on
// the one before.
type Bulletin struct {
	SystemID uint64       `json:"system_id,string"` // of PostgreSQL; 0 while there has never been a primary
	Epoch    uint64       `json:"epoch"`            // the reign of one primary; it only grows
	Phase    string       `json:"phase"`            // forming, fenced, elected or ready
	Hold     bool         `json:"hold"`             // writes that have not begun should wait: a primary is about to change
	Timeline wal.Timeline `json:"timeline"`
	History  wal.History  `json:"history,omitempty"` // known beginnings of timelines
	Primary  string       `json:"primary,omitempty"` // Name of the node that takes writes; "" while there is none
	Nodes    []Reported   `json:"nodes"`
	Warnings []string     `json:"warnings,omitempty"` // what people should look at, in words

	Companion string `json:"companion"` // who tells
	Term      uint64 `json:"term"`      // of the consensus; with Seq it orders what different companions tell
	Seq       uint64 `json:"seq"`       // grows within a term
}

// Reported is one node in a [Bulletin].
type Reported struct {
	Name       string        `json:"name"`
	Addr       string        `json:"addr"` // host:port for clients
	Companion  string        `json:"companion"`
	Zone       string        `json:"zone,omitempty"`
	Role       string        `json:"role"`  // primary, replica, witness or unknown
	State      string        `json:"state"` // up, starting, down, hung, diverged, maintenance or unknown
	Reason     string        `json:"reason,omitempty"`
	Timeline   wal.Timeline  `json:"timeline,omitempty"`
	CurrentLSN wal.LSN       `json:"current_lsn,omitempty"` // a primary's
	ReceiveLSN wal.LSN       `json:"receive_lsn,omitempty"` // a replica's: flushed
	ReplayLSN  wal.LSN       `json:"replay_lsn,omitempty"`
	Streaming  bool          `json:"streaming,omitempty"`
	Lag        time.Duration `json:"lag_ns"`     // age of what its queries see; -1 if not known
	Behind     uint64        `json:"behind"`     // bytes
	StartedAt  time.Time     `json:"started_at"` // of the postmaster, by its own clock
	Age        time.Duration `json:"age_ns"`     // since the node told this
}
