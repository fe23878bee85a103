package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgtest"
)

// A deferred constraint fails when the statement is over and its transaction
// commits. Whoever commits it, the program hears of the failure and not of a
// success.
func TestACommitThatFailsIsToldAsTheFailureOfItsStatement(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	pgtest.OK(t, c.Primary().Exec(t.Context(), "CREATE TABLE once (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)"))
	pgtest.OK(t, c.Primary().Exec(t.Context(), "INSERT INTO once VALUES (1)"))
	pgtest.OK(t, c.Primary().Exec(t.Context(), "CREATE PROCEDURE add(n int) LANGUAGE sql AS 'INSERT INTO once VALUES (n)'"))
	text := func(query string, args ...any) func(context.Context, *sql.DB) error {
		return func(ctx context.Context, db *sql.DB) error {
			_, err := db.ExecContext(ctx, query, args...)
			return err
		}
	}
	ways := map[string]func(context.Context, *sql.DB) error{
		"exec":               text("INSERT INTO once VALUES ($1)", 1),
		"without arguments":  text("INSERT INTO once VALUES (1)"),
		"several statements": text("INSERT INTO once VALUES (2); INSERT INTO once VALUES (1)"),
		"procedure":          text("CALL add($1)", 1),
		"block":              text("DO $$ BEGIN INSERT INTO once VALUES (1); END $$"),
		"query": func(ctx context.Context, db *sql.DB) error {
			return db.QueryRowContext(ctx, "INSERT INTO once VALUES (1) RETURNING id").Scan(new(int))
		},
		"transaction": func(ctx context.Context, db *sql.DB) error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			exec(t, ctx, tx, "INSERT INTO once VALUES (1)")
			return tx.Commit()
		},
	}
	for _, params := range [][]string{{"lsn=eager"}, {"lsn=lazy"}, {"lsn=off", "consistency=eventual"}} {
		db := open(t, c, params...)
		for name, run := range ways {
			err := run(pgtest.Context(t), db)
			if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "23505" {
				t.Errorf("%s, %v: %v, want a unique violation (23505)", name, params, err)
			}
		}
		if n := value[int](t, pgtest.Context(t), db, "SELECT count(*) FROM once"); n != 1 {
			t.Errorf("%v: %d rows, want the one that was there", params, n)
		}
	}
}
