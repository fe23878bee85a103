package integration_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/internal/pgtest"
)

// settings are what a DSN may say about how the server writes and reads values.
var settings = [][]string{
	{"timezone=America/New_York"},
	{"timezone=Asia/Kathmandu", "datestyle=German"},
	{"timezone=<-03>03", "datestyle=SQL, DMY", "intervalstyle=sql_standard"},
	{"datestyle=Postgres, MDY", "intervalstyle=iso_8601", "bytea_output=escape"},
	{"datestyle=ISO, YMD", "intervalstyle=postgres_verbose", "xmlbinary=hex", "extra_float_digits=0"},
	{"extra_float_digits=-15", "array_nulls=off", "quote_all_identifiers=on"},
	{"options=-c timezone=Europe/Berlin -c lc_monetary=C", "client_encoding=SQL_ASCII"},
	{"client_encoding=LATIN1"},
	{"search_path=nowhere,public", "default_transaction_isolation=serializable"},
}

func TestSettingsOfTheDSNActAsInStdlib(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	pgtest.OK(t, c.Primary().Exec(ctx, specialTypes))
	for _, params := range settings {
		t.Run(strings.Join(params, " "), func(t *testing.T) {
			d := openBoth(t, c, params...)
			texts := known(t, ctx, d.ours, allExpressions())
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
				d.compare(t, ctx, texts, mode)
				for _, a := range arguments() {
					for typ := range strings.FieldsSeq(a.types) {
						if strings.Contains(a.name, "time") && typ != "text" || typ == "interval" {
							d.sameArgument(t, ctx, typ, a, mode)
						}
					}
				}
			}
		})
	}
}

// A timestamptz is a moment, shown in the program's zone whatever the server's
// is. What has no zone is in UTC.
func TestTimesAreInTheLocationsOfStdlib(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	d := openBoth(t, c, "timezone=Asia/Tokyo")
	query := "SELECT '2024-07-01 12:00+02'::timestamptz, '2024-07-01 12:00'::timestamp, '2024-07-01'::date"
	want := []any{
		time.Date(2024, 7, 1, 10, 0, 0, 0, time.UTC).Local(),
		time.Date(2024, 7, 1, 12, 0, 0, 0, time.UTC), time.Date(2024, 7, 1, 0, 0, 0, 0, time.UTC),
	}
	for _, mode := range execModes {
		for format, args := range formats() {
			got := ask(ctx, d.ours, query, append([]any{mode}, args...)...)
			if len(got.rows) != 1 || !same(got.rows[0], want) {
				t.Errorf("%s, %s: got %v %s, want %v", mode, format, got.rows, got.problem, want)
			}
			got.mustEqual(t, ask(ctx, d.theirs, query, append([]any{mode}, args...)...), []string{"timestamptz", "timestamp", "date"})
		}
	}
}

// Statements with state of the session are sent apart, and read like all others.
func TestRowsOfStatefulStatementsAreReadAsByStdlib(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	d := openBoth(t, c, "datestyle=German", "extra_float_digits=-15")
	const values = "'2024-02-29'::date AS day, '2024-02-29 12:00+00'::timestamptz AS at, 0.1::float8 / 3 AS third"
	for _, query := range []string{
		"SELECT pg_advisory_lock_shared(7)::text, " + values,
		"SELECT set_config('work_mem', '5MB', false), " + values,
		"WITH locked AS (SELECT pg_advisory_lock_shared(7)) SELECT " + values + " FROM locked",
		"VALUES ('2024-02-29'::date, pg_try_advisory_lock_shared(7), 0.1::float8 / 3)",
	} {
		for range 2 {
			got, want := ask(ctx, d.ours, query), ask(ctx, d.theirs, query)
			got.mustEqual(t, want, []string{query, query, query, query, query})
			if want.problem != "" {
				t.Errorf("%s: %s", query, want.problem)
			}
		}
	}
}
