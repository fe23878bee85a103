package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"strings"
	"unicode"

	"github.com/heliosdb/helios/router"
)

// routeCommand shows where statements go.
func routeCommand() command {
	return command{
		name:    "route",
		args:    "[SQL...]",
		summary: "show which statements a replica may answer, and why",
		about: `Each argument is one SQL text. Without arguments the texts are read from the
standard input, one per line. Nothing is executed, and no server is asked.

  replica  surely a pure read: any node that is fresh enough may answer it
  primary  it writes, or it may
  session  it uses or changes state of the server session: the primary, and all
           that follows goes to the same connection

A function that the built-in table does not know counts as one that writes;
--json names such functions.`,
		flags: func(fs *flag.FlagSet) action {
			zero := fs.Bool("0", false, "texts on the standard input end with NUL, not with a line")
			asJSON := fs.Bool("json", false, "print one JSON object per statement")
			return func(_ context.Context, s streams, args []string) error {
				w := &routeWriter{out: bufio.NewWriter(s.out), asJSON: *asJSON}
				if len(args) > 0 {
					return w.arguments(args)
				}
				delimiter := byte('\n')
				if *zero {
					delimiter = 0
				}
				return w.stream(s.in, delimiter)
			}
		},
	}
}

// routed is where one statement goes.
type routed struct {
	Route     string   `json:"route"` // primary, replica or session
	Class     string   `json:"class"`
	Reason    string   `json:"reason"`
	Hint      string   `json:"hint,omitempty"`      // of a leading comment
	Functions []string `json:"functions,omitempty"` // without which it would be a read
	SQL       string   `json:"sql"`
}

// routeOf says where sql goes by its text alone.
func routeOf(sql string) routed {
	stmt := router.Classify(sql)
	r := routed{Class: stmt.Class.String(), Reason: stmt.Reason, Functions: stmt.Functions, SQL: sql}
	switch {
	case stmt.Class == router.Session:
		r.Route = "session"
	case stmt.Hint == router.HintPrimary, stmt.Class != router.Read && stmt.Hint == router.HintNone:
		r.Route = "primary"
	default:
		r.Route = "replica"
	}
	if stmt.Hint != router.HintNone {
		r.Hint = stmt.Hint.String()
		r.Reason = "hint in front of it; " + r.Reason
	}
	return r
}

// routeWriter prints statements as they come.
type routeWriter struct {
	out    *bufio.Writer
	asJSON bool
}

// arguments prints the statements of a command line.
func (w *routeWriter) arguments(texts []string) error {
	for _, sql := range texts {
		if err := w.print(sql); err != nil {
			return err
		}
	}
	return w.out.Flush()
}

// stream prints the statements that in yields, holding one at a time. Whoever
// types them sees each answer before the next question.
func (w *routeWriter) stream(in io.Reader, delimiter byte) error {
	r := bufio.NewReaderSize(in, 64<<10)
	for sql, err := range texts(r, delimiter) {
		if err != nil {
			return failed(fmt.Errorf("route: standard input: %w", err), "")
		}
		if err := w.print(sql); err != nil {
			return err
		}
		if r.Buffered() == 0 {
			if err := w.out.Flush(); err != nil {
				return err
			}
		}
	}
	return w.out.Flush()
}

// texts yields what stands before each delimiter, and before the end.
func texts(r *bufio.Reader, delimiter byte) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for {
			text, err := r.ReadString(delimiter)
			if err != nil && !errors.Is(err, io.EOF) {
				yield("", err)
				return
			}
			text = strings.TrimSuffix(text, string(delimiter))
			if !yield(text, nil) || err != nil {
				return
			}
		}
	}
}

// print writes one statement unless it is empty.
func (w *routeWriter) print(sql string) error {
	if sql = strings.TrimSpace(sql); sql == "" {
		return nil
	}
	r := routeOf(sql)
	if w.asJSON {
		return json.NewEncoder(w.out).Encode(r)
	}
	_, err := fmt.Fprintf(w.out, "%-7s  %-*s  %s\n", r.Route, reasonWidth, shorten(r.Reason, reasonWidth), shorten(r.SQL, sqlWidth))
	return err
}

// Widths of the columns for people, in characters.
const (
	reasonWidth = 38
	sqlWidth    = 72
)

// shorten makes text fit into one line of width characters.
func shorten(text string, width int) string {
	const enough = 16 // bytes looked at for each character shown
	head := text[:min(len(text), enough*width)]
	line := []rune(strings.Join(strings.FieldsFunc(head, isBlank), " "))
	if len(line) <= width && len(head) == len(text) {
		return string(line)
	}
	return strings.TrimSpace(string(line[:min(len(line), width-1)])) + "…"
}

// isBlank reports whether r would move or hide what is printed around it.
func isBlank(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }
