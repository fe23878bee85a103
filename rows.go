package helios

import (
	"context"
	"database/sql/driver"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heliosdb/helios/pool"
)

// rows is what database/sql holds of the answer of a statement. It is small, and
// forgets its cursor when it is closed: the session uses that again, and closing
// twice must not close what somebody else reads.
type rows struct {
	*cursor
}

// closed is the cursor of rows that were closed.
var closed = &cursor{ended: true}

// Close implements driver.Rows. It reads what is left; an error that comes with
// it, such as a failed commit, is returned here.
func (r *rows) Close() error {
	c := r.cursor
	if c == closed {
		return nil
	}
	r.cursor = closed
	err := c.close()
	c.release()
	return err
}

// cursor reads the answer of a statement from its connection, which it holds
// until the last row was read or it is closed. It is used by one goroutine
// at a time; database/sql sees to that.
type cursor struct {
	run     run
	ctx     context.Context //nolint:containedctx // the statement's own: it ends with the rows
	columns *columns
	pending pool.Event // what was read already and not yet handed out
	ended   bool       // the call was read to its end and settled
	err     error      // why it ended
}

// newCursor returns an empty cursor, one that served before if possible.
func (s *Conn) newCursor(ctx context.Context) *cursor {
	c := s.spare
	if c == nil {
		c = new(cursor)
	}
	s.spare = nil
	c.run.session, c.ctx = s, ctx
	return c
}

// release empties the cursor and leaves it to the session.
func (r *cursor) release() {
	s := r.run.session
	*r = cursor{}
	s.spare = r
}

// begin takes over from the statement's first news.
func (r *cursor) begin(event pool.Event) {
	if p := r.run.prepared; p != nil && r.run.q.formatsAsUsual() {
		var ok bool
		if r.columns, ok = p.Plan.(*columns); !ok && p.Fields != nil {
			r.columns = newColumns(p.Fields, r.run.conn.TypeMap())
			p.Plan = r.columns
		}
	}
	if r.columns == nil {
		r.columns = newColumns(r.described(), r.run.conn.TypeMap())
	}
	switch event {
	case pool.EventRow:
		r.pending = event
	case pool.EventResult:
	case pool.EventEnd:
		r.finish(nil)
	}
}

// described returns the result columns of a statement that was not prepared as
// usual.
func (r *cursor) described() []pgconn.FieldDescription {
	p := r.run.prepared
	if p == nil || p.Fields == nil {
		return r.run.conn.Result().Fields
	}
	fields := slices.Clone(p.Fields)
	for i, format := range r.run.q.resultFormats(fields) {
		fields[i].Format = format
	}
	return fields
}

// Columns implements driver.Rows.
func (r *cursor) Columns() []string {
	if r.columns == nil {
		return nil
	}
	return r.columns.names
}

// Next implements driver.Rows. A write is committed once Next has said io.EOF.
func (r *cursor) Next(dest []driver.Value) error {
	if r.ended {
		return r.end()
	}
	event := r.pending
	r.pending = pool.EventEnd
	if event == pool.EventEnd {
		var err error
		if event, err = r.run.conn.Next(r.ctx); err != nil {
			r.finish(err)
			return r.end()
		}
	}
	switch event {
	case pool.EventRow:
		return r.columns.next(r.run.conn.Row(), dest)
	case pool.EventResult:
		r.pending = event
		return io.EOF
	case pool.EventEnd:
		r.finish(nil)
	}
	return r.end()
}

// end says how the rows ended.
func (r *cursor) end() error {
	if r.err != nil {
		return r.err
	}
	return io.EOF
}

// finish settles the call and gives the connection back.
func (r *cursor) finish(err error) {
	r.ended = true
	r.err = r.run.finish(r.ctx, err)
}

// close reads what is left.
func (r *cursor) close() error {
	for !r.ended {
		event, err := r.run.conn.Next(r.ctx)
		if err != nil || event == pool.EventEnd {
			r.finish(err)
		}
	}
	return r.err
}

// HasNextResultSet implements driver.RowsNextResultSet.
func (r *cursor) HasNextResultSet() bool { return !r.ended && r.pending == pool.EventResult }

// NextResultSet implements driver.RowsNextResultSet: the next result of a text
// with several statements.
func (r *cursor) NextResultSet() error {
	for !r.ended && r.pending != pool.EventResult {
		event, err := r.run.conn.Next(r.ctx)
		switch {
		case err != nil, event == pool.EventEnd:
			r.finish(err)
		case event == pool.EventResult:
			r.pending = event
		}
	}
	if r.ended {
		return r.end()
	}
	r.pending = pool.EventEnd
	r.columns = newColumns(r.run.conn.Result().Fields, r.run.conn.TypeMap())
	return nil
}

// ColumnTypeDatabaseTypeName implements driver.RowsColumnTypeDatabaseTypeName:
// the type's name in upper case, or its OID where pgx does not know it.
func (r *cursor) ColumnTypeDatabaseTypeName(i int) string {
	if t := r.columns.types[i]; t != nil {
		return strings.ToUpper(t.Name)
	}
	return strconv.FormatUint(uint64(r.field(i).DataTypeOID), 10)
}

// varHeader is what PostgreSQL adds to the length in a type modifier (VARHDRSZ).
const varHeader = 4

// ColumnTypeLength implements driver.RowsColumnTypeLength.
func (r *cursor) ColumnTypeLength(i int) (int64, bool) {
	switch f := r.field(i); f.DataTypeOID {
	case pgtype.TextOID, pgtype.ByteaOID:
		return math.MaxInt64, true
	case pgtype.VarcharOID, pgtype.BPCharOID:
		return int64(f.TypeModifier - varHeader), true
	case pgtype.VarbitOID:
		return int64(f.TypeModifier), true
	default:
		return 0, false
	}
}

// ColumnTypePrecisionScale implements driver.RowsColumnTypePrecisionScale.
func (r *cursor) ColumnTypePrecisionScale(i int) (precision, scale int64, ok bool) {
	f := r.field(i)
	if f.DataTypeOID != pgtype.NumericOID {
		return 0, 0, false
	}
	mod := f.TypeModifier - varHeader
	return int64((mod >> 16) & 0xffff), int64(mod & 0xffff), true
}

// ColumnTypeScanType implements driver.RowsColumnTypeScanType.
func (r *cursor) ColumnTypeScanType(i int) reflect.Type {
	switch r.field(i).DataTypeOID {
	case pgtype.Float8OID, pgtype.NumericOID:
		return reflect.TypeFor[float64]()
	case pgtype.Float4OID:
		return reflect.TypeFor[float32]()
	case pgtype.Int8OID:
		return reflect.TypeFor[int64]()
	case pgtype.Int4OID:
		return reflect.TypeFor[int32]()
	case pgtype.Int2OID:
		return reflect.TypeFor[int16]()
	case pgtype.BoolOID:
		return reflect.TypeFor[bool]()
	case pgtype.DateOID, pgtype.TimestampOID, pgtype.TimestamptzOID:
		return reflect.TypeFor[time.Time]()
	case pgtype.ByteaOID:
		return reflect.TypeFor[[]byte]()
	default:
		return reflect.TypeFor[string]()
	}
}

// field describes column i.
func (r *cursor) field(i int) *pgconn.FieldDescription { return &r.columns.fields[i] }
