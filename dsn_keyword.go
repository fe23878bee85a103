package helios

import (
	"fmt"
	"strings"
)

// A pair is one parameter of a DSN.
type pair struct{ key, value string }

// pairs are the parameters of a DSN as written, dbname under the name
// database. Host and port are libpq's lists, separated by commas.
type pairs map[string]string

// put sets key; like in libpq the last of several settings wins.
func (s pairs) put(key, value string) {
	if key == "dbname" {
		key = "database"
	}
	s[key] = value
}

const spaces = " \t\n\r\v\f"

// parseKeywords reads the form "host=h1,h2 user='a b'", by the rules of
// conninfo_parse in libpq's fe-connect.c. Errors quote keys, never values.
func parseKeywords(s string) (pairs, error) {
	all := pairs{}
	after := ""
	for s = strings.TrimLeft(s, spaces); s != ""; s = strings.TrimLeft(s, spaces) {
		key, rest, ok := cutKeyword(s)
		if !ok && after == "" {
			return nil, fmt.Errorf("expected key=value, such as host=h1,h2 dbname=shop, or a URL helios://h1,h2/shop")
		}
		if !ok {
			return nil, fmt.Errorf("expected key=value after the value of %q; a value with spaces goes between single quotes", after)
		}
		value, rest, ok := cutValue(rest)
		if !ok {
			return nil, keyError(key, "the value has no closing quote")
		}
		all.put(key, value)
		s, after = rest, key
	}
	return all, nil
}

// cutKeyword takes a keyword, the equals sign and the spaces around it off s.
func cutKeyword(s string) (key, rest string, ok bool) {
	key, rest, ok = strings.Cut(s, "=")
	key = strings.TrimRight(key, spaces)
	if !ok || key == "" || strings.ContainsAny(key, spaces) {
		return "", "", false
	}
	return key, strings.TrimLeft(rest, spaces), true
}

// cutValue takes a value off s, quoted or up to the next space. A backslash
// stands for the character after it.
func cutValue(s string) (value, rest string, ok bool) {
	s, quoted := strings.CutPrefix(s, "'")
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\'':
			return b.String(), s[i+1:], true
		case !quoted && strings.IndexByte(spaces, s[i]) >= 0:
			return b.String(), s[i:], true
		case s[i] == '\\':
			if i++; i == len(s) {
				continue // libpq drops a backslash at the very end
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), "", !quoted
}

// quoter escapes what ends a quoted value.
var quoter = strings.NewReplacer(`\`, `\\`, `'`, `\'`)

// formatKeywords is the inverse of parseKeywords.
func formatKeywords(all []pair) string {
	var b strings.Builder
	for i, s := range all {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(s.key + "='" + quoter.Replace(s.value) + "'")
	}
	return b.String()
}
