package api_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/apifake"
	"github.com/heliosdb/helios/lag/stats"
	"github.com/heliosdb/helios/server/api"
)

// read decodes an answer.
func read[T any](t *testing.T, resp *http.Response) T {
	t.Helper()
	var v T
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		t.Fatalf("%s %s: %v", resp.Request.Method, resp.Request.URL, err)
	}
	return v
}

func TestBadRequestsAreToldWhatIsWrong(t *testing.T) {
	h := api.New(api.Config{Cluster: apifake.New("n1")})
	long := `{"to": "` + strings.Repeat("x", 70<<10) + `"}`
	for name, tt := range map[string]struct {
		method, target, body string
		status               int
		code                 api.Code
		message              string // part of it
	}{
		"unknown path":               {"GET", "/v1/clusters", "", 404, api.CodeNotFound, "/v1/clusters"},
		"root":                       {"GET", "/", "", 404, api.CodeNotFound, "nothing at /"},
		"below a path":               {"GET", "/v1/cluster/x", "", 404, api.CodeNotFound, "/v1/cluster/x"},
		"wrong method":               {"POST", "/v1/cluster", "{}", 405, api.CodeBadMethod, "not for POST"},
		"a question of an order":     {"GET", "/v1/switchover", "", 405, api.CodeBadMethod, "not for GET"},
		"not JSON":                   {"POST", "/v1/switchover", "to=n1", 400, api.CodeBadRequest, "not JSON at byte"},
		"half a JSON":                {"POST", "/v1/switchover", `{"to": "n1"`, 400, api.CodeBadRequest, "ends too early"},
		"two JSONs":                  {"POST", "/v1/switchover", `{"to": "n1"} {"to": "n2"}`, 400, api.CodeBadRequest, "behind"},
		"unknown field":              {"POST", "/v1/switchover", `{"target": "n1"}`, 400, api.CodeUnknownField, `"target"`},
		"unknown setting":            {"PATCH", "/v1/settings", `{"ttl": 30}`, 400, api.CodeUnknownField, `"ttl"`},
		"field where none is":        {"POST", "/v1/pause", `{"until": "noon"}`, 400, api.CodeUnknownField, `"until"`},
		"field of another type":      {"POST", "/v1/maintenance", `{"node": "n1", "on": "yes"}`, 400, api.CodeBadRequest, `"on"`},
		"an array":                   {"POST", "/v1/switchover", `["n1"]`, 400, api.CodeBadRequest, "array"},
		"too large":                  {"POST", "/v1/switchover", long, 413, api.CodeTooLarge, "65536"},
		"too large behind it":        {"POST", "/v1/switchover", `{}` + strings.Repeat(" ", 70<<10), 413, api.CodeTooLarge, "65536"},
		"no such node":               {"POST", "/v1/switchover", `{"to": "n9"}`, 404, api.CodeNoSuchNode, `"n9"`},
		"no such node to remove":     {"DELETE", "/v1/nodes/n9", "", 404, api.CodeNoSuchNode, `"n9"`},
		"no node to promote":         {"POST", "/v1/promote", `{}`, 400, api.CodeBadRequest, `"node"`},
		"no node to reinit":          {"POST", "/v1/reinit", `{}`, 400, api.CodeBadRequest, `"node"`},
		"no node in maintenance":     {"POST", "/v1/maintenance", `{"on": true}`, 400, api.CodeBadRequest, `"node"`},
		"a loss without force":       {"POST", "/v1/failover", `{"to": "n1", "accept_loss": "n2"}`, 400, api.CodeBadRequest, "accept_loss"},
		"a loss of nobody":           {"POST", "/v1/failover", `{"force": true, "accept_loss": "n9"}`, 404, api.CodeNoSuchNode, `"n9"`},
		"no setting":                 {"PATCH", "/v1/settings", `{}`, 400, api.CodeBadRequest, "no setting"},
		"a mode that is none":        {"PATCH", "/v1/settings", `{"replication_mode": "sync"}`, 400, api.CodeBadRequest, "replication_mode"},
		"k of nothing":               {"PATCH", "/v1/settings", `{"k": 0}`, 400, api.CodeBadRequest, "k: is 0"},
		"min_replicas above k":       {"PATCH", "/v1/settings", `{"min_replicas": 2}`, 400, api.CodeBadRequest, "min_replicas"},
		"a lease that is too short":  {"PATCH", "/v1/settings", `{"lease": "1ms"}`, 400, api.CodeBadRequest, "lease: is 1ms"},
		"a lease that is a number":   {"PATCH", "/v1/settings", `{"lease": 2}`, 400, api.CodeBadRequest, "lease"},
		"a lease that is no time":    {"PATCH", "/v1/settings", `{"lease": "soon"}`, 400, api.CodeBadRequest, `"soon"`},
		"a limit that is none":       {"GET", "/v1/history?limit=all", "", 400, api.CodeBadRequest, "limit"},
		"a limit of nothing":         {"GET", "/v1/history?limit=0", "", 400, api.CodeBadRequest, "limit"},
		"positions that are no time": {"GET", "/v1/watch?positions=often", "", 400, api.CodeBadRequest, "positions"},
		"positions too often":        {"GET", "/v1/watch?positions=1ms", "", 400, api.CodeBadRequest, "positions"},
		"heartbeat too often":        {"GET", "/v1/watch?heartbeat=1us", "", 400, api.CodeBadRequest, "heartbeat"},
		"a lag that is nothing":      {"GET", "/replica?lag=much", "", 400, api.CodeBadRequest, `"much"`},
		"a negative lag":             {"GET", "/replica?lag=-1s", "", 400, api.CodeBadRequest, `"-1s"`},
		"a lag beyond counting":      {"GET", "/replica?lag=99999999TB", "", 400, api.CodeBadRequest, "lag"},
	} {
		t.Run(name, func(t *testing.T) {
			resp := ask(h, tt.method, tt.target, tt.body)
			told := read[api.Error](t, resp)
			if resp.StatusCode != tt.status || told.Code != tt.code || !strings.Contains(told.Message, tt.message) {
				t.Errorf("%s %s = %d %+v, want %d, code %s, message with %s", tt.method, tt.target, resp.StatusCode, told, tt.status, tt.code, tt.message)
			}
			if tt.status == 405 && resp.Header.Get("Allow") == "" {
				t.Error("405 does not say what is allowed")
			}
		})
	}
}

func TestOrdersReachTheCluster(t *testing.T) {
	for name, tt := range map[string]struct {
		method, target, body string
		want                 api.Order
	}{
		"switchover":         {"POST", "/v1/switchover", `{"to": "n1"}`, api.Order{Switchover: &api.Switchover{To: "n1"}}},
		"switchover anybody": {"POST", "/v1/switchover", ``, api.Order{Switchover: &api.Switchover{}}},
		"failover": {"POST", "/v1/failover", `{"to": "n1", "force": true, "accept_loss": "n2"}`, api.Order{
			Failover: &api.Failover{To: "n1", Force: true, AcceptLoss: "n2"},
		}},
		"promote":         {"POST", "/v1/promote", `{"node": "n1"}`, api.Order{Promote: "n1"}},
		"pause":           {"POST", "/v1/pause", `{}`, api.Order{Pause: new(true)}},
		"resume":          {"POST", "/v1/resume", `{}`, api.Order{Pause: new(false)}},
		"maintenance":     {"POST", "/v1/maintenance", `{"node": "n3", "on": true}`, api.Order{Maintenance: &api.Maintenance{Node: "n3", On: true}}},
		"maintenance off": {"POST", "/v1/maintenance", `{"node": "n3"}`, api.Order{Maintenance: &api.Maintenance{Node: "n3"}}},
		"reinit":          {"POST", "/v1/reinit", `{"node": "n3"}`, api.Order{Reinit: "n3"}},
		"remove":          {"DELETE", "/v1/nodes/n3", ``, api.Order{Remove: "n3"}},
		"settings": {"PATCH", "/v1/settings", `{"lease": "3s", "auto_failover": false}`, api.Order{
			Settings: &api.SettingsPatch{Lease: new(api.Duration(3 * time.Second)), AutoFailover: new(false)},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := apifake.New("n1")
			r := httptest.NewRequest(tt.method, tt.target, strings.NewReader(tt.body))
			r.RemoteAddr, r.Host = "127.0.0.1:40000", "localhost:7101"
			r.Header.Set("Content-Type", "application/json; charset=utf-8")
			w := httptest.NewRecorder()
			api.New(api.Config{Cluster: c}).ServeHTTP(w, r)
			tt.want.By = "somebody at 127.0.0.1:40000"
			if got := c.Orders(); w.Code != 200 || len(got) != 1 || !reflect.DeepEqual(got[0], tt.want) {
				t.Errorf("%s %s %s = %d, orders %+v, want %+v", tt.method, tt.target, tt.body, w.Code, got, tt.want)
			}
			text, err := json.Marshal(tt.want)
			var sent api.Order
			if err == nil {
				err = json.Unmarshal(text, &sent)
			}
			if err != nil || !reflect.DeepEqual(sent, tt.want) {
				t.Errorf("an order sent to the leader arrives as %+v, %v, want %+v", sent, err, tt.want)
			}
		})
	}
}

func TestRefusalsOfTheClusterAreToldAsTheyAre(t *testing.T) {
	for name, tt := range map[string]struct {
		err    error
		status int
		want   api.Error
	}{
		"a refusal": {
			&api.Error{Code: api.CodeRefused, Message: "n1 is 3 GB behind", Hint: "wait"}, 409,
			api.Error{Code: "refused", Message: "n1 is 3 GB behind", Hint: "wait"},
		},
		"wrapped":             {fmt.Errorf("leader: %w", &api.Error{Code: api.CodeNoLeader, Message: "nobody leads"}), 503, api.Error{Code: "no_leader", Message: "nobody leads"}},
		"a code of its own":   {&api.Error{Code: "even_voters", Message: "x"}, 409, api.Error{Code: "even_voters", Message: "x"}},
		"not the leader":      {&api.Error{Code: api.CodeNotLeader, Message: "x", Leader: "h:1"}, 421, api.Error{Code: "not_leader", Message: "x", Leader: "h:1"}},
		"anything else":       {errors.New("disk on fire"), 500, api.Error{Code: "internal", Message: "disk on fire"}},
		"a timeout within it": {context.DeadlineExceeded, 504, api.Error{Code: "timeout", Message: "context deadline exceeded", Hint: "it may be done yet: look at /v1/cluster before it is ordered again"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := apifake.New("n1")
			c.Change(func(f *apifake.Facts) { f.Do = func(context.Context, api.Order) error { return tt.err } })
			resp := ask(api.New(api.Config{Cluster: c}), "POST", "/v1/pause", "{}")
			if got := read[api.Error](t, resp); resp.StatusCode != tt.status || got != tt.want {
				t.Errorf("= %d %+v, want %d %+v", resp.StatusCode, got, tt.status, tt.want)
			}
		})
	}
}

func TestOrderThatTakesTooLongMayBeDoneYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := apifake.New("n1")
		c.Change(func(f *apifake.Facts) {
			f.Do = func(ctx context.Context, _ api.Order) error {
				<-ctx.Done()
				return fmt.Errorf("waiting: %w", ctx.Err())
			}
		})
		begun := time.Now()
		resp := ask(api.New(api.Config{Cluster: c, OrderTimeout: 3 * time.Second}), "POST", "/v1/pause", "{}")
		told := read[api.Error](t, resp)
		if resp.StatusCode != http.StatusGatewayTimeout || told.Code != api.CodeTimeout || told.Message != "not done within 3s" || time.Since(begun) != 3*time.Second {
			t.Errorf("= %d %+v after %v, want 504, not done within 3s", resp.StatusCode, told, time.Since(begun))
		}
	})
}

// verified is the state of a connection whose client certificate the server has verified.
func verified(name string) *tls.ConnectionState {
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}
}

func TestWhoMayDoWhat(t *testing.T) {
	const token, readToken = "t0ken-of-operators", "t0ken-of-readers"
	type request struct {
		method, target, body string
		from, host           string // loopback if empty
		header               http.Header
		tls                  *tls.ConnectionState
	}
	bearer := func(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }
	order := func(r request) request {
		r.method, r.target, r.body = "POST", "/v1/pause", "{}"
		return r
	}
	question := func(r request) request { r.method, r.target = "GET", "/v1/cluster"; return r }
	open := api.Config{}
	withToken := api.Config{Token: token}
	withCerts := api.Config{ClientCerts: true}
	closed := api.Config{Token: token, ReadToken: readToken, ClientCerts: true}
	const away = "192.0.2.7:40000"
	for name, tt := range map[string]struct {
		cfg  api.Config
		r    request
		want int
	}{
		"order from here":                     {open, order(request{}), 200},
		"order from here, IPv6":               {open, order(request{from: "[::1]:40000", host: "[::1]:7101"}), 200},
		"order from here, mapped":             {open, order(request{from: "[::ffff:127.0.0.1]:40000", host: "localhost"}), 200},
		"order from elsewhere":                {open, order(request{from: away}), 403},
		"order by a name bound to here":       {open, order(request{host: "evil.example:7101"}), 403},
		"order by a name that looks like it":  {open, order(request{host: "localhost.evil.example"}), 403},
		"order through a proxy":               {open, order(request{header: http.Header{"X-Forwarded-For": {"192.0.2.9"}}}), 403},
		"order of another web page":           {open, order(request{header: http.Header{"Origin": {"http://evil.example"}}}), 403},
		"order across sites":                  {open, order(request{header: http.Header{"Sec-Fetch-Site": {"cross-site"}}}), 403},
		"order of a form":                     {open, order(request{header: http.Header{"Content-Type": {"text/plain"}}}), 415},
		"order with a token nobody asks for":  {open, order(request{from: away, header: bearer(token)}), 403},
		"order with a certificate, unwanted":  {open, order(request{from: away, tls: verified("ops")}), 403},
		"removal from here":                   {open, request{method: "DELETE", target: "/v1/nodes/n3"}, 200},
		"removal across sites":                {open, request{method: "DELETE", target: "/v1/nodes/n3", header: http.Header{"Origin": {"http://evil.example"}}}, 403},
		"question from elsewhere":             {open, question(request{from: away, host: "anything"}), 200},
		"order with the token":                {withToken, order(request{from: away, host: "n1:7101", header: bearer(token)}), 200},
		"order with the token, lower case":    {withToken, order(request{from: away, header: http.Header{"Authorization": {"bearer " + token}}}), 200},
		"order with another token":            {withToken, order(request{from: away, header: bearer("x")}), 401},
		"order with half a token":             {withToken, order(request{header: bearer(token[:5])}), 401},
		"order with a password":               {withToken, order(request{header: http.Header{"Authorization": {"Basic " + token}}}), 401},
		"order without the token, from here":  {withToken, order(request{}), 401},
		"order with the token, other site":    {withToken, order(request{header: http.Header{"Authorization": {"Bearer " + token}, "Sec-Fetch-Site": {"cross-site"}}}), 403},
		"order with a certificate":            {withCerts, order(request{from: away, tls: verified("ops")}), 200},
		"order with one nobody has verified":  {withCerts, order(request{from: away, tls: &tls.ConnectionState{}}), 401},
		"order without one, from here":        {withCerts, order(request{}), 401},
		"question without the read token":     {closed, question(request{}), 401},
		"question with it":                    {closed, question(request{from: away, header: bearer(readToken)}), 200},
		"question with the token":             {closed, question(request{from: away, header: bearer(token)}), 200},
		"question with a certificate":         {closed, question(request{from: away, tls: verified("app")}), 200},
		"order with the read token":           {closed, order(request{from: away, header: bearer(readToken)}), 401},
		"stream without the read token":       {closed, request{method: "GET", target: "/v1/watch"}, 401},
		"metrics without the read token":      {closed, request{method: "GET", target: "/metrics"}, 401},
		"health without any token":            {closed, request{method: "GET", target: "/health", from: away}, 200},
		"liveness, asked by a load balancer":  {closed, request{method: "OPTIONS", target: "/liveness", from: away}, 200},
		"description without any token":       {closed, request{method: "GET", target: "/openapi.json", from: away}, 200},
		"what there is not, without a token":  {closed, request{method: "GET", target: "/v2", from: away}, 404},
		"which methods there are, by anybody": {closed, request{method: "OPTIONS", target: "/v1/settings", from: away}, 204},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			c := apifake.New("n1")
			tt.cfg.Cluster, tt.cfg.Log = c, slog.New(slog.NewTextHandler(&log, nil))
			r := httptest.NewRequest(tt.r.method, tt.r.target, strings.NewReader(tt.r.body))
			r.RemoteAddr, r.Host, r.TLS = "127.0.0.1:40000", "127.0.0.1:7101", tt.r.tls
			if tt.r.from != "" {
				r.RemoteAddr = tt.r.from
			}
			if tt.r.host != "" {
				r.Host = tt.r.host
			}
			if tt.r.body != "" {
				r.Header.Set("Content-Type", "application/json")
			}
			maps.Copy(r.Header, tt.r.header)
			w := httptest.NewRecorder()
			api.New(tt.cfg).ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("= %d %s, want %d", w.Code, w.Body, tt.want)
			}
			if ordered := len(c.Orders()) == 1; ordered != (w.Code == 200 && (tt.r.method == "POST" || tt.r.method == "DELETE")) {
				t.Errorf("= %d, and the cluster was ordered: %v", w.Code, ordered)
			}
			for _, secret := range []string{token, readToken} {
				if strings.Contains(log.String(), secret) || strings.Contains(w.Body.String(), secret) {
					t.Errorf("a token is in the log or the answer: %s %s", log.String(), w.Body)
				}
			}
			if w.Code == 401 && w.Header().Get("WWW-Authenticate") == "" {
				t.Error("401 does not say what is wanted")
			}
		})
	}
}

func TestOrdersAreLogged(t *testing.T) {
	var log bytes.Buffer
	h := api.New(api.Config{Cluster: apifake.New("n1"), Token: "s3cret", Log: slog.New(slog.NewTextHandler(&log, nil))})
	r := httptest.NewRequest(http.MethodPost, "/v1/switchover", strings.NewReader(`{}`))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer s3cret")
	h.ServeHTTP(httptest.NewRecorder(), r)
	for _, want := range []string{"msg=order", "order=switchover", `by="token at 192.0.2.1:1234"`, "outcome=done"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log %q has no %s", log.String(), want)
		}
	}
}

func TestQuestionsAreAnsweredFromWhatTheCompanionKnows(t *testing.T) {
	c := apifake.New("n1")
	h := api.New(api.Config{Cluster: c})

	o := read[api.Overview](t, ask(h, "GET", "/v1/cluster", ""))
	if o.Companion != "n1" || o.Leader != (api.Leader{Name: "n3", Address: "127.0.0.1:7103"}) || o.Primary != "n2" || o.Bulletin == nil || len(o.Members) != 3 {
		t.Errorf("/v1/cluster = %+v, want n1's picture of the sample", o)
	}
	s := read[api.Settings](t, ask(h, "GET", "/v1/settings", ""))
	if s != api.SettingsOf(failover.DefaultSettings()) {
		t.Errorf("/v1/settings = %+v, want %+v", s, failover.DefaultSettings())
	}
	history := read[api.History](t, ask(h, "GET", "/v1/history?limit=1", ""))
	if n := len(history.Transitions); n != 1 || history.Transitions[0].Epoch != 2 || math.Abs(history.Transitions[0].Timing.TotalMS-127.5) > 1e-6 {
		t.Errorf("/v1/history?limit=1 = %+v, want epoch 2 in 127.5 ms", history)
	}
	if lag := read[stats.Report](t, ask(h, "GET", "/v1/lag", "")); lag.Primary != "n2" || len(lag.Replicas) != 2 || *lag.Replicas[0].BehindBytes != 0x100 {
		t.Errorf("/v1/lag = %+v, want what the cluster says", lag)
	}

	c.Change(func(f *apifake.Facts) { f.WAL, f.Lag, f.Bulletin, f.State = nil, nil, nil, new(failover.State) })
	if resp := ask(h, "GET", "/v1/wal", ""); resp.StatusCode != http.StatusNotFound || read[api.Error](t, resp).Code != api.CodeNoRelay {
		t.Errorf("/v1/wal of a witness = %s, want 404 and code %s", resp.Status, api.CodeNoRelay)
	}
	if resp := ask(h, "GET", "/v1/lag", ""); resp.StatusCode != http.StatusServiceUnavailable || read[api.Error](t, resp).Code != api.CodeNotYet {
		t.Errorf("/v1/lag before anything was measured = %s, want 503 and code %s", resp.Status, api.CodeNotYet)
	}
	o = read[api.Overview](t, ask(h, "GET", "/v1/cluster", ""))
	if o.Phase != failover.PhaseForming || o.Members == nil || o.SyncSet.Members == nil || o.Bulletin != nil {
		t.Errorf("/v1/cluster at the beginning = %+v, want an empty cluster that is forming", o)
	}
}

func TestHeadIsGetWithoutABody(t *testing.T) {
	h := api.New(api.Config{Cluster: apifake.New("n2")})
	for _, path := range []string{"/v1/cluster", "/v1/watch", "/openapi.json", "/primary", "/v1/history"} {
		resp := ask(h, "HEAD", path, "")
		if body := new(bytes.Buffer); resp.StatusCode != http.StatusOK {
			t.Errorf("HEAD %s = %s", path, resp.Status)
		} else if n, _ := body.ReadFrom(resp.Body); n != 0 {
			t.Errorf("HEAD %s has a body: %s", path, body)
		}
	}
}

func TestSettingsPatchChangesWhatItHas(t *testing.T) {
	before := failover.DefaultSettings()
	after, err := (api.SettingsPatch{Mode: new(failover.Semisync), K: new(2), MaxLag: new(uint64(1 << 20))}).Apply(before)
	want := before
	want.Mode, want.K, want.MaxLag = failover.Semisync, 2, 1<<20
	if err != nil || after != want {
		t.Errorf("Apply = %+v, %v, want %+v", after, err, want)
	}
	if _, err := (api.SettingsPatch{K: new(0)}).Apply(before); !errors.Is(err, &api.Error{Code: api.CodeBadRequest}) {
		t.Errorf("Apply(k 0) = %v, want code %s", err, api.CodeBadRequest)
	}
}
