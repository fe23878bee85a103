package walbench

import (
	"context"
	"fmt"
	"time"

	"github.com/heliosdb/helios/internal/sidebyside"
)

// A measure is figures by their unit.
type measure map[string]float64

// A path is one way for WAL to go.
type path struct {
	name string
	run  func(ctx context.Context) (measure, error) // one turn
}

// fewest is how many rounds there are at least, so that there is a median to
// speak of.
const fewest = 3

// turns gives each path its turn, round after round, in an order that rotates
// and every other time goes backwards, for about the time that a measurement has.
// Before, unless it is nil, is called before each round.
func (b *bench) turns(ctx context.Context, workload, of string, units []string, paths []path, before func(context.Context) error) error {
	all := make([]map[string][]float64, len(paths))
	for i := range all {
		all[i] = map[string][]float64{}
	}
	rounds := 0
	for begun := time.Now(); rounds < b.fewest() || time.Since(begun) < b.Duration; rounds++ {
		if before != nil {
			if err := before(ctx); err != nil {
				return fmt.Errorf("%s: %w", workload, err)
			}
		}
		for _, i := range sidebyside.Order(len(paths), rounds) {
			m, err := paths[i].run(ctx)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", workload, paths[i].name, err)
			}
			for unit, v := range m {
				all[i][unit] = append(all[i][unit], v)
			}
		}
	}
	for i, p := range paths {
		res := Result{Workload: workload, Case: of, Path: p.name, Rounds: rounds}
		for _, unit := range units {
			if values := all[i][unit]; len(values) > 0 {
				res.Figures = append(res.Figures, figureOf(unit, values, all[0][unit], i > 0))
			}
		}
		b.report.Results = append(b.report.Results, res)
	}
	return nil
}

// fewest returns how many rounds there are at least.
func (b *bench) fewest() int {
	if b.Short {
		return 1
	}
	return fewest
}

// figureOf makes one figure of those of all rounds.
func figureOf(unit string, values, baseline []float64, compared bool) Figure {
	f := Figure{Unit: unit, Value: median(values)}
	if !compared || len(values) != len(baseline) {
		return f
	}
	var ratios []float64
	for i := range values {
		if baseline[i] > 0 {
			ratios = append(ratios, values[i]/baseline[i])
		}
	}
	f.Ratio = median(ratios)
	return f
}

// add takes down figures that are not compared with others.
func (b *bench) add(workload, of, name string, figures ...Figure) {
	b.report.Results = append(b.report.Results, Result{Workload: workload, Case: of, Path: name, Rounds: 1, Figures: figures})
}
