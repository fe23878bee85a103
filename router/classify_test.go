package router_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/heliosdb/helios/router"
)

func TestFlagsTellWhatAStatementLeavesBehind(t *testing.T) {
	const tx, voids, sets, state, prepared = "tx ", "voids ", "sets ", "state ", "prepared "
	for sql, want := range map[string]string{
		"SELECT 1":                            "",
		"UPDATE t SET a = lower(b)":           "",
		"INSERT INTO t (a) VALUES (app.f(1))": sets,
		"INSERT INTO t AS x (a) VALUES (1)":   "",
		"SELECT app.f(1)":                     sets,
		"BEGIN":                               tx,
		"SELECT 1; COMMIT":                    tx,
		"PREPARE TRANSACTION 'x'":             tx + state + prepared,
		"COMMIT PREPARED 'x'":                 tx,
		"SET LOCAL SESSION AUTHORIZATION x":   voids + sets + state,
		"SET LOCAL TRANSACTION READ ONLY":     tx + sets + state,

		"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY":    sets + state,
		"CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION f()": voids,
		"SET TRANSACTION READ ONLY":                               tx + sets + state,
		"SET LOCAL synchronous_commit = off":                      sets + state,
		"SET search_path = app":                                   voids + sets + state,
		"SET LOCAL search_path = app":                             voids + sets + state,
		"SET SESSION AUTHORIZATION x":                             voids + sets + state,
		"SET ROLE x":                                              voids + sets + state,
		"RESET ALL":                                               voids + sets + state,
		"RESET work_mem":                                          sets + state,
		"SELECT set_config('a.b', 'c', true)":                     sets + state,
		"UPDATE t SET a = lo_open(1, 2)":                          state,
		"UPDATE t SET a = set_config('a.b', 'c', true)":           sets + state,
		"CREATE TABLE x (a numeric(1, 2))":                        voids,
		"CREATE TEMP TABLE x (a int)":                             voids + state,
		"DROP TABLE x":                                            voids,
		"ALTER TABLE x ADD y int":                                 voids,
		"VACUUM":                                                  "",
		"DISCARD ALL":                                             voids + sets + state + prepared,
		"DEALLOCATE p":                                            voids + state + prepared,
		"PREPARE p AS SELECT 1":                                   state + prepared,
		"EXECUTE p":                                               sets + state,
		"DO 'BEGIN END'":                                          voids + sets,
		"CALL p()":                                                sets,
		"LISTEN x":                                                state,
		"SELECT pg_advisory_lock(1) FROM t FOR UPDATE":            state,
		"INSERT INTO t VALUES (1); SET ROLE x; END":               tx + voids + sets + state,
	} {
		s := router.Classify(sql)
		var got strings.Builder
		for _, flag := range []struct {
			set  bool
			name string
		}{{s.TxControl, tx}, {s.Invalidates, voids}, {s.SetsLocal, sets}, {s.UsesState, state}, {s.Deallocates, prepared}} {
			if flag.set {
				got.WriteString(flag.name)
			}
		}
		if got.String() != want {
			t.Errorf("flags of Classify(%q) = %q, want %q", sql, got.String(), want)
		}
	}
}

func TestUnknownFunctionsAreNamedAsTheCatalogHasThem(t *testing.T) {
	for name, tt := range map[string]struct {
		sql  string
		want []string
	}{
		"plain and folded":              {"SELECT MyFunc(1), other(2)", []string{"myfunc", "other"}},
		"with a schema":                 {"SELECT App . /* c */ F(1)", []string{"app.f"}},
		"quoted":                        {`SELECT "App"."F"(1)`, []string{"App.F"}},
		"quoted with a dot":             {`SELECT "a.b"(1)`, []string{`"a.b"`}},
		"in another schema":             {"SELECT public.now()", []string{"public.now"}},
		"none in pg_catalog":            {"SELECT pg_catalog.now()", nil},
		"none in a type":                {"SELECT a::app.money(3), CAST(b AS app.kind(1)) FROM t", nil},
		"none in an alias":              {"SELECT * FROM t x (a), (VALUES (1)) AS y (b), f1.t z(c)", nil},
		"none in a list of WITH":        {"WITH a (x) AS (SELECT 1), b (y) AS (SELECT 2) SELECT 1", nil},
		"none if it writes anyway":      {"INSERT INTO t VALUES (f(1))", nil},
		"none if there is a lock":       {"SELECT f(1) FROM t FOR UPDATE", nil},
		"none for several statements":   {"SELECT f(1); SELECT 1", nil},
		"eight":                         {"SELECT a1(), a2(), a3(), a4(), a5(), a6(), a7(), a8()", []string{"a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8"}},
		"nine are too many to be asked": {"SELECT a1(), a2(), a3(), a4(), a5(), a6(), a7(), a8(), a9()", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := router.Classify(tt.sql).Functions; !slices.Equal(got, tt.want) {
				t.Errorf("Classify(%q).Functions = %q, want %q", tt.sql, got, tt.want)
			}
		})
	}
}

func TestOnlyALeadingCommentIsAHint(t *testing.T) {
	for sql, want := range map[string]router.Hint{
		"SELECT 1":                                           router.HintNone,
		"/* helios:primary */ SELECT 1":                      router.HintPrimary,
		"/*helios:replica*/SELECT 1":                         router.HintReplica,
		"-- helios:primary\nSELECT 1":                        router.HintPrimary,
		"--helios:replica\r\nSELECT 1":                       router.HintReplica,
		" \n/* app */ /* helios:replica */ SELECT 1":         router.HintReplica,
		"/* helios:replica */ /* helios:primary */ SELECT 1": router.HintPrimary,
		"SELECT /* helios:primary */ 1":                      router.HintNone,
		"SELECT 1 /* helios:primary */":                      router.HintNone,
		"SELECT 1 -- helios:primary":                         router.HintNone,
		"SELECT '/* helios:primary */'":                      router.HintNone,
		"/* /* helios:primary */ */ SELECT 1":                router.HintNone,
		"/* helios:primary, please */ SELECT 1":              router.HintNone,
		"; /* helios:primary */ SELECT 1":                    router.HintNone,
		"/* helios:primary":                                  router.HintNone,
		"/*":                                                 router.HintNone,
	} {
		if got := router.Classify(sql).Hint; got != want {
			t.Errorf("Classify(%q).Hint = %v, want %v", sql, got, want)
		}
	}
}

func TestStatementsAreCountedAndNamed(t *testing.T) {
	for sql, want := range map[string]struct {
		count int
		verb  string
	}{
		"":                             {0, ""},
		" ;; /* nothing */ ; -- more":  {0, ""},
		"select 1":                     {1, "SELECT"},
		"select 1; -- more":            {1, "SELECT"},
		"((values (1)))":               {1, "VALUES"},
		"with x as (select 1) table x": {1, "WITH"},
		"explain analyze insert into t values (1)": {1, "EXPLAIN"},
		"insert into t values (1); delete from t;": {2, "INSERT"},
		"select ';', $$;$$, \";\" from t /* ; */":  {1, "SELECT"},
		"frobnicate": {1, ""},
		"analyse t":  {1, "ANALYZE"},
		"create rule r as on insert to t do (delete from a; delete from b)":                           {1, "CREATE"},
		"create function f() returns int begin atomic select case 1 when 1 then 2 end; end; select 1": {2, "CREATE"},
		"create or replace procedure f() begin atomic select 1; end":                                  {1, "CREATE"},
		"create table begin (atomic int); select 1":                                                   {2, "CREATE"},
	} {
		s := router.Classify(sql)
		if s.Count != want.count || s.Verb != want.verb {
			t.Errorf("Classify(%q): %d statements, verb %q, want %d, %q", sql, s.Count, s.Verb, want.count, want.verb)
		}
	}
}

func TestReasonsAreForPeople(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT 1":                                   "pure read",
		"SELECT * FROM t FOR NO KEY UPDATE":          "FOR UPDATE",
		"SELECT nextval('s')":                        "function nextval",
		"SELECT app.f(1)":                            "function app.f is not known",
		"WITH x AS (DELETE FROM t) SELECT 1":         "data-modifying WITH",
		"SELECT * INTO x FROM t":                     "SELECT INTO",
		"VACUUM":                                     "VACUUM",
		"SELECT 1; DELETE FROM t":                    "several statements: DELETE",
		"CREATE TEMP TABLE x (a int)":                "temporary object",
		"UPDATE t SET a = pg_advisory_lock(1)::text": "function pg_advisory_lock",
		"MUMBLE": "unknown statement",
	} {
		if got := router.Classify(sql).Reason; got != want {
			t.Errorf("Classify(%q).Reason = %q, want %q", sql, got, want)
		}
	}
}

func TestDeepParenthesesGoToThePrimary(t *testing.T) {
	for depth, want := range map[int]router.Class{10: router.Read, 60: router.Read, 64: router.Write, 10_000: router.Write} {
		sql := "SELECT " + strings.Repeat("(", depth) + "1" + strings.Repeat(")", depth)
		if got := router.Classify(sql).Class; got != want {
			t.Errorf("class of %d parentheses = %v, want %v", depth, got, want)
		}
	}
}

func TestNoFunctionHasTwoEffects(t *testing.T) {
	seen := make(map[string]uint8)
	for effect, names := range router.Groups() {
		for _, name := range names {
			if other, twice := seen[name]; twice && other != effect {
				t.Errorf("function %s has the effects %b and %b", name, other, effect)
			}
			seen[name] = effect
			if name != strings.ToLower(name) {
				t.Errorf("function %s is not in lower case", name)
			}
		}
	}
	t.Logf("%d functions", len(seen))
}

func TestClassAndHintHaveNames(t *testing.T) {
	for got, want := range map[string]string{
		router.Read.String(): "read", router.Write.String(): "write", router.Utility.String(): "utility",
		router.Session.String(): "session", router.Class(9).String(): "Class(9)",
		router.HintNone.String(): "none", router.HintPrimary.String(): "primary",
		router.HintReplica.String(): "replica", router.Hint(9).String(): "Hint(9)",
	} {
		if got != want {
			t.Errorf("String() = %q, want %q", got, want)
		}
	}
}

// ormQuery is what an object-relational mapper sends for a page of a list.
const ormQuery = `SELECT "users"."id", "users"."name", "users"."email" FROM "users" ` +
	`WHERE "users"."deleted_at" IS NULL AND age > $1 ORDER BY "users"."id" DESC LIMIT 20`

func TestClassifyAllocatesTheStatementOnly(t *testing.T) {
	for _, sql := range []string{ormQuery, "SELECT nextval('s')", "WITH x AS (UPDATE t SET a = lower(b) RETURNING a) SELECT * FROM x"} {
		if n := testing.AllocsPerRun(100, func() { router.Classify(sql) }); n > 1 {
			t.Errorf("Classify(%q) allocates %v times, want once", sql, n)
		}
	}
}

func BenchmarkClassify(b *testing.B) {
	for name, sql := range map[string]string{
		"text=key":    "SELECT * FROM users WHERE id = $1",
		"text=orm":    ormQuery,
		"text=update": "UPDATE users SET name = $1, email = $2, updated_at = now() WHERE id = $3 AND deleted_at IS NULL",
		"text=with":   "WITH x AS (SELECT user_id, sum(total) FROM orders GROUP BY 1) SELECT u.id, x.sum FROM users u JOIN x ON x.user_id = u.id WHERE lower(u.name) = $1",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(sql)))
			for b.Loop() {
				router.Classify(sql)
			}
		})
	}
}
