package walbench

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
)

func TestRatiosAreThoseWithinARound(t *testing.T) {
	b := &bench{report: newReport()}
	round := 0
	turn := func(factor float64) func(context.Context) (measure, error) {
		return func(context.Context) (measure, error) {
			return measure{unitRate: factor * float64(int(1)<<(2*round))}, nil // each round four times as fast
		}
	}
	paths := []path{{pathDirect, turn(10)}, {pathRelay, turn(9)}, {"odd", func(context.Context) (measure, error) { return measure{}, nil }}}
	err := b.turns(t.Context(), "fanout", "20", []string{unitRate}, paths, func(context.Context) error {
		round++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.report.find("fanout", "20", pathRelay, unitRate); got.Ratio != 0.9 || got.Value != 9*16 {
		t.Errorf("the relay has %+v, want the middle round's 144 and a ratio of 0.9", got)
	}
	if got := b.report.find("fanout", "20", pathDirect, unitRate); got.Ratio != 0 || got.Value != 160 {
		t.Errorf("direct has %+v, want the middle round's 160 and no ratio", got)
	}
	if n := len(b.report.Results[2].Figures); n != 0 || b.report.Results[2].Rounds != fewest {
		t.Errorf("%d figures of what was not measured, in %d rounds; want none in %d", n, b.report.Results[2].Rounds, fewest)
	}
}

func TestTargetsAreMetOrMissed(t *testing.T) {
	r := newReport()
	r.want("at most", true, 0.4, "×", 0.33)
	r.want("at least", false, 2, "×", 1.9)
	r.want("not measured", false, 2, "×", 0)
	if len(r.Targets) != 2 || !r.Targets[0].Met() || r.Targets[1].Met() {
		t.Errorf("targets %+v, want the first met, the second missed, and no third", r.Targets)
	}
}

func TestTheReportIsATableAndAnObject(t *testing.T) {
	r := &Report{Server: "PostgreSQL 15.18", Go: "go1.26", System: "linux/amd64", CPUs: 2, Load: []string{"1 2 3", "4 5 6"}}
	r.Results = []Result{
		{Workload: "fanout", Case: "20 subscribers", Path: pathDirect, Rounds: 3, Figures: []Figure{{Unit: unitRate, Value: 724}}},
		{Workload: "fanout", Case: "20 subscribers", Path: pathRelay, Rounds: 3, Figures: []Figure{{unitRate, 880.4, 1.126}, {unitRelay, 0.2481, 0}}},
		{Workload: "idle", Case: "one standby", Path: pathRelay, Rounds: 1, Figures: []Figure{{Unit: "% of a core", Value: 0.04}}},
	}
	r.want("fan-out", true, 0.4, "×", 0.33)
	var out strings.Builder
	if err := r.Write(&out, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"PostgreSQL 15.18; go1.26, linux/amd64, 2 CPUs; load average 1 2 3, then 4 5 6\n",
		"20 subscribers  direct  3  724        -\n",
		"20 subscribers  relay   3  880 ×1.13  0.248\n",
		"one standby  relay  1  0.040\n",
		"fan-out  ≤ 0.400 ×  0.330  met\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	out.Reset()
	var back Report
	if err := r.Write(&out, true); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil || back.find("fanout", "20 subscribers", pathRelay, unitRate).Ratio != 1.126 {
		t.Errorf("%v, and %+v came back", err, back)
	}
}

// echo answers what it is asked.
type echo struct{ closed bool }

func (e *echo) answer(_ context.Context, request json.RawMessage) (any, error) {
	var text string
	if err := json.Unmarshal(request, &text); err != nil {
		return nil, err
	}
	if text == "fail" {
		return nil, io.ErrNoProgress
	}
	return text + "!", nil
}

func (e *echo) close() error {
	e.closed = true
	return nil
}

func TestAChildAnswersUntilItsInputEnds(t *testing.T) {
	e := &echo{}
	var out strings.Builder
	if err := serveRole(t.Context(), e, strings.NewReader("\"a\"\n\"fail\"\n\"b\"\n"), &out); err != nil || !e.closed {
		t.Fatalf("serveRole = %v, closed %v", err, e.closed)
	}
	want := []string{`{"body":"a!"}`, `{"error":"` + io.ErrNoProgress.Error() + `"}`, `{"body":"b!"}`}
	if got := strings.Split(strings.TrimSpace(out.String()), "\n"); !slices.Equal(got, want) {
		t.Errorf("it answered %q, want %q", got, want)
	}
}

func TestPgbenchOutputHasItsRate(t *testing.T) {
	const out = "number of transactions actually processed: 12\nlatency average = 1.3 ms\ntps = 745.123 (without initial connection time)\n"
	if got, err := tpsOf(out); err != nil || got != 745.123 {
		t.Errorf("tpsOf = %v, %v, want 745.123", got, err)
	}
	if _, err := tpsOf("pgbench: nothing"); err == nil {
		t.Error("tpsOf finds a rate in what has none")
	}
}
