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
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/netns"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// demoCommand breaks a cluster of its own under load.
func demoCommand() command {
	return command{
		name:    "demo",
		summary: "start a cluster on this machine, break it under load, and count what goes wrong",
		about: `It starts three companions (helios server), each with a PostgreSQL of its own, in a
temporary directory, and reads and writes through the driver. After a third of
the time something befalls the primary's node, and the companions make another
one the primary. Later the node is given back, and becomes a replica. Nothing of
it all is left afterwards, not even after Ctrl-C.

What befalls it, --nemesis:

  crash       SIGKILL to its companion and all processes of its PostgreSQL
  freeze      SIGSTOP to all of them, as a machine that hangs
  partition   its network cable is pulled: nobody reaches it, and it reaches
              nobody. Each node is in a network namespace; that takes root, and Linux
  switchover  nothing: it is told to hand over, as helios switchover does

What is counted:

  stale reads  a session read something older than what it had written
  lost writes  an acknowledged write is missing on the last primary
  dual acks    writes that an old primary acknowledged after a new one had begun
  errors       anything else that a call returned, but for this:
  unknown      writes that were under way when the primary failed; the driver says
               that it cannot know (ErrOutcomeUnknown), so the writer looks for the
               row, and writes it again if it is not there
  write gap    longest time without an acknowledged write since the fault

Beside the driver's clients there is an outsider: it writes straight to the
primary's PostgreSQL, knows nothing of helios, never follows, and in a partition
sits on the primary's side. It would see an old primary go on.

Replication is asynchronous unless --semisync is given. Then a primary may have
acknowledged writes that no replica had when it failed. They are counted as lost.
The driver tells the sessions that wrote them (ErrWriteLost); it may tell one too
many, since it knows only up to where its write was in the log at most. That is
counted, and no error. With --semisync, and in a switchover, nothing may be lost.

The exit code is 1 if there were stale reads, dual acks or errors, if a write was
lost that must not be, or one that was acknowledged a second or longer before the
fault.

--no-companion has no companions: a primary and two replicas with asynchronous
replication, and the demo itself promotes one after the crash. It waits until the
replicas have caught up before, so nothing may be lost.`,
		flags: func(fs *flag.FlagSet) action {
			d := &demo{}
			fs.DurationVar(&d.duration, "duration", 15*time.Second, "`DURATION` of the load")
			fs.IntVar(&d.readers, "readers", 8, "`N` readers of what one handle writes")
			fs.IntVar(&d.writers, "writers", 4, "`N` writers that read back what they wrote, each in a session of its own")
			fs.StringVar((*string)(&d.nemesis), "nemesis", string(crash), "`WHAT` befalls the primary: crash, freeze, partition or switchover")
			fs.BoolVar(&d.semisync, "semisync", false, "commits wait until a replica has them: nothing may be lost")
			fs.BoolVar(&d.alone, "no-companion", false, "without companions: the demo promotes a replica itself")
			fs.StringVar(&d.logFile, "log", "", "`FILE` that the output of the companions is appended to")
			fs.BoolVar(&d.asJSON, "json", false, "print the summary alone, as a JSON object")
			return d.run
		},
	}
}

// demo is one run of the command.
type demo struct {
	duration         time.Duration
	readers, writers int
	nemesis          nemesis
	semisync, alone  bool
	logFile          string
	asJSON           bool

	screen  *screen
	scene   scene
	db      *sql.DB
	driver  *helios.Cluster
	load    *load
	struck  time.Time // when the primary failed
	result  summary   // filled in as the story goes
	remains error     // why something of the demo may have been left behind
}

// A scene is a cluster on this machine, and what befalls it.
type scene interface {
	// start starts the cluster. If it fails, nothing is left of it.
	start(ctx context.Context) error
	// open returns a handle of the driver.
	open() (*sql.DB, error)
	// ready is called before the load begins.
	ready(ctx context.Context) error
	// nodes returns all nodes, running or not.
	nodes() []demoNode
	// strike breaks the primary, and returns when there is another.
	strike(ctx context.Context) error
	// mend undoes that, and returns when all is well.
	mend(ctx context.Context) error
	// conclude is called when the load has ended.
	conclude(ctx context.Context) error
	// primary connects to the newest primary, past the driver.
	primary(ctx context.Context) (*pgx.Conn, error)
	// close ends the cluster and removes it.
	close() error
}

// A demoNode is where a node is.
type demoNode struct{ name, addr string }

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
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	defer context.AfterFunc(ctx, stop)() // a second signal does not wait for the clean-up
	defer surviveBrokenPipes()()
	d.screen = newScreen(s.out, d.asJSON)
	d.screen.broken = stop
	err := d.play(ctx)
	d.screen.finish()
	switch {
	case ctx.Err() != nil:
		return &failure{code: exitInterrupted, err: d.interrupted()}
	case errors.Is(err, pgtest.ErrUnavailable):
		return failed(fmt.Errorf("demo: %w", errNoPostgres()), hintNoPostgres)
	case err != nil:
		return failed(fmt.Errorf("demo: %w", err), d.hint())
	}
	if err := d.result.write(s.out, d.asJSON); err != nil {
		return err
	}
	if err := d.result.verdict(); err != nil {
		return failed(fmt.Errorf("demo: %w", err), "the summary shows the first errors")
	}
	return nil
}

// surviveBrokenPipes has a reader that goes away, such as head, end no more than the
// writing to it: the clean-up has to follow. What it returns undoes that.
func surviveBrokenPipes() (undo func()) {
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	return func() { signal.Stop(pipes) }
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

// hint says where to look if the demo itself failed.
func (d *demo) hint() string {
	if d.alone || d.logFile != "" {
		return ""
	}
	return "--log FILE keeps what the companions say"
}

// check refuses flags that make no demo.
func (d *demo) check(args []string) error {
	var what string
	switch {
	case len(args) > 0:
		what = "takes no arguments"
	case d.duration < shortestDemo:
		what = fmt.Sprintf("--duration must be at least %v", shortestDemo)
	case d.readers < 1 || d.readers > mostClients:
		what = fmt.Sprintf("--readers must be from 1 to %d", mostClients)
	case d.writers < 1 || d.writers > mostClients:
		what = fmt.Sprintf("--writers must be from 1 to %d", mostClients)
	case !slices.Contains(nemeses, d.nemesis):
		what = fmt.Sprintf("--nemesis is one of %s", join(nemeses))
	case d.alone && (d.nemesis != crash || d.semisync || d.logFile != ""):
		what = "--no-companion goes with neither --nemesis nor --semisync nor --log"
	case d.nemesis == partition:
		if err := netns.Available(); err != nil {
			return failed(fmt.Errorf("demo: --nemesis partition: %w", err), "the other nemeses take neither root nor Linux")
		}
		return nil
	default:
		return nil
	}
	return usageError("demo: "+what, "helios help demo")
}

// play starts everything, tells the story, and ends everything again.
func (d *demo) play(ctx context.Context) (err error) {
	if _, err := pgctl.FindBinaries(); err != nil {
		return fmt.Errorf("%w: %w", pgtest.ErrUnavailable, err)
	}
	d.scene = d.newScene()
	if err := d.scene.start(ctx); err != nil {
		if errors.Is(err, companions.ErrRemains) {
			d.remains = err
		}
		return err
	}
	defer func() {
		d.remains = d.scene.close()
		err = errors.Join(err, d.remains)
	}()
	if d.db, err = d.scene.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.db.Close()) }()
	if d.driver, err = helios.ClusterOf(d.db); err != nil {
		return err
	}
	d.load = newLoad(d.db, d.writers, d.readers)
	d.load.mayTell = !d.alone && d.nemesis != switchover
	if err := d.load.prepare(ctx); err != nil {
		return err
	}
	if err := d.scene.ready(ctx); err != nil {
		return err
	}
	return d.underLoad(ctx)
}

// newScene returns the cluster that the flags ask for.
func (d *demo) newScene() scene {
	if d.alone {
		return &lonelyScene{demo: d}
	}
	return &companionScene{demo: d}
}

// mayLose reports whether the last writes that were acknowledged before the fault
// may be lost.
func (d *demo) mayLose() bool { return !d.alone && !d.semisync && d.nemesis != switchover }

// introduce says what runs where.
func (d *demo) introduce(dsn, story string) {
	var nodes []string
	for _, n := range d.scene.nodes() {
		nodes = append(nodes, n.name+" "+n.addr)
	}
	d.screen.say("nodes    %s", strings.Join(nodes, ", "))
	d.screen.say(`driver   sql.Open("helios", %q)`, dsn)
	d.screen.say("load     %d sessions that write and read back, %d readers of what one more writer writes", d.writers, d.readers)
	d.screen.say("story    %v of load; after a third of it %s", d.duration, story)
}

// underLoad runs the load, and the story in the middle of it. Clients that get no
// further end with the demo's patience.
func (d *demo) underLoad(ctx context.Context) error {
	limit := d.duration + 4*patience
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the clients were not done within %v", limit))
	defer cancel()
	began := time.Now()
	d.screen.begin(d.figures)
	d.load.start(ctx)
	err := d.story(ctx, began)
	d.load.stop()
	took := time.Since(began)
	d.screen.finish()
	if err = cmp.Or(err, context.Cause(ctx)); err != nil {
		return errors.Join(err, d.load.firstError())
	}
	return d.conclude(ctx, took)
}

// patience bounds a failover; a busy machine takes longer to bring a node back.
const patience = 30 * time.Second

// step does one part of the story within a limit of time.
func step(ctx context.Context, limit time.Duration, what string, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s was not done within %v", what, limit))
	defer cancel()
	return do(ctx)
}

// story waits, breaks the cluster, waits, repairs it, and waits again.
func (d *demo) story(ctx context.Context, began time.Time) error {
	if err := sleepUntil(ctx, began.Add(d.duration/3)); err != nil {
		return err
	}
	if err := step(ctx, patience, "the failover", d.scene.strike); err != nil {
		return err
	}
	if err := sleepUntil(ctx, began.Add(d.duration/2)); err != nil {
		return err
	}
	if err := step(ctx, 2*patience, "the repair", d.scene.mend); err != nil {
		return err
	}
	end := began.Add(d.duration)
	if least := time.Now().Add(shortestDemo / 2); end.Before(least) {
		end = least
	}
	return sleepUntil(ctx, end)
}

// lateAcks is how long before a fault what it may lose was acknowledged at most.
const lateAcks = time.Second

// conclude compares what was acknowledged with what is there, and completes the
// summary.
func (d *demo) conclude(ctx context.Context, took time.Duration) error {
	f, stats := d.figures(), d.driver.Stats()
	if err := d.scene.conclude(ctx); err != nil {
		return err
	}
	conn, err := d.scene.primary(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // the judgement's own error tells more
	v, err := d.load.judge(ctx, conn, d.struck.Add(-lateAcks))
	if err != nil {
		return err
	}
	r := &d.result
	f.Stale = v.stale
	r.figures, r.Lost, r.lostEarly, r.mayLose = f, v.lost, v.early, d.mayLose()
	r.Told, r.DualAcks = d.load.told.Load(), d.load.reigns.duals()
	r.DurationMS, r.GapMS = milliseconds(took), milliseconds(d.load.longestGap())
	r.Retries = stats.Retries
	r.ReadsOnPrimary = r.oldReads + f.ReadsByNode[r.Primaries[1]] - r.replicaReads
	r.FirstErrors = d.load.firstErrors()
	return nil
}

// readsOn returns how many reads a node has answered.
func (d *demo) readsOn(name string) uint64 { return d.figures().ReadsByNode[name] }

// figures returns what was counted so far.
func (d *demo) figures() figures {
	f := d.load.figures()
	stats := d.driver.Stats()
	f.ReadsByNode = make(map[string]uint64)
	for _, n := range d.scene.nodes() {
		f.ReadsByNode[n.name] = stats.Reads[n.addr]
	}
	return f
}

// sleepUntil returns at that time, or when ctx ends, with its cause.
func sleepUntil(ctx context.Context, t time.Time) error { return pause(ctx, time.Until(t)) }

// milliseconds returns d with three decimals.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
