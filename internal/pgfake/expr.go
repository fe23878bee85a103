package pgfake

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heliosdb/helios/wal"
)

// A value is the result of an expression. v is nil for NULL, and for every
// function of a statement that is only described.
type value struct {
	v   any
	oid uint32
}

// A term is a parsed expression.
type term struct {
	name string // of the result column
	eval func(*env) (value, error)
}

// An env is what expressions refer to.
type env struct {
	s    *session
	node state // as it is when the statement begins
	q    Query
}

// A parser reads a SELECT without tables: literals, parameters, calls of the
// model's functions, CASE, casts, comparisons, / and sub-selects. bad is set
// when the text is anything else.
type parser struct {
	tokens []string
	bad    bool
}

var token = regexp.MustCompile(`'(?:[^']|'')*'|"[^"]*"|\$\d+|\d+(?:\.\d+)?|[A-Za-z_]\w*|::|<=|>=|<>|!=|\S`)

// evaluate answers a SELECT whose values the model knows.
func (s *session) evaluate(q Query) (Reply, bool) {
	if verb(q.SQL) != "SELECT" {
		return Reply{}, false
	}
	p := &parser{tokens: token.FindAllString(q.SQL, -1)}
	terms, empty := p.selectList()
	if p.bad || len(p.tokens) > 0 {
		return Reply{}, false
	}
	e := &env{s: s, node: s.node.state(), q: q}
	var r Reply
	var row []any
	for _, t := range terms {
		v, err := t.eval(e)
		if err != nil {
			return Reply{Fault: Fault{Err: asError(err)}}, true
		}
		r.Columns = append(r.Columns, Column{t.name, v.oid})
		row = append(row, v.v)
	}
	if !empty(e) {
		r.Rows = [][]any{row}
	}
	return r, true
}

func asError(err error) *Error {
	if e, ok := err.(*Error); ok {
		return e
	}
	return &Error{Code: "XX000", Message: "pgfake: " + err.Error()}
}

// peek returns the next token in upper case, "" at the end.
func (p *parser) peek() string {
	if len(p.tokens) == 0 {
		return ""
	}
	return strings.ToUpper(p.tokens[0])
}

// next takes a token as it is written.
func (p *parser) next() string {
	if len(p.tokens) == 0 {
		p.bad = true
		return ""
	}
	t := p.tokens[0]
	p.tokens = p.tokens[1:]
	return t
}

// accept takes the next token if it is this word.
func (p *parser) accept(word string) bool {
	if p.peek() != word {
		return false
	}
	p.tokens = p.tokens[1:]
	return true
}

// expect takes a word that must come.
func (p *parser) expect(word string) {
	if !p.accept(word) {
		p.bad = true
	}
}

// selectList reads from SELECT to the end of FROM; empty says whether the
// source has no row.
func (p *parser) selectList() (terms []term, empty func(*env) bool) {
	p.expect("SELECT")
	for !p.bad {
		terms = append(terms, p.column())
		if !p.accept(",") {
			break
		}
	}
	empty = func(*env) bool { return false }
	if p.accept("FROM") {
		source := strings.ToLower(p.name())
		if p.accept("(") {
			p.expect(")")
		}
		if empty = sources[source]; empty == nil {
			p.bad = true
		}
	}
	return terms, empty
}

// column reads an expression and its alias.
func (p *parser) column() term {
	t := p.expression()
	if p.accept("AS") {
		t.name = strings.Trim(p.next(), `"`)
	}
	return t
}

// name reads an identifier; the schema in front of it does not count.
func (p *parser) name() string {
	name := p.next()
	for p.accept(".") {
		name = p.next()
	}
	return strings.Trim(name, `"`)
}

var comparisons = []string{"=", "<>", "!=", "<", "<=", ">", ">="}

// expression reads a comparison.
func (p *parser) expression() term {
	left := p.quotient()
	switch op := p.peek(); {
	case slices.Contains(comparisons, op):
		p.next()
		right := p.quotient()
		return combine(left, right, func(a, b value) (value, error) { return compare(op, a, b) })
	case op == "IS":
		p.next()
		not := p.accept("NOT")
		p.expect("NULL")
		return term{"?column?", func(e *env) (value, error) {
			v, err := left.eval(e)
			return value{(v.v == nil) != not, pgtype.BoolOID}, err
		}}
	}
	return left
}

// quotient reads operands with / between them.
func (p *parser) quotient() term {
	left := p.cast()
	for p.accept("/") {
		left = combine(left, p.cast(), divide)
	}
	return left
}

// cast reads an operand and the casts behind it.
func (p *parser) cast() term {
	t := p.operand()
	for p.accept("::") {
		inner, oid := t, castOIDs[strings.ToLower(p.name())]
		if oid == 0 {
			p.bad = true
		}
		t = term{inner.name, func(e *env) (value, error) {
			v, err := inner.eval(e)
			if err != nil {
				return v, err
			}
			return convert(v, oid)
		}}
	}
	return t
}

// operand reads what stands between operators.
func (p *parser) operand() term {
	switch head := p.peek(); {
	case p.accept("("):
		defer p.expect(")")
		if p.peek() == "SELECT" {
			return p.subselect()
		}
		return p.expression()
	case p.accept("CASE"):
		return p.caseWhen()
	case p.accept("NULL"):
		return constant("?column?", nil)
	case p.accept("TRUE"), p.accept("FALSE"):
		return constant("bool", head == "TRUE")
	case head == "":
		p.bad = true
		return term{}
	case head[0] == '\'':
		return constant("?column?", unquote(p.next()))
	case head[0] == '$':
		return p.argument()
	case head[0] >= '0' && head[0] <= '9':
		return p.number()
	default:
		return p.call()
	}
}

// number reads a literal: an integer, or a float as in pg_sleep(0.5).
func (p *parser) number() term {
	text := p.next()
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return term{"?column?", func(*env) (value, error) { return value{n, pgtype.Int4OID}, nil }}
	}
	f, err := strconv.ParseFloat(text, 64)
	p.bad = p.bad || err != nil
	return constant("?column?", f)
}

func constant(name string, v any) term {
	return term{name, func(*env) (value, error) { return value{v, oidOf(v)}, nil }}
}

// argument reads a parameter.
func (p *parser) argument() term {
	i, err := strconv.Atoi(p.next()[1:])
	p.bad = p.bad || err != nil
	return term{"?column?", func(e *env) (value, error) {
		if i < 1 || i > len(e.q.Args) {
			return value{nil, pgtype.TextOID}, nil
		}
		v := e.q.Args[i-1].decode()
		return value{v, oidOf(v)}, nil
	}}
}

// subselect reads a scalar sub-select.
func (p *parser) subselect() term {
	terms, empty := p.selectList()
	if len(terms) != 1 {
		p.bad = true
		return term{}
	}
	return term{terms[0].name, func(e *env) (value, error) {
		v, err := terms[0].eval(e)
		if empty(e) {
			v.v = nil
		}
		return v, err
	}}
}

// caseWhen reads CASE WHEN … THEN … ELSE … END. Only the branch that is taken
// is evaluated.
func (p *parser) caseWhen() term {
	type branch struct{ when, then term }
	var branches []branch
	for p.accept("WHEN") {
		when := p.expression()
		p.expect("THEN")
		branches = append(branches, branch{when, p.expression()})
	}
	otherwise := constant("case", nil)
	if p.accept("ELSE") {
		otherwise = p.expression()
	}
	p.expect("END")
	return term{"case", func(e *env) (value, error) {
		for _, b := range branches {
			v, err := b.when.eval(e)
			if err != nil {
				return v, err
			}
			if v.v == true || e.q.Describing {
				return b.then.eval(e)
			}
		}
		return otherwise.eval(e)
	}}
}

// call reads a function call, or a column of a source.
func (p *parser) call() term {
	name := strings.ToLower(p.name())
	f := functions[name]
	if f == nil {
		p.bad = true
		return term{}
	}
	var args []term
	if p.accept("(") && !p.accept(")") {
		for !p.bad {
			args = append(args, p.expression())
			if !p.accept(",") {
				break
			}
		}
		p.expect(")")
	}
	return term{name, func(e *env) (value, error) {
		values := make([]value, max(len(args), 3))
		for i, a := range args {
			v, err := a.eval(e)
			if err != nil {
				return v, err
			}
			values[i] = v
		}
		return f(e, values)
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
			return cmpUint(uint64(x), uint64(y))
		}
	}
	x, okX := asInt(a)
	y, okY := asInt(b)
	if okX && okY {
		return cmpUint(uint64(x)^1<<63, uint64(y)^1<<63)
	}
	return strings.Compare(asText(a), asText(b))
}

func cmpUint(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
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
