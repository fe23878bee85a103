package pool

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"
)

// Prepared is a statement as one connection knows it.
type Prepared struct {
	Fields []pgconn.FieldDescription // result columns, with the format they will come in
	// Plan is the holder's: how it reads the columns. It lives as long as the
	// statement.
	Plan any

	desc    pgconn.StatementDescription
	text    string  // sent with every execution if the statement has no life of its own
	formats []int16 // of the result columns, as they are asked for
	wanted  []int16 // what the application asked for instead, this time
}

// ParamCount returns how many parameters the statement takes.
func (p *Prepared) ParamCount() int { return len(p.desc.ParamOIDs) }

// maxParams is how many parameters a Bind message can carry.
const maxParams = 65535

// Prepare returns sql as a prepared statement of this connection: from the
// connection's cache, or with one round trip. Unnamed statements are described
// again each time and spare the server a name. A *pgconn.PgError is the
// server's; other errors are as from Send and Next, with Sent false.
func (c *Conn) Prepare(ctx context.Context, sql string, unnamed bool) (*Prepared, error) {
	if !unnamed {
		if p := c.prepared[sql]; p != nil {
			return p, nil
		}
		c.makeRoom()
	}
	p := &Prepared{}
	if !unnamed {
		c.named++
		p.desc.Name = "helios_" + strconv.Itoa(c.named)
	}
	p.desc.SQL = sql
	if err := c.describeStatement(ctx, p); err != nil {
		return nil, err
	}
	if !unnamed {
		c.prepared[sql] = p
	}
	return p, nil
}

// Known reports whether sql is prepared on this connection already.
func (c *Conn) Known(sql string) bool { return c.prepared[sql] != nil }

// OneShot returns a statement that is parsed, bound and executed in one flush,
// with parameters and results as text: what needs no round trip of its own and
// no memory on the server.
func OneShot(sql string) *Prepared { return &Prepared{text: sql} }

// describeStatement parses and describes p.
func (c *Conn) describeStatement(ctx context.Context, p *Prepared) error {
	r := c.NewCall()
	r.sentBefore = c.wire.sent.Load()
	if ctx.Err() != nil {
		return &InterruptedError{Err: context.Cause(ctx)}
	}
	c.closeDiscarded()
	c.parse = pgproto3.Parse{Name: p.desc.Name, Query: p.desc.SQL}
	c.fe.SendParse(&c.parse)
	c.describe = pgproto3.Describe{ObjectType: 'S', Name: p.desc.Name}
	c.fe.SendDescribe(&c.describe)
	c.sendSync(r)
	c.describing = &p.desc
	defer func() { c.describing = nil }()
	c.arm(ctx)
	if err := c.fe.Flush(); err != nil {
		c.giveUp(ctx)
		return c.failure(ctx, err)
	}
	if err := c.Drain(ctx); err != nil {
		return err
	}
	if r.Err != nil {
		return r.Err
	}
	c.described(p, r.Fields)
	return nil
}

// described completes p with its result columns.
func (c *Conn) described(p *Prepared, fields []pgconn.FieldDescription) {
	p.formats = make([]int16, len(fields))
	for i := range fields {
		p.formats[i] = resultFormat(fields[i].DataTypeOID)
		fields[i].Format = p.formats[i]
	}
	p.Fields = fields
}

// resultFormat returns the format in which a column of type oid is asked for:
// binary (1) for the types that database/sql has itself, which pgx/stdlib asks
// for so as well, and text (0) for all others.
func resultFormat(oid uint32) int16 {
	switch oid {
	case pgtype.BoolOID, pgtype.ByteaOID, pgtype.CIDOID, pgtype.DateOID, pgtype.Float4OID, pgtype.Float8OID,
		pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID, pgtype.OIDOID, pgtype.TimestampOID, pgtype.TimestamptzOID, pgtype.XIDOID:
		return pgtype.BinaryFormatCode
	default:
		return pgtype.TextFormatCode
	}
}

// makeRoom lets go of one statement when the cache is full. Which one does not
// matter much: a statement in use comes back at the price of one round trip.
func (c *Conn) makeRoom() {
	if len(c.prepared) < c.capacity {
		return
	}
	for sql, p := range c.prepared {
		delete(c.prepared, sql)
		c.discarded = append(c.discarded, p.desc.Name)
		return
	}
}

// Forget drops sql from the cache: its plan is void.
func (c *Conn) Forget(sql string) {
	if p := c.prepared[sql]; p != nil {
		delete(c.prepared, sql)
		c.discarded = append(c.discarded, p.desc.Name)
	}
}

// ForgetStatements drops every statement of the application from the cache, and
// has the server close them with the next flush.
func (c *Conn) ForgetStatements() {
	for sql := range c.prepared {
		c.Forget(sql)
	}
}

// ForgetPlans drops the plans of prepared statements, for a holder who may have
// changed what the types of the connection are.
func (c *Conn) ForgetPlans() {
	for _, p := range c.prepared {
		p.Plan = nil
	}
}

// ForgetAll notes that the server may have dropped every prepared statement,
// the driver's own among them. Names are not given twice, so that it does no
// harm if it has not.
func (c *Conn) ForgetAll() {
	clear(c.prepared)
	c.discarded = nil
	c.helpers.names = [helperCount]string{}
	c.helpers.generation++
}

// closeDiscarded tells the server which statements are not needed any more.
// Closing a name that is gone already is no error.
func (c *Conn) closeDiscarded() {
	for _, name := range c.discarded {
		c.closing = pgproto3.Close{ObjectType: 'S', Name: name}
		c.fe.SendClose(&c.closing)
	}
	c.discarded = c.discarded[:0]
}

// Bind encodes args for p; the next call's Main sends them. formats is what
// the application asked for result columns, nil for the driver's choice. An
// error is about the arguments: nothing was sent.
func (c *Conn) Bind(p *Prepared, args []any, formats []int16) error {
	p.wanted = formats
	if len(args) > maxParams {
		return fmt.Errorf("%d arguments: PostgreSQL takes %d at most", len(args), maxParams)
	}
	if p.text != "" {
		return c.builder.Build(c.TypeMap(), nil, args)
	}
	if len(args) != len(p.desc.ParamOIDs) {
		return fmt.Errorf("expected %d arguments, got %d", len(p.desc.ParamOIDs), len(args))
	}
	return c.builder.Build(c.TypeMap(), &p.desc, args)
}

// sendPrepared sends the statement that was bound last.
func (c *Conn) sendPrepared(p *Prepared) {
	if p.text != "" {
		c.parse = pgproto3.Parse{Query: p.text}
		c.fe.SendParse(&c.parse)
	}
	formats := p.formats
	if p.wanted != nil {
		formats = p.wanted
	}
	c.bind = pgproto3.Bind{
		PreparedStatement:    p.desc.Name,
		ParameterFormatCodes: c.builder.ParamFormats,
		Parameters:           c.builder.ParamValues,
		ResultFormatCodes:    formats,
	}
	c.fe.SendBind(&c.bind)
	if p.text != "" {
		c.describe = pgproto3.Describe{ObjectType: 'P'}
		c.fe.SendDescribe(&c.describe)
	}
	c.execute = pgproto3.Execute{}
	c.fe.SendExecute(&c.execute)
}

// sendUnnamed parses and executes a statement without parameters.
func (c *Conn) sendUnnamed(sql string) {
	c.parse = pgproto3.Parse{Query: sql}
	c.fe.SendParse(&c.parse)
	c.bind = pgproto3.Bind{}
	c.fe.SendBind(&c.bind)
	c.execute = pgproto3.Execute{}
	c.fe.SendExecute(&c.execute)
}
