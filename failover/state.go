package failover

import (
	"slices"
	"time"

	"github.com/heliosdb/helios/wal"
)

// An Epoch numbers the reigns of primaries. 0 is before the first one.
type Epoch uint64

// A Phase says where in its life the newest epoch is.
type Phase string

const (
	// PhaseForming means that there has never been a primary.
	PhaseForming Phase = "forming"
	// PhaseFenced means that the epoch has begun and the one before is closed: there
	// is no primary, and none may confirm a commit.
	PhaseFenced Phase = "fenced"
	// PhaseElected means that the epoch's primary is chosen and is taking over.
	PhaseElected Phase = "elected"
	// PhaseReady means that the epoch's primary takes writes, as long as it has a lease.
	PhaseReady Phase = "ready"
)

// A Member is one companion, and the PostgreSQL server beside it if it is no
// witness.
type Member struct {
	Name      string `json:"name"`      // never changes; also the id in the consensus and the application_name of its standby
	Companion string `json:"companion"` // host:port of the companion: API, consensus, relay
	Postgres  string `json:"postgres"`  // host:port of PostgreSQL for clients; "" for a witness
	Zone      string `json:"zone,omitempty"`
	Priority  int    `json:"priority,omitempty"` // among equals the highest is promoted

	Witness     bool `json:"witness,omitempty"`     // votes, and has no PostgreSQL
	NonVoter    bool `json:"nonvoter,omitempty"`    // hears the log, and has no vote
	NoCandidate bool `json:"nocandidate,omitempty"` // is never promoted, unless by force
	NoSync      bool `json:"nosync,omitempty"`      // never counts for commits
	Maintenance bool `json:"maintenance,omitempty"` // neither promoted nor counted for now
}

// Candidate reports whether the member may be promoted without force.
func (m Member) Candidate() bool { return !m.Witness && !m.NoCandidate && !m.Maintenance }

// CanSync reports whether commits may wait for the member's standby.
func (m Member) CanSync() bool { return !m.Witness && !m.NoSync && !m.Maintenance }

// A ReplicationMode says what a commit waits for.
type ReplicationMode string

const (
	// Async commits wait for the primary's own disk, and for its lease.
	Async ReplicationMode = "async"
	// Semisync commits wait until K standbys have flushed them as well.
	Semisync ReplicationMode = "semisync"
)

// Settings hold for the whole cluster and are changed through the log.
type Settings struct {
	Mode         ReplicationMode `json:"replication_mode"`
	K            int             `json:"k"`             // Semisync: how many standbys a commit waits for
	MinReplicas  int             `json:"min_replicas"`  // Semisync: K may sink to this many while standbys are missing; commits wait if there are fewer
	AutoFailover bool            `json:"auto_failover"` // false: an operator decides

	Lease         time.Duration `json:"lease"`            // how long a primary may confirm commits without hearing from the leader
	SealBudget    time.Duration `json:"seal_budget"`      // how long answers of standbys are waited for once enough have come
	PromoteBudget time.Duration `json:"promote_budget"`   // how long a promotion may take before the next candidate has its turn
	StopBudget    time.Duration `json:"stop_budget"`      // how long a switchover waits for the old primary to stop
	MaxLag        uint64        `json:"max_failover_lag"` // Async: bytes that an elected standby may be known to lack; 0: any
}

// DefaultSettings returns what a new cluster has.
func DefaultSettings() Settings {
	return Settings{
		Mode: Async, K: 1, MinReplicas: 1, AutoFailover: true,
		Lease: 2 * time.Second, SealBudget: 150 * time.Millisecond,
		PromoteBudget: 10 * time.Second, StopBudget: 5 * time.Second,
	}
}

// A SyncSet says whose flushes have counted for commits: any K of Members. An
// election needs len(Members) - K + 1 of them. K is 0 where commits wait for nobody. Who
// was elected out of a set stays listed until others have what it has.
type SyncSet struct {
	Members []string `json:"members"`
	K       int      `json:"k"`
}

// State is what the log has come to. It is a value that nobody changes: Apply
// returns a new one. The zero State is that of an empty log.
type State struct {
	SystemID uint64   `json:"system_id"` // of PostgreSQL; 0 before the first primary
	Settings Settings `json:"settings"`
	Members  []Member `json:"members"` // by name
	Paused   bool     `json:"paused"`  // no action without an operator

	Epoch   Epoch   `json:"epoch"`
	Phase   Phase   `json:"phase"`
	Primary string  `json:"primary"` // of Epoch; in PhaseFenced who was it last
	SyncSet SyncSet `json:"sync_set"`

	// Until is what Primary was still to fetch when it was elected, zero otherwise. As long
	// as it is set, Primary may lack commits that were acknowledged.
	Until wal.Position `json:"until"`
	// LongestLease is the longest that may have been granted since the last election.
	LongestLease time.Duration `json:"longest_lease"`

	Origin    wal.Timeline `json:"origin"`     // that of the first primary
	Timeline  wal.Timeline `json:"timeline"`   // of the last epoch that was ready
	SwitchLSN wal.LSN      `json:"switch_lsn"` // where Timeline began; 0 if it is the first

	Switchover *Switchover  `json:"switchover,omitempty"` // the one under way
	Cancelled  string       `json:"cancelled,omitempty"`  // why the last one ended before its fence
	History    []Transition `json:"history"`              // newest last; at most HistoryLimit
}

// HistoryLimit is how many transitions a State remembers.
const HistoryLimit = 100

// Member returns the member of that name.
func (s *State) Member(name string) (Member, bool) {
	for _, m := range s.Members {
		if m.Name == name {
			return m, true
		}
	}
	return Member{}, false
}

// Astray reports whether WAL that ends at p, and was last written or taken in the epoch reign,
// is of a primary that was promoted and never was ready, and that the cluster has passed
// over since, or may be (see [State.Forgotten]). Its timeline then says nothing: the cluster
// may have given the number away again, or never have come to it.
func (s *State) Astray(reign Epoch, p wal.Position) bool {
	var before wal.Timeline // of the last epoch before reign that was ready, or of the first of all
	later := false
	switch {
	case reign == 0:
		return false // not told
	case s.Forgotten(reign):
		return true // it may be
	}
	for _, t := range s.History {
		if t.Epoch == 1 {
			before = s.Origin
		}
		switch {
		case t.Timeline == 0:
		case t.Epoch < reign:
			before = t.Timeline
		case t.Epoch == reign:
			return false
		default:
			later = true
		}
	}
	return later && before != 0 && p.Timeline > before
}

// Forgotten reports whether reign was so long ago that nobody knows any more what became of it.
func (s *State) Forgotten(reign Epoch) bool {
	return reign != 0 && len(s.History) > 0 && reign < s.History[0].Epoch
}

// forked reports whether p lies past the beginning of a later timeline of the cluster.
func (s *State) forked(p wal.Position) bool {
	return slices.ContainsFunc(s.History, func(t Transition) bool {
		return t.Timeline > p.Timeline && t.SwitchLSN != 0 && p.LSN > t.SwitchLSN
	})
}

// A Transition is how one epoch came to be, or failed to.
type Transition struct {
	Epoch     Epoch        `json:"epoch"`
	From      string       `json:"from,omitempty"` // the primary before
	To        string       `json:"to,omitempty"`   // "" if nobody took over
	Reason    string       `json:"reason"`         // for people
	Planned   bool         `json:"planned,omitempty"`
	Forced    bool         `json:"forced,omitempty"`
	At        time.Time    `json:"at"` // when the fence was proposed, by the leader's clock
	Timeline  wal.Timeline `json:"timeline,omitempty"`
	SwitchLSN wal.LSN      `json:"switch_lsn,omitempty"`
	Timing    Timing       `json:"timing"`
	Sealed    []Sealed     `json:"sealed,omitempty"`  // who answered, and how far they were
	Aborted   string       `json:"aborted,omitempty"` // why nobody took over in this epoch
}

// A Timing is where the time of a transition went.
type Timing struct {
	Detect  time.Duration `json:"detect"`  // from the last sign of life to the decision
	Fence   time.Duration `json:"fence"`   // to its commit
	Seal    time.Duration `json:"seal"`    // to enough answers
	Elect   time.Duration `json:"elect"`   // to its commit
	Promote time.Duration `json:"promote"` // to a primary that takes writes
}

// A Sealed is a standby's answer to a seal.
type Sealed struct {
	Node      string       `json:"node"`
	Position  wal.Position `json:"position"`
	ReplayLSN wal.LSN      `json:"replay_lsn"`
	Reign     Epoch        `json:"reign"`             // the newest epoch that it wrote or took WAL in; on its disk before the first byte was
	Relayed   bool         `json:"relayed,omitempty"` // its companion can give others all of it
	Err       string       `json:"error,omitempty"`   // why it cannot be a candidate, though it has sealed
}

// A Switchover is an operator's wish.
type Switchover struct {
	To string    `json:"to,omitempty"` // "" lets the engine choose
	At time.Time `json:"at"`
}
