package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/sidebyside"
)

// benchCommand measures the driver, and the relay of WAL, next to others.
func benchCommand() command {
	return command{
		name:    "bench",
		args:    "driver [DSN] | wal",
		summary: "measure the driver next to pgx, or the WAL relay next to PostgreSQL's own streaming",
		about: `bench driver: helios, pgx under database/sql (stdlib) and pgx with its own pool (pgxpool) do the
same things by turns of some milliseconds, so that whatever else the machine does
concerns all of them. pgx goes to the primary; helios reads where the DSN lets it.

  read         a row by its id
  list         a hundred rows
  write        a row by its id; helios learns its position
  transaction  the same between BEGIN and COMMIT
  mixed        of ten: eight reads, a write, a transaction
  token        helios: a write with its position, next to one without
  check        helios: a read whose replica has to prove that it is fresh, next to
               one that takes any replica
  crowd        reads by --goroutines at once, helios on the primary too; takes
               three times --duration

The figures are what it costs when nobody disturbs (the lower decile of all
turns); behind them stands the ratio to the first driver, in the same round (the
median of all rounds). Below 1 is better; for OPS/S, above 1.

On the cluster of the DSN it makes a schema, helios_bench, with a table of 1000
rows, and drops it at the end, also after Ctrl-C. The role needs CREATE on the
database. With --local it starts a primary and a replica on this machine for it.
With --canned there is no cluster: a server in memory answers at once, and what is
left is the time of the drivers themselves.

` + aboutBenchWAL,
		flags: func(fs *flag.FlagSet) action {
			b := &bench{concurrency: []int{1, 8, 32}, subscribers: []int{20, 100}}
			fs.BoolVar(&b.canned, "canned", false, "measure on a server in memory; takes no DSN")
			fs.BoolVar(&b.local, "local", false, "measure on a cluster started for it on this machine; takes no DSN")
			fs.StringVar(&b.workload, "workload", "all", "`LIST` of what is done, with commas between")
			fs.Var(&b.concurrency, "concurrency", "`LIST` of how many goroutines do it at once")
			fs.DurationVar(&b.duration, "duration", 5*time.Second, "`DURATION` of each measurement, of all its drivers together")
			fs.IntVar(&b.conns, "conns", 20, "`N` connections to a node at most, for every driver")
			fs.IntVar(&b.goroutines, "goroutines", 10_000, "`N` goroutines of the crowd")
			fs.Var(&b.subscribers, "subscribers", "`LIST` of how many follow at once (wal)")
			fs.BoolVar(&b.short, "short", false, "little WAL and one round, to see that it works (wal)")
			fs.BoolVar(&b.asJSON, "json", false, "print a JSON object")
			fs.StringVar(&b.laps, "benchstat", "", "also write a `FILE` for benchstat, with ten lines for each result")
			return b.run
		},
	}
}

// bench is one run of the command.
type bench struct {
	canned, local, asJSON bool
	short                 bool
	workload, laps        string
	concurrency           numbers
	subscribers           numbers
	duration              time.Duration
	conns, goroutines     int

	workloads []workload
	arena     *arena
}

// What a bench may be asked for.
const (
	mostConns      = 1000
	mostGoroutines = 1_000_000
)

// run checks the flags, measures, and prints what came out.
func (b *bench) run(ctx context.Context, s streams, args []string) error {
	if len(args) > 0 && args[0] == "wal" {
		return b.runWAL(ctx, s, args[1:])
	}
	cfg, err := b.check(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)() // a second signal does not wait for the clean-up
	r, err := b.measure(ctx, s, cfg)
	switch {
	case ctx.Err() != nil && (err == nil || b.arena == nil || b.arena.remains == nil):
		return &failure{code: exitInterrupted, err: errors.New("bench: interrupted; nothing is left on the cluster")}
	case err != nil:
		return b.failed(err)
	}
	if b.laps != "" {
		if err := os.WriteFile(b.laps, []byte(r.benchstat()), 0o644); err != nil {
			return b.failed(err)
		}
	}
	return r.write(s.out, b.asJSON)
}

// failed says why there is no result, and what is left of it.
func (b *bench) failed(err error) error {
	if errors.Is(err, pgtest.ErrUnavailable) {
		return failed(fmt.Errorf("bench: %w", errNoPostgres()), hintNoPostgres)
	}
	hint := ""
	if b.arena != nil && (b.arena.remains != nil || errors.Is(err, errSchemaExists)) {
		hint = "if nobody else is measuring, DROP SCHEMA " + schema + " CASCADE"
	}
	return failed(fmt.Errorf("bench: %w", plain(err)), hint)
}

// check refuses a command line that makes no benchmark, and returns the cluster
// it names; nil for the one in memory.
func (b *bench) check(args []string) (*helios.Config, error) {
	refuse := func(format string, a ...any) error {
		return usageError("bench: "+fmt.Sprintf(format, a...), "helios help bench")
	}
	want := 2
	if b.canned || b.local {
		want = 1
	}
	switch {
	case len(args) == 0 || args[0] != "driver":
		return nil, refuse("what is measured is the driver or the relay: helios bench driver, helios bench wal")
	case b.canned && b.local:
		return nil, refuse("--canned and --local are two places; choose one")
	case len(args) != want && want == 1:
		return nil, refuse("--canned and --local take no DSN")
	case len(args) != want:
		return nil, refuse("want one DSN, or --local, or --canned")
	case b.duration <= 0:
		return nil, refuse("--duration must be more than 0")
	case b.conns < 1 || b.conns > mostConns:
		return nil, refuse("--conns must be from 1 to %d", mostConns)
	case b.goroutines < 1 || b.goroutines > mostGoroutines:
		return nil, refuse("--goroutines must be from 1 to %d", mostGoroutines)
	}
	var err error
	if b.workloads, err = chosen(b.workload, b.canned); err != nil {
		return nil, refuse("%v", err)
	}
	if want == 1 {
		return nil, nil
	}
	cfg, err := helios.ParseDSN(args[1])
	if err != nil {
		return nil, refuse("%v", plain(err))
	}
	return cfg, nil
}

// measure takes every workload through its races.
func (b *bench) measure(ctx context.Context, s streams, cfg *helios.Config) (r *benchReport, err error) {
	if err := b.enter(ctx, s, cfg); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.arena.close(ctx)) }()
	r = newBenchReport(b)
	for _, w := range b.workloads {
		if w.alone && !b.canned && len(b.arena.replicas) == 0 {
			fmt.Fprintf(s.err, "bench: %s needs a replica, and there is none\n", w.name)
			continue
		}
		for _, clients := range w.clients(b) {
			fmt.Fprintf(s.err, "bench: %s, %s\n", w.name, count(clients, "client"))
			results, err := b.race(ctx, w, clients)
			if err != nil {
				return nil, fmt.Errorf("%s with %s: %w", w.name, count(clients, "client"), err)
			}
			r.add(w, clients, results)
		}
	}
	return r, nil
}

// enter makes the arena ready.
func (b *bench) enter(ctx context.Context, s streams, cfg *helios.Config) (err error) {
	switch {
	case b.canned:
		b.arena, err = cannedArena(b.conns)
	case b.local:
		b.arena, err = localArena(ctx, b.conns, s.err)
	default:
		b.arena, err = realArena(ctx, cfg, b.conns, s.err)
	}
	return err
}

// race measures one workload with so many clients.
func (b *bench) race(ctx context.Context, w workload, clients int) (results []sidebyside.Result, err error) {
	field, err := w.enter(ctx, b.arena, clients)
	defer func() { err = errors.Join(err, field.close()) }()
	if err != nil {
		return nil, err
	}
	race := sidebyside.Race{
		Contestants: field.contestants, Clients: clients, Duration: b.duration,
		Slice: b.slice(w), Latency: !b.canned,
	}
	if b.canned {
		neverEnding(race.Contestants)
	}
	return race.Run(ctx)
}

// neverEnding gives operations a context that cannot end: one that can costs
// database/sql a goroutine for each query, and in memory nothing hangs.
func neverEnding(contestants []sidebyside.Contestant) {
	for i := range contestants {
		do := contestants[i].Do
		contestants[i].Do = func(_ context.Context, i int) error { return do(context.Background(), i) }
	}
}

// slice returns how long a turn is. On a server the clients begin and end a turn
// one after the other, and in a crowd each waits for long: that must be a small
// part of it.
func (b *bench) slice(w workload) time.Duration {
	const least = 50 * time.Millisecond
	switch {
	case b.canned:
		return 5 * time.Millisecond
	case w.crowded:
		return min(max(b.duration/5, least), 5*time.Second)
	default:
		return least
	}
}

// numbers is a list of whole numbers as a flag.
type numbers []int

// String implements [flag.Value].
func (n *numbers) String() string {
	texts := make([]string, len(*n))
	for i, v := range *n {
		texts[i] = strconv.Itoa(v)
	}
	return strings.Join(texts, ",")
}

// Set implements [flag.Value].
func (n *numbers) Set(s string) error {
	var list numbers
	for text := range strings.SplitSeq(s, ",") {
		v, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || v < 1 || v > mostGoroutines || slices.Contains(list, v) {
			return errors.New("want whole numbers such as 1,8,32, each once")
		}
		list = append(list, v)
	}
	*n = list
	return nil
}

// count writes "1 client" or "8 clients".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
