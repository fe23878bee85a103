package integration_test

import (
	"fmt"
	"slices"
	"strings"
)

// sample has values of one of PostgreSQL's own types, as literals.
type sample struct {
	name   string // in pg_type
	since  int    // the first major version that has the type
	values []string
}

// samples have every type that pgx knows and the server has, and those that pgx
// does not know but programs may read.
var samples = []sample{
	{"bool", 0, []string{"t", "f"}},
	{"int2", 0, []string{"7", "0", "-32768", "32767"}},
	{"int4", 0, []string{"-7", "-2147483648", "2147483647"}},
	{"int8", 0, []string{"7", "-9223372036854775808", "9223372036854775807"}},
	{"oid", 0, []string{"7", "4294967295"}},
	{"xid", 0, []string{"1", "4294967295"}},
	{"cid", 0, []string{"0", "4294967295"}},
	{"xid8", 13, []string{"1", "18446744073709551615"}},
	{"oid8", 19, []string{"1", "18446744073709551615"}},
	{"tid", 0, []string{"(0,1)", "(4294967295,65535)"}},
	{"float4", 0, []string{"1.5", "0.1", "-0", "NaN", "Infinity", "-Infinity", "3.4028235e38", "1e-45"}},
	{"float8", 0, []string{"-2.25", "0.1", "-0", "NaN", "Infinity", "-Infinity", "1.7976931348623157e308", "5e-324"}},
	{"numeric", 0, []string{
		"12345678901234567890.123456789", "0", "0.000", "-0.001", "NaN", "1.10", "1e-30", "1e30", "10000", "99999999", "0.00001234",
		strings.Repeat("9", 400) + "." + strings.Repeat("1", 400), "-1" + strings.Repeat("0", 1000),
	}},
	{"money", 0, []string{"1.50", "-92233720368547758.08"}},
	{"text", 0, []string{"text", "", "naïve ☃ 𝄞", "null", "a'b\"c\\d", "line\nline\ttab", "{1,2}", strings.Repeat("long ", 5000)}},
	{"varchar", 0, []string{"varchar", "", "☃"}},
	{"bpchar", 0, []string{"char  ", ""}},
	{"name", 0, []string{"name", ""}},
	{"char", 0, []string{"c", ""}},
	{"unknown", 0, []string{"unknown"}},
	{"cstring", 0, []string{"c string"}},
	{"bytea", 0, []string{`\x00ff10`, `\x`, `\x616263`}},
	{"date", 0, []string{"2024-02-29", "infinity", "-infinity", "0044-03-15 BC", "0001-01-01", "4713-01-01 BC", "9999-12-31", "5874897-12-31"}},
	{"time", 0, []string{"12:34:56.789", "00:00", "24:00", "23:59:59.999999"}},
	{"timetz", 0, []string{"12:34:56+02", "12:34:56.789-15:59:59"}},
	{"timestamp", 0, []string{
		"2024-02-29 12:34:56.789012", "infinity", "-infinity", "0044-03-15 12:00 BC", "294276-12-31 23:59:59.999999", "4713-01-01 BC",
		"2024-03-31 02:30", "1970-01-01",
	}},
	{"timestamptz", 0, []string{
		"2024-02-29 12:34:56.789012+02", "infinity", "-infinity", "0044-03-15 12:00+00 BC", "294276-12-31 23:59:59.999999+00",
		"2024-03-31 01:30:00+00", "2024-10-27 01:30:00+00", "1900-01-01 00:00:00+00", "1970-01-01 00:00:00+00",
	}},
	{"interval", 0, []string{"1 year 2 mons 3 days 04:05:06.789", "-00:00:01", "0", "-1 mon +1 day -00:00:00.000001", "178000000 years"}},
	{"uuid", 0, []string{"00010203-0405-0607-0809-0a0b0c0d0e0f", "00000000-0000-0000-0000-000000000000"}},
	{"json", 0, []string{`{"a": [1, null]}`, "null", `"text"`, "1.50", "[]", `{"a":1,  "a":2}`}},
	{"jsonb", 0, []string{`{"b": 1, "a": [1, null]}`, "null", `"text"`, "1.50", "[]", "true", "9007199254740993"}},
	{"jsonpath", 0, []string{"$.a[*] ? (@ > 1)"}},
	{"xml", 0, []string{"<a/>", "text", "<a b=\"c\">☃</a>"}},
	{"inet", 0, []string{"192.168.0.1", "::1/128", "10.1.2.3/8", "fe80::1/64"}},
	{"cidr", 0, []string{"192.168.0.0/24", "::/0"}},
	{"macaddr", 0, []string{"08:00:2b:01:02:03"}},
	{"macaddr8", 0, []string{"08:00:2b:01:02:03:04:05"}},
	{"point", 0, []string{"(1.5,-2)", "(NaN,Infinity)"}},
	{"line", 0, []string{"{1,-2,3.5}"}},
	{"lseg", 0, []string{"[(1,2),(3,4)]"}},
	{"box", 0, []string{"(3,4),(1,2)"}},
	{"path", 0, []string{"((1,2),(3,4))", "[(1,2),(3,4)]"}},
	{"polygon", 0, []string{"((1,2),(3,4),(5,6))"}},
	{"circle", 0, []string{"<(1,2),3.5>"}},
	{"bit", 0, []string{"101", "1", "1111111111"}},
	{"varbit", 0, []string{"10101", "", "11111111", "111111110"}},
	{"tsvector", 0, []string{"a:1A fat:2B,4 cat", "", "'it''s' '\\\\'"}},
	{"tsquery", 0, []string{"a & b | !c", ""}},
	{"int4range", 0, []string{"[1,5)", "empty", "(,)", "[,3)"}},
	{"int8range", 0, []string{"[1,5)", "empty", "(,)"}},
	{"numrange", 0, []string{"[1.5,2.25]", "(,7)", "empty"}},
	{"daterange", 0, []string{"[2024-01-01,2024-02-29)", "[infinity,infinity]", "(,)"}},
	{"tsrange", 0, []string{`["2024-01-01 00:00","2024-02-29 12:00")`, "(,infinity)"}},
	{"tstzrange", 0, []string{`["2024-01-01 00:00+02","2024-02-29 12:00-07")`, "(,)"}},
	{"int4multirange", 14, []string{"{[1,5),[7,9)}", "{}"}},
	{"int8multirange", 14, []string{"{[1,5),[7,9)}", "{}"}},
	{"nummultirange", 14, []string{"{[1.5,2.5),(,1)}", "{}"}},
	{"datemultirange", 14, []string{"{[2024-01-01,2024-02-29)}", "{}"}},
	{"tsmultirange", 14, []string{`{["2024-01-01 00:00","2024-02-29 12:00")}`, "{}"}},
	{"tstzmultirange", 14, []string{`{["2024-01-01 00:00+02","2024-02-29 12:00-07")}`, "{}"}},
	{"aclitem", 0, []string{"=r/postgres"}},
	{"pg_lsn", 0, []string{"16/B374D848", "0/0"}},
	{"pg_snapshot", 13, []string{"10:20:10,14,15"}},
	{"txid_snapshot", 0, []string{"10:20:10,14,15"}},
	{"refcursor", 0, []string{"cursor"}},
	{"int2vector", 0, []string{"1 2 3"}},
	{"oidvector", 0, []string{"1 2 3"}},
	{"regclass", 0, []string{"pg_class", "0"}},
	{"regtype", 0, []string{"int4"}},
	{"regproc", 0, []string{"now"}},
	{"regprocedure", 0, []string{"now()"}},
	{"regoper", 0, []string{"||/"}},
	{"regoperator", 0, []string{"+(int4,int4)"}},
	{"regrole", 0, []string{"postgres"}},
	{"regnamespace", 0, []string{"pg_catalog"}},
	{"regconfig", 0, []string{"english"}},
	{"regdictionary", 0, []string{"simple"}},
	{"regcollation", 13, []string{`"C"`}},
}

// withoutArray are the samples that make no array.
var withoutArray = []string{"int2vector", "oidvector", "unknown", "cstring"}

// cast returns a literal as a value of the type.
func (s sample) cast(literal string) string {
	return fmt.Sprintf(`'%s'::pg_catalog.%q`, strings.ReplaceAll(literal, "'", "''"), s.name)
}

// null returns the type's NULL.
func (s sample) null() string { return fmt.Sprintf(`NULL::pg_catalog.%q`, s.name) }

// expressions returns the values of the type, its NULL, and arrays of all that.
func (s sample) expressions() (all []expression) {
	array := []string{s.null()}
	for _, v := range s.values {
		array = append(array, s.cast(v))
	}
	for _, value := range array {
		all = append(all, expression{value, s.since})
	}
	if !slices.Contains(withoutArray, s.name) {
		all = append(all,
			expression{"ARRAY[" + strings.Join(array, ", ") + "]", s.since},
			expression{fmt.Sprintf("ARRAY[ARRAY[%s], ARRAY[%[1]s]]", s.cast(s.values[0])), s.since},
			expression{fmt.Sprintf(`'{}'::pg_catalog.%q[]`, s.name), s.since},
			expression{fmt.Sprintf(`NULL::pg_catalog.%q[]`, s.name), s.since})
	}
	return all
}

// special are expressions that are more than a literal of one of PostgreSQL's
// own types.
var special = []expression{
	{"7", 0},
	{"7.5", 0},
	{"'text'", 0},
	{"NULL", 0},
	{"true", 0},
	{"1.10::numeric(10, 2)", 0},
	{"1.10::numeric(1000, 500)", 0},
	{"'varchar'::varchar(20)", 0},
	{"'varchar'::varchar(2)", 0},
	{"'char'::char(8)", 0},
	{"'c'::char", 0},
	{"B'101'", 0},
	{"B'101'::bit(3)", 0},
	{"B'101'::bit varying(5)", 0},
	{"'2024-02-29 12:34:56.789'::timestamp(1)", 0},
	{"'2024-02-29 12:34:56.789'::timestamptz(0)", 0},
	{"'12:34:56.789'::time(1)", 0},
	{"'1 day 01:02:03'::interval day to minute", 0},
	{"'Infinity'::numeric", 14},
	{"'-Infinity'::numeric", 14},
	{"'{Infinity,-Infinity,NaN}'::numeric[]", 14},
	{"12345::numeric(3, -2)", 15},
	{"'infinity'::interval", 17},
	{"'-infinity'::interval", 17},
	{"ROW()", 0},
	{"ROW(1, 'x', NULL)", 0},
	{"ROW(1, ROW(2, '(,\"'))", 0},
	{"NULL::record", 0},
	{"ARRAY[ROW(1, 'x'), NULL]", 0},
	{"ARRAY[ROW(1.5::numeric, '{1,2}'::int4[], '2024-02-29'::date)]", 0},
	{"pg_sleep(0)", 0}, // void
	{"(SELECT histogram_bounds FROM pg_stats WHERE false)", 0},
	{"'[2:3][0:1]={{1,2},{3,4}}'::int4[]", 0},
	{`'{"a","b,c",NULL,"NULL","","\"","\\"}'::text[]`, 0},
	{"'happy'::mood", 0},
	{"NULL::mood", 0},
	{"'{sad,NULL,happy}'::mood[]", 0},
	{"12::posint", 0},
	{"NULL::posint", 0},
	{"'{1,NULL}'::posint[]", 0},
	{"'a@b.example'::email", 0},
	{"'2024-02-29'::day", 0},
	{"ROW(1, 'a (\"b\"', '{1,2}')::item", 0},
	{"NULL::item", 0},
	{"ARRAY[ROW(1, 'a', NULL)::item, NULL]", 0},
	{"'[1.5,2.5]'::floatrange", 0},
	{"'[sad,happy]'::moodrange", 0},
	{"'{[1.5,2.5]}'::floatmultirange", 14},
	{"(SELECT postgres FROM postgres)", 0},
	{"'postgres'::regclass", 0},
	{"'a=>1, b=>NULL, \"c d\"=>\"\\\"\"'::hstore", 0},
	{"''::hstore", 0},
	{"'a.b.c'::ltree", 0},
	{"'*.b{1,}.!c'::lquery", 0},
	{"'a & b*'::ltxtquery", 0},
	{"'CiText'::citext", 0},
	{"ARRAY['a=>1'::hstore]", 0},
	{"ARRAY['a.b'::ltree, NULL]", 0},
	{"ARRAY['CiText'::citext]", 0},
}

// specialTypes make the types of special. A server without contrib gets domains
// in the place of its types.
const specialTypes = `
	CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
	CREATE DOMAIN posint AS int CHECK (VALUE > 0);
	CREATE DOMAIN email AS varchar(40) CHECK (VALUE LIKE '%@%');
	CREATE DOMAIN day AS date NOT NULL;
	CREATE TYPE item AS (id int, name text, parts int[]);
	CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
	CREATE TYPE moodrange AS RANGE (subtype = mood);
	CREATE TABLE postgres (n int, item item);
	INSERT INTO postgres VALUES (1, ROW(1, 'x', '{}'));
	DO $$
	BEGIN
		IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'ltree') THEN
			CREATE EXTENSION hstore;
			CREATE EXTENSION ltree;
			CREATE EXTENSION citext;
		ELSE
			CREATE DOMAIN hstore AS text;
			CREATE DOMAIN ltree AS text;
			CREATE DOMAIN lquery AS text;
			CREATE DOMAIN ltxtquery AS text;
			CREATE DOMAIN citext AS text;
		END IF;
	END $$;`
