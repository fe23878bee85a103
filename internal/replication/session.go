package replication

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// A Session is a client's connection after its login, as a walsender has it. One
// goroutine reads from it (ReadCommand, ReadCopy); what is written is whole
// messages, by any goroutine.
type Session struct {
	Startup
	PID uint32 // unique among the server's sessions

	conn    net.Conn
	reader  *bufio.Reader
	used    int  // bytes of the buffer that the message before still is in
	skip    bool // to the next Sync, after an error in the extended protocol
	readErr error

	writing  sync.Mutex
	vector   net.Buffers // guarded by writing; kept for its capacity
	rest     net.Buffers // guarded by writing; what is left of vector
	writeErr error       // guarded by writing; what is on the wire ends within a message
}

const (
	// maxMessage bounds what a client may send at once, in bytes.
	maxMessage = 1 << 20
	// recordSize is the most that TLS encrypts at once, in bytes.
	recordSize = 16 << 10
)

// A Column is a column of a result, in text format.
type Column struct {
	Name string
	OID  uint32 // of its type
}

// Types of columns.
const (
	TypeBytea uint32 = 17
	TypeInt8  uint32 = 20
	TypeInt4  uint32 = 23
	TypeText  uint32 = 25
)

// SetReadDeadline bounds how long ReadCommand and ReadCopy wait. They may be
// called again after it has passed.
func (s *Session) SetReadDeadline(t time.Time) error { return s.conn.SetReadDeadline(t) }

// SetWriteDeadline bounds how long writes wait. A session whose write was cut
// short takes no more.
func (s *Session) SetWriteDeadline(t time.Time) error { return s.conn.SetWriteDeadline(t) }

// Close ends the connection at once: whoever waits in it gets an error. It may be
// called by any goroutine.
func (s *Session) Close() error { return bareConn(s.conn).Close() }

// ReadCommand returns the client's next command. What is no command is answered
// here. The error is io.EOF if the client has gone.
func (s *Session) ReadCommand() (Command, error) {
	for {
		kind, body, err := s.next(maxMessage)
		if err != nil {
			return nil, s.complain(err)
		}
		if s.skip && kind != 'S' && kind != 'X' {
			continue
		}
		switch kind {
		case 'Q':
			c, err := s.query(body)
			if c != nil || err != nil {
				return c, err
			}
		case 'X':
			return nil, io.EOF
		default:
			if err := s.refuse(kind); err != nil {
				return nil, s.complain(err)
			}
		}
	}
}

// query returns the command in a simple query; nil if it was answered.
func (s *Session) query(body []byte) (Command, error) {
	text, ok := strings.CutSuffix(string(body), "\x00")
	if !ok || strings.Contains(text, "\x00") {
		return nil, s.complain(protocolError("invalid message format"))
	}
	if strings.Trim(text, " \t\r\n\f\v;") == "" {
		return nil, s.say(&pgproto3.EmptyQueryResponse{}, ready())
	}
	c, err := ParseCommand(text)
	if complaint, ok := errors.AsType[*Error](err); ok {
		return nil, s.Fail(complaint)
	}
	return c, err
}

// refuse answers a message that is no simple query, as forbidden_in_wal_sender
// in postgres.c does.
func (s *Session) refuse(kind byte) error {
	switch kind {
	case 'P', 'B', 'E', 'D', 'C':
		s.skip = true
		return s.Write(encodeError("ERROR", protocolError("extended query protocol not supported in a replication connection")))
	case 'F':
		return s.Fail(protocolError("fastpath function calls not supported in a replication connection"))
	case 'S':
		s.skip = false
		return s.say(ready())
	case 'H', copyData, 'c', 'f': // remains of a stream that ended with an error
		return nil
	}
	return protocolError("invalid frontend message type %d", kind)
}

// complain tells the client of an error that ends the connection, if it is one
// of the client's, and returns it.
func (s *Session) complain(err error) error {
	if complaint, ok := errors.AsType[*Error](err); ok {
		return errors.Join(err, s.Fatal(complaint))
	}
	return err
}

// next reads a message of at most limit bytes. The body is valid until the next
// call.
func (s *Session) next(limit int) (kind byte, body []byte, err error) {
	if s.readErr != nil {
		return 0, nil, s.readErr
	}
	if _, err := s.reader.Discard(s.used); err != nil {
		return 0, nil, err
	}
	s.used = 0
	header, err := s.reader.Peek(copyHeader)
	if err != nil {
		return 0, nil, s.cut(err)
	}
	kind = header[0]
	size := bodySize(header)
	if size < 0 || size > limit {
		return 0, nil, protocolError("invalid message length")
	}
	if copyHeader+size <= readBuffer {
		message, err := s.reader.Peek(copyHeader + size)
		if err != nil {
			return 0, nil, s.cut(err)
		}
		s.used = copyHeader + size
		return kind, message[copyHeader:], nil
	}
	body, s.readErr = s.large(size)
	return kind, body, s.readErr
}

// large reads a message that is larger than the buffer, into memory that grows
// with what arrives. It cannot be interrupted.
func (s *Session) large(size int) ([]byte, error) {
	if _, err := s.reader.Discard(copyHeader); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err := io.CopyN(&b, s.reader, int64(size))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return b.Bytes(), err
}

// cut tells the end of the connection between two messages from one within.
func (s *Session) cut(err error) error {
	if errors.Is(err, io.EOF) && s.reader.Buffered() > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Result answers a command with rows, whose values are text and nil is NULL.
func (s *Session) Result(tag string, columns []Column, rows ...[][]byte) error {
	return s.say(append(resultSet(columns, rows), complete(tag), ready())...)
}

// Complete answers a command that has no rows.
func (s *Session) Complete(tag string) error { return s.say(complete(tag), ready()) }

// Fail answers a command with an error. The client may send another one. In a
// stream it ends the stream.
func (s *Session) Fail(e *Error) error {
	message, err := ready().Encode(encodeError("ERROR", e))
	if err != nil {
		return err
	}
	return s.Write(message)
}

// Fatal tells the client why the connection ends. The caller closes it.
func (s *Session) Fatal(e *Error) error { return s.Write(encodeError("FATAL", e)) }

// say writes messages, all at once.
func (s *Session) say(messages ...pgproto3.BackendMessage) error {
	var b []byte
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			return fmt.Errorf("replication: %w", err)
		}
	}
	return s.Write(b)
}

func ready() *pgproto3.ReadyForQuery { return &pgproto3.ReadyForQuery{TxStatus: 'I'} }

func complete(tag string) *pgproto3.CommandComplete {
	return &pgproto3.CommandComplete{CommandTag: []byte(tag)}
}

// resultSet returns the messages of rows.
func resultSet(columns []Column, rows [][][]byte) []pgproto3.BackendMessage {
	description := &pgproto3.RowDescription{}
	for _, c := range columns {
		description.Fields = append(description.Fields, pgproto3.FieldDescription{
			Name: []byte(c.Name), DataTypeOID: c.OID, DataTypeSize: typeSize(c.OID), TypeModifier: -1,
		})
	}
	messages := []pgproto3.BackendMessage{description}
	for _, row := range rows {
		messages = append(messages, &pgproto3.DataRow{Values: row})
	}
	return messages
}

// typeSize returns pg_type.typlen.
func typeSize(oid uint32) int16 {
	switch oid {
	case TypeInt4:
		return 4
	case TypeInt8:
		return 8
	default:
		return -1
	}
}

// encodeError returns an ErrorResponse.
func encodeError(severity string, e *Error) []byte {
	fields := []string{"S" + severity, "V" + severity, "C" + e.Code, "M" + e.Message}
	if e.Detail != "" {
		fields = append(fields, "D"+e.Detail)
	}
	if e.Hint != "" {
		fields = append(fields, "H"+e.Hint)
	}
	body := strings.Join(fields, "\x00") + "\x00\x00"
	return append(appendHeader(nil, 'E', len(body)), body...)
}
