package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"
)

// Conn is one physical connection to a node. It is used by one goroutine at a
// time, its holder, between Acquire and Release; Abort may be called by anyone.
//
// pgx makes and authenticates the connection and lends its type map; statements
// go by our own loop over the protocol (see Send and Next), because one flush
// of ours carries the application's statement and what frames it.
type Conn struct {
	pgx    *pgx.Conn
	pg     *pgconn.PgConn
	fe     *pgproto3.Frontend
	wire   *wire
	socket net.Conn    // the connection under TLS, what Abort closes
	status func(*Conn) // told when the server reports another role
	hooks  *pgconn.Config

	slot  int32  // index in the pool's slots; written by the pool only
	epoch uint64 // generation of the pool; written by the pool only
	born  time.Time

	broken atomic.Bool
	cause  atomic.Pointer[error] // why Abort was called

	txStatus byte // of the last ReadyForQuery: 'I', 'T' or 'E'
	owed     int  // ReadyForQuery messages that are still to come
	dirty    bool // the session's state on the server was touched

	deallocates bool // the session may have made or dropped prepared statements

	// Schema is the holder's: the state of the schema that the connection's
	// prepared statements were made under.
	Schema uint64

	inRecovery, readOnly bool // as the server reported last

	prepared  map[string]*Prepared
	capacity  int      // how many statements stay prepared
	named     int      // names given so far
	discarded []string // names to be closed with the next flush
	helpers   helpers
	builder   pgx.ExtendedQueryBuilder

	describing *pgconn.StatementDescription // takes the parameter types while a statement is described
	row        [][]byte                     // the row Next found
	in         inbox                        // what comes from the server

	call  Call
	watch watch
	limit error // why a call is interrupted that takes longer than Limit allows; nil without a limit

	// Messages that are sent again and again.
	parse    pgproto3.Parse
	describe pgproto3.Describe
	bind     pgproto3.Bind
	execute  pgproto3.Execute
	closing  pgproto3.Close
	sync     pgproto3.Sync
	flush    pgproto3.Flush
	query    pgproto3.Query
}

// DialOptions say how Dial makes a connection.
type DialOptions struct {
	Config   *pgx.ConnConfig // of exactly one node; not changed
	Traffic  *Traffic        // counts the node's bytes
	OnStatus func(*Conn)     // called by the holder's goroutine when the server reports another role; may be nil
	// AfterConnect prepares a new session, and prepares it again after its
	// state was reset. May be nil.
	AfterConnect func(context.Context, *pgx.Conn) error
	// StatementCapacity is how many statements stay prepared on the connection.
	StatementCapacity int
}

// connecting marks the context of what makes a connection.
type connecting struct{}

// Dial makes a new, authenticated connection.
func Dial(ctx context.Context, o DialOptions) (*Conn, error) {
	c := &Conn{
		status:   o.OnStatus,
		born:     time.Now(),
		txStatus: 'I',
		prepared: map[string]*Prepared{},
		capacity: max(o.StatementCapacity, 1),
	}
	config := o.Config.Copy()
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		socket, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		w := newWire(socket, o.Traffic)
		// Others are for cancel requests, of this connection and of attempts at it
		// that failed: pgx makes those behind our back, while the next one is under way.
		if ctx.Value(connecting{}) != nil {
			c.wire, c.socket = w, socket
		}
		return w, nil
	}
	build := config.BuildFrontend
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		c.in.from = r // the last one counts, which is of the connection that was made
		return build(r, w)
	}
	conn, err := pgx.ConnectConfig(context.WithValue(ctx, connecting{}, true), config)
	if err != nil {
		return nil, err
	}
	c.pgx, c.pg, c.fe, c.hooks = conn, conn.PgConn(), conn.PgConn().Frontend(), &config.Config
	if err := c.prepareSession(ctx, o.AfterConnect); err != nil {
		c.Abort(err)
		return nil, err
	}
	if c.pg.ParameterStatus("standard_conforming_strings") == "off" {
		c.Abort(errStrings)
		return nil, errStrings
	}
	c.inRecovery = c.pg.ParameterStatus("in_hot_standby") == "on"
	c.readOnly = c.pg.ParameterStatus("default_transaction_read_only") == "on"
	return c, nil
}

// prepareSession runs the application's hook, and takes the connection back
// from pgx.
func (c *Conn) prepareSession(ctx context.Context, hook func(context.Context, *pgx.Conn) error) error {
	if hook != nil {
		if err := c.handOver(); err != nil {
			return err
		}
		if err := hook(ctx, c.pgx); err != nil {
			return fmt.Errorf("after-connect hook: %w", err)
		}
	}
	return c.TakeBack(ctx)
}

// TakeBack makes sure that pgx does not read from the connection any more, and
// has nothing left that it has read. A write of pgx's that takes long starts a
// reader in the background, which stays until something has come in.
func (c *Conn) TakeBack(ctx context.Context) error {
	err := c.emptyPgx()
	if err == nil {
		err = c.pg.SyncConn(ctx)
	}
	if err != nil && !c.pg.IsClosed() { // more came than it wants to wait for
		if err = c.emptyPgx(); err == nil {
			err = c.pg.SyncConn(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("taking the connection back from pgx: %w", err)
	}
	return nil
}

// emptyPgx takes what pgx has read and not used: what the server sent unasked,
// behind an answer.
func (c *Conn) emptyPgx() error {
	for c.fe.ReadBufferLen() > 0 {
		c.socket.SetReadDeadline(time.Now().Add(absorbTimeout)) //nolint:errcheck // the read fails instead
		msg, err := c.fe.Receive()
		c.socket.SetReadDeadline(time.Time{}) //nolint:errcheck // the next read fails instead
		if err != nil {
			return err
		}
		c.NewCall()
		if err := c.take(msg); err != nil {
			return err
		}
		if c.call.Fatal {
			return c.call.Err
		}
	}
	return nil
}

// errStrings refuses a server whose strings the driver would read wrongly, and
// so might send a write to a replica.
var errStrings = errors.New("standard_conforming_strings is off: set it to on for this role, this database or the server")

// Pgx hands out the pgx connection underneath, for what only pgx can do: COPY,
// large objects, the holder's own use. It must be idle when it is handed out
// and when it comes back.
func (c *Conn) Pgx() (*pgx.Conn, error) { return c.pgx, c.handOver() }

// handOver makes sure that nothing for pgx to read waits in a buffer of ours.
func (c *Conn) handOver() error {
	if !c.Absorb() || !c.in.empty() {
		return errors.New("the connection cannot be handed to pgx: it is gone, or in the middle of a message")
	}
	return nil
}

// TypeMap returns the connection's types, the application's own among them.
func (c *Conn) TypeMap() *pgtype.Map { return c.pgx.TypeMap() }

// TxStatus returns 'I' when idle, 'T' in a transaction, 'E' in a failed one.
func (c *Conn) TxStatus() byte { return c.txStatus }

// InRecovery reports whether the server said last that it is a hot standby.
// PostgreSQL 14 and newer say so at connect and with the first response after a
// change; an older one says it to AskRole only.
func (c *Conn) InRecovery() bool { return c.inRecovery }

// ReadOnly reports whether the server said last that transactions are read-only
// by default, in the same way as InRecovery.
func (c *Conn) ReadOnly() bool { return c.readOnly }

// AskRole makes InRecovery and ReadOnly true of this moment where the server
// does not report them, at the cost of a round trip; where it does, it has
// already. A transaction that has failed is rolled back.
func (c *Conn) AskRole(ctx context.Context) error {
	if c.pg.ParameterStatus("in_hot_standby") != "" {
		return nil
	}
	text := "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only')"
	if c.txStatus == 'E' {
		text = "ROLLBACK; " + text
	}
	c.NewCall().Text = text
	if err := c.Send(ctx); err != nil {
		return err
	}
	for {
		event, err := c.Next(ctx)
		if err != nil {
			return err
		}
		switch event {
		case EventRow:
			c.inRecovery, c.readOnly = string(c.row[0]) == "t", string(c.row[1]) == "on"
		case EventResult:
		case EventEnd:
			if refused := c.call.Err; refused != nil {
				return refused
			}
			return nil
		}
	}
}

// Dirty notes that the session's state on the server was touched: before
// anybody else uses the connection it is reset.
func (c *Conn) Dirty() { c.dirty = true }

// Touched reports whether the session's state was touched since it was reset:
// what the server reports of its settings may then be the session's own.
func (c *Conn) Touched() bool { return c.dirty }

// DirtyStatements notes that the session made or dropped prepared statements of
// its own.
func (c *Conn) DirtyStatements() { c.dirty, c.deallocates = true, true }

// Broken reports whether the connection was given up. Unlike Usable it does not
// look at the socket.
func (c *Conn) Broken() bool { return c.broken.Load() }

// Idle reports whether no answer is owed: the next call can be sent.
func (c *Conn) Idle() bool { return c.owed == 0 }

// Clean reports whether the connection can be given to the next session as it
// is: nothing owed, no transaction open, no state touched.
func (c *Conn) Clean() bool {
	return c.owed == 0 && c.txStatus == 'I' && !c.dirty
}

// Born returns when the connection was made.
func (c *Conn) Born() time.Time { return c.born }

// Received returns how many bytes have come in. It may be called by anyone.
func (c *Conn) Received() int64 { return c.wire.received.Load() }

// PID returns the server process's id.
func (c *Conn) PID() uint32 { return c.pg.PID() }

// Abort closes the socket at once: whoever is reading from the connection gets
// an error that wraps cause. It is safe to call from any goroutine, and more
// than once; the first cause counts.
func (c *Conn) Abort(cause error) {
	if !c.broken.CompareAndSwap(false, true) {
		return
	}
	if cause != nil {
		c.cause.Store(&cause)
	}
	if c.socket != nil {
		c.socket.Close() //nolint:errcheck // the connection is given up
	}
}

// Cause returns why the connection was given up.
func (c *Conn) Cause() error {
	if cause := c.cause.Load(); cause != nil {
		return *cause
	}
	return net.ErrClosed
}

// Close says goodbye to the server and closes the socket. The holder calls it.
func (c *Conn) Close() {
	if c.fe != nil && !c.broken.Load() && c.owed == 0 {
		c.socket.SetDeadline(time.Now().Add(goodbye)) //nolint:errcheck // the write below fails instead
		c.fe.Send(&pgproto3.Terminate{})
		c.fe.Flush() //nolint:errcheck // a lost goodbye is no harm: the server sees the end of the stream
	}
	c.Abort(nil)
}

// goodbye bounds the last write of a connection.
const goodbye = 100 * time.Millisecond

// Usable reports whether the connection may serve another statement: it was
// not aborted, and no last words and no end of stream wait in its socket.
func (c *Conn) Usable() bool {
	return !c.broken.Load() && (c.wire == nil || c.quiet())
}

// quiet reports whether nothing of the server waits to be read.
func (c *Conn) quiet() bool { return c.in.empty() && c.wire.peek.quiet() }

// absorbTimeout bounds the wait for the rest of a message that has begun to
// arrive.
const absorbTimeout = 100 * time.Millisecond

// Absorb takes what the server sent without being asked, such as notifications,
// and reports whether the session lives. It is for a connection that its holder
// keeps; a connection on which something waits is not Usable.
func (c *Conn) Absorb() bool {
	for !c.broken.Load() && !c.quiet() {
		c.socket.SetReadDeadline(time.Now().Add(absorbTimeout)) //nolint:errcheck // the read fails instead
		kind, body, err := c.in.next()
		c.socket.SetReadDeadline(time.Time{}) //nolint:errcheck // the next read fails instead
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return true // less than a message, such as a record of TLS itself
		}
		if err == nil {
			c.NewCall()
			_, _, err = c.receive(kind, body)
		}
		if err == nil && c.call.Fatal {
			err = c.call.Err
		}
		if err != nil {
			c.Abort(err)
		}
	}
	return !c.broken.Load()
}

// Limit interrupts the calls that follow with cause, as the end of a context
// would, unless they are over after d. It is for calls that have no context: one
// with a timeout costs nine objects. Unlimit ends it.
func (c *Conn) Limit(d time.Duration, cause error) {
	c.limit = cause
	c.socket.SetDeadline(time.Now().Add(d)) //nolint:errcheck // a closed socket fails at its next use
}

// Unlimit ends what Limit began.
func (c *Conn) Unlimit() {
	c.limit = nil
	c.socket.SetDeadline(time.Time{}) //nolint:errcheck // a closed socket fails at its next use
}

// watch interrupts reads and writes when the context of a call ends.
type watch struct {
	mu    sync.Mutex
	armed uint64 // guarded by mu; the call that is under way; 0 if there is none
	fired bool   // guarded by mu; the socket's deadline is in the past
	calls uint64 // how many calls were armed
	stop  func() bool
}

// arm makes the end of ctx interrupt the connection until disarm.
func (c *Conn) arm(ctx context.Context) {
	if ctx.Done() == nil {
		return
	}
	c.watch.calls++
	call := c.watch.calls
	c.watch.mu.Lock()
	c.watch.armed = call
	c.watch.mu.Unlock()
	c.watch.stop = context.AfterFunc(ctx, func() { c.interrupt(call) })
}

// interrupt wakes whoever waits for the socket in call. It may come when the
// call is over and another one has begun.
func (c *Conn) interrupt(call uint64) {
	c.watch.mu.Lock()
	defer c.watch.mu.Unlock()
	if c.watch.armed == call {
		c.watch.fired = true
		c.socket.SetDeadline(longAgo) //nolint:errcheck // a closed socket is awake already
	}
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// disarm ends what arm began.
func (c *Conn) disarm() {
	if c.watch.stop == nil {
		return
	}
	c.watch.stop()
	c.watch.stop = nil
	c.watch.mu.Lock()
	defer c.watch.mu.Unlock()
	c.watch.armed = 0
	if c.watch.fired {
		c.watch.fired = false
		c.socket.SetDeadline(time.Time{}) //nolint:errcheck // a closed socket fails at its next use
	}
}
