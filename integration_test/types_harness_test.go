package integration_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver to compare with

	"github.com/heliosdb/helios/internal/pgtest"
)

// execModes are all ways in which pgx executes a statement.
var execModes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
	pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

// drivers is one server as programs see it through helios and through pgx's own
// driver.
type drivers struct{ ours, theirs *sql.DB }

// openBoth opens the cluster's primary with both drivers. Each parameter is a
// key=value of the DSN.
func openBoth(t testing.TB, c *pgtest.Cluster, params ...string) drivers {
	t.Helper()
	theirs, err := sql.Open("pgx", c.Primary().DSN(params...))
	pgtest.OK(t, err)
	t.Cleanup(func() { theirs.Close() })
	return drivers{open(t, c, params...), theirs}
}

// expression is what a query asks for: an expression of SQL, and the first
// major version of PostgreSQL that has it.
type expression struct {
	sql   string
	since int
}

// known returns the expressions that the server understands.
func known(t testing.TB, ctx context.Context, db executor, all []expression) (texts []string) {
	t.Helper()
	version := value[int](t, ctx, db, "SELECT current_setting('server_version_num')::int / 10000")
	for _, e := range all {
		if e.since <= version {
			texts = append(texts, e.sql)
		}
	}
	return texts
}

// answer is all that a program can see of a query's answer.
type answer struct {
	columns []string // what is said about each column
	rows    [][]any  // what the driver gave database/sql
	problem string
}

// ask has one driver answer a query.
func ask(ctx context.Context, db querier, query string, args ...any) (a answer) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return answer{problem: problem(err)}
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return answer{problem: problem(err)}
	}
	for _, c := range types {
		a.columns = append(a.columns, about(c))
	}
	for rows.Next() {
		row, into := make([]keptValue, len(types)), make([]any, len(types))
		values := make([]any, len(types))
		for i := range row {
			into[i] = &row[i]
		}
		if err := rows.Scan(into...); err != nil {
			return answer{problem: problem(err)}
		}
		for i := range row {
			values[i] = row[i].value
		}
		a.rows = append(a.rows, values)
	}
	a.problem = problem(rows.Err())
	if err := rows.Close(); err != nil && a.problem == "" {
		a.problem = problem(err)
	}
	return a
}

// querier is a *sql.DB, *sql.Conn or *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// about returns what a column's type tells.
func about(c *sql.ColumnType) string {
	length, isLong := c.Length()
	nullable, isKnown := c.Nullable()
	precision, scale, isExact := c.DecimalSize()
	return fmt.Sprintf("%s %s %v length %d %t nullable %t %t decimal %d %d %t",
		c.Name(), c.DatabaseTypeName(), c.ScanType(), length, isLong, nullable, isKnown, precision, scale, isExact)
}

// keptValue takes what the driver gives database/sql for a column, as it is.
type keptValue struct{ value any }

// Scan implements sql.Scanner.
func (k *keptValue) Scan(src any) error {
	if b, ok := src.([]byte); ok {
		src = bytes.Clone(b)
	}
	k.value = src
	return nil
}

// said matches what each driver puts in front of somebody else's complaint. In
// the simple protocol pgx does not say which argument it cannot encode.
var said = regexp.MustCompile(`^(helios: )?(column \d+ \(.*?\): |convert field \d+ failed: |failed to encode args\[\d+\]: )?`)

// address matches a pointer that somebody has printed.
var address = regexp.MustCompile(`0x[0-9a-f]{8,}`)

// problem returns an error's text without the driver's own words: empty without an
// error.
func problem(err error) string {
	if err == nil {
		return ""
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code + " " + pgErr.Message
	}
	return address.ReplaceAllString(said.ReplaceAllString(err.Error(), ""), "somewhere")
}

// same reports whether two values are equal to a program. NaN is equal to itself
// here, and a time is not equal to the same time elsewhere.
func same(a, b any) bool {
	return reflect.DeepEqual(a, b) || fmt.Sprintf("%T %#[1]v", a) == fmt.Sprintf("%T %#[1]v", b)
}

// compare has both drivers answer SELECT with all texts as columns. If one of
// them cannot, it looks for the columns that are to blame.
func (d drivers) compare(t testing.TB, ctx context.Context, texts []string, args ...any) (seen []string) {
	t.Helper()
	query := "SELECT " + strings.Join(texts, ", ")
	got, want := ask(ctx, d.ours, query, args...), ask(ctx, d.theirs, query, args...)
	if (got.problem != "" || want.problem != "") && len(texts) > 1 {
		half := len(texts) / 2
		return slices.Concat(d.compare(t, ctx, texts[:half], args...), d.compare(t, ctx, texts[half:], args...))
	}
	got.mustEqual(t, want, texts)
	return want.columns
}

// mustEqual complains about what is not as in want. texts are what was asked
// for: one for each column.
func (a answer) mustEqual(t testing.TB, want answer, texts []string) {
	t.Helper()
	if a.problem != want.problem {
		t.Errorf("%.300s: error %q, stdlib has %q", texts, a.problem, want.problem)
		return
	}
	if len(a.rows) != len(want.rows) || len(a.columns) != len(want.columns) {
		t.Errorf("%.300s: %d rows of %d columns, stdlib has %d of %d", texts, len(a.rows), len(a.columns), len(want.rows), len(want.columns))
		return
	}
	for i, text := range texts[:len(want.columns)] {
		if a.columns[i] != want.columns[i] {
			t.Errorf("%s is\n%s, stdlib has\n%s", text, a.columns[i], want.columns[i])
		}
		for n := range want.rows {
			if got, want := a.rows[n][i], want.rows[n][i]; !same(got, want) {
				t.Errorf("%s in row %d: got %T %#[3]v, stdlib has %T %#[4]v", text, n, got, want)
			}
		}
	}
}
