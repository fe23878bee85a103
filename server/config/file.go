package config

import (
	"errors"
	"fmt"
	"strings"
)

// entry is one line of a file.
type entry struct {
	name, value string
	line        int
}

// parseFile reads the syntax of postgresql.conf: one name and its value a line, with or without
// an equals sign between them, text in single quotes, comments behind #. The last of
// several lines with one name wins there; here all are returned.
func parseFile(content string) ([]entry, error) {
	var entries []entry
	for i, line := range strings.Split(content, "\n") {
		e, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		if e.name != "" {
			e.line = i + 1
			entries = append(entries, e)
		}
	}
	return entries, nil
}

const blanks = " \t\r\v\f"

// parseLine reads one line; the name is empty if there is nothing on it.
func parseLine(line string) (entry, error) {
	rest := strings.Trim(line, blanks)
	end := strings.IndexFunc(rest, func(r rune) bool { return r == '=' || r == '#' || strings.ContainsRune(blanks, r) })
	if end < 0 {
		end = len(rest)
	}
	e := entry{name: strings.ToLower(rest[:end])}
	rest = strings.TrimLeft(rest[end:], blanks)
	rest, equals := strings.CutPrefix(rest, "=")
	switch {
	case e.name == "" && !equals && (rest == "" || rest[0] == '#'):
		return entry{}, nil
	case e.name == "":
		return entry{}, errors.New("there is no name before the value")
	case strings.HasPrefix(e.name, "include"):
		return entry{}, fmt.Errorf("%s: other files are not read; name one file with --config", e.name)
	}
	value, rest, err := cutValue(strings.TrimLeft(rest, blanks))
	if err != nil {
		return entry{}, fmt.Errorf("%s: %w", e.name, err)
	}
	if rest = strings.TrimLeft(rest, blanks); rest != "" && rest[0] != '#' {
		return entry{}, fmt.Errorf("%s: %q behind the value is not understood; a value with spaces goes between single quotes", e.name, rest)
	}
	e.value = value
	return e, nil
}

// cutValue takes a value off s, quoted or up to the next blank.
func cutValue(s string) (value, rest string, err error) {
	if quoted, is := strings.CutPrefix(s, "'"); is {
		return cutQuoted(quoted)
	}
	end := strings.IndexAny(s, blanks+"#")
	if end < 0 {
		end = len(s)
	}
	if end == 0 {
		return "", "", errors.New("there is no value; an empty one is written ''")
	}
	return s[:end], s[end:], nil
}

// cutQuoted reads up to the closing quote, by the rules of DeescapeQuotedString in
// PostgreSQL's guc-file.l: a quote is doubled or behind a backslash, and a
// backslash begins b, f, n, r, t and up to three octal digits.
func cutQuoted(s string) (value, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\'' && strings.HasPrefix(s[i+1:], "'"):
			i++
			b.WriteByte('\'')
		case s[i] == '\'':
			return b.String(), s[i+1:], nil
		case s[i] == '\\' && i+1 < len(s):
			c, n := unescape(s[i+1:])
			b.WriteByte(c)
			i += n
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", errors.New("the value has no closing quote")
}

// unescape returns the character behind a backslash, and of how many it was made.
func unescape(s string) (c byte, n int) {
	if at := strings.IndexByte("bfnrt", s[0]); at >= 0 {
		return "\b\f\n\r\t"[at], 1
	}
	for n < min(3, len(s)) && s[n] >= '0' && s[n] <= '7' {
		c = c<<3 + s[n] - '0'
		n++
	}
	if n > 0 {
		return c, n
	}
	return s[0], 1
}

// quote writes value so that parseLine reads it again. A line has no end inside of
// quotes, so one in the value is escaped.
func quote(value string) string {
	if value != "" && !strings.ContainsAny(value, blanks+"#'\\\n\b") {
		return value
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`, "\r", `\r`, "\b", `\b`, "\f", `\f`, "\t", `\t`).Replace(value) + "'"
}
