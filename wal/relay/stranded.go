package relay

import (
	"time"

	"github.com/heliosdb/helios/wal"
)

// What is remembered of subscribers whose WAL is gone.
const (
	strandedFresh = 30 * time.Second // a walreceiver asks again every 5 s
	strandedKept  = time.Hour
)

// A stranded subscriber has asked for WAL that the source has removed.
type stranded struct {
	at          wal.LSN
	first, last time.Time // when it asked
}

// strand notes that there is no WAL from at on for a subscriber.
func (r *Relay) strand(name string, at wal.LSN) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stranded == nil {
		r.stranded = map[string]stranded{}
	}
	for other, s := range r.stranded {
		if now.Sub(s.last) > strandedKept {
			delete(r.stranded, other)
		}
	}
	s := r.stranded[name]
	if s.at != at || now.Sub(s.last) > strandedFresh {
		s = stranded{at: at, first: now}
	}
	s.last = now
	r.stranded[name] = s
}

// Stranded returns from where on a subscriber asks for WAL that the source has
// removed, and for how long it has done so. Both are 0 for one that has not asked in
// vain of late. It is safe for concurrent use.
func (r *Relay) Stranded(name string) (at wal.LSN, long time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.stranded[name]
	if !ok || time.Since(s.last) > strandedFresh {
		return 0, 0
	}
	return s.at, s.last.Sub(s.first)
}
