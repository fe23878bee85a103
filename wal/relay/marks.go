package relay

import (
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/heliosdb/helios/wal"
)

const (
	// markEvery is the resolution in which arrival is remembered.
	markEvery = time.Millisecond
	// markCount arrivals are remembered: 8 seconds of steady writing. A
	// subscriber that is further behind is behind by that much at least.
	markCount = 8192
)

// marks remember when WAL arrived, so that a position has an age. It is safe for
// concurrent use.
type marks struct {
	mu    sync.Mutex
	ring  []mark // grows to markCount, then wraps
	first int    // index of the oldest once it has wrapped
}

// A mark says that everything up to at had arrived at that time, and nothing
// behind it.
type mark struct {
	at   wal.LSN
	when time.Time
}

// arrived notes that WAL up to at is there.
func (m *marks) arrived(at wal.LSN, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.ring)
	if n > 0 {
		// Within a millisecond of the last mark it takes in the new bytes: what
		// they are older by is below the resolution.
		last := &m.ring[(m.first+n-1)%n]
		if now.Sub(last.when) < markEvery {
			last.at = at
			return
		}
	}
	if n < markCount {
		m.ring = append(m.ring, mark{at, now})
		return
	}
	m.ring[m.first] = mark{at, now}
	m.first = (m.first + 1) % n
}

// age returns how long ago the first byte behind at arrived; 0 if none has.
func (m *marks) age(at wal.LSN, now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.ring)
	i := sort.Search(n, func(i int) bool { return m.ring[(m.first+i)%n].at > at })
	if i == n {
		return 0
	}
	return max(0, now.Sub(m.ring[(m.first+i)%n].when))
}

// truncate notes that the WAL behind at was taken back.
func (m *marks) truncate(at wal.LSN) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ring = append(slices.Clone(m.ring[m.first:]), m.ring[:m.first]...)
	m.first = 0
	for n := len(m.ring); n > 0 && m.ring[n-1].at > at; n = len(m.ring) {
		if n == 1 || m.ring[n-2].at < at {
			m.ring[n-1].at = at // the bytes before at came with it
			break
		}
		m.ring = m.ring[:n-1]
	}
}

// forget drops everything: positions have begun anew.
func (m *marks) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ring, m.first = nil, 0
}
