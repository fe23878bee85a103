package agent

import (
	"strings"
	"testing"
	"time"
)

func TestAPrimaryWithoutALeaseIsJudgedByWhoIsHeard(t *testing.T) {
	const s = time.Second
	silent := func(n, of int) Around { return Around{Voters: of, Silent: n} }
	elected := func(primary string) Around { return Around{Voters: 3, Silent: 1, Epoch: 5, Primary: primary} }
	strict := rules{me: "n1", reign: 4, grace: 3 * s}
	lenient := strict
	lenient.lenient = true
	type question struct {
		asked, now time.Duration
		seen       Around
	}
	for name, tt := range map[string]struct {
		rules rules
		asked []question
		want  string // the last one's
	}{
		"a single node":                             {strict, []question{{0, s, silent(0, 1)}, {9 * s, 10 * s, silent(0, 1)}}, ""},
		"of two nobody decides alone":               {strict, []question{{0, s, silent(1, 2)}, {9 * s, 10 * s, silent(1, 2)}}, ""},
		"one of three is heard":                     {strict, []question{{0, s, silent(1, 3)}, {9 * s, 10 * s, silent(1, 3)}}, ""},
		"no other of three is heard":                {strict, []question{{0, s, silent(2, 3)}, {2 * s, 3 * s, silent(2, 3)}}, "2 of 3 voters are not heard"},
		"but not for long enough":                   {strict, []question{{0, s, silent(2, 3)}, {s, 2 * s, silent(2, 3)}}, ""},
		"nor when the machine has slept meanwhile":  {strict, []question{{0, 3600 * s, silent(2, 3)}}, ""},
		"somebody was heard in between":             {strict, []question{{0, s, silent(2, 3)}, {s, 2 * s, silent(1, 3)}, {2 * s, 3 * s, silent(2, 3)}, {3 * s, 4 * s, silent(2, 3)}}, ""},
		"two of five are heard, and three may vote": {strict, []question{{0, s, silent(3, 5)}, {2 * s, 3 * s, silent(3, 5)}}, "3 of 5"},
		"three of five are heard or are down":       {strict, []question{{0, s, silent(2, 5)}, {2 * s, 3 * s, silent(2, 5)}}, ""},
		"somebody knows a newer primary":            {strict, []question{{0, s, elected("n2")}}, "n2 is the primary of epoch 5"},
		"which is this node itself":                 {strict, []question{{0, s, elected("n1")}}, ""},
		"a primary of an older epoch is none":       {rules{me: "n1", reign: 5, grace: 3 * s}, []question{{0, s, elected("n2")}}, ""},
		"lenient, nobody is heard":                  {lenient, []question{{0, s, silent(2, 3)}, {9 * s, 10 * s, silent(2, 3)}}, ""},
		"lenient, somebody knows a newer primary":   {lenient, []question{{0, s, elected("n2")}}, "n2 is the primary"},
	} {
		t.Run(name, func(t *testing.T) {
			var alone solitude
			var got string
			for _, q := range tt.asked {
				got = alone.after(q.seen, q.asked, q.now, tt.rules)
			}
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("after the last question: %q, want %q", got, tt.want)
			}
		})
	}
}
