package integration_test

// walZoo are statements that make a server write as many kinds of records as one
// client can make it write. since is the first major version that has them.
var walZoo = []struct {
	since int
	sql   []string
}{
	{0, []string{ // heaps
		"CREATE TABLE heap (id int PRIMARY KEY, n int, filler text)",
		"INSERT INTO heap SELECT g, 0, repeat('x', 50) FROM generate_series(1, 3000) g",
		"UPDATE heap SET n = n + 1 WHERE id % 3 = 0",
		"UPDATE heap SET id = id + 100000 WHERE id % 50 = 0",
		"DELETE FROM heap WHERE id % 7 = 0",
		"INSERT INTO heap VALUES (1, 1, '') ON CONFLICT (id) DO UPDATE SET n = 5",
		"INSERT INTO heap VALUES (900000, 1, '') ON CONFLICT DO NOTHING",
		"BEGIN; SELECT count(*) FROM (SELECT 1 FROM heap WHERE id < 40 FOR UPDATE) s; ROLLBACK",
		"BEGIN; SELECT count(*) FROM (SELECT 1 FROM heap WHERE id < 40 FOR SHARE) s; COMMIT",
		"VACUUM heap", "VACUUM FREEZE heap", "VACUUM (FULL, FREEZE) heap", "ANALYZE heap",
		"CREATE TABLE empties (a int)", "INSERT INTO empties SELECT generate_series(1, 5000)", "DELETE FROM empties", "VACUUM empties",
		"INSERT INTO empties VALUES (1)", "TRUNCATE empties",
		"CREATE TABLE toasted (a text)",
		"INSERT INTO toasted SELECT string_agg(md5((g * 1000 + i)::text), '') FROM generate_series(1, 20) g, generate_series(1, 300) i GROUP BY g",
		"UPDATE toasted SET a = a || 'x'", "DELETE FROM toasted",
		"CREATE UNLOGGED TABLE unlogged (a int PRIMARY KEY)", "INSERT INTO unlogged VALUES (1)",
		"CREATE SEQUENCE seq", "SELECT nextval('seq') FROM generate_series(1, 100)", "SELECT setval('seq', 7)",
		"SELECT count(lo_create(0)) FROM generate_series(1, 9000)",
	}},
	{0, []string{ // btree
		"CREATE TABLE tree (a int, b text)", "CREATE INDEX tree_a ON tree (a)", "CREATE INDEX tree_b ON tree (b)",
		"INSERT INTO tree SELECT g, md5(g::text) FROM generate_series(1, 5000) g",
		"INSERT INTO tree SELECT 7, 'same' FROM generate_series(1, 2000) g",
		"INSERT INTO tree SELECT g % 20, 'same' FROM generate_series(1, 1000) g",
		"DELETE FROM tree WHERE a BETWEEN 1000 AND 4000", "VACUUM tree", "INSERT INTO tree SELECT g, md5(g::text) FROM generate_series(1000, 2000) g",
		"DELETE FROM tree WHERE a BETWEEN 4500 AND 4800", "SET enable_seqscan = off", "SELECT count(*) FROM tree WHERE a BETWEEN 4400 AND 4900",
		"INSERT INTO tree SELECT g, 'n' FROM generate_series(4500, 4800) g, generate_series(1, 4)", "RESET enable_seqscan",
		"VACUUM tree", "REINDEX TABLE tree", "REINDEX INDEX CONCURRENTLY tree_a", "CLUSTER tree USING tree_a",
	}},
	{0, []string{ // gin
		"CREATE TABLE inverted (a int[])", "CREATE INDEX inverted_fast ON inverted USING gin (a)",
		"CREATE INDEX inverted_slow ON inverted USING gin (a) WITH (fastupdate = off)",
		"INSERT INTO inverted SELECT ARRAY[1, g % 10, g] FROM generate_series(1, 4000) g", "SELECT gin_clean_pending_list('inverted_fast')",
		"INSERT INTO inverted SELECT ARRAY[1, g] FROM generate_series(1, 200) g",
		"DELETE FROM inverted WHERE a[3] < 3500", "VACUUM inverted", "INSERT INTO inverted SELECT ARRAY[1, 2] FROM generate_series(1, 500) g", "VACUUM inverted",
	}},
	{0, []string{ // gist
		"CREATE TABLE boxes (a point, r int4range)", "CREATE INDEX boxes_a ON boxes USING gist (a)", "CREATE INDEX boxes_r ON boxes USING gist (r)",
		"INSERT INTO boxes SELECT point(g % 100, g / 100), int4range(g, g + 5) FROM generate_series(1, 4000) g",
		"DELETE FROM boxes WHERE a[0] < 60", "VACUUM boxes", "DELETE FROM boxes", "VACUUM boxes", "SELECT pg_current_xact_id()",
		"INSERT INTO boxes SELECT point(g % 100, g / 100), int4range(g, g + 5) FROM generate_series(1, 2000) g",
	}},
	{0, []string{ // spgist
		"CREATE TABLE spaced (a point, b text)", "CREATE INDEX spaced_a ON spaced USING spgist (a)", "CREATE INDEX spaced_b ON spaced USING spgist (b)",
		"INSERT INTO spaced SELECT point(g % 100, g / 100), repeat('a', g % 40) || g FROM generate_series(1, 4000) g",
		"INSERT INTO spaced SELECT point(1, 1), 'b' || chr(33 + g % 90) FROM generate_series(1, 400) g",
		"DELETE FROM spaced WHERE a[0] < 70", "VACUUM spaced", "INSERT INTO spaced SELECT point(g, g), 'x' || g FROM generate_series(1, 500) g", "VACUUM spaced",
		"DELETE FROM spaced", "VACUUM spaced",
	}},
	{0, []string{ // brin
		"CREATE TABLE ranged (a int, b text)", "CREATE INDEX ranged_a ON ranged USING brin (a) WITH (pages_per_range = 1, autosummarize = off)",
		"CREATE INDEX ranged_b ON ranged USING brin (b) WITH (pages_per_range = 1)",
		"INSERT INTO ranged SELECT g, repeat(chr(97 + g % 26), g % 200) FROM generate_series(1, 8000) g", "SELECT brin_summarize_new_values('ranged_a')",
		"SELECT brin_summarize_new_values('ranged_b')", "UPDATE ranged SET b = repeat('z', 300) WHERE a % 100 = 0",
		"SELECT brin_desummarize_range('ranged_a', 0)", "INSERT INTO ranged SELECT -g, repeat('é', 200) FROM generate_series(1, 2000) g", "VACUUM ranged",
	}},
	{0, []string{ // hash
		"CREATE TABLE hashed (a int)", "CREATE INDEX hashed_a ON hashed USING hash (a)", "INSERT INTO hashed SELECT generate_series(1, 6000)",
		"INSERT INTO hashed SELECT 7 FROM generate_series(1, 1000)", "DELETE FROM hashed WHERE a % 3 = 0 OR a = 7", "VACUUM hashed",
		"DELETE FROM hashed", "SET enable_seqscan = off", "SELECT count(*) FROM hashed WHERE a = 8", "RESET enable_seqscan", "VACUUM hashed",
	}},
	{0, []string{ // transactions
		"CREATE TABLE tx (a int)",
		"BEGIN; INSERT INTO tx VALUES (1); PREPARE TRANSACTION 'one'", "COMMIT PREPARED 'one'",
		"BEGIN; CREATE TABLE gone (a int); INSERT INTO tx VALUES (2); SAVEPOINT s; INSERT INTO tx VALUES (3); PREPARE TRANSACTION 'two'", "ROLLBACK PREPARED 'two'",
		"BEGIN; INSERT INTO tx VALUES (4); SAVEPOINT s; INSERT INTO tx VALUES (5); ROLLBACK TO s; CREATE TABLE never (a int PRIMARY KEY); ROLLBACK",
		"DO $$ BEGIN FOR i IN 1..200 LOOP BEGIN INSERT INTO tx VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$",
		"DO $$ BEGIN FOR i IN 1..34000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$",
		"BEGIN; ALTER TABLE tx ADD COLUMN b int DEFAULT 7; ALTER TABLE tx ALTER COLUMN a TYPE bigint; COMMIT",
		"SELECT pg_logical_emit_message(true, 'helios', 'in a transaction')", "SELECT pg_logical_emit_message(false, 'helios', repeat('long', 5000))",
		"SELECT pg_replication_origin_create('elsewhere')", "SELECT pg_replication_origin_session_setup('elsewhere')",
		"BEGIN; SELECT pg_replication_origin_xact_setup('0/1234', '2020-02-02 02:02:02+00'); INSERT INTO tx VALUES (9); COMMIT",
		"SELECT pg_replication_origin_advance('elsewhere2', '0/99') FROM (SELECT pg_replication_origin_create('elsewhere2')) s",
		"SELECT pg_replication_origin_session_reset()", "SELECT pg_replication_origin_drop('elsewhere2')",
	}},
	{0, []string{ // catalogs
		"CREATE TABLE catalogue (a int PRIMARY KEY, b text) WITH (user_catalog_table = true)", "INSERT INTO catalogue SELECT g, 'x' FROM generate_series(1, 100) g",
		"SELECT pg_create_logical_replication_slot('keeper', 'pgoutput')",
		"BEGIN; UPDATE catalogue SET b = 'y'; DELETE FROM catalogue WHERE a < 10; COMMIT", "VACUUM FULL catalogue", "VACUUM FULL pg_class",
		"SELECT pg_drop_replication_slot('keeper')",
		"CREATE DATABASE other", "DROP DATABASE other", "SET allow_in_place_tablespaces = on", "CREATE TABLESPACE elsewhere LOCATION ''",
		"CREATE TABLE placed (a int) TABLESPACE elsewhere", "INSERT INTO placed VALUES (1)", "ALTER TABLE placed SET TABLESPACE pg_default",
		"DROP TABLE placed", "DROP TABLESPACE elsewhere", "COMMENT ON TABLE tx IS 'comment'", "CREATE MATERIALIZED VIEW seen AS SELECT * FROM tx",
		"REFRESH MATERIALIZED VIEW seen", "DROP TABLE boxes, spaced",
	}},
	{15, []string{"CREATE DATABASE copied STRATEGY file_copy", "DROP DATABASE copied"}},
	{0, []string{ // the log itself
		"CHECKPOINT", "SELECT pg_create_restore_point('here')", "SELECT pg_switch_wal()", "UPDATE heap SET n = n + 1",
		"SET wal_compression = on", "CHECKPOINT", "UPDATE heap SET n = n + 1", "UPDATE tree SET b = 'c' WHERE a < 2000",
	}},
	{15, []string{"SET wal_compression = lz4", "CHECKPOINT", "UPDATE heap SET n = n + 1", "SET wal_compression = zstd", "CHECKPOINT", "UPDATE heap SET n = n + 1"}},
	{0, []string{
		"SET wal_compression = off", "SET wal_consistency_checking = 'heap'", "UPDATE heap SET n = n + 1 WHERE id < 200", "RESET wal_consistency_checking",
		"ALTER SYSTEM SET full_page_writes = off", "SELECT pg_reload_conf()", "CHECKPOINT", "ALTER SYSTEM RESET full_page_writes", "SELECT pg_reload_conf()", "CHECKPOINT",
		"SELECT count(*) FROM heap", // hints
	}},
}
