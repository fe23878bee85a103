package helios

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/heliosdb/helios/pool"
	"github.com/heliosdb/helios/router"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

// counts is what the cluster counts; all fields only grow.
type counts struct {
	retries        atomic.Uint64
	behind         atomic.Uint64
	learned        atomic.Uint64
	conflicts      atomic.Uint64
	waits          atomic.Uint64
	writesLost     atomic.Uint64
	resolved       atomic.Uint64
	primaryChanges atomic.Uint64
}

// nodeCounts is what is counted for one node.
type nodeCounts struct {
	reads, writes, failures atomic.Uint64
}

// NodeStatus describes one node at one moment.
type NodeStatus struct {
	Name       string        `json:"name"`
	Role       string        `json:"role"`             // primary, replica or unknown
	State      string        `json:"state"`            // up, down, refused or unknown
	Reason     string        `json:"reason,omitempty"` // why it is not up, or not used for everything
	Healthy    bool          `json:"healthy"`          // statements may be sent to it
	Zone       string        `json:"zone,omitempty"`
	Timeline   wal.Timeline  `json:"timeline"`
	CurrentLSN wal.LSN       `json:"current_lsn"`    // primary: WAL written so far
	ReplayLSN  wal.LSN       `json:"replay_lsn"`     // highest position its queries are known to see
	Lag        time.Duration `json:"lag_ns"`         // age of the newest data its queries see; -1 if not known
	Behind     uint64        `json:"behind_bytes"`   // bytes behind the primary
	RTT        time.Duration `json:"rtt_ns"`         // of the last probe
	Version    int           `json:"server_version"` // server_version_num
	SeenAt     time.Time     `json:"seen_at"`        // when it answered last

	Conns         pool.Stats `json:"conns"`
	BytesSent     int64      `json:"bytes_sent"`
	BytesReceived int64      `json:"bytes_received"`
	Reads         uint64     `json:"reads"`    // reads it has answered
	Writes        uint64     `json:"writes"`   // other statements it has executed
	Failures      uint64     `json:"failures"` // connections refused or broken
}

// Status is what is known of a cluster at one moment.
type Status struct {
	SystemID uint64       `json:"system_id"`
	Timeline wal.Timeline `json:"timeline"`
	Primary  string       `json:"primary"`     // "" if there is none
	Split    bool         `json:"split_brain"` // two primaries on one timeline
	Nodes    []NodeStatus `json:"nodes"`

	Companion *CompanionStatus `json:"companion,omitempty"` // nil if the DSN names none
}

// Stats counts what the driver did since the cluster was opened.
type Stats struct {
	Reads          map[string]uint64 `json:"reads"`           // by node
	Writes         map[string]uint64 `json:"writes"`          // by node
	Retries        uint64            `json:"retries"`         // statements sent again
	Behind         uint64            `json:"behind"`          // reads a replica could not answer because it had not replayed enough
	Learned        uint64            `json:"learned"`         // statements that a replica refused and the primary executed
	Conflicts      uint64            `json:"conflicts"`       // reads that replay cancelled
	Waits          uint64            `json:"waits"`           // statements that waited for a node
	WritesLost     uint64            `json:"writes_lost"`     // times a session was told that a failover lost its write
	Resolved       uint64            `json:"resolved"`        // commits whose answer was lost and whose outcome was found out
	PrimaryChanges uint64            `json:"primary_changes"` // primaries found, the first one too
	Sessions       int               `json:"sessions"`        // named sessions that are remembered
	Statements     int               `json:"statements"`      // texts whose class is remembered
}

// Status returns what is known of every node, without asking any. The state and the
// role of a node are those by which statements are routed at this moment, its
// positions and times are those that were heard last.
func (c *Cluster) Status() Status {
	r := c.routes.Load()
	view, newest := r.view, c.board.Peek()
	st := Status{SystemID: view.SystemID, Timeline: view.Timeline, Split: view.Split, Companion: c.companionStatus(view.Told)}
	if r.primary != nil {
		st.Primary = r.primary.name
	}
	for i := range view.Nodes {
		v := &view.Nodes[i]
		heard := cmp.Or(nodeIn(newest, v.Name), v)
		s := NodeStatus{
			Name: v.Name, Role: v.Role.String(), State: v.State.String(), Reason: v.Reason, Healthy: v.State == topology.StateUp,
			Zone: v.Zone, Timeline: v.Timeline, CurrentLSN: heard.CurrentLSN, ReplayLSN: heard.ReplayLSN,
			Lag: heard.Lag, Behind: heard.Behind, RTT: heard.RTT, Version: v.Version, SeenAt: heard.SeenAt,
		}
		if v.State == topology.StateDown && heard.State == v.State {
			s.Reason = heard.Reason
		}
		if v.State == topology.StateUp && v.Role == topology.RoleReplica && !v.OnTimeline(view.Timeline) {
			s.Reason = fmt.Sprintf("not known to be on timeline %s: session and bounded reads avoid it (pg_monitor lets the driver see sooner)", view.Timeline)
		}
		if v.State == topology.StateDown {
			s.Lag = -1
		}
		if n := r.byName[v.Name]; n != nil {
			n.describe(&s)
		}
		st.Nodes = append(st.Nodes, s)
	}
	return st
}

// describe adds what the driver itself knows about the node.
func (n *node) describe(s *NodeStatus) {
	s.Conns = n.pool.Stats()
	s.BytesSent, s.BytesReceived = n.traffic.Sent.Load(), n.traffic.Received.Load()
	s.Reads, s.Writes, s.Failures = n.counts.reads.Load(), n.counts.writes.Load(), n.counts.failures.Load()
	s.ReplayLSN = max(s.ReplayLSN, n.load.Replay())
}

// Stats returns what was counted so far.
func (c *Cluster) Stats() Stats {
	st := Stats{
		Reads:          map[string]uint64{},
		Writes:         map[string]uint64{},
		Retries:        c.counts.retries.Load(),
		Behind:         c.counts.behind.Load(),
		Learned:        c.counts.learned.Load(),
		Conflicts:      c.counts.conflicts.Load(),
		Waits:          c.counts.waits.Load(),
		WritesLost:     c.counts.writesLost.Load(),
		Resolved:       c.counts.resolved.Load(),
		PrimaryChanges: c.counts.primaryChanges.Load(),
		Sessions:       c.named.len(),
		Statements:     c.statements.Len(),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, n := range c.nodes {
		st.Reads[name], st.Writes[name] = n.counts.reads.Load(), n.counts.writes.Load()
	}
	return st
}

// Lag returns the age of the newest data that the queries of a node see, 0 for
// the primary. ok is false if it is not known.
func (c *Cluster) Lag(name string) (lag time.Duration, ok bool) {
	r := c.routes.Load()
	n := r.byName[name]
	if n == nil {
		return 0, false
	}
	v := nodeIn(c.board.Peek(), n.name)
	switch {
	case v == nil || v.State != topology.StateUp:
		return 0, false
	case v.Role == topology.RolePrimary:
		return 0, true
	default:
		return v.Lag, v.Lag >= 0
	}
}

// Token returns what the whole *sql.DB has written: what its reads without a
// session of their own see.
func (c *Cluster) Token() Token { return c.whole.Token() }

// Session returns the session that [WithSessionID] would put into a context.
func (c *Cluster) Session(id string) *Session { return c.named.get(id, c.now()) }

// Route says where a statement would go, and why.
type Route struct {
	SQL    string `json:"sql"`
	Class  string `json:"class"`           // read, write, utility or session
	Why    string `json:"why"`             // why it has that class
	Node   string `json:"node,omitempty"`  // where it would go now; "" if nowhere
	Role   string `json:"role,omitempty"`  // of that node, as last seen: primary, replica or unknown
	Reason string `json:"reason"`          // why there
	Check  bool   `json:"check,omitempty"` // the node must prove that it has replayed Want
	Want   string `json:"want,omitempty"`  // position the read must see
	Pins   bool   `json:"pins,omitempty"`  // the session would keep the connection

	Companion string `json:"companion,omitempty"` // what the companions say, for people; "" if the DSN names none
}

// Explain says where sql would go now, and why, with the hints, the session and
// the level of ctx. Nothing is sent.
func (c *Cluster) Explain(ctx context.Context, sql string) (Route, error) {
	if err := c.start(); err != nil {
		return Route{}, err
	}
	s := Conn{cluster: c}
	var q query
	if err := s.newQuery(ctx, &q, sql, nil); err != nil {
		return Route{}, err
	}
	q.session = q.session.copied() // a loss is told to the session itself, not to who explains
	route := Route{SQL: sql, Class: q.stmt.Class.String(), Why: q.stmt.Reason, Pins: q.stmt.Class == router.Session}
	p, err := c.locate(ctx, &q, &tries{})
	if c.listener != nil {
		route.Companion = c.companionStatus(c.board.Peek().Told).String()
	}
	if err != nil {
		route.Reason = err.Error()
		return route, err
	}
	route.Node, route.Reason, route.Check = p.node.name, p.reason, p.check
	if v := nodeIn(c.board.Peek(), p.node.name); v != nil {
		route.Role = v.Role.String()
		if v.State != topology.StateUp {
			route.Reason += "; it is " + v.State.String()
		}
	}
	if p.want != 0 {
		route.Want = p.want.String()
	}
	return route, nil
}

// ReplicaForRead returns the name of the replica that a read would go to now if
// reads were balanced by strategy. It waits for the cluster to be known, and for
// nothing else; without a replica that may answer it returns ErrNoReplica.
func (c *Cluster) ReplicaForRead(ctx context.Context, strategy router.Balance) (string, error) {
	if err := c.start(); err != nil {
		return "", err
	}
	s := Conn{cluster: c, seed: c.seeds.Add(1)}
	var q query
	if err := s.newQuery(ctx, &q, "SELECT", nil); err != nil {
		return "", err
	}
	for {
		r := c.routes.Load()
		if r.view.Settled || c.now().After(c.known) {
			need := router.Need{Zone: c.config.Zone, MaxLag: c.config.MaxLag, Now: c.now().UnixNano()}
			i := strategy.Pick(r.loads, &need, q.seed)
			if i < 0 {
				return "", unsent("", fmt.Errorf("%w: %s", ErrNoReplica, r.describe()))
			}
			return r.replicas[i].name, nil
		}
		select {
		case <-r.replaced:
		case <-ctx.Done():
			return "", interrupted(ctx, unsent("", ErrNoReplica))
		case <-c.ended.Done():
			return "", unsent("", ErrClosed)
		}
	}
}
