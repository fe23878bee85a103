package rivals

import (
	"strings"
	"testing"
)

func TestIDsSpreadOverAllRows(t *testing.T) {
	for _, n := range []ids{1, 100, 1000} {
		seen := map[int]bool{}
		for i := range int(n) {
			id := n.of(i)
			if id < 1 || id > int(n) || seen[id] {
				t.Fatalf("%d rows: operation %d is on row %d, seen before: %v; want each of 1 to %d once", n, i, id, seen[id], n)
			}
			seen[id] = true
		}
	}
}

func TestAnAnswerToAnotherQuestionIsAnError(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want string // in the error; "" for none
	}{
		"the row":        {checkRow(3, 3, "Ada"), ""},
		"another row":    {checkRow(3, 4, "Ada"), "asked for the row of 3, got that of 4"},
		"an empty row":   {checkRow(3, 3, ""), "asked for the row of 3"},
		"the count":      {checkCount(1, 1), ""},
		"no row touched": {checkCount(0, 1), "0 rows, want 1"},
	} {
		if got := tt.err; (got == nil) != (tt.want == "") || got != nil && !strings.Contains(got.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, got, tt.want)
		}
	}
}
