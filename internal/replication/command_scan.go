package replication

import (
	"strings"
	"unicode/utf8"
)

// tokenKind is what a part of a command is.
type tokenKind uint8

const (
	tokenEnd          tokenKind = iota
	tokenUnterminated           // a quote that is not closed
	tokenKeyword
	tokenIdentifier // in small letters, unless it was quoted
	tokenString     // without its quotes
	tokenNumber
	tokenPosition    // an LSN
	tokenPunctuation // any other character
)

// A token is a part of a command.
type token struct {
	kind tokenKind
	text string
}

// maxIdentifier is how many bytes PostgreSQL keeps of a name (NAMEDATALEN-1).
const maxIdentifier = 63

// A scanner cuts a command into tokens, as repl_scanner.l does.
type scanner struct{ text string } // what is left

// next returns the next token, and tokenEnd behind the last.
func (s *scanner) next() token {
	s.text = strings.TrimLeft(s.text, " \t\n\r\f\v")
	if s.text == "" {
		return token{}
	}
	// A position is tried first: its digits may look like a word or a number.
	if n := positionLength(s.text); n > 0 {
		return token{tokenPosition, s.cut(n)}
	}
	switch c := s.text[0]; {
	case c == '"':
		name, ok := s.quoted(`"`)
		return quotedToken(tokenIdentifier, truncated(name), ok)
	case c == '\'':
		value, ok := s.quoted("'")
		return quotedToken(tokenString, value, ok)
	case isDigit(c):
		return token{tokenNumber, s.cut(span(s.text, isDigit))}
	case beginsWord(c):
		return wordToken(s.cut(span(s.text, isInWord)))
	default:
		return token{tokenPunctuation, s.cut(1)}
	}
}

// cut takes the first n bytes of what is left.
func (s *scanner) cut(n int) string {
	taken := s.text[:n]
	s.text = s.text[n:]
	return taken
}

// quoted reads what stands between two quotes of a kind. Two of them are one
// within it; PostgreSQL 15 and older know that in strings only, and refuse such
// names.
func (s *scanner) quoted(quote string) (value string, ok bool) {
	var b strings.Builder
	for {
		s.cut(1)
		end := strings.Index(s.text, quote)
		if end < 0 {
			s.text = ""
			return "", false
		}
		b.WriteString(s.cut(end))
		s.cut(1)
		if !strings.HasPrefix(s.text, quote) {
			return b.String(), true
		}
		b.WriteString(quote)
	}
}

func quotedToken(kind tokenKind, text string, terminated bool) token {
	if !terminated {
		return token{kind: tokenUnterminated}
	}
	return token{kind, text}
}

// wordToken returns a keyword, or a name.
func wordToken(word string) token {
	switch word {
	case "BASE_BACKUP", "IDENTIFY_SYSTEM", "READ_REPLICATION_SLOT", "SHOW", "TIMELINE", "START_REPLICATION",
		"CREATE_REPLICATION_SLOT", "DROP_REPLICATION_SLOT", "ALTER_REPLICATION_SLOT", "TIMELINE_HISTORY",
		"PHYSICAL", "RESERVE_WAL", "LOGICAL", "SLOT", "TEMPORARY", "TWO_PHASE", "EXPORT_SNAPSHOT",
		"NOEXPORT_SNAPSHOT", "USE_SNAPSHOT", "WAIT", "UPLOAD_MANIFEST":
		return token{tokenKeyword, word}
	}
	small := []byte(word)
	for i, c := range small {
		if 'A' <= c && c <= 'Z' {
			small[i] = c + 'a' - 'A'
		}
	}
	return token{tokenIdentifier, truncated(string(small))}
}

// truncated returns as much of a name as PostgreSQL keeps, in whole characters.
func truncated(name string) string {
	if len(name) <= maxIdentifier {
		return name
	}
	end := maxIdentifier
	for end > 0 && !utf8.RuneStart(name[end]) {
		end--
	}
	return name[:end]
}

// positionLength returns how much of text is an LSN, 0 if it begins with none.
func positionLength(text string) int {
	high := span(text, isHexDigit)
	if high == 0 || !strings.HasPrefix(text[high:], "/") {
		return 0
	}
	low := span(text[high+1:], isHexDigit)
	if low == 0 {
		return 0
	}
	return high + 1 + low
}

// span returns how many bytes text begins with that are of a class.
func span(text string, class func(byte) bool) int {
	n := 0
	for n < len(text) && class(text[n]) {
		n++
	}
	return n
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHexDigit(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func beginsWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_' || c >= 0x80
}

func isInWord(c byte) bool { return beginsWord(c) || isDigit(c) || c == '$' }
