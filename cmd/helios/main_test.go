package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/heliosdb/helios/internal/walbench"
)

// TestMain lets scripts run this test binary as helios, a benchmark its parts, and
// a demo its companions.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "server" {
		main()
	}
	if code, is := walbench.Child(); is {
		os.Exit(code)
	}
	testscript.Main(m, map[string]func(){"helios": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true, RequireUniqueNames: true})
}

// runHelios executes one command line in this process.
func runHelios(ctx context.Context, in string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(ctx, args, streams{in: strings.NewReader(in), out: &out, err: &errs})
	return code, out.String(), errs.String()
}

func TestExitCodesSayWhoseFaultItIs(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want int
	}{
		"all is well":         {[]string{"route", "SELECT 1"}, exitOK},
		"help is no error":    {[]string{"ping", "-h"}, exitOK},
		"no command":          {nil, exitUsage},
		"unknown command":     {[]string{"raute"}, exitUsage},
		"unknown flag":        {[]string{"route", "--color"}, exitUsage},
		"DSN that is none":    {[]string{"ping", "helios://db:port/"}, exitUsage},
		"cluster is not here": {[]string{"ping", "helios://127.0.0.1:1/?sslmode=disable"}, exitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			if got, _, stderr := runHelios(t.Context(), "", tt.args...); got != tt.want {
				t.Errorf("run(%q) = %d, want %d; it said %q", tt.args, got, tt.want, stderr)
			}
		})
	}
}

func TestFlagsMayStandAnywhere(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		rest string
		json bool
	}{
		"before":              {[]string{"--json", "a", "b"}, "a b", true},
		"between":             {[]string{"a", "--json", "b"}, "a b", true},
		"behind":              {[]string{"a", "b", "-json"}, "a b", true},
		"behind two dashes":   {[]string{"a", "--", "--json"}, "a --json", false},
		"flag and two dashes": {[]string{"--json", "--", "-b"}, "-b", true},
		"a comment is none":   {[]string{"-- --json\nSELECT 1"}, "-- --json\nSELECT 1", false},
		"a dash is none":      {[]string{"-", "a"}, "- a", false},
	} {
		t.Run(name, func(t *testing.T) {
			fs := newFlagSet("x")
			asJSON := fs.Bool("json", false, "")
			rest, err := parseFlags(fs, tt.args)
			if err != nil || strings.Join(rest, " ") != tt.rest || *asJSON != tt.json {
				t.Errorf("parseFlags(%q) = %q, %v with json=%v, want %q with json=%v", tt.args, rest, err, *asJSON, tt.rest, tt.json)
			}
		})
	}
}

func TestAFailureIsOneLineAndAHint(t *testing.T) {
	var out bytes.Buffer
	f := &failure{err: errors.Join(errors.New("helios: node n1: gone"), errors.New("and n2")), hint: "wait"}
	f.print(&out)
	if want := "helios: node n1: gone; and n2\nhint: wait\n"; out.String() != want {
		t.Errorf("print wrote %q, want %q", out.String(), want)
	}
}
