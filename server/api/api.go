package api

import (
	"context"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal/relay"
)

// A Cluster is what a companion knows and can do. Its methods are called from many
// goroutines at once, and all but Do return at once.
type Cluster interface {
	// State returns what the log has come to here. It is never nil.
	State() *failover.State
	// Bulletin returns the newest bulletin, nil while there was none, and a channel
	// that is closed when there is a newer one. What was returned does not change.
	Bulletin() (*topology.Bulletin, <-chan struct{})
	// Local returns what this node would report now. Node is always set.
	Local() failover.Report
	// Leader returns who leads the log, and the address of that companion; "" while
	// nobody does.
	Leader() (name, addr string)
	// LeaseRemaining returns for how long this node may still confirm commits; 0 if it
	// may not.
	LeaseRemaining() time.Duration
	// Consensus returns how the log is doing here.
	Consensus() Consensus
	// Lag returns how far the replicas are behind: a stats.Report of package lag/stats, which
	// is not imported for it. nil if nothing was measured yet.
	Lag() any
	// WAL returns what the relay of this companion does; false if it has none.
	WAL() (relay.Status, bool)
	// Do carries out an order, here or at the leader, and returns when that is done or has
	// failed. An *Error in what it returns is told as it is.
	Do(ctx context.Context, o Order) error
}

// A Consensus is how the replicated log is doing at one companion.
type Consensus struct {
	Term        uint64        // of the leader
	Committed   uint64        // index of the last entry that is known to be committed
	Applied     uint64        // index of the last entry that State has
	LastContact time.Duration // since the leader was heard; 0 at the leader itself
}

// An Order is something that an operator wants done. Exactly one of its fields but By
// is set.
type Order struct {
	By string `json:"by,omitempty"` // who gave it, for the log

	Switchover  *Switchover    `json:"switchover,omitempty"`
	Failover    *Failover      `json:"failover,omitempty"`
	Promote     string         `json:"promote,omitempty"` // a node; a switchover if there is a primary, else a failover
	Pause       *bool          `json:"pause,omitempty"`   // false: resume
	Maintenance *Maintenance   `json:"maintenance,omitempty"`
	Settings    *SettingsPatch `json:"settings,omitempty"`
	Reinit      string         `json:"reinit,omitempty"` // a node whose data is to be made anew
	Remove      string         `json:"remove,omitempty"` // a node
}

// Name returns what is ordered in one word, such as "switchover".
func (o Order) Name() string {
	switch {
	case o.Switchover != nil:
		return "switchover"
	case o.Failover != nil:
		return "failover"
	case o.Promote != "":
		return "promote"
	case o.Pause != nil && *o.Pause:
		return "pause"
	case o.Pause != nil:
		return "resume"
	case o.Maintenance != nil:
		return "maintenance"
	case o.Settings != nil:
		return "settings"
	case o.Reinit != "":
		return "reinit"
	case o.Remove != "":
		return "remove"
	default:
		return "nothing"
	}
}

// A Switchover has another node take over in good order: no commit is lost.
type Switchover struct {
	To string `json:"to,omitempty"` // "" lets the leader choose
}

// A Failover has another node take over without the primary's help.
type Failover struct {
	To         string `json:"to,omitempty"`          // "" lets the leader choose
	Force      bool   `json:"force,omitempty"`       // even if acknowledged commits may be lost
	AcceptLoss string `json:"accept_loss,omitempty"` // with Force: the name of the node whose commits may be lost
}

// A Maintenance takes a node out of elections and of what commits wait for, or puts
// it back.
type Maintenance struct {
	Node string `json:"node"`
	On   bool   `json:"on"`
}

// A Target names the node that an order is about.
type Target struct {
	Node string `json:"node"`
}
