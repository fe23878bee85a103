package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/rivals"
	"github.com/heliosdb/helios/internal/sidebyside"
)

// workload is something to do, and who is compared at it.
type workload struct {
	name    string
	crowded bool // by --goroutines at once, not as --concurrency says
	alone   bool // on a server by one client: the others would be in the way of what comes before
	apart   bool // on a server only the times count: the rest has in it what comes before
	enter   func(ctx context.Context, a *arena, clients int) (*field, error)
}

// workloads returns all of them in the order of the help.
func workloads() []workload {
	return []workload{
		{name: "read", enter: drivers(func(d *rivals.Driver) rivals.Operation { return d.Read })},
		{name: "list", enter: drivers(func(d *rivals.Driver) rivals.Operation { return d.List })},
		{name: "write", enter: drivers(func(d *rivals.Driver) rivals.Operation { return d.Write })},
		{name: "transaction", enter: drivers(func(d *rivals.Driver) rivals.Operation { return d.Transaction })},
		{name: "mixed", enter: drivers(mixed)},
		{name: "token", enter: tokens},
		{name: "check", alone: true, apart: true, enter: checks},
		{name: "crowd", crowded: true, enter: crowd},
	}
}

// chosen returns the workloads of a list. All of them are all that make sense: a
// crowd waits for a server, and in memory there is none.
func chosen(list string, canned bool) ([]workload, error) {
	all := workloads()
	if list == "all" {
		return slices.DeleteFunc(all, func(w workload) bool { return w.crowded && canned }), nil
	}
	var found []workload
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(all, func(w workload) bool { return w.name == strings.TrimSpace(name) })
		if i < 0 {
			names := make([]string, len(all))
			for i := range all {
				names[i] = all[i].name
			}
			return nil, fmt.Errorf("--workload %q is none of %s, all", name, strings.Join(names, ", "))
		}
		found = append(found, all[i])
	}
	return found, nil
}

// clients returns the numbers of clients that the workload is measured with.
func (w *workload) clients(b *bench) []int {
	switch {
	case w.crowded:
		return []int{b.goroutines}
	case w.alone && !b.canned:
		return []int{1}
	default:
		return b.concurrency
	}
}

// field is who takes part in a race; the first is the baseline.
type field struct {
	contestants []sidebyside.Contestant
	open        []*rivals.Driver
}

// add has another one take part, unless it could not be opened.
func (f *field) add(d *rivals.Driver, err error, name string, choose func(*rivals.Driver) rivals.Operation) error {
	if err != nil {
		return err
	}
	f.open = append(f.open, d)
	f.contestants = append(f.contestants, sidebyside.Contestant{Name: name, Do: choose(d)})
	return nil
}

// close closes the drivers.
func (f *field) close() error {
	if f == nil {
		return nil
	}
	var err error
	for _, d := range f.open {
		err = errors.Join(err, d.Close())
	}
	return err
}

// drivers lets every driver do what choose says, helios as the DSN has it.
func drivers(choose func(*rivals.Driver) rivals.Operation) func(context.Context, *arena, int) (*field, error) {
	return func(ctx context.Context, a *arena, clients int) (*field, error) {
		return all(ctx, a.options(clients), nil, choose)
	}
}

// crowd is a read by many more clients than there are connections. helios reads
// from the primary as the others do: with replicas it would have more
// connections than they.
func crowd(ctx context.Context, a *arena, clients int) (*field, error) {
	onPrimary := func(cfg *helios.Config) { cfg.TargetSessionAttrs = helios.TargetPrimary }
	return all(ctx, a.options(clients), onPrimary, func(d *rivals.Driver) rivals.Operation { return d.Read })
}

// all opens every driver.
func all(ctx context.Context, o *rivals.Options, change func(*helios.Config), choose func(*rivals.Driver) rivals.Operation) (*field, error) {
	f := &field{}
	stdlib, err := o.Stdlib()
	if err := f.add(stdlib, err, rivals.NameStdlib, choose); err != nil {
		return f, err
	}
	mine, err := o.Helios(change)
	if err := f.add(mine, err, rivals.NameHelios, choose); err != nil {
		return f, err
	}
	pool, err := o.Pool(ctx)
	return f, f.add(pool, err, rivals.NamePool, choose)
}

// mixed is what an application may do: the same sequence for every driver.
func mixed(d *rivals.Driver) rivals.Operation {
	return func(ctx context.Context, i int) error {
		switch i % 10 {
		case 3:
			return d.Write(ctx, i)
		case 7:
			return d.Transaction(ctx, i)
		default:
			return d.Read(ctx, i)
		}
	}
}

// tokens compares a write that learns its position with one that does not.
func tokens(_ context.Context, a *arena, clients int) (*field, error) {
	f := &field{}
	for _, mode := range []helios.LSNMode{helios.LSNOff, helios.LSNEager} {
		d, err := a.options(clients).Helios(func(cfg *helios.Config) {
			cfg.Consistency, cfg.LSN = helios.Eventual, mode
		})
		if err := f.add(d, err, "lsn="+mode.String(), func(d *rivals.Driver) rivals.Operation { return d.Write }); err != nil {
			return f, err
		}
	}
	return f, nil
}

// checks compares a read of a session that has always just written, so that its
// replica has to prove something new each time, with one that takes any replica.
func checks(_ context.Context, a *arena, clients int) (*field, error) {
	f := &field{}
	for _, level := range []helios.Consistency{helios.Eventual, helios.PerSession} {
		d, err := a.options(clients).Helios(func(cfg *helios.Config) { cfg.Consistency, cfg.LSN = level, helios.LSNEager })
		if err := f.add(d, err, level.String(), a.sessionRead); err != nil {
			return f, err
		}
		f.contestants[len(f.contestants)-1].Before = a.advance
	}
	return f, nil
}
