package helios

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/heliosdb/helios/pool"
	"github.com/heliosdb/helios/router"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

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
	if tx := r.session.tx; tx != nil && call.Identity.XID != 0 {
		tx.identity = call.Identity
	}
	if call.Warned && r.q.writes() {
		r.q.session.mayHaveWritten(true)
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
	case call.Identify, call.Look: // a transaction has failed with it, or nobody knows what was seen
		return true
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
	if call.Look {
		c.sighted(r.place.node, q.session, &call.Sight)
	}
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
	at := wal.Position{Timeline: call.CommitTimeline, LSN: call.CommitLSN}
	if at.Timeline != 0 && at.Timeline < view.Timeline && view.History.Holds(at, view.Timeline) != wal.Kept {
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

// sighted moves the session's token to what a read on n may have seen. Where
// nobody can say on which timeline that is, the session's next read finds it out
// on the primary.
func (c *Cluster) sighted(n *node, session *Session, s *pool.Sight) {
	view := c.routes.Load().view
	at := wal.Position{Timeline: s.Timeline, LSN: s.At}
	if v := nodeIn(view, n.name); s.Recovering && v != nil && v.Role == topology.RoleReplica {
		at.Timeline = v.Timeline
		if !v.OnTimeline(view.Timeline) && view.History.Holds(at, view.Timeline) != wal.Kept {
			at.Timeline = 0 // it has turned to the newer timeline, or stands past the fork
		}
	}
	if at.Timeline == 0 || at.LSN == 0 {
		session.sawBlindly()
		return
	}
	session.advance(Token{SystemID: view.SystemID, Timeline: at.Timeline, LSN: at.LSN}, 0)
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
	held := s.held == r.conn
	var gone error
	if held {
		r.over = true
		r.guard.end()
		n.load.End(0)
		gone = s.lose(err)
	} else {
		r.release()
	}
	told := r.lostOutcome(ctx, call, lost)
	switch {
	case told == nil || !held:
		return told
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
	r.q.session.mayHaveWritten(true)
	return unknown(n.name, err)
}

// lostOutcome says what a statement whose connection broke may have done; nil
// means that it was committed. The connection must have been given back: finding
// out may take another one.
func (r *run) lostOutcome(ctx context.Context, call *pool.Call, lost *pool.LostError) error {
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
	case call.End == pool.HelperCommit:
		w := &lostWrite{node: n, pid: r.conn.PID(), id: call.Identity, session: r.q.session, own: r.conn.Touched()}
		r.verdict = r.session.cluster.resolve(ctx, w)
		if r.absent == nil { // else an earlier attempt is absent from that one only
			r.absent = w.absent
		}
		return r.verdict.told(w, lost)
	default:
		r.q.session.mayHaveWritten(true)
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
