// Package openapi holds an HTTP API to its description, for tests: answers to their
// schemas, and schemas to the Go types that encoding/json writes and reads.
//
// It knows as much of OpenAPI 3.1 and JSON Schema as helios's own description uses. A
// description with a word that it does not know is refused, since nothing would be held to
// that word.
package openapi
