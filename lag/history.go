package lag

import (
	"sort"
	"time"

	"github.com/heliosdb/helios/wal"
)

// Capacity is how many positions a [History] remembers. With a sample every
// 10 ms it covers a few seconds finely and the minutes before coarsely.
const Capacity = 512

// A History remembers where the primary stood, and when. The zero History is
// empty and ready to use. It is not safe for concurrent use.
type History struct {
	samples []sample // by time and by position, both growing
}

// A sample says that the primary stood at lsn from first to last, by the
// observer's clock. An idle primary stretches the newest sample.
type sample struct {
	first, last time.Time
	lsn         wal.LSN
}

// Add notes that the primary's position was lsn at the time at or later. For
// an answer that travelled, at is the time the question was sent: whatever was
// acknowledged before that is at or below lsn.
//
// A sample older than the newest one is ignored. A position below the newest
// one means that the newer part of the log was cut off by a failover, or that
// two answers overtook each other; what stands above lsn is then forgotten.
func (h *History) Add(at time.Time, lsn wal.LSN) {
	if n := len(h.samples); n > 0 && at.Before(h.samples[n-1].last) {
		return
	}
	h.cut(lsn)
	if n := len(h.samples); n > 0 && h.samples[n-1].lsn == lsn {
		h.samples[n-1].last = at
		return
	}
	if len(h.samples) == Capacity {
		h.thin()
	}
	h.samples = append(h.samples, sample{first: at, last: at, lsn: lsn})
}

// cut forgets all samples above lsn.
func (h *History) cut(lsn wal.LSN) {
	n := len(h.samples)
	for n > 0 && h.samples[n-1].lsn > lsn {
		n--
	}
	h.samples = h.samples[:n]
}

// thin forgets every second sample of the older half.
func (h *History) thin() {
	half := len(h.samples) / 2
	kept := h.samples[:0]
	for i, s := range h.samples {
		if i >= half || i%2 == 0 {
			kept = append(kept, s)
		}
	}
	h.samples = kept
}

// Newest returns the primary's last known position, and false if there is none.
func (h *History) Newest() (wal.LSN, bool) {
	if len(h.samples) == 0 {
		return 0, false
	}
	return h.samples[len(h.samples)-1].lsn, true
}

// At returns a position at or below which stands everything that was
// acknowledged before t: the lowest one known. It returns false if the primary
// has not been seen at t or later.
func (h *History) At(t time.Time) (wal.LSN, bool) {
	i := sort.Search(len(h.samples), func(i int) bool { return !h.samples[i].last.Before(t) })
	if i == len(h.samples) {
		return 0, false
	}
	return h.samples[i].lsn, true
}

// LagOf returns the age, at now, of the newest data a replica shows that has
// replayed up to lsn: 0 if it has replayed all that is known of the primary,
// else the time since the primary last stood at or below lsn. It returns false
// if nothing is known about the primary, or only positions above lsn: the
// replica is then older than the whole history.
func (h *History) LagOf(lsn wal.LSN, now time.Time) (time.Duration, bool) {
	n := len(h.samples)
	i := sort.Search(n, func(i int) bool { return h.samples[i].lsn > lsn }) - 1
	switch {
	case i < 0:
		return 0, false
	case i == n-1:
		return 0, true
	default:
		return max(0, now.Sub(h.samples[i].last)), true
	}
}
