package integration_test

import (
	"database/sql"
	"fmt"
	"reflect"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver to compare with

	"github.com/heliosdb/helios/internal/pgtest"
)

// columns are expressions, each of one type that programs use.
var columns = []string{
	"7::int2", "-7::int4", "9223372036854775807::int8", "7::oid",
	"1.5::float4", "-2.25::float8", "'NaN'::float8", "'Infinity'::float8", "'-Infinity'::float4",
	"12345678901234567890.123456789::numeric", "1.10::numeric(10, 2)", "'NaN'::numeric", "0::numeric", "-0.001::numeric",
	"'text'::text", "''::text", "'naïve ☃'::text", "'varchar'::varchar(20)", "'char'::char(8)", "'c'::\"char\"", "'name'::name",
	"'\\x00ff10'::bytea", "''::bytea", "true", "false",
	"'2024-02-29'::date", "'infinity'::date", "'0044-03-15 BC'::date",
	"'2024-02-29 12:34:56.789012'::timestamp", "'2024-02-29 12:34:56.789012+02'::timestamptz", "'infinity'::timestamptz",
	"'12:34:56.789'::time", "'12:34:56+02'::timetz",
	"'1 year 2 mons 3 days 04:05:06.789'::interval", "'-00:00:01'::interval",
	"'{\"a\": [1, null]}'::json", "'{\"b\": 1, \"a\": [1, null]}'::jsonb", "'null'::jsonb", "'\"text\"'::jsonb",
	"'00010203-0405-0607-0809-0a0b0c0d0e0f'::uuid",
	"'192.168.0.1'::inet", "'192.168.0.0/24'::cidr", "'::1/128'::inet", "'08:00:2b:01:02:03'::macaddr",
	"'{1,2,NULL}'::int4[]", "'{}'::int8[]", "'{{1,2},{3,4}}'::int2[]", "'{\"a\",\"b,c\",NULL}'::text[]", "'{1.5,NULL}'::numeric[]",
	"'{t,f}'::bool[]", "'{2024-02-29}'::date[]", "'{00010203-0405-0607-0809-0a0b0c0d0e0f}'::uuid[]",
	"'[1,5)'::int4range", "'empty'::int4range", "'(1,2)'::point", "'101'::bit(3)", "'10101'::varbit", "'<a/>'::xml", "'a & b'::tsquery",
	"'$1.50'::money", "ROW(1, 'x')", "'happy'::mood", "'postgres'::regclass", "12::posint", "pg_lsn '16/B374D848'", "'1'::xid",
	"NULL::int4", "NULL::text", "NULL::timestamptz", "NULL::jsonb", "NULL::bytea", "NULL::uuid", "NULL::int4[]", "NULL",
}

// Programs that come from pgx's own driver find every value as they knew it.
func TestValuesAreScannedAsByStdlib(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := pgtest.Context(t)
	ours := open(t, c)
	theirs, err := sql.Open("pgx", c.Primary().DSN())
	pgtest.OK(t, err)
	t.Cleanup(func() { theirs.Close() })
	exec(t, ctx, ours, "CREATE TYPE mood AS ENUM ('sad', 'happy')")
	exec(t, ctx, ours, "CREATE DOMAIN posint AS int CHECK (VALUE > 0)")
	exec(t, ctx, ours, "CREATE TABLE postgres (n int)")

	for _, column := range columns {
		t.Run(column, func(t *testing.T) {
			query := "SELECT " + column + " AS v"
			for _, dest := range []func() any{
				func() any { return new(any) },
				func() any { return new(string) },
				func() any { return new(sql.NullString) },
				func() any { return new([]byte) },
				func() any { return new(sql.RawBytes) },
				func() any { return new(int64) },
				func() any { return new(float64) },
				func() any { return new(bool) },
				func() any { return new(sql.NullTime) },
			} {
				got, want := scan(t, ours, query, dest()), scan(t, theirs, query, dest())
				if !reflect.DeepEqual(got, want) {
					t.Errorf("into %T: got %+v, stdlib has %+v", dest(), got, want)
				}
			}
		})
	}
}

// scanned is what a program sees of one value.
type scanned struct {
	value    string
	failed   bool
	name     string
	typeName string
	goType   reflect.Type
	length   int64
	isLong   bool
	digits   [2]int64
	isExact  bool
}

// scan reads the one value of a query into dest.
func scan(t *testing.T, db *sql.DB, query string, dest any) (s scanned) {
	t.Helper()
	rows, err := db.QueryContext(pgtest.Context(t), query)
	pgtest.OK(t, err)
	defer rows.Close()
	types, err := rows.ColumnTypes()
	pgtest.OK(t, err)
	s.name, s.typeName, s.goType = types[0].Name(), types[0].DatabaseTypeName(), types[0].ScanType()
	s.length, s.isLong = types[0].Length()
	s.digits[0], s.digits[1], s.isExact = types[0].DecimalSize()
	if !rows.Next() {
		t.Fatalf("%s: no row: %v", query, rows.Err())
	}
	s.failed = rows.Scan(dest) != nil
	s.value = printed(dest)
	pgtest.OK(t, rows.Close())
	return s
}

// printed returns a value with its type, as NaN is not equal to itself.
func printed(dest any) string {
	return fmt.Sprintf("%T %#[1]v", reflect.ValueOf(dest).Elem().Interface())
}
