package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// needPostgres skips a test of the demo where there is no PostgreSQL, except
// where CI=true says that there has to be.
func needPostgres(t *testing.T) {
	t.Helper()
	t.Setenv("HELIOS_TEST_POSTGRES", "local") // the demo knows no other
	if _, err := pgctl.FindBinaries(); err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
}

func TestADemoKeepsEveryPromise(t *testing.T) {
	needPostgres(t)
	code, out, stderr := runHelios(pgtest.Context(t), "", "demo", "--json", "--duration", "3s")
	var s summary
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("demo = %d, %q: %v in %s", code, stderr, err, out)
	}
	t.Logf("%+v", s)
	if code != exitOK || stderr != "" {
		t.Errorf("demo = %d, %q, want %d and nothing", code, stderr, exitOK)
	}
	if s.Stale != 0 || s.Lost != 0 || s.Errors != 0 {
		t.Errorf("demo counted %d stale reads, %d lost writes, %d errors, want none: %q", s.Stale, s.Lost, s.Errors, s.FirstErrors)
	}
	if s.Reads == 0 || s.Writes == 0 || len(s.ReadsByNode) != 3 {
		t.Errorf("demo read %d times (%v) and wrote %d times", s.Reads, s.ReadsByNode, s.Writes)
	}
	if s.GapMS <= 0 || len(s.Primaries) != 2 || s.Primaries[0] == s.Primaries[1] {
		t.Errorf("demo went from %q with a gap of %v ms, want a failover", s.Primaries, s.GapMS)
	}
}

// alarm calls ring when text is written for the first time.
type alarm struct {
	text string
	ring func()

	mu  sync.Mutex
	all bytes.Buffer // guarded by mu
}

func (a *alarm) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all.Write(p)
	if bytes.Contains(p, []byte(a.text)) {
		a.ring()
	}
	return len(p), nil
}

func TestAnInterruptedDemoCleansUp(t *testing.T) {
	needPostgres(t)
	for name, text := range map[string]string{
		"while it starts":    "starting",
		"under load":         " reads n1",
		"in the failover":    "crashes",
		"after the failover": "is promoted",
	} {
		t.Run(name, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(pgtest.Context(t))
			defer interrupt()
			var errs bytes.Buffer
			out := &alarm{text: text, ring: interrupt}
			code := run(ctx, []string{"demo", "--duration", "4s"}, streams{in: strings.NewReader(""), out: out, err: &errs})
			if want := "helios: demo: interrupted; its servers and files are removed\n"; code != exitInterrupted || errs.String() != want {
				t.Errorf("run = %d, %q, want %d, %q", code, errs.String(), exitInterrupted, want)
			}
		})
	}
}

func TestADemoThatFoundSomethingFails(t *testing.T) {
	for name, s := range map[string]summary{
		"stale read": {figures: figures{Stale: 1}},
		"lost write": {Lost: 1},
		"error":      {figures: figures{Errors: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			if s.healthy() {
				t.Errorf("healthy() = true for %+v", s)
			}
		})
	}
	if s := (&summary{figures: figures{Unknown: 3}}); !s.healthy() {
		t.Error("healthy() = false for writes whose outcome was unknown and then found out")
	}
}

func TestASummaryIsReadable(t *testing.T) {
	var out strings.Builder
	s := summary{
		figures:   figures{Reads: 12, ReadsByNode: map[string]uint64{"n2": 7, "n1": 5}, Writes: 3, Errors: 2},
		Primaries: []string{"n1", "n2"}, GapMS: 123.4, FirstErrors: []string{"write: on fire", "read: flooded"},
	}
	if err := s.write(&out, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"n1 5, n2 7", "write: on fire; read: flooded", "123 ms", "missing on n2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

func TestALineOfFiguresFitsATerminal(t *testing.T) {
	f := figures{ReadsByNode: map[string]uint64{"n1": 99999, "n2": 99999, "n3": 99999}, Writes: 99999}
	if line := f.line(time.Minute); len(line) >= 80 {
		t.Errorf("%d characters: %s", len(line), line)
	}
}

func TestASilentScreenSaysNothing(t *testing.T) {
	var out strings.Builder
	s := newScreen(&out, true)
	s.say("hello")
	s.finish()
	if out.Len() > 0 {
		t.Errorf("it wrote %q", out.String())
	}
}

func TestTheGapIsMeasuredFromTheLastAcknowledgement(t *testing.T) {
	var a acks
	start := time.Now()
	a.add(start)
	a.add(start.Add(time.Hour)) // before anything was broken
	a.forgetGaps()
	for _, after := range []time.Duration{61 * time.Minute, 64 * time.Minute, 65 * time.Minute} {
		a.add(start.Add(after))
	}
	if want := 3 * time.Minute; a.gap != want {
		t.Errorf("gap = %v, want %v", a.gap, want)
	}
}

func TestAFileIsNoTerminal(t *testing.T) {
	t.Setenv("TERM", "xterm")
	file, err := os.CreateTemp(t.TempDir(), "out")
	pgtest.OK(t, err)
	defer file.Close()
	if isTerminal(file) {
		t.Error("isTerminal of a file = true")
	}
	if s := newScreen(io.Discard, false); s.live {
		t.Error("a writer that is no file is overwritten")
	}
}
