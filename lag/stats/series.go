package stats

import "time"

// kept is how many points of a replica are remembered one by one: ten minutes
// with a round each half second.
const kept = 1200

// A point is the lag at one time.
type point struct {
	at     time.Duration // since the monitor's first round
	lag    time.Duration
	behind uint64
}

// A series is what is known of a replica. Points are in a ring.
type series struct {
	round          uint64 // the newest that listed the replica
	newest         Replica
	lag            time.Duration
	known, atLeast bool

	points []point // at most kept; next is the oldest once there are as many
	next   int
	tenMin window
	hour   window
}

func (s *series) add(p point) {
	if s.points == nil {
		s.points = make([]point, 0, kept)
		s.tenMin.part, s.hour.part = 10*time.Minute/parts, time.Hour/parts
	}
	if len(s.points) < kept {
		s.points = append(s.points, p)
	} else {
		s.points[s.next] = p
		s.next = (s.next + 1) % kept
	}
	s.tenMin.add(p)
	s.hour.add(p)
}

// last yields the points of the last while, the newest first.
func (s *series) last(while, now time.Duration) func(yield func(point) bool) {
	return func(yield func(point) bool) {
		for i := range s.points {
			p := s.points[(s.next+len(s.points)-1-i)%len(s.points)]
			if now-p.at > while || !yield(p) {
				return
			}
		}
	}
}

// trendOver is the time over which a trend is measured.
const trendOver = time.Minute

// trend returns how many milliseconds of lag are gained in a second: 0 if it
// does not change, 1000 if nothing is replayed, less than 0 if the replica catches up. It is the
// slope of the line that fits the last minute best.
func (s *series) trend(now time.Duration) float64 {
	var n, sumX, sumY, sumXX, sumXY float64
	for p := range s.last(trendOver, now) {
		x, y := (p.at - now).Seconds(), milliseconds(p.lag)
		n++
		sumX, sumY, sumXX, sumXY = sumX+x, sumY+y, sumXX+x*x, sumXY+x*y
	}
	if spread := n*sumXX - sumX*sumX; n > 1 && spread > 0 {
		return (n*sumXY - sumX*sumY) / spread
	}
	return 0
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
