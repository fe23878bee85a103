package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// A way is one manner in which a program writes rows, with an id of the call's
// own and parts that count from 0. All parts are committed together unless
// apart is set.
type way struct {
	name  string
	parts int  // rows of a call that succeeded
	apart bool // the parts are committed one after the other
	rows  bool // the program reads rows
	run   func(ctx context.Context, db *sql.DB, id int) error
}

// schema is what the ways need. The table has no unique constraint: what is
// executed twice leaves two rows.
var schema = []string{
	"CREATE TABLE once (id int, part int)",
	"CREATE PROCEDURE add(id int) LANGUAGE sql AS 'INSERT INTO once VALUES (id, 0)'",
	`CREATE PROCEDURE add_apart(id int) LANGUAGE plpgsql AS
		'BEGIN INSERT INTO once VALUES (id, 0); COMMIT; INSERT INTO once VALUES (id, 1); END'`,
	"CREATE FUNCTION add_one(id int) RETURNS int LANGUAGE sql AS 'INSERT INTO once VALUES (id, 0) RETURNING id'",
}

// ways are all manners of writing.
var ways = []way{
	{name: "exec", parts: 1, run: text("INSERT INTO once VALUES ($1, 0)")},
	{name: "without arguments", parts: 1, run: literal("INSERT INTO once VALUES (%d, 0)")},
	{name: "exec mode", parts: 1, run: func(ctx context.Context, db *sql.DB, id int) error {
		_, err := db.ExecContext(ctx, "INSERT INTO once VALUES ($1, 0)", pgx.QueryExecModeSimpleProtocol, id)
		return err
	}},
	{name: "query", parts: 1, rows: true, run: row("INSERT INTO once VALUES ($1, 0) RETURNING id")},
	{name: "many rows", parts: 40, rows: true, run: manyRows},
	{name: "with", parts: 1, rows: true, run: row("WITH x AS (INSERT INTO once VALUES ($1, 0) RETURNING id) SELECT id FROM x")},
	{name: "explain", parts: 1, rows: true, run: manyLines},
	{name: "function", parts: 1, rows: true, run: row("SELECT add_one($1)")},
	{name: "procedure", parts: 1, run: text("CALL add($1)")},
	{name: "procedure with a commit", parts: 2, apart: true, run: text("CALL add_apart($1)")},
	{name: "block", parts: 1, run: literal("DO $$ BEGIN INSERT INTO once VALUES (%d, 0); END $$")},
	{name: "several statements", parts: 2, run: literal("INSERT INTO once VALUES (%[1]d, 0); INSERT INTO once VALUES (%[1]d, 1)")},
	{name: "several statements in a block", parts: 2, run: literal("BEGIN; INSERT INTO once VALUES (%[1]d, 0); INSERT INTO once VALUES (%[1]d, 1); COMMIT")},
	{name: "prepared", parts: 1, run: prepared},
	{name: "session", parts: 1, run: session},
	{name: "transaction", parts: 1, run: transaction(nil, 1)},
	{name: "transaction of three", parts: 3, run: transaction(nil, 3)},
	{name: "repeatable read", parts: 2, run: transaction(&sql.TxOptions{Isolation: sql.LevelRepeatableRead}, 2)},
	{name: "given up", parts: 0, run: givenUp},
}

// text returns a run that executes query with the id as its argument.
func text(query string) func(context.Context, *sql.DB, int) error {
	return func(ctx context.Context, db *sql.DB, id int) error {
		_, err := db.ExecContext(ctx, query, id)
		return err
	}
}

// literal returns a run that executes a text with the id in it.
func literal(format string) func(context.Context, *sql.DB, int) error {
	return func(ctx context.Context, db *sql.DB, id int) error {
		_, err := db.ExecContext(ctx, fmt.Sprintf(format, id))
		return err
	}
}

// row returns a run that reads the id back.
func row(query string) func(context.Context, *sql.DB, int) error {
	return func(ctx context.Context, db *sql.DB, id int) error {
		var got int
		if err := db.QueryRowContext(ctx, query, id).Scan(&got); err != nil {
			return err
		}
		if got != id {
			return fmt.Errorf("an answer with id %d to a call with id %d", got, id)
		}
		return nil
	}
}

// manyRows answers with rows before it is committed.
func manyRows(ctx context.Context, db *sql.DB, id int) error {
	const query = "INSERT INTO once SELECT $1, n FROM generate_series(0, 39) n RETURNING part, repeat('x', 200)"
	return readAll(db.QueryContext(ctx, query, id))
}

// manyLines writes below EXPLAIN.
func manyLines(ctx context.Context, db *sql.DB, id int) error {
	return readAll(db.QueryContext(ctx, "EXPLAIN ANALYZE INSERT INTO once VALUES ($1, 0)", id))
}

// readAll reads rows to their end, which is where a write is committed.
func readAll(rows *sql.Rows, err error) error {
	if err != nil {
		return err
	}
	for rows.Next() {
	}
	return errors.Join(rows.Err(), rows.Close())
}

// prepared executes a statement that lives for this call only on the side of
// database/sql, and as long as the connection on the server.
func prepared(ctx context.Context, db *sql.DB, id int) error {
	stmt, err := db.PrepareContext(ctx, "INSERT INTO once VALUES ($1, 0)")
	if err != nil {
		return err
	}
	defer stmt.Close()
	_, err = stmt.ExecContext(ctx, id)
	return err
}

// session writes in a session that has state on the server.
func session(ctx context.Context, db *sql.DB, id int) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "SET work_mem = '5MB'"); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, "INSERT INTO once VALUES ($1, 0)", id)
	return err
}

// transaction returns a run that writes so many rows in one transaction.
func transaction(opts *sql.TxOptions, parts int) func(context.Context, *sql.DB, int) error {
	return func(ctx context.Context, db *sql.DB, id int) error {
		tx, err := db.BeginTx(ctx, opts)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := writeParts(ctx, tx, id, parts); err != nil {
			return err
		}
		return tx.Commit()
	}
}

// writeParts inserts rows and sees that the transaction sees them.
func writeParts(ctx context.Context, tx *sql.Tx, id, parts int) error {
	for part := range parts {
		if _, err := tx.ExecContext(ctx, "INSERT INTO once VALUES ($1, $2)", id, part); err != nil {
			return err
		}
	}
	var n int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM once WHERE id = $1", id).Scan(&n); err != nil {
		return err
	}
	if n != parts {
		return fmt.Errorf("a transaction that wrote %d rows sees %d", parts, n)
	}
	return nil
}

// givenUp writes in a transaction that is rolled back.
func givenUp(ctx context.Context, db *sql.DB, id int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	return errors.Join(writeParts(ctx, tx, id, 1), tx.Rollback())
}

// calls is programs that write in all ways, and what they were told.
type calls struct {
	ways []way
	next atomic.Int64 // calls begun
	done atomic.Int64 // calls ended

	acked   atomic.Int64 // calls that wrote and were told so
	quit    atomic.Bool
	running sync.WaitGroup

	mu      sync.Mutex
	told    map[int]error // guarded by mu; by id, which also says the way
	longest time.Duration // guarded by mu; that a call took
}

// newCalls makes the schema. Without ways all are taken.
func newCalls(t testing.TB, primary *pgtest.Node, chosen ...way) *calls {
	t.Helper()
	for _, sql := range schema {
		pgtest.OK(t, primary.Exec(pgtest.Context(t), sql))
	}
	if len(chosen) == 0 {
		chosen = ways
	}
	return &calls{ways: chosen, told: map[int]error{}}
}

// one makes one call on db.
func (c *calls) one(ctx context.Context, db *sql.DB) error {
	id := int(c.next.Add(1)) - 1
	begun := time.Now()
	err := c.way(id).run(ctx, db, id)
	took := time.Since(begun)
	c.mu.Lock()
	c.told[id], c.longest = err, max(c.longest, took)
	c.mu.Unlock()
	if err == nil && c.way(id).parts > 0 {
		c.acked.Add(1)
	}
	c.done.Add(1)
	return err
}

// ackedFrom returns the ways of the calls that begin with id, wrote something and
// were told so.
func (c *calls) ackedFrom(id int) (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for told, err := range c.told {
		if told >= id && err == nil && c.way(told).parts > 0 {
			names = append(names, c.way(told).name)
		}
	}
	return names
}

// start starts clients, each on one of the handles, which call until stop.
func (c *calls) start(t testing.TB, dbs []*sql.DB, clients int) {
	t.Helper()
	for n := range clients {
		db := dbs[n%len(dbs)]
		c.running.Go(func() {
			for !c.quit.Load() {
				c.one(context.Background(), db)
			}
		})
	}
	t.Cleanup(c.stop)
}

// stop lets every client end its call and returns when all have.
func (c *calls) stop() {
	c.quit.Store(true)
	c.running.Wait()
}

// awaitDone returns when n more calls have ended.
func (c *calls) awaitDone(t testing.TB, n int64) {
	t.Helper()
	want := c.done.Load() + n
	await(t, fmt.Sprintf("%d more calls", n), func() bool { return c.done.Load() >= want })
}

// way returns how the call with id was made.
func (c *calls) way(id int) *way { return &c.ways[id%len(c.ways)] }

// audit compares what the programs were told with what a node holds when nobody
// is at work any more, and logs what happened.
func (c *calls) audit(t testing.TB, title string, node *pgtest.Node) map[string]int {
	t.Helper()
	rows := partsOf(t, node)
	c.mu.Lock()
	defer c.mu.Unlock()
	tally := map[string]int{}
	for id, err := range c.told {
		if wrong := c.way(id).wrong(rows[id], err); wrong != "" {
			t.Errorf("%s: id %d %s: rows by part %v, told %v", c.way(id).name, id, wrong, rows[id], err)
		}
		tally[outcomeOf(err, len(rows[id]) > 0)]++
	}
	for id := range rows {
		if _, ok := c.told[id]; !ok {
			t.Errorf("%s: id %d is there, and nobody was told anything", c.way(id).name, id)
		}
	}
	t.Logf("FIGURES %s: %d calls in %d ways, the longest took %v: %s",
		title, len(c.told), len(c.ways), c.longest.Round(time.Millisecond), listed(tally))
	return tally
}

// wrong says what is wrong about a call that left so many rows of each part, and
// of which the program was told err; "" if nothing is.
func (w *way) wrong(rows map[int]int, err error) string {
	there := len(rows)
	switch {
	case slices.Max(append(slices.Collect(maps.Values(rows)), 0)) > 1:
		return "was executed more than once"
	case there > w.parts, there < w.parts && there > 0 && !w.apart:
		return "left half of what is committed together"
	case err == nil && there != w.parts:
		return "was acknowledged and is not there"
	case err == nil, there == 0, errors.Is(err, helios.ErrOutcomeUnknown) && !helios.SafeToRetry(err):
		return ""
	case w.rows && interrupted(err):
		return "" // database/sql says so itself, and keeps what the driver says
	case w.apart && refused(err):
		return "" // the server gave up between two commits of the procedure's own
	default:
		return "is there, and its outcome was not told to be unknown"
	}
}

// interrupted reports whether err is the end of a context, and not as the driver
// tells it: of rows whose context ends while they are read database/sql tells it.
func interrupted(err error) bool {
	_, ours := errors.AsType[*helios.RouteError](err)
	return !ours && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled))
}

// refused reports whether err is the server's answer.
func refused(err error) bool {
	_, server := err.(*pgconn.PgError) //nolint:errorlint // the driver returns it bare
	return server
}

// outcomeOf names what a call came to.
func outcomeOf(err error, there bool) string {
	switch {
	case err == nil:
		return "ok"
	case there:
		return kind(err) + ", executed"
	default:
		return kind(err) + ", not executed"
	}
}

// onlyKinds fails the test for every outcome in a tally that is of another kind.
func onlyKinds(t testing.TB, tally map[string]int, kinds ...string) {
	t.Helper()
	for outcome, n := range tally {
		if name, _, _ := strings.Cut(outcome, ","); !slices.Contains(kinds, name) {
			t.Errorf("%d calls ended with %s, want one of %q", n, outcome, kinds)
		}
	}
}

// listed returns counts in one line, by name.
func listed(counts map[string]int) string {
	texts := make([]string, 0, len(counts))
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		texts = append(texts, fmt.Sprintf("%d × %s", counts[name], name))
	}
	return strings.Join(texts, "; ")
}

// partsOf returns how often each part of each id is in the table of a node, when
// every session of a client of the cluster has ended.
func partsOf(t testing.TB, n *pgtest.Node) map[int]map[int]int {
	t.Helper()
	ctx := pgtest.Context(t)
	pgtest.OK(t, n.Await(ctx, `SELECT NOT EXISTS (SELECT FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND application_name <> 'pgtest')`))
	found, err := n.Conn(t).Query(ctx, "SELECT id, part, count(*) FROM once GROUP BY id, part")
	pgtest.OK(t, err)
	defer found.Close()
	rows := map[int]map[int]int{}
	for found.Next() {
		var id, part, count int
		pgtest.OK(t, found.Scan(&id, &part, &count))
		if rows[id] == nil {
			rows[id] = map[int]int{}
		}
		rows[id][part] = count
	}
	pgtest.OK(t, found.Err())
	return rows
}

// reckless are handles with every way of learning positions and of trying
// again. They are closed at the end of the test, and by the function returned.
func reckless(t testing.TB, c *pgtest.Cluster, params ...string) (dbs []*sql.DB, closeAll func()) {
	t.Helper()
	for _, more := range [][]string{
		{"lsn=eager"},
		{"lsn=eager", "resolve=all"},
		{"lsn=lazy", "pool_max_conns=3", "resolve=off"},
		{"lsn=off", "consistency=eventual", "retry=off"},
	} {
		dbs = append(dbs, open(t, c, append(more, params...)...))
	}
	return dbs, func() {
		for _, db := range dbs {
			pgtest.OK(t, db.Close())
		}
	}
}
