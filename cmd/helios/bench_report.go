package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/heliosdb/helios/internal/sidebyside"
)

// benchReport is what a benchmark found.
type benchReport struct {
	Server  string      `json:"server"`
	Go      string      `json:"go"`
	System  string      `json:"system"`
	CPUs    int         `json:"cpus"`
	Conns   int         `json:"connections"` // to a node, for each driver
	Results []benchLine `json:"results"`

	laps []string // for benchstat
}

// benchLine is how one driver did at one workload. What was not measured, or
// says nothing, is left out.
type benchLine struct {
	Workload string `json:"workload"`
	Clients  int    `json:"clients"`
	Driver   string `json:"driver"`
	Baseline string `json:"baseline"` // the driver that the ratios are to
	Ops      int    `json:"operations"`
	Turns    int    `json:"turns"`

	CPU     *benchFigure `json:"cpu_ns_per_op,omitempty"` // of this process
	P50     *benchFigure `json:"p50_ns,omitempty"`
	P99     *benchFigure `json:"p99_ns,omitempty"`
	PerSec  *benchFigure `json:"ops_per_second,omitempty"`
	Objects *benchFigure `json:"allocs_per_op,omitempty"`
}

// benchFigure is a number and its ratio to the baseline's.
type benchFigure struct {
	Value float64 `json:"value"`
	Ratio float64 `json:"ratio"`
}

func newBenchReport(b *bench) *benchReport {
	return &benchReport{
		Server: b.arena.server, Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH,
		CPUs: runtime.GOMAXPROCS(0), Conns: b.conns,
	}
}

// lapsPerResult is how many measurements benchstat gets to see of each.
const lapsPerResult = 10

// add takes down the results of a race.
func (r *benchReport) add(w workload, clients int, results []sidebyside.Result) {
	for i := range results {
		res := &results[i]
		q := res.Ratios
		line := benchLine{
			Workload: w.name, Clients: clients, Driver: res.Name, Baseline: results[0].Name, Ops: res.Ops(), Turns: len(res.Slices),
			P50: figureOf(float64(res.P50()), q.P50), P99: figureOf(float64(res.P99()), q.P99),
		}
		timesOnly := w.apart && line.P50 != nil
		if !timesOnly {
			line.CPU, line.PerSec, line.Objects = figureOf(res.CPU(), q.CPU), figureOf(res.Throughput(), q.Throughput), figureOf(res.Objects(), q.Objects)
		}
		r.Results = append(r.Results, line)
		for _, lap := range res.Laps(lapsPerResult) {
			r.laps = append(r.laps, lapLine(w.name, clients, &lap, timesOnly))
		}
	}
}

// figureOf is nil for what was not measured.
func figureOf(value, ratio float64) *benchFigure {
	if value == 0 {
		return nil
	}
	return &benchFigure{Value: value, Ratio: ratio}
}

// lapLine writes a lap as `go test -bench` would.
func lapLine(workload string, clients int, lap *sidebyside.Result, timesOnly bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Benchmark%s/clients=%d/driver=%s\t%d", strings.ToUpper(workload[:1])+workload[1:], clients, lap.Name, lap.Ops())
	if lap.P50() > 0 {
		fmt.Fprintf(&b, "\t%d p50-ns\t%d p99-ns", lap.P50(), lap.P99())
	}
	if !timesOnly {
		fmt.Fprintf(&b, "\t%.1f ns/op\t%.1f cpu-ns/op\t%.1f allocs/op\t%.0f B/op", lap.Wall(), lap.CPU(), lap.Objects(), lap.Bytes())
	}
	return b.String()
}

// benchstat returns the report as lines that benchstat understands.
func (r *benchReport) benchstat() string {
	return fmt.Sprintf("goos: %s\ngoarch: %s\nserver: %s\n%s\n", runtime.GOOS, runtime.GOARCH, r.Server, strings.Join(r.laps, "\n"))
}

// write puts down the report for people or for programs.
func (r *benchReport) write(w io.Writer, asJSON bool) error {
	if !asJSON {
		return r.writeTable(w)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// writeTable writes a line for each driver, and its ratios behind the figures.
func (r *benchReport) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "%s; %s, %s, %s; %s to a node for each driver\n\n", r.Server, r.Go, r.System, count(r.CPUs, "CPU"), count(r.Conns, "connection"))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WORKLOAD\tCLIENTS\tDRIVER\tCPU/OP\tP50\tP99\tOPS/S\tALLOCS")
	for i := range r.Results {
		fmt.Fprintln(table, strings.Join(r.Results[i].row(), "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, "\nCPU/OP is of this process. Behind ×: the ratio to the first driver of the workload.\n")
	return err
}

// row is the line of the table.
func (l *benchLine) row() []string {
	first := l.Driver == l.Baseline
	return []string{
		l.Workload, strconv.Itoa(l.Clients), l.Driver,
		l.CPU.cell(first, inMicroseconds), l.P50.cell(first, inMicroseconds), l.P99.cell(first, inMicroseconds),
		l.PerSec.cell(first, func(v float64) string { return fmt.Sprintf("%.0f", v) }),
		l.Objects.cell(first, func(v float64) string { return fmt.Sprintf("%.1f", v) }),
	}
}

// cell is the figure, with its ratio unless it is the baseline's own.
func (f *benchFigure) cell(first bool, format func(float64) string) string {
	switch {
	case f == nil:
		return "-"
	case first || f.Ratio == 0:
		return format(f.Value)
	default:
		return fmt.Sprintf("%s ×%.2f", format(f.Value), f.Ratio)
	}
}

// inMicroseconds writes nanoseconds with the digits that say something.
func inMicroseconds(ns float64) string {
	d := time.Duration(ns)
	switch us := ns / 1000; {
	case us < 100:
		return fmt.Sprintf("%.2fµs", us)
	case us < 10_000:
		return fmt.Sprintf("%.0fµs", us)
	default:
		return d.Round(time.Millisecond).String()
	}
}
