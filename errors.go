package helios

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// What may go wrong beyond PostgreSQL's own errors, which come back bare, as
// *pgconn.PgError. Use errors.Is.
var (
	// ErrNoPrimary means that no node takes writes, and that none appeared
	// within failover_wait. The statement was not sent.
	ErrNoPrimary = errors.New("no primary")
	// ErrNoReplica means that no replica may answer a read and that the DSN, or
	// the caller, rules the primary out; or that min_replicas keeps a write from
	// being sent. The statement was not sent.
	ErrNoReplica = errors.New("no replica")
	// ErrSessionLost means that the connection which held the session's state
	// (SET, temporary tables, advisory locks, an open transaction) is gone, and
	// the state with it. The session must be begun anew.
	ErrSessionLost = errors.New("session lost")
	// ErrOutcomeUnknown means that a write was sent, that its answer did not come,
	// and that nobody can say what became of it:
	// it may or may not have been executed. It was not sent a second time.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrNotCommitted means that a transaction surely had no effect although
	// its end was not orderly: it may be run again.
	ErrNotCommitted = errors.New("not committed")
	// ErrWriteLost means that a write which this session had seen acknowledged, or
	// may have read, was lost in a failover: the new primary's timeline began before it. It is
	// told once; the session then goes on with what is left. The text says where it was
	// lost, and whether writes of the session itself may be concerned.
	ErrWriteLost = errors.New("acknowledged write lost in a failover")
	// ErrSplitBrain means that two nodes say they are the primary of one
	// timeline. Writes are refused until one of them says otherwise, nothing
	// listens at its address any more, or it is removed from the cluster.
	ErrSplitBrain = errors.New("two primaries on one timeline")
	// ErrClosed means that the *sql.DB was closed.
	ErrClosed = errors.New("cluster is closed")
)

var errEmptyOption = errors.New("helios: empty Option as an argument: use OnPrimary, OnReplica, OnNode or AtLevel")

// A RouteError says on which node a statement failed, other than by an error of
// PostgreSQL's.
type RouteError struct {
	Node string // as named in the topology; "" if no node was chosen
	Sent bool   // some byte of the statement may have reached the node
	Err  error
}

// Error names the node and what happened there.
func (e *RouteError) Error() string {
	text := strings.TrimPrefix(strings.ReplaceAll(e.Err.Error(), ": helios: ", ": "), "helios: ") // it is said once
	if e.Node == "" || strings.HasPrefix(text, "node "+e.Node+": ") {
		return "helios: " + text
	}
	return "helios: node " + e.Node + ": " + text
}

// Unwrap returns what happened.
func (e *RouteError) Unwrap() error { return e.Err }

// SafeToRetry reports whether the statement behind err certainly had no
// effect, so that it may be sent again, to this node or another. False means that
// nobody says so: the error may be PostgreSQL's own, or database/sql's, or the
// statement may have been sent. A read may be sent again whatever it says.
func SafeToRetry(err error) bool {
	if errors.Is(err, ErrNotCommitted) {
		return true
	}
	if errors.Is(err, ErrOutcomeUnknown) {
		return false
	}
	if route, ok := errors.AsType[*RouteError](err); ok {
		return !route.Sent
	}
	return false
}

// unsent wraps an error that came before anything was sent.
func unsent(node string, err error) error { return &RouteError{Node: node, Err: err} }

// sent wraps an error that came after something had been sent.
func sent(node string, err error) error { return &RouteError{Node: node, Sent: true, Err: err} }

// unknown says that a write's outcome is not known. The cause stays reachable.
func unknown(node string, err error) error {
	return sent(node, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err))
}

// SQLSTATEs the driver acts on (PostgreSQL's errcodes.txt).
const (
	codeReadOnly        = "25006" // read_only_sql_transaction
	codeNotPrerequisite = "55000" // object_not_in_prerequisite_state
	codeUnsupported     = "0A000" // feature_not_supported
	codeInternal        = "XX000" // internal_error
	codeSerialization   = "40001" // serialization_failure; also a conflict with recovery
	codeDeadlock        = "40P01" // deadlock_detected; also with recovery
	codeNoStatement     = "26000" // invalid_sql_statement_name
	codeTooMany         = "53300" // too_many_connections
	codeCannotConnect   = "57P03" // cannot_connect_now
	codeAdminShutdown   = "57P01" // admin_shutdown
	codeNoDatabase      = "3D000" // invalid_catalog_name
)

// refusedByStandby reports whether a node in recovery says that the statement
// belongs on the primary. It has executed nothing.
func refusedByStandby(e *pgconn.PgError) bool {
	switch e.Code {
	case codeReadOnly, codeNotPrerequisite, codeUnsupported, codeInternal:
		return true
	default:
		return false
	}
}

// conflictsWithRecovery reports whether replay cancelled a read.
func conflictsWithRecovery(e *pgconn.PgError) bool {
	return e.Code == codeSerialization || e.Code == codeDeadlock
}

// planIsVoid reports whether the server refused a prepared statement before it
// executed it: prepare it again.
func planIsVoid(e *pgconn.PgError) bool {
	return e.Code == codeNoStatement || e.Code == codeUnsupported && e.Routine == "RevalidateCachedQuery"
}

// connectCode returns the SQLSTATE with which a node refused a connection; ""
// if it was not the server that refused.
func connectCode(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}

// mayConnectLater reports whether the node may take the connection in a moment.
// Any other answer of a server, such as a wrong password, is final.
func mayConnectLater(err error) bool {
	switch connectCode(err) {
	case "", codeTooMany, codeCannotConnect, codeAdminShutdown, "57P02", codeSerialization, codeDeadlock:
		return true
	default:
		return false
	}
}

// turnsAway returns why an attempt to connect failed, if no later one would do
// better: the node says so, or it is not to be trusted with a password as the
// DSN demands. Else, and for no error, it returns nil.
func turnsAway(err error) error {
	if err == nil {
		return nil
	}
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok {
		if mayConnectLater(err) {
			return nil
		}
		return answer
	}
	if untrusted, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return untrusted
	}
	for _, text := range []string{"server refused TLS connection", "channel binding required"} { // pgx has no types for them
		if strings.Contains(err.Error(), text) {
			return errors.New(strings.Join(strings.Fields(err.Error()), " "))
		}
	}
	return nil
}

// interrupted returns the error of a context that ended, as database/sql's
// callers expect it: errors.Is finds context.Canceled or DeadlineExceeded even
// if the context had a cause of its own.
func interrupted(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}
