package router

import (
	"sync/atomic"
	"time"

	"github.com/heliosdb/helios/wal"
)

// SlowStart is how long a node that came back is spared: its chance to be chosen
// grows from 10 to 100 % while its caches fill.
const SlowStart = 30 * time.Second

// Backend is the live load of one node. It lives as long as the node is part of
// the cluster, outlives every view, and is shared by all sessions: everything
// but the fields that New gave is atomic. It must not be copied.
type Backend struct {
	Name   string // as in the topology; fixed
	Zone   string // "" is no zone; fixed
	Weight int    // share of the reads in proportion to the others'; less than 1 means 1; fixed

	_ [64]byte // from here on it changes with every statement

	inflight atomic.Int64
	latency  atomic.Int64 // moving average in ns; 0: not measured

	_ [64]byte // from here on it changes now and then

	replay  atomic.Uint64 // wal.LSN
	lag     atomic.Int64  // ns + 1; 0: not known
	since   atomic.Int64  // coarse clock when the node came back; 0: long ago
	holdOff atomic.Int64  // coarse clock until which the node wants no more
	blocked atomic.Bool

	_ [64]byte
}

// Begin notes that one more statement is under way.
func (b *Backend) Begin() { b.inflight.Add(1) }

// End notes that a statement is over. Its latency goes into the average; 0 or
// less means that it was not measured.
func (b *Backend) End(latency time.Duration) {
	b.inflight.Add(-1)
	if latency <= 0 {
		return
	}
	old := b.latency.Load()
	next := int64(latency)
	if old != 0 {
		next = old + (next-old)/5 // the average moves by a fifth
	}
	// A measurement that loses a race is missed by nobody.
	b.latency.CompareAndSwap(old, max(next, 1))
}

// Inflight returns how many statements are under way.
func (b *Backend) Inflight() int { return int(b.inflight.Load()) }

// Latency returns the moving average; 0 if nothing was measured yet. It fades
// while the node is passed over for being slow, so that it is tried again.
func (b *Backend) Latency() time.Duration { return time.Duration(b.latency.Load()) }

// forgive lets the average fade by 1/128.
func (b *Backend) forgive() {
	if old := b.latency.Load(); old >= 128 {
		b.latency.CompareAndSwap(old, old-old/128)
	}
}

// SawReplay notes a position that every later query on the node sees. Positions
// only grow: an older one changes nothing.
func (b *Backend) SawReplay(lsn wal.LSN) {
	for {
		old := b.replay.Load()
		if uint64(lsn) <= old || b.replay.CompareAndSwap(old, uint64(lsn)) {
			return
		}
	}
}

// ResetReplay starts anew at lsn, when the node has changed its timeline or was
// made again: what was known may be larger and mean nothing.
func (b *Backend) ResetReplay(lsn wal.LSN) { b.replay.Store(uint64(lsn)) }

// Replay returns the highest position that is known to be seen by every query
// on the node; 0 if none is known.
func (b *Backend) Replay() wal.LSN { return wal.LSN(b.replay.Load()) }

// SetLag notes how far behind the primary the node is; a negative d means that
// it is not known.
func (b *Backend) SetLag(d time.Duration) { b.lag.Store(max(int64(d)+1, 0)) }

// Lag returns how far behind the primary the node was when last looked at, and
// whether that is known.
func (b *Backend) Lag() (time.Duration, bool) {
	v := b.lag.Load()
	return time.Duration(v - 1), v != 0
}

// SetBlocked keeps reads away from the node, or lets them come again: it is
// where the breaker's state arrives.
func (b *Backend) SetBlocked(blocked bool) { b.blocked.Store(blocked) }

// Blocked reports whether reads are kept away.
func (b *Backend) Blocked() bool { return b.blocked.Load() }

// HoldOff keeps reads away until the coarse clock shows until, in ns: the node
// answers but wants no more for now, such as with 53300.
func (b *Backend) HoldOff(until int64) { b.holdOff.Store(until) }

// Rejoined begins the slow start at now, in ns of the coarse clock. What was
// measured before is forgotten.
func (b *Backend) Rejoined(now int64) {
	b.latency.Store(0)
	b.since.Store(now)
}

// weight returns the weight as it counts.
func (b *Backend) weight() int { return max(b.Weight, 1) }

// away reports whether reads are kept away at now.
func (b *Backend) away(now int64) bool {
	return b.blocked.Load() || b.holdOff.Load() > now && now != 0
}

// suits reports whether a read with this need finds on the node what it wants.
func (b *Backend) suits(need *Need) bool {
	if need.Replayed != 0 && b.Replay() < need.Replayed {
		return false
	}
	if need.MaxLag <= 0 {
		return true
	}
	lag, known := b.Lag()
	return !known || lag <= need.MaxLag
}

// rampScale is a full chance; a node that has just come back has a tenth.
const rampScale = 1024

// ramp returns the chance of the node to take part at now, out of rampScale.
func (b *Backend) ramp(now int64) uint64 {
	since := b.since.Load()
	if since == 0 || now == 0 || now-since >= int64(SlowStart) {
		return rampScale
	}
	part := uint64(max(now-since, 0)) * rampScale / uint64(SlowStart)
	return rampScale/10 + part*9/10
}
