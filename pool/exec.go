package pool

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Event is what Next found.
type Event uint8

const (
	// EventEnd means the whole call was answered; the connection owes nothing.
	EventEnd Event = iota
	// EventRow means Row holds a row of the application's statement.
	EventRow
	// EventResult means a new result of a Text begins; Fields describes it.
	EventResult
)

// Next reads until there is something for the application, and finds EventEnd
// again where nothing is owed. An error of the
// server is not an error of Next: it is in the call's Err at EventEnd. An error
// of Next is a *[LostError], or an *[InterruptedError] when ctx, the one given
// to Send, ended.
//
// The rows of a call that is to be Whole come when it is known to be committed, and not at
// all if it is not: nobody has seen then what came of it, and it may be executed again.
// Of an answer that is longer than 64 KiB the rows come as the server sends them.
func (c *Conn) Next(ctx context.Context) (Event, error) {
	switch {
	case c.call.recalled:
		return c.recall()
	case c.owed == 0:
		return EventEnd, nil
	}
	for {
		kind, body, err := c.in.next()
		if err != nil {
			return EventEnd, c.failure(ctx, err)
		}
		if r := &c.call; kind == kindDataRow && r.Whole && !r.foreseen && c.current().kind == stepMain {
			c.in.unread(body)
			c.foresee(r)
			continue
		}
		event, found, err := c.receive(kind, body)
		switch {
		case err != nil:
			c.Abort(err)
			return EventEnd, c.failure(ctx, err)
		case !found:
		case event == EventEnd:
			c.disarm()
			return event, nil
		default:
			return event, nil
		}
	}
}

// mostWhole is how many bytes of an answer are kept until it is known to be committed.
const mostWhole = 64 << 10

// foresee looks how a call that is to be Whole ends, before its first row is handed out.
func (c *Conn) foresee(r *Call) {
	statements := r.n + 1 // more than there are: a transaction without an End is committed by its Sync
	for i := r.at; i < r.n && r.End != HelperNone; i++ {
		if r.steps[i] == (step{kind: stepHelper, helper: r.End}) {
			statements = i - r.at + 1
		}
	}
	r.foreseen = true
	if c.in.ahead(statements, mostWhole) == broken {
		r.dropped = c.in.rest()
	}
}

// Recall has Next find the rows that it has dropped of a call that was to be Whole, and
// then the end: it was committed, as was found out on another connection. This one is
// lost. Recall reports false, and does nothing, if no rows were dropped.
func (c *Conn) Recall() bool {
	r := &c.call
	if r.dropped == nil {
		return false
	}
	c.in = inbox{from: strings.NewReader(""), buf: r.dropped, wp: len(r.dropped)}
	r.recalled, r.dropped = true, nil
	return true
}

// recall finds the next of the rows that were dropped.
func (c *Conn) recall() (Event, error) {
	for {
		kind, body, err := c.in.next()
		switch {
		case err != nil || kind == kindCommandComplete:
			c.in.rp = c.in.wp    // what follows is not of Main; a message that is not whole is no row
			return EventEnd, nil //nolint:nilerr // likewise
		case kind == kindDataRow:
			c.row, err = readRow(c.row, body)
			return EventRow, err
		}
	}
}

// receive takes one message. It reports whether it brings something for the
// application, or the end.
func (c *Conn) receive(kind byte, body []byte) (event Event, found bool, err error) {
	switch kind {
	case kindBindComplete, kindCloseComplete, kindNoData:
	case kindParseComplete:
		c.takeParsed()
	case kindDataRow:
		found, err = c.takeRow(body)
		return EventRow, found, err
	case kindCommandComplete:
		c.takeComplete(bytes.TrimSuffix(body, []byte{0}))
	case kindEmptyQuery:
		c.takeComplete(nil)
	case kindReady:
		if len(body) != 1 {
			return EventEnd, false, errors.New("the server sent an odd ReadyForQuery")
		}
		return EventEnd, c.takeReady(body[0]), nil
	default:
		msg, err := decode(kind, body)
		if err != nil {
			return EventEnd, false, err
		}
		if m, ok := msg.(*pgproto3.RowDescription); ok {
			c.call.Fields = fieldDescriptions(m)
			return EventResult, c.current().kind == stepSimple, nil
		}
		return EventEnd, false, c.take(msg)
	}
	return EventEnd, false, nil
}

// Drain reads the call to its end and drops the rows.
func (c *Conn) Drain(ctx context.Context) error {
	for {
		event, err := c.Next(ctx)
		if err != nil || event == EventEnd {
			return err
		}
	}
}

// Row returns the row that Next found. It is valid until the next call of Next.
func (c *Conn) Row() [][]byte { return c.row }

// current returns the step whose answer is awaited.
func (c *Conn) current() step {
	if c.call.at >= c.call.n {
		return step{kind: stepSync}
	}
	return c.call.steps[c.call.at]
}

// takeRow sorts a row and reports whether it is the application's.
func (c *Conn) takeRow(body []byte) (bool, error) {
	s := c.current()
	if s.kind == stepBegin || s.kind == stepSync || s.kind == stepMain && c.call.dropped != nil {
		return false, nil
	}
	row, err := readRow(c.row, body)
	if err != nil {
		return false, err
	}
	c.row = row
	if s.kind == stepHelper {
		c.takeHelperRow(s.helper, row)
		return false, nil
	}
	return true, nil
}

// takeReady passes a Sync and reports whether it was the last one.
func (c *Conn) takeReady(txStatus byte) bool {
	c.txStatus = txStatus
	c.owed--
	r := &c.call
	for r.at < r.n {
		kind := r.steps[r.at].kind
		r.at++
		r.Answered = r.Answered || r.Completed
		if kind >= stepSync {
			break
		}
	}
	return c.owed == 0
}

// take handles the messages that are rare.
func (c *Conn) take(msg pgproto3.BackendMessage) error {
	switch m := msg.(type) {
	case *pgproto3.ErrorResponse:
		c.takeError(m)
	case *pgproto3.NoticeResponse:
		c.takeNotice(m)
	case *pgproto3.ParameterStatus:
		c.takeStatus(m)
	case *pgproto3.ParameterDescription:
		if c.describing != nil {
			c.describing.ParamOIDs = slices.Clone(m.ParameterOIDs)
		}
	case *pgproto3.NotificationResponse:
		if c.hooks.OnNotification != nil {
			c.hooks.OnNotification(c.pg, &pgconn.Notification{PID: m.PID, Channel: m.Channel, Payload: m.Payload})
		}
	case *pgproto3.CopyInResponse, *pgproto3.CopyOutResponse, *pgproto3.CopyBothResponse:
		return ErrCopy
	}
	return nil
}

// takeComplete passes a statement that was executed to its end.
func (c *Conn) takeComplete(tag []byte) {
	r := &c.call
	switch s := c.current(); s.kind {
	case stepMain:
		r.Completed, r.Affected = true, affected(tag)
		r.at++
	case stepSimple:
		r.Completed, r.Affected = true, affected(tag)
	case stepHelper:
		if s.helper == r.End {
			r.EndTag = endTag(tag)
		}
		r.at++
	case stepBegin:
		r.at++
	case stepSync:
	}
}

// takeParsed notes that a helper is prepared.
func (c *Conn) takeParsed() {
	if s := c.current(); s.kind == stepHelper {
		c.helpers.names[s.helper] = c.call.parsing[s.helper]
	}
}

// takeError keeps the first error; the server skips to the next Sync.
func (c *Conn) takeError(m *pgproto3.ErrorResponse) {
	r := &c.call
	if r.Err == nil {
		r.Err, r.ErrAt = pgconn.ErrorResponseToPgError(m), r.stage()
	}
	for r.at < r.n && r.steps[r.at].kind < stepSync {
		r.at++
	}
	if m.Severity == "FATAL" || m.SeverityUnlocalized == "FATAL" || m.SeverityUnlocalized == "PANIC" {
		r.Fatal = true
	}
}

// stage says to which part of the call the current step belongs.
func (r *Call) stage() Stage {
	for i := range r.n {
		switch kind := r.steps[i].kind; {
		case kind != stepMain && kind != stepSimple:
		case r.at < i:
			return StageBefore
		case r.at == i, r.at == i+1 && r.at < r.n && r.steps[r.at].kind == stepSync:
			return StageMain // its Sync commits it: what fails then is the statement
		default:
			return StageAfter
		}
	}
	return StageAfter
}

// takeNotice looks for the two warnings that change what a success means.
func (c *Conn) takeNotice(m *pgproto3.NoticeResponse) {
	// "The transaction has already committed locally, but might not have been
	// replicated to the standby": syncrep.c, with 57P01 when the session is
	// terminated and with 01000 when the wait was cancelled. Its text is
	// translated, the name of the routine is not.
	if m.Routine == "SyncRepWaitForLSN" {
		c.call.Warned = true
	}
	if c.hooks.OnNotice != nil {
		c.hooks.OnNotice(c.pg, (*pgconn.Notice)(pgconn.ErrorResponseToPgError((*pgproto3.ErrorResponse)(m))))
	}
}

// takeStatus notes a change of role.
func (c *Conn) takeStatus(m *pgproto3.ParameterStatus) {
	switch m.Name {
	case "in_hot_standby":
		c.inRecovery = m.Value == "on"
	case "default_transaction_read_only":
		c.readOnly = m.Value == "on"
	default:
		return
	}
	if c.status != nil {
		c.status(c)
	}
}

// affected reads the count at the end of a command tag, such as UPDATE 3 or
// INSERT 0 1; 0 if there is none.
func affected(tag []byte) int64 {
	n, scale := int64(0), int64(1)
	for _, d := range slices.Backward(tag) {
		if d == ' ' && scale > 1 {
			return n
		}
		if d < '0' || d > '9' {
			return 0
		}
		n += int64(d-'0') * scale
		scale *= 10
	}
	return 0
}

// endTag returns the tag of a COMMIT or ROLLBACK without allocating.
func endTag(tag []byte) string {
	if string(tag) == "COMMIT" {
		return "COMMIT"
	}
	return "ROLLBACK"
}

// fieldDescriptions copies what the message lends.
func fieldDescriptions(m *pgproto3.RowDescription) []pgconn.FieldDescription {
	fields := make([]pgconn.FieldDescription, len(m.Fields))
	for i, f := range m.Fields {
		fields[i] = pgconn.FieldDescription{
			Name:                 string(f.Name),
			TableOID:             f.TableOID,
			TableAttributeNumber: f.TableAttributeNumber,
			DataTypeOID:          f.DataTypeOID,
			DataTypeSize:         f.DataTypeSize,
			TypeModifier:         f.TypeModifier,
			Format:               f.Format,
		}
	}
	return fields
}
