package pgcanned_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgcanned"
)

// openHelios opens helios on the cluster. It is probed at the start, and then no
// more: a probe costs what a statement costs.
func openHelios(tb testing.TB, c *pgcanned.Cluster, params ...string) *sql.DB {
	tb.Helper()
	dsn := c.DSN("helios", append([]string{"probe_interval=1h", "pool_max_conns=32", "max_dials=32"}, params...)...)
	cfg, err := helios.ParseDSN(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	connector, err := helios.NewConnector(cfg, helios.WithDialFunc(c.Dial), helios.WithLookupFunc(c.Lookup))
	if err != nil {
		tb.Fatal(err)
	}
	return closing(tb, sql.OpenDB(connector))
}

// openStdlib opens pgx's own database/sql driver on the primary.
func openStdlib(tb testing.TB, c *pgcanned.Cluster) *sql.DB {
	tb.Helper()
	cfg, err := pgx.ParseConfig(c.DSN("postgres", "target_session_attrs=read-write"))
	if err != nil {
		tb.Fatal(err)
	}
	cfg.DialFunc, cfg.LookupFunc = c.Dial, c.Lookup
	return closing(tb, stdlib.OpenDB(*cfg))
}

// openPool opens pgx's own pool on the primary.
func openPool(tb testing.TB, c *pgcanned.Cluster) *pgxpool.Pool {
	tb.Helper()
	cfg, err := pgxpool.ParseConfig(c.DSN("postgres", "target_session_attrs=read-write", "pool_max_conns=32"))
	if err != nil {
		tb.Fatal(err)
	}
	cfg.ConnConfig.DialFunc, cfg.ConnConfig.LookupFunc = c.Dial, c.Lookup
	pool, err := pgxpool.NewWithConfig(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

// closing has db closed in the end, and lets it keep as many sessions as the
// largest benchmark has clients.
func closing(tb testing.TB, db *sql.DB) *sql.DB {
	db.SetMaxIdleConns(32)
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db
}

// operations are what the benchmarks have every driver do. Each checks what came
// back.
type operations struct{ read, list, write, transaction operation }

// An operation is what a client does again and again.
type operation func(ctx context.Context) error

// wantRow checks a row of the table.
func wantRow(id int, name string) error {
	if id != pgcanned.ReadID || name != pgcanned.ReadName {
		return fmt.Errorf("read %d, %q, want %d, %q", id, name, pgcanned.ReadID, pgcanned.ReadName)
	}
	return nil
}

// wantCount checks a number of rows.
func wantCount(got, want int64) error {
	if got != want {
		return fmt.Errorf("%d rows, want %d", got, want)
	}
	return nil
}

func onDB(db *sql.DB) operations {
	update := func(ctx context.Context, on interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	},
	) error {
		result, err := on.ExecContext(ctx, pgcanned.WriteSQL, "Grace", 7)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		return errors.Join(err, wantCount(n, 1))
	}
	return operations{
		read: func(ctx context.Context) error {
			var id int
			var name string
			if err := db.QueryRowContext(ctx, pgcanned.ReadSQL, 7).Scan(&id, &name); err != nil {
				return err
			}
			return wantRow(id, name)
		},
		list: func(ctx context.Context) error {
			rows, err := db.QueryContext(ctx, pgcanned.ListSQL)
			if err != nil {
				return err
			}
			defer rows.Close()
			n := int64(0)
			for ; rows.Next(); n++ {
				var id int
				var name string
				if err := rows.Scan(&id, &name); err != nil {
					return err
				}
			}
			return errors.Join(rows.Err(), wantCount(n, pgcanned.ListRows))
		},
		write: func(ctx context.Context) error { return update(ctx, db) },
		transaction: func(ctx context.Context) error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			if err := update(ctx, tx); err != nil {
				return errors.Join(err, tx.Rollback())
			}
			return tx.Commit()
		},
	}
}

func onPool(pool *pgxpool.Pool) operations {
	update := func(ctx context.Context, on interface {
		Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	},
	) error {
		tag, err := on.Exec(ctx, pgcanned.WriteSQL, "Grace", 7)
		if err != nil {
			return err
		}
		return wantCount(tag.RowsAffected(), 1)
	}
	return operations{
		read: func(ctx context.Context) error {
			var id int
			var name string
			if err := pool.QueryRow(ctx, pgcanned.ReadSQL, 7).Scan(&id, &name); err != nil {
				return err
			}
			return wantRow(id, name)
		},
		list: func(ctx context.Context) error {
			rows, err := pool.Query(ctx, pgcanned.ListSQL)
			if err != nil {
				return err
			}
			defer rows.Close()
			n := int64(0)
			for ; rows.Next(); n++ {
				var id int
				var name string
				if err := rows.Scan(&id, &name); err != nil {
					return err
				}
			}
			return errors.Join(rows.Err(), wantCount(n, pgcanned.ListRows))
		},
		write: func(ctx context.Context) error { return update(ctx, pool) },
		transaction: func(ctx context.Context) error {
			tx, err := pool.Begin(ctx)
			if err != nil {
				return err
			}
			if err := update(ctx, tx); err != nil {
				return errors.Join(err, tx.Rollback(ctx))
			}
			return tx.Commit(ctx)
		},
	}
}

func TestEveryDriverGetsItsAnswers(t *testing.T) {
	c := pgcanned.NewCluster(2)
	for name, do := range map[string]operations{
		"helios":  onDB(openHelios(t, c)),
		"stdlib":  onDB(openStdlib(t, c)),
		"pgxpool": onPool(openPool(t, c)),
	} {
		t.Run(name, func(t *testing.T) {
			for range 3 { // the first time a statement is prepared, then it is known
				for what, tt := range map[string]struct {
					do     operation
					writes bool
				}{
					"read": {do.read, false}, "list": {do.list, false},
					"write": {do.write, true}, "transaction": {do.transaction, true},
				} {
					before := c.Position()
					if err := tt.do(t.Context()); err != nil || c.Position() > before != tt.writes {
						t.Errorf("%s = %v, WAL from %v to %v; want no error, and more WAL: %v", what, err, before, c.Position(), tt.writes)
					}
				}
			}
		})
	}
}

func TestHeliosReadsFromTheReplica(t *testing.T) {
	c := pgcanned.NewCluster(2)
	db := openHelios(t, c)
	cluster, err := helios.ClusterOf(db)
	if err != nil {
		t.Fatal(err)
	}
	must := func(do operation) {
		t.Helper()
		if err := do(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	on := onDB(db)
	for range 10 {
		must(on.read)
		must(on.write)
	}
	if got := cluster.Stats(); got.Reads["n2:5432"] != 10 || got.Writes["n1:5432"] != 10 || got.Behind != 0 {
		t.Errorf("Stats() = %+v, want 10 reads on n2, 10 writes on n1, none behind", got)
	}
	c.Node(2).HoldReplay(1)
	must(on.write)
	must(on.read)
	if got := cluster.Stats(); got.Reads["n1:5432"] != 1 || got.Behind != 1 {
		t.Errorf("Stats() = %+v, want the read that n2 could not answer on n1", got)
	}
}
