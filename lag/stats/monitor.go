package stats

import (
	"context"
	"sync"
	"time"

	"github.com/heliosdb/helios/internal/beat"
	"github.com/heliosdb/helios/lag"
	"github.com/heliosdb/helios/wal"
)

// An Observation is where everybody stood in one round.
type Observation struct {
	At      time.Time // by the observer's clock, as all times here
	Primary Primary
	// Replicas are all that there are, also those that have not been heard of
	// since the last round. One that is not listed any more is forgotten.
	Replicas []Replica
}

// A Primary is where the primary stood. The zero Primary is not known.
type Primary struct {
	Name string
	LSN  wal.LSN
	// At is when the primary certainly stood at LSN or below: when the question was sent that
	// it answered. It stays what it was as long as nothing new is heard.
	At time.Time
}

// A Replica is where a replica stood when it was last heard of.
type Replica struct {
	Name                          string
	WriteLSN, FlushLSN, ReplayLSN wal.LSN
	Unknown                       bool // there is no position, or it is not one of the primary's history
}

// A Monitor measures lag. It is safe for concurrent use.
type Monitor struct {
	interval time.Duration

	mu       sync.Mutex
	primary  Primary     // guarded by mu, as all below
	history  lag.History // of the primary
	since    time.Time   // how far back history goes, at least
	start    time.Time   // what points count from
	at       time.Time   // of the newest round
	round    uint64
	replicas map[string]*series
	tally    tally // of the report being made
}

// NewMonitor returns a monitor that is told what it measures each interval.
func NewMonitor(interval time.Duration) *Monitor {
	return &Monitor{interval: interval, replicas: map[string]*series{}}
}

// Run observes each interval, until ctx ends, and returns why it ended. observe must not wait for
// the nodes: it says what is known.
func (m *Monitor) Run(ctx context.Context, observe func(now time.Time) Observation) error {
	tick := time.NewTimer(beat.Next(m.interval))
	defer tick.Stop()
	for {
		m.Add(observe(time.Now()))
		select {
		case <-tick.C:
			tick.Reset(beat.Next(m.interval))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Add adds a round. One that is older than the newest is ignored.
func (m *Monitor) Add(o Observation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if o.At.Before(m.at) {
		return
	}
	if m.round == 0 {
		m.start = o.At
	}
	m.at = o.At
	m.round++
	m.hear(o.Primary)
	for i := range o.Replicas {
		r := &o.Replicas[i]
		s := m.replicas[r.Name]
		if s == nil {
			s = &series{}
			m.replicas[r.Name] = s
		}
		s.round = m.round
		m.measure(s, r)
	}
	if len(m.replicas) > len(o.Replicas) {
		m.forget()
	}
}

// hear notes where the primary stood.
func (m *Monitor) hear(p Primary) {
	if p.At.IsZero() || !p.At.After(m.primary.At) {
		return
	}
	// A lower position means that the log was cut, and with it perhaps all that is remembered.
	if newest, ok := m.history.Newest(); !ok || p.LSN < newest {
		m.since = p.At
	}
	m.history.Add(p.At, p.LSN)
	m.primary = p
}

// silent reports whether the primary has missed more than a round.
func (m *Monitor) silent() bool { return m.at.Sub(m.primary.At) > 2*m.interval }

// measure adds a replica's position to its series.
func (m *Monitor) measure(s *series, r *Replica) {
	s.newest, s.known, s.atLeast, s.lag = *r, false, false, 0
	if r.Unknown || m.primary.At.IsZero() {
		return
	}
	s.lag, s.known = m.history.LagOf(r.ReplayLSN, m.at)
	switch {
	case !s.known: // older than all that is remembered
		s.lag, s.known, s.atLeast = m.at.Sub(m.since), true, true
	case s.lag == 0 && m.silent():
		s.known = false
		return
	}
	s.add(point{at: m.at.Sub(m.start), lag: s.lag, behind: m.behind(r)})
}

// behind returns how many bytes a replica has not replayed of what is known of the primary's log.
func (m *Monitor) behind(r *Replica) uint64 {
	if r.ReplayLSN >= m.primary.LSN {
		return 0
	}
	return uint64(m.primary.LSN - r.ReplayLSN)
}

// forget drops the replicas that the newest round did not list.
func (m *Monitor) forget() {
	for name, s := range m.replicas {
		if s.round != m.round {
			delete(m.replicas, name)
		}
	}
}
