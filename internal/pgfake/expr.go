package pgfake

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
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
	r, err := e.row(terms)
	if err != nil {
		return Reply{Fault: Fault{Err: asError(err)}}, true
	}
	if empty(e) {
		r.Rows = nil
	}
	return r, true
}

// row evaluates the terms of a select list.
func (e *env) row(terms []term) (Reply, error) {
	var r Reply
	var row []any
	for _, t := range terms {
		v, err := t.eval(e)
		if err != nil {
			return Reply{}, err
		}
		r.Columns = append(r.Columns, Column{t.name, v.oid})
		row = append(row, v.v)
	}
	r.Rows = [][]any{row}
	return r, nil
}

func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
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

// expression reads everything up to OR.
func (p *parser) expression() term {
	left := p.conjunction()
	for p.accept("OR") {
		left = combine(left, p.conjunction(), func(a, b value) (value, error) {
			return value{a.v == true || b.v == true, pgtype.BoolOID}, nil
		})
	}
	return left
}

// conjunction reads comparisons with AND between them.
func (p *parser) conjunction() term {
	left := p.negation()
	for p.accept("AND") {
		left = combine(left, p.negation(), func(a, b value) (value, error) {
			return value{a.v == true && b.v == true, pgtype.BoolOID}, nil
		})
	}
	return left
}

// negation reads a comparison, maybe with NOT in front.
func (p *parser) negation() term {
	if !p.accept("NOT") {
		return p.comparison()
	}
	return apply(p.negation(), func(v value) (value, error) {
		if v.v == nil {
			return v, nil
		}
		return value{v.v != true, pgtype.BoolOID}, nil
	})
}

// comparison reads an operand, maybe compared with another.
func (p *parser) comparison() term {
	left := p.quotient()
	switch op := p.peek(); {
	case slices.Contains(comparisons, op):
		p.next()
		return combine(left, p.quotient(), func(a, b value) (value, error) { return compare(op, a, b) })
	case op == "IS":
		p.next()
		not := p.accept("NOT")
		p.expect("NULL")
		return apply(left, func(v value) (value, error) {
			return value{(v.v == nil) != not, pgtype.BoolOID}, nil
		})
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
		t = apply(inner, func(v value) (value, error) { return convert(v, oid) })
		t.name = inner.name
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
	args := p.arguments()
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

// arguments reads what stands in parentheses behind a function, if anything.
func (p *parser) arguments() []term {
	var args []term
	if !p.accept("(") || p.accept(")") {
		return nil
	}
	for !p.bad {
		args = append(args, p.expression())
		if !p.accept(",") {
			break
		}
	}
	p.expect(")")
	return args
}
