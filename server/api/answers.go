package api

import (
	"slices"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

// An Overview is the answer to GET /v1/cluster.
type Overview struct {
	Companion  string               `json:"companion"` // who tells
	Leader     Leader               `json:"leader"`
	SystemID   uint64               `json:"system_id,string"` // of PostgreSQL; 0 before the first primary
	Epoch      failover.Epoch       `json:"epoch"`
	Phase      failover.Phase       `json:"phase"`
	Primary    string               `json:"primary"` // of Epoch, even if it is not reachable; see Bulletin for who takes writes
	Timeline   wal.Timeline         `json:"timeline"`
	SwitchLSN  wal.LSN              `json:"switch_lsn"` // where Timeline began
	Paused     bool                 `json:"paused"`
	Settings   Settings             `json:"settings"`
	SyncSet    failover.SyncSet     `json:"sync_set"`
	Members    []failover.Member    `json:"members"`              // by name
	Switchover *failover.Switchover `json:"switchover,omitempty"` // the one under way
	Bulletin   *topology.Bulletin   `json:"bulletin,omitempty"`   // nil while none was heard
}

// IsStranger reports whether the companion that tells is none of the members that it
// knows: it was taken out, and hears of nothing since.
func (o *Overview) IsStranger() bool {
	return len(o.Members) > 0 && !slices.ContainsFunc(o.Members, func(m failover.Member) bool { return m.Name == o.Companion })
}

// A Leader is the companion that leads the log.
type Leader struct {
	Name    string `json:"name"`    // "" while nobody leads
	Address string `json:"address"` // host:port of its companion
}

// A History is the answer to GET /v1/history.
type History struct {
	Transitions []Transition `json:"transitions"` // newest last
}

// A Transition is how one epoch came to be, or failed to, with its times in
// milliseconds.
type Transition struct {
	failover.Transition

	Timing Timing `json:"timing"`
}

// A Timing is where the time of a transition went.
type Timing struct {
	DetectMS  float64 `json:"detect_ms"`  // from the last sign of life to the decision
	FenceMS   float64 `json:"fence_ms"`   // to its commit
	SealMS    float64 `json:"seal_ms"`    // to enough answers
	ElectMS   float64 `json:"elect_ms"`   // to its commit
	PromoteMS float64 `json:"promote_ms"` // to a primary that takes writes
	TotalMS   float64 `json:"total_ms"`   // all of it
}

// historyOf returns transitions for a client.
func historyOf(list []failover.Transition) History {
	h := History{Transitions: make([]Transition, 0, len(list))}
	for _, t := range list {
		h.Transitions = append(h.Transitions, Transition{Transition: t, Timing: timingOf(t.Timing)})
	}
	return h
}

func timingOf(t failover.Timing) Timing {
	return Timing{
		DetectMS: milliseconds(t.Detect), FenceMS: milliseconds(t.Fence), SealMS: milliseconds(t.Seal),
		ElectMS: milliseconds(t.Elect), PromoteMS: milliseconds(t.Promote),
		TotalMS: milliseconds(t.Detect + t.Fence + t.Seal + t.Elect + t.Promote),
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Done is the answer to an order that was carried out: what the cluster came to, as
// far as the companion that answers has heard.
type Done struct {
	Order   string         `json:"order"` // see Order.Name
	Epoch   failover.Epoch `json:"epoch"`
	Phase   failover.Phase `json:"phase"`
	Primary string         `json:"primary"`
	Paused  bool           `json:"paused"`
}

// A Health is the answer to a load balancer. The status is what counts: 200 for yes,
// 503 for no.
type Health struct {
	OK        bool                 `json:"ok"`
	Reason    string               `json:"reason,omitempty"` // why not
	Node      string               `json:"node"`
	Role      string               `json:"role"` // primary, replica, witness or unknown
	Postgres  failover.ServerState `json:"postgres"`
	Epoch     failover.Epoch       `json:"epoch"`
	Timeline  wal.Timeline         `json:"timeline"`
	LeaseMS   float64              `json:"lease_ms"`             // for how long a primary may still confirm commits
	LagMS     *float64             `json:"lag_ms,omitempty"`     // of a replica, if it is known
	Behind    *uint64              `json:"behind,omitempty"`     // bytes, of a replica, if they are known
	ReplayLSN wal.LSN              `json:"replay_lsn,omitempty"` // of a replica
}
