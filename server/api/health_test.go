package api_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/apifake"
	"github.com/heliosdb/helios/internal/memnet"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/topology"
)

func TestLoadBalancersLearnWhereToSendWhat(t *testing.T) {
	lagging := func(name string, lag time.Duration, behind uint64) func(*apifake.Facts) {
		return func(f *apifake.Facts) {
			b := *f.Bulletin
			b.Nodes = slices.Clone(b.Nodes)
			for i := range b.Nodes {
				if b.Nodes[i].Name == name {
					b.Nodes[i].Lag, b.Nodes[i].Behind = lag, behind
				}
			}
			f.Bulletin = &b
		}
	}
	state := func(change func(*failover.State)) func(*apifake.Facts) {
		return func(f *apifake.Facts) {
			s := *f.State
			s.Members = slices.Clone(s.Members)
			change(&s)
			f.State = &s
		}
	}
	local := func(change func(*failover.Report)) func(*apifake.Facts) {
		return func(f *apifake.Facts) { change(&f.Local) }
	}
	down := local(func(r *failover.Report) {
		r.Postgres, r.Primary, r.Streaming, r.Reason = failover.ServerDown, false, false, "disk full"
	})
	witness := func(f *apifake.Facts) {
		f.Local = failover.Report{Node: "n1", Postgres: failover.ServerNone}
	}
	const yes, no = 200, 503
	for name, tt := range map[string]struct {
		node   string
		change func(*apifake.Facts)
		want   map[string]int
		reason map[string]string // part of it
	}{
		"primary": {"n2", nil, map[string]int{"/primary": yes, "/replica": no, "/read-only": yes, "/health": yes, "/ready": yes, "/liveness": yes}, map[string]string{
			"/replica": "it is a primary and not a replica",
		}},
		"replica": {"n1", nil, map[string]int{"/primary": no, "/replica": yes, "/read-only": yes, "/health": yes, "/ready": yes, "/liveness": yes}, map[string]string{
			"/primary": "it is a replica and not a primary",
		}},
		"primary without a lease": {"n2", func(f *apifake.Facts) { f.Lease = 0 }, map[string]int{"/primary": no, "/read-only": no, "/health": yes, "/ready": no}, map[string]string{
			"/primary": "no lease",
		}},
		"primary of an older epoch": {
			"n2", state(func(s *failover.State) { s.Epoch, s.Primary = 3, "n1" }),
			map[string]int{"/primary": no, "/read-only": no, "/health": yes, "/ready": no},
			map[string]string{"/primary": "the primary of epoch 3 is n1"},
		},
		"primary that is taking over": {"n2", state(func(s *failover.State) { s.Phase = failover.PhaseElected }), map[string]int{"/primary": no, "/ready": no}, map[string]string{
			"/primary": "epoch 2 is elected",
		}},
		"server down": {"n2", down, map[string]int{"/primary": no, "/replica": no, "/read-only": no, "/health": no, "/ready": no, "/liveness": yes}, map[string]string{
			"/primary": "PostgreSQL is down: disk full", "/health": "PostgreSQL is down: disk full",
		}},
		"diverged standby": {
			"n1", local(func(r *failover.Report) { r.Postgres = failover.ServerDiverged }),
			map[string]int{"/replica": no, "/read-only": no, "/ready": no},
			map[string]string{"/replica": "PostgreSQL is diverged"},
		},
		"replica that receives nothing": {"n1", local(func(r *failover.Report) { r.Streaming = false }), map[string]int{"/replica": yes, "/health": yes, "/ready": no}, map[string]string{
			"/ready": "receives no WAL",
		}},
		"replica in maintenance": {
			"n1", state(func(s *failover.State) { s.Members[0].Maintenance = true }),
			map[string]int{"/replica": no, "/read-only": no, "/health": yes, "/ready": yes},
			map[string]string{"/replica": "maintenance"},
		},
		"nobody leads": {"n1", func(f *apifake.Facts) { f.LeaderName = "" }, map[string]int{"/replica": yes, "/health": yes, "/ready": no}, map[string]string{"/ready": "nobody leads"}},
		"witness": {"n1", witness, map[string]int{"/primary": no, "/replica": no, "/read-only": no, "/health": yes, "/ready": yes, "/liveness": yes}, map[string]string{
			"/primary": "it is a witness and not a primary",
		}},
		"lag in time": {
			"n1", lagging("n1", 1500*time.Millisecond, 10<<20),
			map[string]int{"/replica": yes, "/replica?lag=2s": yes, "/replica?lag=1500ms": yes, "/replica?lag=1s": no, "/read-only?lag=1s": no, "/read-only?lag=1m": yes},
			map[string]string{"/replica?lag=1s": "it lags by 1.5s"},
		},
		"lag in bytes": {
			"n1", lagging("n1", 0, 10<<20),
			map[string]int{"/replica?lag=10MB": yes, "/replica?lag=9mb": no, "/replica?lag=1GB": yes, "/replica?lag=10485760": yes, "/replica?lag=10485759B": no, "/replica?lag=10240kB": yes},
			map[string]string{"/replica?lag=9mb": "10485760 bytes behind"},
		},
		"lag that is not known": {
			"n1", lagging("n1", -1, 0),
			map[string]int{"/replica": yes, "/replica?lag=1h": no, "/replica?lag=1TB": no},
			map[string]string{"/replica?lag=1h": "not known"},
		},
		"no bulletin yet":           {"n1", func(f *apifake.Facts) { f.Bulletin = nil }, map[string]int{"/replica": yes, "/replica?lag=1h": no}, nil},
		"lag does not matter there": {"n2", lagging("n2", -1, 0), map[string]int{"/primary?lag=1s": yes, "/read-only?lag=1s": yes}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := apifake.New(tt.node)
			if tt.change != nil {
				c.Change(tt.change)
			}
			h := api.New(api.Config{Cluster: c})
			for path, want := range tt.want {
				resp := ask(h, http.MethodGet, path, "")
				got := read[api.Health](t, resp)
				if resp.StatusCode != want || got.OK != (want == yes) || (got.Reason == "") != got.OK || got.Node != tt.node {
					t.Errorf("%s = %d %+v, want %d", path, resp.StatusCode, got, want)
				}
				if !strings.Contains(got.Reason, tt.reason[path]) {
					t.Errorf("%s: reason %q, want %q", path, got.Reason, tt.reason[path])
				}
				for _, method := range []string{http.MethodHead, http.MethodOptions} {
					resp := ask(h, method, path, "")
					if body, _ := io.ReadAll(resp.Body); resp.StatusCode != want || len(body) != 0 {
						t.Errorf("%s %s = %d with body %q, want %d without", method, path, resp.StatusCode, body, want)
					}
				}
			}
		})
	}
}

// What HAProxy sends unless it is told otherwise.
func TestHAProxyIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := memnet.New()
		serve(t, api.New(api.Config{Cluster: apifake.New("n2")}), mem.Listen(addr))
		for request, want := range map[string]string{
			"OPTIONS /primary HTTP/1.0\r\n\r\n":           "HTTP/1.0 200 OK\r\n",
			"OPTIONS /replica?lag=1MB HTTP/1.0\r\n\r\n":   "HTTP/1.0 503 Service Unavailable\r\n",
			"HEAD /read-only HTTP/1.1\r\nHost: x\r\n\r\n": "HTTP/1.1 200 OK\r\n",
		} {
			conn, err := mem.DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(conn, request)
			if line, err := bufio.NewReader(conn).ReadString('\n'); line != want {
				t.Errorf("%q = %q, %v, want %q", request, line, err, want)
			}
			conn.Close()
		}
	})
}

// A companion that is cut off keeps the last bulletin, and the lag in it does not grow.
func TestLagOfAnOldBulletinIsNotTrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := apifake.New("n1")
		h := api.New(api.Config{Cluster: c})
		status := func() int { return ask(h, http.MethodGet, "/replica?lag=1s", "").StatusCode }
		if got := status(); got != 200 {
			t.Fatalf("with a new bulletin: %d, want 200", got)
		}
		time.Sleep(api.BulletinTrust + time.Second)
		if got := status(); got != 503 {
			t.Errorf("with an old bulletin: %d, want 503", got)
		}
		if got := ask(h, http.MethodGet, "/replica", "").StatusCode; got != 200 {
			t.Errorf("with an old bulletin, whatever the lag: %d, want 200", got)
		}
		c.Publish(func(*topology.Bulletin) {})
		if got := status(); got != 200 {
			t.Errorf("with the next bulletin: %d, want 200", got)
		}
	})
}

func TestALoadBalancerThatSaysNothingIsToldByTheThreshold(t *testing.T) {
	for name, tt := range map[string]struct {
		lag  time.Duration
		path string
		want int
	}{
		"little lag":               {4 * time.Second, "/replica", 200},
		"more than the threshold":  {6 * time.Second, "/replica", 503},
		"for all reads":            {6 * time.Second, "/read-only", 503},
		"more is asked for":        {6 * time.Second, "/replica?lag=10s", 200},
		"less is asked for":        {4 * time.Second, "/replica?lag=1s", 503},
		"nobody knows":             {-1, "/replica", 200},
		"and somebody wants to":    {-1, "/replica?lag=10s", 503},
		"whether a node is itself": {6 * time.Second, "/health", 200},
	} {
		t.Run(name, func(t *testing.T) {
			c := apifake.New("n1")
			c.Publish(func(b *topology.Bulletin) { b.Nodes[0].Lag = tt.lag })
			h := api.New(api.Config{Cluster: c, LagThreshold: 5 * time.Second})
			if got := ask(h, http.MethodGet, tt.path, ""); got.StatusCode != tt.want {
				t.Errorf("%s with a lag of %v = %d, want %d", tt.path, tt.lag, got.StatusCode, tt.want)
			}
		})
	}
}
