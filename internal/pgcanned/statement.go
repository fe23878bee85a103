package pgcanned

import (
	"encoding/binary"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// What every table holds.
const (
	ID   = 1
	Name = "Ada Lovelace"
)

// statement is a text that was understood: everything about its answer that is
// the same each time.
type statement struct {
	unknown  string // why it can not be answered; "" if it can
	kind     kind
	verb     string   // its first word, in capitals
	params   int      // how many parameters it takes
	columns  []column // of a statement that reads
	rows     int      // how often the row is returned
	takes    []byte   // the ParameterDescription
	returns  []byte   // the RowDescription with all formats text, or NoData
	formatAt []int    // where in returns the low byte of each column's format stands
	tag      []byte   // the CommandComplete
}

// kind is what a statement does to its session.
type kind uint8

const (
	other kind = iota // nothing that a later answer would show
	reads
	writes
	opens
	commits
	rollsBack
)

// kinds says what a statement does by its first word.
var kinds = map[string]kind{
	"SELECT": reads, "SHOW": reads,
	"INSERT": writes, "UPDATE": writes, "DELETE": writes, "CREATE": writes, "DROP": writes, "TRUNCATE": writes,
	"BEGIN": opens, "START": opens,
	"COMMIT": commits, "END": commits,
	"ROLLBACK": rollsBack, "ABORT": rollsBack,
	"": other, "SET": other, "RESET": other, "CLOSE": other, "LISTEN": other, "UNLISTEN": other,
	"DISCARD": other, "DEALLOCATE": other,
}

// rolledBack answers a COMMIT of a transaction that has failed.
var rolledBack = message(nil, 'C', "ROLLBACK")

const binaryFormat = 1

var (
	comment   = regexp.MustCompile(`--[^\n]*|(?s:/\*.*?\*/)`)
	space     = regexp.MustCompile(`\s+`)
	parameter = regexp.MustCompile(`\$(\d+)`)
	limit     = regexp.MustCompile(` LIMIT (\d+)$`)
	numbers   = regexp.MustCompile(`\bid = \$(\d+)`) // what is compared with the one column that is a number
)

// compile understands a text: one statement, or several with semicolons between
// them, which nothing in quotes may contain.
func compile(text string) []*statement {
	text = strings.TrimRight(strings.TrimSpace(comment.ReplaceAllString(text, " ")), "; ")
	var statements []*statement
	for part := range strings.SplitSeq(text, ";") {
		part = strings.ReplaceAll(space.ReplaceAllString(strings.TrimSpace(part), " "), "pg_catalog.", "")
		statements = append(statements, compileOne(part))
	}
	return statements
}

// compileOne understands one statement.
func compileOne(sql string) *statement {
	verb, rest, _ := strings.Cut(sql, " ")
	st := &statement{verb: strings.ToUpper(verb), rows: 1}
	var known bool
	if st.kind, known = kinds[st.verb]; !known {
		st.unknown = "pgcanned does not know the statement " + sql
		return st
	}
	st.takeParameters(sql)
	switch st.verb {
	case "":
		st.tag = message(nil, 'I')
	case "SHOW":
		st.addColumn("current_setting('" + rest + "')")
		st.tag = message(nil, 'C', "SHOW")
	case "SELECT":
		st.takeSelect(rest)
		st.tag = message(nil, 'C', "SELECT "+strconv.Itoa(st.rows))
	case "INSERT":
		st.tag = message(nil, 'C', "INSERT 0 1")
	case "UPDATE", "DELETE":
		st.tag = message(nil, 'C', st.verb+" 1")
	default:
		st.tag = message(nil, 'C', st.verb)
	}
	st.describe()
	return st
}

// takeParameters finds out what the statement takes.
func (st *statement) takeParameters(sql string) {
	for _, m := range parameter.FindAllStringSubmatch(sql, -1) {
		n, _ := strconv.Atoi(m[1]) // the pattern allows digits only
		st.params = max(st.params, n)
	}
	oids := make([]uint32, st.params)
	for i := range oids {
		oids[i] = pgtype.TextOID
	}
	for _, m := range numbers.FindAllStringSubmatch(sql, -1) {
		n, _ := strconv.Atoi(m[1])
		oids[n-1] = pgtype.Int4OID
	}
	dst, at := open(nil, 't')
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(oids)))
	for _, oid := range oids {
		dst = binary.BigEndian.AppendUint32(dst, oid)
	}
	st.takes = shut(dst, at)
}

// takeSelect finds out what a SELECT returns: the same row of whatever table, as
// often as its LIMIT says, or once.
func (st *statement) takeSelect(rest string) {
	list, from := cutOutside(rest, " FROM ")
	if m := limit.FindStringSubmatch(from); m != nil {
		st.rows, _ = strconv.Atoi(m[1])
	}
	for more := true; more; more = list != "" {
		var expression string
		expression, list = cutOutside(list, ",")
		st.addColumn(expression)
	}
}

// addColumn adds what an expression stands for to the statement's row.
func (st *statement) addColumn(expression string) {
	expression = strings.TrimSpace(expression)
	c, ok := columnOf(expression)
	if !ok && st.unknown == "" {
		st.unknown = "pgcanned does not know the expression " + expression
	}
	st.columns = append(st.columns, c)
}

// cutOutside cuts text around the first sep that stands outside of parentheses.
func cutOutside(text, sep string) (before, after string) {
	depth := 0
	for i, r := range text {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth--
		case depth == 0 && strings.HasPrefix(text[i:], sep):
			return text[:i], text[i+len(sep):]
		}
	}
	return text, ""
}

// describe builds the description of the statement's row.
func (st *statement) describe() {
	if len(st.columns) == 0 {
		st.returns = message(nil, 'n')
		return
	}
	dst, at := open(nil, 'T')
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(st.columns)))
	for _, c := range st.columns {
		dst = append(append(dst, c.name...), 0)
		dst = append(dst, 0, 0, 0, 0, 0, 0) // of no table
		dst = binary.BigEndian.AppendUint32(dst, c.oid)
		dst = binary.BigEndian.AppendUint16(dst, uint16(c.size))
		dst = append(dst, 0xff, 0xff, 0xff, 0xff, 0, 0) // no modifier; text
		st.formatAt = append(st.formatAt, len(dst)-1)
	}
	st.returns = shut(dst, at)
}
