package integration_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// decimal is a number as packages for them define it, with a codec for pgx.
type decimal struct{ text string }

// decimalCodec knows decimal, and what pgx's own codec knows.
type decimalCodec struct{ pgtype.NumericCodec }

// PlanEncode implements pgtype.Codec.
func (c decimalCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, ok := value.(decimal); ok && format == pgtype.TextFormatCode {
		return encodeDecimal{}
	}
	return c.NumericCodec.PlanEncode(m, oid, format, value)
}

// PreferredFormat implements pgtype.Codec.
func (decimalCodec) PreferredFormat() int16 { return pgtype.TextFormatCode }

type encodeDecimal struct{}

// Encode implements pgtype.EncodePlan.
func (encodeDecimal) Encode(value any, buf []byte) ([]byte, error) {
	return append(buf, value.(decimal).text...), nil
}

// negated is a codec for integers that turns their sign around, which nobody
// else would do.
type negated struct{ pgtype.Codec }

// PlanScan implements pgtype.Codec.
func (c negated) PlanScan(m *pgtype.Map, oid uint32, format int16, target any) pgtype.ScanPlan {
	plan := c.Codec.PlanScan(m, oid, format, target)
	switch target.(type) {
	case *int16, *int32, *int64:
		return negatedPlan{plan}
	default:
		return plan
	}
}

type negatedPlan struct{ pgtype.ScanPlan }

// Scan implements pgtype.ScanPlan.
func (p negatedPlan) Scan(src []byte, target any) error {
	if err := p.ScanPlan.Scan(src, target); err != nil {
		return err
	}
	switch n := target.(type) {
	case *int16:
		*n = -*n
	case *int32:
		*n = -*n
	case *int64:
		*n = -*n
	}
	return nil
}

// loaded are the types that LoadType finds, in an order in which it can.
var loaded = []string{
	"mood", "_mood", "posint", "_posint", "email", "day", "item", "_item", "floatrange", "_floatrange", "moodrange", "_moodrange",
	"floatmultirange", "moodmultirange",
}

// register makes types of the program's own known to a connection.
func register(ctx context.Context, conn *pgx.Conn) error {
	types := conn.TypeMap()
	for _, name := range loaded {
		var exists bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_type WHERE typname = $1)", name).Scan(&exists); err != nil {
			return err
		}
		if !exists { // PostgreSQL 13 has no multiranges
			continue
		}
		t, err := conn.LoadType(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		types.RegisterType(t)
	}
	for name, codec := range map[string]pgtype.Codec{
		"hstore": pgtype.HstoreCodec{}, "ltree": pgtype.LtreeCodec{}, "citext": pgtype.TextCodec{},
		"numeric": decimalCodec{}, "int2": negated{pgtype.Int2Codec{}}, "int4": negated{pgtype.Int4Codec{}},
		"timestamptz": &pgtype.TimestamptzCodec{ScanLocation: location("Asia/Kathmandu")},
		"timestamp":   &pgtype.TimestampCodec{ScanLocation: location("America/New_York")},
	} {
		var oid uint32
		if err := conn.QueryRow(ctx, "SELECT $1::text::regtype::oid", name).Scan(&oid); err != nil {
			return err
		}
		types.RegisterType(&pgtype.Type{Name: name, OID: oid, Codec: codec})
	}
	types.RegisterDefaultPgType(decimal{}, "numeric")
	types.RegisterDefaultPgType(myMood(""), "mood")
	types.RegisterDefaultPgType([]myMood{}, "_mood")
	return nil
}

// ownArguments are values of types that the program has registered.
func ownArguments() []argument {
	when := time.Date(2024, 7, 1, 12, 0, 0, 0, location("Asia/Tokyo"))
	return []argument{
		{"decimal", decimal{"1.50"}, "numeric text"},
		{"[]decimal", []decimal{{"1.50"}, {"-2"}}, "numeric[]"},
		{"pgtype.Numeric", pgtype.Numeric{NaN: true, Valid: true}, "numeric"},
		{"int", 7, "int2 int4 int8 numeric posint"},
		{"enum", myMood("happy"), "mood text"},
		{"string for an enum", "happy", "mood"},
		{"[]enum", []myMood{"sad", "happy"}, "mood[]"},
		{"[]string for enums", []string{"sad", "happy"}, "mood[]"},
		{"domain", int32(12), "posint"},
		{"[]int for domains", []int32{1, 2}, "posint[]"},
		{"outside of the domain", int32(-12), "posint"},
		{"time for a domain", when, "day"},
		{"time", when, "timestamp timestamptz date text"},
		{"composite", pgtype.CompositeFields{int32(1), `a "(`, []int32{1, 2}}, "item"},
		{"struct for a composite", struct {
			ID    int32
			Name  *string
			Parts []int32
		}{1, new("a"), nil}, "item"},
		{"nil composite", pgtype.CompositeFields(nil), "item"},
		{"[]composite", []pgtype.CompositeFields{{int32(1), "a", nil}, nil}, "item[]"},
		{"range of floats", pgtype.Range[float64]{Lower: 1.5, Upper: 2.5, LowerType: pgtype.Inclusive, UpperType: pgtype.Exclusive, Valid: true}, "floatrange"},
		{"range of enums", pgtype.Range[myMood]{Lower: "sad", LowerType: pgtype.Inclusive, UpperType: pgtype.Unbounded, Valid: true}, "moodrange"},
		{"[]range", []pgtype.Range[float64]{{LowerType: pgtype.Empty, UpperType: pgtype.Empty, Valid: true}}, "floatrange[]"},
		{"hstore", map[string]*string{"a": new("1"), "b": nil}, "hstore"},
		{"ltree", "a.b", "ltree"},
	}
}

func TestTypesOfTheProgramAreAsInStdlib(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	pgtest.OK(t, c.Primary().Exec(ctx, specialTypes))
	var prepared atomic.Int32
	ours, err := helios.Open(c.DSN(), helios.WithAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		defer prepared.Add(1)
		return register(ctx, conn)
	}))
	pgtest.OK(t, err)
	t.Cleanup(func() { pgtest.OK(t, ours.Close()) })
	config, err := pgx.ParseConfig(c.Primary().DSN())
	pgtest.OK(t, err)
	theirs := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(register))
	t.Cleanup(func() { theirs.Close() })
	d := drivers{ours, theirs}

	texts := known(t, ctx, ours, append(special, ownColumns...))
	d.sameTypes(t, ctx, texts)
	before := prepared.Load()
	leaveState(t, ctx, ours)
	await(t, "a session that was reset", func() bool { return prepared.Load() > before })
	d.sameTypes(t, ctx, texts)
}

// ownColumns are of types for which the program has a codec of its own.
var ownColumns = []expression{
	{"7::int2", 0},
	{"-7::int4", 0},
	{"7::int8", 0},
	{"'{1,-2}'::int4[]", 0},
	{"1.50::numeric", 0},
	{"'NaN'::numeric", 0},
	{"'{1.50,NULL}'::numeric[]", 0},
	{"'2024-07-01 12:00+00'::timestamptz", 0},
	{"'infinity'::timestamptz", 0},
	{"'{2024-07-01 12:00+00}'::timestamptz[]", 0},
	{"'2024-07-01 12:00'::timestamp", 0},
	{"'-infinity'::timestamp", 0},
	{"'[2024-07-01 12:00,2024-07-02 12:00)'::tsrange", 0},
}

// sameTypes compares values and arguments of the program's own types.
func (d drivers) sameTypes(t *testing.T, ctx context.Context, texts []string) {
	t.Helper()
	for _, mode := range execModes {
		for _, format := range formats() {
			d.compare(t, ctx, texts, append([]any{mode}, format...)...)
		}
		for _, a := range ownArguments() {
			for typ := range strings.FieldsSeq(a.types) {
				d.sameArgument(t, ctx, typ, a, mode)
			}
		}
	}
}

// leaveState makes the session's connection one that has to be reset.
func leaveState(t *testing.T, ctx context.Context, db *sql.DB) {
	t.Helper()
	session, err := db.Conn(ctx)
	pgtest.OK(t, err)
	exec(t, ctx, session, "SET DateStyle = 'German'")
	exec(t, ctx, session, "SET TimeZone = 'Asia/Tokyo'")
	pgtest.OK(t, session.Close())
}

// What a program registers in the middle of a session counts from then on, for
// statements that were prepared before as well, and ends with the session.
func TestATypeRegisteredInASessionCountsAtOnceAndThereOnly(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	d := openBoth(t, c)
	d.ours = open(t, c, "pool_max_conns=1")
	query := "SELECT '2024-07-01 12:00+00'::timestamptz"
	moment := time.Date(2024, 7, 1, 12, 0, 0, 0, time.UTC)
	for name, db := range map[string]*sql.DB{"helios": d.ours, "stdlib": d.theirs} {
		session, err := db.Conn(ctx)
		pgtest.OK(t, err)
		if got := value[any](t, ctx, session, query); !same(got, moment.Local()) {
			t.Errorf("%s: read %v at first, want %v", name, got, moment.Local())
		}
		pgtest.OK(t, session.Raw(func(driverConn any) error {
			conn := driverConn.(interface{ Conn() *pgx.Conn }).Conn()
			codec := &pgtype.TimestamptzCodec{ScanLocation: location("Asia/Tokyo")}
			conn.TypeMap().RegisterType(&pgtype.Type{Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: codec})
			return nil
		}))
		if got, want := value[any](t, ctx, session, query), moment.In(location("Asia/Tokyo")); !same(got, want) {
			t.Errorf("%s: read %v with a codec of its own, want %v", name, got, want)
		}
		pgtest.OK(t, session.Close())
	}
	if got := value[any](t, ctx, d.ours, query); !same(got, moment.Local()) {
		t.Errorf("the next session reads %v, want %v", got, moment.Local())
	}
}
