package lag_test

import (
	"testing"
	"time"

	"github.com/heliosdb/helios/lag"
	"github.com/heliosdb/helios/wal"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time {
	return start.Add(time.Duration(seconds * float64(time.Second)))
}

// writes returns the history of a primary that stood at 100 in second 1, was
// idle until second 4, and wrote up to 200 in second 5 and 300 in second 6.
func writes() *lag.History {
	h := &lag.History{}
	h.Add(at(1), 100)
	h.Add(at(4), 100)
	h.Add(at(5), 200)
	h.Add(at(6), 300)
	return h
}

func TestLagIsTheAgeOfTheNewestDataShown(t *testing.T) {
	for name, tt := range map[string]struct {
		replayed wal.LSN
		now      float64
		want     time.Duration
		known    bool
	}{
		"caught up":                        {300, 6, 0, true},
		"ahead of the newest sample":       {350, 9, 0, true},
		"idle and caught up for long":      {300, 3600, 0, true},
		"one write behind":                 {200, 6, time.Second, true},
		"in the middle of a write":         {250, 6.5, 1500 * time.Millisecond, true},
		"cut off before the primary wrote": {100, 60, 56 * time.Second, true},
		"asked before the sample was made": {200, 4, 0, true},
		"older than the history":           {99, 6, 0, false},
	} {
		got, known := writes().LagOf(tt.replayed, at(tt.now))
		if got != tt.want || known != tt.known {
			t.Errorf("%s: LagOf(%s, %vs) = %v, %v; want %v, %v", name, tt.replayed, tt.now, got, known, tt.want, tt.known)
		}
	}
}

func TestThePositionToWaitForIsTheFirstSeenSince(t *testing.T) {
	for name, tt := range map[string]struct {
		since float64
		want  wal.LSN
		known bool
	}{
		"before anything was seen": {0, 100, true},
		"while it was idle":        {3, 100, true},
		"the moment it was seen":   {4, 100, true},
		"just after":               {4.5, 200, true},
		"the newest":               {6, 300, true},
		"since then nothing":       {6.1, 0, false},
	} {
		got, known := writes().At(at(tt.since))
		if got != tt.want || known != tt.known {
			t.Errorf("%s: At(%vs) = %s, %v; want %s, %v", name, tt.since, got, known, tt.want, tt.known)
		}
	}
}

func TestAnEmptyHistoryKnowsNothing(t *testing.T) {
	var h lag.History
	if _, ok := h.LagOf(1, start); ok {
		t.Error("LagOf is known")
	}
	if _, ok := h.At(start); ok {
		t.Error("At is known")
	}
	if _, ok := h.Newest(); ok {
		t.Error("Newest is known")
	}
}

func TestWhatAFailoverCutOffIsForgotten(t *testing.T) {
	h := writes()
	h.Add(at(7), 250)
	if got, _ := h.Newest(); got != 250 {
		t.Errorf("Newest() = %s, want 0/FA", got)
	}
	if got, _ := h.At(at(5.5)); got != 250 {
		t.Errorf("At(5.5s) = %s, want 0/FA: nobody reaches 0/12C any more", got)
	}
}

func TestALateSampleIsIgnored(t *testing.T) {
	h := writes()
	h.Add(at(5.5), 150)
	if got, _ := h.At(at(5.5)); got != 300 {
		t.Errorf("At(5.5s) = %s, want 0/12C", got)
	}
}

func TestForgettingNeverMakesAnAnswerTooGood(t *testing.T) {
	var h lag.History
	const samples = 20 * lag.Capacity
	for i := range samples {
		h.Add(at(float64(i)), wal.LSN(1000+10*i))
	}
	now := at(samples)
	for i := range samples - 1 {
		lsn := wal.LSN(1000 + 10*i)
		if got, ok := h.LagOf(lsn, now); !ok || got < now.Sub(at(float64(i))) {
			t.Fatalf("LagOf(%s) = %v, %v; want at least %v", lsn, got, ok, now.Sub(at(float64(i))))
		}
		if got, ok := h.At(at(float64(i))); !ok || got < lsn {
			t.Fatalf("At(%ds) = %s, %v; want at least %s", i, got, ok, lsn)
		}
	}
	if got, _ := h.LagOf(wal.LSN(1000+10*(samples-100)), now); got != 100*time.Second {
		t.Errorf("the recent past is coarse: lag %v, want 1m40s", got)
	}
}

func BenchmarkHistoryAdd(b *testing.B) {
	var h lag.History
	i := 0
	for b.Loop() {
		h.Add(at(float64(i)), wal.LSN(i))
		i++
	}
}
