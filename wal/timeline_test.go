package wal_test

import (
	"slices"
	"testing"

	"github.com/heliosdb/helios/wal"
)

func TestAPositionHoldsIffNoSwitchCameBeforeIt(t *testing.T) {
	known := wal.History{{Timeline: 2, LSN: 100}, {Timeline: 3, LSN: 200}, {Timeline: 5, LSN: 300}}
	for name, tt := range map[string]struct {
		at   wal.Position
		now  wal.Timeline
		want wal.Verdict
	}{
		"same timeline":                      {wal.Position{Timeline: 3, LSN: 1 << 40}, 3, wal.Kept},
		"before the switch":                  {wal.Position{Timeline: 1, LSN: 99}, 2, wal.Kept},
		"at the switch":                      {wal.Position{Timeline: 1, LSN: 100}, 2, wal.Kept},
		"after the switch":                   {wal.Position{Timeline: 1, LSN: 101}, 2, wal.Lost},
		"before the first of two":            {wal.Position{Timeline: 1, LSN: 100}, 3, wal.Kept},
		"after the first, before the second": {wal.Position{Timeline: 1, LSN: 150}, 3, wal.Lost},
		"a beginning in between is missing":  {wal.Position{Timeline: 3, LSN: 250}, 5, wal.Undecided},
		"lost though one is missing":         {wal.Position{Timeline: 3, LSN: 301}, 5, wal.Lost},
		"newer than now":                     {wal.Position{Timeline: 4, LSN: 9}, 3, wal.Kept},
		"nothing known":                      {wal.Position{Timeline: 5, LSN: 9}, 6, wal.Undecided},
	} {
		if got := known.Holds(tt.at, tt.now); got != tt.want {
			t.Errorf("%s: Holds(%s, %s) = %d, want %d", name, tt.at, tt.now, got, tt.want)
		}
	}
}

func TestAHistoryGrowsByCopies(t *testing.T) {
	empty := wal.History{}
	two := empty.With(wal.Switch{Timeline: 3, LSN: 200}).With(wal.Switch{Timeline: 2, LSN: 100})
	if want := (wal.History{{Timeline: 2, LSN: 100}, {Timeline: 3, LSN: 200}}); !slices.Equal(two, want) {
		t.Fatalf("got %v, want %v", two, want)
	}
	changed := two.With(wal.Switch{Timeline: 2, LSN: 90})
	if at, ok := changed.Begin(2); at != 90 || !ok {
		t.Errorf("Begin(2) = %s, %v after it was told anew, want 0/5A", at, ok)
	}
	if at, _ := two.Begin(2); at != 100 {
		t.Errorf("With changed its receiver: Begin(2) = %s", at)
	}
	if _, ok := two.Begin(7); ok {
		t.Error("Begin(7) is known, want unknown")
	}
}

func TestOfTwoStoriesAboutOneTimelineTheCautiousOneIsMerged(t *testing.T) {
	a := wal.History{{Timeline: 2, LSN: 100}, {Timeline: 3, LSN: 200}}
	b := wal.History{{Timeline: 2, LSN: 110}, {Timeline: 3, LSN: 190}, {Timeline: 4, LSN: 300}}
	want := wal.History{{Timeline: 2, LSN: 100}, {Timeline: 3, LSN: 190}, {Timeline: 4, LSN: 300}}
	if got := a.Merge(b); !slices.Equal(got, want) {
		t.Errorf("a.Merge(b) = %v, want %v", got, want)
	}
	if got := b.Merge(a); !slices.Equal(got, want) {
		t.Errorf("b.Merge(a) = %v, want %v", got, want)
	}
}

func TestTextOfTimelineAndPosition(t *testing.T) {
	if got := (wal.Position{Timeline: 3, LSN: 0x16_B374D848}).String(); got != "3:16/B374D848" {
		t.Errorf("got %q", got)
	}
}

func TestATimelineIsAnAncestorIfTheHistoryPassedThroughIt(t *testing.T) {
	known := wal.History{{Timeline: 2, LSN: 100}, {Timeline: 5, LSN: 300}}
	for of, want := range map[wal.Timeline]bool{1: true, 2: true, 3: false, 4: false, 5: true, 6: false} {
		if got := known.Ancestor(of, 5); got != want {
			t.Errorf("Ancestor(%s, 5) = %v, want %v", of, got, want)
		}
	}
	if (wal.History{}).Ancestor(1, 2) {
		t.Error("an empty history knows that 1 is an ancestor of 2")
	}
	if got := wal.Timeline(0x1A).HistoryFile(); got != "0000001A.history" {
		t.Errorf("HistoryFile() = %q", got)
	}
}
