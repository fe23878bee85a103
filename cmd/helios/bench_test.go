package main

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/sidebyside"
)

// runBench executes the command with --json and returns its report.
func runBench(t *testing.T, args ...string) (benchReport, string) {
	t.Helper()
	code, out, stderr := runHelios(pgtest.Context(t), "", append([]string{"bench", "driver", "--json", "--duration", "100ms"}, args...)...)
	var r benchReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitOK {
		t.Fatalf("bench %q = %d, %q: %v in %s", args, code, stderr, err, out)
	}
	return r, stderr
}

// drivers returns who took part in a workload, and checks that all is measured
// which should be.
func (r *benchReport) drivers(t *testing.T, workload string, clients int) []string {
	t.Helper()
	var names []string
	for _, l := range r.Results {
		if l.Workload != workload || l.Clients != clients {
			continue
		}
		names = append(names, l.Driver)
		if l.Ops < 5 || l.Turns < 5 || l.Baseline != names[0] || l.Driver == l.Baseline && l.PerSec != nil && l.PerSec.Ratio != 1 {
			t.Errorf("%+v, want 5 turns at least, and a ratio to %s", l, names[0])
		}
	}
	return names
}

func TestBenchMeasuresInMemory(t *testing.T) {
	r, _ := runBench(t, "--canned", "--concurrency", "1,2")
	three := []string{"stdlib", "helios", "pgxpool"}
	for _, clients := range []int{1, 2} {
		for workload, want := range map[string][]string{
			"read": three, "list": three, "write": three, "transaction": three, "mixed": three,
			"token": {"lsn=off", "lsn=eager"}, "check": {"eventual", "session"},
		} {
			if got := r.drivers(t, workload, clients); !slices.Equal(got, want) {
				t.Errorf("%s with %d clients: %q took part, want %q", workload, clients, got, want)
			}
		}
	}
	for _, l := range r.Results {
		if l.CPU == nil || l.PerSec == nil || l.Objects == nil || l.P50 != nil {
			t.Errorf("%+v, want processor time, throughput and allocations; and no times, which would be of the clock", l)
		}
	}
}

func TestBenchMeasuresOnACluster(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{Replicas: 1, Database: "shop"})
	r, stderr := runBench(t, cluster.DSN("password=geheim"), "--concurrency", "2", "--goroutines", "50", "--conns", "4")
	for workload, clients := range map[string]int{"read": 2, "list": 2, "write": 2, "transaction": 2, "mixed": 2, "crowd": 50} {
		if got := r.drivers(t, workload, clients); !slices.Equal(got, []string{"stdlib", "helios", "pgxpool"}) {
			t.Errorf("%s: %q took part", workload, got)
		}
	}
	if got := r.drivers(t, "check", 1); !slices.Equal(got, []string{"eventual", "session"}) {
		t.Errorf("check: %q took part", got)
	}
	for _, l := range r.Results {
		if l.P50 == nil || l.P99 == nil || l.P50.Value > l.P99.Value || (l.PerSec == nil) != (l.Workload == "check") {
			t.Errorf("%+v, want times, and more than times but for check", l)
		}
	}
	if !strings.Contains(stderr, cluster.Primary().Addr()) || strings.Contains(stderr, "geheim") {
		t.Errorf("it said %q, want where it makes the schema, and no password", stderr)
	}
	noSchema(t, cluster)
}

// noSchema checks that nothing is left.
func noSchema(t *testing.T, cluster *pgtest.Cluster) {
	t.Helper()
	left, err := pgtest.Value[bool](pgtest.Context(t), cluster.Primary(), "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema)
	if pgtest.OK(t, err); left {
		t.Errorf("the schema %s is left behind", schema)
	}
}

func TestBenchWithoutAReplicaChecksNothing(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{})
	r, stderr := runBench(t, cluster.DSN(), "--workload", "check,token", "--concurrency", "1")
	if got := r.drivers(t, "check", 1); got != nil || !strings.Contains(stderr, "check needs a replica") {
		t.Errorf("check: %q took part, and it said %q", got, stderr)
	}
	if got := r.drivers(t, "token", 1); !slices.Equal(got, []string{"lsn=off", "lsn=eager"}) {
		t.Errorf("token: %q took part", got)
	}
}

func TestAnInterruptedBenchCleansUp(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{Replicas: 1})
	// What is under way on the primary when the interrupt comes.
	const running = "SELECT count(*) >= $1 FROM pg_stat_activity WHERE query LIKE '%helios_bench.users WHERE%' AND pid <> pg_backend_pid()"
	for name, tt := range map[string]struct {
		workload string
		readers  int // 0: at the first word
	}{
		"while it makes the table": {"read", 0},
		"while it measures":        {"read", 1},
		"in a crowd":               {"crowd", 10},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, interrupt := context.WithCancel(pgtest.Context(t))
			defer interrupt()
			errs := &alarm{text: "makes the schema", ring: func() {
				if tt.readers == 0 {
					interrupt()
				}
			}}
			var watching sync.WaitGroup
			defer watching.Wait()
			if tt.readers > 0 {
				watching.Go(func() {
					defer interrupt()
					if err := cluster.Primary().Await(ctx, running, tt.readers); err != nil {
						t.Error(err)
					}
				})
			}
			var out bytes.Buffer
			args := []string{"bench", "driver", cluster.DSN(), "--duration", "1h", "--workload", tt.workload, "--concurrency", "2", "--goroutines", "1000"}
			code := run(ctx, args, streams{in: strings.NewReader(""), out: &out, err: errs})
			const want = "helios: bench: interrupted; nothing is left on the cluster\n"
			if got := errs.all.String(); code != exitInterrupted || !strings.HasSuffix(got, want) || out.Len() > 0 {
				t.Errorf("run = %d, %q, %q, want %d, %q", code, got, out.String(), exitInterrupted, want)
			}
			noSchema(t, cluster)
		})
	}
}

func TestBenchLeavesTheSchemaOfAnotherAlone(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	pgtest.OK(t, cluster.Primary().Exec(ctx, "CREATE SCHEMA "+schema))
	code, out, stderr := runHelios(ctx, "", "bench", "driver", cluster.DSN())
	if code != exitFailed || out != "" || !strings.Contains(stderr, "is there already") || !strings.Contains(stderr, "hint: ") {
		t.Errorf("bench = %d, %q, %q, want %d and a hint", code, out, stderr, exitFailed)
	}
	there, err := pgtest.Value[bool](ctx, cluster.Primary(), "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema)
	if pgtest.OK(t, err); !there {
		t.Error("the schema was dropped")
	}
}

func TestBenchSaysWhatTheRoleMayNot(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{Database: "shop"})
	ctx := pgtest.Context(t)
	pgtest.OK(t, cluster.Primary().Exec(ctx, "CREATE ROLE guest LOGIN"))
	code, _, stderr := runHelios(ctx, "", "bench", "driver", strings.Replace(cluster.DSN(), "postgres@", "guest@", 1))
	if code != exitFailed || !strings.Contains(stderr, "permission denied for database shop") {
		t.Errorf("bench = %d, %q, want %d and what is denied", code, stderr, exitFailed)
	}
}

func TestBenchOnAClusterOfItsOwn(t *testing.T) {
	needPostgres(t)
	r, _ := runBench(t, "--local", "--workload", "read", "--concurrency", "1")
	if got := r.drivers(t, "read", 1); len(got) != 3 || !strings.Contains(r.Server, "1 replica") {
		t.Errorf("%q took part on %s, want three on a primary with a replica", got, r.Server)
	}
}

func TestABenchReportIsReadable(t *testing.T) {
	r := benchReport{Server: "PostgreSQL 15.18, 2 replicas", Go: "go1.26", System: "linux/amd64", CPUs: 2, Conns: 20}
	slice := sidebyside.Slice{Ops: 10, Wall: time.Millisecond, CPU: 300 * time.Microsecond, Objects: 110, P50: 80 * time.Microsecond, P99: 12 * time.Millisecond}
	results := []sidebyside.Result{
		{Name: "stdlib", Slices: []sidebyside.Slice{slice}, Ratios: sidebyside.Ratios{CPU: 1, P50: 1, P99: 1, Throughput: 1, Objects: 1}},
		{Name: "helios", Slices: []sidebyside.Slice{slice}, Ratios: sidebyside.Ratios{CPU: 0.4, P50: 0.9, P99: 0.5, Throughput: 1.5, Objects: 0.55}},
	}
	r.add(workload{name: "read"}, 8, results)
	r.add(workload{name: "check", apart: true}, 1, results)
	var table strings.Builder
	pgtest.OK(t, r.write(&table, false))
	for form, tt := range map[string]struct {
		got  string
		want []string
	}{
		"table": {table.String(), []string{
			"PostgreSQL 15.18, 2 replicas; go1.26, linux/amd64, 2 CPUs; 20 connections",
			"read      8        stdlib  30.00µs        80.00µs        12ms        10000        11.0\n",
			"read      8        helios  30.00µs ×0.40  80.00µs ×0.90  12ms ×0.50  10000 ×1.50  11.0 ×0.55\n",
			"check     1        helios  -              80.00µs ×0.90  12ms ×0.50  -            -\n",
		}},
		"benchstat": {r.benchstat(), []string{
			"\nserver: PostgreSQL 15.18, 2 replicas\nBenchmarkRead/clients=8/driver=stdlib\t10\t80000 p50-ns\t12000000 p99-ns\t100000.0 ns/op\t30000.0 cpu-ns/op\t11.0 allocs/op\t0 B/op\n",
			"\nBenchmarkCheck/clients=1/driver=helios\t10\t80000 p50-ns\t12000000 p99-ns\n",
		}},
	} {
		for _, want := range tt.want {
			if !strings.Contains(tt.got, want) {
				t.Errorf("no %q in the %s:\n%s", want, form, tt.got)
			}
		}
	}
}
