package api_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/apifake"
	"github.com/heliosdb/helios/internal/openapi"
	"github.com/heliosdb/helios/lag/stats"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// described reads the description as the API tells it.
func described(t *testing.T) *openapi.Description {
	t.Helper()
	text, err := io.ReadAll(ask(api.New(api.Config{Cluster: apifake.New("n1")}), http.MethodGet, "/openapi.json", "").Body)
	if err != nil {
		t.Fatal(err)
	}
	d, err := openapi.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDescriptionHasEveryRouteAndNoOther(t *testing.T) {
	got, want := described(t).Routes(), api.Routes()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("described:\n%s\nserved:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDescribedTypesAreTheGoTypes(t *testing.T) {
	answers := map[string]reflect.Type{
		"Bulletin": reflect.TypeFor[topology.Bulletin](), "Confirmation": reflect.TypeFor[relay.Confirmation](),
		"Done": reflect.TypeFor[api.Done](), "Error": reflect.TypeFor[api.Error](), "Health": reflect.TypeFor[api.Health](),
		"History": reflect.TypeFor[api.History](), "Lag": reflect.TypeFor[stats.Report](), "Leader": reflect.TypeFor[api.Leader](),
		"Member": reflect.TypeFor[failover.Member](), "Overview": reflect.TypeFor[api.Overview](), "Position": reflect.TypeFor[wal.Position](),
		"Quantiles": reflect.TypeFor[stats.Quantiles](), "ReplicaLag": reflect.TypeFor[stats.ReplicaReport](),
		"Reported": reflect.TypeFor[topology.Reported](), "Sealed": reflect.TypeFor[failover.Sealed](), "Settings": reflect.TypeFor[api.Settings](),
		"Spool": reflect.TypeFor[relay.SpoolStatus](), "Subscriber": reflect.TypeFor[relay.SubscriberMetrics](),
		"SubscriberLag": reflect.TypeFor[relay.Lag](), "Switch": reflect.TypeFor[wal.Switch](),
		"SwitchoverUnderWay": reflect.TypeFor[failover.Switchover](), "SyncSet": reflect.TypeFor[failover.SyncSet](),
		"Timing": reflect.TypeFor[api.Timing](), "Transition": reflect.TypeFor[api.Transition](), "WAL": reflect.TypeFor[relay.Status](),
	}
	orders := map[string]reflect.Type{
		"Failover": reflect.TypeFor[api.Failover](), "Maintenance": reflect.TypeFor[api.Maintenance](), "Nothing": reflect.TypeFor[struct{}](),
		"SettingsPatch": reflect.TypeFor[api.SettingsPatch](), "Switchover": reflect.TypeFor[api.Switchover](), "Target": reflect.TypeFor[api.Target](),
	}
	d := described(t)
	for name := range d.Components.Schemas {
		typ, input := orders[name]
		if !input {
			typ = answers[name]
		}
		if typ == nil {
			t.Errorf("schema %s is of no Go type that the test knows", name)
			continue
		}
		for _, difference := range d.Differences(name, typ, input) {
			t.Error(difference)
		}
	}
	if got, want := len(d.Components.Schemas), len(answers)+len(orders); got != want {
		t.Errorf("%d schemas, want %d", got, want)
	}
}

func TestDescriptionListsTheCodes(t *testing.T) {
	var want []string
	for _, code := range api.Codes() {
		want = append(want, string(code))
	}
	got := described(t).Components.Schemas["Error"].Properties["code"].Examples
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("described codes %q, want %q", got, want)
	}
}

// bodies are orders that make sense to the sample, with every field.
var bodies = map[string]string{
	"/v1/switchover":  `{"to": "n1"}`,
	"/v1/failover":    `{"to": "n1", "force": true, "accept_loss": "n2"}`,
	"/v1/promote":     `{"node": "n1"}`,
	"/v1/pause":       `{}`,
	"/v1/resume":      `{}`,
	"/v1/maintenance": `{"node": "n3", "on": true}`,
	"/v1/reinit":      `{"node": "n3"}`,
	"/v1/settings": `{"replication_mode": "semisync", "k": 2, "min_replicas": 1, "auto_failover": false, "lease": "1s500ms", "seal_budget": "100ms",
		"promote_budget": "5s", "stop_budget": "5s", "max_failover_lag": 16777216}`,
}

// check holds an answer to the description of a path.
func check(t *testing.T, d *openapi.Description, path string, resp *http.Response) {
	t.Helper()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range d.CheckAnswer(resp.Request.Method, path, resp, text) {
		t.Errorf("%s %s: %s", resp.Request.Method, resp.Request.URL, fault)
	}
}

func TestAnswersAreAsDescribed(t *testing.T) {
	d := described(t)
	for _, node := range []string{"n1", "n2"} {
		h := api.New(api.Config{Cluster: apifake.New(node)})
		for path, operations := range d.Paths {
			check(t, d, path, ask(h, "BREW", path, ""))
			for method, o := range operations {
				if path == "/v1/watch" {
					continue // TestListenerGetsLinesAsDescribed
				}
				body := ""
				if o.RequestBody != nil {
					body = bodies[path]
				}
				resp := ask(h, strings.ToUpper(method), strings.Replace(path, "{name}", "n3", 1), body)
				check(t, d, path, resp)
				if resp.StatusCode != http.StatusOK && (resp.StatusCode != http.StatusServiceUnavailable || o.Tags[0] != "health") {
					t.Errorf("%s %s = %s", method, path, resp.Status)
				}
			}
		}
	}
}

func TestAnswersOfAClusterThatIsFormingAreAsDescribed(t *testing.T) {
	d := described(t)
	c := apifake.New("n1")
	c.Change(func(f *apifake.Facts) {
		*f = apifake.Facts{
			State: new(failover.State), Bulletin: &topology.Bulletin{Companion: "n1", Phase: "forming"},
			Local: failover.Report{Node: "n1", Postgres: failover.ServerStarting},
		}
	})
	h := api.New(api.Config{Cluster: c})
	for path, operations := range d.Paths {
		if _, ok := operations["get"]; ok && path != "/v1/watch" {
			check(t, d, path, ask(h, http.MethodGet, path, ""))
		}
	}
}

// Bodies of orders are held to their schemas as well, and both to what the API takes.
func TestOrdersAreTakenAsDescribed(t *testing.T) {
	d := described(t)
	h := api.New(api.Config{Cluster: apifake.New("n1")})
	for path, operations := range d.Paths {
		for method, o := range operations {
			if o.RequestBody == nil {
				continue
			}
			ref := o.RequestBody.Content["application/json"].Schema
			for _, fault := range d.CheckJSON(ref, []byte(bodies[path])) {
				t.Errorf("%s: %s", path, fault)
			}
			s := d.Components.Schemas[strings.TrimPrefix(ref.Ref, "#/components/schemas/")]
			if s.Additional == nil || s.Additional.Schema != nil {
				t.Errorf("%s: the schema takes any field, the API does not", path)
			}
			var tried map[string]any
			if err := json.Unmarshal([]byte(bodies[path]), &tried); err != nil || len(tried) != len(s.Properties) {
				t.Errorf("%s: the test tries %d fields of %d (%v)", path, len(tried), len(s.Properties), err)
			}
			for _, name := range s.Required {
				if resp := ask(h, strings.ToUpper(method), path, `{}`); resp.StatusCode != http.StatusBadRequest {
					t.Errorf("%s without %s = %s", path, name, resp.Status)
				}
			}
		}
	}
}

// ask puts a request from this machine to h, without a network.
func ask(h http.Handler, method, target, body string) *http.Response {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.RemoteAddr, r.Host = "127.0.0.1:40000", "127.0.0.1:7101"
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	resp := w.Result()
	resp.Request = r
	return resp
}
