package pool

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/wal"
)

// Call is what travels in one flush: the application's statement, helpers
// around it, and the Syncs that divide it. Every Sync is answered, and an error
// skips what stands before the next one.
//
// A Call with nothing but a Main is a plain statement. Results are valid from
// the moment the step that brings them was passed, until the next NewCall.
type Call struct {
	// What to send, in this order.
	Check        bool      // HelperPosition
	CheckApart   bool      // with a Sync of its own, so that the snapshot of what follows is newer
	ReadLSN      bool      // HelperCommitted and a Sync, in front of a read
	Begin        string    // opens a transaction; "BEGIN" is HelperBegin
	Main         *Prepared // the application's statement, with the Params bound; nil if there is none
	Text         string    // instead of Main: sent by the simple protocol, may hold several statements
	Look         bool      // HelperSight behind Main, or behind Text
	Identify     bool      // HelperIdentity behind Main
	EarlyAnswer  bool      // the server sends what it has to say so far before it goes on behind that
	Durability   bool      // HelperDurability
	End          Helper    // HelperCommit or HelperRollback
	Committed    bool      // HelperCommitted behind the end
	ApartFromEnd bool      // Main has a Sync of its own: what follows runs even if it fails
	Whole        bool      // the rows of Main come once it is committed; see Next

	// Relaxed says that the commits HelperCommitted is asked about may not have
	// waited for their flush: only the insert position is then behind them.
	Relaxed bool
	// SegmentSize is the cluster's WAL segment size in bytes.
	SegmentSize uint64

	// What came back.
	HasPosition    bool                      // HelperPosition has answered
	Recovering     bool                      // the node was in recovery when it answered
	Position       wal.LSN                   // what its queries see
	CommitLSN      wal.LSN                   // surely at or behind the end of the commit record; 0 if not known
	CommitTimeline wal.Timeline              // of CommitLSN
	Sight          Sight                     // how far what Main has read can reach, as HelperSight answered
	Identity       Identity                  // of the transaction, as HelperIdentity answered
	EndTag         string                    // COMMIT or ROLLBACK, as the server answered the End
	Affected       int64                     // rows that Main, or the last statement of Text, says it touched
	Answered       bool                      // the Sync behind Main, or Text itself, was answered: what it did is done
	Completed      bool                      // Main, or one statement of Text at least, was executed to its end
	Fields         []pgconn.FieldDescription // columns of the result that is being read, where Main had not been described
	Err            *pgconn.PgError           // the first error, if any
	ErrAt          Stage                     // where Err happened
	Fatal          bool                      // Err ended the session: the connection is of no further use
	Warned         bool                      // the server warned that a commit did not wait for its standbys

	foreseen   bool                // whether the rows come is decided
	dropped    []byte              // rows that do not come, and what came behind them
	recalled   bool                // they come after all
	relaxed    bool                // the transaction commits without waiting for its own flush
	parsing    [helperCount]string // names given in this flush
	sentBefore int64               // bytes the connection had sent before
	steps      [maxSteps]step
	n, at      int // steps in all; the step whose answer is awaited
}

// Stage says which part of a call an error belongs to.
type Stage uint8

const (
	// StageBefore is everything in front of the application's statement.
	StageBefore Stage = iota
	// StageMain is the application's statement, and the commit by its own Sync
	// where no End follows.
	StageMain
	// StageAfter is everything behind it: the End and what is asked after it.
	StageAfter
)

const maxSteps = 12

// step is one message group whose answer is awaited.
type step struct {
	kind   stepKind
	helper Helper
}

type stepKind uint8

const (
	stepHelper stepKind = iota
	stepMain            // rows and completion of the application's statement
	stepBegin           // a BEGIN with options: completion only

	// The kinds from here on end with ReadyForQuery.

	stepSync   // a Sync
	stepSimple // a simple query: its results come first
)

// A LostError says that the connection broke, or was taken away, during a call.
type LostError struct {
	Sent   bool  // some byte of what was to be executed left this process
	Warned bool  // before the end the server warned that the commit is local only
	Err    error // what the socket said, or why the connection was aborted

	// LastWords is the server's FATAL error that came before the end, such as
	// 57P01; nil if the connection broke without one.
	LastWords *pgconn.PgError
}

// Error names what happened and whether anything had been sent.
func (e *LostError) Error() string {
	if e.Sent {
		return fmt.Sprintf("connection lost after the statement was sent: %v", e.Err)
	}
	return fmt.Sprintf("connection lost before the statement was sent: %v", e.Err)
}

// Unwrap returns what the socket said.
func (e *LostError) Unwrap() error { return e.Err }

// An InterruptedError says that the context of a call ended before the answer
// was there. The server may still be at work on the statement.
type InterruptedError struct {
	Sent bool  // some byte of what was to be executed left this process
	Err  error // the context's cause
}

// Error says why the wait ended.
func (e *InterruptedError) Error() string { return fmt.Sprintf("interrupted: %v", e.Err) }

// Unwrap returns the context's cause.
func (e *InterruptedError) Unwrap() error { return e.Err }

// ErrCopy is the answer to a COPY that was sent as an ordinary statement.
var ErrCopy = errors.New("COPY FROM STDIN and COPY TO STDOUT need the copy protocol: use sql.Conn.Raw and pgx")

// NewCall returns the connection's call, emptied, to be filled in and sent. The
// results of the call before it are gone.
func (c *Conn) NewCall() *Call {
	c.call = Call{}
	return &c.call
}

// Send starts the call: everything goes out in one flush. When ctx ends, the
// socket is interrupted: Next then fails with an *[InterruptedError], and the
// connection still owes answers (Clean reports false). The connection must owe
// nothing when Send is called.
//
// A *[LostError] with Sent false means that the server has seen nothing of it.
func (c *Conn) Send(ctx context.Context) error {
	r := &c.call
	r.sentBefore = c.wire.sent.Load()
	if ctx.Err() != nil {
		return &InterruptedError{Err: context.Cause(ctx)}
	}
	c.closeDiscarded()
	c.sendBefore(r)
	c.sendMain(r)
	c.sendAfter(r)
	c.arm(ctx)
	if err := c.fe.Flush(); err != nil {
		c.giveUp(ctx)
		return c.failure(ctx, err)
	}
	return nil
}

// Result returns the call that was sent last, with what has come back so far.
func (c *Conn) Result() *Call { return &c.call }

// sendBefore sends what stands in front of the statement.
func (c *Conn) sendBefore(r *Call) {
	if r.Check {
		c.add(r, step{kind: stepHelper, helper: HelperPosition})
		c.sendHelper(HelperPosition)
		if r.CheckApart {
			c.sendSync(r)
		}
	}
	if r.ReadLSN {
		c.add(r, step{kind: stepHelper, helper: HelperCommitted})
		c.sendHelper(HelperCommitted)
		c.sendSync(r)
	}
	switch {
	case r.Begin == "" || r.Text != "": // with a Text it is part of that
	case r.Begin == "BEGIN":
		c.add(r, step{kind: stepHelper, helper: HelperBegin})
		c.sendHelper(HelperBegin)
	default:
		c.add(r, step{kind: stepBegin})
		c.sendUnnamed(r.Begin)
	}
}

// sendMain sends the application's statement.
func (c *Conn) sendMain(r *Call) {
	switch {
	case r.Text != "":
		if r.n > 0 && r.steps[r.n-1].kind < stepSync {
			c.sendSync(r) // after an error the server skips to it, past a query
		}
		c.query.String = r.Text
		if r.Begin != "" { // one query: should BEGIN fail, nothing behind it is executed
			c.query.String = r.Begin + "; " + r.Text
		}
		c.fe.SendQuery(&c.query)
		c.add(r, step{kind: stepSimple})
		c.owed++
		return
	case r.Main == nil:
		return
	}
	c.add(r, step{kind: stepMain})
	c.sendPrepared(r.Main)
	if r.ApartFromEnd {
		c.sendSync(r)
	}
}

// sendAfter sends what stands behind the statement, and the last Sync.
func (c *Conn) sendAfter(r *Call) {
	if r.Look {
		c.add(r, step{kind: stepHelper, helper: HelperSight})
		c.sendHelper(HelperSight)
	}
	if r.Identify {
		c.add(r, step{kind: stepHelper, helper: HelperIdentity})
		c.sendHelper(HelperIdentity)
		if r.EarlyAnswer {
			c.fe.Send(&c.flush)
		}
	}
	if r.Durability {
		c.add(r, step{kind: stepHelper, helper: HelperDurability})
		c.sendHelper(HelperDurability)
	}
	if r.End != HelperNone {
		c.add(r, step{kind: stepHelper, helper: r.End})
		c.sendHelper(r.End)
	}
	if r.Committed {
		c.add(r, step{kind: stepHelper, helper: HelperCommitted})
		c.sendHelper(HelperCommitted)
	}
	if r.n == 0 || r.steps[r.n-1].kind < stepSync {
		c.sendSync(r)
	}
}

// add notes that s will be answered.
func (c *Conn) add(r *Call, s step) {
	r.steps[r.n] = s
	r.n++
}

// sendSync ends a part of the flush.
func (c *Conn) sendSync(r *Call) {
	c.fe.SendSync(&c.sync)
	c.add(r, step{kind: stepSync})
	c.owed++
}

// failure turns an error of the socket into what the holder can act on. The
// connection stays usable only if it was interrupted while it waited.
func (c *Conn) failure(ctx context.Context, err error) error {
	sent := c.describing == nil && // what is only described is not executed
		c.wire.sent.Load() != c.call.sentBefore
	c.disarm()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		switch {
		case ctx.Err() != nil:
			return &InterruptedError{Sent: sent, Err: context.Cause(ctx)}
		case c.limit != nil:
			return &InterruptedError{Sent: sent, Err: c.limit}
		}
	}
	c.Abort(nil)
	if cause := c.cause.Load(); cause != nil {
		err = *cause
	}
	lost := &LostError{Sent: sent, Warned: c.call.Warned, Err: err}
	if c.call.Fatal {
		lost.LastWords = c.call.Err
	}
	return lost
}

// giveUp closes a connection on which half a message may be out: nobody could
// go on from there.
func (c *Conn) giveUp(ctx context.Context) {
	if ctx.Err() != nil {
		c.Abort(context.Cause(ctx))
		return
	}
	c.Abort(nil)
}
