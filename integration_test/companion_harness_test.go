package integration_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	osexec "os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/histcheck"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/server"
	"github.com/heliosdb/helios/server/config"
	"github.com/heliosdb/helios/topology"
)

// companionFlags names the environment variable that makes this program a
// companion instead of a run of tests: its flags, as a JSON array.
const companionFlags = "HELIOS_TEST_COMPANION"

// beCompanion is the life of such a process, and returns what to exit with.
func beCompanion(flags string) int {
	if err := companionUntilSignal(flags); err != nil {
		fmt.Fprintln(os.Stderr, "companion:", err)
		return 1
	}
	return 0
}

func companionUntilSignal(flags string) error {
	var args []string
	if err := json.Unmarshal([]byte(flags), &args); err != nil {
		return err
	}
	fs := flag.NewFlagSet("companion", flag.ContinueOnError)
	loader := config.Register(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	effective, err := loader.Load(os.Environ())
	if err != nil {
		return err
	}
	log := slog.New(withDeathWish(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: effective.Config.LogLevel})))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	return server.Run(ctx, effective.Config, log)
}

// companionCommand makes the process of a companion.
func companionCommand(args ...string) *osexec.Cmd {
	flags, err := json.Marshal(args)
	if err != nil {
		panic(err)
	}
	cmd := osexec.Command(os.Args[0]) // companions.Node ends it
	cmd.Env = append(os.Environ(), companionFlags+"="+string(flags))
	return cmd
}

// startCompanions starts a cluster that looks after itself, and ends it with the
// test.
func startCompanions(t testing.TB, o companions.Options) *companions.Cluster {
	t.Helper()
	if _, err := pgctl.FindBinaries(); err != nil && os.Getenv("CI") != "true" {
		t.Skip("companions take a PostgreSQL on this machine:", err)
	}
	secure, err := pgtest.TLSWanted()
	pgtest.OK(t, err)
	if secure && o.TLS == nil {
		o = overTLS(t, o)
	}
	o.Command = companionCommand
	o.Output = func(node string) io.Writer { return lineOutput{t, node} }
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("the cluster was not ready within 2m"))
	defer cancel()
	c, err := companions.Start(ctx, o)
	pgtest.OK(t, err)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("Close of the companions: %v", err)
		}
	})
	return c
}

// awaitBulletin returns the first bulletin of any companion that is as it should be.
func awaitBulletin(t testing.TB, c *companions.Cluster, what string, ok companions.Condition) *topology.Bulletin {
	t.Helper()
	b, err := c.Await(pgtest.Context(t), what, ok)
	pgtest.OK(t, err)
	return b
}

// primaryOf returns the node that takes writes.
func primaryOf(t testing.TB, c *companions.Cluster) *companions.Node {
	t.Helper()
	b := awaitBulletin(t, c, "there is a primary", companions.NewPrimary(""))
	return c.Node(b.Primary)
}

// A clerk writes a row every few milliseconds through the driver, and keeps a
// ledger of what it is told.
type clerk struct {
	t      testing.TB
	c      *companions.Cluster
	db     *sql.DB
	ledger *histcheck.Ledger
	told   chronicle

	risked   int  // writes that may have been on their way when machines were lost
	tolerant bool // the story allows that writes fail

	stop    context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	errs     map[string]int // guarded by mu; what the application saw, but unknown outcomes
	unknowns map[string]int // guarded by mu; what was said of those
}

// clerkSQL tells on which timeline the row was written.
const clerkSQL = "INSERT INTO ledger (id) VALUES ($1) RETURNING ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int8"

// employ starts clerks that write through one handle. Params are added to its DSN.
func employ(t testing.TB, c *companions.Cluster, writers int, params ...string) *clerk {
	t.Helper()
	cfg, err := helios.ParseDSN(strings.Join(append([]string{c.DSN()}, params...), "&"))
	pgtest.OK(t, err)
	connector, err := helios.NewConnector(cfg, helios.WithDialFunc(c.Dial))
	pgtest.OK(t, err)
	db := sql.OpenDB(connector)
	k := &clerk{t: t, c: c, db: db, ledger: histcheck.NewLedger(), errs: map[string]int{}, unknowns: map[string]int{}}
	_, err = db.ExecContext(pgtest.Context(t), "CREATE TABLE ledger (id bigint PRIMARY KEY)")
	pgtest.OK(t, err)
	k.awaitLedger()
	ctx, stop := context.WithCancel(context.Background())
	k.stop = stop
	k.told.reigns = map[uint64]map[string]bool{}
	for _, n := range c.Nodes {
		k.told.listen(ctx, t, n)
	}
	for range writers {
		k.running.Go(func() { k.work(ctx) })
	}
	t.Cleanup(func() {
		k.dismiss()
		db.Close()
	})
	k.await(20)
	return k
}

// awaitLedger returns when every node has the table: without it whoever takes over could
// not be written to.
func (k *clerk) awaitLedger() {
	k.t.Helper()
	began := time.Now()
	for _, n := range k.c.Nodes {
		if n.Postgres == "" {
			continue
		}
		conn := connectTo(k.t, n)
		await(k.t, n.Name+" to have the table", func() bool {
			var there bool
			pgtest.OK(k.t, conn.QueryRow(pgtest.Context(k.t), "SELECT to_regclass('ledger') IS NOT NULL").Scan(&there))
			return there
		})
		conn.Close(context.Background())
	}
	k.t.Logf("FIGURES the table was everywhere after %v", time.Since(began))
}

// work writes until ctx ends.
func (k *clerk) work(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.write()
		}
	}
}

// write writes one row, and takes down what it is told.
func (k *clerk) write() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	id := k.ledger.Begin()
	var timeline uint64
	err := k.db.QueryRowContext(ctx, clerkSQL, id).Scan(&timeline)
	if err == nil {
		k.ledger.End(id, histcheck.Acknowledged, timeline)
		return
	}
	k.ledger.End(id, histcheck.Unknown, 0)
	saw := k.errs
	if errors.Is(err, helios.ErrOutcomeUnknown) {
		saw = k.unknowns
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	saw[err.Error()]++
}

// await returns when n more writes were acknowledged.
func (k *clerk) await(n int) {
	k.t.Helper()
	want := k.ledger.Acks() + n
	defer func() {
		if k.t.Failed() {
			k.diagnose()
		}
	}()
	await(k.t, fmt.Sprintf("%d more writes to be acknowledged", n), func() bool { return k.ledger.Acks() >= want })
}

// diagnose logs what the driver knows, what the application saw, and what the sessions of
// each node wait for.
func (k *clerk) diagnose() {
	k.t.Helper()
	listNodes(k.t, clusterOf(k.t, k.db))
	k.t.Logf("the application saw %v; %+v", k.errors(), k.db.Stats())
	for _, n := range k.c.Nodes {
		if n.Postgres == "" {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		conn, err := reach(ctx, n)
		var text string
		if err == nil {
			err = conn.QueryRow(ctx, `SELECT json_build_object('replica', pg_is_in_recovery(), 'sessions', (SELECT json_agg(json_build_object(
				'application', application_name, 'state', state, 'waits', wait_event, 'since', clock_timestamp() - state_change, 'query', left(query, 80)))
				FROM pg_stat_activity WHERE backend_type IN ('client backend', 'walsender', 'walreceiver', 'startup')))::text`).Scan(&text)
			conn.Close(ctx)
		}
		cancel()
		k.t.Logf("%s: %s %v", n.Name, text, err)
	}
}

// dismiss ends the clerks; what they have begun is answered before it returns.
func (k *clerk) dismiss() {
	k.stop()
	k.running.Wait()
	k.told.running.Wait()
}

// errors returns what the application saw.
func (k *clerk) errors() map[string]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.errs
}

// onItsWay is how old WAL may be that a primary has not sent yet on a busy machine.
const onItsWay = time.Second

// risk notes that a machine is about to be lost, and with it, in async mode, what was on
// its way to the standbys.
func (k *clerk) risk() { k.risked += k.ledger.Since(time.Now().Add(-onItsWay)) }

// audit ends the clerks, waits until the cluster has healed, and holds the ledger
// against every node: at most so many acknowledged writes may be lost and, if that is not 0,
// what was at risk. There was one primary in each epoch, and the application has seen no error.
func (k *clerk) audit(lost int) histcheck.Verdict {
	k.t.Helper()
	k.dismiss()
	b := awaitBulletin(k.t, k.c, "the cluster has healed", companions.Healthy(len(k.c.Nodes)))
	verdict := k.ledger.Judge(k.idsOn(k.c.Node(b.Primary)))
	k.t.Log("FIGURES", verdict)
	for text, n := range k.unknowns { // nobody writes any more
		k.t.Logf("%d times an outcome was unknown: %s", n, text)
	}
	if lost > 0 {
		lost += k.risked
	}
	if err := verdict.Err(lost); err != nil {
		k.t.Error(err)
	}
	k.awaitSame(k.c.Node(b.Primary))
	k.noSlotHoldsWAL(k.c.Node(b.Primary))
	k.told.compare(k.t, k.c)
	for text, n := range k.errors() {
		if !k.tolerant {
			k.t.Errorf("%d times the application saw: %s", n, text)
		}
	}
	return verdict
}

// idsOn returns the rows that a node has.
func (k *clerk) idsOn(n *companions.Node) []int64 {
	k.t.Helper()
	conn := connectTo(k.t, n)
	defer conn.Close(context.Background())
	rows, err := conn.Query(pgtest.Context(k.t), "SELECT id FROM ledger")
	pgtest.OK(k.t, err)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	pgtest.OK(k.t, err)
	return ids
}

// awaitSame returns when all nodes have the rows of the primary.
func (k *clerk) awaitSame(primary *companions.Node) {
	k.t.Helper()
	const sum = "SELECT count(*)::text || ' rows, ' || coalesce(sum(hashtextextended(id::text, 0)), 0)::text FROM ledger"
	read := func(n *companions.Node) string {
		conn := connectTo(k.t, n)
		defer conn.Close(context.Background())
		var text string
		pgtest.OK(k.t, conn.QueryRow(pgtest.Context(k.t), sum).Scan(&text))
		return text
	}
	want := read(primary)
	for _, n := range k.c.Nodes {
		if n != primary && n.Postgres != "" {
			await(k.t, n.Name+" to have what "+primary.Name+" has", func() bool { return read(n) == want })
		}
	}
}

// noSlotHoldsWAL fails the test if a slot is left that nobody uses.
func (k *clerk) noSlotHoldsWAL(primary *companions.Node) {
	k.t.Helper()
	conn := connectTo(k.t, primary)
	defer conn.Close(context.Background())
	var slots int
	pgtest.OK(k.t, conn.QueryRow(pgtest.Context(k.t), "SELECT count(*) FROM pg_replication_slots WHERE NOT active").Scan(&slots))
	if slots > 0 {
		k.t.Errorf("%d inactive slots hold WAL on %s", slots, primary.Name)
	}
}

// connectTo opens a connection to a node, past the driver, as soon as its server has
// started.
func connectTo(t testing.TB, n *companions.Node) *pgx.Conn {
	t.Helper()
	var conn *pgx.Conn
	await(t, n.Name+" to take connections", func() bool {
		var err error
		conn, err = reach(pgtest.Context(t), n)
		if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == "57P03" {
			return false // "the database system is starting up"
		}
		pgtest.OK(t, err)
		return true
	})
	return conn
}

// reach is connectTo a node that may not be there.
func reach(ctx context.Context, n *companions.Node) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", pgctl.Superuser, n.Postgres))
	if err != nil {
		return nil, err
	}
	cfg.DialFunc = n.Dial
	return pgx.ConnectConfig(ctx, cfg)
}
