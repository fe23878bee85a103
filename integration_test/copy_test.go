package integration_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// COPY goes by pgx's own connection, and the session knows that it wrote.
func TestWhatCopyWroteIsSeenBySessionsReads(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	db := open(t, c)
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE t (id int, name text)")
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	for _, n := range c.Replicas() {
		pgtest.OK(t, c.Lag(ctx, n, pairDelay))
	}

	const batch = 1000
	s := conn(t, db)
	for round := 1; round <= 5; round++ {
		rows := make([][]any, batch)
		for i := range rows {
			rows[i] = []any{i, fmt.Sprint("name ", i)}
		}
		pgtest.OK(t, s.Raw(func(dc any) error {
			pg := dc.(interface{ Conn() *pgx.Conn }).Conn()
			n, err := pg.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"id", "name"}, pgx.CopyFromRows(rows))
			if n != batch {
				t.Errorf("CopyFrom copied %d rows, want %d", n, batch)
			}
			return err
		}))
		if n := value[int](t, ctx, s, "SELECT count(*) FROM t"); n != round*batch {
			t.Errorf("the session that copied sees %d rows, want %d", n, round*batch)
		}
	}
	pgtest.OK(t, s.Close())
	if n := value[int](t, ctx, db, "SELECT count(*) FROM t"); n != 5*batch {
		t.Errorf("the handle sees %d rows after the session ended, want %d", n, 5*batch)
	}
	if n := value[int](t, ctx, db, "SELECT count(*) FROM t WHERE name LIKE 'name %'"); n != 5*batch {
		t.Errorf("the handle sees %d rows, want %d", n, 5*batch)
	}
}

// The connection that Conn lends is the session's: what was done with it is
// not inherited by others.
func TestALentConnectionIsThePrimarysAndComesBackClean(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	db := open(t, c, "pool_max_conns=1")
	ctx := pgtest.Context(t)
	s := conn(t, db)
	pgtest.OK(t, s.Raw(func(dc any) error {
		pg := dc.(interface{ Conn() *pgx.Conn }).Conn()
		var replica bool
		if err := pg.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&replica); err != nil {
			return err
		}
		if replica {
			t.Error("the connection is to a replica")
		}
		_, err := pg.Exec(ctx, "SET work_mem = '9MB'")
		return err
	}))
	pgtest.OK(t, s.Close())
	if got := value[string](t, helios.Primary(ctx), db, "SHOW work_mem"); got == "9MB" {
		t.Error("the next session inherits work_mem")
	}
}

// Without pgx at hand, a COPY as text is refused with a hint to the way above,
// and does no harm.
func TestCopyAsTextSaysWhereToGo(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	db := open(t, c)
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE t (id int)")
	for _, query := range []string{"COPY t FROM STDIN", "COPY t TO STDOUT"} {
		if _, err := db.ExecContext(ctx, query); err == nil || !strings.Contains(err.Error(), "COPY") {
			t.Errorf("%s = %v, want an error about COPY", query, err)
		}
		if n := value[int](t, ctx, db, "SELECT count(*) FROM t"); n != 0 {
			t.Errorf("after %s there are %d rows", query, n)
		}
	}
}
