package integration_test

import (
	"context"
	osexec "os/exec"
	"sync"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// tool returns a command of the same PostgreSQL as the servers.
func tool(ctx context.Context, t testing.TB, name string, args ...string) *osexec.Cmd {
	t.Helper()
	bin, err := pgctl.FindBinaries()
	pgtest.OK(t, err)
	return program(ctx, bin, name, args...)
}

// run runs such a command, which has to succeed, and returns what it said.
func run(ctx context.Context, t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := tool(ctx, t, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// pgbench runs PostgreSQL's own load against the node.
func pgbench(ctx context.Context, t testing.TB, n *pgtest.Node, args ...string) string {
	t.Helper()
	return run(ctx, t, "pgbench", append(args, n.Server().Conninfo("pgbench"))...)
}

// A relayLoad is pgbench that goes on, whatever happens to the primary, until it is
// stopped.
type relayLoad struct {
	t       testing.TB
	c       *pgtest.Cluster
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// startPgbench makes pgbench's tables and starts two clients, which leave the
// machine some time for others.
func startPgbench(t testing.TB, c *pgtest.Cluster) *relayLoad {
	t.Helper()
	pgbench(pgtest.Context(t), t, c.Primary(), "-i", "-q")
	return resumePgbench(t, c)
}

// resumePgbench is startPgbench where the tables are.
func resumePgbench(t testing.TB, c *pgtest.Cluster) *relayLoad {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &relayLoad{t: t, c: c, cancel: cancel}
	t.Cleanup(l.end)
	l.running.Go(func() { l.goOn(ctx) })
	return l
}

func (l *relayLoad) goOn(ctx context.Context) {
	pause := time.NewTicker(50 * time.Millisecond)
	defer pause.Stop()
	for ctx.Err() == nil {
		// A primary that goes away ends it; the next one is for the next.
		tool(ctx, l.t, "pgbench", "-n", "-c", "2", "-R", "300", "-T", "600", l.c.Primary().Server().Conninfo("pgbench")).Run() // see above
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

func (l *relayLoad) end() {
	l.cancel()
	l.running.Wait()
}

// stop ends the load and returns when the primary has nothing of it under way.
func (l *relayLoad) stop() {
	l.t.Helper()
	l.end()
	pgtest.OK(l.t, l.c.Primary().Await(pgtest.Context(l.t), "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench'"))
}

// awaitFlow returns when the standbys have replayed what the primary has written
// at the call: WAL flows.
func awaitFlow(t testing.TB, primary *pgtest.Node, standbys ...*pgtest.Node) {
	t.Helper()
	ctx := pgtest.Context(t)
	written := writtenOn(ctx, t, primary)
	for _, s := range standbys {
		pgtest.OK(t, s.WaitReplayed(ctx, written))
	}
}

// fill writes at least so many bytes of WAL, most of it as messages, which cost
// the server little. What is large repeats itself.
func fill(ctx context.Context, t testing.TB, n *pgtest.Node, bytes int64) {
	t.Helper()
	const message = 32 << 10
	times := 1
	if bytes > 1<<20 {
		times = 8
	}
	pgtest.OK(t, n.Exec(ctx, "CREATE TABLE IF NOT EXISTS filling (id bigint GENERATED ALWAYS AS IDENTITY, t text)"))
	pgtest.OK(t, n.Exec(ctx, `SELECT pg_logical_emit_message(false, 'filling', (
			SELECT repeat(string_agg(md5(i::text || j::text), ''), $2) FROM generate_series(1, $3) j))
		FROM generate_series(1, $1) i`, bytes/message+1, times, message/32/times))
	pgtest.OK(t, n.Exec(ctx, "INSERT INTO filling (t) SELECT md5(i::text) FROM generate_series(1, 500) i"))
}
