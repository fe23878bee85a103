package integration_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	osexec "os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// A relayUnderTest is a relay on a port of its own, which can be stopped and
// started again.
type relayUnderTest struct {
	*relay.Relay
	t    testing.TB
	cfg  relay.Config
	port int
	stop context.CancelFunc
	done sync.WaitGroup
}

// startRelay starts a relay and stops it at the end of the test. What is set in
// edit is changed in its configuration.
func startRelay(t testing.TB, source string, edit ...func(*relay.Config)) *relayUnderTest {
	t.Helper()
	cfg := relay.DefaultConfig()
	var err error
	cfg.Source, err = relay.ParseSource(source)
	pgtest.OK(t, err)
	cfg.BufferSize = 64 << 20
	cfg.Log = slog.New(slog.NewTextHandler(testOutput{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for _, e := range edit {
		e(&cfg)
	}
	port, err := pgtest.TakePort(t.Context())
	pgtest.OK(t, err)
	r := &relayUnderTest{t: t, cfg: cfg, port: port}
	t.Cleanup(func() { pgtest.GivePort(port) })
	t.Cleanup(r.halt)
	r.start()
	return r
}

// testOutput writes a log where the test's own lines go.
type testOutput struct{ t testing.TB }

func (o testOutput) Write(p []byte) (int, error) {
	o.t.Log(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// start runs the relay, anew if it was stopped.
func (r *relayUnderTest) start() {
	r.t.Helper()
	var err error
	r.Relay, err = relay.New(r.cfg)
	pgtest.OK(r.t, err)
	listener, err := net.Listen("tcp", r.addr())
	pgtest.OK(r.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	running := r.Relay
	r.done.Go(func() {
		if err := running.Run(ctx, listener); ctx.Err() == nil {
			r.t.Errorf("the relay ended by itself: %v", err)
		}
	})
}

// halt stops the relay and returns when nothing of it is left.
func (r *relayUnderTest) halt() {
	r.stop()
	r.done.Wait()
}

func (r *relayUnderTest) addr() string { return fmt.Sprintf("127.0.0.1:%d", r.port) }

// conninfo is how a standby, or another relay, connects to the relay.
func (r *relayUnderTest) conninfo(name string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s application_name=%s sslmode=disable", r.port, pgctl.Superuser, name)
}

// streamFrom makes a standby stream from another place.
func streamFrom(ctx context.Context, t testing.TB, n *pgtest.Node, conninfo string) {
	t.Helper()
	pgtest.OK(t, n.Server().Configure(ctx, map[string]string{"primary_conninfo": conninfo}))
}

// awaitSame waits until the standbys have replayed what the primary has written,
// and compares every table.
func awaitSame(ctx context.Context, t testing.TB, primary *pgtest.Node, standbys ...*pgtest.Node) {
	t.Helper()
	written, err := primary.LSN(ctx)
	pgtest.OK(t, err)
	want := hashOfTables(ctx, t, primary)
	for _, s := range standbys {
		pgtest.OK(t, s.WaitReplayed(ctx, written))
		if got := hashOfTables(ctx, t, s); got != want {
			t.Errorf("%s has other rows than the primary:\n%s\nwant\n%s", s.Name, got, want)
		}
	}
}

// hashOfTables returns a line for each table with the number of rows and a hash
// of them all.
func hashOfTables(ctx context.Context, t testing.TB, n *pgtest.Node) string {
	t.Helper()
	conn, err := n.Connect(ctx)
	pgtest.OK(t, err)
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1`)
	pgtest.OK(t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	pgtest.OK(t, err)
	var lines strings.Builder
	for _, table := range tables {
		var count int64
		var sum string
		err := conn.QueryRow(ctx, fmt.Sprintf("SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text FROM %s t", table)).Scan(&count, &sum)
		pgtest.OK(t, err)
		hash := sha256.Sum256([]byte(sum))
		fmt.Fprintf(&lines, "%s: %d rows, %s\n", table, count, hex.EncodeToString(hash[:8]))
	}
	return lines.String()
}

// pgbench runs PostgreSQL's own load against the node.
func pgbench(ctx context.Context, t testing.TB, n *pgtest.Node, args ...string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(n.DirectAddr())
	pgtest.OK(t, err)
	bin, err := pgctl.FindBinaries()
	pgtest.OK(t, err)
	cmd := osexec.CommandContext(ctx, bin.Program("pgbench"), append([]string{"-h", host, "-p", port, "-U", pgctl.Superuser}, append(args, "postgres")...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("pgbench %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// writtenOn returns the primary's insert position.
func writtenOn(ctx context.Context, t testing.TB, n *pgtest.Node) wal.LSN {
	t.Helper()
	at, err := n.LSN(ctx)
	pgtest.OK(t, err)
	return at
}
