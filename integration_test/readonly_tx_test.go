package integration_test

import (
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// A read-only transaction runs on a replica that sees what its session wrote.
func TestReadOnlyTransactionsRunOnReplicasThatAreFresh(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	db := open(t, c)
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE t (id int PRIMARY KEY, n int)")
	exec(t, ctx, db, "INSERT INTO t VALUES (1, 0)")
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	awaitRoles(t, clusterOf(t, db), c.Primary(), 2)

	n := 0
	for name, tt := range map[string]struct {
		level   sql.IsolationLevel
		replica bool
	}{
		"default":         {sql.LevelDefault, true},
		"read committed":  {sql.LevelReadCommitted, true},
		"repeatable read": {sql.LevelRepeatableRead, true},
		"snapshot":        {sql.LevelSnapshot, true},
		"serializable":    {sql.LevelSerializable, false},
	} {
		t.Run(name, func(t *testing.T) {
			// Right after a write replicas may still be behind: what counts is what is seen.
			const rounds = 100
			own := helios.NewSession()
			early, late := 0, 0
			look := func() bool {
				session := helios.WithSession(ctx, own)
				tx, err := db.BeginTx(session, &sql.TxOptions{Isolation: tt.level, ReadOnly: true})
				pgtest.OK(t, err)
				defer tx.Rollback()
				for range 2 {
					if got := value[int](t, session, tx, "SELECT n FROM t WHERE id = 1"); got != n {
						t.Fatalf("the transaction sees %d, its session wrote %d", got, n)
					}
				}
				replica := value[bool](t, session, tx, "SELECT pg_is_in_recovery()")
				pgtest.OK(t, tx.Commit())
				return replica
			}
			for range rounds {
				n++
				own = helios.NewSession()
				exec(t, helios.WithSession(ctx, own), db, "UPDATE t SET n = $1 WHERE id = 1", n)
				if look() {
					early++
				}
			}
			// Later they are not, and that is where such a transaction belongs.
			pgtest.OK(t, c.WaitCaughtUp(ctx))
			if tt.replica { // one that was behind is left in peace for some milliseconds
				await(t, "a replica to be asked again", look)
			}
			for range rounds {
				if look() {
					late++
				}
			}
			t.Logf("FIGURES read-only transactions, %s: on replicas %d of %d right after a write, %d of %d later", name, early, rounds, late, rounds)
			if tt.replica && late != rounds || !tt.replica && early+late != 0 {
				t.Errorf("%d of %d ran on replicas", late, rounds)
			}
		})
	}
}

// A snapshot is taken once, on a replica as well: what is committed later stays
// out of it.
func TestARepeatableReadTransactionOnAReplicaKeepsItsSnapshot(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	db := open(t, c)
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE t (n int)")
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	awaitRoles(t, clusterOf(t, db), c.Primary(), 1)
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	pgtest.OK(t, err)
	defer tx.Rollback()
	before := value[int](t, ctx, tx, "SELECT count(*) FROM t")
	exec(t, ctx, db, "INSERT INTO t VALUES (1)")
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	if after := value[int](t, ctx, tx, "SELECT count(*) FROM t"); before != 0 || after != 0 {
		t.Errorf("the transaction saw %d rows and then %d, want 0 twice", before, after)
	}
	pgtest.OK(t, tx.Commit())
}

// A read-only transaction that writes is refused as PostgreSQL does, wherever
// it runs.
func TestAWriteInAReadOnlyTransactionIsRefused(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	db := open(t, c)
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE t (n int)")
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelSerializable} {
		for _, first := range []bool{true, false} {
			tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level, ReadOnly: true})
			pgtest.OK(t, err)
			if !first {
				value[int](t, ctx, tx, "SELECT 1")
			}
			_, err = tx.ExecContext(ctx, "INSERT INTO t VALUES (1)")
			if refused, ok := err.(*pgconn.PgError); !ok || refused.Code != "25006" { //nolint:errorlint // it comes bare
				t.Errorf("%v, first statement %t: INSERT = %v, want 25006", level, first, err)
			}
			pgtest.OK(t, tx.Rollback())
		}
	}
	if n := value[int](t, helios.Primary(ctx), db, "SELECT count(*) FROM t"); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

// A transaction that may write belongs on the primary from its first statement
// on, though that is a read.
func TestATransactionThatMayWriteBeginsOnThePrimary(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	db := open(t, c)
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE t (n int)")
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelRepeatableRead, sql.LevelSerializable} {
		tx, err := db.BeginTx(helios.WithSession(ctx, helios.NewSession()), &sql.TxOptions{Isolation: level})
		pgtest.OK(t, err)
		if value[bool](t, ctx, tx, "SELECT pg_is_in_recovery()") {
			t.Errorf("%v: the transaction runs on a replica", level)
		}
		exec(t, ctx, tx, "INSERT INTO t SELECT count(*) FROM t")
		pgtest.OK(t, tx.Commit())
	}
	if got := clusterOf(t, db).Stats().Learned; got != 0 {
		t.Errorf("%d statements were tried on a replica first", got)
	}
}
