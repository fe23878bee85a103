package api_test

import (
	"encoding"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/apifake"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// A schema is as much of JSON Schema as the description uses.
type schema struct {
	Ref        string             `json:"$ref"`
	Type       string             `json:"type"`
	Properties map[string]*schema `json:"properties"`
	Required   []string           `json:"required"`
	Additional json.RawMessage    `json:"additionalProperties"` // false, a schema, or nothing
	Items      *schema            `json:"items"`
	Enum       []string           `json:"enum"`
	Pattern    string             `json:"pattern"`
	Format     string             `json:"format"`
	Minimum    *float64           `json:"minimum"`

	Description string   `json:"description"`
	Examples    []string `json:"examples"`
}

// A description is as much of OpenAPI.
type description struct {
	Paths      map[string]map[string]operation `json:"paths"`
	Components struct {
		Responses map[string]response `json:"responses"`
		Schemas   map[string]*schema  `json:"schemas"`
		Security  map[string]any      `json:"securitySchemes"`
	} `json:"components"`

	OpenAPI string `json:"openapi"`
	Info    any    `json:"info"`
	Servers any    `json:"servers"`
	Tags    any    `json:"tags"`
}

type operation struct {
	OperationID string                `json:"operationId"`
	Summary     string                `json:"summary"`
	Description string                `json:"description"`
	Tags        []string              `json:"tags"`
	Security    []map[string][]string `json:"security"`
	Parameters  []struct {
		Name, In, Description string
		Required              bool
		Schema                *schema
	} `json:"parameters"`
	RequestBody *response           `json:"requestBody"`
	Responses   map[string]response `json:"responses"`
}

type response struct {
	Ref         string `json:"$ref"`
	Description string `json:"description"`
	Content     map[string]struct {
		Schema *schema `json:"schema"`
	} `json:"content"`
}

// described reads the description as the API tells it. A word in it that the tests do not
// know, and so would not hold it to, fails them.
func described(t *testing.T) *description {
	t.Helper()
	resp := ask(api.New(api.Config{Cluster: apifake.New("n1")}), http.MethodGet, "/openapi.json", "")
	d := new(description)
	words := json.NewDecoder(resp.Body)
	words.DisallowUnknownFields()
	if err := words.Decode(d); err != nil {
		t.Fatalf("openapi.json: %v", err)
	}
	return d
}

func (d *description) resolve(s *schema) *schema {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return d.Components.Schemas[name]
	}
	return s
}

// schemaOf returns the schema of an answer.
func (d *description) schemaOf(o operation, status int, kind string) *schema {
	r, ok := o.Responses[fmt.Sprint(status)]
	if !ok {
		r, ok = o.Responses["default"]
	}
	if name, found := strings.CutPrefix(r.Ref, "#/components/responses/"); found {
		r, ok = d.Components.Responses[name]
	}
	if !ok {
		return nil
	}
	kind, _, _ = strings.Cut(kind, ";")
	return r.Content[kind].Schema
}

// faults returns what of value is not as s says.
func (d *description) faults(at string, s *schema, value any) []string {
	s = d.resolve(s)
	if s == nil {
		return []string{at + ": no such schema"}
	}
	var faults []string
	wrong := func(format string, args ...any) { faults = append(faults, at+": "+fmt.Sprintf(format, args...)) }
	switch v := value.(type) {
	case map[string]any:
		if s.Type != "object" {
			wrong("an object, want %s", s.Type)
			break
		}
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				wrong("%s is missing", name)
			}
		}
		for name, inner := range v {
			switch property := s.Properties[name]; {
			case property != nil:
				faults = append(faults, d.faults(at+"."+name, property, inner)...)
			case s.Properties == nil && s.Additional == nil:
			case s.Additional != nil && string(s.Additional) != "false":
				each := new(schema)
				if err := json.Unmarshal(s.Additional, each); err != nil {
					wrong("additionalProperties: %v", err)
				}
				faults = append(faults, d.faults(at+"."+name, each, inner)...)
			default:
				wrong("%s is not described", name)
			}
		}
	case []any:
		if s.Type != "array" {
			wrong("an array, want %s", s.Type)
			break
		}
		for i, inner := range v {
			faults = append(faults, d.faults(fmt.Sprintf("%s[%d]", at, i), s.Items, inner)...)
		}
	case string:
		faults = append(faults, s.stringFaults(at, v)...)
	case float64:
		if s.Type != "number" && (s.Type != "integer" || v != math.Trunc(v)) {
			wrong("%v, want %s", v, s.Type)
		}
		if s.Minimum != nil && v < *s.Minimum {
			wrong("%v, want at least %v", v, *s.Minimum)
		}
	case bool:
		if s.Type != "boolean" {
			wrong("a boolean, want %s", s.Type)
		}
	default:
		wrong("%v, want %s", value, s.Type)
	}
	return faults
}

func (s *schema) stringFaults(at, v string) (faults []string) {
	if s.Type != "string" {
		return []string{fmt.Sprintf("%s: %q, want %s", at, v, s.Type)}
	}
	if s.Enum != nil && !slices.Contains(s.Enum, v) {
		faults = append(faults, fmt.Sprintf("%s: %q, want one of %q", at, v, s.Enum))
	}
	if s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(v) {
		faults = append(faults, fmt.Sprintf("%s: %q does not match %s", at, v, s.Pattern))
	}
	if s.Format == "date-time" {
		if _, err := time.Parse(time.RFC3339Nano, v); err != nil {
			faults = append(faults, fmt.Sprintf("%s: %v", at, err))
		}
	}
	return faults
}

// differences returns how s and what encoding/json makes of a Go type differ.
func (d *description) differences(at string, s *schema, typ reflect.Type) []string {
	s = d.resolve(s)
	if s == nil {
		return []string{at + ": no such schema"}
	}
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	want := jsonType(typ)
	if s.Type != want {
		return []string{fmt.Sprintf("%s: %s, but %v is %s", at, s.Type, typ, want)}
	}
	switch {
	case want == "array":
		return d.differences(at+"[]", s.Items, typ.Elem())
	case want == "object" && typ.Kind() == reflect.Map:
		each := new(schema)
		if err := json.Unmarshal(s.Additional, each); err != nil {
			return []string{at + ": " + err.Error()}
		}
		return d.differences(at+".*", each, typ.Elem())
	case want == "object":
		return d.fieldDifferences(at, s, typ)
	}
	return nil
}

func (d *description) fieldDifferences(at string, s *schema, typ reflect.Type) (differ []string) {
	fields := fieldsOf(typ)
	for name, f := range fields {
		property, ok := s.Properties[name]
		switch {
		case !ok:
			differ = append(differ, fmt.Sprintf("%s: %v has %s, which is not described", at, typ, name))
			continue
		case slices.Contains(s.Required, name) == f.omitted:
			differ = append(differ, fmt.Sprintf("%s.%s: required %v, but left out when empty %v", at, name, !f.omitted, f.omitted))
		}
		if f.quoted {
			if property.Type != "string" {
				differ = append(differ, fmt.Sprintf("%s.%s: %s, want a string", at, name, property.Type))
			}
			continue
		}
		differ = append(differ, d.differences(at+"."+name, property, f.typ)...)
	}
	for name := range s.Properties {
		if _, ok := fields[name]; !ok {
			differ = append(differ, fmt.Sprintf("%s: %s is described, and %v has none", at, name, typ))
		}
	}
	return differ
}

type field struct {
	typ             reflect.Type
	omitted, quoted bool
}

// fieldsOf returns the fields of a struct by their names in JSON, those of embedded structs
// included unless they are hidden.
func fieldsOf(typ reflect.Type) map[string]field {
	fields, inner := map[string]field{}, map[string]field{}
	for f := range typ.Fields() {
		tag := f.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		switch {
		case f.Anonymous && tag == "":
			maps.Copy(inner, fieldsOf(f.Type))
		case name != "-" && f.IsExported():
			fields[name] = field{f.Type, strings.Contains(options, "omitempty"), strings.Contains(options, "string")}
		}
	}
	for name, f := range inner {
		if _, hidden := fields[name]; !hidden {
			fields[name] = f
		}
	}
	return fields
}

// jsonType returns what a value of a Go type is in JSON.
func jsonType(typ reflect.Type) string {
	if typ.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return "string"
	}
	switch typ.Kind() {
	case reflect.Struct, reflect.Map:
		return "object"
	case reflect.Slice:
		return "array"
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Float64:
		return "number"
	default:
		return "integer"
	}
}

func TestDescriptionHasEveryRouteAndNoOther(t *testing.T) {
	var got []string
	for path, operations := range described(t).Paths {
		for method := range operations {
			got = append(got, strings.ToUpper(method)+" "+path)
		}
	}
	want := api.Routes()
	sort.Strings(got)
	sort.Strings(want)
	if !slices.Equal(got, want) {
		t.Errorf("described:\n%s\nserved:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDescribedTypesAreTheGoTypes(t *testing.T) {
	d := described(t)
	types := map[string]reflect.Type{
		"Bulletin": reflect.TypeFor[topology.Bulletin](), "Confirmation": reflect.TypeFor[relay.Confirmation](),
		"Done": reflect.TypeFor[api.Done](), "Error": reflect.TypeFor[api.Error](), "Failover": reflect.TypeFor[api.Failover](),
		"Health": reflect.TypeFor[api.Health](), "History": reflect.TypeFor[api.History](), "Lag": reflect.TypeFor[struct{}](),
		"Leader": reflect.TypeFor[api.Leader](), "Maintenance": reflect.TypeFor[api.Maintenance](), "Member": reflect.TypeFor[failover.Member](),
		"Nothing": reflect.TypeFor[struct{}](), "Overview": reflect.TypeFor[api.Overview](), "Position": reflect.TypeFor[wal.Position](),
		"Reported": reflect.TypeFor[topology.Reported](), "Sealed": reflect.TypeFor[failover.Sealed](), "Settings": reflect.TypeFor[api.Settings](),
		"SettingsPatch": reflect.TypeFor[api.SettingsPatch](), "Spool": reflect.TypeFor[relay.SpoolStatus](),
		"Subscriber": reflect.TypeFor[relay.SubscriberMetrics](), "SubscriberLag": reflect.TypeFor[relay.Lag](),
		"Switch": reflect.TypeFor[wal.Switch](), "Switchover": reflect.TypeFor[api.Switchover](),
		"SwitchoverUnderWay": reflect.TypeFor[failover.Switchover](), "SyncSet": reflect.TypeFor[failover.SyncSet](),
		"Target": reflect.TypeFor[api.Target](), "Timing": reflect.TypeFor[api.Timing](), "Transition": reflect.TypeFor[api.Transition](),
		"WAL": reflect.TypeFor[relay.Status](),
	}
	for name, s := range d.Components.Schemas {
		typ, ok := types[name]
		if !ok {
			t.Errorf("schema %s is of no Go type that the test knows", name)
			continue
		}
		for _, difference := range d.differences(name, s, typ) {
			if name == "Switchover" || name == "Target" || name == "Maintenance" || name == "Failover" {
				// An order says what it leaves out by its zero value.
				if strings.Contains(difference, "left out when empty") {
					continue
				}
			}
			t.Error(difference)
		}
	}
	for name := range types {
		if d.Components.Schemas[name] == nil {
			t.Errorf("there is no schema %s", name)
		}
	}
}

func TestDescriptionListsTheCodes(t *testing.T) {
	var want []string
	for _, code := range api.Codes() {
		want = append(want, string(code))
	}
	got := described(t).Components.Schemas["Error"].Properties["code"].Examples
	sort.Strings(got)
	sort.Strings(want)
	if !slices.Equal(got, want) {
		t.Errorf("described codes %q, want %q", got, want)
	}
}

// bodies are orders that make sense to the sample.
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

func TestAnswersAreAsDescribed(t *testing.T) {
	d := described(t)
	for _, node := range []string{"n1", "n2"} {
		h := api.New(api.Config{Cluster: apifake.New(node)})
		for path, operations := range d.Paths {
			for method, o := range operations {
				if path == "/v1/watch" {
					continue // TestListenerGetsLinesAsDescribed
				}
				body := ""
				if o.RequestBody != nil {
					body = bodies[path]
					if body == "" {
						t.Errorf("%s has no body in this test", path)
					}
				}
				resp := ask(h, strings.ToUpper(method), strings.Replace(path, "{name}", "n3", 1), body)
				d.check(t, o, resp)
				if resp.StatusCode != http.StatusOK && (resp.StatusCode != http.StatusServiceUnavailable || o.Tags[0] != "health") {
					t.Errorf("%s %s = %s", method, path, resp.Status)
				}
			}
			wrong := ask(h, "BREW", path, "")
			d.check(t, operation{Responses: map[string]response{"default": {Ref: "#/components/responses/Error"}}}, wrong)
		}
	}
}

// check holds an answer to its description.
func (d *description) check(t *testing.T, o operation, resp *http.Response) {
	t.Helper()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	kind := resp.Header.Get("Content-Type")
	s := d.schemaOf(o, resp.StatusCode, kind)
	request := resp.Request.Method + " " + resp.Request.URL.String()
	switch {
	case s == nil:
		t.Errorf("%s: %s of type %q is not described", request, resp.Status, kind)
	case resp.Request.Method == http.MethodOptions:
		if len(text) != 0 {
			t.Errorf("%s has a body: %s", request, text)
		}
	case strings.HasPrefix(kind, "text/"):
	default:
		var value any
		if err := json.Unmarshal(text, &value); err != nil {
			t.Errorf("%s: %v in %s", request, err, text)
		}
		for _, fault := range d.faults("", s, value) {
			t.Errorf("%s: %s", request, fault)
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
			s := d.resolve(o.RequestBody.Content["application/json"].Schema)
			var value any
			if err := json.Unmarshal([]byte(bodies[path]), &value); err != nil {
				t.Fatal(err)
			}
			for _, fault := range d.faults(path, s, value) {
				t.Error(fault)
			}
			if string(s.Additional) != "false" {
				t.Errorf("%s: the schema takes any field, the API does not", path)
			}
			for name := range s.Properties {
				if _, ok := value.(map[string]any)[name]; !ok {
					t.Errorf("%s: the test does not try %s", path, name)
				}
			}
			for _, name := range s.Required {
				resp := ask(h, strings.ToUpper(method), path, `{}`)
				if resp.StatusCode != http.StatusBadRequest {
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
