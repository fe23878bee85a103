package helios

import (
	"context"
	"database/sql/driver"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/router"
)

// query is one statement of the application with all that was said about it.
type query struct {
	stmt    *router.Statement
	args    []any
	mode    pgx.QueryExecMode
	byOID   pgx.QueryResultFormatsByOID
	wish    wish
	session *Session
	level   Consistency
	seed    *uint64 // the balancer's, of the driver session

	learned    bool // a standby has refused the text: it writes
	readOnlyTx bool // part of a transaction that may run on a replica
	writingTx  bool // part of any other transaction
	counts     bool // what it reads becomes what its session has seen
}

// hint returns where the caller wants the statement to go. A context and an
// option argument outweigh a leading comment.
func (q *query) hint() router.Hint {
	if q.wish.hint != router.HintNone {
		return q.wish.hint
	}
	return q.stmt.Hint
}

// writes reports whether the statement may change data or state.
func (q *query) writes() bool {
	return (q.stmt.Class != router.Read || q.learned) && !q.readOnlyTx
}

// atomic reports whether the statement writes, and commits at its end or not at all. A read
// that a standby has refused writes, whatever its class.
func (q *query) atomic() bool {
	return q.writes() && q.stmt.Class <= router.Write && q.stmt.Count <= 1
}

// begins reports whether the statement may change data or state, or, where it
// should wait with that on a hold, whether it begins a transaction that may.
func (q *query) begins(hold bool) bool { return q.writes() || hold && q.writingTx }

// repeatable reports whether the statement may be sent again after it may have
// been executed: a read has no effect that could happen twice.
// A text that a standby has refused once is no read, whatever it looks like.
func (q *query) repeatable() bool { return q.stmt.Class == router.Read && !q.learned }

// newQuery gathers in q, which is empty, what is said about a statement: by the
// context, by option arguments that CheckNamedValue kept, and by pgx's leading
// options.
func (s *Conn) newQuery(ctx context.Context, q *query, sql string, named []driver.NamedValue) error {
	c := s.cluster
	q.mode, q.level, q.session, q.seed = c.execMode, c.config.Consistency, &c.whole, &s.seed
	if w := wishOf(ctx); w != nil {
		q.wish = *w
	}
	if s.option != nil {
		w := q.wish // not q's own: what a function is given lives on the heap
		s.option(&w)
		q.wish, s.option = w, nil
	}
	if s.tx != nil {
		q.wish.follow(s.tx.wish)
	}
	c.applyWish(q)
	q.args = s.arguments(named)
	sql, err := q.takeOptions(ctx, sql)
	if err != nil {
		return err
	}
	q.stmt = c.statements.Get(sql)
	q.learned = q.stmt.Learned()
	if s.tx != nil {
		q.readOnlyTx, q.writingTx = s.tx.readOnly, !s.tx.readOnly
	}
	q.counts = c.readsCount(q)
	return nil
}

// readsCount reports whether what q reads moves the token of its session: reads
// that ask for the session's consistency or more, in a session of the program's
// own. That of the whole *sql.DB would have every read wait for what any other
// has seen.
func (c *Cluster) readsCount(q *query) bool {
	return q.session != &c.whole && (q.level.kind == levelSession || q.level.kind == levelStrong) && c.config.LSN != LSNOff &&
		q.wish.node == "" && q.repeatable() && q.stmt.Count > 0 && !precedesSnapshot(q.stmt)
}

// applyWish finds the session and the level the wish names.
func (c *Cluster) applyWish(q *query) {
	switch {
	case q.wish.session != nil:
		q.session = q.wish.session
	case q.wish.id != "":
		q.session = c.named.get(q.wish.id, c.now())
	}
	if q.wish.level != nil {
		q.level = *q.wish.level
	}
}

// arguments returns the values of named in the session's own buffer.
func (s *Conn) arguments(named []driver.NamedValue) []any {
	s.args = s.args[:0]
	for i := range named {
		s.args = append(s.args, named[i].Value)
	}
	return s.args
}

// takeOptions honours the options that pgx takes as leading arguments.
// Formats by position say nothing: pgx/stdlib passes its own formats by OID,
// which outweigh them, and the binary form of many types has no text.
func (q *query) takeOptions(ctx context.Context, sql string) (string, error) {
	var rewriter pgx.QueryRewriter
	for len(q.args) > 0 {
		switch option := q.args[0].(type) {
		case pgx.QueryResultFormats:
		case pgx.QueryResultFormatsByOID:
			q.byOID = option
		case pgx.QueryExecMode:
			if option < pgx.QueryExecModeCacheStatement || option > pgx.QueryExecModeSimpleProtocol {
				return "", fmt.Errorf("helios: unknown QueryExecMode: %v", option)
			}
			q.mode = option
		case pgx.QueryRewriter:
			rewriter = option
		default:
			return q.rewrite(ctx, sql, rewriter)
		}
		q.args = q.args[1:]
	}
	return q.rewrite(ctx, sql, rewriter)
}

// rewrite applies a pgx.QueryRewriter, such as pgx.NamedArgs. It is given no
// connection: which one the statement goes to is not known before its text is.
func (q *query) rewrite(ctx context.Context, sql string, rewriter pgx.QueryRewriter) (string, error) {
	if rewriter == nil {
		return sql, nil
	}
	sql, args, err := rewriter.RewriteQuery(ctx, nil, sql, q.args)
	if err != nil {
		return "", fmt.Errorf("helios: rewrite query failed: %w", err)
	}
	q.args = args
	return sql, nil
}

// resultFormats returns the formats the caller asked for; nil for the driver's
// own choice.
func (q *query) resultFormats(fields []pgconn.FieldDescription) []int16 {
	if q.byOID == nil {
		return nil
	}
	formats := make([]int16, len(fields))
	for i := range fields {
		formats[i] = q.byOID[fields[i].DataTypeOID]
	}
	return formats
}

// formatsAsUsual reports whether the driver chooses the result formats.
func (q *query) formatsAsUsual() bool { return q.byOID == nil && !q.oneShot() }

// oneShot reports whether the statement is parsed with every execution, with
// text parameters: what pgx calls QueryExecModeExec, and what stands for its
// simple protocol here, which is never used for a single statement. DDL, SET
// and their like hardly come twice: without arguments they are not prepared.
func (q *query) oneShot() bool {
	return q.mode == pgx.QueryExecModeExec || q.mode == pgx.QueryExecModeSimpleProtocol ||
		len(q.args) == 0 && q.stmt.Class >= router.Utility && !planned(q.stmt.Verb)
}

// planned reports whether the statements of a verb have a plan, and columns of
// types that are read best in binary form. DateStyle and extra_float_digits
// change what the text of a date or a number says.
func planned(verb string) bool {
	switch verb {
	case "SELECT", "TABLE", "VALUES", "WITH", "INSERT", "UPDATE", "DELETE", "MERGE":
		return true
	default:
		return false
	}
}

// unnamed reports whether the statement is not to stay prepared.
func (q *query) unnamed() bool {
	return q.mode == pgx.QueryExecModeDescribeExec || q.mode == pgx.QueryExecModeCacheDescribe ||
		len(q.stmt.SQL) > maxPreparedText
}

// maxPreparedText is the length of text in bytes up to which a statement stays
// prepared. Longer ones hardly come twice.
const maxPreparedText = 8 << 10
