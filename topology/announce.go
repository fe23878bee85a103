package topology

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/heliosdb/helios/wal"
)

// This file is the decision what a bulletin adds to a view. It is trusted with
// who reigns and with positions, not with who can be reached: that a node is up
// from here is for our own probes to say.

// Phases and states of a [Bulletin] that mean something to a view.
const (
	phaseFenced   = "fenced"
	phaseElected  = "elected"
	phaseReady    = "ready"
	statePastFork = "diverged"
	rolePrimary   = "primary"
	roleReplica   = "replica"
)

// An Announcement is what companions say of a cluster as a whole.
type Announcement struct {
	SystemID uint64       // of the cluster they speak of; 0 if they do not know
	Epoch    uint64       // the highest heard of; like Timeline it stays when no companion is heard any more
	Timeline wal.Timeline // of the last primary that they know of
	Heard    bool         // a companion is being heard; nothing below is set otherwise
	Ready    bool         // there is a primary that takes writes
	Hold     bool         // writes that have not begun wait: there is no primary, or another one soon
	Primary  string       // Name of the node that reigns; "" if there is none, or it is none of the view's
	Stranger string       // address of the primary if it is none of the view's; else ""
}

// unheard returns what stays of a once no companion is heard.
func (a Announcement) unheard() Announcement {
	return Announcement{SystemID: a.SystemID, Epoch: a.Epoch, Timeline: a.Timeline}
}

// of returns a for a cluster of that identifier: nothing, if it speaks of
// another one.
func (a Announcement) of(systemID uint64) Announcement {
	if foreign(a.SystemID, systemID) {
		return Announcement{}
	}
	return a
}

// foreign reports whether two system identifiers are surely of different
// clusters.
func foreign(a, b uint64) bool { return a != 0 && b != 0 && a != b }

// announce returns the view that follows prev once b is known, which arrived at
// at. It returns prev itself if b is of another cluster, or of an epoch that
// has ended.
func announce(prev *View, b *Bulletin, at time.Time) *View {
	if b.Epoch < prev.Told.Epoch || foreign(b.SystemID, prev.SystemID) {
		return prev
	}
	who := Match(prev, b)
	from := *prev
	from.Told = Announcement{
		SystemID: b.SystemID, Epoch: b.Epoch, Timeline: max(b.Timeline, prev.Told.Timeline), Heard: true,
		Hold: b.Hold || b.Phase == phaseFenced || b.Phase == phaseElected, Ready: b.Phase == phaseReady,
	}
	nodes := slices.Clone(prev.Nodes)
	if b.SystemID == prev.SystemID && b.SystemID != 0 {
		if prev.abandoned(b, who) {
			from.abandon(b.Timeline, nodes)
		}
		if !from.rose.Heard { // the first since then
			from.rose = from.Told
		}
		if b.Timeline > from.Timeline {
			from.Timeline, from.rose = b.Timeline, from.Told
		}
		for _, begun := range b.History {
			from.announced, from.History = from.announced.With(begun), from.History.With(begun)
		}
	}
	for i := range b.Nodes {
		r, reigns := &b.Nodes[i], b.Phase == phaseReady && b.Primary != "" && b.Nodes[i].Name == b.Primary
		switch {
		case who[i] >= 0:
			nodes[who[i]].hearTold(&from, b, r, reigns, at)
			if reigns {
				from.Told.Primary = nodes[who[i]].Name
				begun, _ := from.History.Begin(nodes[who[i]].Timeline)
				proveDivergence(prev, nodes, &Observation{Node: from.Told.Primary, SwitchLSN: begun})
			}
		case reigns:
			from.Told.Stranger = cmp.Or(r.Addr, r.Name)
		}
	}
	return judge(&from, nodes)
}

// abandoned reports whether nobody will go on with Timeline, which is newer than the one
// that b says the cluster is on: a promotion came to nothing, as when all machines were without
// power in the middle of it. No node may be seen on such a timeline; and b has to be surely of
// a later time than that when it was seen, and not from a companion that knows nothing newer: it is of
// a later epoch than what was heard then, or first after that; or it knows of each of those who
// were there that they have been started again since, as replicas of the primary that it names.
func (v *View) abandoned(b *Bulletin, who []int) bool {
	if b.Phase != phaseReady || b.Timeline == 0 || b.Timeline >= v.Timeline || b.Timeline < v.Told.Timeline {
		return false
	}
	later := v.rose.Heard && (b.Epoch > v.rose.Epoch || b.Epoch == v.rose.Epoch && !v.rose.Ready)
	for j := range v.Nodes {
		n := &v.Nodes[j]
		switch i := slices.Index(who, j); {
		case n.highest <= b.Timeline, !v.member(n):
		case n.Timeline > b.Timeline && (n.State == StateUp || n.State == StateRefused):
			return false
		case !later && (i < 0 || !n.isBack(&b.Nodes[i], b.Timeline)):
			return false
		}
	}
	return true
}

// isBack reports whether a companion knows of a start of the server since n was last on its
// highest timeline, and that it is a replica on t, or before that, since.
func (n *Node) isBack(r *Reported, t wal.Timeline) bool {
	return n.isRun(r.StartedAt) && !n.isRun(n.highestIn) && r.Role == roleReplica && r.Timeline != 0 && r.Timeline <= t
}

// abandon makes t the timeline of the cluster, and puts aside what is known of newer ones.
func (v *View) abandon(t wal.Timeline, nodes []Node) {
	newer := func(s wal.Switch) bool { return s.Timeline > t }
	for given := t + 1; given <= v.Timeline; given++ {
		begun, _ := v.History.Begin(given)
		v.Abandoned = v.Abandoned.With(wal.Switch{Timeline: given, LSN: begun})
	}
	v.Timeline = t
	v.History, v.announced = slices.DeleteFunc(slices.Clone(v.History), newer), slices.DeleteFunc(slices.Clone(v.announced), newer)
	for i := range nodes {
		n := &nodes[i]
		if !v.member(n) {
			continue
		}
		n.told, n.highest = slices.DeleteFunc(slices.Clone(n.told), newer), min(n.highest, t)
		if n.Timeline > t {
			n.Timeline, n.TimelineLSN = 0, 0
		}
	}
}

// silence returns the view that follows prev once no companion is heard.
func silence(prev *View) *View {
	if !prev.Told.Heard {
		return prev
	}
	from := *prev
	from.Told = prev.Told.unheard()
	return judge(&from, slices.Clone(prev.Nodes))
}

// Match returns, for each of b.Nodes, the index in v.Nodes of the same server;
// -1 if there is none. Servers are the same if they have one address or, since
// a server has many names, one system identifier and one start of the
// postmaster.
func Match(v *View, b *Bulletin) []int {
	who := make([]int, len(b.Nodes))
	taken := make([]bool, len(v.Nodes))
	for i := range b.Nodes {
		who[i] = v.Index(b.Nodes[i].Addr)
		if who[i] >= 0 {
			taken[who[i]] = true
		}
	}
	for i := range b.Nodes {
		for j := range v.Nodes {
			if who[i] < 0 && !taken[j] && !foreign(v.Nodes[j].SystemID, b.SystemID) && v.Nodes[j].isRun(b.Nodes[i].StartedAt) {
				who[i], taken[j] = j, true
			}
		}
	}
	return who
}

// isRun reports whether the server that n was last seen as was started then.
func (n *Node) isRun(startedAt time.Time) bool {
	return !startedAt.IsZero() && n.StartedAt.Equal(startedAt)
}

// SameServer reports whether n and o are names of one server, as far as both were
// seen: it has one system identifier and one start of its postmaster.
func (n *Node) SameServer(o *Node) bool { return n.SystemID == o.SystemID && n.isRun(o.StartedAt) }

// hearTold takes over what a companion says of the node. Positions, roles and
// timelines count only for the very run of the server that a probe has seen, and
// only forwards: within a run none of them goes back, so that it does not matter
// how long the news were under way. What was heard of a promotion is not
// unsaid by a probe that was sent before.
func (n *Node) hearTold(v *View, b *Bulletin, r *Reported, reigns bool, at time.Time) {
	n.warning, n.warnedOf = "", r.StartedAt
	if r.State == statePastFork {
		n.warning = cmp.Or(r.Reason, "its companion says that it stands past the fork")
	}
	if !n.isRun(r.StartedAt) || n.State != StateUp && n.State != StateRefused {
		return
	}
	switch {
	case r.Role == rolePrimary && reigns && n.Role == RoleReplica:
		n.promote(b, r, at)
	case r.Role == rolePrimary && n.Role == RolePrimary && r.Timeline == n.Timeline:
		n.CurrentLSN = max(n.CurrentLSN, r.CurrentLSN)
		n.ReplayLSN, n.TimelineLSN = n.CurrentLSN, n.CurrentLSN
	case r.Role == roleReplica && n.Role == RoleReplica:
		n.follow(v, r, at)
	}
}

// promote makes a replica the primary that b says it is. Each epoch does so
// once: should a probe find that it is none, the probe is right.
func (n *Node) promote(b *Bulletin, r *Reported, at time.Time) {
	timeline := cmp.Or(r.Timeline, b.Timeline)
	if b.Epoch <= n.reign || timeline <= n.Timeline {
		return
	}
	n.hearPosition(&Observation{At: at, Role: RolePrimary, Timeline: timeline, CurrentLSN: r.CurrentLSN})
	n.Role, n.ReadOnly, n.Reason = RolePrimary, false, ""
	n.reign, n.doubted = b.Epoch, at
}

// follow takes over how far a replica is. One that has replayed what a newer
// timeline left behind cannot have turned to it without a restart, whatever is
// said.
func (n *Node) follow(v *View, r *Reported, at time.Time) {
	shown := wal.Position{Timeline: n.Timeline, LSN: min(n.TimelineLSN, n.ReplayLSN)}
	if r.Timeline == 0 || r.Timeline < n.Timeline || v.History.Holds(shown, r.Timeline) == wal.Lost {
		return
	}
	if r.ReplayLSN > n.ReplayLSN {
		n.ReplayLSN, n.replayedAt = r.ReplayLSN, at
	}
	n.ReceiveLSN = max(n.ReceiveLSN, r.ReceiveLSN, n.ReplayLSN)
	if r.Timeline > n.Timeline {
		n.Timeline, n.TimelineLSN = r.Timeline, r.ReplayLSN
	}
	n.TimelineLSN = max(n.TimelineLSN, r.ReplayLSN)
	if r.Lag >= 0 {
		n.Lag, n.Behind = r.Lag, r.Behind
	}
}

// warned returns why companions say that n must not be used; "" if they do not,
// or if it was restarted since.
func (n *Node) warned() string {
	if !n.StartedAt.IsZero() && !n.warnedOf.IsZero() && !n.isRun(n.warnedOf) {
		return ""
	}
	return n.warning
}

// deposed says that n takes itself for a primary and that companions know
// another one; "" if not. On a timeline that they do not know of yet it is they
// who are late.
func (v *View) deposed(n *Node) string {
	if n.Role != RolePrimary || v.Told.Primary == "" || v.Told.Primary == n.Name || n.Timeline > v.Told.Timeline {
		return ""
	}
	return fmt.Sprintf("not the primary of epoch %d: that is %s", v.Told.Epoch, v.Told.Primary)
}
