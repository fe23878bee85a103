package config

import (
	"fmt"
	"testing"
	"time"
)

func TestALineIsReadAsPostgreSQLReadsIt(t *testing.T) {
	for line, want := range map[string]string{
		"":                       "  nil",
		"  # only a comment":     "  nil",
		"lease = 2s":             "lease 2s nil",
		"lease=2s#comment":       "lease 2s nil",
		"\tLEASE\t2s\r":          "lease 2s nil",
		"lease 2s # comment":     "lease 2s nil",
		"zone = 'a b # c'":       "zone a b # c nil",
		"zone = 'it''s'":         "zone it's nil",
		`zone = 'it\'s'`:         "zone it's nil",
		`zone = 'a\tb\\\101\z'`:  "zone a\tb\\Az nil",
		"zone = ''":              "zone  nil",
		"zone":                   "  zone: there is no value; an empty one is written ''",
		"zone = # nothing":       "  zone: there is no value; an empty one is written ''",
		"zone = a b":             `  zone: "b" behind the value is not understood; a value with spaces goes between single quotes`,
		"zone = 'a":              "  zone: the value has no closing quote",
		"= a":                    "  there is no name before the value",
		"include_dir 'conf.d'":   "  include_dir: other files are not read; name one file with --config",
		"join = h1:7101,h2:7101": "join h1:7101,h2:7101 nil",
	} {
		e, err := parseLine(line)
		text := "nil"
		if err != nil {
			text = err.Error()
		}
		if got := fmt.Sprintf("%s %s %s", e.name, e.value, text); got != want {
			t.Errorf("parseLine(%q) = %q, want %q", line, got, want)
		}
	}
}

func FuzzAValueIsReadAsItWasWritten(f *testing.F) {
	for _, seed := range []string{"", "a", "a b", "it's", `back\slash`, "#", "a\nb\tc\r", "ä=1", "\b\f"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		line := (&Setting{Name: "zone", Value: value}).Line()
		entries, err := parseFile(line + "\n")
		if err != nil || len(entries) != 1 || entries[0].value != value {
			t.Errorf("parseFile(%q) = %+v, %v; want the value %q", line, entries, err, value)
		}
	})
}

func TestTimesHavePostgreSQLsUnits(t *testing.T) {
	for in, want := range map[string]struct {
		d    time.Duration
		text string
	}{
		"0": {0, "0"}, "500ms": {500 * time.Millisecond, "500ms"}, "2 s": {2 * time.Second, "2s"}, "1min": {time.Minute, "1min"},
		"90s": {90 * time.Second, "90s"}, "1m30s": {90 * time.Second, "90s"}, "1.5s": {1500 * time.Millisecond, "1500ms"},
		"1d": {24 * time.Hour, "1d"}, "24h": {24 * time.Hour, "1d"}, "250us": {250 * time.Microsecond, "250us"},
	} {
		got, err := parseDuration(in)
		if err != nil || got != want.d || formatDuration(got) != want.text {
			t.Errorf("parseDuration(%q) = %v, %v, written %q; want %v, written %q", in, got, err, formatDuration(got), want.d, want.text)
		}
	}
	for _, in := range []string{"", "2", "-1s", "s", "1x", "99999999999d"} {
		if got, err := parseDuration(in); err == nil {
			t.Errorf("parseDuration(%q) = %v, want an error", in, got)
		}
	}
}

func TestSizesHavePostgreSQLsUnits(t *testing.T) {
	for in, want := range map[string]string{"0": "0", "64kB": "64kB", "64KB": "64kB", "1024kB": "1MB", "16 MB": "16MB", "1GB": "1GB", "8191": "8191B", "8192": "8kB"} {
		var n int64
		v := SizeOf(&n)
		if err := v.Set(in); err != nil || v.String() != want {
			t.Errorf("Set(%q) leaves %q, %v, want %q", in, v, err, want)
		}
	}
	for _, in := range []string{"", "kB", "-1", "1.5GB", "9999999TB"} {
		var n int64
		if err := SizeOf(&n).Set(in); err == nil {
			t.Errorf("Set(%q) leaves %d, want an error", in, n)
		}
	}
}
