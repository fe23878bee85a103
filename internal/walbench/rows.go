package walbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
)

const (
	unitRows   = "rows/s"
	unitBehind = "ms behind" // the standby, when the load ended
)

// A rowLoad is one way to write rows.
type rowLoad struct {
	batch  int
	commit string // synchronous_commit
}

func (l rowLoad) String() string {
	what := "single rows"
	if l.batch > 1 {
		what = fmt.Sprintf("%d rows at once", l.batch)
	}
	return what + ", commit " + l.commit
}

// script is a transaction of the load, for pgbench.
func (l rowLoad) script() string {
	return fmt.Sprintf("INSERT INTO changes SELECT i, 'row ' || i FROM generate_series(1, %d) i;\n", l.batch)
}

// rows counts the rows that are written on the primary and replayed on a
// standby: behind the primary itself, or behind two relays.
func (b *bench) rows(ctx context.Context) (err error) {
	c, err := b.start(ctx, 1, durable)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	dir, err := os.MkdirTemp("", "walbench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	w := &rowBench{b: b, primary: c.Primary(), standby: c.Replicas()[0], script: filepath.Join(dir, "load.sql")}
	defer func() { err = errors.Join(err, w.unlink()) }()
	if err := w.primary.Exec(ctx, "CREATE TABLE changes (id bigint, body text)"); err != nil {
		return err
	}
	best := map[int]float64{}
	for _, l := range []rowLoad{{1, "on"}, {1, "off"}, {100, "on"}, {100, "off"}, {2000, "on"}, {2000, "off"}} {
		paths := []path{
			{pathDirect, func(ctx context.Context) (measure, error) { return w.run(ctx, l, pathDirect) }},
			{pathRaw, func(ctx context.Context) (measure, error) { return w.run(ctx, l, pathRaw) }},
			{pathLZ4, func(ctx context.Context) (measure, error) { return w.run(ctx, l, pathLZ4) }},
		}
		if err := b.turns(ctx, "rows", l.String(), []string{unitRows, unitRecords, unitRate, unitBehind}, paths, nil); err != nil {
			return err
		}
		best[l.batch] = max(best[l.batch], b.report.find("rows", l.String(), pathLZ4, unitRows).Value)
	}
	for _, claim := range []float64{50_000, 100_000, 150_000} {
		b.report.want("row changes end to end through two relays with LZ4, batched", false, claim, unitRows, max(best[100], best[2000]))
	}
	return nil
}

// rowBench is what goes on from turn to turn.
type rowBench struct {
	b                *bench
	primary, standby *pgtest.Node
	script           string
	how              string // the path that the standby is on; "" for that of the start
	relays           []*relayProcess
}

// link puts the standby where it has to be.
func (w *rowBench) link(ctx context.Context, how string) error {
	if w.how == how || w.how == "" && how == pathDirect {
		w.how = how
		return nil
	}
	if err := w.unlink(); err != nil {
		return err
	}
	source := conninfo(w.primary, w.standby.Name)
	if how != pathDirect {
		last := conninfo(w.primary, "near")
		for _, name := range []string{"near", "far"} {
			r, err := startRelay(ctx, relayRequest{Name: name, Source: last, Buffer: 512 << 20, Raw: how == pathRaw})
			if err != nil {
				return err
			}
			w.relays = append(w.relays, r)
			last = r.conninfo("far")
		}
		source = w.relays[1].conninfo(w.standby.Name)
	}
	w.how = how
	return w.standby.Server().Configure(ctx, map[string]string{"primary_conninfo": source})
}

// unlink stops the relays.
func (w *rowBench) unlink() error {
	var errs []error
	for _, r := range slices.Backward(w.relays) {
		errs = append(errs, r.close())
	}
	w.relays = nil
	return errors.Join(errs...)
}

// run writes for a turn and returns what was replayed by when.
func (w *rowBench) run(ctx context.Context, l rowLoad, how string) (measure, error) {
	if err := w.link(ctx, how); err != nil {
		return nil, err
	}
	if err := w.primary.Exec(ctx, "TRUNCATE changes"); err != nil {
		return nil, err
	}
	// For the sessions of the load, without a statement of its own in each transaction.
	if err := w.primary.Exec(ctx, "ALTER ROLE CURRENT_USER SET synchronous_commit = "+l.commit); err != nil {
		return nil, err
	}
	if err := w.primary.Exec(ctx, "CHECKPOINT"); err != nil {
		return nil, err
	}
	if err := os.WriteFile(w.script, []byte(l.script()), 0o600); err != nil {
		return nil, err
	}
	if err := w.arrived(ctx); err != nil {
		return nil, err
	}
	before, err := recordsOf(ctx, w.primary)
	if err != nil {
		return nil, err
	}
	from, err := written(ctx, w.primary)
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if _, err := pgbench(ctx, w.primary, "-n", "-c", "4", "-T", seconds(w.b.turn()/2), "-f", w.script); err != nil {
		return nil, err
	}
	ended := time.Now()
	if err := w.arrived(ctx); err != nil {
		return nil, err
	}
	took := time.Since(begun)
	rows, err := pgtest.Value[int64](ctx, w.standby, "SELECT count(*) FROM changes")
	if err != nil {
		return nil, err
	}
	records, err := recordsOf(ctx, w.primary)
	if err != nil {
		return nil, err
	}
	to, err := written(ctx, w.primary)
	if err != nil {
		return nil, err
	}
	return measure{
		unitRows: float64(rows) / took.Seconds(), unitRecords: float64(records-before) / took.Seconds(),
		unitRate: float64(to-from) / mega / took.Seconds(), unitBehind: time.Since(ended).Seconds() * 1000,
	}, nil
}

// arrived returns when the standby has replayed what is written.
func (w *rowBench) arrived(ctx context.Context) error {
	at, err := written(ctx, w.primary)
	if err != nil {
		return err
	}
	return w.standby.WaitReplayed(ctx, at)
}
