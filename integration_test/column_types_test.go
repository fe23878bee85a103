package integration_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heliosdb/helios/internal/pgtest"
)

// firstUserOID is the first OID of what users make (FirstNormalObjectId).
const firstUserOID = 16384

// lastUserOID is beyond the OIDs of the types that these stories make.
const lastUserOID = 20000

// formats are what a program may ask of the columns of a result, as pgx's
// leading arguments.
func formats() map[string][]any {
	binary := pgx.QueryResultFormatsByOID{}
	for oid := range uint32(lastUserOID) {
		binary[oid] = pgx.BinaryFormatCode
	}
	return map[string][]any{
		"as usual":           nil,
		"text":               {pgx.QueryResultFormatsByOID{}},
		"binary":             {binary},
		"text by position":   {pgx.QueryResultFormats{pgx.TextFormatCode}},
		"binary by position": {pgx.QueryResultFormats{pgx.BinaryFormatCode}},
	}
}

// Programs that come from pgx's own driver find every value as they knew it,
// through a replica too.
func TestValuesAreReadAsByStdlib(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := pgtest.Context(t)
	d := openBoth(t, c)
	exec(t, ctx, d.ours, specialTypes)
	texts := known(t, ctx, d.ours, allExpressions())
	var seen []string
	for name, format := range formats() {
		for _, mode := range execModes {
			if name == "binary" && mode == pgx.QueryExecModeCacheDescribe {
				continue // to helios the same as DescribeExec, and slow: many types have no text then
			}
			t.Run(fmt.Sprintf("%s, %s", mode, name), func(t *testing.T) {
				columns := d.compare(t, ctx, texts, append([]any{mode}, format...)...)
				if name == "as usual" && len(columns) != len(texts) {
					t.Errorf("%d columns of %d could be read: is there a mistake in a sample?", len(columns), len(texts))
				}
				seen = append(seen, columns...)
			})
		}
	}
	mustHaveSeenAll(t, ctx, d, seen)
}

// A value that was handed out stays as it is while the next rows are read.
func TestRowsAreReadAsByStdlib(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	d := openBoth(t, c)
	version := value[int](t, ctx, d.ours, "SELECT current_setting('server_version_num')::int / 10000")
	for _, s := range samples {
		if s.since > version {
			continue
		}
		rows := []string{"(" + s.null() + ")"}
		for _, v := range slices.Concat(s.values, s.values) {
			rows = append(rows, "("+s.cast(v)+")")
		}
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
			query := "VALUES " + strings.Join(rows, ", ")
			got, want := ask(ctx, d.ours, query, mode), ask(ctx, d.theirs, query, mode)
			got.mustEqual(t, want, []string{s.name})
			if len(want.rows) != len(rows) {
				t.Errorf("%s: %d rows of %d: %s", s.name, len(want.rows), len(rows), want.problem)
			}
		}
	}
}

func allExpressions() []expression {
	all := slices.Clone(special)
	for _, s := range samples {
		all = append(all, s.expressions()...)
	}
	return all
}

// mustHaveSeenAll complains about types that pgx and the server know and that no
// column had.
func mustHaveSeenAll(t *testing.T, ctx context.Context, d drivers, seen []string) {
	names := map[string]bool{}
	for _, column := range seen {
		names[strings.Fields(column)[1]] = true
	}
	types := pgtype.NewMap()
	for oid := range uint32(firstUserOID) {
		known, ok := types.TypeForOID(oid)
		if !ok || oid == pgtype.UnknownOID { // which PostgreSQL gives as text
			continue
		}
		if !names[strings.ToUpper(known.Name)] && value[bool](t, ctx, d.ours, "SELECT EXISTS (SELECT FROM pg_type WHERE oid = $1)", oid) {
			t.Errorf("pgx knows %s: give it a sample", known.Name)
		}
	}
}
