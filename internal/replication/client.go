package replication

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// readBuffer is what a connection reads ahead. What is larger goes straight
	// to where the caller wants it.
	readBuffer = 4096
	// maxAnswer bounds what a command may be answered with, in bytes.
	maxAnswer = 64 << 20
	// farewell bounds how long Close takes.
	farewell = time.Second / 2
)

// phase is what a client's connection is in the middle of.
type phase uint8

const (
	idle      phase = iota // a command may be sent
	streaming              // between Start and the end of the stream
	broken                 // what comes next is not known
)

// A Client is a replication connection to a server that sends WAL, as a
// walreceiver has one. It is used by one goroutine at a time, but for SendStatus,
// SendFeedback, SendCopy, StopCopy and Close, which others may call while it
// waits.
type Client struct {
	conn        net.Conn
	reader      *bufio.Reader
	parameters  map[string]string
	phase       phase
	left        int   // bytes of the event before that nobody has read
	segmentSize int64 // 0 until it was asked for

	writing  sync.Mutex
	buffer   []byte // guarded by writing
	copyDone bool   // guarded by writing; this side has ended the stream
	closed   bool   // guarded by writing
}

// Connect opens a replication connection as cfg says: hosts are tried in turn,
// and TLS and authentication are pgconn's. What cfg would have asked a new
// connection by SQL (target_session_attrs and the like) is not asked, since a
// replication connection does not answer: the caller chooses the hosts.
func Connect(ctx context.Context, cfg *pgconn.Config) (*Client, error) {
	var reader *bufio.Reader
	cfg = cfg.Copy()
	cfg.RuntimeParams["replication"] = "true"
	cfg.ValidateConnect, cfg.AfterConnect = nil, nil
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		reader = bufio.NewReaderSize(r, readBuffer)
		return pgproto3.NewFrontend(&messageReader{from: reader}, w)
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return &Client{conn: hijacked.Conn, reader: reader, parameters: maps.Clone(hijacked.ParameterStatuses), copyDone: true}, nil
}

// messageReader hands out a server's bytes up to the end of a message and no
// further: pgproto3 reads ahead into a buffer that it does not give back.
type messageReader struct {
	from   *bufio.Reader
	header [copyHeader]byte
	seen   int // bytes of header
	body   int // bytes to come
}

// Read implements io.Reader.
func (m *messageReader) Read(p []byte) (int, error) {
	if m.seen == copyHeader && m.body == 0 {
		m.seen = 0
	}
	if m.seen == copyHeader {
		n, err := m.from.Read(p[:min(len(p), m.body)])
		m.body -= n
		return n, err
	}
	n, err := m.from.Read(p[:min(len(p), copyHeader-m.seen)])
	m.seen += copy(m.header[m.seen:], p[:n])
	if m.seen == copyHeader {
		m.body = max(0, bodySize(m.header[:]))
	}
	return n, err
}

// Parameter returns a parameter as the server last reported it, "" if it never
// did.
func (c *Client) Parameter(name string) string { return c.parameters[name] }

// SetReadDeadline bounds how long Next and Read wait. Commands remove it.
func (c *Client) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// SendStatus sends a status update.
func (c *Client) SendStatus(s Status) error {
	return c.send(func(b []byte) []byte { return AppendStatus(b, s) })
}

// SendFeedback sends hot standby feedback.
func (c *Client) SendFeedback(f Feedback) error {
	return c.send(func(b []byte) []byte { return AppendFeedback(b, f) })
}

// SendCopy sends a message of another kind, which the server has to know.
func (c *Client) SendCopy(kind byte, payload []byte) error {
	return c.send(func(b []byte) []byte { return AppendCopy(b, kind, payload) })
}

// StopCopy asks the server to end the stream: Next returns what is on its way,
// and then KindEnd.
func (c *Client) StopCopy() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.stopCopyLocked()
}

// stopCopyLocked ends the stream from this side, unless that was done before.
func (c *Client) stopCopyLocked() error {
	if c.copyDone {
		return nil
	}
	c.copyDone = true
	return c.writeLocked(appendHeader(c.buffer[:0], 'c', 0))
}

// send writes the CopyData message that build appends.
func (c *Client) send(build func([]byte) []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.copyDone {
		return errCopyEnded
	}
	return c.writeLocked(build(c.buffer[:0]))
}

var errCopyEnded = errors.New("replication: there is no stream, or it was ended from this side")

// writeLocked writes one message, and keeps its buffer for the next one unless
// it is large.
func (c *Client) writeLocked(message []byte) error {
	if c.closed {
		return net.ErrClosed
	}
	if cap(message) <= readBuffer {
		c.buffer = message[:0]
	}
	_, err := c.conn.Write(message)
	return err
}

// Close ends the connection. It does not wait for the server, and takes no
// longer than a second. It may be called more than once, and by any goroutine:
// whoever waits in the connection gets an error.
func (c *Client) Close() error {
	// A deadline first: whoever writes to a server that does not read holds the
	// lock.
	deadline := c.conn.SetWriteDeadline(time.Now().Add(farewell))
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.closed {
		return nil
	}
	if deadline == nil {
		_ = c.writeLocked(appendHeader(c.buffer[:0], 'X', 0)) // a courtesy
	}
	c.closed = true
	return bareConn(c.conn).Close()
}

// bareConn returns what TLS runs over. Closing a tls.Conn waits for a peer that
// does not read; the protocol has a farewell of its own.
func bareConn(conn net.Conn) net.Conn {
	if c, ok := conn.(*tls.Conn); ok {
		return c.NetConn()
	}
	return conn
}

// watch makes everything that waits in conn fail when ctx ends. The function it
// returns ends that, and returns err, or why ctx ended if that is what err comes
// from.
func watch(ctx context.Context, conn net.Conn) (unwatch func(err error) error) {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = conn.SetDeadline(time.Unix(1, 0)) // of a closed connection: nobody waits in it
	})
	return func(err error) error {
		if !stop() {
			<-fired
			if err != nil {
				return context.Cause(ctx)
			}
		}
		if err != nil {
			return err
		}
		return conn.SetDeadline(time.Time{})
	}
}

// failed says that the connection cannot go on.
func (c *Client) failed(err error) error {
	c.phase = broken
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("replication: %w", err)
}
