package agent

import (
	"slices"
	"sync"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// A quorum tells what k of the named standbys have of the WAL on the current
// timeline, and where that WAL ends. It is a *relay.Replicator.
type quorum interface {
	Quorum(k int, names []string) relay.Confirmation
	Position() wal.Position
}

// A gate decides what the local primary is told of its WAL, which is what its
// commits wait for. It is safe for concurrent use.
type gate struct {
	clock    func() time.Duration
	lease    *Lease
	standbys quorum
	settled  func() // called when K of a new set have what was confirmed without them

	confirmed func(waited time.Duration) // called when some WAL was confirmed; nil for nobody

	mu        sync.Mutex
	local     string             // the local server, as the relay names it
	epoch     failover.Epoch     // whose primary the local server is; 0 if it is none
	fenced    failover.Epoch     // the newest epoch that is known
	stops     bool               // the primary is being stopped in order
	given     bool               // set is that of epoch
	set       failover.SyncSet   // by whose flushes it confirms
	changed   wal.LSN            // where the WAL ended when set came into force
	unsettled bool               // K of set did not have everything up to there when that was looked at last
	told      relay.Confirmation // on timeline; it never goes back
	on        wal.Timeline
	waits     mark    // what is waited for to be confirmed, to know how long it takes
	counted   wal.LSN // up to where that is known
}

// A mark is where the WAL ended at some time. One at a time is enough to know how long
// WAL waits.
type mark struct {
	end wal.LSN // 0 if there is none
	at  time.Duration
}

// confirm is Config.Gate of the relay: everything that has arrived, or what K of
// the set have flushed, but nothing new without a lease. Nobody but the local
// primary is told anything: a relay of another node that has come to the primary's
// own walsender would else release the commits that wait there.
func (g *gate) confirm(q relay.Question) relay.Confirmation {
	arrived := g.clock()
	told, settled := g.decide(q)
	if settled {
		g.settled()
	}
	if waited, ok := g.measure(q.Head, told.Flush, arrived); ok && g.confirmed != nil {
		g.confirmed(waited)
	}
	return told
}

// decide is confirm, and reports whether the set has come to be settled.
func (g *gate) decide(q relay.Question) (told relay.Confirmation, settled bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if q.Source != g.local || g.epoch == 0 {
		return relay.Confirmation{}, false
	}
	if q.Timeline != g.on {
		g.on, g.told, g.waits, g.counted = q.Timeline, relay.Confirmation{}, mark{}, 0
	}
	next, may := g.allowsLocked(q)
	if may && g.unsettled && next.Flush >= g.changed {
		g.unsettled, settled = false, true
	}
	// Right before it is told: whatever took long is behind us.
	if !may || !g.lease.Valid(g.clock(), g.epoch) {
		return g.told, settled
	}
	g.told = relay.Confirmation{
		Write: max(g.told.Write, next.Write), Flush: max(g.told.Flush, next.Flush), Apply: max(g.told.Apply, next.Apply),
	}
	return g.told, settled
}

// measure returns how long the WAL that is looked at has waited, if it is confirmed by
// now. What is looked at next is head, which was there at arrived.
func (g *gate) measure(head, confirmed wal.LSN, arrived time.Duration) (waited time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.epoch == 0 {
		g.waits = mark{}
		return 0, false
	}
	if g.waits.end == 0 && head > g.counted {
		g.waits = mark{head, arrived}
	}
	if g.waits.end == 0 || confirmed < g.waits.end {
		return 0, false
	}
	waited, g.counted, g.waits = g.clock()-g.waits.at, confirmed, mark{}
	if head > confirmed {
		g.waits = mark{head, arrived}
	}
	return waited, true
}

// allowsLocked returns what may be confirmed while the lease holds, and false if
// nothing may.
func (g *gate) allowsLocked(q relay.Question) (relay.Confirmation, bool) {
	switch {
	case !g.given, g.fenced > g.epoch && !g.stops:
		return relay.Confirmation{}, false
	case g.set.K <= 0:
		return relay.Confirmation{Write: q.Head, Flush: q.Head, Apply: q.Head}, true
	default:
		c := g.standbys.Quorum(g.set.K, g.set.Members)
		return relay.Confirmation{Write: min(c.Write, q.Head), Flush: min(c.Flush, q.Head), Apply: min(c.Apply, q.Head)}, true
	}
}

// reign says that the local server is the primary of epoch; of 0, that it is none.
func (g *gate) reign(epoch failover.Epoch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch != g.epoch {
		g.epoch, g.given, g.stops = epoch, false, false
	}
	g.fenced = max(g.fenced, epoch)
}

// use makes set the one by whose flushes is confirmed in epoch, and reports
// whether that changes anything.
func (g *gate) use(epoch failover.Epoch, set failover.SyncSet) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if epoch != g.epoch || epoch == 0 || g.given && sameSet(set, g.set) {
		return false
	}
	// What was confirmed until now by the set before has arrived.
	g.unsettled = true
	g.set, g.given, g.changed = failover.SyncSet{Members: slices.Clone(set.Members), K: set.K}, true, g.standbys.Position().LSN
	return true
}

// fence says that there is an epoch: commits of older ones are not confirmed any
// more, but while their primary is being stopped in order.
func (g *gate) fence(epoch failover.Epoch) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fenced = max(g.fenced, epoch)
}

// stopping says whether the primary is being stopped in order: it waits for the
// confirmation of what it still writes, as long as the lease holds.
func (g *gate) stopping(on bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stops = on
}

// reigns returns whose primary the local server is; 0 if it is none.
func (g *gate) reigns() failover.Epoch {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.epoch
}

// at says how the relay names the local server.
func (g *gate) at(local string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.local = local
}

// state is what the leader is told of the gate.
func (g *gate) state() failover.GateState {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.given {
		return failover.GateState{}
	}
	s := failover.GateState{Set: g.set, Changed: g.changed, Settled: true}
	if g.set.K > 0 {
		s.Settled = g.standbys.Quorum(g.set.K, g.set.Members).Flush >= g.changed
	}
	return s
}

func sameSet(a, b failover.SyncSet) bool { return a.K == b.K && slices.Equal(a.Members, b.Members) }
