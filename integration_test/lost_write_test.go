package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// A write is acknowledged, no replica ever receives it, and the primary dies:
// its session is told, once, and then goes on with what is left.
func TestASessionIsToldOfItsLostWriteOnce(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	db := open(t, c)
	known := clusterOf(t, db)
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE t (id int)")
	exec(t, ctx, db, "INSERT INTO t VALUES (1)")
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	awaitRoles(t, known, c.Primary(), 2)
	kept := helios.WithSession(ctx, helios.NewSession())
	exec(t, kept, db, "INSERT INTO t VALUES (2)")
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	for _, n := range c.Replicas() {
		pgtest.OK(t, c.Configure(ctx, n, map[string]string{"primary_conninfo": ""}))
	}
	pgtest.OK(t, c.Primary().Await(ctx, "SELECT NOT EXISTS (SELECT FROM pg_stat_replication)"))

	reader := helios.WithSession(ctx, helios.NewSession())
	writer := helios.WithSession(ctx, helios.NewSession())
	bystander := helios.WithSession(ctx, helios.NewSession())
	exec(t, reader, db, "INSERT INTO t VALUES (3)")
	exec(t, writer, db, "INSERT INTO t VALUES (4)")
	_, err := c.Failover(ctx)
	pgtest.OK(t, err)

	if lost := lookTogether(t, reader, db); lost != 1 {
		t.Errorf("16 reads of the session that lost its write: %d were told, want 1", lost)
	}
	exec(t, writer, db, "INSERT INTO t VALUES (5)") // a write does not ask what the session has seen
	if lost := lookTogether(t, writer, db); lost != 1 {
		t.Errorf("16 reads of the session that lost its write and wrote again: %d were told, want 1", lost)
	}
	for name, session := range map[string]context.Context{"kept": kept, "bystander": bystander} {
		if lost := lookTogether(t, session, db); lost != 0 {
			t.Errorf("%s: %d reads were told of a lost write, want none", name, lost)
		}
	}
	for name, session := range map[string]context.Context{"reader": reader, "writer": writer, "kept": kept} {
		exec(t, session, db, "INSERT INTO t VALUES (6)")
		if n := value[int](t, session, db, "SELECT count(*) FROM t WHERE id IN (3, 4)"); n != 0 {
			t.Errorf("%s: %d lost rows are there after all", name, n)
		}
	}
	if n := value[int](t, writer, db, "SELECT count(*) FROM t WHERE id IN (1, 2, 5)"); n != 3 {
		t.Errorf("%d of the 3 rows that were kept are there", n)
	}
}

// lookTogether reads 16 times at once and returns how many reads were told of a
// lost write.
func lookTogether(t *testing.T, ctx context.Context, db *sql.DB) int64 {
	t.Helper()
	var lost atomic.Int64
	var reading sync.WaitGroup
	for range 16 {
		reading.Go(func() {
			var n int
			err := db.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&n)
			switch {
			case errors.Is(err, helios.ErrWriteLost):
				lost.Add(1)
			case err != nil:
				t.Errorf("read: %v", err)
			}
		})
	}
	reading.Wait()
	return lost.Load()
}
