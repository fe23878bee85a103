package pool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/jackc/pgx/v5/pgproto3"
)

// inbox cuts what comes from the server into messages. pgproto3's reader does so
// as well; this one makes no object of what is only a byte and a length, which is
// most of what comes.
//
// pgx has a reader of its own, for what is lent to it. The two take turns: who
// hands over has nothing in its buffer (see TakeBack). Below them is one source,
// which knows what pgx has read in the background.
type inbox struct {
	from   io.Reader
	buf    []byte
	rp, wp int // what has come and was not handed out
}

const (
	inboxSize   = 8 << 10   // as much as the server sends at once
	keptInbox   = 128 << 10 // a buffer that has grown beyond is given up behind the message
	headerSize  = 5         // kind and length
	longestBody = 1 << 30   // PostgreSQL's own limit (PQ_LARGE_MESSAGE_LIMIT)
)

// empty reports whether nothing waits in the buffer.
func (in *inbox) empty() bool { return in.rp == in.wp }

// next returns the kind and the body of the next message; the body is only lent
// until the next call. What came of a message that is not complete when the
// deadline passes is kept.
func (in *inbox) next() (kind byte, body []byte, err error) {
	for {
		have := in.buf[in.rp:in.wp]
		need := messageSize(have)
		switch {
		case need < headerSize || need > 1+longestBody:
			return 0, nil, fmt.Errorf("the server sent a message of %d bytes", need-1)
		case len(have) >= need:
			in.rp += need
			return have[0], have[headerSize:need:need], nil
		}
		if err := in.fill(need); err != nil {
			return 0, nil, err
		}
	}
}

// messageSize returns how many bytes the message has that begins with have: as many as its
// head, while that is not whole.
func messageSize(have []byte) int {
	if len(have) < headerSize {
		return headerSize
	}
	return 1 + int(binary.BigEndian.Uint32(have[1:headerSize])) // the length counts itself
}

// unread puts the message that next has handed out last back in front of what waits.
func (in *inbox) unread(body []byte) { in.rp -= headerSize + len(body) }

// foresight is what ahead has found.
type foresight uint8

const (
	unforeseen foresight = iota // neither, within the limit
	completed                   // so many statements are, or the whole call
	broken                      // the server says an error first, or nothing more
)

// ahead reads until it knows whether so many statements are completed, and takes
// nothing of it. It keeps limit bytes at most, and the rest of one message.
func (in *inbox) ahead(statements, limit int) foresight {
	for at := 0; ; { // counted from rp, which moves when the buffer does
		have := in.buf[in.rp+at : in.wp]
		need := messageSize(have)
		switch {
		case at+need > limit:
			return unforeseen
		case len(have) < need:
			if in.fill(1<<bits.Len(uint(at+need))) != nil {
				return broken
			}
			continue
		case need < headerSize:
			return broken // next says so
		}
		switch have[0] {
		case kindReady:
			return completed
		case kindError:
			return broken
		case kindCommandComplete, kindEmptyQuery:
			if statements--; statements == 0 {
				return completed
			}
		}
		at += need
	}
}

// rest returns a copy of what has come and was not handed out.
func (in *inbox) rest() []byte { return bytes.Clone(in.buf[in.rp:in.wp]) }

// fill reads what has come. The buffer grows with what comes of a long message,
// not with what was announced of it.
func (in *inbox) fill(need int) error {
	if in.empty() {
		in.rp, in.wp = 0, 0
		if len(in.buf) == 0 || len(in.buf) > keptInbox {
			in.buf = make([]byte, inboxSize)
		}
	}
	switch {
	case in.wp < len(in.buf) && in.rp+need <= len(in.buf):
	case need <= len(in.buf):
		in.compact(in.buf)
	case in.rp > 0 || in.wp == len(in.buf):
		in.compact(make([]byte, min(need, 2*len(in.buf))))
	}
	n, err := in.from.Read(in.buf[in.wp:])
	in.wp += n
	switch {
	case n > 0 || err == nil:
		return nil
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF // the server says goodbye by FATAL, or not at all
	default:
		return err
	}
}

// compact moves what is left to the start of a buffer.
func (in *inbox) compact(to []byte) {
	in.wp = copy(to, in.buf[in.rp:in.wp])
	in.rp, in.buf = 0, to
}

// Kinds of messages from the server that take no decoding.
const (
	kindParseComplete   = '1'
	kindBindComplete    = '2'
	kindCloseComplete   = '3'
	kindCommandComplete = 'C'
	kindDataRow         = 'D'
	kindEmptyQuery      = 'I'
	kindError           = 'E'
	kindNoData          = 'n'
	kindReady           = 'Z'
)

// decode reads the messages that are rare.
func decode(kind byte, body []byte) (pgproto3.BackendMessage, error) {
	var msg pgproto3.BackendMessage
	switch kind {
	case 'A':
		msg = new(pgproto3.NotificationResponse)
	case kindError:
		msg = new(pgproto3.ErrorResponse)
	case 'G':
		msg = new(pgproto3.CopyInResponse)
	case 'H':
		msg = new(pgproto3.CopyOutResponse)
	case 'N':
		msg = new(pgproto3.NoticeResponse)
	case 'S':
		msg = new(pgproto3.ParameterStatus)
	case 'T':
		msg = new(pgproto3.RowDescription)
	case 'W':
		msg = new(pgproto3.CopyBothResponse)
	case 't':
		msg = new(pgproto3.ParameterDescription)
	default:
		return nil, fmt.Errorf("the server sent a message of kind %q, which has no place here", kind)
	}
	return msg, msg.Decode(body)
}

var errShortRow = errors.New("the server sent a row that ends too early")

// readRow cuts a row into its columns, in row as far as that has room. NULL is nil;
// everything else is only lent, as body is.
func readRow(row [][]byte, body []byte) ([][]byte, error) {
	if len(body) < 2 {
		return nil, errShortRow
	}
	n := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	if cap(row) < n || cap(row) > n+keptColumns {
		row = make([][]byte, n)
	}
	row = row[:n]
	for i := range row {
		if len(body) < 4 {
			return nil, errShortRow
		}
		length := int(int32(binary.BigEndian.Uint32(body)))
		body = body[4:]
		switch {
		case length == -1:
			row[i] = nil
		case length < 0 || length > len(body):
			return nil, errShortRow
		default:
			row[i] = body[:length:length]
			body = body[length:]
		}
	}
	return row, nil
}

// keptColumns is how many columns more than needed are kept for wider rows.
const keptColumns = 32
