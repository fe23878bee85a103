package integration_test

import (
	"context"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
)

// database/sql itself allocates ten objects for a query of one row and three for
// an Exec (Go 1.26). What the driver may add is little: a read that allocates is
// a read that is collected.
func TestAStatementAllocatesHardlyMoreThanDatabaseSQLItself(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{})
	db := open(t, cluster, "probe_interval=1h")
	ctx := context.Background() // one that ends costs database/sql a goroutine
	exec(t, ctx, db, "CREATE TABLE t (id int PRIMARY KEY, n int)")
	exec(t, ctx, db, "INSERT INTO t VALUES (1, 1)")
	for name, tt := range map[string]struct {
		most float64
		do   func() error
	}{
		"a read": {12, func() error {
			var n int
			return db.QueryRowContext(ctx, "SELECT n FROM t WHERE id = $1", 1).Scan(&n)
		}},
		"a write with its position": {4, func() error {
			_, err := db.ExecContext(ctx, "UPDATE t SET n = 7 WHERE id = $1", 1)
			return err
		}},
	} {
		for range 10 {
			pgtest.OK(t, tt.do())
		}
		got := testing.AllocsPerRun(200, func() { pgtest.OK(t, tt.do()) })
		if got > tt.most {
			t.Errorf("%s allocates %.1f objects, want at most %.0f", name, got, tt.most)
		}
	}
}
