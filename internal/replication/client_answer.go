package replication

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// An answer is what a server says to a command.
type answer struct {
	rows [][][]byte // of all result sets; nil for NULL
	copy bool       // there is no more, but a stream
	size int        // bytes so far
	err  error      // what the server complains of
}

// bodySize returns how much follows the header of a message; negative for what
// is no header.
func bodySize(header []byte) int {
	return int(int32(binary.BigEndian.Uint32(header[1:]))) - 4
}

// command sends a command and reads all of its answer, or all in front of a
// stream.
func (c *Client) command(ctx context.Context, text string) (answer, error) {
	if c.phase != idle {
		return answer{}, errors.New("replication: the connection takes no command: " + c.phase.why())
	}
	if strings.ContainsRune(text, 0) {
		return answer{}, errors.New("replication: a command cannot hold a zero byte")
	}
	if err := ctx.Err(); err != nil {
		return answer{}, context.Cause(ctx)
	}
	unwatch := watch(ctx, c.conn)
	a, err := c.ask(text)
	return a, unwatch(err)
}

// why tells why there can be no command now.
func (p phase) why() string {
	switch p {
	case idle:
		return ""
	case streaming:
		return "a stream is running"
	case broken:
		return "it is broken"
	}
	panic(fmt.Sprintf("replication: phase %d", p))
}

func (c *Client) ask(text string) (answer, error) {
	c.writing.Lock()
	message := appendHeader(c.buffer[:0], 'Q', len(text)+1)
	message = append(append(message, text...), 0)
	err := c.writeLocked(message)
	c.writing.Unlock()
	if err != nil {
		return answer{}, c.failed(err)
	}
	return c.readAnswer()
}

// readAnswer reads up to where the server is ready for a command, or to the
// beginning of a stream.
func (c *Client) readAnswer() (a answer, err error) {
	for {
		kind, body, err := c.message(maxAnswer - a.size)
		if err != nil {
			return a, errors.Join(a.err, c.failed(err))
		}
		a.size += copyHeader + len(body)
		switch done, err := c.understand(&a, kind, body); {
		case err != nil:
			return a, c.failed(err)
		case done && c.phase == broken:
			return a, a.err
		case done:
			c.phase = idle
			return a, a.err
		}
	}
}

// understand takes one message of an answer, and reports whether it is the last.
func (c *Client) understand(a *answer, kind byte, body []byte) (done bool, err error) {
	switch kind {
	case 'D':
		var row pgproto3.DataRow
		if err := row.Decode(body); err != nil {
			return false, err
		}
		a.rows = append(a.rows, row.Values)
	case 'E':
		complaint, err := parseError(body)
		if err != nil {
			return false, err
		}
		a.err = complaint
		if isFatal(complaint) {
			c.phase = broken
			return true, nil
		}
	case 'W':
		a.copy = true
		return true, nil
	case 'Z':
		return true, nil
	case 'S':
		return false, c.report(body)
	case 'T', 'C', 'I', 'N', 'A': // nothing that anybody asks for
	default:
		return false, fmt.Errorf("a message of type %q is no part of an answer", kind)
	}
	return false, nil
}

// message reads a whole message of at most limit bytes. Memory grows with what
// arrives, not with what its header says.
func (c *Client) message(limit int) (kind byte, body []byte, err error) {
	kind, size, err := c.peek()
	if err != nil {
		return 0, nil, err
	}
	if size > limit {
		return 0, nil, fmt.Errorf("an answer of more than %d bytes is refused", maxAnswer)
	}
	if _, err := c.reader.Discard(copyHeader); err != nil {
		return 0, nil, err
	}
	var b bytes.Buffer
	b.Grow(min(size, readBuffer))
	if _, err := io.CopyN(&b, c.reader, int64(size)); err != nil {
		return 0, nil, err
	}
	return kind, b.Bytes(), nil
}

// peek returns type and size of the next message, which it leaves unread.
func (c *Client) peek() (kind byte, size int, err error) {
	header, err := c.reader.Peek(copyHeader)
	if err != nil {
		return 0, 0, err
	}
	size = bodySize(header)
	if size < 0 {
		return 0, 0, fmt.Errorf("a message of type %q says that it has %d bytes", header[0], size)
	}
	return header[0], size, nil
}

// report takes a parameter that the server reports.
func (c *Client) report(body []byte) error {
	var status pgproto3.ParameterStatus
	if err := status.Decode(body); err != nil {
		return err
	}
	c.parameters[status.Name] = status.Value
	return nil
}

func parseError(body []byte) (*pgconn.PgError, error) {
	var response pgproto3.ErrorResponse
	if err := response.Decode(body); err != nil {
		return nil, err
	}
	return pgconn.ErrorResponseToPgError(&response), nil
}

// isFatal reports whether the server closes the connection after an error.
func isFatal(err *pgconn.PgError) bool {
	severity := err.SeverityUnlocalized
	return severity == "FATAL" || severity == "PANIC"
}
