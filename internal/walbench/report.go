package walbench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
)

// A Report is what was measured.
type Report struct {
	Server  string   `json:"server"`
	Go      string   `json:"go"`
	System  string   `json:"system"`
	CPUs    int      `json:"cpus"`
	Load    []string `json:"load"` // load averages, at the beginning and the end
	Results []Result `json:"results"`
	Targets []Target `json:"targets"`
}

// A Result is what one way of WAL did in one workload.
type Result struct {
	Workload string   `json:"workload"`
	Case     string   `json:"case,omitempty"` // of several, which
	Path     string   `json:"path"`
	Rounds   int      `json:"rounds"`
	Figures  []Figure `json:"figures"`
}

// A Figure is one number: the median over the rounds.
type Figure struct {
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
	// Ratio is the median of the ratios to the first path of the workload and
	// case in the same round; 0 for none.
	Ratio float64 `json:"ratio,omitempty"`
}

// A Target is what is wanted of a figure.
type Target struct {
	What  string  `json:"what"`
	Bound float64 `json:"bound"`
	Most  bool    `json:"most"` // the bound is an upper one
	Got   float64 `json:"got"`
	Unit  string  `json:"unit"`
}

// Met reports whether it was reached.
func (t *Target) Met() bool {
	if t.Most {
		return t.Got <= t.Bound
	}
	return t.Got >= t.Bound
}

func newReport() *Report {
	return &Report{Go: runtime.Version(), System: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), Load: []string{load()}}
}

// find returns a figure; zero if it is not there.
func (r *Report) find(workload, of, path, unit string) Figure {
	for i := range r.Results {
		res := &r.Results[i]
		if res.Workload != workload || res.Case != of || res.Path != path {
			continue
		}
		for _, f := range res.Figures {
			if f.Unit == unit {
				return f
			}
		}
	}
	return Figure{}
}

// want takes down a target, unless its figure is missing.
func (r *Report) want(what string, most bool, bound float64, unit string, got float64) {
	if got != 0 && !math.IsNaN(got) {
		r.Targets = append(r.Targets, Target{What: what, Bound: bound, Most: most, Got: got, Unit: unit})
	}
}

// median returns the middle of values; 0 if there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// quantile returns the value below which the part p of all values lies.
func quantile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

// Write puts down the report for people or for programs.
func (r *Report) Write(w io.Writer, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	fmt.Fprintf(w, "%s; %s, %s, %d CPUs; load average %s\n", r.Server, r.Go, r.System, r.CPUs, strings.Join(r.Load, ", then "))
	for _, group := range r.groups() {
		fmt.Fprintln(w)
		if err := writeGroup(w, group); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w, "\nBehind ×: the ratio to the first line of the same case, in the same round.")
	if err != nil || len(r.Targets) == 0 {
		return err
	}
	return r.writeTargets(w)
}

// groups returns the results of each workload.
func (r *Report) groups() [][]Result {
	var groups [][]Result
	for i := range r.Results {
		if n := len(groups); n > 0 && groups[n-1][0].Workload == r.Results[i].Workload {
			groups[n-1] = append(groups[n-1], r.Results[i])
			continue
		}
		groups = append(groups, []Result{r.Results[i]})
	}
	return groups
}

// writeGroup writes a table with a column for each unit.
func writeGroup(w io.Writer, group []Result) error {
	var units []string
	for i := range group {
		for _, f := range group[i].Figures {
			if !slices.Contains(units, f.Unit) {
				units = append(units, f.Unit)
			}
		}
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%s\t\tN\t%s\n", strings.ToUpper(group[0].Workload), strings.Join(units, "\t"))
	for i := range group {
		res := &group[i]
		cells := make([]string, len(units))
		for j, unit := range units {
			cells[j] = "-"
			if k := slices.IndexFunc(res.Figures, func(f Figure) bool { return f.Unit == unit }); k >= 0 {
				cells[j] = res.Figures[k].String()
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", res.Case, res.Path, res.Rounds, strings.Join(cells, "\t"))
	}
	return table.Flush()
}

// String writes the figure with the digits that say something, and its ratio.
func (f Figure) String() string {
	text := digits(f.Value)
	if f.Ratio != 0 {
		text += fmt.Sprintf(" ×%.2f", f.Ratio)
	}
	return text
}

// digits writes three significant digits, and no fewer than the whole number.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

func (r *Report) writeTargets(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nTARGET\tWANTED\tGOT\t")
	for i := range r.Targets {
		t := &r.Targets[i]
		relation, verdict := "≥", "missed"
		if t.Most {
			relation = "≤"
		}
		if t.Met() {
			verdict = "met"
		}
		fmt.Fprintf(table, "%s\t%s %s %s\t%s\t%s\n", t.What, relation, digits(t.Bound), t.Unit, digits(t.Got), verdict)
	}
	return table.Flush()
}
