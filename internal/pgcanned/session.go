package pgcanned

import (
	"encoding/binary"
	"fmt"
)

// session is the server's side of a connection: messages in, answers out.
type session struct {
	node *Node
	out  []byte // answers that were not read yet

	started  bool // the start-up is over
	over     bool // the session has ended
	status   byte // I, T or E, as in ReadyForQuery
	skipping bool // an error in the extended protocol has everything up to the Sync ignored
	wrote    bool // the transaction has written something
	standby  bool // in_hot_standby as it was reported last

	known    map[string][]*statement // by text
	prepared map[string]*statement   // by name
	bound    *statement              // the unnamed portal
	formats  []int16                 // of the portal's columns
}

// What a client may send before its first statement.
const (
	cancelRequest = 80877102
	sslRequest    = 80877103
	gssRequest    = 80877104
)

// mostKnown is how many texts a session remembers, so that a benchmark with
// ever new texts does not fill the memory.
const mostKnown = 1000

func newSession(n *Node) session {
	return session{node: n, status: 'I', known: map[string][]*statement{}, prepared: map[string]*statement{}}
}

// take answers every whole message in b and returns what is left.
func (s *session) take(b []byte) []byte {
	for !s.over {
		head := 5
		if !s.started {
			head = 4 // the first messages have no kind
		}
		if len(b) < head {
			return b
		}
		end := head - 4 + int(binary.BigEndian.Uint32(b[head-4:]))
		if len(b) < end {
			return b
		}
		if s.started {
			s.answer(b[0], fields{b[head:end]})
		} else {
			s.start(fields{b[head:end]})
		}
		b = b[end:]
	}
	return nil
}

// start lets everybody in, without encryption and without a password.
func (s *session) start(f fields) {
	switch f.long() {
	case sslRequest, gssRequest:
		s.out = append(s.out, 'N')
		return
	case cancelRequest: // there is never anything to cancel
		s.over = true
		return
	}
	s.started, s.standby = true, !s.node.primary.Load()
	s.out = append(s.out, 'R', 0, 0, 0, 8, 0, 0, 0, 0)
	for _, parameter := range [][2]string{
		{"server_version", version},
		{"server_encoding", "UTF8"},
		{"client_encoding", "UTF8"},
		{"standard_conforming_strings", "on"},
		{"integer_datetimes", "on"},
		{"TimeZone", "UTC"},
		{"DateStyle", "ISO, MDY"},
		{"default_transaction_read_only", "off"},
		{"in_hot_standby", onOff(s.standby)},
	} {
		s.out = message(s.out, 'S', parameter[0], parameter[1])
	}
	s.out = append(s.out, 'K', 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1)
	s.ready()
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// answer answers one message.
func (s *session) answer(kind byte, f fields) {
	switch kind {
	case 'S':
		s.skipping = false
		s.endImplicit()
		s.ready()
	case 'Q':
		s.query(f.text())
	case 'X':
		s.over = true
	case 'H':
	default:
		if !s.skipping {
			s.extended(kind, f)
		}
	}
}

// extended answers a message of the extended protocol.
func (s *session) extended(kind byte, f fields) {
	switch kind {
	case 'P':
		s.parse(f)
	case 'B':
		s.bind(f)
	case 'D':
		s.describe(f)
	case 'E':
		if s.bound == nil {
			s.fail("34000", "portal does not exist")
			return
		}
		s.execute(s.bound)
	case 'C':
		if what := f.b[0]; what == 'S' {
			delete(s.prepared, string(f.b[1:len(f.b)-1]))
		}
		s.out = append(s.out, '3', 0, 0, 0, 4)
	default:
		s.fail("08P01", fmt.Sprintf("pgcanned does not know messages of kind %q", kind))
	}
}
