package topology

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heliosdb/helios/wal"
)

// A Board holds the newest view of a cluster. Sources put what they observe on
// it, readers look at it without waiting. It is safe for concurrent use.
//
// Every accepted observation is published as a new view, so that positions and
// lag are current. A change that matters is one of a node's role, state,
// timeline or membership, of the primary, or of the settings: only such a
// change closes the channel of [Board.Changed] and is told to the functions
// given to [Board.OnChange], so that those who wait do not wake up with every
// probe.
//
// Until the view is Settled, the cluster is what those say that have answered:
// a wrong host that answers first is believed until the others outnumber it.
type Board struct {
	edition atomic.Pointer[edition]
	primary positions

	mu         sync.Mutex // guards what follows, and the writing of edition
	pending    []change   // changes that matter and were not told yet, oldest first
	delivering bool       // somebody is telling them
	bulletin   *Bulletin  // the newest; nil while no companion is heard
	bulletinAt time.Time  // when it arrived

	onChange []func(before, after *View) // complete before the board is used
}

// An edition is a view together with the channel its waiters wait on.
type edition struct {
	view    *View
	changed chan struct{} // closed by the next change that matters
}

// A change is one step from a view to a next one that differs in what matters.
type change struct{ before, after *View }

// NewBoard returns a board on which nothing is known about the nodes but their
// Name, Zone and Weight; a Weight of 0 becomes 1. Of nodes with the same name
// only the first counts.
func NewBoard(nodes ...Node) *Board {
	v := &View{Version: 1, Primary: -1, LastPrimary: -1}
	for _, n := range nodes {
		if v.Index(n.Name) < 0 {
			v.Nodes = append(v.Nodes, fresh(n))
		}
	}
	b := &Board{}
	b.edition.Store(&edition{view: v, changed: make(chan struct{})})
	return b
}

// fresh returns a node of which only the declared fields are known.
func fresh(n Node) Node {
	return Node{Name: n.Name, Zone: n.Zone, Weight: max(n.Weight, 1), Lag: -1}
}

// Peek returns the newest view. It is what the query path calls: it neither
// locks nor allocates.
func (b *Board) Peek() *View { return b.edition.Load().view }

// Changed returns a channel that is closed when the newest view is replaced by
// one that differs in what matters. Take it before Peek, or use Watch: a change
// between a Peek and a later Changed would go unnoticed.
func (b *Board) Changed() <-chan struct{} { return b.edition.Load().changed }

// Watch returns the newest view, and a channel that is closed when what matters
// in it has changed.
func (b *Board) Watch() (*View, <-chan struct{}) {
	e := b.edition.Load()
	return e.view, e.changed
}

// OnChange has f called for every change that matters, one call at a time, in
// the order of versions; after.Version-before.Version is greater than one if views
// in between differed in nothing that matters. The call comes from the goroutine
// of whoever brought the evidence, without any lock held: f may use the board,
// but should return soon. Register every f before the board is used.
func (b *Board) OnChange(f func(before, after *View)) { b.onChange = append(b.onChange, f) }

// Observe merges o and returns the newest view. An observation about a node
// that is not on the board, or older than what is known of the node, changes
// nothing.
func (b *Board) Observe(o Observation) *View {
	return b.publish(func(prev *View) *View {
		next := reduce(prev, &o)
		if next.SystemID != prev.SystemID {
			b.primary.forget() // positions of another cluster
		}
		if next != prev && o.Err == nil {
			b.measure(next, &o)
		}
		return b.rereadLocked(prev, next)
	})
}

// Announce merges what a companion tells, which arrived at at, and returns the
// newest view. A bulletin of another cluster, or of an epoch that has ended,
// changes nothing. What it says of a server that no probe has seen yet counts
// once a probe has. A timeline that was seen stays the cluster's, even if all its nodes
// are gone; but a bulletin that is surely later may say that the cluster goes on with an older one:
// then a promotion came to nothing. The board keeps bulletin, which must not change any more.
func (b *Board) Announce(bulletin *Bulletin, at time.Time) *View {
	return b.publish(func(prev *View) *View {
		next := announce(prev, bulletin, at)
		if next != prev {
			b.bulletin, b.bulletinAt = bulletin, at
		}
		if next.Timeline < prev.Timeline {
			b.primary.forget() // positions on a timeline that nobody goes on with
		}
		return next
	})
}

// Unheard takes note that no companion is heard any more: what they held is
// released, and what probes say counts alone. It returns the newest view.
func (b *Board) Unheard() *View {
	return b.publish(func(prev *View) *View {
		b.bulletin = nil
		return silence(prev)
	})
}

// rereadLocked looks at the newest bulletin again where an observation has
// changed what it can be about. Nobody has seen next yet.
func (b *Board) rereadLocked(prev, next *View) *View {
	if b.bulletin == nil || next == prev || sameInWhatMatters(prev, next) {
		return next
	}
	again := announce(next, b.bulletin, b.bulletinAt)
	again.Version = next.Version
	return again
}

// measure feeds the primary's position to the history, or measures a replica
// against it. Nobody has seen v yet.
func (b *Board) measure(v *View, o *Observation) {
	i := v.Index(o.Node)
	n := &v.Nodes[i]
	switch {
	case i == v.Primary:
		b.primary.add(o.At.Add(-o.RTT), n.CurrentLSN)
		for j := range v.Nodes { // those that were heard before the first position
			r := &v.Nodes[j]
			if r.Role == RoleReplica && r.State == StateUp && r.Lag < 0 {
				r.Lag, r.Behind = b.primary.distance(r.ReplayLSN, o.At)
			}
		}
	case n.Role == RoleReplica && n.State == StateUp:
		n.Lag, n.Behind = b.primary.distance(n.ReplayLSN, o.At)
	}
}

// Doubt takes note of evidence from a statement: the node refused a write as a
// read-only server does (SQLSTATE 25006), or the connection to it broke. A
// primary that refused a write is of unknown role from then on, a node whose
// connection broke is down; both until an observation is made that was asked
// for later. Doubt returns the newest view.
func (b *Board) Doubt(node string, err error) *View {
	now := time.Now()
	return b.publish(func(prev *View) *View { return doubt(prev, node, err, now) })
}

// Add declares one more node while the board is in use; of n only Name, Zone
// and Weight count.
func (b *Board) Add(n Node) error {
	if n.Name == "" {
		return errors.New("topology: a node needs a name")
	}
	var err error
	b.publish(func(prev *View) *View {
		if prev.Index(n.Name) >= 0 {
			err = fmt.Errorf("topology: node %s is declared already", n.Name)
			return prev
		}
		return judge(prev, append(slices.Clone(prev.Nodes), fresh(n)))
	})
	return err
}

// Remove takes a node off the board: it is gone from the next view, and with it
// its claim to be the primary.
func (b *Board) Remove(name string) error {
	var err error
	b.publish(func(prev *View) *View {
		i := prev.Index(name)
		if i < 0 {
			err = fmt.Errorf("topology: there is no node %s", name)
			return prev
		}
		return judge(prev, slices.Delete(slices.Clone(prev.Nodes), i, i+1))
	})
	return err
}

// SamplePrimary tells the board that the primary had written up to lsn at some
// moment after at, on the observer's clock: at is when the statement that
// brought lsn was sent. It is cheap enough to be called for every write: it
// keeps a sample every few milliseconds and drops the others.
func (b *Board) SamplePrimary(at time.Time, lsn wal.LSN) { b.primary.sample(at, lsn) }

// PrimaryAt returns the lowest known position at or below which stands all that
// was acknowledged before t: a replica that has replayed it shows data at least
// as fresh as t. It returns false if the primary has not been heard of since t.
func (b *Board) PrimaryAt(t time.Time) (wal.LSN, bool) { return b.primary.at(t) }

// publish replaces the newest view by what next makes of it, unless that is the
// same view, tells whom it concerns, and returns the newest view.
func (b *Board) publish(next func(*View) *View) *View {
	b.mu.Lock()
	e := b.edition.Load()
	v := next(e.view)
	if v == e.view {
		b.mu.Unlock()
		return v
	}
	if sameInWhatMatters(e.view, v) {
		b.edition.Store(&edition{view: v, changed: e.changed})
		b.mu.Unlock()
		return v
	}
	b.edition.Store(&edition{view: v, changed: make(chan struct{})})
	close(e.changed)
	b.pending = append(b.pending, change{e.view, v})
	b.deliverAndUnlock()
	return v
}

// deliverAndUnlock tells pending changes until there are none. If somebody is
// at it already, in another goroutine or further up in this one's stack, the
// work is left to them: so calls neither overlap nor change their order.
func (b *Board) deliverAndUnlock() {
	defer b.mu.Unlock()
	if b.delivering {
		return
	}
	b.delivering = true
	defer func() { b.delivering = false }()
	for len(b.pending) > 0 {
		c := b.pending[0]
		b.pending = b.pending[1:]
		b.tell(c)
	}
}

// tell calls the registered functions without the lock, which the caller holds.
func (b *Board) tell(c change) {
	b.mu.Unlock()
	defer b.mu.Lock()
	for _, f := range b.onChange {
		f(c.before, c.after)
	}
}

// sameInWhatMatters reports whether two views differ in nothing but positions,
// times and the wording of a failure.
func sameInWhatMatters(a, b *View) bool {
	return a.SystemID == b.SystemID && a.Timeline == b.Timeline &&
		a.Settings == b.Settings && a.Primary == b.Primary && a.LastPrimary == b.LastPrimary &&
		a.Split == b.Split && a.Settled == b.Settled && a.Told == b.Told &&
		slices.Equal(a.History, b.History) && slices.Equal(a.Abandoned, b.Abandoned) && slices.EqualFunc(a.Nodes, b.Nodes, sameNode)
}

// sameNode is sameInWhatMatters for one node. Every failed probe may word its
// reason differently, so the reason of a node that stays down does not matter.
func sameNode(a, b Node) bool {
	return a.Name == b.Name && a.Zone == b.Zone && a.Weight == b.Weight &&
		a.Role == b.Role && a.State == b.State && (a.Reason == b.Reason || a.State == StateDown) &&
		a.SystemID == b.SystemID && a.Timeline == b.Timeline && a.ReadOnly == b.ReadOnly &&
		a.Version == b.Version && a.StartedAt.Equal(b.StartedAt)
}
