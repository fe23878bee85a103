package stats

import (
	"slices"
	"strings"
	"time"

	"github.com/heliosdb/helios/wal"
)

// A Report is how far everybody is behind, as JSON for programs and people.
type Report struct {
	At            time.Time       `json:"at"`              // of the newest round, by the observer's clock
	IntervalMS    float64         `json:"interval_ms"`     // between two rounds
	Primary       string          `json:"primary"`         // "" if none was ever heard of
	PrimaryLSN    wal.LSN         `json:"primary_lsn"`     // the newest position that is known of it
	PrimarySeenMS *float64        `json:"primary_seen_ms"` // how old that is; null if there is none
	Replicas      []ReplicaReport `json:"replicas"`        // by name
}

// A ReplicaReport is how far one replica is behind.
type ReplicaReport struct {
	Name        string    `json:"name"`
	WriteLSN    wal.LSN   `json:"write_lsn"`
	FlushLSN    wal.LSN   `json:"flush_lsn"`
	ReplayLSN   wal.LSN   `json:"replay_lsn"`
	BehindBytes *uint64   `json:"behind_bytes"` // WAL that is not replayed; null if that cannot be said
	LagMS       *float64  `json:"lag_ms"`       // age of what queries see there; null if it is not known
	AtLeast     bool      `json:"at_least"`     // the lag is older than what is remembered of the primary
	Trend       float64   `json:"trend"`        // milliseconds of lag gained in a second, over the last minute
	OneMinute   Quantiles `json:"1m"`
	TenMinutes  Quantiles `json:"10m"`
	OneHour     Quantiles `json:"1h"`
}

// Quantiles are what the lag was most of the time, in milliseconds.
type Quantiles struct {
	Samples int     `json:"samples"` // 0: nothing is known of the window
	P50     float64 `json:"p50_ms"`
	P95     float64 `json:"p95_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
}

// A Point is the lag of a replica at one time.
type Point struct {
	At          time.Time `json:"at"`
	LagMS       float64   `json:"lag_ms"`
	BehindBytes uint64    `json:"behind_bytes"`
}

// Report sums up what is known after the newest round.
func (m *Monitor) Report() Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := Report{
		At: m.at, IntervalMS: milliseconds(m.interval),
		Primary: m.primary.Name, PrimaryLSN: m.primary.LSN, Replicas: make([]ReplicaReport, 0, len(m.replicas)),
	}
	if !m.primary.At.IsZero() {
		r.PrimarySeenMS = new(milliseconds(max(0, m.at.Sub(m.primary.At))))
	}
	for _, s := range m.replicas {
		r.Replicas = append(r.Replicas, m.reportOn(s))
	}
	slices.SortFunc(r.Replicas, func(a, b ReplicaReport) int { return strings.Compare(a.Name, b.Name) })
	return r
}

// reportOn sums up a replica.
func (m *Monitor) reportOn(s *series) ReplicaReport {
	now := m.at.Sub(m.start)
	r := ReplicaReport{
		Name: s.newest.Name, WriteLSN: s.newest.WriteLSN, FlushLSN: s.newest.FlushLSN, ReplayLSN: s.newest.ReplayLSN,
		AtLeast: s.atLeast, Trend: s.trend(now),
	}
	if s.known {
		r.LagMS, r.BehindBytes = new(milliseconds(s.lag)), new(m.behind(&s.newest))
	}
	var minute []float64
	for p := range s.last(time.Minute, now) {
		minute = append(minute, milliseconds(p.lag))
	}
	r.OneMinute = exactly(minute)
	r.TenMinutes, r.OneHour = s.tenMin.quantiles(now, &m.tally), s.hour.quantiles(now, &m.tally)
	return r
}

// Lag returns the newest lag of a replica, and false if it is not known.
func (m *Monitor) Lag(name string) (time.Duration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.replicas[name]
	if s == nil {
		return 0, false
	}
	return s.lag, s.known
}

// History returns the lags of a replica that are remembered one by one, the oldest first: the
// last ten minutes, with a round each half second.
func (m *Monitor) History(name string) []Point {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.replicas[name]
	if s == nil {
		return nil
	}
	points := make([]Point, 0, len(s.points))
	for p := range s.last(1<<62, 0) {
		points = append(points, Point{At: m.start.Add(p.at), LagMS: milliseconds(p.lag), BehindBytes: p.behind})
	}
	slices.Reverse(points)
	return points
}
