package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/heliosdb/helios/wal"
)

// Start asks for WAL from a position of a timeline on, through a slot unless
// that is "". Timeline 0 is the server's own. If started, Next has the stream.
// If not, and err is nil, the timeline ended right there: next says how it goes
// on, and the connection takes commands as before. Options are appended to the
// command as they are. Some of what is wrong with a request the server finds out
// after it has begun to stream, a position that it does not have among them: it is
// Next that returns such an error.
func (c *Client) Start(ctx context.Context, slot string, at wal.LSN, t wal.Timeline, options string) (started bool, next wal.Position, err error) {
	var text strings.Builder
	text.WriteString("START_REPLICATION ")
	if slot != "" {
		text.WriteString("SLOT " + quoteIdentifier(slot) + " ")
	}
	text.WriteString("PHYSICAL " + at.String())
	if t != 0 {
		text.WriteString(" TIMELINE " + t.String())
	}
	text.WriteString(options)
	a, err := c.command(ctx, text.String())
	if err != nil {
		return false, wal.Position{}, err
	}
	if a.copy {
		c.begin()
		return true, wal.Position{}, nil
	}
	next, err = nextTimeline(a)
	return false, next, err
}

// begin is where a stream begins.
func (c *Client) begin() {
	c.phase, c.left = streaming, 0
	c.writing.Lock()
	defer c.writing.Unlock()
	c.copyDone = false
}

// nextTimeline reads how it goes on after the end of a timeline; zero if the
// server does not say.
func nextTimeline(a answer) (wal.Position, error) {
	if len(a.rows) == 0 {
		return wal.Position{}, nil
	}
	row := a.rows[0]
	if len(row) != 2 {
		return wal.Position{}, fmt.Errorf("replication: a next timeline of %d columns", len(row))
	}
	t, err := parseTimeline(row[0])
	if err != nil {
		return wal.Position{}, err
	}
	at, err := wal.ParseLSN(string(row[1]))
	return wal.Position{Timeline: t, LSN: at}, err
}

// parseTimeline reads the timeline in a column of a result.
func parseTimeline(text []byte) (wal.Timeline, error) {
	t, err := strconv.ParseUint(string(text), 10, 32)
	if err != nil || t == 0 {
		return 0, fmt.Errorf("replication: %q is not a timeline", text)
	}
	return wal.Timeline(t), nil
}

// Next waits for what the stream holds next; what was not read of the event
// before is skipped. Messages of a kind that this package does not know are
// returned like WAL, with Size for what follows the kind.
//
// At the end of a timeline, or after StopCopy, it returns KindEnd: the stream is
// over, and the connection takes commands again. It does so as well when the
// server ends the stream with an error, a *pgconn.PgError, that is not fatal. The
// error is io.EOF if the server shuts down in order, having sent all it has;
// and if the deadline passes, Next may be called again.
func (c *Client) Next() (Event, error) {
	if c.phase != streaming {
		return Event{}, errors.New("replication: there is no stream")
	}
	if err := c.skip(c.left); err != nil {
		return Event{}, c.interrupted(err)
	}
	for {
		kind, size, err := c.peek()
		if err != nil {
			return Event{}, c.interrupted(err)
		}
		switch kind {
		case copyData:
			e, err := c.event(size)
			return e, c.interrupted(err)
		case 'c':
			return c.end(size)
		case 'C': // "COPY 0", as WalSndDone says goodbye
			c.phase = broken
			return Event{}, io.EOF
		case 'E':
			return Event{}, c.endedByError()
		}
		if err := c.aside(); err != nil {
			return Event{}, c.interrupted(err)
		}
	}
}

// skip leaves out n bytes of the current event. It may be interrupted.
func (c *Client) skip(n int) error {
	done, err := c.reader.Discard(n)
	c.left -= done
	return err
}

// interrupted says that the stream broke, unless err is nil or a deadline passed:
// no byte is lost then.
func (c *Client) interrupted(err error) error {
	if err == nil {
		return nil
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return fmt.Errorf("replication: %w", err)
	}
	return c.failed(err)
}

// event reads what a CopyData message of size bytes begins with. Nothing is
// taken from the connection before all of that is there.
func (c *Client) event(size int) (Event, error) {
	if size == 0 {
		return Event{}, errors.New("an empty message in a stream")
	}
	known, err := c.reader.Peek(copyHeader + 1)
	if err != nil {
		return Event{}, err
	}
	e := Event{Kind: known[copyHeader], Size: size - 1}
	header := 1
	switch e.Kind {
	case KindData:
		header = dataHeader
	case KindKeepalive:
		header = keepaliveSize
	}
	if size < header {
		return Event{}, fmt.Errorf("a message of kind %q has %d bytes and needs %d", e.Kind, size, header)
	}
	b, err := c.reader.Peek(copyHeader + header)
	if err != nil {
		return Event{}, err
	}
	e.fill(b[copyHeader+1:])
	e.Size = size - header
	c.left = e.Size
	_, err = c.reader.Discard(copyHeader + header)
	return e, err
}

// fill takes what a message of the event's kind tells of itself.
func (e *Event) fill(b []byte) {
	switch e.Kind {
	case KindData:
		e.Start = wal.LSN(binary.BigEndian.Uint64(b))
		e.End = wal.LSN(binary.BigEndian.Uint64(b[8:]))
		e.SentAt = parseTime(b[16:])
	case KindKeepalive:
		e.End = wal.LSN(binary.BigEndian.Uint64(b))
		e.SentAt = parseTime(b[8:])
		e.Reply = b[16] != 0
	}
}

// Read reads what follows the header of the event that Next returned last. It
// fills p unless the event ends before; behind its last byte there is io.EOF.
func (c *Client) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if c.left == 0 || c.phase != streaming {
		return 0, io.EOF
	}
	n, err := io.ReadFull(c.reader, p[:min(len(p), c.left)])
	c.left -= n
	return n, c.interrupted(err)
}

// end answers the server's CopyDone and reads what it has to say after that.
func (c *Client) end(size int) (Event, error) {
	if _, err := c.reader.Discard(copyHeader + size); err != nil {
		return Event{}, c.failed(err)
	}
	if err := c.StopCopy(); err != nil {
		return Event{}, c.failed(err)
	}
	a, err := c.readAnswer()
	if err != nil {
		return Event{}, err
	}
	if a.copy {
		return Event{}, c.failed(errors.New("a stream ends with another one"))
	}
	next, err := nextTimeline(a)
	return Event{Kind: KindEnd, Next: next}, err
}

// endedByError returns what the server ended the stream with. Unless it is fatal
// the server takes commands after it.
func (c *Client) endedByError() error {
	c.writing.Lock()
	c.copyDone = true
	c.writing.Unlock()
	_, err := c.readAnswer()
	return err
}

// aside takes a message that may come at any time.
func (c *Client) aside() error {
	kind, body, err := c.message(maxAnswer)
	if err != nil {
		return err
	}
	switch kind {
	case 'S':
		return c.report(body)
	case 'N', 'A':
		return nil
	}
	return fmt.Errorf("a message of type %q is no part of a stream", kind)
}
