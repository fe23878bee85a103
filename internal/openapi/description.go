package openapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// A Description is an OpenAPI document.
type Description struct {
	OpenAPI    string                          `json:"openapi"`
	Info       any                             `json:"info"`
	Servers    any                             `json:"servers"`
	Tags       any                             `json:"tags"`
	Paths      map[string]map[string]Operation `json:"paths"` // by path and method, in lower case
	Components struct {
		Responses       map[string]Body    `json:"responses"`
		Schemas         map[string]*Schema `json:"schemas"`
		SecuritySchemes any                `json:"securitySchemes"`
	} `json:"components"`
}

// An Operation is one method of one path.
type Operation struct {
	OperationID string                `json:"operationId"`
	Summary     string                `json:"summary"`
	Description string                `json:"description"`
	Tags        []string              `json:"tags"`
	Security    []map[string][]string `json:"security"`
	Parameters  []Parameter           `json:"parameters"`
	RequestBody *Body                 `json:"requestBody"`
	Responses   map[string]Body       `json:"responses"` // by status, or "default"
}

// A Parameter is one that a path or a query has.
type Parameter struct {
	Name        string  `json:"name"`
	In          string  `json:"in"`
	Description string  `json:"description"`
	Required    bool    `json:"required"`
	Schema      *Schema `json:"schema"`
}

// A Body is what a request or an answer has.
type Body struct {
	Ref         string           `json:"$ref"`
	Description string           `json:"description"`
	Content     map[string]Media `json:"content"` // by media type
}

// A Media is a body of one type.
type Media struct {
	Schema *Schema `json:"schema"`
}

// Parse reads a document.
func Parse(document []byte) (*Description, error) {
	d := new(Description)
	words := json.NewDecoder(bytes.NewReader(document))
	words.DisallowUnknownFields()
	if err := words.Decode(d); err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	return d, nil
}

// Routes returns "GET /path" of every operation, in no order.
func (d *Description) Routes() []string {
	var all []string
	for path, operations := range d.Paths {
		for method := range operations {
			all = append(all, strings.ToUpper(method)+" "+path)
		}
	}
	return all
}

// CheckAnswer returns in what an answer to a method of a path, as the description has it, is
// not as described.
func (d *Description) CheckAnswer(method, path string, resp *http.Response, body []byte) []string {
	o, ok := d.Paths[path][strings.ToLower(method)]
	if !ok {
		o.Responses = map[string]Body{"default": {Ref: "#/components/responses/Error"}}
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	s := d.answer(o, resp.StatusCode).Content[kind].Schema
	switch {
	case s == nil:
		return []string{fmt.Sprintf("%s of type %q is not described", resp.Status, kind)}
	case method == http.MethodOptions || method == http.MethodHead:
		if len(body) > 0 {
			return []string{fmt.Sprintf("it has a body: %s", body)}
		}
		return nil
	case kind == "text/plain":
		return nil
	}
	return d.CheckJSON(s, body)
}

// answer returns what an operation answers with a status.
func (d *Description) answer(o Operation, status int) Body {
	b, ok := o.Responses[fmt.Sprint(status)]
	if !ok {
		b = o.Responses["default"]
	}
	if name, found := strings.CutPrefix(b.Ref, "#/components/responses/"); found {
		return d.Components.Responses[name]
	}
	return b
}
