package histcheck

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// An Outcome is what a client was told about a write.
type Outcome uint8

const (
	// Pending means that the client was told nothing: it counts as Unknown.
	Pending Outcome = iota
	// Acknowledged means success.
	Acknowledged
	// Refused means an error that says that nothing was written.
	Refused
	// Unknown means that nobody can tell.
	Unknown
)

// A Ledger holds the attempts of any number of clients, each with an id of its
// own. It is safe for concurrent use.
type Ledger struct {
	mu       sync.Mutex
	attempts map[int64]*attempt // guarded by mu
	acks     []time.Time        // guarded by mu; in order
	next     int64              // guarded by mu
}

type attempt struct {
	outcome    Outcome
	began, end time.Time
	reign      uint64
}

// NewLedger returns an empty one.
func NewLedger() *Ledger { return &Ledger{attempts: make(map[int64]*attempt)} }

// Begin takes down that a write is tried, and returns its id.
func (l *Ledger) Begin() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	l.attempts[l.next] = &attempt{began: time.Now()}
	return l.next
}

// End takes down what the client was told. The reign is under which primary it
// was, such as a timeline that the row says itself; 0 if that is not known.
func (l *Ledger) End(id int64, o Outcome, reign uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.attempts[id]
	a.outcome, a.end, a.reign = o, time.Now(), reign
	if o == Acknowledged {
		l.acks = append(l.acks, a.end)
	}
}

// Acks returns how many writes were acknowledged.
func (l *Ledger) Acks() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acks)
}

// Gap returns the longest time without an acknowledgement that overlaps the time
// since from.
func (l *Ledger) Gap(from time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	var longest time.Duration
	for i := 1; i < len(l.acks); i++ {
		if l.acks[i].After(from) {
			longest = max(longest, l.acks[i].Sub(l.acks[i-1]))
		}
	}
	return longest
}

// Reign returns when the first and the last write were acknowledged under one; zero
// if none was.
func (l *Ledger) Reign(reign uint64) (first, last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.attempts {
		if a.outcome != Acknowledged || a.reign != reign {
			continue
		}
		if first.IsZero() || a.end.Before(first) {
			first = a.end
		}
		if a.end.After(last) {
			last = a.end
		}
	}
	return first, last
}

// Answer returns when the client was told about a write, and of which reign.
func (l *Ledger) Answer(id int64) (at time.Time, reign uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.attempts[id]
	return a.end, a.reign
}

// Since counts what was acknowledged at t or later.
func (l *Ledger) Since(t time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, _ := slices.BinarySearchFunc(l.acks, t, time.Time.Compare)
	return len(l.acks) - first
}

// A Verdict is what is wrong with what is in the database.
type Verdict struct {
	Attempted, Acknowledged, Refused, Unknown, Final int

	Lost      []int64 // acknowledged, and not there
	Recovered int     // unknown, and there: allowed
	Doubled   []int64 // there more than once
	Invented  []int64 // there, and never tried
	Denied    []int64 // there, though the client was told that they were not written
	// Dual are writes that were acknowledged under an older reign after the first one
	// under a newer: two primaries at a time.
	Dual []int64
}

// Judge compares the ledger with the ids that are in the database.
func (l *Ledger) Judge(final []int64) Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := Verdict{Attempted: len(l.attempts), Final: len(final)}
	count := make(map[int64]int, len(final))
	for _, id := range final {
		count[id]++
	}
	for id, n := range count {
		a := l.attempts[id]
		switch {
		case a == nil:
			v.Invented = append(v.Invented, id)
		case a.outcome == Refused:
			v.Denied = append(v.Denied, id)
		case a.outcome != Acknowledged:
			v.Recovered++
		}
		if n > 1 {
			v.Doubled = append(v.Doubled, id)
		}
	}
	for id, a := range l.attempts {
		switch a.outcome {
		case Acknowledged:
			v.Acknowledged++
			if count[id] == 0 {
				v.Lost = append(v.Lost, id)
			}
		case Refused:
			v.Refused++
		case Pending, Unknown:
			v.Unknown++
		}
	}
	v.Dual = l.dualLocked()
	for _, ids := range [][]int64{v.Lost, v.Doubled, v.Invented, v.Denied, v.Dual} {
		slices.Sort(ids)
	}
	return v
}

// dualLocked finds writes that began after one of a newer reign was acknowledged,
// and were acknowledged under an older one.
func (l *Ledger) dualLocked() []int64 {
	first := make(map[uint64]time.Time) // when a reign first acknowledged
	for _, a := range l.attempts {
		if a.outcome != Acknowledged || a.reign == 0 {
			continue
		}
		if t, ok := first[a.reign]; !ok || a.end.Before(t) {
			first[a.reign] = a.end
		}
	}
	var dual []int64
	for id, a := range l.attempts {
		if a.outcome != Acknowledged || a.reign == 0 {
			continue
		}
		for reign, t := range first {
			if reign > a.reign && t.Before(a.began) {
				dual = append(dual, id)
				break
			}
		}
	}
	return dual
}

// Err returns what must never be, and allows as many lost writes as lost.
func (v Verdict) Err(lost int) error {
	switch {
	case len(v.Lost) > lost:
		return fmt.Errorf("%d acknowledged writes are lost, such as %v; at most %d may be", len(v.Lost), some(v.Lost), lost)
	case len(v.Doubled) > 0:
		return fmt.Errorf("%d writes were executed twice, such as %v", len(v.Doubled), some(v.Doubled))
	case len(v.Invented) > 0:
		return fmt.Errorf("%d rows were never written, such as %v", len(v.Invented), some(v.Invented))
	case len(v.Denied) > 0:
		return fmt.Errorf("%d writes are there of which the client was told that they were not executed, such as %v", len(v.Denied), some(v.Denied))
	case len(v.Dual) > 0:
		return fmt.Errorf("%d writes were acknowledged by an old primary after a new one had begun, such as %v", len(v.Dual), some(v.Dual))
	}
	return nil
}

func some(ids []int64) []int64 { return ids[:min(5, len(ids))] }

// String is the verdict in one line.
func (v Verdict) String() string {
	return fmt.Sprintf("attempted %d, acknowledged %d, refused %d, unknown %d (of them there %d), in the end %d, lost %d, doubled %d, invented %d, denied %d, dual %d",
		v.Attempted, v.Acknowledged, v.Refused, v.Unknown, v.Recovered, v.Final, len(v.Lost), len(v.Doubled), len(v.Invented), len(v.Denied), len(v.Dual))
}
