package wal

import (
	"cmp"
	"fmt"
	"strconv"
)

// Timeline is PostgreSQL's timeline id: it grows by one or more at every
// promotion. The zero Timeline means "not known".
type Timeline uint32

// String returns the decimal form, as PostgreSQL prints it in messages.
func (t Timeline) String() string { return strconv.FormatUint(uint64(t), 10) }

// A Position is a place in the history of a cluster: an LSN means something
// only together with the timeline it was written on.
type Position struct {
	Timeline Timeline `json:"timeline"`
	LSN      LSN      `json:"lsn"`
}

// Compare returns -1, 0 or 1 as p is before q, the same, or behind it: by
// timeline first. It does not say whether one lies in the other's past.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Timeline, q.Timeline), cmp.Compare(p.LSN, q.LSN))
}

// String returns the position as timeline:LSN, such as 3:16/B374D848.
func (p Position) String() string { return fmt.Sprintf("%s:%s", p.Timeline, p.LSN) }

// A Switch says where a timeline began: Timeline branched off its predecessor
// at LSN, and whatever the predecessor wrote after LSN is not part of it.
type Switch struct {
	Timeline Timeline `json:"timeline"`
	LSN      LSN      `json:"lsn"`
}

// A History holds the known beginnings of timelines, oldest first. Histories
// are immutable: With returns a new one.
type History []Switch

// Verdict is what a History knows about a position of an older timeline.
type Verdict uint8

const (
	// Kept means the position is part of the newer timeline's past.
	Kept Verdict = iota
	// Lost means the newer timeline branched off before the position: what was
	// written there is gone.
	Lost
	// Undecided means a beginning in between is not known.
	Undecided
)

// With returns the history with s added, or h itself if it knows s already.
// A later answer about the same timeline replaces the earlier one.
func (h History) With(s Switch) History {
	i := 0
	for i < len(h) && h[i].Timeline < s.Timeline {
		i++
	}
	if i < len(h) && h[i] == s {
		return h
	}
	grown := make(History, 0, len(h)+1)
	grown = append(append(grown, h[:i]...), s)
	if i < len(h) && h[i].Timeline == s.Timeline {
		i++
	}
	return append(grown, h[i:]...)
}

// Holds says whether what was written at p is part of timeline now. A position
// holds iff it stands at or before every switch point between its timeline and
// now. PostgreSQL numbers timelines in steps of one unless an archive already
// holds a later history file, so a missing number leaves the answer undecided
// only if no known switch point has lost the position.
func (h History) Holds(p Position, now Timeline) Verdict {
	if p.Timeline >= now {
		return Kept
	}
	known := 0
	for _, s := range h {
		if s.Timeline <= p.Timeline || s.Timeline > now {
			continue
		}
		if p.LSN > s.LSN {
			return Lost
		}
		known++
	}
	if known == int(now-p.Timeline) {
		return Kept
	}
	// The last switch point alone proves a loss, but not that nothing was lost
	// on a timeline in between that nobody has described.
	return Undecided
}

// Merge returns h with all of other added. Where both know a beginning of the
// same timeline and disagree, the lower one counts: what is not in both pasts
// is not surely kept.
func (h History) Merge(other History) History {
	for _, s := range other {
		if at, ok := h.Begin(s.Timeline); ok && at <= s.LSN {
			continue
		}
		h = h.With(s)
	}
	return h
}

// Begin returns where timeline t began, and false if that is not known.
func (h History) Begin(t Timeline) (LSN, bool) {
	for _, s := range h {
		if s.Timeline == t {
			return s.LSN, true
		}
	}
	return 0, false
}

// Ancestor reports whether what t wrote, up to some position, is in the past of
// timeline now. h has to be whole, as a history file is: of a timeline that it
// does not tell of, t is an ancestor only if it is older than all it tells of.
func (h History) Ancestor(t, now Timeline) bool {
	if t >= now || len(h) == 0 {
		return t == now
	}
	_, began := h.Begin(t)
	return began || t < h[0].Timeline
}

// HistoryFile returns the name of the timeline's history file, such as
// 00000003.history. Timeline 1 has none.
func (t Timeline) HistoryFile() string { return fmt.Sprintf("%08X.history", uint32(t)) }
