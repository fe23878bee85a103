package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/netns"
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

// runDemo runs a demo of three seconds, and returns what it found.
func runDemo(t *testing.T, flags ...string) summary {
	t.Helper()
	needPostgres(t)
	args := append([]string{"demo", "--json", "--duration", "3s"}, flags...)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	code, out, stderr := runHelios(ctx, "", args...)
	var s summary
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%q = %d, %q: %v in %s", args, code, stderr, err, out)
	}
	t.Logf("%+v", s)
	if code != exitOK || stderr != "" {
		t.Errorf("%q = %d, %q, want %d and nothing", args, code, stderr, exitOK)
	}
	if s.Stale != 0 || s.DualAcks != 0 || s.Errors != 0 {
		t.Errorf("%q counted %d stale reads, %d writes acknowledged by two primaries, %d errors, want none: %q", args, s.Stale, s.DualAcks, s.Errors, s.FirstErrors)
	}
	if s.Reads == 0 || s.Writes == 0 || len(s.ReadsByNode) != 3 {
		t.Errorf("%q read %d times (%v) and wrote %d times", args, s.Reads, s.ReadsByNode, s.Writes)
	}
	if s.Failovers == 0 || s.GapMS <= 0 || s.PromotedMS <= 0 || len(s.Primaries) != 2 {
		t.Errorf("%q went from %q with a gap of %v ms, want a failover", args, s.Primaries, s.GapMS)
	}
	return s
}

func TestADemoKeepsEveryPromise(t *testing.T) {
	for name, flags := range map[string][]string{
		"crash":              nil,
		"frozen, semisync":   {"--nemesis=freeze", "--semisync"},
		"handed over":        {"--nemesis=switchover"},
		"without companions": {"--no-companion"},
	} {
		t.Run(name, func(t *testing.T) {
			s := runDemo(t, flags...)
			if flags != nil && s.Lost+s.OutsideLost != 0 {
				t.Errorf("demo lost %d writes, and %d of the outsider, want none", s.Lost, s.OutsideLost)
			}
			if name == "without companions" {
				return
			}
			if s.PromoteMS <= 0 || s.RejoinMS <= 0 || s.OutsideAcks == 0 {
				t.Errorf("demo took %v ms to promote and %v ms to bring the old primary back, and the outsider wrote %d times", s.PromoteMS, s.RejoinMS, s.OutsideAcks)
			}
		})
	}
}

func TestADemoDividesTheNetworkOrSaysWhyItCannot(t *testing.T) {
	needPostgres(t)
	if err := netns.Available(); err != nil {
		code, _, stderr := runHelios(t.Context(), "", "demo", "--nemesis=partition")
		if want := "helios: demo: --nemesis partition: " + err.Error(); code != exitFailed || !strings.HasPrefix(stderr, want) {
			t.Errorf("demo = %d, %q, want %d, %q", code, stderr, exitFailed, want)
		}
		return
	}
	s := runDemo(t, "--nemesis=partition", "--semisync")
	if s.Lost+s.OutsideLost != 0 || s.RejoinMS <= 0 {
		t.Errorf("demo lost %d writes, and %d of the outsider, want none; the old primary was back after %v ms", s.Lost, s.OutsideLost, s.RejoinMS)
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

// tempRoot makes a directory that demos make theirs in.
func tempRoot(t *testing.T) string {
	t.Helper()
	root, err := pgctl.MakeTempDir("demo-test-")
	pgtest.OK(t, err)
	t.Cleanup(func() { pgtest.OK(t, os.RemoveAll(root)) })
	t.Setenv("TMPDIR", root)
	return root
}

// wantNothingIn fails the test if there is a file in root, or a process that works
// there or was told of it.
func wantNothingIn(t *testing.T, root string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "*"))
	pgtest.OK(t, err)
	if len(files) > 0 {
		t.Errorf("left behind: %q", files)
	}
	processes, err := filepath.Glob("/proc/[0-9]*") // none but on Linux
	pgtest.OK(t, err)
	for _, p := range processes {
		at, _ := os.Readlink(p + "/cwd")
		told, _ := os.ReadFile(p + "/cmdline")
		if strings.Contains(at, root) || bytes.Contains(told, []byte(root)) {
			t.Errorf("left behind: process %s in %s: %q", filepath.Base(p), at, told)
		}
	}
}

// interruptDemo runs a demo that ends when text is shown, or when there is a file
// that the pattern matches.
func interruptDemo(t *testing.T, text, pattern string, flags ...string) {
	t.Helper()
	needPostgres(t)
	root := tempRoot(t)
	ctx, interrupt := context.WithTimeout(t.Context(), 3*time.Minute)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer interrupt()
	if pattern != "" {
		watching.Go(func() {
			if awaitFile(ctx, filepath.Join(root, pattern)) {
				interrupt()
			}
		})
	}
	var errs bytes.Buffer
	out := &alarm{text: text, ring: interrupt}
	code := run(ctx, append([]string{"demo", "--duration", "4s"}, flags...), streams{in: strings.NewReader(""), out: out, err: &errs})
	if want := "helios: demo: interrupted; its servers and files are removed\n"; code != exitInterrupted || errs.String() != want {
		t.Errorf("run = %d, %q, want %d, %q", code, errs.String(), exitInterrupted, want)
	}
	if !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("the moment to interrupt it did not come: %v", ctx.Err())
	}
	wantNothingIn(t, root)
}

// awaitFile waits for a file that the pattern matches; false if ctx ends before.
func awaitFile(ctx context.Context, pattern string) bool {
	for ctx.Err() == nil {
		if found, err := filepath.Glob(pattern); err != nil || len(found) > 0 {
			return true
		}
		sleepUntil(ctx, time.Now().Add(time.Millisecond))
	}
	return false
}

// never is text that no demo shows.
const never = "\x00"

func TestAnInterruptedDemoCleansUp(t *testing.T) {
	for name, tt := range map[string]struct {
		text, file string
		flags      []string
	}{
		"before it starts":              {"starting", "", nil},
		"while the first node is made":  {never, "*/n1/base/1", nil},
		"while the others are copied":   {never, "*/n[23].clone/base", nil},
		"under load":                    {" reads n1", "", nil},
		"in the failover":               {"crashes", "", nil},
		"while a node is frozen":        {"takes writes", "", []string{"--nemesis=freeze"}},
		"while a node has just frozen":  {"freezes", "", []string{"--nemesis=freeze"}},
		"while a node comes back":       {"is started again", "", nil},
		"without companions":            {"crashes", "", []string{"--no-companion"}},
		"without companions, promoted":  {"is promoted", "", []string{"--no-companion"}},
		"without companions, a cluster": {"starting", "", []string{"--no-companion"}},
	} {
		t.Run(name, func(t *testing.T) { interruptDemo(t, tt.text, tt.file, tt.flags...) })
	}
}

// shut is a reader that went away.
type shut struct{}

func (shut) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestADemoThatNobodyReadsEnds(t *testing.T) {
	needPostgres(t)
	root := tempRoot(t)
	code := run(pgtest.Context(t), []string{"demo"}, streams{in: strings.NewReader(""), out: shut{}, err: io.Discard})
	if code != exitInterrupted {
		t.Errorf("run = %d, want %d", code, exitInterrupted)
	}
	wantNothingIn(t, root)
}

func TestADemoThatFoundSomethingFails(t *testing.T) {
	for name, tt := range map[string]struct {
		s    summary
		well bool
	}{
		"nothing":                        {summary{figures: figures{Reads: 1, Unknown: 3}}, true},
		"stale read":                     {summary{figures: figures{Stale: 1}}, false},
		"lost write":                     {summary{Lost: 1}, false},
		"lost write of the outsider":     {summary{OutsideLost: 1}, false},
		"error":                          {summary{figures: figures{Errors: 1}}, false},
		"two primaries":                  {summary{DualAcks: 1}, false},
		"lost write, asynchronous":       {summary{Lost: 2, OutsideLost: 3, Told: 2, mayLose: true}, true},
		"old write lost, asynchronous":   {summary{Lost: 2, lostEarly: 1, mayLose: true}, false},
		"two primaries, asynchronous":    {summary{DualAcks: 1, mayLose: true}, false},
		"stale read, asynchronous":       {summary{figures: figures{Stale: 1}, mayLose: true}, false},
		"error of clients, asynchronous": {summary{figures: figures{Errors: 1}, mayLose: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tt.s.verdict(); (err == nil) != tt.well {
				t.Errorf("verdict() = %v for %+v", err, tt.s)
			}
		})
	}
}

func TestAReadIsStaleOnlyIfItMissedWhatIsThere(t *testing.T) {
	for name, tt := range map[string]struct {
		kept []int64
		want bool
	}{
		"what it missed was lost":         {[]int64{1, 2, 3, 6}, false},
		"some of what it missed is there": {[]int64{1, 2, 3, 5, 6}, true},
	} {
		t.Run(name, func(t *testing.T) {
			kept := map[int64]bool{}
			for _, n := range tt.kept {
				kept[n] = true
			}
			if got := (oldRead{saw: 3, acked: 5}).stale(kept); got != tt.want {
				t.Errorf("a read that saw 3 of 5, with %v there: stale = %v, want %v", tt.kept, got, tt.want)
			}
		})
	}
}

func TestTwoPrimariesShowInWhatTheyAcknowledge(t *testing.T) {
	r := newReigns()
	before := time.Now()
	r.acknowledged(1, before)
	r.acknowledged(2, before)
	r.acknowledged(1, before) // it began while there was no other primary
	if got := r.duals(); got != 0 {
		t.Errorf("duals() = %d for a write that began in time, want 0", got)
	}
	r.acknowledged(1, time.Now().Add(time.Millisecond))
	r.acknowledged(2, time.Now().Add(time.Millisecond))
	if got := r.duals(); got != 1 {
		t.Errorf("duals() = %d, want 1", got)
	}
	if got, err := r.after(t.Context(), 1); err != nil || got.timeline != 2 {
		t.Errorf("after(1) = %v, %v, want timeline 2", got, err)
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
