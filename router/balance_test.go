package router

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/heliosdb/helios/wal"
)

// backends returns n backends called r0, r1, … of weight 1.
func backends(n int) []*Backend {
	list := make([]*Backend, n)
	for i := range list {
		list[i] = &Backend{Name: fmt.Sprintf("r%d", i), Weight: 1}
	}
	return list
}

// weighted returns backends with these weights.
func weighted(weights ...int) []*Backend {
	list := backends(len(weights))
	for i, w := range weights {
		list[i].Weight = w
	}
	return list
}

// shares picks count times, nothing being under way, and returns how often each
// backend was chosen.
func shares(t *testing.T, bal Balance, list []*Backend, need Need, count int) []int {
	t.Helper()
	got := make([]int, len(list))
	seed := uint64(1)
	for range count {
		i := bal.Pick(list, &need, &seed)
		if i < 0 {
			t.Fatalf("%v.Pick found nobody", bal)
		}
		got[i]++
	}
	return got
}

// near fails unless got is within 6 standard deviations of a binomial draw.
func near(t *testing.T, what string, got, count int, chance float64) {
	t.Helper()
	mean := float64(count) * chance
	if d := math.Abs(float64(got) - mean); d > 1+6*math.Sqrt(mean*(1-chance)) {
		t.Errorf("%s: chosen %d times of %d, want about %.0f", what, got, count, mean)
	}
}

var balances = []Balance{LeastConns, RoundRobin, Latency, Random}

func TestBalanceNamesRoundTrip(t *testing.T) {
	for _, bal := range balances {
		text, err := bal.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Balance
		if err := back.UnmarshalText(text); err != nil || back != bal {
			t.Errorf("UnmarshalText(%q) = %v, %v, want %v", text, back, err, bal)
		}
	}
	var zero Balance
	if got := zero.String(); got != "least_conns" {
		t.Errorf("the default is %s, want least_conns", got)
	}
	if err := zero.UnmarshalText([]byte("best")); err == nil {
		t.Error("UnmarshalText(best) took a name that does not exist")
	}
}

func TestOnlyEligibleBackendsAreChosen(t *testing.T) {
	const second = int64(time.Second)
	for name, tt := range map[string]struct {
		prepare func(list []*Backend)
		need    Need
		want    string // names, in order
	}{
		"all of them":            {func([]*Backend) {}, Need{}, "r0 r1 r2 r3 "},
		"not tried":              {func([]*Backend) {}, Need{Tried: Set{0b0101}}, "r1 r3 "},
		"all tried":              {func([]*Backend) {}, Need{Tried: Set{0b1111}}, ""},
		"replayed far enough":    {func(l []*Backend) { l[2].SawReplay(90); l[3].SawReplay(100) }, Need{Replayed: 95}, "r3 "},
		"position starts anew":   {func(l []*Backend) { l[3].SawReplay(100); l[3].ResetReplay(80) }, Need{Replayed: 95}, ""},
		"position never shrinks": {func(l []*Backend) { l[3].SawReplay(100); l[3].SawReplay(80) }, Need{Replayed: 95}, "r3 "},
		"lag unknown or small": {func(l []*Backend) {
			l[0].SetLag(2 * time.Second)
			l[1].SetLag(0)
			l[2].SetLag(2 * time.Second)
			l[2].SetLag(-1)
		}, Need{MaxLag: time.Second}, "r1 r2 r3 "},
		"lag does not matter": {func(l []*Backend) { l[0].SetLag(time.Hour) }, Need{}, "r0 r1 r2 r3 "},
		"own zone first":      {func(l []*Backend) { l[1].Zone, l[2].Zone = "b", "b" }, Need{Zone: "b"}, "r1 r2 "},
		"nobody in own zone":  {func(l []*Backend) { l[1].Zone = "b" }, Need{Zone: "c"}, "r0 r1 r2 r3 "},
		"own zone is blocked": {func(l []*Backend) { l[1].Zone = "b"; l[1].SetBlocked(true) }, Need{Zone: "b"}, "r0 r2 r3 "},
		"half blocked":        {func(l []*Backend) { l[0].SetBlocked(true); l[1].SetBlocked(true) }, Need{}, "r2 r3 "},
		"more than half blocked": {func(l []*Backend) {
			for _, b := range l[1:] {
				b.SetBlocked(true)
			}
		}, Need{}, "r0 r1 r2 r3 "},
		"unblocked again": {func(l []*Backend) { l[0].SetBlocked(true); l[0].SetBlocked(false) }, Need{}, "r0 r1 r2 r3 "},
		"held off":        {func(l []*Backend) { l[0].HoldOff(9 * second) }, Need{Now: 8 * second}, "r1 r2 r3 "},
		"held off before": {func(l []*Backend) { l[0].HoldOff(9 * second) }, Need{Now: 9 * second}, "r0 r1 r2 r3 "},
		"unlucky is better than nobody": {
			func(l []*Backend) { l[0].Rejoined(second) },
			Need{Now: second, Tried: Set{0b1110}},
			"r0 ",
		},
	} {
		for _, bal := range balances {
			t.Run(name+"/"+bal.String(), func(t *testing.T) {
				list := backends(4)
				tt.prepare(list)
				if got := chosen(bal, list, tt.need); got != tt.want {
					t.Errorf("chosen: %q, want %q", got, tt.want)
				}
			})
		}
	}
}

// chosen returns the names of all who are picked sooner or later.
func chosen(bal Balance, list []*Backend, need Need) string {
	var seen Set
	seed := uint64(7)
	for range 2000 {
		if i := bal.Pick(list, &need, &seed); i >= 0 {
			seen.Add(i)
		}
	}
	names := ""
	for i, b := range list {
		if seen.Has(i) {
			names += b.Name + " "
		}
	}
	return names
}

func TestOneEligibleOfManyIsFound(t *testing.T) {
	for _, n := range []int{1, 3, 9, 64, 128, MaxBackends} {
		for _, bal := range balances {
			list := backends(n)
			list[n-1].SawReplay(5)
			need, seed := Need{Replayed: 5}, uint64(3)
			if got := bal.Pick(list, &need, &seed); got != n-1 {
				t.Errorf("%v.Pick of %d = %d, want %d", bal, n, got, n-1)
			}
			need.Tried.Add(n - 1)
			if got := bal.Pick(list, &need, &seed); got != -1 {
				t.Errorf("%v.Pick of %d, all tried = %d, want -1", bal, n, got)
			}
		}
	}
	need, seed := Need{}, uint64(0)
	if got := LeastConns.Pick(nil, &need, &seed); got != -1 {
		t.Errorf("Pick of none = %d, want -1", got)
	}
	if got := RoundRobin.Pick(backends(MaxBackends + 1)[MaxBackends:], &need, &seed); got != 0 {
		t.Errorf("Pick of one = %d, want 0", got)
	}
}

func TestIdleBackendsAreChosenByWeight(t *testing.T) {
	const count = 60_000
	for name, tt := range map[string][]int{
		"few, even":        {1, 1, 1},
		"two, uneven":      {3, 1},
		"few, uneven":      {1, 2, 3},
		"many, even":       {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		"many, uneven":     {4, 1, 1, 1, 4, 1, 1, 1, 4, 1, 1, 1},
		"many, equal at 5": {5, 5, 5, 5, 5, 5, 5, 5, 5, 5},
	} {
		list := weighted(tt...)
		total := 0
		for _, w := range tt {
			total += w
		}
		for _, bal := range balances {
			got := shares(t, bal, list, Need{}, count)
			for i, w := range tt {
				near(t, fmt.Sprintf("%s: %v: %s", name, bal, list[i].Name), got[i], count, float64(w)/float64(total))
			}
		}
	}
}

func TestSharesOfTheOthersStayEvenWhenSomeAreNotEligible(t *testing.T) {
	const n, count = 40, 60_000
	for _, bal := range balances {
		list := backends(n)
		need := Need{}
		for i := range n {
			if i%4 != 0 { // ten are left, with gaps in between
				need.Tried.Add(i)
			}
		}
		got := shares(t, bal, list, need, count)
		for i := 0; i < n; i += 4 {
			near(t, fmt.Sprintf("%v: %s", bal, list[i].Name), got[i], count, 4.0/n)
		}
	}
}

func TestPanicSpreadsReadsOverAll(t *testing.T) {
	const n, count = 20, 60_000
	for _, bal := range balances {
		list := backends(n)
		for _, b := range list[:n/2+1] {
			b.SetBlocked(true)
		}
		got := shares(t, bal, list, Need{}, count)
		for i := range list {
			near(t, fmt.Sprintf("%v: %s", bal, list[i].Name), got[i], count, 1.0/n)
		}
	}
}

func TestRoundRobinTakesTurns(t *testing.T) {
	for _, n := range []int{3, 20} {
		list := backends(n)
		need, seed := Need{}, uint64(5)
		last := RoundRobin.Pick(list, &need, &seed)
		for range 3 * n {
			i := RoundRobin.Pick(list, &need, &seed)
			if i != (last+1)%n {
				t.Fatalf("of %d: %d came after %d", n, i, last)
			}
			last = i
		}
	}
}

func TestBusyBackendsGetLessByWeight(t *testing.T) {
	for _, bal := range []Balance{LeastConns, Latency} {
		list := weighted(3, 1)
		need, seed := Need{}, uint64(1)
		for _, b := range list {
			b.Begin()
			b.End(time.Millisecond)
		}
		for range 400 {
			list[bal.Pick(list, &need, &seed)].Begin()
		}
		if got := list[0].Inflight(); got < 280 || got > 320 {
			t.Errorf("%v: %d of 400 under way on the node of weight 3 of 4, want about 300", bal, got)
		}
	}
}

func TestSlowStartGrowsFromATenthToAll(t *testing.T) {
	const count = 60_000
	start := int64(time.Hour)
	for _, n := range []int{2, 20} {
		for _, after := range []time.Duration{0, SlowStart / 2, SlowStart} {
			list := backends(n)
			list[0].Rejoined(start)
			chance := 0.1 + 0.9*float64(after)/float64(SlowStart)
			got := shares(t, Random, list, Need{Now: start + int64(after)}, count)
			want := chance / (float64(n-1) + chance)
			near(t, fmt.Sprintf("%d nodes, %v after", n, after), got[0], count, want)
		}
	}
}

func TestSlowNodeIsForgiven(t *testing.T) {
	list := backends(2)
	list[0].Begin()
	list[0].End(5 * time.Millisecond)
	list[1].Begin()
	list[1].End(time.Millisecond)
	need, seed := Need{}, uint64(1)
	for n := range 100_000 {
		i := Latency.Pick(list, &need, &seed)
		if i == 0 {
			if n < 100 {
				t.Errorf("the slow node was tried again after %d statements", n)
			}
			return
		}
		list[1].Begin()
		list[1].End(time.Millisecond)
	}
	t.Error("the slow node was never tried again")
}

func TestLatencyIsAMovingAverage(t *testing.T) {
	var b Backend
	b.Begin()
	b.End(0)
	if got := b.Latency(); got != 0 {
		t.Errorf("Latency() = %v before anything was measured, want 0", got)
	}
	for _, d := range []time.Duration{100, 200} {
		b.Begin()
		b.End(d)
	}
	if got := b.Latency(); got != 120 {
		t.Errorf("Latency() = %d, want 120", got)
	}
	if got := b.Inflight(); got != 0 {
		t.Errorf("Inflight() = %d, want 0", got)
	}
	b.Rejoined(1)
	if got := b.Latency(); got != 0 {
		t.Errorf("Latency() = %v after the node came back, want 0", got)
	}
}

func TestLoadAwareBalancesBeatRoundRobin(t *testing.T) {
	mean := map[Balance]float64{}
	for _, bal := range balances {
		mean[bal] = simulate(bal, 60_000)
	}
	t.Logf("mean time in the system, in units of the fast nodes' service: %v", mean)
	for _, bal := range []Balance{LeastConns, Latency} {
		if mean[bal] > mean[RoundRobin]/3 || mean[bal] > 5 {
			t.Errorf("%v: mean %.2f, round robin %.2f", bal, mean[bal], mean[RoundRobin])
		}
	}
}

// simulate sends count statements at random times to three nodes that serve one
// at a time, one of them five times slower, at 73 % load. It returns the mean
// time from arrival to completion.
func simulate(bal Balance, count int) float64 {
	list := backends(3)
	slowness := []float64{1, 1, 5}
	free := make([]float64, 3) // when the node's queue will be empty
	rng := rand.New(rand.NewPCG(1, 2))
	rate := 0.73 * (1 + 1 + 1/5.0)
	var ends endings
	now, sum := 0.0, 0.0
	need, seed := Need{}, uint64(1)
	for range count {
		now += rng.ExpFloat64() / rate
		for len(ends) > 0 && ends[0].at <= now {
			e := heap.Pop(&ends).(ending)
			list[e.node].End(time.Duration(e.took * float64(time.Millisecond)))
		}
		i := bal.Pick(list, &need, &seed)
		list[i].Begin()
		free[i] = max(free[i], now) + slowness[i]*rng.ExpFloat64()
		sum += free[i] - now
		heap.Push(&ends, ending{at: free[i], took: free[i] - now, node: i})
	}
	return sum / float64(count)
}

// ending is a statement's completion; endings is a heap of them.
type ending struct {
	at, took float64
	node     int
}

type endings []ending //nolint:recvcheck // container/heap wants Push and Pop of a pointer

func (e endings) Len() int           { return len(e) }
func (e endings) Less(i, j int) bool { return e[i].at < e[j].at }
func (e endings) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *endings) Push(x any)        { *e = append(*e, x.(ending)) }

func (e *endings) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, n := range []int{3, 128} {
		for _, bal := range balances {
			list := backends(n)
			list[0].SetBlocked(true)
			need, seed := Need{Replayed: 1, Zone: "a"}, uint64(1)
			for _, b := range list {
				b.SawReplay(wal.LSN(2))
			}
			if got := testing.AllocsPerRun(100, func() { bal.Pick(list, &need, &seed) }); got != 0 {
				t.Errorf("%v.Pick of %d allocates %v times", bal, n, got)
			}
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, bal := range balances {
		for _, n := range []int{3, 128} {
			b.Run(fmt.Sprintf("balance=%v/nodes=%d", bal, n), func(b *testing.B) {
				benchmarkPick(b, bal, backends(n), Need{Replayed: 1, Now: 1, MaxWeight: 1})
			})
		}
	}
	b.Run("balance=least_conns/nodes=128/zone=third", func(b *testing.B) {
		list := backends(128)
		for i, r := range list {
			r.Zone = string(rune('a' + i%3))
		}
		benchmarkPick(b, LeastConns, list, Need{Replayed: 1, Now: 1, MaxWeight: 1, Zone: "b"})
	})
	b.Run("balance=least_conns/nodes=128/eligible=1", func(b *testing.B) {
		list := backends(128)
		list[77].SawReplay(10)
		benchmarkPick(b, LeastConns, list, Need{Replayed: 5, Now: 1, MaxWeight: 1})
	})
	b.Run("balance=least_conns/nodes=128/weights=looked_up", func(b *testing.B) {
		benchmarkPick(b, LeastConns, backends(128), Need{Replayed: 1, Now: 1})
	})
}

func benchmarkPick(b *testing.B, bal Balance, list []*Backend, need Need) {
	b.ReportAllocs()
	for i, r := range list {
		r.SawReplay(2)
		r.Begin()
		r.End(time.Duration(1+i%7) * time.Millisecond)
	}
	b.RunParallel(func(pb *testing.PB) {
		need, seed := need, rand.Uint64()
		for pb.Next() {
			r := list[bal.Pick(list, &need, &seed)]
			r.Begin()
			r.End(0)
		}
	})
}
