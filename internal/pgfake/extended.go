package pgfake

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

var (
	longAgo       = time.Unix(1, 0)
	errTerminated = &Error{Code: "57P01", Message: "terminating connection due to administrator command"}
	errCancelled  = &Error{Code: "57014", Message: "canceling statement due to user request"}
)

// A prepared statement.
type prepared struct {
	sql     string
	columns []Column
	params  []uint32
}

// A portal is a prepared statement with its arguments.
type portal struct {
	*prepared
	args    []Arg
	formats []int16 // of the result
}

// handle answers one message. An error ends the session.
func (s *session) handle(msg pgproto3.FrontendMessage) error {
	switch msg := msg.(type) {
	case *pgproto3.Query:
		if s.skipping { // PostgresMain ignores whatever comes before the Sync
			return nil
		}
		return s.query(msg.String)
	case *pgproto3.Sync:
		return s.sync()
	case *pgproto3.Terminate:
		s.node.count(func(c *Counters) { c.Terminates++ })
		return errGone
	case *pgproto3.Flush:
		return s.backend.Flush()
	}
	if s.skipping {
		return nil
	}
	err := s.extended(msg)
	if sqlErr, ok := errors.AsType[*Error](err); ok {
		s.skipping = true
		return s.fail(sqlErr)
	}
	return err
}

// extended answers a message of the extended protocol.
func (s *session) extended(msg pgproto3.FrontendMessage) error {
	switch msg := msg.(type) {
	case *pgproto3.Parse:
		return s.parse(msg)
	case *pgproto3.Bind:
		return s.bind(msg)
	case *pgproto3.Describe:
		return s.describe(msg)
	case *pgproto3.Execute:
		return s.execute(msg)
	case *pgproto3.Close:
		if msg.ObjectType == 'S' {
			delete(s.prepared, msg.Name)
		} else {
			delete(s.portals, msg.Name)
		}
		s.backend.Send(&pgproto3.CloseComplete{})
		return nil
	default:
		return &Error{Severity: "FATAL", Code: "08P01", Message: "pgfake does not understand this message"}
	}
}

// fail answers with an error and gives the transaction up.
func (s *session) fail(err *Error) error {
	s.tx.failed()
	s.backend.Send(err.response("ERROR"))
	if flushErr := s.backend.Flush(); flushErr != nil || err.Severity == "FATAL" {
		return errGone
	}
	return nil
}

// sync ends the implicit transaction and the skipping after an error.
func (s *session) sync() error {
	s.countRoundTrip()
	s.skipping = false
	if doomed := s.commitImplicit(); doomed != nil {
		if err := s.fail(doomed); err != nil {
			return err
		}
	}
	if s.tx.status == 'I' {
		clear(s.portals)
	}
	return s.ready()
}

func (s *session) parse(msg *pgproto3.Parse) error {
	s.node.count(func(c *Counters) { c.Parses++ })
	texts := split(msg.Query)
	if len(texts) > 1 {
		return &Error{Code: "42601", Message: "cannot insert multiple commands into a prepared statement"}
	}
	p := &prepared{sql: normalise(msg.Query)}
	if err := s.usable(p.sql); err != nil {
		return err
	}
	if s.prepared[msg.Name] != nil && msg.Name != "" {
		return &Error{Code: "42P05", Message: `prepared statement "` + msg.Name + `" already exists`}
	}
	if err := s.analyse(p, msg.ParameterOIDs); err != nil {
		return err
	}
	s.prepared[msg.Name] = p
	s.backend.Send(&pgproto3.ParseComplete{})
	return nil
}

// analyse finds out what p takes and returns. It is told the types the client
// insists on.
func (s *session) analyse(p *prepared, params []uint32) error {
	if fault, ok := s.node.takeFault(p.sql, true); ok {
		if err := s.before(fault); err != nil {
			return err
		}
	}
	r, err := s.shape(p.sql)
	if err != nil {
		return err
	}
	p.columns, p.params = r.Columns, slices.Clone(r.ParamOIDs)
	if r.ParamOIDs == nil {
		p.params = parameters(p.sql)
	}
	for i, oid := range params {
		if i < len(p.params) && oid != 0 {
			p.params[i] = oid
		}
	}
	return nil
}

func (s *session) bind(msg *pgproto3.Bind) error {
	p := s.prepared[msg.PreparedStatement]
	if p == nil {
		return &Error{Code: "26000", Message: `prepared statement "` + msg.PreparedStatement + `" does not exist`}
	}
	if err := s.usable(p.sql); err != nil {
		return err
	}
	if len(msg.Parameters) != len(p.params) {
		return &Error{Code: "08P01", Message: "bind message supplies the wrong number of parameters"}
	}
	po := &portal{prepared: p, formats: slices.Clone(msg.ResultFormatCodes)}
	for i, data := range msg.Parameters {
		po.args = append(po.args, Arg{Data: bytes.Clone(data), Format: formatOf(msg.ParameterFormatCodes, i)})
	}
	s.portals[msg.DestinationPortal] = po
	s.backend.Send(&pgproto3.BindComplete{})
	return nil
}

func (s *session) describe(msg *pgproto3.Describe) error {
	if msg.ObjectType == 'S' {
		p := s.prepared[msg.Name]
		if p == nil {
			return &Error{Code: "26000", Message: `prepared statement "` + msg.Name + `" does not exist`}
		}
		s.backend.Send(&pgproto3.ParameterDescription{ParameterOIDs: p.params})
		s.sendColumns(p.columns, nil)
		return nil
	}
	po := s.portals[msg.Name]
	if po == nil {
		return &Error{Code: "34000", Message: `portal "` + msg.Name + `" does not exist`}
	}
	s.sendColumns(po.columns, po.formats)
	return nil
}

func (s *session) sendColumns(columns []Column, formats []int16) {
	if len(columns) == 0 {
		s.backend.Send(&pgproto3.NoData{})
		return
	}
	s.backend.Send(describe(columns, formats))
}

func (s *session) execute(msg *pgproto3.Execute) error {
	po := s.portals[msg.Portal]
	if po == nil {
		return &Error{Code: "34000", Message: `portal "` + msg.Portal + `" does not exist`}
	}
	if po.sql == "" {
		s.backend.Send(&pgproto3.EmptyQueryResponse{})
		return nil
	}
	r, err := s.run(po.sql, po.args)
	if err != nil {
		return err
	}
	return s.answer(po.sql, r, po.formats)
}

// query answers a message of the simple protocol: all its statements are one
// implicit transaction.
func (s *session) query(text string) error {
	s.countRoundTrip()
	texts := split(text)
	if len(texts) == 0 {
		s.backend.Send(&pgproto3.EmptyQueryResponse{})
	}
	for i, sql := range texts {
		err := s.simple(sql, i == len(texts)-1)
		if sqlErr, ok := errors.AsType[*Error](err); ok {
			err = s.fail(sqlErr)
			if err == nil {
				break
			}
		}
		if err != nil {
			return err
		}
	}
	return s.ready()
}

// simple answers one statement of a simple query. The last one is answered when
// the implicit transaction has committed.
func (s *session) simple(sql string, last bool) error {
	if fault, ok := s.node.takeFault(sql, true); ok {
		if err := s.before(fault); err != nil {
			return err
		}
	}
	r, err := s.run(sql, nil)
	if err != nil {
		return err
	}
	if last {
		if doomed := s.commitImplicit(); doomed != nil {
			return doomed
		}
	}
	if len(r.Columns) > 0 {
		s.backend.Send(describe(r.Columns, nil))
	}
	return s.answer(sql, r, nil)
}
