package stats

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/caio/go-tdigest/v4"
)

// parts is how many parts a window moves by. The oldest is dropped as a whole, so that a
// window covers five sixths of its time at least.
const parts = 6

// compression is how finely a digest tells lags apart: a hundredth of a percent
// of the samples near the 99th percentile, two percent at the median.
const compression = 50

// A window sums up the lags of a long while, in parts that are each a digest.
type window struct {
	part   time.Duration // how long each is
	parts  [parts]digest
	newest int64 // number of the newest part; its place is newest % parts
}

func (w *window) add(p point) {
	number := int64(p.at / w.part)
	// What was not heard of for long leaves parts behind that are too old.
	for skipped := max(w.newest+1, number-parts+1); skipped <= number; skipped++ {
		w.parts[skipped%parts].reset()
	}
	w.newest = number
	w.parts[number%parts].add(p.lag)
}

// quantiles returns what the lag was in the window, at now. It needs a tally for it.
func (w *window) quantiles(now time.Duration, t *tally) Quantiles {
	t.reset()
	if w.part == 0 {
		return Quantiles{}
	}
	number := int64(now / w.part)
	for i := max(0, number-parts+1, w.newest-parts+1); i <= w.newest; i++ {
		t.take(&w.parts[i%parts])
	}
	return t.quantiles()
}

// A digest sums up lags.
type digest struct {
	lags *tdigest.TDigest // nil if there was never one
	max  time.Duration
}

func (d *digest) reset() {
	if d.lags != nil {
		d.lags.Reset()
	}
	d.max = 0
}

func (d *digest) add(lag time.Duration) {
	if d.lags == nil {
		d.lags, _ = tdigest.New(tdigest.Compression(compression), tdigest.RandomNumberGenerator(dice{})) // its options are right
	}
	_ = d.lags.Add(milliseconds(lag)) // fails for what is no number
	d.max = max(d.max, lag)
}

// A tally reads quantiles from several digests at once. The library can merge digests too, but
// takes many times as long.
type tally struct {
	centroids []centroid
	runs      [][2]int // where each digest's centroids, which are in order, begin and end
	count     uint64
	max       time.Duration
}

// A centroid stands for some lags that are about mean.
type centroid struct {
	mean  float64
	count uint64
}

func (t *tally) reset() { *t = tally{centroids: t.centroids[:0], runs: t.runs[:0]} }

func (t *tally) take(d *digest) {
	if d.lags == nil {
		return
	}
	begin := len(t.centroids)
	d.lags.ForEachCentroid(func(mean float64, count uint64) bool {
		t.centroids = append(t.centroids, centroid{mean, count})
		return true
	})
	t.runs = append(t.runs, [2]int{begin, len(t.centroids)})
	t.count += d.lags.Count()
	t.max = max(t.max, d.max)
}

// next takes the centroid with the lowest mean away.
func (t *tally) next() centroid {
	lowest := -1
	for i, run := range t.runs {
		if run[0] < run[1] && (lowest < 0 || t.centroids[run[0]].mean < t.centroids[t.runs[lowest][0]].mean) {
			lowest = i
		}
	}
	c := t.centroids[t.runs[lowest][0]]
	t.runs[lowest][0]++
	return c
}

// quantiles returns what was tallied, and uses it up.
func (t *tally) quantiles() Quantiles {
	if t.count == 0 {
		return Quantiles{}
	}
	var seen float64
	var c centroid
	at := func(q float64) float64 { // asked for in growing order
		for rank := q * float64(t.count-1); seen <= rank; seen += float64(c.count) {
			c = t.next()
		}
		return c.mean
	}
	return Quantiles{Samples: int(t.count), P50: at(0.50), P95: at(0.95), P99: at(0.99), Max: milliseconds(t.max)}
}

// exactly returns the quantiles of lags, which it sorts.
func exactly(lags []float64) Quantiles {
	if len(lags) == 0 {
		return Quantiles{}
	}
	slices.Sort(lags)
	at := func(q float64) float64 { return lags[int(q*float64(len(lags)-1)+0.5)] }
	return Quantiles{Samples: len(lags), P50: at(0.50), P95: at(0.95), P99: at(0.99), Max: lags[len(lags)-1]}
}

// dice are what the library chooses with between centroids that are equally near. Its
// own keep 5 kB for each digest.
type dice struct{}

// Float32 returns a number from 0 up to 1.
func (dice) Float32() float32 { return rand.Float32() }

// Intn returns a number from 0 up to n.
func (dice) Intn(n int) int { return rand.IntN(n) }
