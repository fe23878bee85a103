package integration_test

import (
	"context"
	"database/sql"
	"strings"
	"sync"
	"testing"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// conn takes a session of db and gives it back at the end of the test at the
// latest.
func conn(t testing.TB, db *sql.DB) *sql.Conn {
	t.Helper()
	s, err := db.Conn(pgtest.Context(t))
	pgtest.OK(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// State that a session has on the server holds it to one backend, and is gone
// for whoever gets the backend next.
func TestStateOfASessionStaysOnOneBackendAndWithIt(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	for name, tt := range map[string]struct{ begin, use, want string }{
		"SET":              {"SET work_mem = '7MB'", "SELECT current_setting('work_mem')", "7MB"},
		"set_config":       {"SELECT set_config('helios.user', 'alice', false)", "SELECT current_setting('helios.user', true)", "alice"},
		"search_path":      {"SET search_path = pg_catalog", "SHOW search_path", "pg_catalog"},
		"SET ROLE":         {"SET ROLE pg_monitor", "SELECT current_user::text", "pg_monitor"},
		"temporary table":  {"CREATE TEMP TABLE mine AS SELECT 'here' AS word", "SELECT word FROM mine", "here"},
		"advisory lock":    {"SELECT pg_advisory_lock(4711)", "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND pid = pg_backend_pid()", "1"},
		"LISTEN":           {"LISTEN news", "SELECT coalesce(string_agg(c, ','), '') FROM pg_listening_channels() c", "news"},
		"PREPARE":          {"PREPARE plan AS SELECT 1", "SELECT count(*)::text FROM pg_prepared_statements WHERE from_sql AND name = 'plan'", "1"},
		"WITH HOLD cursor": {"DECLARE cur CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*)::text FROM pg_cursors WHERE name = 'cur'", "1"},
	} {
		t.Run(name, func(t *testing.T) {
			db := open(t, c, "pool_max_conns=1") // whoever comes next gets the same backend
			ctx := pgtest.Context(t)
			s := conn(t, db)
			exec(t, ctx, s, tt.begin)
			pid := value[int](t, ctx, s, "SELECT pg_backend_pid()")
			for range 20 {
				if got := value[string](t, ctx, s, tt.use); got != tt.want {
					t.Fatalf("%s: got %q, want %q", tt.use, got, tt.want)
				}
				if got := value[int](t, ctx, s, "SELECT pg_backend_pid()"); got != pid {
					t.Fatalf("the session moved from backend %d to %d", pid, got)
				}
			}
			pgtest.OK(t, s.Close())

			next := helios.Primary(ctx)
			if got := value[int](t, next, db, "SELECT pg_backend_pid()"); got != pid {
				t.Logf("the next session has backend %d, not %d", got, pid)
			}
			var leaked string
			if err := db.QueryRowContext(next, tt.use).Scan(&leaked); err == nil && leaked == tt.want {
				t.Errorf("%s: the next session got %q as well", tt.use, leaked)
			}
		})
	}
}

// Migration tools of several instances start at once, each with a handle of its
// own: they agree by an advisory lock who goes first.
func TestOneOfTwoMigratorsGetsTheLock(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	ctx := pgtest.Context(t)
	a, b := conn(t, open(t, c)), conn(t, open(t, c))
	const lock, unlock = "SELECT pg_try_advisory_lock(99)", "SELECT pg_advisory_unlock(99)"
	for round := range 50 {
		var got [2]bool
		var both sync.WaitGroup
		for i, s := range []*sql.Conn{a, b} {
			both.Go(func() { got[i] = value[bool](t, ctx, s, lock) })
		}
		both.Wait()
		if got[0] == got[1] {
			t.Fatalf("round %d: the lock was given to %v, want to exactly one", round, got)
		}
		winner := a
		if got[1] {
			winner = b
		}
		if !value[bool](t, ctx, winner, unlock) {
			t.Fatalf("round %d: the lock was not on the backend that unlocks it", round)
		}
	}
}

// What goose and golang-migrate do: lock, look at the version, run a script in
// a transaction, note the version, unlock.
func TestMigrationsOfSeveralInstancesRunOnce(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	ctx := pgtest.Context(t)
	var instances sync.WaitGroup
	for range 4 {
		db := open(t, c)
		instances.Go(func() {
			s, err := db.Conn(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if err := migrate(ctx, s); err != nil {
				t.Error(err)
			}
		})
	}
	instances.Wait()
	if n := value[int](t, ctx, open(t, c), "SELECT count(*) FROM account"); n != 3 {
		t.Errorf("the migrations inserted %d rows, want 3", n)
	}
}

// migrations has one text for each version; the third has several statements.
var migrations = []string{
	"CREATE TABLE account (id int)",
	"INSERT INTO account VALUES (1)",
	"ALTER TABLE account ADD COLUMN name text; INSERT INTO account VALUES (2, 'b'); INSERT INTO account VALUES (3, 'c')",
}

// migrate brings the database to the newest version.
func migrate(ctx context.Context, s *sql.Conn) error {
	if _, err := s.ExecContext(ctx, "SELECT pg_advisory_lock($1)", 7); err != nil {
		return err
	}
	if _, err := s.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS schema_version (version int)"); err != nil {
		return err
	}
	var version int
	if err := s.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) FROM schema_version").Scan(&version); err != nil {
		return err
	}
	for ; version < len(migrations); version++ {
		tx, err := s.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO schema_version VALUES ($1)", version+1); err != nil {
			return err
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	var unlocked bool
	return s.QueryRowContext(ctx, "SELECT pg_advisory_unlock($1)", 7).Scan(&unlocked)
}

// A program that writes BEGIN and COMMIT as text has its transaction, on one
// backend, and others see nothing of it until it ends.
func TestATransactionMayBeWrittenAsText(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	db := open(t, c)
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE t (id int)")
	s := conn(t, db)
	for _, end := range []string{"COMMIT", "ROLLBACK"} {
		exec(t, ctx, s, "BEGIN")
		pid := value[int](t, ctx, s, "SELECT pg_backend_pid()")
		exec(t, ctx, s, "INSERT INTO t VALUES (1)")
		if n := value[int](t, ctx, s, "SELECT count(*) FROM t"); n != 1 {
			t.Errorf("the transaction sees %d rows, want its own", n)
		}
		if n := value[int](t, ctx, db, "SELECT count(*) FROM t"); n != 0 {
			t.Errorf("another session sees %d rows of a transaction that goes on", n)
		}
		if got := value[int](t, ctx, s, "SELECT pg_backend_pid()"); got != pid {
			t.Errorf("the transaction moved from backend %d to %d", pid, got)
		}
		exec(t, ctx, s, end)
		want := strings.Count("COMMIT", end)
		if n := value[int](t, ctx, s, "SELECT count(*) FROM t"); n != want {
			t.Errorf("after %s the session sees %d rows, want %d", end, n, want)
		}
		if n := value[int](t, ctx, db, "SELECT count(*) FROM t"); n != want {
			t.Errorf("after %s others see %d rows, want %d", end, n, want)
		}
		exec(t, ctx, s, "DELETE FROM t")
	}

	exec(t, ctx, s, "BEGIN")
	exec(t, ctx, s, "INSERT INTO t VALUES (2)")
	pgtest.OK(t, s.Close()) // a session that ends in a transaction
	if n := value[int](t, ctx, db, "SELECT count(*) FROM t"); n != 0 {
		t.Errorf("%d rows of a transaction that was left open are there", n)
	}
}
