package integration_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
func (r *relayUnderTest) conninfo(name string) string { return relayConninfo(r.port, name) }

func relayConninfo(port int, name string) string {
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s application_name='%s' sslmode=disable", port, pgctl.Superuser, name)
}

// relayOrNode is how a standby connects to a relay while it can be had, and else
// to a node.
func relayOrNode(t testing.TB, port int, n *pgtest.Node, c *pgtest.Cluster, name string) string {
	t.Helper()
	_, direct, err := net.SplitHostPort(n.DirectAddr())
	pgtest.OK(t, err)
	conninfo := fmt.Sprintf("host=127.0.0.1,127.0.0.1 port=%d,%s user=%s application_name=%s sslmode=prefer", port, direct, pgctl.Superuser, name)
	if c.TLS() != nil {
		conninfo += " password=" + c.TLS().Password
	}
	return conninfo
}

// source changes the relay's source to the nodes.
func source(t testing.TB, r *relayUnderTest, nodes ...*pgtest.Node) {
	t.Helper()
	pgtest.OK(t, r.SetSource(sources(t, nodes...)))
}

// sources returns the nodes as a relay's candidates.
func sources(t testing.TB, nodes ...*pgtest.Node) []*pgconn.Config {
	t.Helper()
	var all []*pgconn.Config
	for _, n := range nodes {
		one, err := relay.ParseSource(n.Server().Conninfo(""))
		pgtest.OK(t, err)
		all = append(all, one...)
	}
	return all
}

// conninfoTo is how a relay connects to another one at host:port.
func conninfoTo(t testing.TB, addr string) string {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	pgtest.OK(t, err)
	port, err := strconv.Atoi(text)
	pgtest.OK(t, err)
	return relayConninfo(port, "")
}

// storyContext ends with the test, or after the five minutes that a story may
// take on a machine that is busy with others.
func storyContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// awaitListening returns when something listens at host:port.
func awaitListening(t testing.TB, addr string) {
	t.Helper()
	await(t, "somebody who listens at "+addr, func() bool {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			conn.Close() // it was a question
		}
		return err == nil
	})
}

// awaitRest waits until the standbys stand exactly where the primary does.
func awaitRest(ctx context.Context, t testing.TB, primary *pgtest.Node, standbys ...*pgtest.Node) {
	t.Helper()
	const segmentSize = 16 << 20
	for _, s := range standbys {
		await(t, s.Name+" where the primary is", func() bool {
			want := writtenOn(ctx, t, primary).EndOfRecord(segmentSize)
			received, err := pgtest.Value[string](ctx, s, "SELECT coalesce(pg_last_wal_receive_lsn(), '0/0')::text")
			pgtest.OK(t, err)
			at, err := wal.ParseLSN(received)
			pgtest.OK(t, err)
			replayed, err := s.ReplayLSN(ctx)
			pgtest.OK(t, err)
			return at.EndOfRecord(segmentSize) == want && replayed.EndOfRecord(segmentSize) == want
		})
	}
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

// writtenOn returns the primary's insert position.
func writtenOn(ctx context.Context, t testing.TB, n *pgtest.Node) wal.LSN {
	t.Helper()
	at, err := n.LSN(ctx)
	pgtest.OK(t, err)
	return at
}
