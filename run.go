package helios

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

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
		r.place = place
		event, err := r.attempt(ctx, &t)
		if err == nil {
			s.hold(r)
			return event, nil
		}
		told := r.judge(ctx, &t, err)
		if told == nil {
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
	return r.send(ctx, r.autocommit())
}

// frame says what travels around a statement.
type frame struct {
	check, checkApart bool
	begin             string
	durability        bool
	end               pool.Helper
	committed, apart  bool
	readLSN           bool
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
		return frame{check: r.place.check, checkApart: r.session.cluster.checkApart()}
	}
	if !q.writes() {
		return frame{readLSN: r.place.learn != 0}
	}
	if r.session.cluster.config.LSN != LSNEager || r.place.node != r.session.cluster.routes.Load().primary {
		return frame{}
	}
	switch {
	case q.stmt.Class <= router.Write && q.stmt.Count <= 1: // a read that a standby has refused is none
		return frame{begin: "BEGIN", durability: q.stmt.SetsLocal, end: pool.HelperCommit, committed: true}
	case q.stmt.TxControl:
		return frame{} // a question inside somebody's transaction would take its snapshot
	default:
		return frame{committed: true, apart: true}
	}
}

// send prepares, binds and sends the statement in its frame.
func (r *run) send(ctx context.Context, f frame) (pool.Event, error) {
	conn, q := r.conn, &r.q
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
	if err := r.conn.Bind(r.prepared, q.args, q.resultFormats(r.prepared.Fields)); err != nil {
		return &argumentError{err}
	}
	return nil
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
	n.proved(fresh, r.session.cluster.now())
	return fresh
}

// finish settles a call that was read to its end, or that ended with err, and
// gives the connection back. It returns what the application is told.
func (r *run) finish(ctx context.Context, err error) error {
	if r.over {
		return err
	}
	if err != nil {
		return r.broke(ctx, err)
	}
	call := r.conn.Result()
	told := r.outcome(call)
	r.release()
	return told
}

// outcome says what a call that was read to its end means, and learns from it.
func (r *run) outcome(call *pool.Call) error {
	if failed(call) {
		return call.Err
	}
	r.afterward()
	if call.Warned && r.q.writes() {
		r.q.session.wroteBlindly(true)
		return unknown(r.place.node.name, errNotReplicated)
	}
	return r.learn(call)
}

// failed reports whether the error of a call means that the statement had no
// effect. One that came after the commit, from the question for its position,
// does not.
func failed(call *pool.Call) bool {
	switch {
	case call.Err == nil:
		return false
	case call.End != pool.HelperNone:
		return call.EndTag != "COMMIT"
	default:
		return call.ErrAt != pool.StageAfter || !call.Completed
	}
}

// errNotReplicated is what PostgreSQL warns of when it stops waiting.
var errNotReplicated = errors.New("the transaction committed locally, but may not have been replicated to the standby")

// afterward counts a statement that was executed, and forgets what it made
// void.
func (r *run) afterward() {
	if r.q.stmt.Deallocates {
		r.conn.ForgetAll()
	}
	switch {
	case !r.q.stmt.Invalidates:
	case r.q.stmt.Class == router.Session:
		r.conn.ForgetStatements() // SET search_path and its like concern nobody else
	default:
		r.session.cluster.schema.Add(1)
	}
	if r.q.writes() {
		r.place.node.counts.writes.Add(1)
	} else {
		r.place.node.counts.reads.Add(1)
	}
}

// learn moves the session's token.
func (r *run) learn(call *pool.Call) error {
	c, q := r.session.cluster, &r.q
	if call.CommitLSN != 0 {
		return c.committed(r.place.node, q.session, call, r.place.learn, r.asked)
	}
	switch {
	case !q.writes() || c.config.LSN == LSNOff || r.session.tx != nil:
	case q.stmt.TxControl && r.conn.TxStatus() != 'I':
		// the transaction goes on
	default:
		q.session.wroteBlindly(q.stmt.SetsLocal || r.conn.Touched() || call.Err != nil)
	}
	return nil
}

// committed moves the session's token to a position that was read after a
// commit, and refuses one of a timeline that the cluster has left. asked is a
// time before the position was read.
func (c *Cluster) committed(n *node, session *Session, call *pool.Call, learn uint64, asked time.Time) error {
	view := c.routes.Load().view
	if call.CommitTimeline != 0 && call.CommitTimeline < view.Timeline {
		c.prober.Kick("")
		if learn != 0 {
			return nil
		}
		c.counts.writesLost.Add(1)
		return sent(n.name, fmt.Errorf("%w: it was committed on timeline %s, the cluster is on %s", ErrWriteLost, call.CommitTimeline, view.Timeline))
	}
	timeline := call.CommitTimeline
	if timeline == 0 {
		timeline = view.Timeline
	}
	token := Token{SystemID: view.SystemID, Timeline: timeline, LSN: call.CommitLSN}
	session.Advance(token)
	if session != &c.whole && learn == 0 {
		c.whole.Advance(token)
	}
	if learn != 0 {
		session.learn(learn)
	}
	c.board.SamplePrimary(asked, call.CommitLSN)
	return nil
}

// release gives the connection back, or leaves it with who holds it.
func (r *run) release() {
	if r.over {
		return
	}
	r.over = true
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

// broke ends a call whose connection broke or was interrupted, and says what
// the application is told.
func (r *run) broke(ctx context.Context, err error) error {
	call := r.conn.Result()
	if cut, ok := errors.AsType[*pool.InterruptedError](err); ok {
		r.release()
		return r.cut(ctx, cut)
	}
	lost, ok := errors.AsType[*pool.LostError](err)
	if !ok {
		r.release()
		return err
	}
	s, n := r.session, r.place.node
	s.cluster.blame(n, err)
	told := r.lostOutcome(call, lost)
	if s.held != r.conn {
		r.release()
		return told
	}
	r.over = true
	n.load.End(0)
	gone := s.lose(err)
	switch {
	case told == nil:
		return nil
	case s.tx != nil && !r.q.stmt.TxControl:
		return gone
	default:
		return &RouteError{Node: n.name, Sent: lost.Sent, Err: fmt.Errorf("%w: %w", ErrSessionLost, told)}
	}
}

// cut says what a statement whose context ended may have done.
func (r *run) cut(ctx context.Context, cut *pool.InterruptedError) error {
	n := r.place.node
	err := interrupted(ctx, cut.Err)
	switch {
	case !cut.Sent:
		return unsent(n.name, err)
	case r.q.repeatable() || r.session.tx != nil && !r.q.stmt.TxControl:
		return sent(n.name, err)
	}
	r.q.session.wroteBlindly(true)
	return unknown(n.name, err)
}

// lostOutcome says what a statement whose connection broke may have done; nil
// means that it was committed.
func (r *run) lostOutcome(call *pool.Call, lost *pool.LostError) error {
	n := r.place.node
	switch {
	case succeeded(call):
		r.q.session.wroteBlindly(true)
		return nil
	case !lost.Sent:
		return unsent(n.name, lost)
	case r.q.repeatable():
		return sent(n.name, lost)
	case r.session.tx != nil && !r.q.stmt.TxControl: // no COMMIT was sent
		return sent(n.name, fmt.Errorf("%w: %w", ErrNotCommitted, lost))
	case r.q.stmt.Class == router.Write && endedBeforeCommit(lost):
		return sent(n.name, fmt.Errorf("%w: %w", ErrNotCommitted, lost.LastWords))
	default:
		r.q.session.wroteBlindly(true)
		return unknown(n.name, lost)
	}
}

// succeeded reports whether the statement's success had arrived before the
// connection broke: what was lost is only the answer to a question behind it.
func succeeded(call *pool.Call) bool {
	switch {
	case call.Warned:
		return false
	case call.End != pool.HelperNone:
		return call.EndTag == "COMMIT"
	default:
		return call.Answered && !failed(call)
	}
}

// endedBeforeCommit reports whether the server said with its last words that it
// gave a transaction up before its commit. It says so while a statement runs; a
// commit is not interrupted, except while it waits for standbys, and then the
// server warns. It proves nothing for statements that commit on their way, such
// as CALL.
func endedBeforeCommit(lost *pool.LostError) bool {
	return lost.LastWords != nil && lost.LastWords.Code == codeAdminShutdown && !lost.Warned
}

// judge decides whether a statement whose attempt failed with err, before a
// row was handed out, may be sent again. It gives the connection back and
// returns nil if so, else what the application is told.
func (r *run) judge(ctx context.Context, t *tries, err error) error {
	t.last = err
	n := r.place.node
	if r.conn == nil || r.over {
		return r.judgeAcquire(ctx, t, err)
	}
	if errors.Is(err, errBehind) {
		r.skip(ctx)
		t.behind++
		t.tried = append(t.tried, n)
		r.session.cluster.counts.behind.Add(1)
		return nil
	}
	if refused, ok := err.(*pgconn.PgError); ok { //nolint:errorlint // attempt returns it bare
		return r.judgeServer(ctx, t, refused)
	}
	if wrong, ok := err.(*argumentError); ok { //nolint:errorlint // likewise
		r.release()
		return wrong
	}
	told := r.broke(ctx, err)
	switch {
	case told == nil: // it has succeeded after all: the last thing to do is send it again
		return unknown(n.name, err)
	case ctx.Err() != nil, errors.Is(told, ErrOutcomeUnknown), errors.Is(told, ErrSessionLost):
		return told
	case errors.Is(told, pool.ErrCopy):
		return told
	case r.session.cluster.config.Retry == RetryOff && !unsentError(told):
		return told
	case !SafeToRetry(told) && !r.q.repeatable():
		return told
	case r.session.tx != nil && !unsentError(told) && !r.q.repeatable():
		return told
	case !unsentError(told):
		if t.resent++; t.resent > maxResent {
			return told // it may be the statement that ends its server
		}
	}
	return r.elsewhere(ctx, t, told)
}

// maxResent is how often a statement is sent again after a connection broke on
// which it had been sent.
const maxResent = 2

// unsentError reports whether err says that nothing was sent.
func unsentError(err error) bool {
	route, ok := errors.AsType[*RouteError](err)
	return ok && !route.Sent
}

// elsewhere rules the node out for a read, and lets a moment pass before a
// write tries the primary again.
func (r *run) elsewhere(ctx context.Context, t *tries, why error) error {
	c := r.session.cluster
	c.counts.retries.Add(1)
	if r.place.replica {
		t.tried = append(t.tried, r.place.node)
		return nil
	}
	if r.q.wish.node != "" && t.attempts > maxNodeAttempts {
		return why
	}
	t.stalls++
	if c.routes.Load().guess && !errors.Is(why, ErrNoPrimary) {
		why = &RouteError{Node: r.place.node.name, Sent: !unsentError(why), Err: fmt.Errorf("%w: %w", ErrNoPrimary, why)}
	}
	return c.wait(ctx, t, c.board.Changed(), why)
}

// maxNodeAttempts is how often a statement tries a node that its caller named.
const maxNodeAttempts = 3

// judgeAcquire handles a connection that could not be had.
func (r *run) judgeAcquire(ctx context.Context, t *tries, err error) error {
	n := r.place.node
	switch {
	case ctx.Err() != nil:
		return unsent(n.name, interrupted(ctx, err))
	case errors.Is(err, pool.ErrClosed) && r.session.cluster.closed.Load():
		return unsent("", ErrClosed)
	case connectCode(err) == codeNoDatabase && r.place.replica && !r.session.cluster.config.replicasOnly():
		t.toPrimary = true // the replica has not replayed CREATE DATABASE yet
		return nil
	case !mayConnectLater(err):
		return unsent(n.name, err)
	}
	return r.elsewhere(ctx, t, unsent(n.name, err))
}

// judgeServer handles an error that the server answered with before any row.
func (r *run) judgeServer(ctx context.Context, t *tries, refused *pgconn.PgError) error {
	c, q := r.session.cluster, &r.q
	r.forget(refused)
	switch {
	case planIsVoid(refused) && t.repeated < 1:
		t.repeated++
	case r.place.replica && !q.readOnlyTx && refusedByStandby(refused) && !c.config.replicasOnly():
		q.stmt.Learn()
		q.learned = true
		c.counts.learned.Add(1)
		t.toPrimary = true
	case r.place.replica && conflictsWithRecovery(refused):
		c.counts.conflicts.Add(1)
		t.tried = append(t.tried, r.place.node)
	case r.place.replica && r.place.check && !r.conn.Result().HasPosition && !c.config.replicasOnly():
		t.toPrimary = true // it may lack what the session has just created
	case r.fenced(refused) && t.repeated < maxRefusals:
		t.repeated++
		c.board.Doubt(r.place.node.name, refused)
		c.prober.Kick("")
		r.release()
		return c.wait(ctx, t, c.board.Changed(), unsent(r.place.node.name, refused))
	default:
		if tx := r.session.tx; tx != nil {
			tx.failed = tx.failed || r.conn.TxStatus() == 'I'
			r.session.hold(r) // the transaction has failed, but it goes on until its end
		}
		r.release()
		return refused
	}
	r.release()
	return nil
}

// forget drops what the server does not know any more.
func (r *run) forget(refused *pgconn.PgError) {
	switch {
	case refused.Code == codeNoStatement:
		r.conn.ForgetAll() // somebody has deallocated them all, in a DO for instance
	case planIsVoid(refused):
		r.conn.Forget(r.q.stmt.SQL)
	}
}

// fenced reports whether the supposed primary refuses a write because it is
// none, or is none any more, rather than because of the transaction itself.
func (r *run) fenced(refused *pgconn.PgError) bool {
	return refused.Code == codeReadOnly && !r.place.replica && r.q.wish.node == "" &&
		(r.conn.InRecovery() || r.conn.ReadOnly() && !r.conn.Touched())
}

// maxRefusals is how often a statement follows a primary that says it is none.
const maxRefusals = 100

// skip drops the answer of a replica that was behind. A short one is read, a
// long one is cancelled in the background.
func (r *run) skip(ctx context.Context) {
	for range shortAnswer {
		event, err := r.conn.Next(ctx)
		if err != nil || event == pool.EventEnd {
			break
		}
	}
	r.release()
}

// shortAnswer is how many rows are read rather than cancelled.
const shortAnswer = 100

// checkApart reports whether the position must be asked for with a Sync of its
// own: where a whole transaction has one snapshot, the question would be
// answered after the snapshot was taken.
func (c *Cluster) checkApart() bool {
	return !c.routes.Load().view.Settings.SnapshotPerStmt || c.extras.afterConnect != nil // which may set another level
}
