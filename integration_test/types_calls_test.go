package integration_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/internal/pgtest"
)

// call is a query with its arguments.
type call struct {
	query string
	args  []any
}

// comparedCalls are ways of passing arguments, right ones and wrong ones.
var comparedCalls = []call{
	{"", nil},
	{"-- nothing", nil},
	{"SELECT", nil},
	{"SELECT WHERE false", nil},
	{"SELECT 1 WHERE false", nil},
	{"SELECT nothing", nil},
	{"SELEC 1", nil},
	{"SELECT 1/0", nil},
	{"SELECT 1/(2 - n) FROM generate_series(1, 3) n", nil},
	{"VALUES (1, 'a'), (2, NULL)", nil},
	{"TABLE filled", nil},
	{"SELECT 1 AS \"a b\", 2 AS \"a b\", 3 AS \"\"\"\", count(*) FROM filled", nil},
	{"SELECT $1::text, $2::int, $1::text", []any{"a", 7}},
	{"SELECT $1, $2", []any{"a", "b"}},
	{"SELECT $1::int + 1, $1::int", []any{7}},
	{"SELECT * FROM filled WHERE n = ANY($1::int[])", []any{[]int{1, 3}}},
	{"SELECT * FROM filled ORDER BY n LIMIT $1 OFFSET $2", []any{2, 1}},
	{"SELECT $1::int", []any{"x"}},
	{"SELECT $1::int2", []any{70_000}},
	{"SELECT $1::int4", []any{int64(1) << 40}},
	{"SELECT $2::int", []any{1, 2}},
	{"SELECT @a::int + @b::int", []any{pgx.NamedArgs{"a": 1, "b": 2}}},
	{"SELECT @a::text", []any{pgx.NamedArgs{"b": 2}}},
	{"SELECT @a::int", []any{pgx.NamedArgs{"a": 1, "b": 2}}},
	{"SELECT '@a', \"@b\", @a::int -- @c\n FROM (VALUES (1)) v(\"@b\")", []any{pgx.NamedArgs{"a": 1}}},
	{"SELECT @a::int + @b::int", []any{pgx.StrictNamedArgs{"a": 1, "b": 2}}},
	{"SELECT @a::int", []any{pgx.StrictNamedArgs{}}},
	{"SELECT @a::int", []any{pgx.StrictNamedArgs{"a": 1, "b": 2}}},
	{"SELECT @name, @tags::jsonb", []any{pgx.StructArgs(struct {
		Name string `db:"name"`
		Tags []int  `db:"tags"`
	}{"n", []int{1}})}},
	{"SELECT @a", []any{pgx.StructArgs(7)}},
	{"SELECT @x", []any{sql.Named("x", 1)}},
	{"SELECT $1::int - $2::int", []any{sql.Named("b", 1), sql.Named("a", 2)}},
	{"SELECT $1::int", []any{pgx.QueryResultFormats{1}, pgx.QueryResultFormatsByOID{23: 1}, 7}},
	{"SELECT $1::int", []any{7, pgx.QueryExecModeExec}},
	{"SELECT 1", []any{pgx.QueryExecMode(99)}},
	{"INSERT INTO filled VALUES ($1, $2) RETURNING n, t, n IS NULL", []any{10, "ten"}},
	{"INSERT INTO filled VALUES ($1, $2) RETURNING t", []any{nil, nil}},
	{"UPDATE filled SET t = $2 WHERE n = $1", []any{1, "one"}},
	{"DELETE FROM filled WHERE n = $1 RETURNING *", []any{10}},
	{"SELECT * FROM filled FOR UPDATE", nil},
	{"EXPLAIN (COSTS off) SELECT * FROM filled WHERE n = $1", []any{1}},
	{"SHOW server_version_num", nil},
	{"SELECT $1::int, $2::int", []any{1}},
	{"SELECT $1::int", []any{1, 2}},
	{"SELECT 1", []any{1}},
	{"SELECT $1::int", nil},
	{"INSERT INTO filled VALUES ($1)", []any{1, 2}},
	{"SELECT mood, count(*) FROM (VALUES ('happy'::mood)) m(mood) WHERE mood = $1 GROUP BY mood", []any{"happy"}},
}

func TestCallsAreAnsweredAsByStdlib(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	d := openBoth(t, c)
	exec(t, ctx, d.ours, "CREATE TYPE mood AS ENUM ('sad', 'happy')")
	for _, mode := range execModes {
		t.Run(mode.String(), func(t *testing.T) {
			for _, call := range comparedCalls {
				got, want := askAfresh(t, ctx, d.ours, call, mode), askAfresh(t, ctx, d.theirs, call, mode)
				if mode == pgx.QueryExecModeSimpleProtocol && got.problem != "" && want.problem != "" {
					continue // there pgx counts the arguments itself, and has words of its own
				}
				if !same(got, want) {
					t.Errorf("%s with %v:\n%+v, stdlib has\n%+v", call.query, call.args, got, want)
				}
			}
		})
	}
}

// askAfresh has one driver answer a call about a table that was just filled.
func askAfresh(t *testing.T, ctx context.Context, db *sql.DB, c call, mode pgx.QueryExecMode) answer {
	t.Helper()
	tx, err := db.BeginTx(ctx, nil)
	pgtest.OK(t, err)
	defer tx.Rollback() // nothing of it is to stay
	exec(t, ctx, tx, "CREATE TABLE filled (n int, t varchar(10))")
	exec(t, ctx, tx, "INSERT INTO filled VALUES (1, 'a'), (2, NULL), (3, '')")
	return ask(ctx, tx, c.query, append([]any{mode}, c.args...)...)
}

// affecting are statements that say how many rows they touched, or fail. They leave
// nothing.
var affecting = []string{
	"CREATE TABLE a (n int)", "INSERT INTO a SELECT generate_series(1, 12)", "UPDATE a SET n = n WHERE n > 5", "DELETE FROM a WHERE n = 1",
	"SELECT * FROM a", "SELECT * FROM a WHERE false", "VALUES (1), (2)", "CREATE TABLE b AS SELECT * FROM a", "SELECT * INTO e FROM a", "TRUNCATE a", "",
	"INSERT INTO a VALUES (1); INSERT INTO a VALUES (2), (3)", "UPDATE a SET n = 7; SELECT 1 WHERE false", "DROP TABLE a, b, e", "SELECT nothing",
	"INSERT INTO nothing VALUES (1)", "SHOW work_mem", "DO 'BEGIN END'", "-- nothing",
}

func TestAffectedRowsAreCountedAsByStdlib(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	d := openBoth(t, c)
	got, want := affected(ctx, d.ours, affecting), affected(ctx, d.theirs, affecting)
	for i, statement := range affecting {
		if got[i] != want[i] {
			t.Errorf("%s: %s, stdlib has %s", statement, got[i], want[i])
		}
	}
}

// affected tells what became of each statement.
func affected(ctx context.Context, db *sql.DB, statements []string) (all []string) {
	for _, statement := range statements {
		result, err := db.ExecContext(ctx, statement)
		if err != nil {
			all = append(all, problem(err))
			continue
		}
		n, err := result.RowsAffected()
		_, noID := result.LastInsertId()
		all = append(all, fmt.Sprint(n, err, noID))
	}
	return all
}

// panicking is a driver.Valuer with a mistake.
type panicking struct{}

func (panicking) Value() (driver.Value, error) { panic("a mistake") }

// A program may go on after a panic, as net/http does. Nobody gives back what the
// call had borrowed but the driver.
func TestAnArgumentThatPanicsCostsNoConnection(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	db := open(t, c, "pool_max_conns=1")
	for range 3 {
		for _, query := range []string{"SELECT $1::int", "CREATE TABLE n AS SELECT $1::int"} {
			if got := recovered(func() { db.ExecContext(ctx, query, panicking{}) }); got != "a mistake" {
				t.Errorf("%s: panics with %v, want the argument's own panic", query, got)
			}
		}
	}
	if got := value[int](t, ctx, db, "SELECT 7"); got != 7 {
		t.Errorf("after the panics: read %d, want 7", got)
	}
}

// recovered returns what f panics with.
func recovered(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}
