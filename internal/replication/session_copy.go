package replication

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/heliosdb/helios/wal"
)

// ErrCopyDone is returned when the other end has ended its side of a stream.
var ErrCopyDone = errors.New("replication: the other end has ended the stream")

// StartCopy answers StartReplication with a stream: from here on both sides send
// CopyData.
func (s *Session) StartCopy() error { return s.say(&pgproto3.CopyBothResponse{}) }

// ReadCopy returns the payload of the client's next message in a stream, which
// begins with its kind. It is valid until the next call. The error is ErrCopyDone
// when the client has ended the stream, and io.EOF when it has gone.
func (s *Session) ReadCopy() ([]byte, error) {
	kind, body, err := s.next(maxMessage)
	if err != nil {
		return nil, s.complain(err)
	}
	switch kind {
	case copyData:
		if len(body) > 0 {
			return body, nil
		}
	case 'c':
		return nil, ErrCopyDone
	case 'X':
		return nil, io.EOF
	case 'f':
		return nil, fmt.Errorf("replication: the client ends the stream: %q", body)
	}
	return nil, s.complain(protocolError("invalid standby message type %q", string(rune(kind))))
}

// SendCopyDone ends this side of a stream. What the client sends until it has
// ended its own is still to be read.
func (s *Session) SendCopyDone() error { return s.say(&pgproto3.CopyDone{}) }

// EndCopy says what follows a stream that both sides have ended: the next
// timeline and where it begins, or nothing if next is zero. Then the client may
// send commands.
func (s *Session) EndCopy(next wal.Position) error {
	var messages []pgproto3.BackendMessage
	if next.Timeline != 0 {
		row := [][]byte{[]byte(next.Timeline.String()), []byte(next.LSN.String())}
		messages = resultSet([]Column{{"next_tli", TypeInt8}, {"next_tli_startpos", TypeText}}, [][][]byte{row})
	}
	// Two of them: libpqrcv_endstreaming in libpqwalreceiver.c waits for both.
	return s.say(append(messages, complete("START_STREAMING"), complete("START_REPLICATION"), ready())...)
}

// NextTimeline answers StartReplication without a stream, when the timeline ended
// where the client wants to begin.
func (s *Session) NextTimeline(next wal.Position) error { return s.EndCopy(next) }

// Write sends whole messages, of which each part may be any piece. On TCP they
// go out by one system call and uncopied. It may be called beside ReadCopy, and by
// several goroutines.
func (s *Session) Write(parts ...[]byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.writeErr != nil {
		return s.writeErr
	}
	s.writeErr = s.writeLocked(parts)
	return s.writeErr
}

func (s *Session) writeLocked(parts [][]byte) error {
	if len(parts) == 1 {
		_, err := s.conn.Write(parts[0])
		return err
	}
	if _, ok := s.conn.(*tls.Conn); ok {
		return s.writeRecordsLocked(parts)
	}
	// WriteTo eats what it is given, and the parts are the caller's.
	s.vector = append(s.vector[:0], parts...)
	s.rest = s.vector
	_, err := s.rest.WriteTo(s.conn)
	clear(s.vector)
	return err
}

// records are buffers in which messages for TLS are put together.
var records = sync.Pool{New: func() any { return new([recordSize]byte) }}

// writeRecordsLocked fills TLS records: small parts are joined, and what fills a
// record by itself is not copied.
func (s *Session) writeRecordsLocked(parts [][]byte) error {
	buffer := records.Get().(*[recordSize]byte)
	defer records.Put(buffer)
	filled := 0
	for _, part := range parts {
		for len(part) > 0 {
			if filled == 0 && len(part) >= recordSize {
				whole := len(part) - len(part)%recordSize
				if _, err := s.conn.Write(part[:whole]); err != nil {
					return err
				}
				part = part[whole:]
				continue
			}
			n := copy(buffer[filled:], part)
			filled, part = filled+n, part[n:]
			if filled < recordSize {
				continue
			}
			if _, err := s.conn.Write(buffer[:]); err != nil {
				return err
			}
			filled = 0
		}
	}
	if filled == 0 {
		return nil
	}
	_, err := s.conn.Write(buffer[:filled])
	return err
}
