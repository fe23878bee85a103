package stats_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/lag/stats"
	"github.com/heliosdb/helios/wal"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const interval = 500 * time.Millisecond

// A story is told to a monitor round by round.
type story struct {
	*stats.Monitor
	now     time.Time
	primary stats.Primary
}

func newStory() *story { return &story{Monitor: stats.NewMonitor(interval), now: start} }

// round lets an interval pass, and the replicas be where they are.
func (s *story) round(primary wal.LSN, replicas ...stats.Replica) {
	s.primary = stats.Primary{Name: "n1", LSN: primary, At: s.now}
	s.silentRound(replicas...)
}

// silentRound is a round in which the primary is not heard of.
func (s *story) silentRound(replicas ...stats.Replica) {
	s.Add(stats.Observation{At: s.now, Primary: s.primary, Replicas: replicas})
	s.now = s.now.Add(interval)
}

func at(name string, lsn wal.LSN) stats.Replica {
	return stats.Replica{Name: name, WriteLSN: lsn, FlushLSN: lsn, ReplayLSN: lsn}
}

// only returns what the report says of the one replica there is.
func (s *story) only(t *testing.T) stats.ReplicaReport {
	t.Helper()
	r := s.Report()
	if len(r.Replicas) != 1 {
		t.Fatalf("%d replicas in the report, want 1", len(r.Replicas))
	}
	return r.Replicas[0]
}

func (s *story) wantLag(t *testing.T, name string, want time.Duration) {
	t.Helper()
	if got, known := s.Lag(name); !known || got != want {
		t.Errorf("Lag(%s) = %v, %v; want %v", name, got, known, want)
	}
}

func TestACutOffReplicaGrowsInLag(t *testing.T) {
	s := newStory()
	for i := range wal.LSN(200) {
		s.round(1000+i, at("n2", 1000))
	}
	s.wantLag(t, "n2", 199*interval)
	r := s.only(t)
	if math.Abs(r.Trend-1000) > 0.001 {
		t.Errorf("trend %v, want 1000: it gains a second in a second", r.Trend)
	}
	if *r.BehindBytes != 199 || r.AtLeast {
		t.Errorf("%d bytes behind, at least: %v; want 199, and exactly", *r.BehindBytes, r.AtLeast)
	}
}

func TestAnIdleReplicaThatHasCaughtUpHasNoLag(t *testing.T) {
	s := newStory()
	for range 200 {
		s.round(1000, at("n2", 1000))
	}
	s.wantLag(t, "n2", 0)
	if r := s.only(t); r.Trend != 0 || *r.BehindBytes != 0 || r.OneMinute != (stats.Quantiles{Samples: 121}) {
		t.Errorf("report %+v, want no lag", r)
	}
}

func TestAReplicaThatCatchesUpHasAFallingTrend(t *testing.T) {
	s := newStory()
	for i := range wal.LSN(50) {
		s.round(1000+i, at("n2", 1000))
	}
	for i := range wal.LSN(40) {
		s.round(1050+i, at("n2", 1000+2*i))
	}
	for range 81 {
		s.round(1090, at("n2", 1090))
	}
	s.wantLag(t, "n2", 0)
	if r := s.only(t); r.Trend >= 0 {
		t.Errorf("trend %v, want less than 0", r.Trend)
	}
}

func TestWhenThePrimaryIsSilentNobodyIsSaidToBeCaughtUp(t *testing.T) {
	s := newStory()
	s.round(1000, at("n2", 1000), at("n3", 900))
	s.round(1100, at("n2", 1100), at("n3", 1000))
	for range 10 {
		s.silentRound(at("n2", 1100), at("n3", 1000))
	}
	if got, known := s.Lag("n2"); known {
		t.Errorf("Lag(n2) = %v, want unknown: the primary may have written since", got)
	}
	s.wantLag(t, "n3", 11*interval)
	r := s.Report()
	if r.Replicas[0].LagMS != nil || r.Replicas[1].LagMS == nil || *r.PrimarySeenMS != 5000 {
		t.Errorf("lags %v and %v, primary seen %v ms ago; want none, one, and 5000", r.Replicas[0].LagMS, r.Replicas[1].LagMS, *r.PrimarySeenMS)
	}
	s.round(1100, at("n2", 1100), at("n3", 1100))
	s.wantLag(t, "n2", 0)
	s.wantLag(t, "n3", 0)
}

func TestAReplicaOlderThanWhatIsRememberedLagsAtLeastSoMuch(t *testing.T) {
	s := newStory()
	for i := range wal.LSN(21) {
		s.round(1000+i, at("n2", 10))
	}
	s.wantLag(t, "n2", 20*interval)
	if r := s.only(t); !r.AtLeast || *r.BehindBytes != 1010 {
		t.Errorf("at least: %v, %d bytes behind; want true and 1010", r.AtLeast, *r.BehindBytes)
	}
}

func TestAfterAFailoverTheLostPartOfTheLogIsNoMeasure(t *testing.T) {
	s := newStory()
	for i := range wal.LSN(10) {
		s.round(1000+10*i, at("n3", 1000))
	}
	// n2 took over at 1050 with the rest lost; n3 follows it.
	s.round(1050, at("n3", 1050))
	s.wantLag(t, "n3", 0)
	s.round(1060, at("n3", 1050))
	s.wantLag(t, "n3", interval)
}

func TestWhatCannotBeSaidIsNotCounted(t *testing.T) {
	s := newStory()
	s.silentRound(at("n2", 1000))
	if _, known := s.Lag("n2"); known {
		t.Error("a lag is known before there was a primary")
	}
	s.round(1000, stats.Replica{Name: "n2", Unknown: true})
	if _, known := s.Lag("n2"); known {
		t.Error("the lag of a replica without a position is known")
	}
	if r := s.only(t); r.OneMinute.Samples+r.TenMinutes.Samples+r.OneHour.Samples != 0 || r.BehindBytes != nil {
		t.Errorf("report %+v, want no samples", r)
	}
	if _, known := s.Lag("n9"); known || s.History("n9") != nil {
		t.Error("something is known of a stranger")
	}
}

func TestAReplicaThatIsNotListedIsForgotten(t *testing.T) {
	s := newStory()
	s.round(1000, at("n2", 1000), at("n3", 1000))
	s.round(1000, at("n3", 1000))
	if got := s.only(t).Name; got != "n3" {
		t.Errorf("%s is in the report, want n3", got)
	}
	s.Add(stats.Observation{At: start, Primary: s.primary, Replicas: []stats.Replica{at("n4", 1)}})
	if got := s.only(t).Name; got != "n3" {
		t.Errorf("after a round from the past %s is in the report, want n3", got)
	}
}

func TestQuantilesSayWhatTheLagWasMostOfTheTime(t *testing.T) {
	s := newStory()
	// Each round the primary writes one byte; the replica has what was written some rounds before.
	var rounds []int
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 2 * 3600 {
		late := min(random.IntN(100), i)
		rounds = append(rounds, late)
		s.round(wal.LSN(10_000+i), at("n2", wal.LSN(10_000+i-late)))
	}
	r := s.only(t)
	for name, tt := range map[string]struct {
		got    stats.Quantiles
		rounds int // that the window has
		near   float64
	}{
		"1m":  {r.OneMinute, 121, 0},
		"10m": {r.TenMinutes, 1200, 1500},
		"1h":  {r.OneHour, 7200, 1500},
	} {
		if tt.got.Samples > tt.rounds || tt.got.Samples < tt.rounds*5/6 {
			t.Errorf("%s: %d samples, want five sixths of %d or more", name, tt.got.Samples, tt.rounds)
		}
		lags := slices.Clone(rounds[len(rounds)-tt.got.Samples:])
		slices.Sort(lags)
		for q, got := range map[float64]float64{0.50: tt.got.P50, 0.95: tt.got.P95, 0.99: tt.got.P99, 1: tt.got.Max} {
			want := float64(lags[int(q*float64(len(lags)-1)+0.5)]) * 500
			if math.Abs(got-want) > tt.near {
				t.Errorf("%s: quantile %v = %v ms, want %v", name, q, got, want)
			}
		}
	}
}

func TestWindowsForgetWhatIsOlder(t *testing.T) {
	s := newStory()
	for i := range wal.LSN(120) { // a minute cut off
		s.round(1000+i, at("n2", 1000))
	}
	for range 2*60 + 1 {
		s.round(2000, at("n2", 2000))
	}
	if r := s.only(t); r.OneMinute.Max != 0 || r.TenMinutes.Max == 0 || r.OneHour.Max == 0 {
		t.Errorf("after a minute: %+v, %+v, %+v; want it in the longer two", r.OneMinute, r.TenMinutes, r.OneHour)
	}
	for range 2 * 600 {
		s.round(2000, at("n2", 2000))
	}
	if r := s.only(t); r.TenMinutes.Max != 0 || r.OneHour.Max == 0 {
		t.Errorf("after ten minutes: %+v, %+v; want it in the longer one", r.TenMinutes, r.OneHour)
	}
	for range 2 * 3600 {
		s.round(2000, at("n2", 2000))
	}
	if r := s.only(t); r.OneHour.Max != 0 {
		t.Errorf("after an hour: %+v", r.OneHour)
	}
	s.now = s.now.Add(24 * time.Hour) // the observer slept
	s.round(2000, at("n2", 2000))
	if r := s.only(t); r.OneHour.Samples != 1 || r.TenMinutes.Samples != 1 || r.OneMinute.Samples != 1 {
		t.Errorf("after a day: %+v, %+v, %+v; want one sample", r.OneMinute, r.TenMinutes, r.OneHour)
	}
}

func TestHistoryIsInOrderAndBounded(t *testing.T) {
	s := newStory()
	for i := range wal.LSN(1500) {
		s.round(1000+i, at("n2", 1000))
	}
	points := s.History("n2")
	if len(points) != 1200 || !slices.IsSortedFunc(points, func(a, b stats.Point) int { return a.At.Compare(b.At) }) {
		t.Fatalf("%d points, want 1200 in order", len(points))
	}
	if got, want := points[1199], (stats.Point{At: s.now.Add(-interval), LagMS: 1499 * 500, BehindBytes: 1499}); got != want {
		t.Errorf("the newest is %+v, want %+v", got, want)
	}
}

func TestTheReportIsJSON(t *testing.T) {
	s := newStory()
	s.round(0x1000, at("n2", 0x1000), stats.Replica{Name: "n3", Unknown: true})
	text, err := json.Marshal(s.Report())
	if err != nil {
		t.Fatal(err)
	}
	const none = `{"samples":0,"p50_ms":0,"p95_ms":0,"p99_ms":0,"max_ms":0}`
	const one = `{"samples":1,"p50_ms":0,"p95_ms":0,"p99_ms":0,"max_ms":0}`
	want := `{"at":"2026-01-01T00:00:00Z","interval_ms":500,"primary":"n1","primary_lsn":"0/1000","primary_seen_ms":0,"replicas":[` +
		`{"name":"n2","write_lsn":"0/1000","flush_lsn":"0/1000","replay_lsn":"0/1000","behind_bytes":0,"lag_ms":0,"at_least":false,"trend":0,"1m":` + one + `,"10m":` + one + `,"1h":` + one + `},` +
		`{"name":"n3","write_lsn":"0/0","flush_lsn":"0/0","replay_lsn":"0/0","behind_bytes":null,"lag_ms":null,"at_least":false,"trend":0,"1m":` + none + `,"10m":` + none + `,"1h":` + none + `}]}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func TestRunObservesEachInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := stats.NewMonitor(interval)
		enough := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		var rounds []time.Duration
		began := time.Now()
		var running sync.WaitGroup
		running.Go(func() {
			err := m.Run(ctx, func(now time.Time) stats.Observation {
				rounds = append(rounds, now.Sub(began))
				return stats.Observation{At: now, Primary: stats.Primary{Name: "n1", LSN: 1, At: now}, Replicas: []stats.Replica{at("n2", 1)}}
			})
			if !errors.Is(err, enough) {
				t.Errorf("Run = %v, want %v", err, enough)
			}
		})
		time.Sleep(1200 * time.Millisecond)
		cancel(enough)
		running.Wait()
		if want := []time.Duration{0, interval, 2 * interval}; !slices.Equal(rounds, want) {
			t.Errorf("rounds at %v, want %v", rounds, want)
		}
		if _, known := m.Lag("n2"); !known {
			t.Error("nothing was measured")
		}
	})
}

// hundred returns a monitor that has measured 100 replicas for some rounds, most of them with lag, and
// what adds the next round.
func hundred(rounds int) (*stats.Monitor, func()) {
	m := stats.NewMonitor(interval)
	replicas := make([]stats.Replica, 100)
	now, lsn := start, wal.LSN(1_000_000)
	random := rand.New(rand.NewPCG(1, 2))
	round := func() {
		now, lsn = now.Add(interval), lsn+1000
		for i := range replicas {
			replicas[i] = at(replicas[i].Name, lsn-wal.LSN(i*random.IntN(1000)))
		}
		m.Add(stats.Observation{At: now, Primary: stats.Primary{Name: "n0", LSN: lsn, At: now}, Replicas: replicas})
	}
	for i := range replicas {
		replicas[i].Name = fmt.Sprintf("n%d", i+1)
	}
	for range rounds {
		round()
	}
	return m, round
}

func TestARoundAllocatesNothing(t *testing.T) {
	_, round := hundred(1300)
	if got := testing.AllocsPerRun(100, round); got > 0 {
		t.Errorf("%v allocations in a round of 100 replicas, want none", got)
	}
}

func BenchmarkRound(b *testing.B) {
	b.Run("replicas=100", func(b *testing.B) {
		_, round := hundred(2 * 3600)
		b.ReportAllocs()
		for b.Loop() {
			round()
		}
	})
}

func BenchmarkReport(b *testing.B) {
	b.Run("replicas=100", func(b *testing.B) {
		m, _ := hundred(2 * 3600)
		b.ReportAllocs()
		for b.Loop() {
			m.Report()
		}
	})
}
