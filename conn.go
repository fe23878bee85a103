package helios

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/pool"
)

// Conn is what database/sql calls a connection: a session, without a socket of
// its own. Each statement borrows a physical connection to the node it belongs
// to. The session keeps one while it is in a transaction, and from the moment
// it has state on the server (SET, temporary tables, advisory locks, LISTEN,
// PREPARE …) until it ends.
//
// A Conn is used by one goroutine at a time; database/sql sees to that.
type Conn struct {
	cluster *Cluster
	seed    uint64      // the balancer's, so that sessions do not march in step
	hints   []pool.Hint // by ordinal of the node: the connection used there last
	args    []any       // buffer of the statement's arguments
	option  func(*wish) // what option arguments of the coming statement ask for
	direct  run         // of Exec, which is over when it returns
	spare   *cursor     // of rows that were closed, to be used again; nil if there is none

	held     *pool.Conn // of a transaction or a pinned session; nil if there is none
	heldNode *node
	busy     bool       // rows of held are still being read
	pinned   bool       // held stays when the transaction ends
	block    bool       // the last statement on held opened a transaction block of the driver's own
	lentTo   []*Session // who may have written through held, which was handed out by PgxConn
	lost     bool       // the pinned connection is gone, and the session's state with it
	tx       *tx        // nil outside a transaction
	alone    bool       // the session closes its cluster
}

// What database/sql may ask of a connection.
var (
	_ driver.Conn               = (*Conn)(nil)
	_ driver.ConnPrepareContext = (*Conn)(nil)
	_ driver.ConnBeginTx        = (*Conn)(nil)
	_ driver.ExecerContext      = (*Conn)(nil)
	_ driver.QueryerContext     = (*Conn)(nil)
	_ driver.Pinger             = (*Conn)(nil)
	_ driver.SessionResetter    = (*Conn)(nil)
	_ driver.Validator          = (*Conn)(nil)
	_ driver.NamedValueChecker  = (*Conn)(nil)
)

// ExecContext implements driver.ExecerContext.
func (s *Conn) ExecContext(ctx context.Context, sql string, args []driver.NamedValue) (driver.Result, error) {
	r := &s.direct
	*r = run{session: s}
	if err := s.newQuery(ctx, &r.q, sql, args); err != nil {
		return nil, err
	}
	event, err := r.execute(ctx)
	if err != nil {
		return nil, err
	}
	for err == nil && event != pool.EventEnd {
		event, err = r.conn.Next(ctx)
	}
	affected := r.conn.Result().Affected
	if err = r.finish(ctx, err); err != nil {
		return nil, err
	}
	return driver.RowsAffected(affected), nil
}

// QueryContext implements driver.QueryerContext.
func (s *Conn) QueryContext(ctx context.Context, sql string, args []driver.NamedValue) (driver.Rows, error) {
	c := s.newCursor(ctx)
	if err := s.newQuery(ctx, &c.run.q, sql, args); err != nil {
		c.release()
		return nil, err
	}
	event, err := c.run.execute(ctx)
	if err != nil {
		c.release()
		return nil, err
	}
	c.begin(event)
	return &rows{c}, nil
}

// PrepareContext implements driver.ConnPrepareContext. Nothing is sent: the
// statement is prepared on every connection that executes it, when it does, and
// outlives the session it was made in. A mistake in sql shows at its first use.
func (s *Conn) PrepareContext(_ context.Context, sql string) (driver.Stmt, error) {
	return &stmt{session: s, sql: sql}, nil
}

// Prepare implements driver.Conn.
func (s *Conn) Prepare(sql string) (driver.Stmt, error) {
	return s.PrepareContext(context.Background(), sql)
}

// CheckNamedValue implements driver.NamedValueChecker. Every Go value that pgx
// can encode is welcome; an [Option] is taken out of the arguments.
func (s *Conn) CheckNamedValue(v *driver.NamedValue) error {
	option, ok := v.Value.(Option)
	if !ok {
		return nil
	}
	if option.apply == nil {
		s.option = nil // the call ends here
		return errEmptyOption
	}
	before := s.option
	s.option = func(w *wish) {
		if before != nil {
			before(w)
		}
		option.apply(w)
	}
	return driver.ErrRemoveArgument
}

// Ping implements driver.Pinger: the primary answers, or the node the context
// names. With target_session_attrs=standby a replica does.
func (s *Conn) Ping(ctx context.Context) error {
	_, err := s.ExecContext(Primary(ctx), pingText, nil)
	return err
}

// pingText is a statement that does nothing. It reaches the server all the same.
const pingText = "-- ping"

// ResetSession implements driver.SessionResetter: the next session starts. The
// one before gave everything back when it ended.
func (s *Conn) ResetSession(context.Context) error {
	s.option, s.lost = nil, false
	if s.cluster.closed.Load() {
		return driver.ErrBadConn
	}
	return nil
}

// IsValid implements driver.Validator. database/sql asks when a session ends:
// the place to give back what the session holds.
func (s *Conn) IsValid() bool {
	s.endSession()
	return !s.cluster.closed.Load()
}

// Close implements driver.Conn.
func (s *Conn) Close() error {
	s.endSession()
	if s.alone {
		return s.cluster.Close()
	}
	return nil
}

// Raw returns the session itself. Packages that wrap drivers offer a method of
// this name; asking for it twice does no harm.
func (s *Conn) Raw() driver.Conn { return s }

// Conn returns a pgx connection to the primary for what only pgx can do: COPY,
// large objects, batches. The session is pinned to it; what it is used for must
// be over when the function given to sql.Conn.Raw returns. It returns nil if no
// connection could be had within failover_wait: [Conn.PgxConn] says why.
func (s *Conn) Conn() *pgx.Conn {
	conn, err := s.PgxConn(context.Background())
	if err != nil {
		s.cluster.log.Warn("no connection to lend", "error", err)
		return nil
	}
	return conn
}

// PgxConn is like [Conn.Conn], with a context and an error. With [Node] in ctx
// the connection is to that node.
func (s *Conn) PgxConn(ctx context.Context) (*pgx.Conn, error) {
	if s.busy {
		return nil, errBusy
	}
	if s.held != nil {
		if err := s.settle(ctx); err != nil {
			return nil, err
		}
	}
	if s.held == nil {
		r := run{session: s}
		if err := s.newQuery(Primary(ctx), &r.q, pinText, nil); err != nil {
			return nil, err
		}
		if wish := wishOf(ctx); wish != nil {
			r.q.wish = *wish
		}
		event, err := r.execute(ctx)
		if err != nil {
			return nil, err
		}
		for err == nil && event != pool.EventEnd {
			event, err = r.conn.Next(ctx)
		}
		if err = r.finish(ctx, err); err != nil {
			return nil, err
		}
		if s.held == nil {
			return nil, ErrSessionLost
		}
	}
	s.held.DirtyStatements()
	s.held.ForgetPlans() // types may be registered
	s.lend(ctx)
	return s.held.Pgx()
}

// lend notes whose reads may have to see what is written through the connection
// that was handed out, until the session gives it back.
func (s *Conn) lend(ctx context.Context) {
	if s.lentTo != nil {
		return
	}
	s.lentTo = []*Session{&s.cluster.whole}
	q := query{session: &s.cluster.whole}
	if w := wishOf(ctx); w != nil {
		q.wish = *w
		s.cluster.applyWish(&q)
	}
	if q.session != &s.cluster.whole {
		s.lentTo = append(s.lentTo, q.session)
	}
	for _, session := range s.lentTo {
		session.lent.Add(1)
	}
}

// pinText is a statement that does nothing but needs a session.
const pinText = "RESET application_name"

// hintFor returns where the session remembers its connection to n.
func (s *Conn) hintFor(n *node) *pool.Hint {
	if n.ordinal >= len(s.hints) {
		s.hints = append(s.hints, make([]pool.Hint, n.ordinal+1-len(s.hints))...)
	}
	return &s.hints[n.ordinal]
}

// hold keeps r's connection for the session: until the transaction ends, or,
// once the statement has to do with the session's state, until the session does.
func (s *Conn) hold(r *run) {
	if s.tx == nil && !touchesState(r.q.stmt) {
		return
	}
	if s.held == nil {
		s.held, s.heldNode, s.busy = r.conn, r.place.node, true
	}
	s.pinned = s.pinned || touchesState(r.q.stmt)
}

// endSession gives back what the session holds.
func (s *Conn) endSession() {
	for _, session := range s.lentTo {
		session.takeBack()
	}
	conn, n := s.held, s.heldNode
	s.held, s.heldNode, s.tx = nil, nil, nil
	s.busy, s.pinned, s.lost, s.block, s.lentTo = false, false, false, false, nil
	clear(s.args[:cap(s.args)]) // an idle session keeps nobody's arguments alive
	s.direct.q.args = nil
	if conn != nil {
		n.giveBack(conn, s.hintFor(n))
	}
}

// lose gives up the connection that held the session's state, and says so: the
// session is not moved to another one.
func (s *Conn) lose(why error) error {
	n := s.heldNode
	n.pool.Discard(s.held)
	s.held, s.heldNode, s.busy, s.lost = nil, nil, false, true
	if s.tx != nil {
		return sent(n.name, fmt.Errorf("%w, %w: %w", ErrSessionLost, ErrNotCommitted, why))
	}
	return sent(n.name, fmt.Errorf("%w: %w", ErrSessionLost, why))
}

var errBusy = errors.New("helios: the rows of the session's last statement are still open: close them first")

// executeHeld sends a statement on the connection that the session holds.
func (r *run) executeHeld(ctx context.Context) (pool.Event, error) {
	s := r.session
	if s.busy {
		return pool.EventEnd, errBusy
	}
	if err := s.settle(ctx); err != nil {
		return pool.EventEnd, err
	}
	r.conn, r.place = s.held, place{node: s.heldNode, reason: "the session holds a connection"}
	s.busy = true
	s.heldNode.load.Begin()
	f := r.heldFrame()
	s.block = s.tx == nil && f.begin != ""
	event, err := r.send(ctx, f)
	if err == nil {
		s.hold(r)
		return event, nil
	}
	return pool.EventEnd, r.heldFailed(ctx, err)
}

// settle makes the held connection fit for a statement: it takes what the
// server sent unasked and what an interrupted statement still owes, and ends a
// transaction block that was the driver's own and failed.
func (s *Conn) settle(ctx context.Context) error {
	if ctx.Err() != nil {
		return unsent(s.heldNode.name, interrupted(ctx, context.Cause(ctx)))
	}
	conn, block := s.held, s.block
	s.block = false
	if s.lentTo != nil { // before anything is read: pgx may have half of a message
		if err := conn.TakeBack(context.WithoutCancel(ctx)); err != nil {
			return s.lose(err)
		}
	}
	if conn.Idle() && !conn.Absorb() {
		return s.lose(fmt.Errorf("the connection is gone: %w", conn.Cause()))
	}
	if conn.Idle() && (!block || conn.TxStatus() == 'I') {
		return nil
	}
	ctx = context.WithoutCancel(ctx) // what is begun here must be finished, and is bounded
	err := conn.Settle(ctx)
	if err == nil && block && conn.TxStatus() != 'I' {
		err = s.rollBack(ctx)
	}
	if err != nil {
		return s.lose(err)
	}
	return nil
}

// rollBack sends ROLLBACK on the held connection.
func (s *Conn) rollBack(ctx context.Context) error {
	s.held.NewCall().End = pool.HelperRollback
	if err := s.held.Send(ctx); err != nil {
		return err
	}
	return s.held.Drain(ctx)
}

// heldFrame returns the frame of a statement on a held connection.
func (r *run) heldFrame() frame {
	s := r.session
	switch {
	case s.tx != nil && !s.tx.begun:
		return s.tx.opening(r)
	case r.conn.TxStatus() != 'I':
		return frame{identify: s.tx != nil && s.tx.identifies(&r.q), look: r.q.counts}
	default:
		return r.autocommit()
	}
}

// heldFailed ends a statement on a held connection that failed before its first
// row.
func (r *run) heldFailed(ctx context.Context, err error) error {
	switch err := err.(type) { //nolint:errorlint // send returns them bare
	case *argumentError:
		r.release()
		return err
	case *pgconn.PgError:
		if tx := r.session.tx; tx != nil && r.conn.TxStatus() == 'I' {
			tx.failed = true // it failed before the server had heard of the transaction
		}
		r.forget(err)
		r.release()
		return err
	default:
		if tx := r.session.tx; tx != nil && !tx.begun {
			tx.failed = true
		}
		return r.broke(ctx, err)
	}
}

// now returns the time on the driver's clock.
func (c *Cluster) now() time.Time { return time.Now() }
