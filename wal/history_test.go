package wal_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/heliosdb/helios/wal"
)

func TestAHistoryFileTellsWhereEachTimelineBegan(t *testing.T) {
	const file = "1\t0/40F4C78\tno recovery target specified\n\n# by hand\n2\t0/5000000\tbefore 2000-01-01 00:00:00+00\n"
	got, err := wal.ParseHistory(4, []byte(file))
	want := wal.History{{Timeline: 2, LSN: 0x40F4C78}, {Timeline: 4, LSN: 0x5000000}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("ParseHistory(4, %q) = %v, %v; want %v", file, got, err, want)
	}
}

func TestAnEmptyHistoryFileTellsNothing(t *testing.T) {
	if got, err := wal.ParseHistory(1, []byte("# nothing\n")); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestWhatIsNoHistoryFileIsRefused(t *testing.T) {
	for name, file := range map[string]string{
		"no position":            "1\n",
		"not a position":         "1\there\treason\n",
		"not a timeline":         "one\t0/1\treason\n",
		"timeline zero":          "0\t0/1\treason\n",
		"timelines in disorder":  "2\t0/1\tr\n1\t0/2\tr\n",
		"positions in disorder":  "1\t0/2\tr\n2\t0/1\tr\n",
		"timeline of the future": "3\t0/1\tr\n",
	} {
		if got, err := wal.ParseHistory(3, []byte(file)); err == nil {
			t.Errorf("%s: ParseHistory(3, %q) = %v, want an error", name, file, got)
		}
	}
}

func FuzzParseHistory(f *testing.F) {
	f.Add(uint32(2), "1\t0/40F4C78\tno recovery target specified\n")
	f.Add(uint32(4), "1\t0/4\tx\n\n#\n2 0/5")
	f.Add(uint32(1), "")
	f.Fuzz(func(t *testing.T, timeline uint32, file string) {
		h, err := wal.ParseHistory(wal.Timeline(timeline), []byte(file))
		if err != nil {
			return
		}
		// Where a timeline begins is where the one before it ends. Only the
		// first line's own number is not in the history.
		var again strings.Builder
		before := uint64(firstTimeline(file))
		for _, s := range h {
			fmt.Fprintf(&again, "%d\t%s\treason\n", before, s.LSN)
			before = uint64(s.Timeline)
		}
		got, err := wal.ParseHistory(wal.Timeline(timeline), []byte(again.String()))
		if err != nil || !slices.Equal(got, h) {
			t.Fatalf("%q reads as %v, which reads as %v, %v", file, h, got, err)
		}
	})
}

// firstTimeline returns the number in the first line of a history file that is
// known to be well formed.
func firstTimeline(file string) (t uint32) {
	for line := range strings.Lines(file) {
		fields := strings.Fields(line)
		if len(fields) > 0 && fields[0][0] != '#' {
			fmt.Sscan(strings.TrimLeft(fields[0], "0"), &t)
			return t
		}
	}
	return 0
}
