package helios

import (
	"database/sql/driver"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// columns reads the rows of one statement on one connection: what pgx/stdlib
// would give database/sql for the same column, decided once per statement.
type columns struct {
	fields []pgconn.FieldDescription
	names  []string
	read   []reader
	types  []*pgtype.Type // nil for a type that the connection does not know
}

// reader turns the bytes of a column, which are not NULL and only lent, into a
// value of its own.
type reader func(src []byte) (driver.Value, error)

// newColumns returns the reader of fields. What rows may be asked about their
// columns is found in types at once: later the connection may be somebody else's.
func newColumns(fields []pgconn.FieldDescription, types *pgtype.Map) *columns {
	n := len(fields)
	c := &columns{fields: fields, names: make([]string, n), read: make([]reader, n), types: make([]*pgtype.Type, n)}
	for i, f := range fields {
		c.names[i] = f.Name
		c.types[i], _ = types.TypeForOID(f.DataTypeOID)
		c.read[i] = readerOf(f, c.types[i], types)
	}
	return c
}

// readerOf returns the reader of a column. The application's own codec for a type
// goes before ours.
func readerOf(f pgconn.FieldDescription, t *pgtype.Type, types *pgtype.Map) reader {
	if f.Format == pgtype.BinaryFormatCode && t != nil {
		if ours, ok := readBinary[f.DataTypeOID]; ok && t.Codec == ours.codec {
			return ours.read
		}
	}
	return readByType(types, f.DataTypeOID, f.Format)
}

// next reads a row into dest.
func (c *columns) next(row [][]byte, dest []driver.Value) error {
	for i, src := range row {
		if src == nil {
			dest[i] = nil
			continue
		}
		v, err := c.read[i](src)
		if err != nil {
			return fmt.Errorf("helios: column %d (%s): %w", i+1, c.names[i], err)
		}
		dest[i] = v
	}
	return nil
}

// readBinary has the types whose binary form is read without pgx, with the codec
// of pgx that would read the same.
var readBinary = map[uint32]struct {
	codec pgtype.Codec
	read  reader
}{
	pgtype.BoolOID: {pgtype.BoolCodec{}, sized(1, func(b []byte) driver.Value { return b[0] != 0 })},
	pgtype.Int2OID: {pgtype.Int2Codec{}, sized(2, func(b []byte) driver.Value { return int64(int16(binary.BigEndian.Uint16(b))) })},
	pgtype.Int4OID: {pgtype.Int4Codec{}, sized(4, func(b []byte) driver.Value { return int64(int32(binary.BigEndian.Uint32(b))) })},
	pgtype.Int8OID: {pgtype.Int8Codec{}, sized(8, func(b []byte) driver.Value { return int64(binary.BigEndian.Uint64(b)) })},
	pgtype.OIDOID:  {pgtype.Uint32Codec{}, readUint32},
	pgtype.XIDOID:  {pgtype.Uint32Codec{}, readUint32},
	pgtype.CIDOID:  {pgtype.Uint32Codec{}, readUint32},
	pgtype.Float4OID: {pgtype.Float4Codec{}, sized(4, func(b []byte) driver.Value {
		return float64(math.Float32frombits(binary.BigEndian.Uint32(b)))
	})},
	pgtype.Float8OID: {pgtype.Float8Codec{}, sized(8, func(b []byte) driver.Value {
		return math.Float64frombits(binary.BigEndian.Uint64(b))
	})},
	pgtype.ByteaOID: {pgtype.ByteaCodec{}, func(b []byte) (driver.Value, error) { return owned(b), nil }},
}

var readUint32 = sized(4, func(b []byte) driver.Value { return int64(binary.BigEndian.Uint32(b)) })

// sized returns a reader of values of n bytes.
func sized(n int, read func([]byte) driver.Value) reader {
	return func(src []byte) (driver.Value, error) {
		if len(src) != n {
			return nil, fmt.Errorf("%d bytes where the type has %d", len(src), n)
		}
		return read(src), nil
	}
}

// owned copies bytes that are only lent; empty stays empty and not nil.
func owned(b []byte) []byte { return append(make([]byte, 0, len(b)), b...) }

// readByType returns a reader that goes by the connection's type map.
func readByType(types *pgtype.Map, oid uint32, format int16) reader {
	switch oid {
	case pgtype.BoolOID:
		return scanned(types, oid, format, func(v *bool) (driver.Value, error) { return *v, nil })
	case pgtype.ByteaOID, pgtype.JSONOID, pgtype.JSONBOID, pgtype.XMLOID:
		return scanned(types, oid, format, func(v *[]byte) (driver.Value, error) {
			b := *v
			*v = nil // what is handed out is not scanned into again
			return b, nil
		})
	case pgtype.Int2OID:
		return scanned(types, oid, format, func(v *int16) (driver.Value, error) { return int64(*v), nil })
	case pgtype.Int4OID:
		return scanned(types, oid, format, func(v *int32) (driver.Value, error) { return int64(*v), nil })
	case pgtype.Int8OID:
		return scanned(types, oid, format, func(v *int64) (driver.Value, error) { return *v, nil })
	case pgtype.Float4OID:
		return scanned(types, oid, format, func(v *float32) (driver.Value, error) { return float64(*v), nil })
	case pgtype.Float8OID:
		return scanned(types, oid, format, func(v *float64) (driver.Value, error) { return *v, nil })
	case pgtype.CIDOID, pgtype.OIDOID, pgtype.XIDOID:
		return scanned(types, oid, format, func(v *pgtype.Uint32) (driver.Value, error) { return v.Value() })
	case pgtype.DateOID:
		return scanned(types, oid, format, func(v *pgtype.Date) (driver.Value, error) { return v.Value() })
	case pgtype.TimestampOID:
		return scanned(types, oid, format, func(v *pgtype.Timestamp) (driver.Value, error) { return v.Value() })
	case pgtype.TimestamptzOID:
		return scanned(types, oid, format, func(v *pgtype.Timestamptz) (driver.Value, error) { return v.Value() })
	default:
		if format == pgtype.TextFormatCode {
			return func(src []byte) (driver.Value, error) { return string(src), nil }
		}
		return scanned(types, oid, format, func(v *string) (driver.Value, error) { return *v, nil })
	}
}

// scanned returns a reader that has pgx scan into a V, and takes the value from
// there. A statement is read by one goroutine at a time.
func scanned[V any](types *pgtype.Map, oid uint32, format int16, value func(*V) (driver.Value, error)) reader {
	v := new(V)
	plan := types.PlanScan(oid, format, v)
	return func(src []byte) (driver.Value, error) {
		if err := plan.Scan(src, v); err != nil {
			return nil, err
		}
		return value(v)
	}
}
