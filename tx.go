package helios

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/pool"
	"github.com/heliosdb/helios/router"
)

// tx is a transaction of database/sql. Nothing is sent for it until its first
// statement, which carries the BEGIN; COMMIT carries the question for the
// commit's position. A transaction of n statements costs n+1 round trips.
type tx struct {
	session  *Conn
	begin    string        // what opens it on the server
	forbids  bool          // it was begun READ ONLY
	readOnly bool          // and may run on a replica
	begun    bool          // the server knows of it
	wrote    bool          // a statement that may write was sent
	voids    bool          // a statement may have made prepared statements void
	local    bool          // a statement may have changed synchronous_commit for it
	scope    *Session      // whose token its commit moves
	identity pool.Identity // what its outcome can be found out with
	hidden   bool          // a statement may have written that carried no question for it
	wish     *wish         // of the context it was begun with; nil if it had none
	failed   bool          // a statement failed that PostgreSQL does not count as part of it: it is over all the same
}

// Commit and Rollback have no context of their own.
const (
	commitTimeout   = 30 * time.Second
	rollbackTimeout = 5 * time.Second
)

var (
	errCommitTimeout   = fmt.Errorf("no answer to COMMIT within %v", commitTimeout)
	errRollbackTimeout = fmt.Errorf("no answer to ROLLBACK within %v", rollbackTimeout)
)

// errAborted is what PostgreSQL answers in a transaction that has failed.
func errAborted() error {
	return &pgconn.PgError{
		Severity: "ERROR", Code: "25P02",
		Message: "current transaction is aborted, commands ignored until end of transaction block",
	}
}

var errInTx = errors.New("helios: the session is in a transaction already")

// Begin implements driver.Conn.
func (s *Conn) Begin() (driver.Tx, error) {
	return s.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx implements driver.ConnBeginTx. A read-only transaction runs on a
// replica that sees what the session has written, unless it is serializable,
// which PostgreSQL refuses on a standby.
func (s *Conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	switch {
	case s.tx != nil:
		return nil, errInTx
	case s.lost:
		return nil, unsent("", ErrSessionLost)
	case ctx.Err() != nil:
		return nil, interrupted(ctx, context.Cause(ctx))
	case s.busy:
		return nil, errBusy
	case s.held != nil:
		if err := s.settle(ctx); err != nil {
			return nil, err
		}
		if s.held.TxStatus() != 'I' {
			return nil, errInTx
		}
	}
	level := sql.IsolationLevel(opts.Isolation)
	isolation, err := isolationClause(level)
	if err != nil {
		return nil, err
	}
	t := &tx{session: s, begin: "BEGIN" + isolation, wish: wishOf(ctx)}
	if opts.ReadOnly {
		t.begin += " READ ONLY"
		t.forbids = true
		t.readOnly = level != sql.LevelSerializable
	}
	s.tx = t
	return t, nil
}

// isolationClause returns what a BEGIN says about the isolation level.
func isolationClause(level sql.IsolationLevel) (string, error) {
	switch level {
	case sql.LevelDefault:
		return "", nil
	case sql.LevelReadUncommitted:
		return " ISOLATION LEVEL READ UNCOMMITTED", nil
	case sql.LevelReadCommitted:
		return " ISOLATION LEVEL READ COMMITTED", nil
	case sql.LevelRepeatableRead, sql.LevelSnapshot:
		return " ISOLATION LEVEL REPEATABLE READ", nil
	case sql.LevelSerializable:
		return " ISOLATION LEVEL SERIALIZABLE", nil
	case sql.LevelWriteCommitted, sql.LevelLinearizable:
		return "", fmt.Errorf("helios: PostgreSQL has no isolation level %q", level)
	default:
		return "", fmt.Errorf("helios: PostgreSQL has no isolation level %q", level)
	}
}

// opening returns the frame of the transaction's first statement. The proof
// that a replica is fresh has a Sync of its own: nothing may come between BEGIN
// and the snapshot.
func (t *tx) opening(r *run) frame {
	return frame{check: r.place.check, checkApart: true, begin: t.begin, identify: t.identifies(&r.q), look: r.q.counts}
}

// identifies reports whether a statement carries the question for the identity of
// the transaction: one that may write and can have something behind it. The
// question is a query, and takes the transaction's snapshot if nothing has yet.
func (t *tx) identifies(q *query) bool {
	return !t.readOnly && q.writes() && q.stmt.Count == 1 && !q.stmt.TxControl && t.session.cluster.config.Resolve != ResolveOff &&
		(t.identity.XID != 0 || !precedesSnapshot(q.stmt))
}

// precedesSnapshot reports whether a statement takes no snapshot itself
// (PlannedStmtRequiresSnapshot in pquery.c) and writes nothing. Programs execute
// such a one in front of the first query on purpose: to set what only can be set
// there, or to lock a table before they look at it.
func precedesSnapshot(stmt *router.Statement) bool {
	switch stmt.Verb {
	case "CHECKPOINT", "LISTEN", "LOCK", "NOTIFY", "RESET", "SET", "SHOW", "UNLISTEN":
		return stmt.Count == 1
	default:
		return false
	}
}

// savepoint reports whether a statement sets or releases a savepoint, and so
// writes nothing itself.
func savepoint(stmt *router.Statement) bool {
	return stmt.Count == 1 && (stmt.Verb == "SAVEPOINT" || stmt.Verb == "RELEASE")
}

// sending notes what a statement may do to the transaction.
func (t *tx) sending(q *query) {
	t.begun = true
	t.wrote = t.wrote || q.stmt.Class != router.Read || q.learned
	t.local = t.local || q.stmt.SetsLocal
	t.voids = t.voids || q.stmt.Invalidates && q.stmt.Class != router.Session
	if t.identifies(q) {
		t.identity = pool.Identity{} // until it has answered: what was known may stand before its WAL
	} else {
		t.hidden = t.hidden || q.writes() && !savepoint(q.stmt) && !precedesSnapshot(q.stmt)
	}
	t.scope = q.session
}

// Commit implements driver.Tx.
func (t *tx) Commit() error {
	s := t.session
	defer t.end()
	switch {
	case !t.begun && !t.failed:
		return nil
	case s.held == nil:
		return unsent("", fmt.Errorf("%w: %w", ErrNotCommitted, ErrSessionLost))
	case t.failed:
		t.rollback()
		return pgx.ErrTxCommitRollback
	}
	ctx := context.Background()
	if err := s.settle(ctx); err != nil {
		return err
	}
	if s.held.TxStatus() == 'E' {
		t.rollback()
		return pgx.ErrTxCommitRollback
	}
	return t.commit(ctx)
}

// end takes the transaction out of the session. That its connection was lost
// means nothing for the session unless it had state there.
func (t *tx) end() {
	t.session.tx = nil
	if !t.session.pinned {
		t.session.lost = false
	}
}

// commit sends COMMIT and what is asked with it.
func (t *tx) commit(ctx context.Context) error {
	s := t.session
	conn, n := s.held, s.heldNode
	call := conn.NewCall()
	call.SegmentSize = s.cluster.routes.Load().view.Settings.SegmentSize
	call.End = pool.HelperCommit
	call.Committed = t.wrote && s.cluster.config.LSN == LSNEager
	call.Durability = call.Committed && t.local
	asked := s.cluster.now()
	conn.Limit(commitTimeout, errCommitTimeout)
	err := conn.Send(ctx)
	if err == nil {
		err = conn.Drain(ctx)
	}
	conn.Unlimit()
	defer t.letGo()
	t.local = t.local || conn.Touched()
	switch {
	case err != nil:
		told := t.uncertain(ctx, n, call, err)
		t.executed()
		return told
	case failed(call):
		return call.Err
	case call.EndTag != "COMMIT":
		return pgx.ErrTxCommitRollback
	}
	t.executed()
	return t.committed(n, call, asked)
}

// executed makes prepared statements void once the transaction is, or may be,
// committed: before that, others may have prepared what is void now.
func (t *tx) executed() {
	if t.voids {
		t.session.cluster.schema.Add(1)
	}
}

// committed moves the session's token behind the commit.
func (t *tx) committed(n *node, call *pool.Call, asked time.Time) error {
	c := t.session.cluster
	switch {
	case call.Warned && t.wrote:
		t.scope.mayHaveWritten(t.local)
		return unknown(n.name, errNotReplicated)
	case call.CommitLSN != 0:
		return c.committed(n, t.scope, call, 0, asked)
	case t.wrote && c.config.LSN != LSNOff:
		t.scope.wroteBlindly(t.local)
	}
	return nil
}

// uncertain says what a COMMIT without an answer may have done.
func (t *tx) uncertain(ctx context.Context, n *node, call *pool.Call, err error) error {
	if lost, ok := errors.AsType[*pool.LostError](err); ok {
		t.session.cluster.blame(n, err)
		switch {
		case call.EndTag == "COMMIT" && !lost.Warned:
			t.scope.wroteBlindly(t.local)
			return nil
		case !lost.Sent || !t.wrote:
			return &RouteError{Node: n.name, Sent: lost.Sent, Err: fmt.Errorf("%w: %w", ErrNotCommitted, err)}
		case endedBeforeCommit(lost):
			return sent(n.name, fmt.Errorf("%w: %w", ErrNotCommitted, lost.LastWords))
		case !t.hidden:
			w := &lostWrite{node: n, pid: t.session.held.PID(), id: t.identity, session: t.scope, own: t.local}
			t.giveUp(err) // finding out may take another connection
			return t.session.cluster.resolve(ctx, w).told(w, err)
		}
	}
	t.scope.mayHaveWritten(t.local)
	return unknown(n.name, interrupted(ctx, err))
}

// Rollback implements driver.Tx. It cannot fail: if the server does not answer,
// the connection is closed, and the server rolls back.
func (t *tx) Rollback() error {
	defer t.end()
	if (t.begun || t.failed) && t.session.held != nil {
		t.rollback()
	}
	return nil
}

// rollback ends the transaction on the server and lets its connection go. What
// was interrupted is cancelled and rolled back by the pool, in the background,
// unless the session is pinned to the connection.
func (t *tx) rollback() {
	s := t.session
	defer t.letGo()
	if !s.pinned && !s.held.Idle() {
		return
	}
	ctx := context.Background()
	if s.settle(ctx) != nil || s.held.TxStatus() == 'I' {
		return
	}
	s.held.Limit(rollbackTimeout, errRollbackTimeout)
	err := s.rollBack(ctx)
	s.held.Unlimit()
	if err != nil {
		s.held.Abort(err)
	}
}

// giveUp lets the transaction's connection go, which broke, and with it the state
// of a session that is pinned to it.
func (t *tx) giveUp(why error) {
	if t.session.pinned {
		t.session.lose(why) //nolint:errcheck // the next statement says so
		return
	}
	t.letGo()
}

// letGo gives the transaction's connection back unless the session is pinned
// to it.
func (t *tx) letGo() {
	s := t.session
	s.busy = false
	if s.pinned || s.held == nil {
		return
	}
	conn, n := s.held, s.heldNode
	s.held, s.heldNode = nil, nil
	n.giveBack(conn, s.hintFor(n))
}
