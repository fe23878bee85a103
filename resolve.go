package helios

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/pool"
	"github.com/heliosdb/helios/wal"
)

// A lostWrite is a transaction whose COMMIT was sent and not answered.
type lostWrite struct {
	node    *node // it was sent to
	pid     uint32
	id      pool.Identity
	session *Session // whose token moves if it was committed
	own     bool     // it may have had a synchronous_commit of its own
	open    error    // why it will never be known; nil if it may be, or is
	absent  *history // from which it is known to be absent; nil if its own server gave it up
}

// A history is what a primary shows, and what follows from it.
type history struct {
	primary  *node
	timeline wal.Timeline
}

// shown reports whether the primary n shows this history, as far as r knows.
func (h *history) shown(n *node, r *routes) bool {
	return n == h.primary && r.view.Timeline == h.timeline
}

// errOtherHistory says that what one primary had lost the next one may have: it
// need not have followed that one.
var errOtherHistory = errors.New("the primary that surely lacked the transaction was replaced before the statement was sent again")

// errCrashed says that a server may have given the number of the transaction away.
var errCrashed = errors.New("nobody can know: the server has crashed or was restarted since, and came back on its timeline")

// verdict is what became of a transaction.
type verdict uint8

const (
	undecided verdict = iota
	committed
	notCommitted
)

// told says to the application what became of w. why is how its answer was lost.
func (v verdict) told(w *lostWrite, why error) error {
	switch v {
	case committed:
		return nil
	case notCommitted:
		return sent(w.node.name, fmt.Errorf("%w: %w", ErrNotCommitted, why))
	case undecided:
	}
	w.session.mayHaveWritten(true)
	if w.open != nil {
		why = fmt.Errorf("%w; %w", why, w.open)
	}
	return unknown(w.node.name, why)
}

// errUnresolved is why a resolution goes on, and how it ends.
var errUnresolved = errors.New("what became of the transaction is not known")

// resolve finds out what became of w. It asks the primary, and waits for one, at
// most for failover_wait. It never guesses: see docs/adr/0010. If w was committed,
// its session's token has moved.
func (c *Cluster) resolve(ctx context.Context, w *lostWrite) verdict {
	if w.id.XID == 0 || w.id.At.Timeline == 0 {
		return undecided
	}
	limit := max(c.config.FailoverWait, c.config.ProbeTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%w within %v", errUnresolved, limit))
	defer cancel()
	t := tries{deadline: c.now().Add(limit)}
	for {
		r := c.routes.Load()
		v, again := c.inquire(ctx, r, w, &t)
		if again {
			if c.wait(ctx, &t, r.replaced, errUnresolved) != nil {
				return undecided
			}
			continue
		}
		if v != undecided {
			c.counts.resolved.Add(1)
			c.log.InfoContext(ctx, "lost answer to a commit resolved", "node", w.node.name, "xid", w.id.XID, "committed", v == committed)
		}
		return v
	}
}

// inquire looks for w with what is known at this moment. again means that it may
// know more later.
func (c *Cluster) inquire(ctx context.Context, r *routes, w *lostWrite, t *tries) (v verdict, again bool) {
	n, at := r.primary, w.id.At
	switch {
	case n == nil || r.guess || r.view.Timeline < at.Timeline:
		return undecided, true
	case r.view.Timeline == at.Timeline && n != w.node:
		return undecided, true // one of the two is not what it seems
	}
	switch r.view.History.Holds(at, r.view.Timeline) {
	case wal.Lost: // the commit would stand behind it
		w.absent = &history{n, r.view.Timeline}
		return notCommitted, false
	case wal.Undecided:
		c.prober.Kick("")
		return undecided, true
	case wal.Kept:
	}
	return c.interrogate(ctx, n, w, t)
}

// interrogate asks the primary for w, and has it commit something of its own
// behind: when that is as durable as an acknowledged write, so is w.
func (c *Cluster) interrogate(ctx context.Context, n *node, w *lostWrite, t *tries) (v verdict, again bool) {
	conn, err := n.pool.Acquire(ctx, nil)
	if err != nil {
		return undecided, true
	}
	defer func() { n.giveBack(conn, nil) }()
	asked := c.now()
	status, err := c.askStatus(ctx, conn, w)
	call := conn.Result()
	switch {
	case err != nil:
		return undecided, asksAgain(err)
	case call.EndTag != "COMMIT" || call.Warned || call.CommitLSN == 0 || call.CommitTimeline < w.id.At.Timeline:
		return undecided, true
	case call.CommitTimeline == w.id.At.Timeline && call.Identity.Run != w.id.Run:
		w.open = errCrashed
		return undecided, false
	case c.routes.Load().view.History.Holds(w.id.At, call.CommitTimeline) != wal.Kept:
		return undecided, true // it was promoted a moment ago
	}
	switch status {
	case "committed":
		if c.committed(n, w.session, call, 0, asked) != nil {
			return undecided, true
		}
		return committed, false
	case "aborted":
		if call.CommitTimeline != w.id.At.Timeline {
			w.absent = &history{n, call.CommitTimeline}
		}
		return notCommitted, false
	case "in progress":
		if t.stalls++; t.stalls > 1 {
			endBackend(ctx, conn, w)
		}
		return undecided, true
	default: // too old for the server to remember
		return undecided, false
	}
}

// askStatus asks for the state of a transaction. What it asks with is a
// transaction that commits, and that writes a message to the WAL: without WAL a
// commit waits neither for its flush nor for standbys.
func (c *Cluster) askStatus(ctx context.Context, conn *pool.Conn, w *lostWrite) (status string, err error) {
	const question = `SELECT pg_catalog.pg_xact_status($1::pg_catalog.xid8),` +
		` pg_catalog.pg_logical_emit_message(true, 'helios', ''::pg_catalog.text)`
	// A transaction that may have asked for more durability than is usual gets all
	// there is.
	const careful = question + `, pg_catalog.set_config('synchronous_commit',` +
		` CASE WHEN pg_catalog.current_setting('synchronous_commit') = 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)`
	call := conn.NewCall()
	call.SegmentSize = c.routes.Load().view.Settings.SegmentSize
	call.Begin, call.End, call.Identify, call.Committed = "BEGIN", pool.HelperCommit, true, true
	call.Main = pool.OneShot(question)
	if w.own {
		call.Main = pool.OneShot(careful)
	}
	if err := conn.Bind(call.Main, []any{strconv.FormatUint(w.id.XID, 10)}, nil); err != nil {
		return "", err
	}
	if err := conn.Send(ctx); err != nil {
		return "", err
	}
	event, err := conn.Next(ctx)
	if err == nil && event == pool.EventRow {
		status = string(conn.Row()[0])
		err = conn.Drain(ctx)
	}
	if err == nil && call.Err != nil {
		err = call.Err
	}
	return status, err
}

// asksAgain reports whether a question that failed with err is worth another try:
// the server may have gone, or not be the primary yet.
func asksAgain(err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return !ok || refused.Code == codeReadOnly || refused.Code == codeNotPrerequisite || mayConnectLater(refused) && refused.Code[:2] == "57"
}

// endBackend ends what still runs on the server for a connection that the driver
// has closed: it holds locks, and nobody will ever commit it. One that waits for
// a synchronous standby has committed and is let be. Failure is no harm.
func endBackend(ctx context.Context, conn *pool.Conn, w *lostWrite) {
	const end = `SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity` +
		` WHERE pid = $1 AND backend_xid::pg_catalog.text = $2 AND wait_event IS DISTINCT FROM 'SyncRep'`
	call := conn.NewCall()
	call.Main = pool.OneShot(end)
	pid, xid := strconv.FormatUint(uint64(w.pid), 10), strconv.FormatUint(w.id.XID&0xffffffff, 10)
	if conn.Bind(call.Main, []any{pid, xid}, nil) == nil && conn.Send(ctx) == nil {
		conn.Drain(ctx) //nolint:errcheck // the next question shows what came of it
	}
}
