package spelling

import "testing"

func TestDistanceCountsWhatHasToBeChanged(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", 0},
		{"", "demo", 4},
		{"demo", "demo", 0},
		{"dmeo", "demo", 2},
		{"rotue", "route", 2},
		{"pin", "ping", 1},
		{"", "ping", 4},
		{"versions", "version", 1},
		{"consistancy", "consistency", 1},
		{"balances", "balance", 1},
		{"kitten", "sitting", 3},
	} {
		for _, pair := range [][2]string{{tt.a, tt.b}, {tt.b, tt.a}} {
			if got := Distance(pair[0], pair[1]); got != tt.want {
				t.Errorf("Distance(%q, %q) = %d, want %d", pair[0], pair[1], got, tt.want)
			}
		}
	}
}
