package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// demoCommand breaks a cluster of its own under load.
func demoCommand() command {
	return command{
		name:    "demo",
		summary: "start a cluster on this machine, crash its primary, and count what goes wrong",
		about: `It starts a primary and two replicas in a temporary directory, reads and writes
through the driver, crashes the primary after a third of the time, promotes a
replica, and goes on. Nothing of it is left afterwards.

  stale reads  a session read something older than what it had written
  lost writes  an acknowledged write is missing on the new primary
  errors       anything else that a call returned, but for this:
  unknown      writes that were under way when the primary crashed; the driver says
               that it cannot know (ErrOutcomeUnknown), so the writer looks for the
               row, and writes it again if it is not there
  write gap    longest time between two acknowledged writes around the failover

Replication is asynchronous, and the demo waits until the replicas have caught up
before the crash. It shows that the driver loses nothing; it does not show that
an asynchronous replica could not miss the last writes before a crash.

The exit code is 1 if there were stale reads, lost writes or errors.`,
		flags: func(fs *flag.FlagSet) action {
			d := &demo{}
			fs.DurationVar(&d.duration, "duration", 15*time.Second, "`DURATION` of the load")
			fs.IntVar(&d.readers, "readers", 8, "`N` readers of what one handle writes")
			fs.IntVar(&d.writers, "writers", 4, "`N` writers that read back what they wrote, each in a session of its own")
			fs.BoolVar(&d.asJSON, "json", false, "print the summary alone, as a JSON object")
			return d.run
		},
	}
}

// demo is one run of the command.
type demo struct {
	duration         time.Duration
	readers, writers int
	asJSON           bool

	screen  *screen
	cluster *pgtest.Cluster
	db      *sql.DB
	driver  *helios.Cluster
	load    *load
	result  summary // filled in as the story goes
	remains error   // why something of the demo may have been left behind
}

// What a demo may be asked for.
const (
	shortestDemo = 2 * time.Second
	mostClients  = 200
)

// run checks the flags, plays the story until it ends or a signal comes, and
// says how it went.
func (d *demo) run(ctx context.Context, s streams, args []string) error {
	if err := d.check(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)() // a second signal does not wait for the clean-up
	d.screen = newScreen(s.out, d.asJSON)
	err := d.play(ctx)
	d.screen.finish()
	switch {
	case ctx.Err() != nil:
		return &failure{code: exitInterrupted, err: d.interrupted()}
	case errors.Is(err, pgtest.ErrUnavailable):
		return failed(fmt.Errorf("demo: %w", errNoPostgres()), hintNoPostgres)
	case err != nil:
		return failed(fmt.Errorf("demo: %w", err), "")
	}
	if err := d.result.write(s.out, d.asJSON); err != nil {
		return err
	}
	if r := &d.result; !r.healthy() {
		err := fmt.Errorf("demo: %d stale reads, %d lost writes, %d errors; there should be none", r.Stale, r.Lost, r.Errors)
		return failed(err, "the summary shows the first errors")
	}
	return nil
}

// interrupted says what a signal has left.
func (d *demo) interrupted() error {
	if d.remains != nil {
		return fmt.Errorf("demo: interrupted; something may be left behind: %w", d.remains)
	}
	return errors.New("demo: interrupted; its servers and files are removed")
}

// hintNoPostgres is what to do where there is no PostgreSQL.
const hintNoPostgres = `run "make setup", or name the directory of its programs in HELIOS_PG_BIN`

// errNoPostgres says where PostgreSQL was looked for.
func errNoPostgres() error {
	if dir := os.Getenv("HELIOS_PG_BIN"); dir != "" {
		return fmt.Errorf("no PostgreSQL in HELIOS_PG_BIN=%s", dir)
	}
	return errors.New("no PostgreSQL on this machine")
}

// check refuses flags that make no demo.
func (d *demo) check(args []string) error {
	hint := "helios help demo"
	switch {
	case len(args) > 0:
		return usageError("demo: takes no arguments", hint)
	case d.duration < shortestDemo:
		return usageError(fmt.Sprintf("demo: --duration must be at least %v", shortestDemo), hint)
	case d.readers < 1 || d.readers > mostClients:
		return usageError(fmt.Sprintf("demo: --readers must be from 1 to %d", mostClients), hint)
	case d.writers < 1 || d.writers > mostClients:
		return usageError(fmt.Sprintf("demo: --writers must be from 1 to %d", mostClients), hint)
	default:
		return nil
	}
}

// play starts everything, tells the story, and ends everything again.
func (d *demo) play(ctx context.Context) (err error) {
	d.screen.say("starting a primary and two replicas in a temporary directory ...")
	if d.cluster, err = pgtest.Start(ctx, pgtest.Options{Replicas: 2}); err != nil {
		return err
	}
	defer func() {
		d.remains = d.cluster.Close()
		err = errors.Join(err, d.remains)
	}()
	if d.db, err = sql.Open("helios", d.cluster.DSN()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.db.Close()) }()
	if d.driver, err = helios.ClusterOf(d.db); err != nil {
		return err
	}
	d.load = newLoad(d.db, d.writers, d.readers)
	if err := d.load.prepare(ctx); err != nil {
		return err
	}
	d.introduce()
	return d.underLoad(ctx)
}

// introduce says what runs where.
func (d *demo) introduce() {
	nodes := make([]string, len(d.cluster.Nodes))
	for i, n := range d.cluster.Nodes {
		nodes[i] = n.Name + " " + n.Addr()
	}
	d.screen.say("nodes    %s; %s is the primary", strings.Join(nodes, ", "), d.cluster.Primary().Name)
	d.screen.say(`driver   sql.Open("helios", %q)`, d.cluster.DSN())
	d.screen.say("load     %d sessions that write and read back, %d readers of what one more writer writes", d.writers, d.readers)
	d.screen.say("story    %v of load; the primary crashes after a third of it", d.duration)
}

// underLoad runs the load, and the failover in the middle of it. Clients that
// get no further end with the demo's patience.
func (d *demo) underLoad(ctx context.Context) error {
	limit := d.duration + 2*patience
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the clients were not done within %v", limit))
	defer cancel()
	began := time.Now()
	d.screen.begin(d.figures)
	d.load.start(ctx)
	err := d.story(ctx, began)
	d.load.stop()
	d.screen.finish()
	if err = cmp.Or(err, context.Cause(ctx)); err != nil {
		return errors.Join(err, d.load.firstError())
	}
	return d.conclude(ctx, time.Since(began))
}

// story waits, breaks the cluster, repairs it, and waits again.
func (d *demo) story(ctx context.Context, began time.Time) error {
	if err := sleepUntil(ctx, began.Add(d.duration/3)); err != nil {
		return err
	}
	if err := d.failover(ctx); err != nil {
		return err
	}
	end := began.Add(d.duration)
	if least := time.Now().Add(shortestDemo / 2); end.Before(least) {
		end = least
	}
	return sleepUntil(ctx, end)
}

// Bounds of the steps of a failover, and how long the dying primary is silent.
const (
	patience    = 30 * time.Second
	lastSilence = 10 * time.Millisecond
)

// failover crashes the primary and makes the best replica take over, as an
// operator or a companion would.
func (d *demo) failover(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("the failover was not done within %v", patience))
	defer cancel()
	old := d.cluster.Primary()
	crashed, err := d.crash(ctx, old)
	if err != nil {
		return err
	}
	next, err := d.cluster.BestReplica(ctx)
	if err != nil {
		return err
	}
	before := d.driver.Stats().Reads[next.Addr()]
	if err := d.cluster.Promote(ctx, next); err != nil {
		return err
	}
	promoted := time.Since(crashed)
	d.screen.say("%s is promoted, %v after the crash", next.Name, promoted.Round(time.Millisecond))
	d.result.Primaries = []string{old.Name, next.Name}
	d.result.PromotedMS = milliseconds(promoted)
	d.result.replicaReads = before
	return d.cluster.Follow(ctx, next)
}

// crash kills the primary, and returns when it did, such that no replica misses
// a write that was acknowledged, and yet writes are under way: they are held
// back until the replicas have caught up, and then sent to a primary that does
// not answer any more.
func (d *demo) crash(ctx context.Context, primary *pgtest.Node) (time.Time, error) {
	release := d.load.hold()
	defer release()
	if err := d.cluster.WaitCaughtUp(ctx); err != nil {
		return time.Time{}, fmt.Errorf("the replicas did not catch up: %w", err)
	}
	if err := d.cluster.Freeze(primary); err != nil {
		return time.Time{}, err
	}
	release()
	if err := sleepUntil(ctx, time.Now().Add(lastSilence)); err != nil {
		return time.Time{}, err
	}
	d.screen.say("%s, the primary, crashes: SIGKILL to all its processes, with writes under way", primary.Name)
	return time.Now(), d.cluster.Kill(primary)
}

// conclude compares what was acknowledged with what is there, and completes the
// summary.
func (d *demo) conclude(ctx context.Context, took time.Duration) error {
	f, stats := d.figures(), d.driver.Stats()
	lost, err := d.load.missing(ctx, d.cluster.Primary())
	if err != nil {
		return err
	}
	r := &d.result
	r.figures, r.Lost = f, lost
	r.DurationMS, r.GapMS = milliseconds(took), milliseconds(d.load.longestGap())
	r.Retries = stats.Retries
	r.ReadsOnPrimary = f.ReadsByNode[r.Primaries[0]] + f.ReadsByNode[r.Primaries[1]] - r.replicaReads
	r.FirstErrors = d.load.firstErrors()
	return nil
}

// figures returns what was counted so far.
func (d *demo) figures() figures {
	f := d.load.figures()
	stats := d.driver.Stats()
	f.ReadsByNode = make(map[string]uint64, len(d.cluster.Nodes))
	for _, n := range d.cluster.Nodes {
		f.ReadsByNode[n.Name] = stats.Reads[n.Addr()]
	}
	return f
}

// sleepUntil returns at that time, or when ctx ends, with its cause.
func sleepUntil(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// milliseconds returns d with three decimals.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
