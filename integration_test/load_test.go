package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// load is clients at work on one handle: writers that insert rows with ids of
// their own and look for them, and readers that look for what was acknowledged
// last. It records what they were told. The table has no unique constraint: a
// statement that was executed twice leaves two rows.
type load struct {
	db      *sql.DB
	next    atomic.Int64 // the last id that was handed out
	newest  atomic.Int64 // an id that a writer without a session of its own was told is there
	count   atomic.Int64 // of acknowledged writes
	quit    atomic.Bool
	running sync.WaitGroup
	reads   atomic.Int64 // reads that ended

	mu      sync.Mutex
	acked   []ack            // guarded by mu
	unknown map[int64]bool   // guarded by mu; ids of writes that ended in ErrOutcomeUnknown
	errs    map[string]int   // guarded by mu; all errors by kind
	sample  map[string]error // guarded by mu; the last error of each kind
	stale   []string         // guarded by mu; reads that missed what their session had seen
}

// ack is an acknowledged write.
type ack struct {
	id        int64
	begun, at time.Time
}

// startLoad makes the table and starts clients on db: of the writers every
// second one has a session of its own, and transactors write two rows, id and
// -id, in one transaction. They stop at the end of the test at the latest.
func startLoad(t testing.TB, db *sql.DB, writers, transactors, readers int) *load {
	t.Helper()
	ctx := context.Background() // no statement is interrupted by us
	exec(t, pgtest.Context(t), db, "CREATE TABLE ledger (id bigint, writer text)")
	exec(t, pgtest.Context(t), db, "CREATE INDEX ON ledger (id)")
	l := &load{db: db, unknown: map[int64]bool{}, errs: map[string]int{}, sample: map[string]error{}}
	for w := range writers {
		if w%2 == 0 {
			l.running.Go(func() { l.write(ctx, true) })
		} else {
			l.running.Go(func() { l.write(helios.WithSession(ctx, helios.NewSession()), false) })
		}
	}
	for range transactors {
		l.running.Go(func() { l.transact(helios.WithSession(ctx, helios.NewSession())) })
	}
	for range readers {
		l.running.Go(func() { l.read(ctx) })
	}
	t.Cleanup(l.stop)
	return l
}

// stop lets every client end what it is doing and returns when all have.
func (l *load) stop() {
	l.quit.Store(true)
	l.running.Wait()
}

// write inserts rows one by one and looks for each twice.
func (l *load) write(ctx context.Context, whole bool) {
	for !l.quit.Load() {
		id, begun := l.next.Add(1), time.Now()
		_, err := l.db.ExecContext(ctx, "INSERT INTO ledger VALUES ($1, 'w')", id)
		l.wrote(id, begun, err)
		if err != nil {
			continue
		}
		if whole {
			l.newest.Store(id)
		}
		l.look(ctx, id)
		l.look(ctx, id)
	}
}

// transact inserts two rows in one transaction and looks for the second.
func (l *load) transact(ctx context.Context) {
	for !l.quit.Load() {
		id, begun := l.next.Add(1), time.Now()
		err := l.pair(ctx, id)
		l.wrote(id, begun, err)
		if err == nil {
			l.look(ctx, -id)
		}
	}
}

// pair inserts id and -id.
func (l *load) pair(ctx context.Context, id int64) error {
	tx, err := l.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, n := range []int64{id, -id} {
		if _, err := tx.ExecContext(ctx, "INSERT INTO ledger VALUES ($1, 't')", n); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// read looks for the row that was acknowledged last.
func (l *load) read(ctx context.Context) {
	for !l.quit.Load() {
		if id := l.newest.Load(); id != 0 {
			l.look(ctx, id)
		} else {
			l.look(ctx, 0)
		}
	}
}

// wrote records what the writer of id was told.
func (l *load) wrote(id int64, begun time.Time, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.acked = append(l.acked, ack{id, begun, time.Now()})
		l.count.Add(1)
		return
	}
	if errors.Is(err, helios.ErrOutcomeUnknown) {
		l.unknown[id] = true
	}
	l.failLocked("write: ", err)
}

func (l *load) failLocked(what string, err error) {
	l.errs[what+kind(err)]++
	l.sample[what+kind(err)] = err
}

// look reads the row with id, which the reader's session has seen; 0 reads one
// that nobody wrote.
func (l *load) look(ctx context.Context, id int64) {
	var found int
	err := l.db.QueryRowContext(ctx, "SELECT count(*) FROM ledger WHERE id = $1", id).Scan(&found)
	l.reads.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil:
		l.failLocked("read: ", err)
	case id != 0 && found != 1:
		l.stale = append(l.stale, fmt.Sprintf("id %d: %d rows", id, found))
	}
}

// awaitWrites returns when n more writes were acknowledged.
func (l *load) awaitWrites(t testing.TB, n int64) {
	t.Helper()
	want := l.count.Load() + n
	await(t, fmt.Sprintf("%d more acknowledged writes", n), func() bool { return l.count.Load() >= want })
}

// firstSince returns when the first write was acknowledged after from. Call it
// when there was one.
func (l *load) firstSince(from time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	var first time.Time
	for _, a := range l.acked {
		if a.at.After(from) && (first.IsZero() || a.at.Before(first)) {
			first = a.at
		}
	}
	return first
}

// kinds returns the errors by kind, in one line.
func (l *load) kinds() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := ""
	for _, k := range slices.Sorted(maps.Keys(l.errs)) {
		text += fmt.Sprintf("%d × %s; ", l.errs[k], k)
	}
	if text == "" {
		return "none"
	}
	return text
}

// allow fails the test for every kind of error that is not among those given.
func (l *load) allow(t testing.TB, kinds ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, n := range l.errs {
		if !slices.Contains(kinds, k) {
			t.Errorf("%d × %s, the last one: %v", n, k, l.sample[k])
		}
	}
}

// verify compares what the clients were told with what a node holds: every
// acknowledged row once, no row twice, no half of a pair, nothing stale.
func (l *load) verify(t testing.TB, n *pgtest.Node) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.stale) > 0 {
		t.Errorf("%d reads missed what their session had seen: %v", len(l.stale), l.stale[:min(5, len(l.stale))])
	}
	rows := l.rows(t, n)
	missing := 0
	for _, a := range l.acked {
		if rows[a.id] == 0 {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d acknowledged writes are missing on %s", missing, len(l.acked), n.Name)
	}
	for id, count := range rows {
		if count > 1 {
			t.Errorf("id %d was inserted %d times", id, count)
		}
		if id < 0 && rows[-id] != 1 {
			t.Errorf("half a transaction: id %d is there and %d is not", id, -id)
		}
	}
}

// rows returns how often each id is in the table of a node.
func (l *load) rows(t testing.TB, n *pgtest.Node) map[int64]int {
	t.Helper()
	counts := map[int64]int{}
	found, err := n.Conn(t).Query(pgtest.Context(t), "SELECT id, count(*) FROM ledger GROUP BY id")
	pgtest.OK(t, err)
	defer found.Close()
	for found.Next() {
		var id int64
		var count int
		pgtest.OK(t, found.Scan(&id, &count))
		counts[id] = count
	}
	pgtest.OK(t, found.Err())
	return counts
}

// replicated makes the primary wait until a replica has a commit before it
// acknowledges it: then no failover loses one.
func replicated(t testing.TB, c *pgtest.Cluster) {
	t.Helper()
	names := ""
	for _, n := range c.Replicas() {
		if names != "" {
			names += ", "
		}
		names += n.Name
	}
	pgtest.OK(t, c.Configure(pgtest.Context(t), c.Primary(), map[string]string{"synchronous_standby_names": "ANY 1 (" + names + ")"}))
	pgtest.OK(t, c.Primary().Await(pgtest.Context(t), "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'quorum')"))
	commitsWait(t, c.Primary())
}

// commitsWait returns when commits wait for the standbys that the server's
// synchronous_standby_names lists. It is the checkpointer that makes them wait,
// once it has read the setting (SyncRepUpdateSyncStandbysDefined): until then they
// do not, whatever the setting and pg_stat_replication say.
func commitsWait(t testing.TB, n *pgtest.Node) {
	t.Helper()
	pgtest.OK(t, n.Exec(pgtest.Context(t), "CHECKPOINT"))
}
