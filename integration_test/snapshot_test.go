package integration_test

import (
	"database/sql"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
)

// In a transaction with one snapshot it is the first query that takes it. SET and
// LOCK are none: who locks a table first sees in it what others had committed
// before the lock was theirs.
func TestWhatTakesNoSnapshotTakesNoneThroughTheDriver(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	db := open(t, c)
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE t (n int)")
	for _, level := range []sql.IsolationLevel{sql.LevelRepeatableRead, sql.LevelSerializable} {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
		pgtest.OK(t, err)
		defer tx.Rollback()
		exec(t, ctx, tx, "SET LOCAL lock_timeout = '10s'")
		exec(t, ctx, tx, "SHOW lock_timeout")
		before := value[int](t, ctx, db, "SELECT count(*) FROM t")
		exec(t, ctx, db, "INSERT INTO t VALUES (1)")
		exec(t, ctx, tx, "LOCK TABLE t IN EXCLUSIVE MODE")
		if got := value[int](t, ctx, tx, "SELECT count(*) FROM t"); got != before+1 {
			t.Errorf("%v: the owner of the lock sees %d rows, want %d", level, got, before+1)
		}
		pgtest.OK(t, tx.Commit())
	}
	tx, err := db.BeginTx(ctx, nil)
	pgtest.OK(t, err)
	defer tx.Rollback()
	exec(t, ctx, tx, "SET LOCAL lock_timeout = '10s'")
	exec(t, ctx, tx, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE") // which PostgreSQL refuses behind a query
	pgtest.OK(t, tx.Commit())
}
