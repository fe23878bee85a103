package doctor

import (
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/certs"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/server/client"
)

// A Severity says whether something has to be done.
type Severity string

const (
	// Problem has to be mended: something does not work, or will not when it is needed.
	Problem Severity = "problem"
	// Note is as somebody wanted it, and should be known.
	Note Severity = "note"
)

// A Finding is one thing that was found.
type Finding struct {
	Code     string   `json:"code"` // for programs
	Severity Severity `json:"severity"`
	Node     string   `json:"node,omitempty"` // that it is about; "" for the whole cluster
	What     string   `json:"what"`
	Why      string   `json:"why"`
	Fix      string   `json:"fix"` // a command, or what to do
}

// A Picture is all that was looked at.
type Picture struct {
	Now        time.Time
	Addrs      []string      // of companions, as given
	Err        error         // why none of them answered
	Overview   *api.Overview // as the first that answered tells it; nil if none did
	Companions []Companion   // of each member
	Servers    []Server      // that were asked by SQL
	Local      Local

	secrets []string // that are not told
}

// A Companion is what one said of itself.
type Companion struct {
	Member failover.Member
	Err    error         // why it did not answer
	Sight  *client.Sight // nil with Err
	Later  *client.Sight // once more, at the end; nil if it did not answer then
}

// A Server is a PostgreSQL that was asked by SQL.
type Server struct {
	Node       string // name of the member, else the address
	Addr       string
	Err        error
	Member     bool // Node is one
	InRecovery bool
	StartedAt  time.Time
	SystemID   uint64
	Settings   map[string]string
	Slots      []Slot
}

// A Slot is a replication slot.
type Slot struct {
	Name   string
	Active bool
	Status string // wal_status: reserved, extended, unreserved or lost
	Held   int64  // bytes of WAL between it and the end
}

// Local is what is on this machine.
type Local struct {
	PGData     string // "" if nobody said
	Control    *pgctl.ControlData
	ControlErr error
	Problems   []pgctl.Problem // of the server that runs there
	Disks      []Disk
	Certs      []certs.Info
	CertsErr   error
	Jumped     time.Duration // of the wall clock against the monotonic one, while we looked
}

// A Disk is the room where a directory is.
type Disk struct {
	What, Dir   string
	Free, Total uint64
}
