package openapi

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Schema is what a value of JSON has to be.
type Schema struct {
	Ref        string             `json:"$ref"`
	Type       Kinds              `json:"type"`
	Properties map[string]*Schema `json:"properties"`
	Required   []string           `json:"required"`
	Additional *Additional        `json:"additionalProperties"`
	Items      *Schema            `json:"items"`
	Enum       []string           `json:"enum"`
	Pattern    string             `json:"pattern"`
	Format     string             `json:"format"` // date-time or nothing
	Minimum    *float64           `json:"minimum"`

	Description string   `json:"description"`
	Examples    []string `json:"examples"`
}

// Kinds are the types that a value may have: one word, or a list of them.
type Kinds []string

// UnmarshalJSON implements json.Unmarshaler.
func (k *Kinds) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*k = Kinds{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(k))
}

// Additional says which properties a value may have that are not listed: any if it is nil, else
// those of the schema, else none.
type Additional struct{ Schema *Schema }

// UnmarshalJSON implements json.Unmarshaler.
func (a *Additional) UnmarshalJSON(text []byte) error {
	if string(text) == "false" {
		return nil
	}
	return json.Unmarshal(text, &a.Schema)
}

// resolve follows a reference.
func (d *Description) resolve(s *Schema) *Schema {
	if s == nil {
		return nil
	}
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return d.Components.Schemas[name]
	}
	return s
}

// CheckJSON returns what of a text is not as s says. It is stricter than JSON Schema: a property
// that is not listed is one that nobody described.
func (d *Description) CheckJSON(s *Schema, text []byte) []string {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return []string{fmt.Sprintf("%v in %q", err, text)}
	}
	return d.faults("", s, value)
}

// faults returns what of the value at a place is not as s says.
func (d *Description) faults(at string, s *Schema, value any) []string {
	s = d.resolve(s)
	if s == nil {
		return []string{at + ": there is no schema"}
	}
	kind := kindOf(value)
	if !slices.Contains(s.Type, kind) && (kind != "integer" || !slices.Contains(s.Type, "number")) {
		return []string{fmt.Sprintf("%s: %v is of type %s, want %s", at, value, kind, s.Type)}
	}
	switch v := value.(type) {
	case map[string]any:
		return d.objectFaults(at, s, v)
	case []any:
		var faults []string
		for i, inner := range v {
			faults = append(faults, d.faults(fmt.Sprintf("%s[%d]", at, i), s.Items, inner)...)
		}
		return faults
	case string:
		return s.stringFaults(at, v)
	case float64:
		if s.Minimum != nil && v < *s.Minimum {
			return []string{fmt.Sprintf("%s: %v, want at least %v", at, v, *s.Minimum)}
		}
	}
	return nil
}

// kindOf returns the type of a value by JSON Schema's words.
func kindOf(value any) string {
	switch v := value.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	case float64:
		if v == math.Trunc(v) {
			return "integer"
		}
		return "number"
	default:
		return "null"
	}
}

func (d *Description) objectFaults(at string, s *Schema, v map[string]any) (faults []string) {
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			faults = append(faults, fmt.Sprintf("%s.%s is missing", at, name))
		}
	}
	for name, inner := range v {
		switch property := s.Properties[name]; {
		case property != nil:
			faults = append(faults, d.faults(at+"."+name, property, inner)...)
		case s.Additional != nil && s.Additional.Schema != nil:
			faults = append(faults, d.faults(at+"."+name, s.Additional.Schema, inner)...)
		case s.Additional != nil || s.Properties != nil:
			faults = append(faults, fmt.Sprintf("%s.%s is not described", at, name))
		}
	}
	return faults
}

func (s *Schema) stringFaults(at, v string) (faults []string) {
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
