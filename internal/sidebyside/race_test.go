package sidebyside

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// lane is a machine on which one thing is done at a time: a clock that moves
// only when somebody works, and then by as much as the machine is slow.
type lane struct {
	now, cpu time.Duration
	objects  uint64
	slow     func(now time.Duration) time.Duration // what one unit of work takes
}

func (l *lane) meter() Meter {
	return Meter{
		Now:       func() time.Time { return time.Unix(0, int64(l.now)) },
		CPU:       func() time.Duration { return l.cpu },
		Allocated: func() (uint64, uint64) { return l.objects, 16 * l.objects },
	}
}

// worker is a contestant whose operation is some units of work and objects.
func (l *lane) worker(name string, units, objects int) Contestant {
	return Contestant{Name: name, Do: func(context.Context, int) error {
		for range units {
			took := l.slow(l.now)
			l.now += took
			l.cpu += took / 2
		}
		l.objects += uint64(objects)
		return nil
	}}
}

func about(got, want float64) bool { return math.Abs(got-want) < 0.02*want }

func TestFiguresResistADisturbedMachine(t *testing.T) {
	for name, slow := range map[string]func(time.Duration) time.Duration{
		"never": func(time.Duration) time.Duration { return time.Microsecond },
		"three quarters of it all": func(now time.Duration) time.Duration {
			return disturbed(now%(400*time.Millisecond) > 100*time.Millisecond)
		},
		"for a moment, often": func(now time.Duration) time.Duration {
			return disturbed(now%(70*time.Millisecond) > 60*time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := &lane{slow: slow}
			race := Race{
				Contestants: []Contestant{l.worker("base", 10, 20), l.worker("half", 5, 12), l.worker("triple", 30, 20)},
				Clients:     1, Slice: 5 * time.Millisecond, Duration: 3 * time.Second, Latency: true, Meter: l.meter(),
			}
			results, err := race.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range []struct {
				name    string
				units   float64
				objects float64
			}{{"base", 10, 20}, {"half", 5, 12}, {"triple", 30, 20}} {
				r := results[i]
				if r.Name != want.name || !about(r.CPU(), want.units*500) || !about(r.Wall(), want.units*1000) ||
					!about(float64(r.P50()), want.units*1000) || !about(float64(r.P99()), want.units*1000) ||
					!about(r.Throughput(), 1e6/want.units) || r.Objects() != want.objects || r.Bytes() != 16*want.objects {
					t.Errorf("%s: CPU %.0f, wall %.0f, p50 %v, p99 %v, %.0f/s, %.0f objects, %.0f bytes; want %.0f units of 1µs, half of it CPU, and %.0f objects",
						r.Name, r.CPU(), r.Wall(), r.P50(), r.P99(), r.Throughput(), r.Objects(), r.Bytes(), want.units, want.objects)
				}
				k := want.units / 10
				if q := r.Ratios; !about(q.CPU, k) || !about(q.P50, k) || !about(q.P99, k) || !about(q.Throughput, 1/k) || !about(q.Objects, want.objects/20) {
					t.Errorf("%s: Ratios = %+v, want %.2f of the baseline, and objects %.2f", r.Name, q, k, want.objects/20)
				}
			}
		})
	}
}

// disturbed is what a microsecond of work takes.
func disturbed(yes bool) time.Duration {
	if yes {
		return 9 * time.Microsecond
	}
	return time.Microsecond
}

func TestSlicesAreAsLongAsAsked(t *testing.T) {
	l := &lane{slow: func(time.Duration) time.Duration { return time.Microsecond }}
	race := Race{
		Contestants: []Contestant{l.worker("a", 7, 0), l.worker("b", 300, 0)},
		Clients:     1, Slice: 5 * time.Millisecond, Duration: time.Second, Meter: l.meter(),
	}
	results, err := race.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n, m := len(results[0].Slices), len(results[1].Slices); n != m || n < 90 || n > 110 {
		t.Errorf("%d and %d slices in a second, want about 100 of 5ms each", n, m)
	}
	for i := range results {
		for _, s := range results[i].Slices {
			if s.Wall < 4*time.Millisecond || s.Wall > 6*time.Millisecond || s.P50 != 0 {
				t.Fatalf("%s had a slice of %v, p50 %v; want about 5ms, and not timed", results[i].Name, s.Wall, s.P50)
			}
		}
	}
}

func TestShortRacesHaveAMedianToo(t *testing.T) {
	l := &lane{slow: func(time.Duration) time.Duration { return time.Second }}
	race := Race{Contestants: []Contestant{l.worker("a", 7, 0)}, Clients: 1, Slice: time.Millisecond, Meter: l.meter()}
	results, err := race.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := len(results[0].Slices); n != fewest || results[0].Ops() != fewest {
		t.Errorf("%d slices, %d operations; want %d slices of one operation, longer as it is", n, results[0].Ops(), fewest)
	}
}

func TestEverybodyTakesEveryTurn(t *testing.T) {
	for n := 1; n <= 4; n++ {
		first := make([]int, n)
		for round := range 4 * n {
			turns := Order(n, round)
			first[turns[0]]++
			sorted := slices.Sorted(slices.Values(turns))
			for i := range sorted {
				if sorted[i] != i {
					t.Fatalf("Order(%d, %d) = %v, want everybody once", n, round, turns)
				}
			}
		}
		for i := range first {
			if first[i] != 4 {
				t.Errorf("of %d, the first ones in 4 rounds each were %v, want everybody as often", n, first)
			}
		}
	}
}

func TestClientsWorkAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy, most atomic.Int32
		seen := map[int]bool{}
		guard := make(chan struct{}, 1)
		race := Race{
			Contestants: []Contestant{{Name: "sleeper", Do: func(_ context.Context, i int) error {
				guard <- struct{}{}
				if seen[i] {
					t.Errorf("operation %d was done twice", i)
				}
				seen[i] = true
				<-guard
				most.Store(max(most.Load(), busy.Add(1)))
				time.Sleep(time.Millisecond)
				busy.Add(-1)
				return nil
			}}},
			Clients: 8, Slice: 20 * time.Millisecond, Duration: time.Second, Latency: true,
		}
		results, err := race.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if most.Load() != 8 {
			t.Errorf("%d at once, want 8", most.Load())
		}
		if r := results[0]; !about(r.Throughput(), 8000) || r.P50() != time.Millisecond || r.P99() != time.Millisecond {
			t.Errorf("%.0f/s, p50 %v, p99 %v; want 8000/s in 1ms each", r.Throughput(), r.P50(), r.P99())
		}
	})
}

func TestWhatComesBeforeAnOperationIsNotTimed(t *testing.T) {
	l := &lane{slow: func(time.Duration) time.Duration { return time.Microsecond }}
	c := l.worker("a", 10, 0)
	c.Before = l.worker("", 90, 0).Do
	race := Race{Contestants: []Contestant{c}, Clients: 1, Slice: 5 * time.Millisecond, Latency: true, Meter: l.meter()}
	results, err := race.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := results[0]; r.P50() != 10*time.Microsecond || !about(r.Wall(), 100_000) {
		t.Errorf("p50 %v, wall %.0f ns; want 10µs of 100µs", r.P50(), r.Wall())
	}
	broken := errors.New("broken")
	race.Contestants[0].Before = func(context.Context, int) error { return broken }
	if _, err := race.Run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("Run = %v, want the error of what comes before", err)
	}
}

func TestAFailureEndsTheRace(t *testing.T) {
	broken := errors.New("broken")
	for _, clients := range []int{1, 8} {
		var after atomic.Int32
		race := Race{
			Contestants: []Contestant{{Name: "a", Do: func(_ context.Context, i int) error {
				if i == 100 {
					return broken
				}
				if i > 100 {
					after.Add(1)
				}
				return nil
			}}},
			Clients: clients, Slice: time.Millisecond, Duration: time.Hour,
		}
		_, err := race.Run(t.Context())
		if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "a: ") || after.Load() > 100_000 {
			t.Errorf("Run with %d clients = %v after %d more operations, want the contestant's error soon", clients, err, after.Load())
		}
	}
}

func TestTheEndOfTheContextEndsTheRace(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	race := Race{
		Contestants: []Contestant{{Name: "a", Do: func(_ context.Context, i int) error {
			if i == 1000 {
				cancel(enough)
			}
			return nil
		}}},
		Clients: 1, Slice: time.Millisecond, Duration: time.Hour,
	}
	if _, err := race.Run(ctx); !errors.Is(err, enough) {
		t.Errorf("Run = %v, want the context's cause", err)
	}
}

func TestWhatMakesNoRaceIsRefused(t *testing.T) {
	nobody := Race{Clients: 1, Slice: time.Millisecond}
	if _, err := nobody.Run(t.Context()); err == nil {
		t.Error("Run without contestants worked")
	}
}

func TestLapsCutAResultIntoParts(t *testing.T) {
	r := Result{Name: "a"}
	for i := range 10 {
		r.Slices = append(r.Slices, Slice{Ops: 1, Wall: time.Duration(i)})
	}
	var sizes []int
	for _, lap := range r.Laps(4) {
		sizes = append(sizes, len(lap.Slices))
	}
	if !slices.Equal(sizes, []int{2, 3, 2, 3}) || len(r.Laps(20)) != 10 {
		t.Errorf("Laps(4) have %v slices, Laps(20) are %d; want 2 3 2 3, and 10", sizes, len(r.Laps(20)))
	}
}

func TestTheMeasurementAllocatesNothingOfItsOwn(t *testing.T) {
	for _, latency := range []bool{false, true} {
		race := Race{
			Contestants: []Contestant{{Name: "a", Do: func(context.Context, int) error { return nil }}},
			Clients:     1, Slice: time.Millisecond, Latency: latency,
		}
		results, err := race.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := results[0].Objects(); got > 0.01 {
			t.Errorf("an operation that allocates nothing is said to allocate %.2f objects (timed: %v)", got, latency)
		}
	}
}

func TestTheProcessIsMetered(t *testing.T) {
	m := Meter{}.orOwn()
	objects, bytes := m.Allocated()
	var keep [][]byte
	for range 1000 {
		keep = append(keep, make([]byte, 1000))
	}
	objects2, bytes2 := m.Allocated()
	if objects2-objects < uint64(len(keep)) || bytes2-bytes < 1_000_000 {
		t.Errorf("%d objects, %d bytes allocated; want 1000 of 1000 bytes at least", objects2-objects, bytes2-bytes)
	}
	for begun := m.CPU(); m.CPU() < begun+time.Millisecond; { // a deadlock of the test if it never moves
	}
}
