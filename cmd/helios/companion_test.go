package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/lag/stats"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/topology"
)

// A fakeCompanion answers what it is told to, and keeps what it was asked.
type fakeCompanion struct {
	addr string

	mu       sync.Mutex
	overview api.Overview // guarded by mu
	refusal  *api.Error   // guarded by mu; of every order
	passing  bool         // guarded by mu; refuse one order only
	asked    []string     // guarded by mu; orders, with their bodies
	token    string       // guarded by mu; that came with the last one
}

// startFake starts a companion of a cluster that is well: n1 is the primary of n2 and
// of the witness w.
func startFake(t *testing.T) *fakeCompanion {
	t.Helper()
	f := &fakeCompanion{overview: wellOverview()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/cluster", func(w http.ResponseWriter, _ *http.Request) { f.tell(w, &f.overview) })
	mux.HandleFunc("GET /v1/settings", func(w http.ResponseWriter, _ *http.Request) {
		f.tell(w, api.SettingsOf(failover.DefaultSettings()))
	})
	mux.HandleFunc("GET /v1/lag", func(w http.ResponseWriter, _ *http.Request) { f.tell(w, wellLag()) })
	mux.HandleFunc("GET /v1/history", func(w http.ResponseWriter, _ *http.Request) { f.tell(w, wellHistory()) })
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		f.tell(w, api.Health{Node: "n1", Role: "primary", Epoch: 4, LeaseMS: 1500})
	})
	mux.HandleFunc("GET /v1/watch", f.watch)
	mux.HandleFunc("/", f.order)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	f.addr = strings.TrimPrefix(server.URL, "http://")
	t.Setenv("HELIOS_COMPANION", f.addr)
	t.Setenv("HELIOS_TLS", "")
	t.Setenv("HELIOS_TOKEN_FILE", "")
	return f
}

// wellOverview is what a healthy cluster says.
func wellOverview() api.Overview {
	b := &topology.Bulletin{
		SystemID: 7301, Epoch: 4, Phase: "ready", Timeline: 3, Primary: "n1", Companion: "n2", Term: 5, Seq: 9,
		Nodes: []topology.Reported{
			{Name: "n1", Addr: "db1:5432", Role: "primary", State: "up", Timeline: 3, CurrentLSN: 0x5000, Age: 20 * time.Millisecond},
			{Name: "n2", Addr: "db2:5432", Role: "replica", State: "up", Timeline: 3, ReceiveLSN: 0x5000, ReplayLSN: 0x4000, Streaming: true, Lag: 12 * time.Millisecond, Age: 1500 * time.Millisecond},
			{Name: "w", Companion: "127.0.0.1:97", Role: "witness", State: "up"},
		},
	}
	return api.Overview{
		Companion: "n1", Leader: api.Leader{Name: "n2", Address: "127.0.0.1:17"}, SystemID: 7301, Epoch: 4, Phase: failover.PhaseReady,
		Primary: "n1", Timeline: 3, Settings: api.SettingsOf(failover.DefaultSettings()), Bulletin: b,
		Members: []failover.Member{
			{Name: "n1", Companion: "127.0.0.1:7", Postgres: "db1:5432"},
			{Name: "n2", Companion: "127.0.0.1:17", Postgres: "db2:5432", Zone: "eu1a", Priority: 5},
			{Name: "w", Companion: "127.0.0.1:97", Witness: true},
		},
	}
}

// wellLag is what is measured of a replica, and of one that nobody hears.
func wellLag() stats.Report {
	return stats.Report{Primary: "n1", Replicas: []stats.ReplicaReport{{
		Name: "n2", LagMS: new(12.0), BehindBytes: new(uint64(4096)), Trend: 3,
		OneMinute: stats.Quantiles{Samples: 9, P50: 10, P95: 15, P99: 1500}, TenMinutes: stats.Quantiles{Samples: 90, P50: 11, P95: 16, P99: 2000},
	}}}
}

// wellHistory is a failover, and a switchover that was given up.
func wellHistory() api.History {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	return api.History{Transitions: []api.Transition{
		{
			Transition: failover.Transition{Epoch: 3, From: "n2", To: "n1", Reason: "n2 is dead", At: at, Timeline: 3},
			Timing:     api.Timing{DetectMS: 12, FenceMS: 3, SealMS: 20, ElectMS: 4, PromoteMS: 80, TotalMS: 119},
		},
		{Transition: failover.Transition{Epoch: 4, From: "n1", Reason: "by order", Planned: true, At: at, Aborted: "it did not stop"}},
	}}
}

func (f *fakeCompanion) tell(w http.ResponseWriter, v any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	json.NewEncoder(w).Encode(v)
}

// watch tells two bulletins, and then nothing until the listener goes.
func (f *fakeCompanion) watch(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	first := *f.overview.Bulletin
	f.mu.Unlock()
	second := first
	second.Seq, second.Epoch, second.Phase, second.Primary, second.Hold = 10, 5, "fenced", "", true
	second.Nodes = append([]topology.Reported(nil), first.Nodes[:2]...)
	second.Warnings = []string{"epoch 5 has nobody who could take over"}
	second.Nodes[0].Role, second.Nodes[0].State, second.Nodes[0].Reason = "unknown", "down", "the connection broke"
	encoder := json.NewEncoder(w)
	for _, b := range []topology.Bulletin{first, first, second} {
		encoder.Encode(b)
	}
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// order keeps the order, and says that it is done.
func (f *fakeCompanion) order(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(body)))
	f.token = r.Header.Get("Authorization")
	refusal := f.refusal
	if f.passing {
		f.refusal = nil
	}
	f.mu.Unlock()
	if refusal != nil {
		w.WriteHeader(refusal.Status())
		f.tell(w, refusal)
		return
	}
	f.tell(w, api.Done{Order: "it", Epoch: 5, Phase: failover.PhaseReady, Primary: "n2"})
}

// orders returns what the companion was told to do.
func (f *fakeCompanion) orders() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.asked, "\n")
}

func TestStatusShowsEveryMember(t *testing.T) {
	f := startFake(t)
	f.overview.Members[0].Companion = f.addr
	f.overview.Members = append(f.overview.Members, failover.Member{Name: "n9", Companion: "127.0.0.1:1", Postgres: "db9:5432", NonVoter: true})
	f.overview.Bulletin.Warnings = []string{"n2 runs as a primary, and so does n1"}
	code, out, stderr := runHelios(t.Context(), "", "status")
	want := `cluster 7301, epoch 4 ready, async, lease 2s, led by n2
look: n2 runs as a primary, and so does n1
MEMBER  HOST          ROLE     STATE    TL  LSN     RECV  REPLAY  LAG   EPOCH  LEASE  NOTE
n1      db1:5432      primary  up       3   0/5000  -     -       -     4      1.5s
n2      db2:5432      replica  up       3   0/4000  0     4096 B  12ms  -      -      priority 5; zone eu1a
w       127.0.0.1:97  witness  up       -   -       -     -       -     -      -
n9      db9:5432      unknown  unknown  -   -       -     -       -     -      -      no vote; was never heard of
`
	if code != exitOK || out != want {
		t.Errorf("status: exit code %d, %q, it said\n%s\nwant\n%s", code, stderr, out, want)
	}
}

func TestWhatCannotServeIsAnExitCode(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*fakeCompanion)
		args  string
		code  int
		want  string
	}{
		"no writes":      {func(f *fakeCompanion) { f.overview.Bulletin.Primary = "" }, "status", exitFailed, "no node takes writes"},
		"a dead primary": {func(f *fakeCompanion) { f.overview.Bulletin.Nodes[0].State = "down" }, "status", exitFailed, "no node takes writes: n1 is down"},
		"a lost primary": {func(f *fakeCompanion) {
			n := &f.overview.Bulletin.Nodes[0]
			n.State, n.Reason = "unknown", "its companion has been silent for 7s"
		}, "status", exitFailed, "no node takes writes: n1 is unknown: its companion has been silent for 7s"},
		"a new leader": {func(f *fakeCompanion) {
			f.overview.Members[0].Companion = f.addr // which has a lease
			n := &f.overview.Bulletin.Nodes[0]
			n.State, n.Reason = "unknown", "this companion has not been heard of"
		}, "status", exitOK, ""},
		"no leader": {func(f *fakeCompanion) { f.overview.Bulletin, f.overview.Leader = nil, api.Leader{} }, "status", exitFailed, "no companion leads"},
		"just started": {func(f *fakeCompanion) {
			f.overview = api.Overview{Companion: "n3"}
		}, "status", exitFailed, "n3 was just started, and hears from no other companion yet"},
		"taken out":  {func(f *fakeCompanion) { f.overview.Companion = "n4" }, "status", exitFailed, "n4 is no member of the cluster: what it tells is old"},
		"a pause":    {func(f *fakeCompanion) { f.overview.Bulletin, f.overview.Paused = nil, true }, "status", exitFailed, "paused"},
		"lag":        {nil, "lag --max 10ms", exitFailed, "n2 is 12ms behind, more than 10ms"},
		"little lag": {nil, "lag --max 1s", exitOK, ""},
		"refused": {func(f *fakeCompanion) {
			f.refusal = &api.Error{Code: api.CodeRefused, Message: "n2 lags", Hint: "wait"}
		}, "switchover n2", exitRefused, "helios: switchover: n2 lags\nhint: wait\n"},
		"unauthorized":     {func(f *fakeCompanion) { f.refusal = &api.Error{Code: api.CodeUnauthorized, Message: "no token"} }, "pause", exitRefused, "hint: give a token with --token_file"},
		"nobody leads":     {func(f *fakeCompanion) { f.refusal = &api.Error{Code: api.CodeNoLeader, Message: "nobody leads"} }, "pause --timeout 250ms", exitFailed, "hint: more than half"},
		"nobody there":     {nil, "status --companion 127.0.0.1:1", exitAway, "no companion answers"},
		"nobody to watch":  {nil, "watch --companion 127.0.0.1:1,127.0.0.1:2", exitAway, "refused"},
		"no address":       {nil, "status --companion somewhere", exitUsage, "--companion: "},
		"argument":         {nil, "status n1", exitUsage, `"n1" is not understood`},
		"no node":          {nil, "promote", exitUsage, "want the name of one node"},
		"two nodes":        {nil, "switchover n1 n2", exitUsage, "want one node at most"},
		"neither":          {nil, "maintenance n1", exitUsage, "want on or off"},
		"no timeout":       {nil, "status --timeout 0", exitUsage, "--timeout must be more than 0"},
		"no setting":       {nil, "settings set leese=3s", exitUsage, "did you mean lease?"},
		"setting as it is": {nil, "settings set lease", exitUsage, `"lease" is not NAME=VALUE`},
		"a member already": {nil, "replicas add n2", exitUsage, "n2 is a member already"},
		"loss for nothing": {nil, "failover --accept_loss n1", exitUsage, "--accept_loss is for --force"},
		"certificates":     {nil, "status --tls /nowhere", exitFailed, "neither node.crt nor client.crt is there"},
		"token":            {nil, "pause --token_file /nowhere", exitFailed, "token: stat /nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFake(t)
			if tt.spoil != nil {
				tt.spoil(f)
			}
			code, _, stderr := runHelios(t.Context(), "", strings.Fields(tt.args)...)
			if code != tt.code || !strings.Contains(stderr, tt.want) {
				t.Errorf("helios %s: exit code %d, it said %q; want %d, %q", tt.args, code, stderr, tt.code, tt.want)
			}
		})
	}
}

func TestOrdersAreToldAsTheyWereTyped(t *testing.T) {
	for args, want := range map[string]string{
		"switchover":                           `POST /v1/switchover {}`,
		"switchover n2":                        `POST /v1/switchover {"to":"n2"}`,
		"switchover --to n2":                   `POST /v1/switchover {"to":"n2"}`,
		"promote n2":                           `POST /v1/promote {"node":"n2"}`,
		"failover":                             `POST /v1/failover {}`,
		"failover n2 --force --accept-loss n1": `POST /v1/failover {"to":"n2","force":true,"accept_loss":"n1"}`,
		"pause":                                `POST /v1/pause {}`,
		"resume":                               `POST /v1/resume {}`,
		"maintenance on n2":                    `POST /v1/maintenance {"node":"n2","on":true}`,
		"maintenance off n2":                   `POST /v1/maintenance {"node":"n2","on":false}`,
		"reinit n2":                            `POST /v1/reinit {"node":"n2"}`,
		"replicas remove n2":                   `DELETE /v1/nodes/n2`,
		"settings set k=2 lease=3s auto_failover=off max_failover_lag=16MB": `PATCH /v1/settings {"k":2,"auto_failover":false,"lease":"3s","max_failover_lag":16777216}`,
	} {
		t.Run(args, func(t *testing.T) {
			f := startFake(t)
			code, out, stderr := runHelios(t.Context(), "", strings.Fields(args)...)
			if got := f.orders(); code != exitOK || got != want {
				t.Errorf("helios %s: exit code %d, %q; the companion heard %q, want %q", args, code, stderr, got, want)
			}
			if !strings.HasPrefix(out, "it done in ") || !strings.HasSuffix(out, ": epoch 5, n2 is the primary\n") {
				t.Errorf("helios %s said %q", args, out)
			}
		})
	}
}

func TestAnElectionIsWaitedFor(t *testing.T) {
	f := startFake(t)
	f.refusal = &api.Error{Code: api.CodeNoLeader, Message: "nobody leads"}
	f.passing = true
	if code, _, stderr := runHelios(t.Context(), "", "pause"); code != exitOK {
		t.Errorf("exit code %d, %q, though somebody leads by now", code, stderr)
	}
}

func TestALossIsAcceptedByTypingTheName(t *testing.T) {
	for name, tt := range map[string]struct {
		typed string
		code  int
		want  string
	}{
		"the name":    {"n1\n", exitOK, `POST /v1/failover {"to":"n2","force":true,"accept_loss":"n1"}`},
		"another one": {"yes\n", exitUsage, ""},
		"nothing":     {"", exitUsage, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFake(t)
			code, _, stderr := runHelios(t.Context(), tt.typed, "failover", "--force", "n2")
			if got := f.orders(); code != tt.code || got != tt.want {
				t.Errorf("exit code %d, %q; the companion heard %q, want %d and %q", code, stderr, got, tt.code, tt.want)
			}
			if want := "Commits that only n1 has will be lost, even acknowledged ones.\nType n1 to go on: "; !strings.HasPrefix(stderr, want) {
				t.Errorf("it asked %q, want %q", stderr, want)
			}
		})
	}
}

func TestATokenGoesWithEveryOrder(t *testing.T) {
	f := startFake(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := runHelios(t.Context(), "", "pause", "--token_file", file); code != exitOK || f.token != "Bearer secret" {
		t.Errorf("exit code %d, %q, with %q, want Bearer secret", code, stderr, f.token)
	}
}

func TestWatchTellsWhatChanges(t *testing.T) {
	startFake(t)
	for name, tt := range map[string]struct {
		args  string
		lines int
		want  []string
	}{
		"for people": {"watch", 8, []string{
			"epoch 4 ready, timeline 3, n1 takes writes", "n1: primary, up, at 0/5000", "n2: replica, up, lag 12ms", "w: witness, up",
			"epoch 5 fenced, timeline 3, no node takes writes, drivers hold theirs back", "look: epoch 5 has nobody who could take over", "n1: unknown, down: the connection broke", "w: is no member any more",
		}},
		"for programs": {"watch --json", 2, []string{`"phase":"ready"`, `"phase":"fenced"`}},
	} {
		t.Run(name, func(t *testing.T) {
			out := &lineWaiter{lines: tt.lines, full: make(chan struct{})}
			done := make(chan int)
			ctx := t.Context()
			go func() {
				done <- run(ctx, strings.Fields(tt.args), streams{in: strings.NewReader(""), out: out, err: io.Discard})
			}()
			select {
			case <-out.full:
			case <-time.After(10 * time.Second):
				t.Fatalf("after 10s it has said %q", out.text())
			}
			for i, line := range strings.Split(strings.TrimSpace(out.text()), "\n") {
				if i >= len(tt.want) || !strings.Contains(line, tt.want[i]) {
					t.Errorf("line %d is %q, want %q", i, line, tt.want)
				}
			}
		})
	}
}

// A lineWaiter says when enough lines were written.
type lineWaiter struct {
	lines int
	full  chan struct{}

	mu    sync.Mutex
	b     strings.Builder // guarded by mu
	count int             // guarded by mu
}

func (l *lineWaiter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.count
	l.count += strings.Count(string(p), "\n")
	if before < l.lines && l.count >= l.lines {
		close(l.full)
	}
	return l.b.Write(p)
}

func (l *lineWaiter) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestTablesSayWhatTheCompanionTold(t *testing.T) {
	t.Setenv("HELIOS_PG_BIN", "") // a path there makes a column wider
	for args, want := range map[string][]string{
		"topology": {
			"n1  primary  up  postgres db1:5432  companion 127.0.0.1:7\n",
			"└─ n2  replica  up  postgres db2:5432  companion 127.0.0.1:17  leads  priority 5; zone eu1a\n",
			"·  w  witness  up  companion 127.0.0.1:97\n", "3 vote (n1, n2, w), 2 are needed\n",
		},
		"lag":           {"REPLICA  LAG   BEHIND  TREND   1 MIN P50/P95/P99  10 MIN          1 H\nn2       12ms  4096 B  +3ms/s  10ms/15ms/1.5s     11ms/16ms/2.0s  -\n"},
		"lag --json":    {`"lag_ms": 12,`},
		"history":       {"failover    n2    n1      3   12      3      20    4      80       119    n2 is dead\n", "nobody  -   0       0      0     0      0        0      by order; given up: it did not stop\n"},
		"replicas list": {"n2      127.0.0.1:17  db2:5432  yes    yes        yes   5         eu1a\n", "w       127.0.0.1:97  -         yes    no         no    0         -\n"},
		"settings show": {"lease             2s     2s           how long a primary"},
		"replicas add n4 --pgdata /data/n4 --host db4":     {"helios server --name n4 --pgdata /data/n4 --listen 0.0.0.0:7101 --advertise db4:7101 --join 127.0.0.1:7,127.0.0.1:17,127.0.0.1:97\n"},
		"replicas add w2 --witness":                        {"helios server --name w2 --witness --state /var/lib/helios/w2 --join 127.0.0.1:7,127.0.0.1:17,127.0.0.1:97\n"},
		"status --json":                                    {`"system_id": "7301"`},
		"config --name n1 --pgdata /x --listen [::1]:7101": {"advertise = [::1]:7101         # follows from the others\n"},
	} {
		t.Run(args, func(t *testing.T) {
			startFake(t)
			code, out, stderr := runHelios(t.Context(), "", strings.Fields(args)...)
			if code != exitOK {
				t.Fatalf("helios %s: exit code %d, %q", args, code, stderr)
			}
			for _, text := range want {
				if !strings.Contains(out, text) {
					t.Errorf("helios %s said\n%s\nwant\n%s", args, out, text)
				}
			}
		})
	}
}
