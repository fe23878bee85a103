package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// Statements that must run on the primary though a standby would accept most of
// them, or hides what they do. Each is one session of its own.
var onPrimary = []string{
	// A standby refuses these before any effect.
	"INSERT INTO t VALUES (1)",
	"UPDATE t SET n = n",
	"DELETE FROM t WHERE n < 0",
	"WITH x AS (INSERT INTO t VALUES (2) RETURNING n) SELECT * FROM x",
	"SELECT * FROM (VALUES (1)) v(i), LATERAL (SELECT n FROM t WHERE n = i FOR UPDATE) l",
	"SELECT * FROM t FOR UPDATE",
	"SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED",
	"SELECT * FROM t FOR SHARE",
	"SELECT * FROM t FOR KEY SHARE NOWAIT",
	"(SELECT * FROM t) FOR UPDATE",
	"SELECT nextval('s')",
	"SELECT setval('s', 100)",
	"SELECT txid_current()",
	"SELECT pg_current_xact_id()",
	"CREATE TABLE made (n int)",
	"DROP TABLE made",
	"CREATE TEMP TABLE mine (n int)",
	"SELECT n INTO copied FROM t",
	"CREATE TABLE copied_again AS TABLE t",
	"TRUNCATE emptied",
	"VACUUM t",
	"ANALYZE t",
	"REINDEX TABLE t",
	"COMMENT ON TABLE t IS 'x'",
	"GRANT SELECT ON t TO public",
	"REFRESH MATERIALIZED VIEW m",
	"NOTIFY news",
	"LISTEN news",
	"SELECT pg_notify('news', 'x')",
	"EXPLAIN ANALYZE INSERT INTO t VALUES (3)",
	"DO $$ BEGIN INSERT INTO t VALUES (4); END $$",
	"SELECT writes()",
	"SELECT * FROM writing_view",
	"CALL writing_procedure()",
	"MERGE INTO t USING (VALUES (1)) v(i) ON t.n = v.i WHEN MATCHED THEN UPDATE SET n = i",
	"SELECT lo_create(0)",
	"SELECT pg_logical_emit_message(true, 'x', 'y')",
	"SELECT pg_switch_wal()",
	"SELECT pg_create_restore_point('x')",
	"SELECT pg_current_wal_lsn()",
	// A standby accepts these, and they are wrong there.
	"SELECT pg_advisory_lock(1)",
	"SELECT pg_try_advisory_lock(2)",
	"SELECT pg_advisory_xact_lock(3)",
	"SELECT count(*) FROM t WHERE pg_try_advisory_xact_lock(n)",
	"SELECT pg_advisory_unlock_all()",
	"CHECKPOINT",
	"ALTER SYSTEM SET work_mem = '4MB'",
	"SELECT pg_reload_conf()",
	"SELECT pg_create_physical_replication_slot('slot')",
	"SELECT pg_drop_replication_slot('slot')",
	"SELECT pg_cancel_backend(0)",
	"SELECT pg_terminate_backend(0)",
	"SELECT pg_stat_reset()",
	"SELECT set_config('helios.x', 'y', false)",
	"SET work_mem = '4MB'",
	"SET LOCAL work_mem = '4MB'",
	"RESET ALL",
	"DISCARD PLANS",
	"PREPARE p AS SELECT 1",
	"DECLARE cur CURSOR WITH HOLD FOR SELECT 1",
	"UNLISTEN *",
	"EXPLAIN INSERT INTO t VALUES (1)",
	"DO $$ BEGIN END $$",
	"SELECT 1; INSERT INTO t VALUES (5)",
	"/* SELECT */ INSERT INTO t VALUES (6)",
	"SELECT 1 -- */\n; DELETE FROM t WHERE n = 6",
}

// Statements that replicas are there for.
var onReplicas = []string{
	"SELECT 1",
	"SELECT count(*) FROM t",
	"select n from t where n = 1",
	"TABLE t",
	"VALUES (1), (2)",
	"WITH x AS (SELECT * FROM t) SELECT count(*) FROM x",
	"WITH RECURSIVE r(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM r WHERE i < 5) SELECT sum(i) FROM r",
	"SELECT 'INSERT INTO t FOR UPDATE'",
	"SELECT $$ FOR UPDATE $$ AS \"update\"",
	"SELECT /* FOR UPDATE */ n FROM t -- FOR UPDATE",
	"SELECT E'it\\'s; DELETE FROM t'",
	"SELECT now(), current_date, version()",
	"SELECT count(*), max(n), row_number() OVER () FROM t GROUP BY n",
	"SELECT * FROM t a JOIN t b USING (n) WHERE a.n IN (SELECT n FROM t) ORDER BY 1 LIMIT 5",
	"SELECT lower('A'), coalesce(NULL, 1), to_char(now(), 'YYYY')",
	"SELECT generate_series(1, 3)",
	"SELECT pg_is_in_recovery()",
	"SELECT * FROM pg_catalog.pg_class LIMIT 1",
	"SELECT * FROM information_schema.tables LIMIT 1",
	"EXPLAIN SELECT * FROM t",
	"(SELECT 1) UNION ALL (SELECT 2)",
	"SELECT n, CASE WHEN n > 1 THEN 'many' END FROM t",
	"SELECT '{\"a\": 1}'::jsonb -> 'a', ARRAY[1, 2] @> ARRAY[1]",
	"SELECT string_agg(n::text, ',' ORDER BY n) FROM t",
	"SELECT last_value FROM s",
	"SELECT * FROM m",
}

// matrixCluster starts a cluster with what the statements above are about.
func matrixCluster(t *testing.T) *pgtest.Cluster {
	t.Helper()
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := pgtest.Context(t)
	conn := c.Primary().Conn(t)
	for _, query := range []string{
		"CREATE TABLE t (n int)", "CREATE TABLE emptied (n int)", "INSERT INTO t VALUES (1)", "CREATE SEQUENCE s",
		"CREATE MATERIALIZED VIEW m AS SELECT 1 AS one",
		"CREATE FUNCTION writes() RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO t VALUES (7) RETURNING n'",
		"CREATE VIEW writing_view AS SELECT writes()",
		"CREATE PROCEDURE writing_procedure() LANGUAGE sql AS 'INSERT INTO t VALUES (8)'",
	} {
		_, err := conn.Exec(ctx, query)
		pgtest.OK(t, err)
	}
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	return c
}

// Nothing that belongs on the primary is executed on a replica, and what the
// primary alone can answer is answered.
func TestWhatBelongsOnThePrimaryRunsThere(t *testing.T) {
	c := matrixCluster(t)
	db := open(t, c)
	known := clusterOf(t, db)
	pgtest.OK(t, db.PingContext(pgtest.Context(t)))
	awaitRoles(t, known, c.Primary(), 1)
	replica := c.Nodes[1]
	reset := statsReset(t, replica)
	for _, query := range onPrimary {
		before := known.Stats()
		err := runAlone(pgtest.Context(t), db, query)
		if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok && serverLacks(pgErr.Code) {
			t.Logf("%s: not known to this server: %v", query, err)
		} else if err != nil {
			t.Errorf("%s: %v", query, err)
		}
		after := known.Stats()
		if after.Reads[replica.Addr()] != before.Reads[replica.Addr()] || after.Writes[replica.Addr()] != before.Writes[replica.Addr()] {
			t.Errorf("%s: executed on the replica", query)
		}
		if n := after.Learned - before.Learned; n != 0 {
			t.Logf("%s: the replica was asked first and refused", query)
		}
	}
	// What could have had an effect there without being counted.
	for question, what := range map[string]string{
		"SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')":     "an advisory lock",
		"SELECT NOT EXISTS (SELECT FROM pg_replication_slots)":                     "a replication slot",
		"SELECT NOT EXISTS (SELECT FROM pg_file_settings WHERE name = 'work_mem')": "a setting of ALTER SYSTEM",
		"SELECT NOT EXISTS (SELECT FROM pg_listening_channels())":                  "a LISTEN",
	} {
		clean, err := pgtest.Value[bool](pgtest.Context(t), replica, question)
		pgtest.OK(t, err)
		if !clean {
			t.Errorf("the replica has %s", what)
		}
	}
	if got := statsReset(t, replica); got != reset {
		t.Errorf("the replica's statistics were reset at %q, before all this it was %q", got, reset)
	}
}

// statsReset returns when the statistics of a node were reset, "" for never.
// Before PostgreSQL 15 that is when the node has first heard of the database.
func statsReset(t *testing.T, n *pgtest.Node) string {
	t.Helper()
	ctx := pgtest.Context(t)
	if major < 15 {
		pgtest.OK(t, n.Await(ctx, "SELECT stats_reset IS NOT NULL FROM pg_stat_database WHERE datname = 'postgres'"))
	}
	at, err := pgtest.Value[string](ctx, n, "SELECT coalesce(stats_reset::text, '') FROM pg_stat_database WHERE datname = 'postgres'")
	pgtest.OK(t, err)
	return at
}

// serverLacks reports whether an error means that the server is too old for a
// statement.
func serverLacks(code string) bool { return code == "42601" || code == "42883" }

// runAlone executes a statement in a session of its own and reads all it says.
func runAlone(ctx context.Context, db *sql.DB, query string) error {
	s, err := db.Conn(helios.WithSession(ctx, helios.NewSession()))
	if err != nil {
		return err
	}
	defer s.Close()
	rows, err := s.QueryContext(helios.WithSession(ctx, helios.NewSession()), query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for more := true; more; more = rows.NextResultSet() {
		for rows.Next() {
		}
	}
	return rows.Err()
}

// Reads run on replicas, as plain statements and as prepared ones.
func TestReadsRunOnReplicas(t *testing.T) {
	c := matrixCluster(t)
	db := open(t, c)
	known := clusterOf(t, db)
	pgtest.OK(t, db.PingContext(pgtest.Context(t)))
	awaitRoles(t, known, c.Primary(), 1)
	replica := c.Nodes[1].Addr()
	for _, query := range onReplicas {
		before := known.Stats().Reads[replica]
		if err := runAlone(pgtest.Context(t), db, query); err != nil {
			t.Errorf("%s: %v", query, err)
		}
		if known.Stats().Reads[replica] != before+1 {
			t.Errorf("%s: was not read on the replica", query)
		}
		stmt, err := db.PrepareContext(pgtest.Context(t), strings.TrimSuffix(query, ";"))
		pgtest.OK(t, err)
		rows, err := stmt.QueryContext(pgtest.Context(t))
		if err != nil {
			t.Errorf("prepared %s: %v", query, err)
		} else {
			pgtest.OK(t, rows.Close())
		}
		pgtest.OK(t, stmt.Close())
		if known.Stats().Reads[replica] != before+2 {
			t.Errorf("prepared %s: was not read on the replica", query)
		}
	}
}
