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
	case told == nil && r.verdict == committed:
		return nil
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
		if t.resent == maxResent {
			r.session.cluster.breathe(ctx)
		}
	}
	return r.elsewhere(ctx, t, told)
}

// breath is how long a statement waits before it is sent for the last time. A server
// that is shut down on a busy machine has needed 110 ms to end the last of its sessions.
const breath = 250 * time.Millisecond

// breathe lets a moment pass. What breaks connections breaks many at once, and
// those whose turn is to come look sound yet.
func (c *Cluster) breathe(ctx context.Context) {
	timer := time.NewTimer(breath)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-c.ended.Done():
	}
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
		why = &RouteError{Sent: !unsentError(why), Err: fmt.Errorf("%w: %w", ErrNoPrimary, why)}
	}
	return c.wait(ctx, t, c.routes.Load().replaced, why)
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
	case r.fenced(ctx, refused, t):
		t.repeated++
		r.release()
		return c.wait(ctx, t, c.routes.Load().replaced, unsent(r.place.node.name, fmt.Errorf("%w: %w", ErrNoPrimary, refused)))
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
// none, or was none a moment ago, rather than because of the transaction itself,
// and has it looked at. A server that does not report its role is asked.
func (r *run) fenced(ctx context.Context, refused *pgconn.PgError, t *tries) bool {
	c, n, tx := r.session.cluster, r.place.node, r.session.tx
	if refused.Code != codeReadOnly || r.place.replica || r.q.wish.node != "" || tx != nil && tx.forbids || t.repeated >= maxRefusals {
		return false
	}
	own := r.mayBeReadOnly()
	err := r.conn.AskRole(ctx)
	switch {
	case err == nil && (r.conn.InRecovery() || r.conn.ReadOnly() && !own):
		c.board.Doubt(n.name, refused)
		c.prober.Kick("")
		return true
	case own:
		return false
	case err != nil: // why it refuses is not known, but that it has
		c.blame(n, err)
	default: // the fence was lifted since, or else a trigger has made the transaction read-only
		if t.unfenced++; t.unfenced > 1 {
			return false
		}
	}
	c.prober.Kick(n.name)
	return true
}

// mayBeReadOnly reports whether the session of a connection whose statement has
// failed may be read-only by its own wish. What a statement of class Write has set
// is undone with it; others may have committed on their way, as CALL does.
func (r *run) mayBeReadOnly() bool {
	return r.touched || r.conn.Touched() && r.q.stmt.Class > router.Write
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
