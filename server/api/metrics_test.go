package api_test

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/apifake"
	"github.com/heliosdb/helios/server/api"
)

// scrape returns what /metrics says, by series.
func scrape(t *testing.T, h *api.Handler) map[string]string {
	t.Helper()
	resp := ask(h, "GET", "/metrics", "")
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET /metrics = %s, %v: %s", resp.Status, err, text)
	}
	series := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)(\{.*\})? (\S+)$`).FindAllStringSubmatch(string(text), -1) {
		name := m[1]
		if m[2] != "" { // labels come in no particular order
			labels := strings.Split(strings.Trim(m[2], "{}"), ",")
			slices.Sort(labels)
			name += "{" + strings.Join(labels, ",") + "}"
		}
		series[name] = m[3]
	}
	return series
}

func TestMetricsSayWhatTheCompanionKnows(t *testing.T) {
	m := api.NewMetrics()
	c := apifake.New("n2")
	h := api.New(api.Config{Cluster: c, Metrics: m})
	m.GateConfirmed(3 * time.Millisecond)
	m.Rejoined("rewind", 2*time.Second)
	ask(h, "POST", "/v1/pause", "{}")
	got := scrape(t, h)
	for series, want := range map[string]string{
		`helios_epoch{node="n2"}`:                                              "2",
		`helios_phase{node="n2",phase="ready"}`:                                "1",
		`helios_phase{node="n2",phase="fenced"}`:                               "0",
		`helios_timeline{node="n2"}`:                                           "2",
		`helios_fence_total{node="n2"}`:                                        "1",
		`helios_paused{node="n2"}`:                                             "0",
		`helios_members{node="n2"}`:                                            "3",
		`helios_sync_members{node="n2"}`:                                       "2",
		`helios_sync_k{node="n2"}`:                                             "1",
		`helios_sealed_lsn{member="n3",node="n2"}`:                             "16128",
		`helios_is_primary{node="n2"}`:                                         "1",
		`helios_is_leader{node="n2"}`:                                          "0",
		`helios_has_leader{node="n2"}`:                                         "1",
		`helios_postgres_up{node="n2"}`:                                        "1",
		`helios_streaming{node="n2"}`:                                          "0",
		`helios_lease_remaining_seconds{node="n2"}`:                            "1.5",
		`helios_watch_listeners{node="n2"}`:                                    "0",
		`helios_raft_term{node="n2"}`:                                          "3",
		`helios_raft_commit_index{node="n2"}`:                                  "12",
		`helios_raft_applied_index{node="n2"}`:                                 "12",
		`helios_raft_last_contact_seconds{node="n2"}`:                          "0.02",
		`helios_member_up{member="n1",node="n2"}`:                              "1",
		`helios_member_lag_seconds{member="n1",node="n2"}`:                     "0.03",
		`helios_member_behind_bytes{member="n1",node="n2"}`:                    "256",
		`helios_wal_connected{node="n2"}`:                                      "1",
		`helios_wal_received_bytes_total{node="n2"}`:                           "16384",
		`helios_wal_subscribers{node="n2"}`:                                    "1",
		`helios_gate_ack_seconds_count{node="n2"}`:                             "1",
		`helios_rejoin_seconds_count{method="rewind",node="n2"}`:               "1",
		`helios_orders_total{node="n2",order="pause",outcome="done"}`:          "1",
		`helios_failovers_total{node="n2",outcome="done",reason="failure"}`:    "0",
		`helios_failovers_total{node="n2",outcome="aborted",reason="planned"}`: "0",
	} {
		if got[series] != want {
			t.Errorf("%s = %q, want %q", series, got[series], want)
		}
	}
	for _, want := range []string{"go_goroutines", "process_cpu_seconds_total"} {
		if got[want] == "" {
			t.Errorf("there is no %s", want)
		}
	}
	if lag, ok := got[`helios_member_lag_seconds{member="n2",node="n2"}`]; ok {
		t.Errorf("the primary has a lag: %s", lag)
	}
}

func TestMetricsOfAWitnessHaveNoRelay(t *testing.T) {
	c := apifake.New("n1")
	c.Change(func(f *apifake.Facts) { f.WAL, f.Bulletin = nil, nil })
	for series := range scrape(t, api.New(api.Config{Cluster: c})) {
		if strings.HasPrefix(series, "helios_wal_") || strings.HasPrefix(series, "helios_member_") {
			t.Errorf("there is %s", series)
		}
	}
}

func TestFailoversAreCountedOnceTheyHaveEnded(t *testing.T) {
	c := apifake.New("n1")
	h := api.New(api.Config{Cluster: c})
	expect := func(when string, want map[string]int) {
		t.Helper()
		got := scrape(t, h)
		for _, reason := range []string{"failure", "planned", "forced"} {
			for _, outcome := range []string{"done", "aborted"} {
				series := fmt.Sprintf(`helios_failovers_total{node="n1",outcome=%q,reason=%q}`, outcome, reason)
				if got[series] != fmt.Sprint(want[reason+" "+outcome]) {
					t.Errorf("%s: %s = %s, want %d", when, series, got[series], want[reason+" "+outcome])
				}
			}
		}
		timed := want["failure done"] + want["planned done"] + want["forced done"]
		if series := `helios_failover_seconds_count{node="n1",phase="promote"}`; timed > 0 && got[series] != fmt.Sprint(timed) {
			t.Errorf("%s: %s = %q, want %d", when, series, got[series], timed)
		}
	}
	later := time.Now().Add(time.Minute)
	expect("what the log had before the start", map[string]int{})

	c.SetState(func(s *failover.State) {
		s.Epoch, s.Phase = 3, failover.PhaseFenced
		s.History = append(s.History, failover.Transition{Epoch: 3, From: "n2", At: later})
	})
	expect("a failover under way", map[string]int{})

	c.SetState(func(s *failover.State) {
		s.Phase, s.Primary = failover.PhaseReady, "n1"
		s.History[2].To, s.History[2].Timing = "n1", failover.Timing{Promote: 70 * time.Millisecond}
	})
	expect("that has ended", map[string]int{"failure done": 1})
	expect("and is not counted again", map[string]int{"failure done": 1})

	c.SetState(func(s *failover.State) {
		s.Epoch = 6
		s.History = append(
			s.History,
			failover.Transition{Epoch: 4, From: "n1", At: later, Planned: true, Aborted: "n3 did not stop"},
			failover.Transition{Epoch: 5, From: "n1", To: "n3", At: later, Planned: true},
			failover.Transition{Epoch: 6, From: "n3", To: "n1", At: later, Forced: true},
		)
	})
	expect("three at once", map[string]int{"failure done": 1, "planned aborted": 1, "planned done": 1, "forced done": 1})
}
