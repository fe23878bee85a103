package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/walbench"
)

func TestBenchMeasuresTheRelay(t *testing.T) {
	needPostgres(t)
	const workloads = "fanout,idle"
	code, out, stderr := runHelios(pgtest.Context(t), "", "bench", "wal", "--short", "--json",
		"--workload", workloads, "--duration", "10ms", "--subscribers", "2")
	var r walbench.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitOK {
		t.Fatalf("bench wal = %d, %q: %v in %s", code, stderr, err, out)
	}
	measured := map[string]bool{}
	for _, res := range r.Results {
		measured[res.Workload] = true
		for _, f := range res.Figures {
			if f.Value < 0 || f.Value == 0 && f.Unit != "% of a core" {
				t.Errorf("%s, %s: %s is %v", res.Workload, res.Path, f.Unit, f.Value)
			}
		}
	}
	for workload := range strings.SplitSeq(workloads, ",") {
		if !measured[workload] {
			t.Errorf("nothing about %s in %s", workload, out)
		}
	}
	if !strings.HasPrefix(r.Server, "PostgreSQL ") {
		t.Errorf("the server is %q", r.Server)
	}
}

func TestBenchWALRefusesWhatItCannotMeasure(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"a cluster of ours":   {[]string{"helios://db1"}, "takes no DSN"},
		"in memory":           {[]string{"--canned"}, "--canned has no WAL"},
		"for benchstat":       {[]string{"--benchstat", "laps.txt"}, "--benchstat is for the driver"},
		"an unknown workload": {[]string{"--workload", "fanout,flight"}, `"flight" is none of fanout, live`},
		"no time":             {[]string{"--duration", "0s"}, "--duration must be more than 0"},
		"too many":            {[]string{"--subscribers", "5,900"}, "--subscribers must be from 1 to 200"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, stderr := runHelios(t.Context(), "", append([]string{"bench", "wal"}, tt.args...)...)
			if code != exitUsage || out != "" || !strings.Contains(stderr, tt.want) {
				t.Errorf("bench wal %q = %d, %q, %q, want %d and %q", tt.args, code, out, stderr, exitUsage, tt.want)
			}
		})
	}
}
