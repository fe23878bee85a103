package integration_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgtype/zeronull"

	"github.com/heliosdb/helios/internal/pgtest"
)

// parameterTypes are what every argument is passed for, fit or not.
var parameterTypes = strings.Fields(`
	bool int4 int8 oid numeric float8 text bytea json jsonb date timestamptz interval uuid inet macaddr point varbit
	int4range mood item hstore int4[] text[]`)

// argument is a value that programs pass, and the types they pass it for.
type argument struct {
	name  string
	value any
	types string
}

// Types that programs pass.
type (
	byValue    struct{ v any }    // a driver.Valuer
	byPointer  struct{ v string } // its pointer is a driver.Valuer
	valuedInt  int                // an int that is a driver.Valuer
	valuedUUID [16]byte           // as packages for UUIDs define it
	named      int                // a fmt.Stringer
	namedText  struct{ s string } // a fmt.Stringer
	marshaled  struct{ s string } // an encoding.TextMarshaler
	document   struct {
		Name string `json:"name"`
		Tags []int  `json:"tags,omitempty"`
	}
	ownJSON struct{ n int }      // a json.Marshaler
	pair    struct{ A, B int32 } // nothing in particular
)

var errNoValue = errors.New("no value")

func (v byValue) Value() (driver.Value, error) {
	if err, ok := v.v.(error); ok {
		return nil, err
	}
	return v.v, nil
}

func (v *byPointer) Value() (driver.Value, error) {
	if v == nil {
		return "from a nil pointer", nil
	}
	return "pointed " + v.v, nil
}
func (v valuedInt) Value() (driver.Value, error)  { return int64(v) * 10, nil }
func (v valuedUUID) Value() (driver.Value, error) { return v.String(), nil }
func (v valuedUUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", v[:4], v[4:6], v[6:8], v[8:10], v[10:])
}
func (v named) String() string                   { return fmt.Sprintf("number %d", int(v)) }
func (v namedText) String() string               { return v.s }
func (v marshaled) MarshalText() ([]byte, error) { return []byte("marshaled " + v.s), nil }
func (v ownJSON) MarshalJSON() ([]byte, error)   { return fmt.Appendf(nil, `{"n": %d}`, v.n), nil }

func location(name string) *time.Location {
	l, err := time.LoadLocation(name)
	if err != nil {
		panic(err)
	}
	return l
}

// arguments are what Go programs pass.
func arguments() []argument {
	moment := time.Date(2024, 2, 29, 12, 34, 56, 789_012_345, time.UTC)
	id := [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	const numbers, times, texts = "int2 int4 int8 numeric float8 text", "date time timestamp timestamptz text", "text varchar name json jsonb"
	return []argument{
		{"int", 7, numbers},
		{"negative int", -7, numbers + " oid"},
		{"int8", int8(-8), numbers},
		{"int16", int16(16), numbers},
		{"int32", int32(math.MaxInt32), numbers},
		{"int64", int64(math.MinInt64), numbers},
		{"uint", uint(7), numbers},
		{"uint8", uint8(255), numbers},
		{"uint16", uint16(65535), numbers},
		{"uint32", uint32(math.MaxUint32), numbers + " oid xid"},
		{"uint64", uint64(math.MaxUint64), numbers},
		{"rune", '☃', "text int4 \"char\""},
		{"float32", float32(1.5), numbers},
		{"float64", 0.1, numbers},
		{"whole float64", 3.0, numbers},
		{"huge float64", 1e300, numbers},
		{"NaN", math.NaN(), numbers},
		{"infinity", math.Inf(-1), numbers},
		{"true", true, "bool text int4"},
		{"false", false, "bool text"},

		{"string", "text", texts + " bytea mood"},
		{"empty string", "", texts + " bytea int4"},
		{"digits", "12", numbers + " json jsonb money posint"},
		{"unicode", "naïve ☃ 𝄞 \u202e", texts},
		{"NUL", "a\x00b", texts},
		{"not UTF-8", "a\xff\xfeb", texts + " bytea"},
		{"quotes", `a'b"c\d$1 --`, texts},
		{"JSON in a string", `{"a": [1, null]}`, "json jsonb text"},
		{"date in a string", "2024-02-29", times},
		{"UUID in a string", "00010203-0405-0607-0809-0a0b0c0d0e0f", "uuid text"},
		{"array in a string", "{1,2,NULL}", "int4[] text[] text"},
		{"range in a string", "[1,5)", "int4range numrange text"},
		{"hex in a string", `\x6162`, "bytea text"},
		{"bits in a string", "101", "bit(3) varbit"},
		{"long string", strings.Repeat("0123456789", 10_000), "text"},
		{"[]byte", []byte("ab\x00\xff"), "bytea text json"},
		{"text in []byte", []byte("text"), "bytea text varchar mood"},
		{"JSON in []byte", []byte(`{"a": 1}`), "json jsonb bytea text"},
		{"digits in []byte", []byte("12"), numbers},
		{"empty []byte", []byte{}, "bytea text"},
		{"nil []byte", []byte(nil), "bytea text jsonb"},
		{"json.RawMessage", json.RawMessage(`{"a": 1}`), "json jsonb text bytea"},
		{"nil json.RawMessage", json.RawMessage(nil), "json jsonb"},
		{"sql.RawBytes", sql.RawBytes("raw"), "bytea text"},

		{"time in UTC", moment, times},
		{"local time", moment.In(time.Local), times},
		{"time in a zone", moment.In(location("America/New_York")), times},
		{"time in a fixed zone", moment.In(time.FixedZone("", -(3*3600 + 30*60 + 15))), times},
		{"time in summer", time.Date(2024, 7, 1, 0, 30, 0, 0, location("Europe/Berlin")), times},
		{"zero time", time.Time{}, times},
		{"time before Christ", time.Date(-43, 3, 15, 12, 0, 0, 0, time.UTC), times},
		{"time far away", time.Date(12024, 1, 1, 0, 0, 0, 0, time.UTC), times},
		{"time out of range", time.Date(300_000, 1, 1, 0, 0, 0, 0, time.UTC), times},
		{"time.Duration", 90*time.Minute + time.Microsecond, "interval int8 text time"},

		{"nil", nil, numbers + " bytea jsonb timestamptz int4[] mood"},
		{"nil *string", (*string)(nil), "text int4 jsonb"},
		{"nil *int", (*int)(nil), "int4 text jsonb"},
		{"nil *time.Time", (*time.Time)(nil), "timestamptz text"},
		{"nil **string", (**string)(nil), "text"},
		{"nil []string", []string(nil), "text[] jsonb"},
		{"nil map", map[string]any(nil), "jsonb json text"},
		{"nil *document", (*document)(nil), "jsonb json"},
		{"*int", new(7), numbers},
		{"*string", new("text"), texts},
		{"**string", new(new("text")), texts},
		{"*bool", new(true), "bool text"},
		{"*float64", new(0.1), numbers},
		{"*[]byte", new([]byte("ab")), "bytea text"},
		{"*time.Time", new(moment), times},
		{"pointer to a nil any", new(any), "text int4"},
		{"pointer to any", new(any("text")), "text"},

		{"named string", myString("text"), texts},
		{"named int", myInt(7), numbers},
		{"named []byte", myBytes("ab"), "bytea text json"},
		{"named time", myTime(moment), times},
		{"named bool", myBool(true), "bool text"},
		{"enum", myMood("happy"), "mood text"},
		{"no enum", myMood("furious"), "mood"},
		{"pointer to an enum", new(myMood("happy")), "mood text"},

		{"driver.Valuer of int64", byValue{int64(7)}, numbers + " jsonb"},
		{"driver.Valuer of float64", byValue{0.1}, numbers},
		{"driver.Valuer of bool", byValue{true}, "bool text"},
		{"driver.Valuer of []byte", byValue{[]byte("12")}, "bytea text json int4"},
		{"driver.Valuer of string", byValue{"12"}, texts + " int4 numeric"},
		{"driver.Valuer of time.Time", byValue{moment}, times},
		{"driver.Valuer of nil", byValue{nil}, "text int4 jsonb"},
		{"driver.Valuer of int", byValue{7}, "text int4"},
		{"driver.Valuer of a struct", byValue{pair{1, 2}}, "text int4 jsonb"},
		{"driver.Valuer of an error", byValue{errNoValue}, "text int4"},
		{"pointer to a driver.Valuer", &byValue{"12"}, "text int4 jsonb"},
		{"nil pointer to a driver.Valuer", (*byValue)(nil), "text int4 jsonb"},
		{"driver.Valuer by pointer", &byPointer{"v"}, "text int4 jsonb"},
		{"driver.Valuer by pointer as a value", byPointer{"v"}, "text int4 jsonb"},
		{"nil driver.Valuer by pointer", (*byPointer)(nil), "text int4 jsonb"},
		{"driver.Valuer of int kind", valuedInt(7), numbers},
		{"[]driver.Valuer", []valuedInt{1, 2}, "int4[] text[] jsonb"},
		{"fmt.Stringer of int kind", named(7), numbers + " json"},
		{"fmt.Stringer", namedText{"text"}, texts},
		{"encoding.TextMarshaler", marshaled{"text"}, texts},
		{"json.Marshaler", ownJSON{7}, "json jsonb text"},

		{"sql.NullString", sql.NullString{String: "text", Valid: true}, texts},
		{"no sql.NullString", sql.NullString{}, texts},
		{"sql.NullInt64", sql.NullInt64{Int64: 7, Valid: true}, numbers},
		{"no sql.NullInt64", sql.NullInt64{}, numbers},
		{"sql.NullInt32", sql.NullInt32{Int32: 7, Valid: true}, numbers},
		{"sql.NullInt16", sql.NullInt16{Int16: 7, Valid: true}, numbers},
		{"sql.NullByte", sql.NullByte{Byte: 7, Valid: true}, numbers},
		{"sql.NullFloat64", sql.NullFloat64{Float64: 0.1, Valid: true}, numbers},
		{"sql.NullBool", sql.NullBool{Bool: true, Valid: true}, "bool text"},
		{"sql.NullTime", sql.NullTime{Time: moment, Valid: true}, times},
		{"sql.Null[string]", sql.Null[string]{V: "text", Valid: true}, texts},
		{"sql.Null[int]", sql.Null[int]{V: 7, Valid: true}, numbers},
		{"sql.Null[myID]", sql.Null[myID]{V: id, Valid: true}, "uuid text"},
		{"no sql.Null[time.Time]", sql.Null[time.Time]{}, times},
		{"pointer to sql.NullString", &sql.NullString{String: "text", Valid: true}, texts},

		{"[]string", []string{"a", "b,c", "", `"\`, "NULL"}, "text[] varchar jsonb json text mood[]"},
		{"empty []string", []string{}, "text[] int4[] jsonb"},
		{"[]*string", []*string{new("a"), nil}, "text[] jsonb"},
		{"[]int", []int{1, -2}, "int2[] int4[] int8[] numeric[] jsonb text[]"},
		{"[]int64", []int64{math.MaxInt64}, "int4[] int8[] numeric[] jsonb"},
		{"[]int32", []int32{1, 2}, "int4[] int8[] jsonb"},
		{"[]float64", []float64{1.5, math.Inf(1)}, "float8[] numeric[]"},
		{"[]bool", []bool{true, false}, "bool[] jsonb"},
		{"[][]int", [][]int{{1, 2}, {3, 4}}, "int4[] jsonb"},
		{"[][]string", [][]string{{"a"}, {"b"}}, "text[] jsonb"},
		{"[][]byte", [][]byte{{1}, nil, {}}, "bytea[] jsonb"},
		{"[]time.Time", []time.Time{moment, moment.In(time.FixedZone("", 3600))}, "timestamptz[] date[] jsonb"},
		{"[]any", []any{1, "a", nil}, "text[] int4[] jsonb"},
		{"[]any of ints", []any{1, 2}, "int4[] jsonb"},
		{"[]sql.NullString", []sql.NullString{{String: "a", Valid: true}, {}}, "text[] jsonb"},
		{"[]enum", []myMood{"sad", "happy"}, "mood[] text[]"},
		{"[2]int", [2]int{1, 2}, "int4[] jsonb"},
		{"[][16]byte", [][16]byte{id}, "uuid[] bytea[]"},
		{"pgtype.Array", pgtype.Array[int32]{Elements: []int32{1, 2}, Dims: []pgtype.ArrayDimension{{Length: 2, LowerBound: 3}}, Valid: true}, "int4[]"},
		{"pgtype.FlatArray", pgtype.FlatArray[string]{"a"}, "text[]"},

		{"map", map[string]any{"a": 1, "b": []any{nil, "x"}}, "json jsonb text hstore"},
		{"map of strings", map[string]string{"a": "1"}, "json jsonb text hstore"},
		{"map of *string", map[string]*string{"a": nil}, "jsonb hstore"},
		{"struct", document{"n", []int{1}}, "json jsonb text item"},
		{"pointer to a struct", &document{"n", nil}, "json jsonb text"},
		{"[]struct", []document{{"n", nil}}, "json jsonb text"},
		{"struct for a composite", pair{1, 2}, "item jsonb text"},

		{"net.IP", net.IPv4(192, 168, 0, 1), "inet cidr text"},
		{"nil net.IP", net.IP(nil), "inet text"},
		{"net.IPNet", net.IPNet{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}, "inet cidr text"},
		{"*net.IPNet", &net.IPNet{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}, "inet cidr text"},
		{"net.HardwareAddr", net.HardwareAddr{8, 0, 0x2b, 1, 2, 3}, "macaddr text"},
		{"netip.Addr", netip.MustParseAddr("fe80::1"), "inet cidr text"},
		{"zero netip.Addr", netip.Addr{}, "inet text"},
		{"netip.Prefix", netip.MustParsePrefix("10.1.2.3/8"), "inet cidr text"},
		{"[16]byte", id, "uuid bytea text"},
		{"named [16]byte", myID(id), "uuid bytea text"},
		{"UUID of a package", valuedUUID(id), "uuid text bytea"},
		{"big.Int", *big.NewInt(7), "numeric text int8"},
		{"*big.Int", big.NewInt(7), "numeric text int8"},
		{"*big.Float", big.NewFloat(1.5), "numeric text float8"},

		{"pgtype.Bool", pgtype.Bool{Bool: true, Valid: true}, "bool text"},
		{"pgtype.Int2", pgtype.Int2{Int16: 7, Valid: true}, numbers},
		{"pgtype.Int4", pgtype.Int4{Int32: 7, Valid: true}, numbers},
		{"no pgtype.Int4", pgtype.Int4{}, numbers},
		{"pgtype.Int8", pgtype.Int8{Int64: 7, Valid: true}, numbers},
		{"pgtype.Uint32", pgtype.Uint32{Uint32: 7, Valid: true}, "oid xid text int8"},
		{"pgtype.Uint64", pgtype.Uint64{Uint64: math.MaxUint64, Valid: true}, "numeric text"},
		{"pgtype.Float4", pgtype.Float4{Float32: 0.1, Valid: true}, numbers},
		{"pgtype.Float8", pgtype.Float8{Float64: 0.1, Valid: true}, numbers},
		{"pgtype.Numeric", pgtype.Numeric{Int: big.NewInt(12345), Exp: -3, Valid: true}, numbers},
		{"pgtype.Numeric NaN", pgtype.Numeric{NaN: true, Valid: true}, numbers},
		{"pgtype.Numeric infinity", pgtype.Numeric{InfinityModifier: pgtype.Infinity, Valid: true}, "float8 text"},
		{"huge pgtype.Numeric", pgtype.Numeric{Int: big.NewInt(7), Exp: 100, Valid: true}, numbers},
		{"pgtype.Text", pgtype.Text{String: "text", Valid: true}, texts},
		{"pgtype.UUID", pgtype.UUID{Bytes: id, Valid: true}, "uuid text"},
		{"pgtype.Date", pgtype.Date{Time: moment, Valid: true}, times},
		{"pgtype.Date infinity", pgtype.Date{InfinityModifier: pgtype.NegativeInfinity, Valid: true}, times},
		{"pgtype.Time", pgtype.Time{Microseconds: 86_399_999_999, Valid: true}, times + " interval"},
		{"pgtype.Timestamp", pgtype.Timestamp{Time: moment, Valid: true}, times},
		{"pgtype.Timestamptz", pgtype.Timestamptz{Time: moment, Valid: true}, times},
		{"pgtype.Timestamptz infinity", pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}, times},
		{"pgtype.Interval", pgtype.Interval{Months: 14, Days: -3, Microseconds: 1, Valid: true}, "interval text"},
		{"pgtype.Bits", pgtype.Bits{Bytes: []byte{0xa0}, Len: 3, Valid: true}, "bit(3) varbit text"},
		{"pgtype.Point", pgtype.Point{P: pgtype.Vec2{X: 1.5, Y: -2}, Valid: true}, "point text"},
		{"pgtype.Box", pgtype.Box{P: [2]pgtype.Vec2{{X: 3, Y: 4}, {X: 1, Y: 2}}, Valid: true}, "box text"},
		{"pgtype.Path", pgtype.Path{P: []pgtype.Vec2{{X: 3, Y: 4}, {X: 1, Y: 2}}, Closed: true, Valid: true}, "path text"},
		{"pgtype.TID", pgtype.TID{BlockNumber: 1, OffsetNumber: 2, Valid: true}, "tid text"},
		{"pgtype.TSVector", pgtype.TSVector{Lexemes: []pgtype.TSVectorLexeme{{Word: "a"}}, Valid: true}, "tsvector text"},
		{"pgtype.Hstore", pgtype.Hstore{"a": new("1")}, "hstore text"},
		{"pgtype.Range", pgtype.Range[int32]{Lower: 1, Upper: 5, LowerType: pgtype.Inclusive, UpperType: pgtype.Exclusive, Valid: true}, "int4range int8range"},
		{"pgtype.Range of pgtype.Int4", pgtype.Range[pgtype.Int4]{LowerType: pgtype.Unbounded, UpperType: pgtype.Unbounded, Valid: true}, "int4range"},
		{"pgtype.Range of times", pgtype.Range[time.Time]{Lower: moment, LowerType: pgtype.Inclusive, UpperType: pgtype.Unbounded, Valid: true}, "tstzrange daterange"},
		{"no pgtype.Range", pgtype.Range[int32]{}, "int4range"},
		{"pgtype.CompositeFields", pgtype.CompositeFields{int32(1), "a", []int32{1}}, "item text"},
		{"zeronull.Int4", zeronull.Int4(0), numbers},
		{"zeronull.Text", zeronull.Text("text"), texts},
		{"*pgtype.Text", &pgtype.Text{String: "text", Valid: true}, texts},

		{"complex128", 1i, "float8 text jsonb point"},
		{"channel", make(chan int), "int4 text jsonb"},
		{"function", func() {}, "int4 text jsonb"},
		{"struct{}", struct{}{}, "int4 text jsonb"},
		{"error", errNoValue, "text jsonb"},
		{"sql.Named", sql.Named("n", 7), numbers},
		{"sql.Out", sql.Out{Dest: new(int)}, "int4 text"},
	}
}

func TestArgumentsAreSentAsByStdlib(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	d := openBoth(t, c)
	exec(t, ctx, d.ours, specialTypes)
	for _, a := range arguments() {
		for _, typ := range parameterTypes {
			d.sameArgument(t, ctx, typ, a, pgx.QueryExecModeCacheStatement)
		}
		for typ := range strings.FieldsSeq(a.types) {
			for _, mode := range execModes {
				if a.name == "NUL" && mode == pgx.QueryExecModeSimpleProtocol {
					continue // which makes pgx send a broken message
				}
				d.sameArgument(t, ctx, typ, a, mode)
			}
		}
	}
}

// sameArgument has both drivers pass an argument for a type, and complains if
// the server has not understood the same.
func (d drivers) sameArgument(t *testing.T, ctx context.Context, typ string, a argument, mode pgx.QueryExecMode) {
	t.Helper()
	query := "SELECT $1::" + typ + "::text"
	got, want := ask(ctx, d.ours, query, mode, a.value), ask(ctx, d.theirs, query, mode, a.value)
	if got.problem != want.problem {
		t.Errorf("%s as %s, %s: error %q, stdlib has %q", a.name, typ, mode, got.problem, want.problem)
	} else if !same(got.rows, want.rows) {
		t.Errorf("%s as %s, %s: is %v, stdlib has %v", a.name, typ, mode, got.rows, want.rows)
	}
}
