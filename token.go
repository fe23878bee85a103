package helios

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/heliosdb/helios/wal"
)

// Token says how much of a cluster's history a session has written or seen. A
// read that is given the token sees everything up to it. The zero Token asks
// for nothing.
//
// Tokens travel: [Token.String] gives a form for headers, cookies and queue
// messages, [ParseToken] reads it.
type Token struct {
	SystemID uint64       // PostgreSQL's system identifier of the cluster
	Timeline wal.Timeline // the timeline LSN was written on
	LSN      wal.LSN      // at or behind the end of the newest commit record, written or read
}

// IsZero reports whether the token asks for nothing.
func (t Token) IsZero() bool { return t == Token{} }

// String returns the token as four hexadecimal or decimal parts without any
// character that a header, a cookie or a URL would quote, such as
// 7412983712346789012.2.16-B374D848. The zero Token is the empty string.
func (t Token) String() string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d.%d.%s", t.SystemID, t.Timeline, strings.Replace(t.LSN.String(), "/", "-", 1))
}

// ParseToken reads what String wrote. The empty string is the zero Token.
func ParseToken(s string) (Token, error) {
	if s == "" {
		return Token{}, nil
	}
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return Token{}, fmt.Errorf("helios: %q is not a session token: want SYSTEM.TIMELINE.LSN", s)
	}
	system, err := strconv.ParseUint(parts[0], 10, 64)
	if err != nil {
		return Token{}, fmt.Errorf("helios: %q is not a session token: %q is not a system identifier", s, parts[0])
	}
	timeline, err := strconv.ParseUint(parts[1], 10, 32)
	if err != nil || timeline == 0 {
		return Token{}, fmt.Errorf("helios: %q is not a session token: %q is not a timeline", s, parts[1])
	}
	lsn, err := wal.ParseLSN(strings.Replace(parts[2], "-", "/", 1))
	if err != nil {
		return Token{}, fmt.Errorf("helios: %q is not a session token: %w", s, err)
	}
	return Token{SystemID: system, Timeline: wal.Timeline(timeline), LSN: lsn}, nil
}

// MarshalText implements encoding.TextMarshaler with the form of String.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseToken.
func (t *Token) UnmarshalText(text []byte) error {
	v, err := ParseToken(string(text))
	if err != nil {
		return err
	}
	*t = v
	return nil
}
