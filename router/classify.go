package router

import "strings"

const (
	// maxSQL is the longest text that PostgreSQL can take, in bytes.
	maxSQL = 1 << 30
	// maxDepth bounds how deep parentheses are understood. What is nested deeper
	// goes to the primary.
	maxDepth = 64
	// maxFunctions is how many unknown functions a statement can name.
	maxFunctions = 8
)

// Classify reads sql once and tells what it is. Whatever is not surely a pure
// read belongs on the primary. It takes every text, valid or not.
//
// Three things cannot be seen in a text and are taken for reads: user-defined
// operators and casts, functions behind views, and functions called by attribute
// notation (row.function). A standby refuses them if they write.
func Classify(sql string) *Statement {
	if len(sql) > maxSQL {
		return &Statement{SQL: sql, Class: Utility, Count: 1, Reason: "longer than PostgreSQL accepts"}
	}
	c := classifier{scan: scanner{src: sql}, s: &Statement{SQL: sql, Hint: leadingHint(sql)}}
	c.next = c.scan.next()
	for c.statement() {
	}
	c.finish()
	return c.s
}

// frame is what is known about one level of parentheses.
type frame uint8

const (
	atStart     frame = 1 << iota // no token of it has been seen
	inWith                        // in a WITH clause, before the statement it belongs to
	thenOperand                   // an operand follows its closing parenthesis
	inGroupBy                     // in the list of GROUP BY, or not far behind it
)

// classifier walks over the tokens of a text, keeping as little of the grammar
// in mind as the questions need.
type classifier struct {
	scan scanner
	s    *Statement

	prev, cur, next token
	before          word // of the token before prev

	verb    word // of the statement at hand
	explain bool // EXPLAIN stands in front of it
	index   int  // of cur in the statement
	query   bool // expressions are evaluated, so functions matter
	routine bool // CREATE FUNCTION or PROCEDURE
	atomic  int  // BEGIN ATOMIC and CASE that wait for their END

	depth  int
	frames [maxDepth]frame

	// The name that cur ends, as in schema.function.
	parts int   // 0 if it is no chain of names
	lead  token // what stands before it
	head  token // its first part

	class   Class // the most careful one found
	reason  string
	unknown int // functions the built-in table does not have
}

// raise asks for at least class. The first reason for the highest class stays.
func (c *classifier) raise(class Class, reason string) {
	if class > c.class {
		c.class, c.reason = class, reason
	}
}

// advance moves to the next token.
func (c *classifier) advance() {
	c.before = c.prev.word
	c.prev, c.cur = c.cur, c.next
	c.next = c.scan.next()
	if c.cur.kind == dot {
		c.next.word = noWord // any keyword may name a column: t.update
	}
}

// text returns t as it is written.
func (c *classifier) text(t token) string { return c.scan.src[t.start:t.end] }

// statement classifies up to the next semicolon. It reports whether the text
// goes on behind it.
func (c *classifier) statement() bool {
	c.verb, c.explain, c.query, c.routine = noWord, false, false, false
	c.index, c.atomic, c.depth, c.parts = -1, 0, 0, 0
	c.frames[0] = atStart
	c.prev, c.cur = token{}, token{}
	for {
		c.advance()
		switch c.cur.kind {
		case end:
			c.endStatement()
			return false
		case semicolon:
			if c.depth == 0 && c.atomic == 0 {
				c.endStatement()
				return true
			}
			continue
		}
		if c.index++; c.index == 0 {
			c.s.Count++
		}
		c.token()
	}
}

// endStatement looks at what only the end of a statement tells.
func (c *classifier) endStatement() {
	switch {
	case c.index < 0:
		return
	case c.scan.unterminated:
		c.raise(Write, "unterminated quote or comment")
	case c.depth != 0:
		c.raise(Write, "unbalanced parentheses")
	}
	if c.verb == noWord {
		c.raise(Utility, "unknown statement")
	}
}

// token looks at one token of a statement.
func (c *classifier) token() {
	f := c.frame()
	start := *f & atStart
	switch c.cur.kind {
	case open:
		if *f&inWith != 0 && c.prev.kind == closing {
			*f &^= inWith // WITH x AS (...) (SELECT ...)
		}
		*f &^= atStart
		c.push()
		return
	case closing:
		c.pop()
		return
	case name, quoted, escapedName:
		*f &^= atStart
		c.name(start != 0)
		return
	case dot:
		c.dot()
	case broken:
		c.raise(Write, "not PostgreSQL's grammar")
	}
	*f &^= atStart
	if c.verb == noWord {
		c.begin(noWord)
	}
}

// frame returns the level of parentheses at hand.
func (c *classifier) frame() *frame { return &c.frames[min(c.depth, maxDepth-1)] }

func (c *classifier) push() {
	f := atStart
	if c.prev.word == wordOperator || c.prev.word == wordOn && c.before == wordDistinct {
		f |= thenOperand
	}
	if c.depth++; c.depth >= maxDepth {
		c.raise(Write, "deeply nested parentheses")
	}
	*c.frame() = f
}

func (c *classifier) pop() {
	if *c.frame()&thenOperand != 0 {
		c.cur.kind = closingOperand
	}
	if c.depth == 0 {
		c.raise(Write, "unbalanced parentheses")
		return
	}
	c.depth--
}

// dot looks for the schema of temporary objects in front of a dot.
func (c *classifier) dot() {
	if !c.prev.isName() {
		c.parts = 0
		return
	}
	if s := strings.TrimPrefix(c.text(c.prev), `"`); len(s) >= 7 && equalsLower(s[:7], "pg_temp") {
		c.useState("schema pg_temp")
	}
}

// name looks at an identifier or keyword. With start set it is the first token
// of the statement or of its level of parentheses.
func (c *classifier) name(start bool) {
	if c.cur.kind == escapedName {
		c.useState("identifier with Unicode escapes")
	}
	if c.prev.kind != dot {
		c.parts, c.lead, c.head = 1, c.prev, c.cur
	} else if c.parts > 0 {
		c.parts++
	}
	if c.verb == noWord {
		c.begin(c.cur.word)
		return
	}
	if c.next.kind == open && c.query {
		c.call()
	}
	if c.cur.word > plainWord {
		c.keyword(start)
	}
}

// useState notes that the text uses or changes state of the server session.
func (c *classifier) useState(reason string) {
	c.s.UsesState = true
	c.raise(Session, reason)
}

// keyword looks at a keyword behind the first one.
func (c *classifier) keyword(start bool) {
	switch c.cur.word {
	case wordSelect:
		c.query = true
		*c.frame() &^= inWith | inGroupBy
	case wordValues:
		if c.prev.kind != comma && c.prev.word != wordWith && c.prev.word != wordRecursive { // else a name
			*c.frame() &^= inWith
		}
	case wordBy:
		if c.prev.word == wordGroup {
			*c.frame() |= inGroupBy
		}
	case wordTable, wordOrder, wordLimit, wordOffset, wordFetch, wordSetOperation:
		*c.frame() &^= inWith | inGroupBy
	case wordWith:
		if start {
			*c.frame() |= inWith
		}
	case wordInsert, wordUpdate, wordDelete, wordMerge:
		c.modification(start)
	case wordInto:
		c.into()
	}
	switch c.cur.word {
	case wordUpdate, wordShare:
		c.lock()
	}
	c.clause()
}

// modification looks at a word that begins a data-modifying statement if it
// stands where a statement begins. Elsewhere it names a column or a lock.
func (c *classifier) modification(start bool) {
	if !start && *c.frame()&inWith == 0 {
		return
	}
	if c.next.isName() && c.next.word != wordAs && c.next.word != wordIs {
		c.raise(Write, "data-modifying WITH")
		*c.frame() &^= inWith
	}
}

// lock looks for FOR [NO KEY] UPDATE and FOR [KEY] SHARE.
func (c *classifier) lock() {
	behindFor := c.prev.word == wordFor ||
		c.prev.word == wordKey && (c.before == wordFor || c.before == wordNo)
	switch {
	case !behindFor:
	case c.cur.word == wordUpdate:
		c.raise(Write, "FOR UPDATE")
	default:
		c.raise(Write, "FOR SHARE")
	}
}

// into looks at SELECT INTO. INSERT INTO has its class already, and AS into only
// names a column.
func (c *classifier) into() {
	switch c.prev.word {
	case wordAs, wordInsert, wordMerge:
		return
	}
	c.raise(Write, "SELECT INTO")
	switch c.next.word {
	case wordTemp, wordLocal, wordGlobal:
		c.useState("temporary table")
	}
}

// call looks at a name in front of a parenthesis.
func (c *classifier) call() {
	if c.parts == 1 && c.opensList() {
		return
	}
	f := c.lookup()
	switch {
	case f == nil && !c.namesNoFunction():
		c.callUnknown()
	case f == nil || f.effect == 0:
	case f.effect&usesState != 0:
		c.useState(f.reason)
		c.s.SetsLocal = c.s.SetsLocal || f.effect&setsLocal != 0
	default:
		c.raise(Write, f.reason)
	}
}

// opensList reports whether the parenthesis after the keyword cur begins
// something else than the arguments of a function: IN (, VALUES (.
func (c *classifier) opensList() bool {
	w := c.cur.word
	return w >= listWord || w >= softWord && c.softWordOpensList()
}

// softWordOpensList tells, by what stands before a word that may also name a
// function, whether the grammar has put it there.
func (c *classifier) softWordOpensList() bool {
	before, prev := c.before, c.prev.word
	switch c.cur.word {
	case wordBy:
		return prev == wordGroup || prev == wordOrder || prev == wordPartition
	case wordConflict:
		return prev == wordOn && c.class != Read
	case wordMaterialized:
		return prev == wordAs || prev == wordNot && before == wordAs
	case wordRollup:
		return *c.frame()&inGroupBy != 0 &&
			(prev == wordBy || prev == wordDistinct || prev == wordAll || c.prev.kind == comma)
	case wordSets:
		return prev == wordGrouping
	case wordVarying:
		return prev == wordCharacter
	case wordZone:
		return prev == wordTime
	case wordLike:
		return prev == wordNot || !c.beginsOperand()
	default:
		return !c.beginsOperand()
	}
}

// beginsOperand reports whether the token before cur calls for an operand.
func (c *classifier) beginsOperand() bool {
	switch c.prev.kind {
	case open, comma, operator, closingOperand:
		return true
	}
	return c.prev.word >= softWord
}

// lookup finds the function that cur names in the built-in table, which knows
// none outside pg_catalog.
func (c *classifier) lookup() *function {
	if c.parts != 1 && (c.parts != 2 || !c.headIsCatalog()) {
		return nil
	}
	s := c.text(c.cur)
	if c.cur.kind == quoted && len(s) > 2 {
		return lookupFunction(s[1:len(s)-1], true)
	}
	return lookupFunction(s, false)
}

func (c *classifier) headIsCatalog() bool {
	s := c.text(c.head)
	return s == `"pg_catalog"` || len(s) == len("pg_catalog") && equalsLower(s, "pg_catalog")
}

// namesNoFunction reports whether the name in front of a parenthesis is that of
// a type, of a table with its columns, or an alias with the names of its columns.
func (c *classifier) namesNoFunction() bool {
	if c.parts == 0 {
		return false
	}
	switch c.lead.kind {
	case cast, closing:
		return true // x::app.kind(3), (...) alias (a, b)
	case comma:
		return *c.frame()&inWith != 0 // WITH x AS (...), y (a, b) AS
	}
	switch c.lead.word {
	case wordAs, wordInto:
		return true
	case wordWith, wordRecursive:
		return *c.frame()&inWith != 0
	}
	if c.verb == wordMerge && c.cur.word == wordInsert {
		return true // THEN INSERT (a, b)
	}
	return c.lead.isIdentifier() // t alias (a, b)
}

// callUnknown notes a function of which only the catalog knows what it does.
func (c *classifier) callUnknown() {
	c.s.SetsLocal = true
	if c.unknown++; c.unknown <= maxFunctions {
		c.s.Functions = append(c.s.Functions, c.foldedName())
	}
}

// foldedName returns the name that ends at cur as PostgreSQL's catalog has it.
func (c *classifier) foldedName() string {
	if c.parts == 0 {
		return c.foldedPart(c.cur)
	}
	parts := scanner{src: c.scan.src[:c.cur.end], pos: int(c.head.start)}
	var folded strings.Builder
	for t := parts.next(); t.kind != end; t = parts.next() {
		if t.kind == dot {
			folded.WriteByte('.')
		} else {
			folded.WriteString(c.foldedPart(t))
		}
	}
	return folded.String()
}

// foldedPart keeps the quotes of a part that would not be understood without.
func (c *classifier) foldedPart(t token) string {
	s := c.text(t)
	switch {
	case t.kind != quoted:
		return strings.ToLower(s)
	case len(s) < 3 || strings.ContainsAny(s[1:len(s)-1], `."`):
		return s
	default:
		return s[1 : len(s)-1]
	}
}

// finish draws the conclusion from all statements of the text.
func (c *classifier) finish() {
	s := c.s
	switch {
	case s.Count == 0:
		c.reason = "empty"
	case c.class == Read && c.unknown > 0:
		c.readUnlessFunctionsWrite()
	case c.class == Read:
		c.reason = "pure read"
	default:
		s.Functions = nil
	}
	if s.Count > 1 {
		s.Functions = nil
		if c.class == Write {
			c.class, c.reason = Utility, "several statements: "+c.reason
		}
	}
	s.Class, s.Reason = c.class, c.reason
}

// readUnlessFunctionsWrite keeps a statement on the primary because nothing is
// known about functions it calls.
func (c *classifier) readUnlessFunctionsWrite() {
	c.class, c.reason = Write, "function "+c.s.Functions[0]+" is not known"
	if c.unknown > maxFunctions {
		c.s.Functions = nil
	}
}
