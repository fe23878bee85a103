package api

import (
	"errors"
	"net/http"
)

// A Code says what went wrong, for programs. What it stands for never changes.
type Code string

// Codes that every client should know. A [Cluster] may answer with others; they are
// told with status 409.
const (
	CodeBadRequest   Code = "bad_request"            // it cannot be read, or contradicts itself
	CodeUnknownField Code = "unknown_field"          // it has a field that there is not
	CodeUnauthorized Code = "unauthorized"           // neither token nor certificate, or the wrong one
	CodeForbidden    Code = "forbidden"              // not from there, or not with that
	CodeNotFound     Code = "not_found"              // no such path
	CodeNoSuchNode   Code = "no_such_node"           // no such member
	CodeNoRelay      Code = "no_relay"               // this companion has no WAL relay
	CodeNotYet       Code = "not_yet"                // nothing is known yet: try again
	CodeBadMethod    Code = "method_not_allowed"     // the path exists, the method there does not
	CodeRefused      Code = "refused"                // understood, and not done: the message says why
	CodeTooLarge     Code = "too_large"              // more bytes than any order has
	CodeBadType      Code = "unsupported_media_type" // the Content-Type is not application/json
	CodeNotLeader    Code = "not_leader"             // ask the companion that Leader names
	CodeInternal     Code = "internal"               // a fault of the companion
	CodeNoLeader     Code = "no_leader"              // nobody leads the log now: try again
	CodeBusy         Code = "busy"                   // too many listeners
	CodeClosing      Code = "closing"                // the companion shuts down
	CodeTimeout      Code = "timeout"                // not done in time: it may be done yet
)

// statuses are what codes are told with; a code that is not here means 409.
var statuses = map[Code]int{
	CodeBadRequest: http.StatusBadRequest, CodeUnknownField: http.StatusBadRequest,
	CodeUnauthorized: http.StatusUnauthorized, CodeForbidden: http.StatusForbidden,
	CodeNotFound: http.StatusNotFound, CodeNoSuchNode: http.StatusNotFound, CodeNoRelay: http.StatusNotFound,
	CodeBadMethod: http.StatusMethodNotAllowed, CodeTooLarge: http.StatusRequestEntityTooLarge,
	CodeBadType: http.StatusUnsupportedMediaType, CodeNotLeader: http.StatusMisdirectedRequest,
	CodeInternal: http.StatusInternalServerError, CodeNoLeader: http.StatusServiceUnavailable,
	CodeNotYet: http.StatusServiceUnavailable, CodeBusy: http.StatusServiceUnavailable, CodeClosing: http.StatusServiceUnavailable, CodeTimeout: http.StatusGatewayTimeout,
}

// An Error is how a companion says that something was not done, over HTTP and in Go.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`          // one line
	Hint    string `json:"hint,omitempty"`   // what to do about it
	Leader  string `json:"leader,omitempty"` // CodeNotLeader: host:port of the companion to ask
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Is reports whether target is an *Error with the same code, so that
// errors.Is(err, &Error{Code: CodeNoLeader}) asks for one.
func (e *Error) Is(target error) bool {
	t, ok := errors.AsType[*Error](target)
	return ok && t.Code == e.Code
}

// Status returns the HTTP status that the error is told with.
func (e *Error) Status() int {
	if status, ok := statuses[e.Code]; ok {
		return status
	}
	return http.StatusConflict
}
