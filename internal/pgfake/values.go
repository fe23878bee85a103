package pgfake

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heliosdb/helios/wal"
)

// apply changes the value of an expression.
func apply(t term, f func(value) (value, error)) term {
	return term{"?column?", func(e *env) (value, error) {
		v, err := t.eval(e)
		if err != nil {
			return v, err
		}
		return f(v)
	}}
}

// combine applies a binary operator.
func combine(left, right term, f func(a, b value) (value, error)) term {
	return term{"?column?", func(e *env) (value, error) {
		a, err := left.eval(e)
		if err != nil {
			return a, err
		}
		b, err := right.eval(e)
		if err != nil {
			return b, err
		}
		if v, err := f(a, b); !e.q.Describing || err == nil {
			return v, err
		}
		return value{nil, a.oid}, nil
	}}
}

// compare orders LSNs, numbers and texts.
func compare(op string, a, b value) (value, error) {
	if a.v == nil || b.v == nil {
		return value{nil, pgtype.BoolOID}, nil
	}
	c := order(a.v, b.v)
	holds := map[string]bool{
		"=": c == 0, "<>": c != 0, "!=": c != 0, "<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0,
	}
	return value{holds[op], pgtype.BoolOID}, nil
}

// order returns -1, 0 or 1; a text next to an LSN is read as one.
func order(a, b any) int {
	if x, ok := asLSN(a); ok {
		if y, ok := asLSN(b); ok {
			return cmp.Compare(x, y)
		}
	}
	x, okX := asInt(a)
	y, okY := asInt(b)
	if okX && okY {
		return cmp.Compare(x, y)
	}
	return strings.Compare(asText(a), asText(b))
}

// divide is integer division.
func divide(a, b value) (value, error) {
	x, okX := asInt(a.v)
	y, okY := asInt(b.v)
	switch {
	case !okX || !okY:
		return value{nil, a.oid}, nil
	case y == 0:
		return value{}, &Error{Code: "22012", Message: "division by zero"}
	default:
		return value{x / y, a.oid}, nil
	}
}

// convert casts a value to a type.
func convert(v value, oid uint32) (value, error) {
	if v.v == nil {
		return value{nil, oid}, nil
	}
	switch oid {
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID:
		if n, ok := asInt(v.v); ok {
			return value{n, oid}, nil
		}
	case pgtype.TextOID, pgtype.NameOID:
		return value{asText(v.v), oid}, nil
	case xid8OID:
		return value{v.v, oid}, nil
	case LSNOID:
		if lsn, ok := asLSN(v.v); ok {
			return value{lsn, oid}, nil
		}
	case v.oid:
		return v, nil
	}
	return value{}, &Error{Code: "22P02", Message: "pgfake cannot cast " + asText(v.v)}
}

// asInt reads a number, a truth value or the text of a number.
func asInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case bool:
		if v {
			return 1, true
		}
		return 0, true
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		return n, err == nil
	default:
		return 0, false
	}
}

// asLSN reads an LSN, its text, or its eight bytes as a number.
func asLSN(v any) (wal.LSN, bool) {
	switch v := v.(type) {
	case wal.LSN:
		return v, true
	case int64:
		return wal.LSN(uint64(v)), true
	case string:
		lsn, err := wal.ParseLSN(v)
		return lsn, err == nil
	default:
		return 0, false
	}
}

// asText returns PostgreSQL's text form.
func asText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case wal.LSN:
		return v.String()
	default:
		return ""
	}
}
