package integration_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/internal/pgtest"
)

// difference is a call that the drivers do not answer alike, and what each says.
type difference struct {
	do           func(ctx context.Context, db *sql.DB) (any, error)
	ours, theirs string
}

// asked answers a query with its first value.
func asked(query string, args ...any) func(context.Context, *sql.DB) (any, error) {
	return func(ctx context.Context, db *sql.DB) (v any, err error) {
		err = db.QueryRowContext(ctx, query, args...).Scan(&v)
		return v, err
	}
}

// executed runs a statement.
func executed(query string, args ...any) func(context.Context, *sql.DB) (any, error) {
	return func(ctx context.Context, db *sql.DB) (any, error) {
		_, err := db.ExecContext(ctx, query, args...)
		return "done", err
	}
}

// byStatement prepares a query, and then answers it.
func byStatement(query string, args ...any) func(context.Context, *sql.DB) (any, error) {
	return func(ctx context.Context, db *sql.DB) (v any, err error) {
		stmt, err := db.PrepareContext(ctx, query)
		if err != nil {
			return nil, fmt.Errorf("at once: %w", err)
		}
		defer stmt.Close()
		err = stmt.QueryRowContext(ctx, args...).Scan(&v)
		return v, err
	}
}

// askedConn has a query rewritten by somebody who looks at the connection.
type askedConn struct{}

// RewriteQuery implements pgx.QueryRewriter.
func (askedConn) RewriteQuery(_ context.Context, conn *pgx.Conn, _ string, _ []any) (string, []any, error) {
	return "SELECT $1::bool", []any{conn != nil}, nil
}

// fetched reads a number from a cursor of a session that wants few digits.
func fetched(ctx context.Context, db *sql.DB) (v any, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	for _, statement := range []string{"SET LOCAL extra_float_digits = -12", "DECLARE c CURSOR FOR SELECT 0.1::float8 / 3"} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return nil, err
		}
	}
	err = tx.QueryRowContext(ctx, "FETCH c").Scan(&v)
	return v, err
}

// What docs/compatibility.md says of differences is so, and it does not say too
// little: a difference that is gone has to go from there.
func TestDifferencesFromStdlibAreAsDocumented(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	d := openBoth(t, c)
	const simple = pgx.QueryExecModeSimpleProtocol
	for name, tt := range map[string]difference{
		"one parameter, two types, by the simple protocol": {
			asked("SELECT pg_typeof($1) FROM (SELECT $1::int) n", simple, 7), "integer", "unknown",
		},
		"two types that exclude each other, by the simple protocol": {
			asked("SELECT $1::int::text || $1::date", simple, nil), "42846 cannot cast type integer to date", "<nil>",
		},
		"a parameter where none can be, by the simple protocol": {
			executed("SET application_name = $1", simple, "me"), `42601 syntax error at or near "$1"`, "done",
		},
		"arguments of several statements, by the simple protocol": {
			executed("SELECT $1::int; SELECT $1::int", simple, 7), "a text with 2 statements takes no arguments", "done",
		},
		"several statements in a query": {
			asked("SELECT 1; SELECT 2"), "1", "42601 cannot insert multiple commands into a prepared statement",
		},
		"a mistake in a prepared statement": {
			byStatement("SELEC 1"), `42601 syntax error at or near "SELEC"`, `at once: ERROR: syntax error at or near "SELEC" (SQLSTATE 42601)`,
		},
		"too few arguments of a prepared statement": {
			byStatement("SELECT $1::int + $2::int", 1), "expected 2 arguments, got 1", "sql: expected 2 arguments, got 1",
		},
		"options of a prepared statement": {
			byStatement("SELECT $1::int", pgx.QueryExecModeExec, 7), "7", "sql: expected 1 arguments, got 2",
		},
		"names in a prepared statement": {
			byStatement("SELECT @n::int", pgx.NamedArgs{"n": 7}), "7", `at once: ERROR: column "n" does not exist (SQLSTATE 42703)`,
		},
		"formats for a statement without rows": {
			executed("SELECT 1", pgx.QueryResultFormats{0}), "done", "mismatched param and argument count",
		},
		"rows of a cursor that the server rounds": {
			fetched, "0.0333", "0.03333333333333333",
		},
		"a rewriter": {
			asked("", askedConn{}), "false", "true",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := outcome(tt.do(ctx, d.ours)); got != tt.ours {
				t.Errorf("is %q, want %q", got, tt.ours)
			}
			if got := outcome(tt.do(ctx, d.theirs)); got != tt.theirs {
				t.Errorf("through stdlib it is %q, want %q", got, tt.theirs)
			}
		})
	}
}

// outcome returns the outcome of a call as text.
func outcome(v any, err error) string {
	if err != nil {
		if strings.HasPrefix(err.Error(), "at once") {
			return err.Error()
		}
		return problem(err)
	}
	return fmt.Sprint(v)
}

// A column that cannot be read is named.
func TestUnreadableColumnsAreNamed(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	d := openBoth(t, c, "datestyle=German")
	ask := asked("SELECT 1, '2024-02-29'::date AS born", pgx.QueryExecModeExec)
	for want, db := range map[string]*sql.DB{"helios: column 2 (born): ": d.ours, "convert field 1 failed: ": d.theirs} {
		if _, err := ask(ctx, db); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("a German date: %v, want %q and what pgx says", err, want)
		}
	}
}
