package openapi

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Differences returns how the schema of that name and what encoding/json makes of a Go type
// differ: fields that only one of them has, other types, and fields that are required though
// they are left out when they are empty, or the reverse. With input set the type is one that is
// read, where what is left out has its zero value: then that last thing may differ.
func (d *Description) Differences(name string, typ reflect.Type, input bool) []string {
	c := comparison{Description: d, input: input}
	c.compare(name, d.Components.Schemas[name], typ)
	return c.found
}

// A comparison collects differences.
type comparison struct {
	*Description

	input bool
	found []string
}

func (c *comparison) differ(format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

func (c *comparison) compare(at string, s *Schema, typ reflect.Type) {
	s = c.resolve(s)
	if s == nil {
		c.differ("%s: there is no schema", at)
		return
	}
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	want := jsonType(typ)
	if !slices.Contains(s.Type, want) {
		c.differ("%s: %s, but %v is %s", at, s.Type, typ, want)
		return
	}
	switch {
	case want == "array":
		c.compare(at+"[]", s.Items, typ.Elem())
	case want == "object" && typ.Kind() == reflect.Map:
		if s.Additional == nil {
			c.differ("%s: any property, but %v has some", at, typ)
			return
		}
		c.compare(at+".*", s.Additional.Schema, typ.Elem())
	case want == "object":
		c.compareFields(at, s, typ)
	}
}

func (c *comparison) compareFields(at string, s *Schema, typ reflect.Type) {
	fields := fieldsOf(typ)
	for name, f := range fields {
		property, ok := s.Properties[name]
		if !ok {
			c.differ("%s: %v has %s, which is not described", at, typ, name)
			continue
		}
		if required := slices.Contains(s.Required, name); required == f.omitted && !c.input {
			c.differ("%s.%s: required %v, and left out when it is empty %v", at, name, required, f.omitted)
		}
		switch {
		case !f.quoted:
			c.compare(at+"."+name, property, f.typ)
		case !slices.Contains(property.Type, "string"):
			c.differ("%s.%s: %s, but it is written as a string", at, name, property.Type)
		}
	}
	for name := range s.Properties {
		if _, ok := fields[name]; !ok {
			c.differ("%s: %s is described, and %v has none", at, name, typ)
		}
	}
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

// jsonType returns what encoding/json makes of a value of a Go type.
func jsonType(typ reflect.Type) string {
	if typ.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return "string"
	}
	switch typ.Kind() { //nolint:exhaustive // what is not here is a number without a fraction
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
