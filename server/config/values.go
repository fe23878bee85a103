package config

import (
	"flag"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// text is any text.
type text string

func (t *text) String() string { return string(*t) }

// Set implements [flag.Value].
func (t *text) Set(s string) error { *t = text(s); return nil }

// list is texts separated by commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

// Set implements [flag.Value].
func (l *list) Set(s string) error {
	*l = nil
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*l = append(*l, part)
		}
	}
	return nil
}

// boolean is one of PostgreSQL's: on, off, true, false, yes, no, 1, 0.
type boolean bool

func (b *boolean) String() string {
	if *b {
		return "on"
	}
	return "off"
}

// Set implements [flag.Value].
func (b *boolean) Set(s string) error {
	switch strings.ToLower(s) {
	case "on", "true", "yes", "1", "t", "y":
		*b = true
	case "off", "false", "no", "0", "f", "n":
		*b = false
	default:
		return fmt.Errorf("%q is not on or off", s)
	}
	return nil
}

// IsBoolFlag lets a flag stand without a value, for on.
func (b *boolean) IsBoolFlag() bool { return true }

// integer is a whole number.
type integer int

func (i *integer) String() string { return strconv.Itoa(int(*i)) }

// Set implements [flag.Value].
func (i *integer) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil {
		return fmt.Errorf("%q is not a whole number", s)
	}
	*i = integer(n)
	return nil
}

// timeUnits are PostgreSQL's, the largest first.
var timeUnits = []struct {
	name string
	unit time.Duration
}{
	{"d", 24 * time.Hour},
	{"h", time.Hour},
	{"min", time.Minute},
	{"s", time.Second},
	{"ms", time.Millisecond},
	{"us", time.Microsecond},
}

// duration is a time as PostgreSQL writes it, 500ms or 2s or 1min; as Go writes
// it, 1m30s, is understood as well.
type duration time.Duration

func (d *duration) String() string { return formatDuration(time.Duration(*d)) }

// formatDuration writes d in the largest unit that needs no fraction.
func formatDuration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	for _, u := range timeUnits {
		if d%u.unit == 0 {
			return strconv.FormatInt(int64(d/u.unit), 10) + u.name
		}
	}
	return d.String()
}

// Set implements [flag.Value].
func (d *duration) Set(s string) error {
	parsed, err := parseDuration(s)
	if err != nil {
		return err
	}
	*d = duration(parsed)
	return nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(strings.ReplaceAll(s, " ", ""))
	for _, u := range timeUnits {
		number, is := strings.CutSuffix(s, u.name)
		n, noInteger := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if is && noInteger == nil && n <= int64(1<<62/u.unit) && n >= 0 {
			d, err = time.Duration(n)*u.unit, nil
			break
		}
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a time; write it with a unit: 500ms, 2s, 1min", s)
	}
	return d, nil
}

// sizeUnits are PostgreSQL's, the largest first.
var sizeUnits = []struct {
	name string
	unit int64
}{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"kB", 1 << 10}, {"B", 1}}

// size is a number of bytes as PostgreSQL writes it.
type size[T int | int64 | uint64] struct{ bytes *T }

// SizeOf binds bytes to a value that is written as PostgreSQL does: 64kB, 16MB, 1GB. A
// number without a unit is in bytes.
func SizeOf[T int | int64 | uint64](bytes *T) flag.Value { return size[T]{bytes} }

// String implements [flag.Value].
func (s size[T]) String() string {
	if s.bytes == nil { // as package flag asks for the zero value
		return ""
	}
	n := int64(*s.bytes)
	for _, u := range sizeUnits {
		if n != 0 && n%u.unit == 0 {
			return strconv.FormatInt(n/u.unit, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// Set implements [flag.Value].
func (s size[T]) Set(text string) error {
	number, unit := text, int64(1)
	for _, u := range sizeUnits {
		if n := len(text) - len(u.name); n > 0 && strings.EqualFold(text[n:], u.name) {
			number, unit = strings.TrimSpace(text[:n]), u.unit
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return fmt.Errorf("%q is not a size; write 64kB, 16MB or 1GB", text)
	}
	*s.bytes = T(n * unit)
	return nil
}

// oneOf is one of a few words.
type oneOf[T ~string] struct {
	word    *T
	allowed []T
}

func choice[T ~string](word *T, allowed ...T) flag.Value { return oneOf[T]{word, allowed} }

// String implements [flag.Value].
func (o oneOf[T]) String() string {
	if o.word == nil {
		return ""
	}
	return string(*o.word)
}

// Set implements [flag.Value].
func (o oneOf[T]) Set(s string) error {
	var names []string
	for _, word := range o.allowed {
		if strings.EqualFold(s, string(word)) {
			*o.word = word
			return nil
		}
		names = append(names, string(word))
	}
	return fmt.Errorf("%q is not one of %s", s, strings.Join(names, ", "))
}

// level is how much is logged.
type level slog.Level

func (l *level) String() string { return strings.ToLower(slog.Level(*l).String()) }

// Set implements [flag.Value].
func (l *level) Set(s string) error {
	var parsed slog.Level
	if err := parsed.UnmarshalText([]byte(s)); err != nil {
		return fmt.Errorf("%q is not one of debug, info, warn, error", s)
	}
	*l = level(parsed)
	return nil
}
