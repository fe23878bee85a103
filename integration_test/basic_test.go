package integration_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// open opens the cluster and closes it at the end of the test.
func open(t *testing.T, c *pgtest.Cluster, params ...string) *sql.DB {
	t.Helper()
	db, err := sql.Open("helios", c.DSN(params...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// deadline bounds one step of a story.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAWriteIsReadBackThroughOneHandle(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{Replicas: 2})
	db := open(t, cluster)
	ctx := deadline(t)
	must(t, db.PingContext(ctx))
	_, err := db.ExecContext(ctx, "CREATE TABLE t (id int PRIMARY KEY, name text)")
	must(t, err)
	for i := range 200 {
		res, err := db.ExecContext(ctx, "INSERT INTO t VALUES ($1, $2)", i, "x")
		must(t, err)
		if n, _ := res.RowsAffected(); n != 1 {
			t.Fatalf("INSERT affected %d rows", n)
		}
		var id int
		must(t, db.QueryRowContext(ctx, "SELECT id FROM t WHERE id = $1", i).Scan(&id))
	}
	tx, err := db.BeginTx(ctx, nil)
	must(t, err)
	_, err = tx.ExecContext(ctx, "UPDATE t SET name = 'y' WHERE id = 1")
	must(t, err)
	must(t, tx.Commit())
	var name string
	must(t, db.QueryRowContext(ctx, "SELECT name FROM t WHERE id = 1").Scan(&name))
	if name != "y" {
		t.Errorf("name = %q, want y", name)
	}
	cl, err := helios.ClusterOf(db)
	must(t, err)
	t.Logf("%+v", cl.Stats())
	for _, n := range cl.Status().Nodes {
		t.Logf("%+v", n)
	}
	rows, err := db.QueryContext(ctx, "SELECT id, name FROM t ORDER BY id")
	must(t, err)
	n := 0
	for rows.Next() {
		n++
	}
	must(t, rows.Err())
	if n != 200 {
		t.Errorf("%d rows", n)
	}
}
