package openapi_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/openapi"
)

const document = `{"openapi": "3.1.0", "paths": {}, "components": {"schemas": {
	"Node": {"type": "object", "required": ["name", "at"], "properties": {
		"name": {"type": "string", "enum": ["n1", "n2"]}, "at": {"type": "string", "format": "date-time"},
		"lsn": {"type": "string", "pattern": "^[0-9]+/[0-9]+$"}, "behind": {"type": ["integer", "null"], "minimum": 0},
		"lag": {"type": "number"}, "up": {"type": "boolean"}, "of": {"type": "array", "items": {"$ref": "#/components/schemas/Node"}},
		"slots": {"type": "object", "additionalProperties": {"type": "integer"}}}},
	"Nothing": {"type": "object", "additionalProperties": false}}}}`

func parsed(t *testing.T) *openapi.Description {
	t.Helper()
	d, err := openapi.Parse([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestValuesAreHeldToTheirSchema(t *testing.T) {
	d := parsed(t)
	for name, tt := range map[string]struct{ schema, value, want string }{
		"all there is": {"Node", `{"name": "n1", "at": "2026-01-02T03:04:05Z", "lsn": "1/2", "behind": 3, "lag": 0.5, "up": true, "of": [], "slots": {"a": 1}}`, ""},
		"null":         {"Node", `{"name": "n1", "at": "2026-01-02T03:04:05Z", "behind": null, "lag": 1}`, ""},
		"too little":   {"Node", `{"name": "n1"}`, ".at is missing"},
		"too much":     {"Node", `{"name": "n1", "at": "2026-01-02T03:04:05Z", "x": 1}`, ".x is not described"},
		"a text":       {"Node", `{"name": 1, "at": "2026-01-02T03:04:05Z"}`, ".name: 1 is of type integer, want [string]"},
		"a fraction":   {"Node", `{"name": "n1", "at": "2026-01-02T03:04:05Z", "behind": 0.5}`, ".behind: 0.5 is of type number, want [integer null]"},
		"too small":    {"Node", `{"name": "n1", "at": "2026-01-02T03:04:05Z", "behind": -1}`, ".behind: -1, want at least 0"},
		"not listed":   {"Node", `{"name": "n3", "at": "2026-01-02T03:04:05Z"}`, `.name: "n3", want one of ["n1" "n2"]`},
		"no match":     {"Node", `{"name": "n1", "at": "2026-01-02T03:04:05Z", "lsn": "x"}`, `.lsn: "x" does not match ^[0-9]+/[0-9]+$`},
		"inside":       {"Node", `{"name": "n1", "at": "2026-01-02T03:04:05Z", "of": [{"name": "n2"}]}`, ".of[0].at is missing"},
		"of a map":     {"Node", `{"name": "n1", "at": "2026-01-02T03:04:05Z", "slots": {"a": "b"}}`, ".slots.a: b is of type string, want [integer]"},
		"anything":     {"Nothing", `{"name": "n1"}`, ".name is not described"},
		"no JSON":      {"Nothing", `{`, `unexpected end of JSON input in "{"`},
	} {
		t.Run(name, func(t *testing.T) {
			var want []string
			if tt.want != "" {
				want = []string{tt.want}
			}
			if got := d.CheckJSON(d.Components.Schemas[tt.schema], []byte(tt.value)); !slices.Equal(got, want) {
				t.Errorf("CheckJSON(%s) = %q, want %q", tt.value, got, want)
			}
		})
	}
}

func TestSchemasAreHeldToGoTypes(t *testing.T) {
	type base struct {
		Name string `json:"name"`
		Lag  int    `json:"lag"` // hidden below
	}
	type node struct {
		base

		At     time.Time      `json:"at"`
		LSN    uint64         `json:"lsn,omitempty,string"`
		Behind *uint64        `json:"behind,omitempty"`
		Lag    float64        `json:"lag,omitempty"`
		Up     bool           `json:"up,omitempty"`
		Of     []node         `json:"-"`
		Slots  map[string]int `json:"slots,omitempty"`
	}
	d := parsed(t)
	got := d.Differences("Node", reflect.TypeFor[node](), false)
	if want := []string{"Node: of is described, and openapi_test.node has none"}; !slices.Equal(got, want) {
		t.Errorf("Differences = %q, want %q", got, want)
	}
	type other struct {
		Name  string            `json:"name,omitempty"`
		At    int               `json:"at"`
		Extra bool              `json:"extra"`
		Slots map[string]string `json:"slots,omitempty"`
	}
	for input, want := range map[bool]int{false: 9, true: 8} {
		if got := d.Differences("Node", reflect.TypeFor[other](), input); len(got) != want {
			t.Errorf("input %v: %d differences %q, want %d", input, len(got), got, want)
		}
	}
}

func TestWordsThatNothingIsHeldToAreRefused(t *testing.T) {
	if _, err := openapi.Parse([]byte(`{"openapi": "3.1.0", "components": {"schemas": {"A": {"type": "string", "maxLength": 3}}}}`)); err == nil {
		t.Error("Parse of a schema with maxLength = nil, want an error")
	}
}
