package pgfake

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heliosdb/helios/wal"
)

// LSNOID is the type of pg_lsn, which pgtype does not name.
const LSNOID = 3220

// A Query is a statement that wants an answer.
type Query struct {
	Node       *Node
	Conn       int    // number of the connection, from 1 in each cluster
	SQL        string // without comments and superfluous white space
	Args       []Arg  // empty while describing
	Describing bool   // only the shape of the reply is wanted
}

// An Arg is a parameter as the client sent it.
type Arg struct {
	Data   []byte // nil for NULL
	Format int16  // 0 text, 1 binary
}

// A Reply is the answer to one statement. The zero Reply is success without
// rows and with the tag that belongs to the statement.
type Reply struct {
	Columns   []Column // empty for a statement that returns no rows
	ParamOIDs []uint32 // nil: taken from casts such as $1::int8, else unknown (0)
	Rows      [][]any  // int, int64, string, bool, wal.LSN, []byte, float64, time.Time or nil
	Tag       string   // command tag; "" derives it from the statement
	Writes    bool     // treat as a write whatever the text says
	Fault              // what goes wrong on the way
}

// A Column describes one column of a reply.
type Column struct {
	Name string
	OID  uint32
}

// Row returns a reply of one row whose columns are named column1, column2 …
// and have the types of the values.
func Row(values ...any) Reply {
	r := Reply{Rows: [][]any{values}}
	for i, v := range values {
		r.Columns = append(r.Columns, Column{fmt.Sprintf("column%d", i+1), oidOf(v)})
	}
	return r
}

// oidOf returns the type in which a Go value is announced.
func oidOf(v any) uint32 {
	switch v.(type) {
	case int, int64:
		return pgtype.Int8OID
	case int32:
		return pgtype.Int4OID
	case bool:
		return pgtype.BoolOID
	case float64:
		return pgtype.Float8OID
	case []byte:
		return pgtype.ByteaOID
	case time.Time:
		return pgtype.TimestamptzOID
	case wal.LSN:
		return LSNOID
	default:
		return pgtype.TextOID
	}
}

// An Error is what the server says in an ErrorResponse or a NoticeResponse.
type Error struct {
	Severity string // "" means ERROR, or WARNING for a notice
	Code     string // SQLSTATE
	Message  string // "" means something that quotes the code
	Routine  string // of the server's source that says so; "" means pgfake
}

// Fail returns a fault that answers with an error of the given SQLSTATE.
func Fail(code, message string) Fault { return Fault{Err: &Error{Code: code, Message: message}} }

// Error returns the message and the SQLSTATE.
func (e *Error) Error() string { return fmt.Sprintf("%s (SQLSTATE %s)", e.Message, e.Code) }

// response returns e as the message the server sends.
func (e *Error) response(severity string) *pgproto3.ErrorResponse {
	if e.Severity != "" {
		severity = e.Severity
	}
	message := e.Message
	if message == "" {
		message = "scripted " + e.Code
	}
	return &pgproto3.ErrorResponse{
		Severity: severity, SeverityUnlocalized: severity, Code: e.Code, Message: message,
		File: "pgfake", Routine: cmp.Or(e.Routine, "pgfake"),
	}
}

// A Fault is what goes wrong with one statement. The zero Fault is none. The
// order is: Delay, Hang, Err, execution, SyncWait, Notices, Then or CutAfter, AtCommit.
type Fault struct {
	Delay    time.Duration // the server thinks that long first; cancellable
	Hang     bool          // no answer until cancelled (57014), terminated or killed
	Err      *Error        // instead of executing; severity FATAL also ends the connection
	AtParse  bool          // Err already answers the Parse message
	AtCommit *Error        // executed, and then its transaction fails when it commits, as by a deferred constraint
	SyncWait bool          // executed, then waits for a synchronous standby until cancelled (success with a warning)
	Notices  []Error       // sent in front of the answer
	Then     Outcome       // what becomes of the answer
	CutAfter int           // let that many bytes of the answer through, then end the connection
}

// An Outcome is what becomes of the answer to an executed statement.
type Outcome uint8

const (
	// Answered is the normal case.
	Answered Outcome = iota
	// Cut means executed, and the connection ends without an answer.
	Cut
	// Silent means executed, and the client hears nothing any more.
	Silent
)

// matcher compiles a pattern: the exact text; with a * at its end a prefix;
// with a ~ in front a regular expression. White space, comments and the
// semicolon at the end do not count.
func matcher(pattern string) func(sql string) bool {
	if expr, ok := strings.CutPrefix(pattern, "~"); ok {
		return regexp.MustCompile(expr).MatchString
	}
	text, prefix := strings.CutSuffix(strings.TrimSpace(pattern), "*")
	if prefix {
		head := normalise(text)
		return func(sql string) bool { return strings.HasPrefix(sql, head) }
	}
	text = normalise(text)
	return func(sql string) bool { return sql == text }
}
