package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// maxBody is more than any order needs.
const maxBody = 64 << 10

// decode reads the body of an order into v. An empty one changes nothing.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	if !isJSON(r) {
		return &Error{Code: CodeBadType, Message: "the Content-Type is not application/json", Hint: "curl -H 'Content-Type: application/json'"}
	}
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	body.DisallowUnknownFields()
	err := body.Decode(v)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if _, err = body.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil || !isTooLarge(err) {
			return &Error{Code: CodeBadRequest, Message: "there is something behind the JSON object"}
		}
	}
	return badBody(err)
}

func isTooLarge(err error) bool {
	_, ok := errors.AsType[*http.MaxBytesError](err)
	return ok
}

// badBody returns what is wrong with a body, by the error of its decoder.
func badBody(err error) error {
	if isTooLarge(err) {
		return &Error{Code: CodeTooLarge, Message: fmt.Sprintf("the order has more than %d bytes", maxBody)}
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return &Error{Code: CodeUnknownField, Message: "there is no field " + field, Hint: "/openapi.json lists the fields"}
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("field %q: a %s does not belong there", wrong.Field, wrong.Value)}
	}
	if wrong, ok := errors.AsType[*json.SyntaxError](err); ok {
		return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("not JSON at byte %d: %v", wrong.Offset, wrong)}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &Error{Code: CodeBadRequest, Message: "the JSON ends too early"}
	}
	return &Error{Code: CodeBadRequest, Message: err.Error()}
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, r *http.Request, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil { // a fault of ours, or of what Cluster.Lag returned
		status, text = http.StatusInternalServerError, fmt.Appendf(nil, `{"code":%q,"message":"the answer cannot be written as JSON"}`, CodeInternal)
	}
	text = append(text, '\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodOptions {
		h.Set("Content-Length", "0")
		text = nil
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		w.Write(text) //nolint:errcheck // who has gone away needs no answer
	}
}
