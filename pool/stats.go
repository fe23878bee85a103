package pool

import "time"

// Stats describes a pool at one moment. The numbers of connections are read one
// slot after another and may be off by what happened meanwhile; the counters
// only grow.
type Stats struct {
	Max      int // slots
	Open     int // connections: idle, busy or being cleaned
	Idle     int // free to take
	Busy     int // lent
	Cleaning int // released dirty, not yet free
	Dialing  int // being made
	Waiting  int // Acquires in line

	Acquired   uint64        // connections lent
	Waits      uint64        // Acquires that stood in line
	WaitTime   time.Duration // of all of them together
	Dialed     uint64        // connections made
	DialErrors uint64        // dials that failed, other than by a Fence
	Cleaned    uint64        // connections made fit for another session
	Discarded  uint64        // connections closed, for whatever reason
}

// counts are the counters that the slow path keeps.
type counts struct {
	waits, dialed, dialErrors, cleaned, discarded uint64
	waitTime                                      time.Duration
}

// Stats returns the state of the pool now.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := Stats{
		Max:        len(p.slots),
		Waiting:    p.line.length,
		Waits:      p.counts.waits,
		WaitTime:   p.counts.waitTime,
		Dialed:     p.counts.dialed,
		DialErrors: p.counts.dialErrors,
		Cleaned:    p.counts.cleaned,
		Discarded:  p.counts.discarded,
	}
	for i := range p.slots {
		word := p.slots[i].word.Load()
		st.Acquired += word / oneUse
		switch word & stateMask {
		case dialing:
			st.Dialing++
		case idle:
			st.Idle++
		case busy:
			st.Busy++
		case cleaning:
			st.Cleaning++
		}
	}
	st.Open = st.Idle + st.Busy + st.Cleaning
	return st
}
