package pgfake

import (
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// shape returns the reply to sql as far as a Describe needs it.
func (s *session) shape(sql string) (Reply, error) {
	if sql == "" {
		return Reply{}, nil
	}
	q := Query{Node: s.node, Conn: s.number, SQL: sql, Describing: true}
	if r, ok := s.reply(q); ok {
		return r, nil
	}
	if columns, ok := commandColumns(sql); ok {
		return Reply{Columns: columns}, nil
	}
	if writes(sql) {
		return Reply{}, nil
	}
	return Reply{}, unknown(sql)
}

// unknown tells the author of a test which statement nothing was said about.
func unknown(sql string) *Error {
	return &Error{Code: "42P01", Message: "pgfake: nobody knows this statement: " + sql}
}

// usable reports 25P02 for whatever cannot end a failed transaction.
func (s *session) usable(sql string) error {
	if s.tx.status == 'E' && !endsTransaction(sql) {
		return &Error{Code: "25P02", Message: "current transaction is aborted, commands ignored until end of transaction block"}
	}
	return nil
}

// run executes a statement and notes it in the log. The error is an *Error, or
// errGone.
func (s *session) run(sql string, args []Arg) (Reply, error) {
	e := &Entry{Node: s.node.Name, Conn: s.number, SQL: sql, At: time.Now()}
	s.node.tried(e)
	r, err := s.attempt(Query{Node: s.node, Conn: s.number, SQL: sql, Args: args})
	if sqlErr, ok := errors.AsType[*Error](err); ok {
		s.node.cluster.mu.Lock()
		e.Error = sqlErr.Code
		s.node.cluster.mu.Unlock()
	}
	return r, err
}

// attempt executes a statement unless something goes wrong before.
func (s *session) attempt(q Query) (Reply, error) {
	s.uncancel()
	if err := s.usable(q.SQL); err != nil {
		return Reply{}, err
	}
	fault, injected := s.node.takeFault(q.SQL, false)
	if err := s.before(fault); err != nil {
		return Reply{}, err
	}
	r, known := s.reply(q)
	if !injected {
		if err := s.before(r.Fault); err != nil {
			return Reply{}, err
		}
		fault = r.Fault
	}
	done, err := s.effect(q.SQL, r, known)
	if err != nil {
		return Reply{}, err
	}
	if !known {
		r = done
	}
	r.Fault = fault
	r.Notices = append(done.Notices, fault.Notices...)
	return r, s.after(&r)
}

// effect does to the session and to the node what the statement means.
func (s *session) effect(sql string, r Reply, known bool) (Reply, error) {
	if writing := r.Writes || writes(sql); writing {
		if s.readOnly() {
			return Reply{}, &Error{Code: "25006", Message: "cannot execute " + verb(sql) + " in a read-only transaction"}
		}
		if growsWAL(sql) {
			s.write()
		}
	}
	done, isCommand, err := s.command(sql)
	switch {
	case err != nil:
		return Reply{}, err
	case isCommand || known || writes(sql):
		return done, nil
	default:
		return Reply{}, unknown(sql)
	}
}

// uncancel forgets a CancelRequest that came while nothing ran.
func (s *session) uncancel() {
	select {
	case <-s.cancel:
	default:
	}
}

// before suffers what goes wrong before the execution.
func (s *session) before(f Fault) error {
	if f.Delay > 0 || f.Hang {
		if err := s.pause(f); err != nil {
			return err
		}
	}
	if f.Err != nil {
		return f.Err
	}
	return nil
}

// pause waits as long as the fault says, or until somebody interrupts.
func (s *session) pause(f Fault) error {
	var over <-chan time.Time // never, for a fault that hangs
	if !f.Hang {
		over = time.After(f.Delay)
	}
	select {
	case <-over:
		return nil
	case <-s.cancel:
		return errCancelled
	case <-s.fatal:
		return &Error{Severity: "FATAL", Code: errTerminated.Code, Message: errTerminated.Message}
	case <-s.dead:
		return errGone
	}
}

// after suffers what goes wrong after the execution.
func (s *session) after(r *Reply) error {
	if r.AtCommit != nil {
		s.tx.doomed = r.AtCommit
	}
	if r.SyncWait || r.Then != Answered {
		if doomed := s.commitImplicit(); doomed != nil {
			return doomed
		}
	}
	if r.SyncWait {
		if err := s.syncWait(r); err != nil {
			return err
		}
	}
	switch r.Then {
	case Cut:
		return errGone
	case Silent:
		s.mute = true
	case Answered:
	}
	return nil
}

// syncRep is the routine in syncrep.c that waits, and warns when it stops.
const syncRep = "SyncRepWaitForLSN"

// syncWait waits for a synchronous standby that never confirms.
func (s *session) syncWait(r *Reply) error {
	select {
	case <-s.cancel:
		r.Notices = append(r.Notices, Error{
			Code: "01000", Message: "canceling wait for synchronous replication due to user request", Routine: syncRep,
		})
		return nil
	case <-s.fatal:
		e := Error{Code: errTerminated.Code, Message: "canceling the wait for synchronous replication and terminating connection due to administrator command", Routine: syncRep}
		s.notice(e)
		_ = s.backend.Flush()
		return errGone
	case <-s.dead:
		return errGone
	}
}

func (s *session) notice(e Error) {
	n := pgproto3.NoticeResponse(*e.response("WARNING"))
	s.backend.Send(&n)
}

// answer sends notices, rows and the command tag.
func (s *session) answer(sql string, r Reply, formats []int16) error {
	if r.CutAfter > 0 {
		if err := s.backend.Flush(); err != nil {
			return err
		}
		s.budget = r.CutAfter
	}
	for _, n := range r.Notices {
		s.notice(n)
	}
	for _, row := range r.Rows {
		d, err := encodeRow(s.types, r.Columns, row, formats)
		if err != nil {
			return &Error{Code: "XX000", Message: "pgfake: " + sql + ": " + err.Error()}
		}
		s.backend.Send(d)
	}
	text := r.Tag
	if text == "" {
		text = tag(sql, len(r.Rows))
	}
	s.backend.Send(&pgproto3.CommandComplete{CommandTag: []byte(text)})
	return nil
}
