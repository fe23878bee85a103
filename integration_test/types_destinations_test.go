package integration_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgtype/zeronull"

	"github.com/heliosdb/helios/internal/pgtest"
)

// destination is a Go type that programs scan columns into.
type destination struct {
	name  string
	fresh func() (into, result any) // what Scan is given, and a pointer to where the value will be
}

// plain has database/sql fill a T, which may be a sql.Scanner.
func plain[T any]() destination {
	return destination{reflect.TypeFor[T]().String(), func() (any, any) {
		v := new(T)
		return v, v
	}}
}

// adapted has pgx fill a T, through its adapter for database/sql.
func adapted[T any]() destination {
	types := pgtype.NewMap()
	return destination{"adapted " + reflect.TypeFor[T]().String(), func() (any, any) {
		v := new(T)
		return types.SQLScanner(v), v
	}}
}

// Types that programs define for themselves.
type (
	myString string
	myInt    int16
	myBytes  []byte
	myTime   time.Time
	myBool   bool
	myID     [16]byte
	myJSON   struct{ A, B any }
	myMood   string
)

// Scan implements sql.Scanner as packages for UUIDs do.
func (id *myID) Scan(src any) error {
	switch src := src.(type) {
	case string:
		var parsed pgtype.UUID
		err := parsed.Scan(src)
		*id = parsed.Bytes
		return err
	case []byte:
		if copy(id[:], src) != len(id) {
			return errors.New("not 16 bytes")
		}
		return nil
	case nil:
		return nil
	default:
		return fmt.Errorf("not a UUID: %T", src)
	}
}

// Scan implements sql.Scanner as programs do for JSON.
func (j *myJSON) Scan(src any) error {
	switch src := src.(type) {
	case []byte:
		return json.Unmarshal(src, j)
	case string:
		return json.Unmarshal([]byte(src), j)
	default:
		return fmt.Errorf("not JSON: %T", src)
	}
}

// destinations are what a value is scanned into.
var destinations = []destination{
	plain[any](), plain[string](), plain[[]byte](), plain[sql.RawBytes](), plain[json.RawMessage](),
	plain[int](), plain[int8](), plain[int16](), plain[int32](), plain[int64](),
	plain[uint](), plain[uint8](), plain[uint16](), plain[uint32](), plain[uint64](),
	plain[float32](), plain[float64](), plain[bool](), plain[time.Time](), plain[time.Duration](),
	plain[*string](), plain[*int64](), plain[*int16](), plain[*float64](), plain[*bool](), plain[*time.Time](), plain[*any](), plain[*[]byte](), plain[**string](),
	plain[sql.NullString](), plain[sql.NullInt64](), plain[sql.NullInt32](), plain[sql.NullInt16](), plain[sql.NullByte](),
	plain[sql.NullFloat64](), plain[sql.NullBool](), plain[sql.NullTime](),
	plain[sql.Null[string]](), plain[sql.Null[int64]](), plain[sql.Null[uint8]](), plain[sql.Null[[]byte]](), plain[sql.Null[time.Time]](),
	plain[sql.Null[float32]](), plain[sql.Null[any]](), plain[*sql.NullString](),
	plain[myString](), plain[myInt](), plain[myBytes](), plain[myTime](), plain[myBool](), plain[myMood](), plain[*myString](),
	plain[myID](), plain[*myID](), plain[myJSON](), plain[keptValue](),
	plain[[]string](), plain[[]int64](), plain[map[string]any](), plain[[16]byte](), plain[net.IP](), plain[big.Int](), plain[struct{}](),

	plain[pgtype.Bool](), plain[pgtype.Int2](), plain[pgtype.Int4](), plain[pgtype.Int8](), plain[pgtype.Uint32](), plain[pgtype.Uint64](),
	plain[pgtype.Float4](), plain[pgtype.Float8](), plain[pgtype.Numeric](), plain[pgtype.Text](), plain[pgtype.UUID](),
	plain[pgtype.Date](), plain[pgtype.Time](), plain[pgtype.Timestamp](), plain[pgtype.Timestamptz](), plain[pgtype.Interval](),
	plain[pgtype.Bits](), plain[pgtype.TID](), plain[pgtype.TSVector](), plain[pgtype.Hstore](),
	plain[pgtype.Point](), plain[pgtype.Line](), plain[pgtype.Lseg](), plain[pgtype.Box](), plain[pgtype.Path](), plain[pgtype.Polygon](), plain[pgtype.Circle](),
	plain[zeronull.Int2](), plain[zeronull.Int4](), plain[zeronull.Int8](), plain[zeronull.Float8](), plain[zeronull.Text](),
	plain[zeronull.Timestamp](), plain[zeronull.Timestamptz](), plain[zeronull.UUID](),

	adapted[any](), adapted[string](), adapted[*string](), adapted[[]byte](), adapted[int64](), adapted[float64](), adapted[bool](), adapted[time.Time](),
	adapted[time.Duration](), adapted[[16]byte](), adapted[net.IP](), adapted[netip.Addr](), adapted[netip.Prefix](), adapted[net.HardwareAddr](),
	adapted[map[string]string](), adapted[map[string]*string](), adapted[map[string]any](), adapted[myMood](),
	adapted[[]string](), adapted[[]*string](), adapted[[]int64](), adapted[[]*int32](), adapted[[][]int](), adapted[[]float64](), adapted[[]bool](),
	adapted[[]time.Time](), adapted[[][]byte](), adapted[[]any](), adapted[[2]int](),
	adapted[pgtype.FlatArray[int64]](), adapted[pgtype.FlatArray[*string]](), adapted[pgtype.Array[pgtype.Text]](), adapted[pgtype.Array[pgtype.Numeric]](),
	adapted[pgtype.Range[pgtype.Int4]](), adapted[pgtype.Range[pgtype.Numeric]](), adapted[pgtype.Range[pgtype.Timestamptz]](),
	adapted[pgtype.Multirange[pgtype.Range[pgtype.Int8]]](), adapted[pgtype.Numeric](), adapted[pgtype.Interval](), adapted[pgtype.UUID](),
}

// chunk is how many columns are scanned from one row. For each of them all the
// others are scanned as well.
const chunk = 8

func TestEveryGoTypeIsFilledAsByStdlib(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	d := openBoth(t, c)
	exec(t, ctx, d.ours, specialTypes)
	for texts := range slices.Chunk(known(t, ctx, d.ours, allExpressions()), chunk) {
		query := "SELECT " + strings.Join(texts, ", ")
		got, want := scanAll(t, ctx, d.ours, query, len(texts)), scanAll(t, ctx, d.theirs, query, len(texts))
		for i, text := range texts {
			for n, into := range destinations {
				if got, want := got[n][i], want[n][i]; got.problem != want.problem || !same(got.value, want.value) {
					t.Errorf("%s into %s: got %#v %s, stdlib has %#v %s", text, into.name, got.value, got.problem, want.value, want.problem)
				}
			}
		}
	}
}

// scanned is what became of a destination.
type scanned struct {
	value   any
	problem string
}

// scanAll scans each of n columns of a query's row into each destination.
func scanAll(t *testing.T, ctx context.Context, db *sql.DB, query string, n int) (all [][]scanned) {
	t.Helper()
	rows, err := db.QueryContext(ctx, query)
	pgtest.OK(t, err)
	defer rows.Close()
	if !rows.Next() {
		t.Fatalf("%s: no row: %v", query, rows.Err())
	}
	into := make([]any, n)
	for i := range into {
		into[i] = ignored{}
	}
	for _, dest := range destinations {
		var row []scanned
		for i := range into {
			var result any
			into[i], result = dest.fresh()
			err := rows.Scan(into...)
			row = append(row, scanned{pointedAt(result), problem(err)})
			into[i] = ignored{}
		}
		all = append(all, row)
	}
	return all
}

// ignored takes any value.
type ignored struct{}

// Scan implements sql.Scanner.
func (ignored) Scan(any) error { return nil }

// pointedAt returns what a pointer, or a pointer to one, points at. Bytes that
// belong to the driver are copied.
func pointedAt(pointer any) any {
	v := reflect.ValueOf(pointer)
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if raw, ok := reflect.TypeAssert[sql.RawBytes](v); ok {
		return bytes.Clone(raw)
	}
	return v.Interface()
}
