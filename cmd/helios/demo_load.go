package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios"
)

// load is what the clients of the demo do: each writer adds rows 1, 2, 3, … of
// its own and reads its highest number back; readers read that of the first
// writer, which writes in the session that all of *sql.DB shares. A writer goes
// on to the next number only when the row is acknowledged, so that the numbers
// have no gaps.
type load struct {
	db      *sql.DB
	writers []*writer
	readers int

	gate    sync.RWMutex  // read-locked around each write
	stopped chan struct{} // closed when clients are to end
	running sync.WaitGroup

	// mayTell is set if the driver may tell a session that a write of its own was lost
	// without that being an error.
	mayTell bool

	reads, failures, unknown, told atomic.Uint64

	acks   acks
	reigns *reigns

	mu   sync.Mutex
	seen []string // guarded by mu; the first errors
	old  []oldRead
}

// writer adds rows under one id.
type writer struct {
	id      int
	session *helios.Session // nil for the one that all of *sql.DB shares
	acked   atomic.Int64    // its highest acknowledged number

	mu sync.Mutex
	at []time.Time // guarded by mu; when number i+1 was acknowledged
}

// confirm notes that the writer's next number was acknowledged.
func (w *writer) confirm(n int64, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = append(w.at, at)
	w.acked.Store(n)
}

// confirmed returns when each number was acknowledged.
func (w *writer) confirmed() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.at)
}

// An oldRead did not see all that its session had written: stale, unless what it
// did not see was lost.
type oldRead struct {
	writer     *writer
	saw, acked int64
}

// newLoad returns clients that have done nothing yet.
func newLoad(db *sql.DB, writers, readers int) *load {
	l := &load{db: db, readers: readers, stopped: make(chan struct{}), writers: []*writer{{}}, reigns: newReigns()}
	for id := range writers {
		l.writers = append(l.writers, &writer{id: id + 1, session: helios.NewSession()})
	}
	return l
}

// What a client does takes this long at least: it is the failover that is shown,
// not how fast this machine is.
const (
	writePause = 5 * time.Millisecond
	readPause  = 2 * time.Millisecond
)

// callTimeout is after how long a call has failed: later than failover_wait, so
// that it is the driver that says what went wrong.
const callTimeout = 20 * time.Second

// The statements of the clients.
const (
	createSQL = "CREATE TABLE written (writer int, n bigint, PRIMARY KEY (writer, n))"
	writeSQL  = "INSERT INTO written (writer, n) VALUES ($1, $2) RETURNING " + reignSQL
	lookSQL   = "SELECT count(*) FROM written WHERE writer = $1 AND n = $2"
	readSQL   = "SELECT coalesce(max(n), 0) FROM written WHERE writer = $1"
	keptSQL   = "SELECT n FROM written WHERE writer = $1"

	// reignSQL is the timeline that a row is written on.
	reignSQL = "('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int8"
)

// prepare makes the table.
func (l *load) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := l.db.ExecContext(ctx, createSQL)
	return err
}

// start lets the clients run until stop or the end of ctx.
func (l *load) start(ctx context.Context) {
	for _, w := range l.writers {
		l.running.Go(func() { l.repeat(ctx, writePause, func() { l.writeAndReadBack(ctx, w) }) })
	}
	for range l.readers {
		l.running.Go(func() { l.repeat(ctx, readPause, func() { l.read(ctx, l.writers[0]) }) })
	}
}

// stop lets every client finish what it is at, and waits for that.
func (l *load) stop() {
	close(l.stopped)
	l.running.Wait()
}

// repeat does step again and again, at most once in a pause.
func (l *load) repeat(ctx context.Context, pause time.Duration, step func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		step()
		select {
		case <-tick.C:
		case <-l.stopped:
			return
		case <-ctx.Done():
			return
		}
	}
}

// hold waits until no write is under way and keeps new ones back until release
// is called. The measurement of the write gap begins.
func (l *load) hold() (release func()) {
	l.gate.Lock()
	l.acks.forgetGaps()
	return sync.OnceFunc(l.gate.Unlock)
}

// writeAndReadBack adds the writer's next row and checks that its session sees
// it.
func (l *load) writeAndReadBack(ctx context.Context, w *writer) {
	if w.session != nil {
		ctx = helios.WithSession(ctx, w.session)
	}
	if l.write(ctx, w, w.acked.Load()+1) {
		l.read(ctx, w)
	}
}

// write adds a row; false means that ctx has ended. It does what any
// application has to do about a write whose outcome is unknown: look, and write
// again what is not there.
func (l *load) write(ctx context.Context, w *writer, n int64) bool {
	l.gate.RLock()
	defer l.gate.RUnlock()
	for ctx.Err() == nil {
		began := time.Now()
		reign, err := l.query(ctx, writeSQL, w.id, n)
		switch {
		case err == nil:
			l.reigns.acknowledged(reign, began)
		case !l.settled(ctx, w, n, err):
			sleepUntil(ctx, time.Now().Add(writePause)) //nolint:errcheck // the loop looks at ctx
			continue
		}
		if ctx.Err() == nil {
			now := time.Now()
			w.confirm(n, now)
			l.acks.add(now)
			return true
		}
	}
	return false
}

// settled notes why a write has no good answer, and reports whether it was
// executed nevertheless.
func (l *load) settled(ctx context.Context, w *writer, n int64, why error) bool {
	switch {
	case ctx.Err() != nil:
	case errors.Is(why, helios.ErrOutcomeUnknown):
		l.unknown.Add(1)
	default:
		l.fail(ctx, "write", why)
	}
	there, err := l.query(helios.Primary(ctx), lookSQL, w.id, n)
	if err != nil {
		l.fail(ctx, "look for a write", err)
	}
	return there == 1
}

// read checks that the highest number of w is not older than what was
// acknowledged before the read began.
func (l *load) read(ctx context.Context, w *writer) {
	acked := w.acked.Load()
	n, err := l.query(ctx, readSQL, w.id)
	switch {
	case err != nil:
		l.fail(ctx, "read", err)
		return
	case n < acked:
		l.sawOld(oldRead{writer: w, saw: n, acked: acked})
	}
	l.reads.Add(1)
}

func (l *load) sawOld(r oldRead) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.old = append(l.old, r)
}

// query returns the number that a statement yields.
func (l *load) query(ctx context.Context, text string, args ...any) (n int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err = l.db.QueryRowContext(ctx, text, args...).Scan(&n)
	return n, err
}

// shownErrors is how many different errors are kept to be shown.
const shownErrors = 5

// fail counts an error, unless it is the end of ctx that shows.
func (l *load) fail(ctx context.Context, what string, err error) {
	switch {
	case ctx.Err() != nil:
		return
	case l.mayTell && errors.Is(err, helios.ErrWriteLost):
		l.told.Add(1)
		return
	}
	l.failures.Add(1)
	text := fmt.Sprintf("%s: %v", what, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.seen) < shownErrors && !slices.Contains(l.seen, text) {
		l.seen = append(l.seen, text)
	}
}

// firstErrors returns what the first errors said.
func (l *load) firstErrors() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.seen)
}

// firstError returns the first error that a client saw; nil if there was none.
func (l *load) firstError() error {
	if texts := l.firstErrors(); len(texts) > 0 {
		return errors.New(texts[0])
	}
	return nil
}

// figures returns what the clients have counted.
func (l *load) figures() figures {
	f := figures{Reads: l.reads.Load(), Errors: l.failures.Load(), Unknown: l.unknown.Load()}
	for _, w := range l.writers {
		f.Writes += uint64(w.acked.Load())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	f.Stale = uint64(len(l.old))
	return f
}

// longestGap returns the longest time without an acknowledged write since hold.
func (l *load) longestGap() time.Duration {
	l.acks.mu.Lock()
	defer l.acks.mu.Unlock()
	return l.acks.gap
}

// A verdict is what a node has of what was acknowledged.
type verdict struct {
	lost  uint64 // rows that are missing
	early uint64 // of them, those acknowledged before a certain time
	stale uint64 // reads that missed rows which are there
}

// judge compares what was acknowledged with what the node behind conn has.
func (l *load) judge(ctx context.Context, conn *pgx.Conn, before time.Time) (v verdict, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	kept := make(map[*writer]map[int64]bool, len(l.writers))
	for _, w := range l.writers {
		if kept[w], err = numbersOf(ctx, conn, keptSQL, w.id); err != nil {
			return v, err
		}
		for i, at := range w.confirmed() {
			if kept[w][int64(i)+1] {
				continue
			}
			v.lost++
			if at.Before(before) {
				v.early++
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.old {
		if r.stale(kept[r.writer]) {
			v.stale++
		}
	}
	return v, nil
}

// stale reports whether the read missed a row that is there.
func (r oldRead) stale(kept map[int64]bool) bool {
	for n := r.saw + 1; n <= r.acked; n++ {
		if kept[n] {
			return true
		}
	}
	return false
}

// numbersOf returns the set of numbers that a statement yields.
func numbersOf(ctx context.Context, conn *pgx.Conn, text string, args ...any) (map[int64]bool, error) {
	rows, err := conn.Query(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	set := make(map[int64]bool, len(list))
	for _, n := range list {
		set[n] = true
	}
	return set, err
}

// acks measures the time between acknowledged writes.
type acks struct {
	mu   sync.Mutex
	last time.Time     // guarded by mu; of the newest one
	gap  time.Duration // guarded by mu; longest between two
}

// add notes an acknowledgement.
func (a *acks) add(at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.last.IsZero() {
		a.gap = max(a.gap, at.Sub(a.last))
	}
	a.last = at
}

// forgetGaps begins a new measurement, with the gap that is open now.
func (a *acks) forgetGaps() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gap = 0
}
