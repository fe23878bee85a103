package pgfake

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heliosdb/helios/wal"
)

// formatOf returns the format of column i under the codes of a Bind message:
// none means text, one counts for every column.
func formatOf(codes []int16, i int) int16 {
	switch {
	case len(codes) == 1:
		return codes[0]
	case i < len(codes):
		return codes[i]
	default:
		return pgtype.TextFormatCode
	}
}

// describe returns the description of a reply's columns; the formats are nil
// when a statement is described, not a portal.
func describe(columns []Column, formats []int16) *pgproto3.RowDescription {
	d := &pgproto3.RowDescription{Fields: make([]pgproto3.FieldDescription, len(columns))}
	for i, c := range columns {
		d.Fields[i] = pgproto3.FieldDescription{
			Name: []byte(c.Name), DataTypeOID: c.OID, DataTypeSize: sizeOf(c.OID),
			TypeModifier: -1, Format: formatOf(formats, i),
		}
	}
	return d
}

// sizeOf returns pg_type.typlen.
func sizeOf(oid uint32) int16 {
	switch oid {
	case pgtype.BoolOID:
		return 1
	case pgtype.Int2OID:
		return 2
	case pgtype.Int4OID, pgtype.Float4OID, pgtype.OIDOID, pgtype.DateOID:
		return 4
	case pgtype.Int8OID, pgtype.Float8OID, pgtype.TimestamptzOID, pgtype.TimestampOID, LSNOID:
		return 8
	default:
		return -1
	}
}

// encodeRow turns Go values into the wire form the client asked for.
func encodeRow(m *pgtype.Map, columns []Column, row []any, formats []int16) (*pgproto3.DataRow, error) {
	if len(row) != len(columns) {
		return nil, fmt.Errorf("row has %d values for %d columns", len(row), len(columns))
	}
	d := &pgproto3.DataRow{Values: make([][]byte, len(row))}
	for i, v := range row {
		b, err := encode(m, columns[i].OID, formatOf(formats, i), v)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", columns[i].Name, err)
		}
		d.Values[i] = b
	}
	return d, nil
}

// encode returns the wire form of one value, nil for NULL.
func encode(m *pgtype.Map, oid uint32, format int16, v any) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	if lsn, ok := v.(wal.LSN); ok {
		if oid == LSNOID && format == pgtype.BinaryFormatCode {
			return binary.BigEndian.AppendUint64(nil, uint64(lsn)), nil
		}
		return []byte(lsn.String()), nil
	}
	if s, ok := v.(string); ok && format == pgtype.TextFormatCode {
		return append([]byte{}, s...), nil // an empty string is not NULL
	}
	return m.Encode(oid, format, v, []byte{})
}

// decode reads a parameter as an LSN, a number or text, whichever it looks
// like: that is all the model's own functions need.
func (a Arg) decode() any {
	switch {
	case a.Data == nil:
		return nil
	case a.Format == pgtype.BinaryFormatCode && len(a.Data) == 8:
		return int64(binary.BigEndian.Uint64(a.Data))
	case a.Format == pgtype.BinaryFormatCode && len(a.Data) == 4:
		return int64(int32(binary.BigEndian.Uint32(a.Data)))
	}
	text := string(a.Data)
	if lsn, err := wal.ParseLSN(text); err == nil {
		return lsn
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	return text
}
