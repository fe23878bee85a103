package sidebyside

import (
	"slices"
	"time"
)

// A Slice is what one turn of a contestant has cost.
type Slice struct {
	Ops            int
	Wall, CPU      time.Duration
	Objects, Bytes uint64        // allocated
	P50, P99       time.Duration // of its operations, if they were timed
}

// A Result is how a contestant did.
type Result struct {
	Name   string
	Slices []Slice
	Ratios Ratios // to the baseline; all 1 for the baseline itself
}

// Ratios compare a contestant with the baseline: the medians over the rounds
// of its figure divided by the baseline's in the same round. 0 is not known.
type Ratios struct {
	CPU, P50, P99 float64 // below 1 is better than the baseline
	Throughput    float64 // above 1 is
	Objects       float64 // below 1 is
}

// A figure is one number that is read off a slice.
type figure func(*Slice) float64

func cpu(s *Slice) float64        { return float64(s.CPU) / float64(s.Ops) }
func wall(s *Slice) float64       { return float64(s.Wall) / float64(s.Ops) }
func p50(s *Slice) float64        { return float64(s.P50) }
func p99(s *Slice) float64        { return float64(s.P99) }
func throughput(s *Slice) float64 { return float64(s.Ops) / s.Wall.Seconds() }
func objects(s *Slice) float64    { return float64(s.Objects) / float64(s.Ops) }

// CPU returns the nanoseconds of processor time of an operation, undisturbed.
func (r *Result) CPU() float64 { return quantile(r.Slices, cpu, 0.1) }

// Wall returns the nanoseconds from one operation's end to the next one's,
// undisturbed: with several clients at once less than an operation takes.
func (r *Result) Wall() float64 { return quantile(r.Slices, wall, 0.1) }

// P50 returns the median time of an operation, undisturbed.
func (r *Result) P50() time.Duration { return time.Duration(quantile(r.Slices, p50, 0.1)) }

// P99 returns the time that one operation in a hundred exceeds, undisturbed.
func (r *Result) P99() time.Duration { return time.Duration(quantile(r.Slices, p99, 0.1)) }

// Throughput returns the operations in a second, undisturbed.
func (r *Result) Throughput() float64 { return quantile(r.Slices, throughput, 0.9) }

// Objects returns how many objects an operation allocates. The median: what
// goes on in the background is not the operation's.
func (r *Result) Objects() float64 { return quantile(r.Slices, objects, 0.5) }

// Bytes returns how many bytes an operation allocates.
func (r *Result) Bytes() float64 {
	return quantile(r.Slices, func(s *Slice) float64 { return float64(s.Bytes) / float64(s.Ops) }, 0.5)
}

// Ops returns how many operations were measured.
func (r *Result) Ops() int {
	n := 0
	for i := range r.Slices {
		n += r.Slices[i].Ops
	}
	return n
}

// Laps returns the result cut into n parts, one after the other, as if so many
// races had been run: what tools that judge the spread want to see. There are
// never more laps than slices.
func (r *Result) Laps(n int) []Result {
	n = min(n, len(r.Slices))
	laps := make([]Result, n)
	for i := range laps {
		laps[i] = Result{Name: r.Name, Slices: r.Slices[len(r.Slices)*i/n : len(r.Slices)*(i+1)/n]}
	}
	return laps
}

// compare sets the ratios to the first result.
func compare(results []Result) {
	base := results[0].Slices
	for i := range results {
		mine := results[i].Slices
		results[i].Ratios = Ratios{
			CPU: medianRatio(mine, base, cpu), P50: medianRatio(mine, base, p50), P99: medianRatio(mine, base, p99),
			Throughput: medianRatio(mine, base, throughput), Objects: medianRatio(mine, base, objects),
		}
	}
}

// medianRatio compares slices of the same round.
func medianRatio(mine, base []Slice, f figure) float64 {
	ratios := make([]float64, 0, len(mine))
	for i := range mine {
		if b := f(&base[i]); b > 0 {
			ratios = append(ratios, f(&mine[i])/b)
		}
	}
	return at(ratios, 0.5)
}

// quantile returns the figure of the slice that q of them, 0 to 1, are below.
func quantile(all []Slice, f figure, q float64) float64 {
	values := make([]float64, len(all))
	for i := range all {
		values[i] = f(&all[i])
	}
	return at(values, q)
}

// at sorts values and returns the one that q of them are below; 0 of none.
func at(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[int(q*float64(len(values)-1)+0.5)]
}

// percentiles sorts the times of operations and returns the two that are told.
func percentiles(took []int64) (p50, p99 time.Duration) {
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	rank := func(percent int) time.Duration { return time.Duration(took[(len(took)-1)*percent/100]) }
	return rank(50), rank(99)
}
