package topology

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/heliosdb/helios/lag"
	"github.com/heliosdb/helios/wal"
)

// sampleEvery is how much time passes at least between two positions taken
// from writes.
const sampleEvery = 5 * time.Millisecond

// positions holds where the primary stood, and when. It is safe for concurrent
// use, and its zero value is ready.
type positions struct {
	next    atomic.Int64 // Unix time in nanoseconds before which sample has nothing to do
	mu      sync.Mutex
	history lag.History // guarded by mu
}

// sample is add for callers in a hurry: it drops the position if the last one
// is recent, or if somebody holds the lock.
func (p *positions) sample(at time.Time, lsn wal.LSN) {
	if lsn == 0 || at.UnixNano() < p.next.Load() || !p.mu.TryLock() {
		return
	}
	defer p.mu.Unlock()
	p.addLocked(at, lsn)
}

// add notes that the primary stood at lsn at the time at or later.
func (p *positions) add(at time.Time, lsn wal.LSN) {
	if lsn == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addLocked(at, lsn)
}

func (p *positions) addLocked(at time.Time, lsn wal.LSN) {
	p.history.Add(at, lsn)
	p.next.Store(at.Add(sampleEvery).UnixNano())
}

// forget forgets all.
func (p *positions) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history = lag.History{}
	p.next.Store(0)
}

// at is lag.History.At.
func (p *positions) at(t time.Time) (wal.LSN, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.history.At(t)
}

// distance returns how far a replica that has replayed up to lsn is from the
// primary: the age of its data at now, -1 if that is not known, and in bytes.
func (p *positions) distance(lsn wal.LSN, now time.Time) (age time.Duration, behind uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	age = -1
	if d, ok := p.history.LagOf(lsn, now); ok {
		age = d
	}
	newest, _ := p.history.Newest()
	return age, lsn.Behind(newest)
}
