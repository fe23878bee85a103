package topology

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/heliosdb/helios/wal"
)

// This file is the decision: the previous view and one piece of evidence go
// in, the next view comes out. Nothing here locks, reads a clock or changes the
// view it was given.

// readOnlyViolation is the SQLSTATE of a write that a node refused
// (ERRCODE_READ_ONLY_SQL_TRANSACTION).
const readOnlyViolation = "25006"

// reduce returns the view that follows prev once o is known. It returns prev
// itself if o says nothing: the node is not in the view, or o is older than
// what is known.
func reduce(prev *View, o *Observation) *View {
	i := prev.Index(o.Node)
	if i < 0 || o.At.Before(prev.Nodes[i].heardAt) {
		return prev
	}
	nodes := slices.Clone(prev.Nodes)
	n := &nodes[i]
	n.heardAt = o.At
	switch {
	case o.Err != nil:
		n.State, n.Reason = StateDown, o.Err.Error()
		n.stopped = errors.Is(o.Err, syscall.ECONNREFUSED) || errors.Is(o.Err, syscall.ENOENT)
	case o.At.Add(-o.RTT).Before(n.doubted):
		return prev // asked before the doubt arose
	default:
		n.hear(o)
		proveDivergence(prev, nodes, o)
	}
	return judge(prev, nodes)
}

// hear takes over what an answer says. Zero fields leave what was known.
func (n *Node) hear(o *Observation) {
	n.hearPosition(o)
	n.Role, n.State, n.Reason, n.stopped = o.Role, StateUp, "", false
	n.ReadOnly, n.RTT, n.SeenAt = o.ReadOnly, o.RTT, o.At
	if o.SystemID != 0 {
		n.SystemID = o.SystemID
	}
	if o.Version != 0 {
		n.Version = o.Version
	}
	if o.Settings.SegmentSize != 0 {
		n.settings = o.Settings
	}
	if !o.StartedAt.IsZero() {
		n.StartedAt = o.StartedAt
	}
	for _, begun := range o.History {
		n.told = n.told.With(begun)
	}
	if o.SwitchLSN != 0 && o.Timeline != 0 {
		n.told = n.told.With(wal.Switch{Timeline: o.Timeline, LSN: o.SwitchLSN})
	}
}

// hearPosition takes over timeline and positions; n still holds the role the
// node had before.
func (n *Node) hearPosition(o *Observation) {
	promoted := n.Role == RoleReplica && o.Role == RolePrimary
	proven, shown := o.TimelineLSN, n.ReplayLSN
	if o.SystemID != 0 && n.SystemID != 0 && o.SystemID != n.SystemID {
		n.forget() // another server took the name
	}
	if o.Role == RolePrimary {
		n.CurrentLSN = cmp.Or(o.CurrentLSN, n.CurrentLSN)
		n.ReceiveLSN, n.ReplayLSN = 0, n.CurrentLSN
		n.Lag, n.Behind = 0, 0
		proven = n.CurrentLSN
	} else {
		if n.Role == RolePrimary { // what it wrote says nothing about what it replays
			n.CurrentLSN, n.ReceiveLSN, n.ReplayLSN = 0, 0, 0
			n.Lag = -1
		}
		n.ReplayLSN = cmp.Or(o.ReplayLSN, n.ReplayLSN)
		n.ReceiveLSN = max(cmp.Or(o.ReceiveLSN, n.ReceiveLSN), n.ReplayLSN)
		if proven == 0 && o.Timeline != 0 {
			proven = n.ReplayLSN
		}
	}
	if n.ReplayLSN != shown {
		n.replayedAt = o.At
	}
	switch {
	case o.Timeline == 0 && promoted: // a promotion starts a timeline, but which?
		n.Timeline, n.TimelineLSN = 0, 0
	case o.Timeline == 0:
	case o.Timeline == n.Timeline: // what was proven once stays proven
		n.TimelineLSN = max(n.TimelineLSN, proven)
	default:
		n.Timeline, n.TimelineLSN = o.Timeline, proven
	}
}

// forget makes n a node that never answered, but for what fits any server.
func (n *Node) forget() {
	*n = Node{Name: n.Name, Zone: n.Zone, Weight: n.Weight, Lag: -1, heardAt: n.heardAt, doubted: n.doubted}
}

// proveDivergence looks, when a node turns out to have been promoted, for
// replicas that had replayed beyond the switch point before there was anything
// to replay on the new timeline: they stand past the fork, even where they
// cannot tell their timeline.
func proveDivergence(prev *View, nodes []Node, o *Observation) {
	i := prev.Index(o.Node)
	was, is := &prev.Nodes[i], &nodes[i]
	if was.Role != RoleReplica || is.Role != RolePrimary || o.SwitchLSN == 0 {
		return
	}
	stillReplica := was.SeenAt.Add(-was.RTT) // when that was asked last
	for j := range nodes {
		r := &nodes[j]
		if j != i && r.Role == RoleReplica && r.Timeline < is.Timeline && r.SystemID == is.SystemID &&
			r.ReplayLSN > o.SwitchLSN && !r.replayedAt.After(stillReplica) {
			r.TimelineLSN = max(r.TimelineLSN, r.ReplayLSN)
		}
	}
}

// doubt returns the view that follows prev once a statement on the named node
// has failed with err at now.
func doubt(prev *View, name string, err error, now time.Time) *View {
	i := prev.Index(name)
	if i < 0 {
		return prev
	}
	refused := refusedWrite(err)
	if refused && prev.Nodes[i].Role != RolePrimary {
		return prev // that is what a replica does
	}
	nodes := slices.Clone(prev.Nodes)
	n := &nodes[i]
	n.doubted = now
	if refused {
		n.Role, n.Reason = RoleUnknown, fmt.Sprintf("refused a write: %v", err)
	} else {
		n.State, n.Reason = StateDown, err.Error()
	}
	return judge(prev, nodes)
}

// refusedWrite reports whether err is a node's answer that it takes no writes.
func refusedWrite(err error) bool {
	var pg interface{ SQLState() string }
	return errors.As(err, &pg) && pg.SQLState() == readOnlyViolation
}

// judge makes the view that follows prev out of nodes, whose own words have
// been taken over already. It owns nodes.
func judge(prev *View, nodes []Node) *View {
	v := &View{Version: prev.Version + 1, Nodes: nodes, Primary: -1, LastPrimary: -1}
	v.Settled = !slices.ContainsFunc(nodes, func(n Node) bool { return n.State == StateUnknown })
	var tie bool
	v.SystemID, tie = electSystemID(prev.SystemID, nodes)
	v.decided = prev.decided || v.Settled && v.SystemID != 0 && !tie
	v.contested = v.Settled && tie && !v.decided
	if v.SystemID == prev.SystemID {
		v.Timeline, v.History, v.announced, v.rose = prev.Timeline, prev.History, prev.announced, prev.rose
		v.Abandoned = prev.Abandoned
	}
	v.Told = prev.Told.of(v.SystemID)
	for i := range nodes {
		v.gather(&nodes[i])
	}
	for _, begun := range v.announced {
		v.History = v.History.With(begun)
	}
	if v.Timeline != prev.Timeline {
		v.rose = v.Told
	}
	if len(v.Abandoned) > 0 && v.Abandoned[0].Timeline <= v.Timeline { // the number is of another one by now
		v.Abandoned = slices.DeleteFunc(slices.Clone(v.Abandoned), func(s wal.Switch) bool { return s.Timeline <= v.Timeline })
	}
	v.Split = v.settleClaims()
	for i := range nodes {
		v.judgeNode(i)
	}
	v.choosePrimary(prev)
	v.chooseSettings(prev)
	return v
}

// electSystemID returns the identifier that most nodes told when they last
// answered, so that a wrong first host does not lock out the right ones. In a
// tie the cluster stays what it was: what the first node to answer said. That
// is good enough only if a majority has said so before.
func electSystemID(now uint64, nodes []Node) (id uint64, tie bool) {
	votes := map[uint64]int{}
	for i := range nodes {
		if id := nodes[i].SystemID; id != 0 {
			votes[id]++
		}
	}
	best := now
	for i := range nodes {
		if id := nodes[i].SystemID; votes[id] > votes[best] {
			best = id
		}
	}
	for id, n := range votes {
		tie = tie || id != best && n == votes[best]
	}
	return best, tie
}

// gather adds to the view what a node of the cluster knows of timelines, and
// lifts an earlier refusal: judgeNode decides anew.
func (v *View) gather(n *Node) {
	if n.Timeline >= n.highest { // whoever has told of it
		n.highest, n.highestIn = n.Timeline, n.StartedAt
	}
	if n.State == StateRefused {
		n.State, n.Reason = StateUp, ""
	}
	if n.State == StateUp && n.Role != RoleUnknown {
		n.Reason = ""
	}
	if n.SystemID == 0 || n.SystemID == v.SystemID {
		v.Timeline = max(v.Timeline, n.Timeline)
		v.History = v.History.Merge(n.told)
	}
}

// settleClaims marks the nodes that claim to be the primary of the highest
// timeline, if there is more than one, and reports whether there is. PostgreSQL
// starts a new timeline with every promotion, so two of them are copies of one
// data directory and both take writes. That one of them falls silent proves
// nothing: the claim stands until the node says otherwise, nothing listens at its
// address any more, it is removed, or a higher timeline appears.
func (v *View) settleClaims() bool {
	var claims []int
	for i := range v.Nodes {
		n := &v.Nodes[i]
		silent := n.State == StateDown || n.Role == RoleUnknown
		claimed := n.split && silent && !n.stopped || n.State == StateUp && n.Role == RolePrimary
		n.split = false
		if claimed && n.Timeline == v.Timeline && v.member(n) && v.alias(i) < 0 && v.elsewhere(n) == "" {
			claims = append(claims, i)
		}
	}
	if len(claims) < 2 {
		return false
	}
	for _, i := range claims {
		v.Nodes[i].split = true
	}
	return true
}

// member reports whether n is of this cluster, or has not told.
func (v *View) member(n *Node) bool { return n.SystemID == 0 || n.SystemID == v.SystemID }

// alias returns the index of an earlier node that is the same server as node i
// under another name; -1 if there is none.
func (v *View) alias(i int) int {
	n := &v.Nodes[i]
	if n.State == StateDown || n.StartedAt.IsZero() {
		return -1
	}
	return slices.IndexFunc(v.Nodes[:i], func(m Node) bool {
		return m.State != StateDown && m.Role == n.Role && m.SystemID == n.SystemID && m.StartedAt.Equal(n.StartedAt)
	})
}

// judgeNode refuses a node that answers but must not be used.
func (v *View) judgeNode(i int) {
	n := &v.Nodes[i]
	if n.State != StateUp {
		return
	}
	if why := v.refusal(i); why != "" {
		n.State, n.Reason = StateRefused, why
		n.Lag, n.Behind = -1, 0 // positions do not compare
	}
}

// refusal says why node i, which answers, must not be used; "" if it may.
func (v *View) refusal(i int) string {
	n := &v.Nodes[i]
	switch {
	case v.contested && n.SystemID != 0:
		return fmt.Sprintf("the hosts are of different clusters, as many of the one as of the other: its system identifier is %d", n.SystemID)
	case !v.member(n):
		return fmt.Sprintf("belongs to another cluster: its system identifier is %d, not %d", n.SystemID, v.SystemID)
	case v.alias(i) >= 0:
		return fmt.Sprintf("is the same server as %s", v.Nodes[v.alias(i)].Name)
	case n.warned() != "":
		return n.warned()
	case n.split:
		return fmt.Sprintf("one of two primaries on timeline %s", n.Timeline)
	case v.elsewhere(n) != "":
		return v.elsewhere(n)
	case n.Role == RolePrimary && n.Timeline == 0 && v.Timeline != 0:
		return fmt.Sprintf("primary of a timeline not yet known, the cluster is on %s", v.Timeline)
	case n.Role == RolePrimary && n.Timeline < v.Timeline:
		return fmt.Sprintf("primary of timeline %s, the cluster is on %s", n.Timeline, v.Timeline)
	case n.Role == RoleReplica:
		return v.pastFork(n)
	default:
		return v.deposed(n)
	}
}

// elsewhere says that n is on a timeline that has the number of one of the cluster's and began
// at another place; "" if it is not, as far as is known.
func (v *View) elsewhere(n *Node) string {
	own, told := n.told.Begin(n.Timeline)
	theirs, known := v.announced.Begin(n.Timeline)
	if !told || !known || own == theirs {
		return ""
	}
	return fmt.Sprintf("on another timeline %s: it began at %s, and the cluster's at %s", n.Timeline, own, theirs)
}

// pastFork says where a replica left the cluster's history; "" if it did not,
// as far as is known. WAL that was received but not replayed does no harm: the
// node can still turn to the newer timeline.
func (v *View) pastFork(n *Node) string {
	if n.Timeline == 0 || n.Timeline >= v.Timeline {
		return ""
	}
	shown := wal.Position{Timeline: n.Timeline, LSN: min(n.TimelineLSN, n.ReplayLSN)}
	for _, s := range v.History {
		if s.Timeline > n.Timeline && s.Timeline <= v.Timeline && shown.LSN > s.LSN {
			return fmt.Sprintf("replayed past the switch to timeline %s at %s", s.Timeline, s.LSN)
		}
	}
	return ""
}

// choosePrimary sets Primary and LastPrimary, once the nodes are judged.
func (v *View) choosePrimary(prev *View) {
	if v.Split {
		return
	}
	if prev.LastPrimary >= 0 && prev.Timeline == v.Timeline && prev.SystemID == v.SystemID {
		v.LastPrimary = v.Index(prev.Nodes[prev.LastPrimary].Name)
	}
	for i := range v.Nodes {
		n := &v.Nodes[i]
		if n.State != StateUp || n.Role != RolePrimary {
			continue
		}
		v.LastPrimary = i
		if n.ReadOnly {
			n.Reason = "takes no writes: default_transaction_read_only is on"
			continue
		}
		v.Primary = i
	}
}

// chooseSettings takes the settings of the primary, or else of the node that
// answered last.
func (v *View) chooseSettings(prev *View) {
	v.Settings = prev.Settings
	var newest time.Time
	for i := range v.Nodes {
		n := &v.Nodes[i]
		if n.State != StateUp || n.settings == (Settings{}) {
			continue
		}
		if i == v.Primary {
			v.Settings = n.settings
			return
		}
		if !n.SeenAt.Before(newest) {
			newest, v.Settings = n.SeenAt, n.settings
		}
	}
}
