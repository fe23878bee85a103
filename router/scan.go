package router

import "strings"

// kind is what a token is to the classifier, which cares for less than a parser
// does: all constants are one kind, and so are all operators.
type kind uint8

const (
	end         kind = iota
	name             // identifier or keyword without quotes
	quoted           // "identifier"
	escapedName      // U&"identifier": its letters may be escaped
	constant         // string, number, bit string or parameter
	operator         // one operator, := or ..
	cast             // ::
	dot
	comma
	semicolon
	open           // (
	closing        // )
	closingOperand // ) after which an operand begins, as in DISTINCT ON (a) b
	bracket        // [ or ]
	broken         // no PostgreSQL token: the server will refuse the text
)

// token is a piece of the text. Tokens hold positions, not strings, so that
// scanning allocates nothing.
type token struct {
	kind       kind
	word       word // keyword, for kind name
	start, end int32
}

// isName reports whether t can be part of the name of a table or function.
func (t token) isName() bool { return t.kind >= name && t.kind <= escapedName }

// isIdentifier reports whether t is a name and no keyword of any category.
func (t token) isIdentifier() bool { return t.isName() && t.word == noWord }

// byteClass tells which token can begin with a byte.
type byteClass uint8

const (
	classOther byteClass = iota
	classSpace
	classLetter // begins an identifier; every byte above ASCII does
	classDigit
	classOperator
	classSelf // a token by itself: , ; ( ) [ ]
	classDot
	classColon
	classQuote
	classDoubleQuote
	classDollar
	classEnd // no byte at all: the text has ended
)

var (
	classes = byteClasses()
	inName  = nameBytes() // bytes that continue an identifier
)

func byteClasses() (t [256]byteClass) {
	set := func(class byteClass, bytes string) {
		for i := range len(bytes) {
			t[bytes[i]] = class
		}
	}
	set(classSpace, " \t\n\r\f\v")
	set(classDigit, "0123456789")
	set(classOperator, "~!@#^&|`?+-*/%<>=") // op_chars in parser/scan.l
	set(classSelf, ",;()[]")
	set(classDot, ".")
	set(classColon, ":")
	set(classQuote, "'")
	set(classDoubleQuote, `"`)
	set(classDollar, "$")
	for b := range t {
		if b >= 0x80 || b == '_' || 'a' <= b|0x20 && b|0x20 <= 'z' {
			t[b] = classLetter
		}
	}
	return t
}

func nameBytes() (t [256]bool) {
	for b, class := range classes {
		t[b] = class == classLetter || class == classDigit || class == classDollar
	}
	return t
}

// scanner cuts a text into tokens as PostgreSQL's parser/scan.l does with
// standard_conforming_strings on. The zero scanner with src set is ready.
type scanner struct {
	src string
	pos int
	// unterminated is set when the text ends inside a comment or a quote.
	unterminated bool
}

// next returns the next token. After the last one it returns kind end for ever.
func (s *scanner) next() (t token) {
	class := classEnd
	src, pos := s.src, s.pos
	for ; pos < len(src); pos++ {
		if class = classes[src[pos]]; class != classSpace {
			break
		}
	}
	s.pos = pos
	if class == classOperator { // a comment begins with what may be one
		class = s.skipComments()
	}
	t.start = int32(s.pos) // Classify bounds the length
	switch class {
	case classEnd, classSpace:
		return token{}
	case classLetter:
		t.kind, t.word = s.scanName()
	case classSelf:
		t.kind = selfKind(src[s.pos])
		s.pos++
	case classDigit:
		t.kind = s.scanNumber()
	case classOperator:
		t.kind = s.scanOperator()
	case classQuote:
		t.kind = s.scanQuoted('\'', constant)
	case classDoubleQuote:
		t.kind = s.scanQuoted('"', quoted)
	case classDot:
		t.kind = s.scanDot()
	case classColon:
		t.kind = s.scanColon()
	case classDollar:
		t.kind = s.scanDollar()
	default:
		s.pos++
		t.kind = broken
	}
	t.end = int32(s.pos) // Classify bounds the length
	return t
}

// skipComments moves to the next byte that is neither white space nor part of a
// comment, and returns what it begins.
func (s *scanner) skipComments() byteClass {
	for s.skipComment() {
		for classes[s.at(0)] == classSpace {
			s.pos++
		}
	}
	if s.pos >= len(s.src) {
		return classEnd
	}
	return classes[s.src[s.pos]]
}

// skipComment moves behind the comment that begins here, if one does.
func (s *scanner) skipComment() bool {
	switch b := s.at(0); {
	case b == '-' && s.at(1) == '-':
		s.skipLine()
	case b == '/' && s.at(1) == '*':
		s.skipBlock()
	default:
		return false
	}
	return true
}

// at returns the byte n places ahead, 0 behind the end of the text.
func (s *scanner) at(n int) byte {
	if s.pos+n < len(s.src) {
		return s.src[s.pos+n]
	}
	return 0
}

// skipLine moves to the end of a comment that began with two hyphens.
func (s *scanner) skipLine() {
	n := strings.IndexAny(s.src[s.pos:], "\n\r")
	if n < 0 {
		n = len(s.src) - s.pos
	}
	s.pos += n
}

// skipBlock moves behind a comment of the other kind. They nest.
func (s *scanner) skipBlock() {
	s.pos += 2
	for depth := 1; depth > 0; {
		switch {
		case s.pos >= len(s.src):
			s.unterminated = true
			return
		case s.src[s.pos] == '*' && s.at(1) == '/':
			depth--
			s.pos += 2
		case s.src[s.pos] == '/' && s.at(1) == '*':
			depth++
			s.pos += 2
		default:
			s.pos++
		}
	}
}

// scanName scans what begins with a letter: an identifier, a keyword, or the
// prefix of a quoted string such as E” or U&"".
func (s *scanner) scanName() (kind, word) {
	src, start := s.src, s.pos
	pos := start + 1
	for pos < len(src) && inName[src[pos]] {
		pos++
	}
	s.pos = pos
	if pos-start == 1 && pos < len(src) {
		if k, ok := s.scanPrefixed(src[start]); ok {
			return k, noWord
		}
	}
	return name, lookupWord(src, start, pos)
}

// scanPrefixed scans the string that follows the letter prefix, if one does.
func (s *scanner) scanPrefixed(prefix byte) (kind, bool) {
	switch quote := s.at(0); {
	case quote == '\'':
		switch prefix | 0x20 {
		case 'e':
			return s.scanEscaped(), true
		case 'b', 'x', 'n':
			return s.scanQuoted('\'', constant), true
		}
	case quote == '&' && prefix|0x20 == 'u':
		switch s.at(1) {
		case '\'':
			s.pos++
			return s.scanQuoted('\'', constant), true
		case '"':
			s.pos++
			return s.scanQuoted('"', escapedName), true
		}
	}
	return 0, false
}

// scanQuoted scans a string in which only the doubled quote is special. What
// PostgreSQL calls a continued string is two tokens here, which is all the same
// to a classifier.
func (s *scanner) scanQuoted(quote byte, k kind) kind {
	src, pos := s.src, s.pos+1
	for pos < len(src) {
		if src[pos] != quote {
			pos++
			continue
		}
		if pos++; pos >= len(src) || src[pos] != quote {
			s.pos = pos
			return k
		}
		pos++
	}
	return s.cutShort()
}

// cutShort ends the text inside a token.
func (s *scanner) cutShort() kind {
	s.pos = len(s.src)
	s.unterminated = true
	return broken
}

// scanEscaped scans E” from its quote on. A part that continues it after a
// line break understands backslashes too, although it has no E of its own.
func (s *scanner) scanEscaped() kind {
	for s.pos++; s.pos < len(s.src); {
		switch s.src[s.pos] {
		case '\\':
			s.pos = min(s.pos+2, len(s.src))
		case '\'':
			s.pos++
			if s.at(0) != '\'' && !s.skipToContinuation() {
				return constant
			}
			s.pos++
		default:
			s.pos++
		}
	}
	return s.cutShort()
}

// skipToContinuation moves to the quote of the next part of a string, which
// stands behind white space and -- comments with a line break among them. If
// there is none, it stays.
func (s *scanner) skipToContinuation() bool {
	start, broke := s.pos, false
	for s.pos < len(s.src) {
		switch b := s.src[s.pos]; {
		case b == '\n' || b == '\r':
			broke = true
			s.pos++
		case classes[b] == classSpace:
			s.pos++
		case b == '-' && s.at(1) == '-':
			s.skipLine()
		default:
			if b == '\'' && broke {
				return true
			}
			s.pos = start
			return false
		}
	}
	s.pos = start
	return false
}

// scanNumber stops before letters: up to version 14 PostgreSQL reads 1for as
// 1 FOR, later versions refuse it.
func (s *scanner) scanNumber() kind {
	s.skipDigits()
	if s.at(0) == '.' {
		s.pos++
		s.skipDigits()
	}
	if s.at(0)|0x20 == 'e' {
		sign := 0
		if c := s.at(1); c == '+' || c == '-' {
			sign = 1
		}
		if classes[s.at(1+sign)] == classDigit {
			s.pos += 1 + sign
			s.skipDigits()
		}
	}
	return constant
}

func (s *scanner) skipDigits() {
	for classes[s.at(0)] == classDigit {
		s.pos++
	}
}

// scanOperator scans a run of operator characters, up to a comment in it.
func (s *scanner) scanOperator() kind {
	for s.pos++; classes[s.at(0)] == classOperator; s.pos++ {
		if b, after := s.at(0), s.at(1); b == '-' && after == '-' || b == '/' && after == '*' {
			break
		}
	}
	return operator
}

func (s *scanner) scanDot() kind {
	if classes[s.at(1)] == classDigit {
		return s.scanNumber()
	}
	s.pos++
	if s.at(0) == '.' {
		s.pos++
		return operator
	}
	return dot
}

func (s *scanner) scanColon() kind {
	s.pos++
	switch s.at(0) {
	case ':':
		s.pos++
		return cast
	case '=':
		s.pos++
	}
	return operator
}

// scanDollar scans a parameter or a string between $tag$ and $tag$.
func (s *scanner) scanDollar() kind {
	if classes[s.at(1)] == classDigit {
		s.pos++
		s.skipDigits()
		return constant
	}
	n := 1
	for n == 1 && classes[s.at(n)] == classLetter ||
		n > 1 && (classes[s.at(n)] == classLetter || classes[s.at(n)] == classDigit) {
		n++
	}
	if s.at(n) != '$' {
		s.pos++
		return broken
	}
	tag := s.src[s.pos : s.pos+n+1]
	s.pos += len(tag)
	length := strings.Index(s.src[s.pos:], tag)
	if length < 0 {
		return s.cutShort()
	}
	s.pos += length + len(tag)
	return constant
}

func selfKind(b byte) kind {
	switch b {
	case ',':
		return comma
	case ';':
		return semicolon
	case '(':
		return open
	case ')':
		return closing
	default:
		return bracket
	}
}
