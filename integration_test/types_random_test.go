package integration_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heliosdb/helios/internal/pgtest"
)

// Whatever the value, it comes back as through pgx's own driver. The seed is in
// the name of the test that fails.
func TestRandomValuesTravelAsThroughStdlib(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	d := openBoth(t, c)
	names := slices.Sorted(maps.Keys(families))
	var parameters []string
	for i, name := range names {
		parameters = append(parameters, fmt.Sprintf("$%d::%s", i+1, name), fmt.Sprintf("$%d::%s::text", i+1, name))
	}
	query := "SELECT " + strings.Join(parameters, ", ")
	for _, seed := range []uint64{1, 2, uint64(time.Now().UnixNano())} {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			g := generator{rand.New(rand.NewPCG(seed, 1))}
			for range 100 {
				args := []any{execModes[g.IntN(len(execModes))]}
				for _, name := range names {
					args = append(args, families[name](g))
				}
				got, want := ask(ctx, d.ours, query, args...), ask(ctx, d.theirs, query, args...)
				got.mustEqual(t, want, parameters)
				if t.Failed() || want.problem != "" {
					t.Fatalf("%v, with %#v: %s", args[0], args[1:], want.problem)
				}
			}
		})
	}
}

// generator makes random values.
type generator struct{ *rand.Rand }

// families make an argument for a parameter of the type.
var families = map[string]func(generator) any{
	"bool":        func(g generator) any { return g.once(2) },
	"int2":        func(g generator) any { return int16(g.bits()) },
	"int4":        func(g generator) any { return int32(g.bits()) },
	"int8":        func(g generator) any { return int64(g.bits()) },
	"oid":         func(g generator) any { return uint32(g.bits()) },
	"float4":      func(g generator) any { return math.Float32frombits(uint32(g.bits())) },
	"float8":      func(g generator) any { return math.Float64frombits(g.bits()) },
	"numeric":     generator.numeric,
	"text":        func(g generator) any { return g.text() },
	"bytea":       func(g generator) any { return g.bytes() },
	"date":        func(g generator) any { return pgtype.Date{Time: g.time(), Valid: !g.once(9)} },
	"timestamp":   func(g generator) any { return pgtype.Timestamp{Time: g.time(), Valid: !g.once(9)} },
	"timestamptz": func(g generator) any { return g.time() },
	"time":        func(g generator) any { return pgtype.Time{Microseconds: g.Int64N(86_400_000_001), Valid: true} },
	"interval":    generator.interval,
	"uuid": func(g generator) any {
		return pgtype.UUID{Bytes: [16]byte(fmt.Appendf(nil, "%016x", g.bits())), Valid: !g.once(9)}
	},
	"inet":     generator.prefix,
	"varbit":   generator.varbit,
	"jsonb":    func(g generator) any { return g.document() },
	"json":     func(g generator) any { return g.document() },
	"int4[]":   func(g generator) any { return list(g, func() int32 { return int32(g.bits()) }) },
	"text[]":   func(g generator) any { return list(g, g.text) },
	"float8[]": func(g generator) any { return list(g, func() float64 { return math.Float64frombits(g.bits()) }) },
	"bytea[]":  func(g generator) any { return [][]byte{g.bytes(), nil, g.bytes()} },
	"timestamptz[]": func(g generator) any {
		return list(g, g.time)
	},
	"tstzrange": func(g generator) any {
		from := g.time()
		return pgtype.Range[pgtype.Timestamptz]{
			Lower: pgtype.Timestamptz{Time: from, Valid: true}, LowerType: pgtype.Inclusive,
			Upper: pgtype.Timestamptz{Time: from.Add(time.Duration(g.Int32())), Valid: true}, UpperType: pgtype.Exclusive,
			Valid: true,
		}
	},
}

// once is true once in n times.
func (g generator) once(n int) bool { return g.IntN(n) == 0 }

// bits returns as many random bits as a number may have.
func (g generator) bits() uint64 {
	bits := g.Uint64() >> g.IntN(64)
	if g.once(2) {
		return -bits
	}
	return bits
}

// numeric returns a number as one of the types that programs have for it.
func (g generator) numeric() any {
	digits := new(big.Int).SetBytes(g.bytes())
	if g.once(2) {
		digits.Neg(digits)
	}
	number := pgtype.Numeric{Int: digits, Exp: int32(g.IntN(60) - 40), NaN: g.once(20), Valid: !g.once(20)}
	switch g.IntN(3) {
	case 0:
		return number
	case 1:
		return g.NormFloat64() * math.Pow(10, float64(g.IntN(40)-20))
	default:
		return digits.String() + "." + fmt.Sprint(g.Uint64())
	}
}

// quoted are characters that PostgreSQL quotes in arrays, records and elsewhere.
const quoted = `"'\{},;()<>$@ `

// text returns a string of all kinds of characters.
func (g generator) text() string {
	var b strings.Builder
	for range g.IntN(40) {
		switch g.IntN(4) {
		case 0:
			b.WriteByte(quoted[g.IntN(len(quoted))])
		case 1:
			b.WriteRune(rune(1 + g.IntN(127)))
		default: // WriteRune writes what is no character as U+FFFD
			b.WriteRune(1 + rune(g.IntN(0x10FFFF)))
		}
	}
	return b.String()
}

// bytes returns any bytes.
func (g generator) bytes() []byte {
	b := make([]byte, g.IntN(60))
	for i := range b {
		b[i] = byte(g.Uint32())
	}
	return b
}

// zones are where the random times are.
var zones = []*time.Location{
	time.UTC, time.Local, location("America/New_York"), location("Asia/Kathmandu"), location("Europe/Berlin"), location("Pacific/Apia"),
}

// time returns a moment that PostgreSQL can store, mostly near ours.
func (g generator) time() time.Time {
	year := 1880 + g.IntN(300)
	if g.once(4) {
		year = g.IntN(290_000) - 4700
	}
	zone := zones[g.IntN(len(zones))]
	if g.once(3) {
		zone = time.FixedZone("", g.IntN(28*3600)-14*3600)
	}
	return time.Date(year, 1, g.IntN(366), 0, 0, g.IntN(86_400), g.IntN(1e9), zone)
}

func (g generator) interval() any {
	return pgtype.Interval{Months: int32(g.bits() % 1e6), Days: int32(g.bits() % 1e6), Microseconds: int64(g.bits() >> 20), Valid: !g.once(9)}
}

func (g generator) prefix() any {
	if g.once(2) {
		b := [4]byte(fmt.Appendf(nil, "%04x", uint16(g.bits())))
		return netip.PrefixFrom(netip.AddrFrom4(b), g.IntN(33))
	}
	b := [16]byte(fmt.Appendf(nil, "%016x", g.bits()))
	return netip.PrefixFrom(netip.AddrFrom16(b), g.IntN(129))
}

func (g generator) varbit() any {
	b := g.bytes()
	return pgtype.Bits{Bytes: b, Len: int32(8 * len(b)), Valid: !g.once(9)}
}

// document returns a JSON document as text.
func (g generator) document() string {
	text, err := json.Marshal(g.node(4))
	if err != nil {
		panic(err)
	}
	return string(text)
}

// node returns a part of a document that is at most so deep. jsonb has no NUL in
// strings.
func (g generator) node(deep int) any {
	switch g.IntN(3 + 2*min(deep, 1)) {
	case 0:
		return g.text()
	case 1:
		return g.NormFloat64()
	case 2:
		return []any{nil, true, false, int64(g.bits())}[g.IntN(4)]
	case 3:
		return []any{g.node(deep - 1), g.node(deep - 1)}
	default:
		return map[string]any{g.text(): g.node(deep - 1), "a": g.node(deep - 1)}
	}
}

// list returns some values, NULLs among them.
func list[T any](g generator, value func() T) []*T {
	all := make([]*T, g.IntN(8))
	for i := range all {
		if !g.once(4) {
			v := value()
			all[i] = &v
		}
	}
	return all
}
