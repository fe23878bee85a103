package helios

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/heliosdb/helios/pool"
	"github.com/heliosdb/helios/router"
)

// run is one statement on one connection, from its sending until its last
// answer was taken and the connection given back.
type run struct {
	session  *Conn
	q        query
	place    place
	conn     *pool.Conn
	prepared *pool.Prepared
	began    int64     // when the statement was sent, for the latency balancer; 0 if nobody asks
	asked    time.Time // before the position of a commit was asked for
	over     bool      // the connection was given back
	touched  bool      // the state of the connection's session was touched before the statement
	guard    *guard    // of the connection, while its node is down; else nil
	verdict  verdict   // what became of a commit whose answer was lost
	absent   *history  // in which an earlier attempt is known to have had no effect
}

// execute sends q where it belongs, again if that is safe, until there is an
// answer to hand out: its first row, its end, or an error. After an error r
// holds nothing.
func (r *run) execute(ctx context.Context) (pool.Event, error) {
	s := r.session
	switch {
	case s.lost:
		return pool.EventEnd, unsent("", ErrSessionLost)
	case s.tx != nil && s.tx.failed:
		return pool.EventEnd, errAborted()
	case s.held != nil:
		return r.executeHeld(ctx)
	}
	var t tries
	for {
		place, err := s.cluster.locate(ctx, &r.q, &t)
		if err != nil {
			return pool.EventEnd, err
		}
		if r.absent != nil && !r.absent.shown(place.node, s.cluster.routes.Load()) {
			r.q.session.mayHaveWritten(true)
			return pool.EventEnd, unknown(place.node.name, errOtherHistory)
		}
		r.place = place
		event, err := r.attempt(ctx, &t)
		if err == nil {
			s.hold(r)
			return event, nil
		}
		told := r.judge(ctx, &t, err)
		switch {
		case told == nil && r.verdict == committed:
			s.lost = touchesState(r.q.stmt) // what it left behind went with its connection
			if r.conn.Recall() {
				return r.conn.Next(ctx)
			}
			return pool.EventEnd, nil
		case told == nil:
			continue
		}
		if _, wrong := told.(*argumentError); s.tx != nil && s.held == nil && !wrong { //nolint:errorlint // judge returns it bare
			s.tx.failed = true // PostgreSQL would not let it go on either
		}
		return pool.EventEnd, told
	}
}

// errBehind says that a replica's answer must not be handed out.
var errBehind = errors.New("replica is behind")

// attempt sends the statement to the chosen node and waits for its first news.
// A *pgconn.PgError is the server's answer to the statement.
func (r *run) attempt(ctx context.Context, t *tries) (pool.Event, error) {
	t.attempts++
	n := r.place.node
	conn, err := n.pool.Acquire(ctx, r.session.hintFor(n))
	if err != nil {
		return pool.EventEnd, err
	}
	if r.held() {
		n.giveBack(conn, r.session.hintFor(n))
		r.conn = nil
		return pool.EventEnd, unsent(n.name, fmt.Errorf("%w: %w", ErrNoPrimary, errHeld))
	}
	r.conn, r.over, r.began = conn, false, 0
	n.load.Begin()
	if schema := r.session.cluster.schema.Load(); conn.Schema != schema {
		conn.ForgetStatements()
		conn.Schema = schema
	}
	if r.place.replica && r.place.want > n.load.Replay() {
		r.place.check = true // the connection is new: what the node had proved is void
	}
	if r.session.cluster.measures {
		r.began = time.Now().UnixNano()
	}
	if tx := r.session.tx; tx != nil {
		return r.send(ctx, tx.opening(r))
	}
	f := r.autocommit()
	f.whole = !r.place.replica && r.q.atomic() // it may be sent again, as long as nobody has seen its rows
	return r.send(ctx, f)
}

// held reports whether companions have begun to have writes wait while the
// statement stood in line for a connection.
func (r *run) held() bool {
	return r.session.cluster.routes.Load().view.Told.Hold && r.q.begins(true) && r.q.wish.node == ""
}

// frame says what travels around a statement.
type frame struct {
	check, checkApart bool
	begin             string
	identify          bool
	durability        bool
	end               pool.Helper
	whole             bool
	committed, apart  bool
	readLSN           bool
	look              bool
}

// autocommit returns the frame of a statement that is its own transaction.
//
// What can run in a transaction block travels as BEGIN, statement, COMMIT and
// the question for the commit's position, with one Sync: the server flushes its
// answer at every Sync, and that is what a second one would cost. The position
// must be asked for after COMMIT: anything inside the transaction stands before
// the commit record. What cannot run in a block has a Sync of its own.
func (r *run) autocommit() frame {
	q := &r.q
	if r.place.replica {
		return frame{check: r.place.check, checkApart: r.session.cluster.checkApart(), look: q.counts}
	}
	if !q.writes() {
		return frame{readLSN: r.place.learn != 0, look: q.counts}
	}
	config := r.session.cluster.config
	eager, all := config.LSN == LSNEager, config.Resolve == ResolveAll
	if !eager && !all || r.place.node != r.session.cluster.routes.Load().primary {
		return frame{}
	}
	switch {
	case q.atomic():
		return frame{begin: "BEGIN", identify: all, durability: eager && q.stmt.SetsLocal, end: pool.HelperCommit, committed: eager}
	case !eager:
		return frame{}
	case q.stmt.TxControl:
		return frame{} // a question inside somebody's transaction would take its snapshot
	default:
		return frame{committed: true, apart: true}
	}
}

// send prepares, binds and sends the statement in its frame.
func (r *run) send(ctx context.Context, f frame) (pool.Event, error) {
	conn, q := r.conn, &r.q
	r.guard = r.session.cluster.guard(r.place.node, conn)
	switch {
	case q.stmt.Count == 1:
		if err := r.prepare(ctx); err != nil {
			return pool.EventEnd, err
		}
	case len(q.args) > 0:
		return pool.EventEnd, &argumentError{fmt.Errorf("a text with %d statements takes no arguments", q.stmt.Count)}
	}
	r.mark()
	if f.committed || f.readLSN {
		r.asked = r.session.cluster.now()
	}
	call := conn.NewCall()
	call.SegmentSize = r.session.cluster.routes.Load().view.Settings.SegmentSize
	call.Check, call.CheckApart = f.check, f.checkApart
	call.ReadLSN, call.Begin = f.readLSN, f.begin
	call.Look, call.Identify, call.EarlyAnswer = f.look, f.identify, f.end != pool.HelperNone
	call.Whole = f.whole
	call.Durability, call.End, call.Committed, call.ApartFromEnd = f.durability, f.end, f.committed, f.apart
	call.Relaxed = f.apart && q.stmt.SetsLocal || f.readLSN && r.place.relaxed
	call.Main = r.prepared
	if q.stmt.Count > 1 {
		call.Text = q.stmt.SQL
	}
	if err := conn.Send(ctx); err != nil {
		return pool.EventEnd, err
	}
	return r.first(ctx)
}

// mark notes on the connection, and on the transaction, what the statement may
// leave behind, before it can have done so.
func (r *run) mark() {
	stmt := r.q.stmt
	r.touched = r.conn.Touched()
	if touchesState(stmt) {
		r.conn.Dirty()
	}
	if stmt.Deallocates {
		r.conn.DirtyStatements()
	}
	if tx := r.session.tx; tx != nil {
		tx.sending(&r.q)
	}
}

// touchesState reports whether a statement may leave state in its session on the
// server: one that says so, and one that calls what the driver cannot see into,
// a function of the application or a DO block, which may call set_config.
func touchesState(stmt *router.Statement) bool {
	return stmt.Class == router.Session || stmt.SetsLocal
}

// prepare makes the statement known to the connection and binds its arguments.
func (r *run) prepare(ctx context.Context) (err error) {
	q := &r.q
	if q.oneShot() {
		r.prepared = pool.OneShot(q.stmt.SQL)
	} else if r.prepared, err = r.conn.Prepare(ctx, q.stmt.SQL, q.unnamed()); err != nil {
		return err
	}
	if err := r.bind(); err != nil {
		return &argumentError{err}
	}
	return nil
}

// bind encodes the arguments. Should one of them panic, the program may go on,
// and nobody else would give the connection back.
func (r *run) bind() error {
	done := false
	defer func() {
		if !done {
			r.release()
		}
	}()
	err := r.conn.Bind(r.prepared, r.q.args, r.q.resultFormats(r.prepared.Fields))
	done = true
	return err
}

// argumentError says that the arguments do not fit the statement. Nothing was
// sent, and no other node would see it differently.
type argumentError struct{ err error }

func (e *argumentError) Error() string { return "helios: " + e.err.Error() }
func (e *argumentError) Unwrap() error { return e.err }

// first waits for the first news of the statement and sees that it may be
// handed out.
func (r *run) first(ctx context.Context) (pool.Event, error) {
	event, err := r.conn.Next(ctx)
	call := r.conn.Result()
	if _, lost := errors.AsType[*pool.LostError](err); lost && succeeded(call) {
		return pool.EventEnd, nil
	}
	if err != nil {
		return event, err
	}
	if call.HasPosition && r.place.want != 0 {
		if !r.fresh(call) {
			return event, errBehind
		}
	} else if r.place.check && (call.Err == nil || event != pool.EventEnd) {
		return event, errBehind
	}
	if event == pool.EventEnd && failed(call) {
		return event, call.Err
	}
	return event, nil
}

// fresh reports whether the node has proved that it sees what the read must
// see. A node that is not in recovery any more was promoted, and its positions
// are of another timeline than its view says.
func (r *run) fresh(call *pool.Call) bool {
	n := r.place.node
	if !call.Recovering {
		r.session.cluster.prober.Kick(n.name)
		return false
	}
	n.load.SawReplay(call.Position)
	fresh := call.Position >= r.place.want
	n.proved(fresh, r.session.cluster.now)
	return fresh
}

// release gives the connection back, or leaves it with who holds it.
func (r *run) release() {
	if r.over {
		return
	}
	r.over = true
	r.guard.end()
	var took time.Duration
	if r.began != 0 {
		took = time.Duration(time.Now().UnixNano() - r.began)
	}
	r.place.node.load.End(took)
	s := r.session
	if s.held == r.conn {
		s.busy = false
		return
	}
	r.place.node.giveBack(r.conn, s.hintFor(r.place.node))
}

// checkApart reports whether the position must be asked for with a Sync of its
// own: where a whole transaction has one snapshot, the question would be
// answered after the snapshot was taken.
func (c *Cluster) checkApart() bool {
	return !c.routes.Load().view.Settings.SnapshotPerStmt || c.extras.afterConnect != nil // which may set another level
}
