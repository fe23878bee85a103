package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

func TestRouteAnswersEachLineBeforeTheNextIsTyped(t *testing.T) {
	in, typist := io.Pipe()
	terminal, out := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(t.Context(), []string{"route"}, streams{in: in, out: out, err: io.Discard})
	}()
	answer := make([]byte, 256)
	for _, line := range []string{"SELECT 1\n", "DELETE FROM t\n"} {
		if _, err := io.WriteString(typist, line); err != nil {
			t.Fatal(err)
		}
		n, err := terminal.Read(answer)
		if got := string(answer[:n]); err != nil || !strings.HasSuffix(got, line) {
			t.Fatalf("after %q: %q, %v", line, got, err)
		}
	}
	typist.Close()
	if code := <-ended; code != exitOK {
		t.Errorf("run = %d, want %d", code, exitOK)
	}
}

func TestRouteStreamsWhatDoesNotFitIntoMemory(t *testing.T) {
	const lines = 20_000
	line := "SELECT '" + strings.Repeat("x", 1000) + "'\n"
	counted := &lineCounter{}
	in := io.LimitReader(&repeated{text: line}, int64(lines*len(line)))
	if code := run(t.Context(), []string{"route"}, streams{in: in, out: counted, err: io.Discard}); code != exitOK {
		t.Errorf("run = %d, want %d", code, exitOK)
	}
	if counted.lines != lines {
		t.Errorf("%d lines, want %d", counted.lines, lines)
	}
}

// repeated reads as the same text again and again.
type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := copy(p, r.text[r.at:])
	r.at = (r.at + n) % len(r.text)
	return n, nil
}

// lineCounter counts the lines written to it.
type lineCounter struct{ lines int }

func (c *lineCounter) Write(p []byte) (int, error) {
	c.lines += bytes.Count(p, []byte("\n"))
	return len(p), nil
}

func TestRouteSaysThatItsInputBroke(t *testing.T) {
	var errs bytes.Buffer
	in := io.MultiReader(strings.NewReader("SELECT 1\n"), iotest.ErrReader(errors.New("disk on fire")))
	if code := run(t.Context(), []string{"route"}, streams{in: in, out: io.Discard, err: &errs}); code != exitFailed {
		t.Errorf("run = %d, want %d", code, exitFailed)
	}
	if want := "helios: route: standard input: disk on fire\n"; errs.String() != want {
		t.Errorf("it said %q, want %q", errs.String(), want)
	}
}

func TestShortenMakesOneLine(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want string
	}{
		"fits":                 {"SELECT 1", "SELECT 1"},
		"fits exactly":         {"0123456789", "0123456789"},
		"one too long":         {"0123456789a", "012345678…"},
		"white space and bell": {" a\n\tb\x00\x07c ", "a b c"},
		"letters, not bytes":   {"ääääääääää", "ääääääääää"},
		"much white space":     {strings.Repeat(" ", 1000) + "a", "…"},
		"empty":                {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if got := shorten(tt.text, 10); got != tt.want {
				t.Errorf("shorten(%q, 10) = %q, want %q", tt.text, got, tt.want)
			}
		})
	}
}

// No text makes helios route fail, and each gets one line or one object.
func FuzzRoute(f *testing.F) {
	for _, sql := range []string{"SELECT 1", "/* helios:replica */ SET a = 1", ") ( ' $x$ /* E'", "\xff\x00;;", "SELECT f(), g()"} {
		f.Add(sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		for _, args := range [][]string{{"route"}, {"route", "--json"}} {
			code, out, stderr := runHelios(t.Context(), sql, append(args, "-0")...)
			if code != exitOK || stderr != "" {
				t.Fatalf("run(%q) with %q = %d, %s", args, sql, code, stderr)
			}
			for line := range strings.Lines(out) {
				if !utf8.ValidString(line) || len(args) > 1 && !json.Valid([]byte(line)) {
					t.Fatalf("run(%q) with %q wrote %q", args, sql, line)
				}
			}
		}
	})
}
