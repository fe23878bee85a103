package helios

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// schemes are the beginnings of a URL; the rest is the same for all of them.
var schemes = []string{"helios", "postgres-helios", "postgresql", "postgres"}

// cutScheme takes the scheme off a URL; ok is false if dsn is no URL.
func cutScheme(dsn string) (scheme, rest string, ok bool) {
	scheme, rest, ok = strings.Cut(dsn, "://")
	return scheme, rest, ok && !strings.ContainsAny(scheme, spaces+"='")
}

// parseURL reads what follows the scheme, by the rules of
// conninfo_uri_parse_options in libpq's fe-connect.c: several hosts, sockets as
// percent-encoded directories, and a plus sign that is no space. Errors quote
// neither user, password nor values.
func parseURL(s string) (pairs, error) {
	all := pairs{}
	rest, err := parseUser(s, all)
	if err != nil {
		return nil, err
	}
	authority, rest := cutBefore(rest, "/?")
	if err := parseHosts(authority, all); err != nil {
		return nil, err
	}
	database, query := cutBefore(strings.TrimPrefix(rest, "/"), "?")
	if database, err = unescape(database); err != nil {
		return nil, keyError("database", "%v", err)
	}
	if database != "" {
		all.put("database", database)
	}
	return all, parseQuery(strings.TrimPrefix(query, "?"), all)
}

// cutBefore splits s in front of the first of chars; rest is "" if there is none.
func cutBefore(s, chars string) (head, rest string) {
	i := strings.IndexAny(s, chars)
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i:]
}

// parseUser takes user:password@ off s.
func parseUser(s string, all pairs) (rest string, err error) {
	who, rest := cutBefore(s, "@/")
	if !strings.HasPrefix(rest, "@") {
		return s, nil
	}
	user, password, _ := strings.Cut(who, ":")
	for _, part := range []pair{{"user", user}, {"password", password}} {
		value, err := unescape(part.value)
		if err != nil {
			return "", keyError(part.key, "%v", err)
		}
		if value != "" {
			all.put(part.key, value)
		}
	}
	return rest[1:], nil
}

// parseHosts reads host:port,[::1]:port,… into two lists.
func parseHosts(authority string, all pairs) error {
	if authority == "" {
		return nil
	}
	if strings.Contains(authority, "@") {
		return errMislaid
	}
	var hosts, ports []string
	for node := range strings.SplitSeq(authority, ",") {
		host, port, err := parseHost(node)
		if err != nil {
			return err
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	if list := strings.Join(hosts, ","); list != "" {
		all.put("host", list)
	}
	if list := strings.Join(ports, ","); list != "" {
		all.put("port", list)
	}
	return nil
}

// parseHost reads host, host:port or [address]:port.
func parseHost(node string) (host, port string, err error) {
	host, port, _ = strings.Cut(node, ":")
	if inner, ok := strings.CutPrefix(node, "["); ok {
		inner, after, closed := strings.Cut(inner, "]")
		if !closed || inner == "" || after != "" && after[0] != ':' {
			return "", "", keyError("host", "an IPv6 address is written [::1] or [::1]:5432")
		}
		host, port = inner, strings.TrimPrefix(after, ":")
	}
	if host, err = unescape(host); err != nil {
		return "", "", keyError("host", "%v", err)
	}
	if port, err = unescape(port); err != nil {
		return "", "", keyError("port", "%v", err)
	}
	return host, port, nil
}

// parseQuery reads key=value&key=value.
func parseQuery(query string, all pairs) error {
	after := "?"
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		rawKey, rawValue, ok := strings.Cut(pair, "=")
		key, err := unescape(rawKey)
		if !ok || err != nil || key == "" {
			return fmt.Errorf("expected key=value after %q; write & in a value as %%26 and %% as %%25", after)
		}
		if strings.Contains(rawValue, "=") {
			return keyError(key, "write = in the value as %%3D")
		}
		value, err := unescape(rawValue)
		if err != nil {
			return keyError(key, "%v", err)
		}
		if key == "ssl" && value == "true" { // JDBC's spelling, which libpq accepts in URLs
			key, value = "sslmode", "require"
		}
		all.put(key, value)
		after = key
	}
	return nil
}

// unescape replaces %XX by the byte it stands for. Like in libpq spaces around
// s are dropped and spaces within s are refused.
func unescape(s string) (string, error) {
	s = strings.Trim(s, " ")
	if strings.Contains(s, " ") {
		return "", fmt.Errorf("write a space as %%20")
	}
	value, err := url.PathUnescape(s)
	if err != nil { // its text quotes s
		return "", fmt.Errorf("two hexadecimal digits must follow %%; write %% itself as %%25")
	}
	return value, nil
}

// escape writes all bytes of s but letters, digits, and -._~ as %XX.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// readable takes back what need not be escaped in the value of a parameter.
var readable = strings.NewReplacer("%2C", ",", "%3A", ":", "%2F", "/")

// formatURL is the inverse of parseURL, with the scheme.
func formatURL(c *Config, params []pair) string {
	var b strings.Builder
	b.WriteString("helios://")
	if c.User != "" || c.Password != "" {
		b.WriteString(escape(c.User))
		if c.Password != "" {
			b.WriteString(":" + escape(c.Password))
		}
		b.WriteByte('@')
	}
	for i, h := range c.Hosts {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(h.url())
	}
	b.WriteString("/" + escape(c.Database))
	for i, p := range params {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(escape(p.key) + "=" + readable.Replace(escape(p.value)))
	}
	return b.String()
}

// url returns h as it is written in a URL, always with its port.
func (h Host) url() string {
	host := escape(h.Host)
	if strings.Contains(h.Host, ":") && !h.isSocket() {
		host = "[" + strings.ReplaceAll(host, "%3A", ":") + "]"
	}
	return host + ":" + strconv.Itoa(int(h.Port))
}
