package pgtest

import (
	"context"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgctl"
)

func value[T any](ctx context.Context, t *testing.T, n *Node, sql string, args ...any) T {
	t.Helper()
	v, err := Value[T](ctx, n, sql, args...)
	OK(t, err)
	return v
}

func TestClusterReplicatesFromTheStart(t *testing.T) {
	ctx := Context(t)
	New(t, Options{}) // makes the template
	begin := time.Now()
	c := New(t, Options{Replicas: 2, Database: "shop", Settings: map[string]string{"work_mem": "1MB"}})
	t.Logf("1 + 2 nodes took %v", time.Since(begin))
	OK(t, c.Primary().Exec(ctx, "CREATE TABLE t AS SELECT 7 AS x"))
	OK(t, c.WaitCaughtUp(ctx))
	for _, n := range c.Nodes {
		if got := value[int](ctx, t, n, "SELECT x FROM t"); got != 7 {
			t.Errorf("row on %s = %d, want 7", n.Name, got)
		}
		if got := value[string](ctx, t, n, "SHOW work_mem"); got != "1MB" {
			t.Errorf("work_mem on %s = %s, want 1MB", n.Name, got)
		}
		if got := value[string](ctx, t, n, "SELECT current_database()"); got != "shop" {
			t.Errorf("database on %s = %s, want shop", n.Name, got)
		}
	}
	if got := len(c.Replicas()); got != 2 {
		t.Errorf("len(Replicas()) = %d, want 2", got)
	}
}

func TestDSNNamesAllNodes(t *testing.T) {
	c := New(t, Options{Replicas: 1, Proxied: true})
	u, err := url.Parse(strings.Replace(c.DSN("max_lag=2s", "note=a b&c"), ",", "-", 1))
	OK(t, err)
	wantHost := "127.0.0.1:" + strings.Split(c.Nodes[0].Addr(), ":")[1] + "-" + c.Nodes[1].Addr()
	if u.Scheme != "helios" || u.Host != wantHost || u.User.Username() != "postgres" || u.Path != "/postgres" {
		t.Errorf("DSN() = %s, want helios://postgres@%s/postgres", c.DSN(), wantHost)
	}
	want := "disable"
	if c.TLS() != nil {
		want = "verify-full"
	}
	if got := u.Query().Get("sslmode"); got != want {
		t.Errorf("sslmode of DSN = %s, want %s", got, want)
	}
	if got := u.Query(); got.Get("max_lag") != "2s" || got.Get("note") != "a b&c" {
		t.Errorf("parameters of DSN = %v, want max_lag=2s and note=a b&c", got)
	}
	if got, want := c.DSNOf(c.Nodes[1:], "sslmode=prefer"), "@"+c.Nodes[1].Addr()+"/postgres?sslmode=prefer"; !strings.Contains(got, want) {
		t.Errorf("DSNOf(n2, sslmode=prefer) = %s, want %s in it", got, want)
	}
	if c.Nodes[0].Addr() == c.Nodes[0].DirectAddr() {
		t.Errorf("Addr of a proxied node = %s, want the proxy's", c.Nodes[0].Addr())
	}
}

func TestFailoverPromotesFollowsAndTakesTheOldPrimaryBack(t *testing.T) {
	ctx, c := Context(t), New(t, Options{Replicas: 2, Proxied: true})
	old := c.Primary()
	OK(t, old.Exec(ctx, "CREATE TABLE t(x int)"))
	OK(t, c.WaitCaughtUp(ctx))

	next, err := c.Failover(ctx)
	OK(t, err)
	if next == old || c.Primary() != next {
		t.Fatalf("Failover = %s, Primary() = %s; want the same replica", next.Name, c.Primary().Name)
	}
	OK(t, next.Exec(ctx, "INSERT INTO t VALUES (1)"))
	var other *Node
	for _, n := range c.Replicas() {
		if n != old {
			other = n
		}
	}
	OK(t, c.WaitCaughtUp(ctx, other))

	// The old primary comes back and writes into the past.
	OK(t, c.Start(ctx, old))
	OK(t, old.Exec(ctx, "INSERT INTO t VALUES (666)"))
	OK(t, c.Rejoin(ctx, old))
	OK(t, c.WaitCaughtUp(ctx))
	if got := value[int](ctx, t, old, "SELECT sum(x)::int FROM t"); got != 1 {
		t.Errorf("rows on the rejoined primary sum up to %d, want 1", got)
	}
}

func TestLaggingReplicaAppliesLate(t *testing.T) {
	ctx, c := Context(t), New(t, Options{Replicas: 2})
	lagging, prompt := c.Nodes[1], c.Nodes[2]
	OK(t, c.Primary().Exec(ctx, "CREATE TABLE t(x int)"))
	OK(t, c.WaitCaughtUp(ctx))
	OK(t, c.Lag(ctx, lagging, time.Hour))
	OK(t, c.Primary().Exec(ctx, "INSERT INTO t VALUES (1)"))
	OK(t, c.WaitCaughtUp(ctx, prompt))
	if got := value[int](ctx, t, lagging, "SELECT count(*)::int FROM t"); got != 0 {
		t.Errorf("rows on the lagging replica = %d, want 0", got)
	}
	written, err := c.Primary().LSN(ctx)
	OK(t, err)
	OK(t, lagging.Await(ctx, "SELECT pg_last_wal_receive_lsn() >= $1::text::pg_lsn", written.String()))
	replayed, err := lagging.ReplayLSN(ctx)
	OK(t, err)
	if replayed >= written {
		t.Errorf("lagging replica has applied %v of %v", replayed, written)
	}
	OK(t, c.Lag(ctx, lagging, 0))
	OK(t, c.WaitCaughtUp(ctx, lagging))
}

func TestFencedPrimaryRefusesWrites(t *testing.T) {
	ctx, c := Context(t), New(t, Options{})
	OK(t, c.Fence(ctx, c.Primary()))
	err := c.Primary().Exec(ctx, "CREATE TABLE t(x int)")
	if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "25006" {
		t.Errorf("CREATE TABLE on a fenced node = %v, want 25006", err)
	}
	OK(t, c.Unfence(ctx, c.Primary()))
	OK(t, c.Primary().Exec(ctx, "CREATE TABLE t(x int)"))
	OK(t, c.Restart(ctx, c.Primary()))
}

func TestFrozenReplicaIsPassedOver(t *testing.T) {
	ctx, c := Context(t), New(t, Options{Replicas: 2})
	OK(t, c.Freeze(c.Nodes[1]))
	best, err := c.BestReplica(ctx)
	OK(t, err)
	if best != c.Nodes[2] {
		t.Errorf("BestReplica with n2 frozen = %s, want n3", best.Name)
	}
	OK(t, c.Thaw(c.Nodes[1]))
	OK(t, c.Primary().Exec(ctx, "CREATE TABLE t(x int)"))
	OK(t, c.WaitCaughtUp(ctx))
	OK(t, c.Freeze(c.Nodes[2])) // Close ends frozen nodes too
}

func TestReplicaFollowsAReplica(t *testing.T) {
	ctx, c := Context(t), New(t, Options{Replicas: 2})
	OK(t, c.FollowOne(ctx, c.Nodes[2], c.Nodes[1]))
	OK(t, c.Nodes[1].Await(ctx, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = 'n3' AND state = 'streaming')"))
	OK(t, c.Primary().Exec(ctx, "CREATE TABLE t(x int)"))
	written, err := c.Primary().LSN(ctx)
	OK(t, err)
	OK(t, c.Nodes[2].WaitReplayed(ctx, written))
}

func TestKilledNodeRefusesConnectionsThroughItsProxy(t *testing.T) {
	ctx, c := Context(t), New(t, Options{Proxied: true})
	n := c.Primary()
	through := strings.Replace(n.DSN(), n.DirectAddr(), n.Addr(), 1)
	OK(t, c.Kill(n))
	if _, err := pgconn.Connect(ctx, through); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Connect to a killed node = %v, want connection refused", err)
	}
	OK(t, c.Start(ctx, n))
	conn, err := pgconn.Connect(ctx, through)
	OK(t, err)
	OK(t, conn.Close(ctx))
}

func TestCloseLeavesNothing(t *testing.T) {
	ctx := Context(t)
	New(t, Options{}) // skips where there is no PostgreSQL
	c, err := Start(ctx, Options{Replicas: 1, Proxied: true})
	OK(t, err)
	local, ok := c.Nodes[1].Server().(*LocalServer)
	if !ok {
		t.Skip("only a server of this machine has processes and files to look at")
	}
	conn := c.Nodes[1].Conn(t)
	OK(t, c.Kill(c.Nodes[0]))
	OK(t, c.Close())
	OK(t, c.Close())
	select {
	case <-local.Done():
	default:
		t.Errorf("postmaster %d lives after Close", local.PID())
	}
	if _, err := os.Stat(local.Dir()); !os.IsNotExist(err) {
		t.Errorf("data directory after Close: %v, want none", err)
	}
	if err := conn.Ping(ctx); err == nil {
		t.Error("a connection answers after Close")
	}
}

func TestAFailedStartNamesTheReason(t *testing.T) {
	New(t, Options{}) // skips where there is no PostgreSQL
	c, err := Start(Context(t), Options{Replicas: 1, Settings: map[string]string{"max_connections": "none"}})
	if err == nil {
		t.Fatalf("Start with a bad setting succeeded: %v", c.Close())
	}
	if !strings.Contains(err.Error(), "max_connections") {
		t.Errorf("Start = %v, want the server's complaint about max_connections", err)
	}
}

func TestProviderMustBeKnown(t *testing.T) {
	t.Setenv("HELIOS_TEST_POSTGRES", "cloud")
	if _, err := Start(t.Context(), Options{}); err == nil || errors.Is(err, ErrUnavailable) {
		t.Errorf("Start with HELIOS_TEST_POSTGRES=cloud = %v, want a complaint", err)
	}
	t.Setenv("HELIOS_TEST_POSTGRES", "local")
	t.Setenv("HELIOS_PG_BIN", t.TempDir())
	if _, err := Start(t.Context(), Options{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Start with an empty HELIOS_PG_BIN = %v, want %v", err, ErrUnavailable)
	}
}

func TestStopModesReachTheServer(t *testing.T) {
	ctx, c := Context(t), New(t, Options{})
	for _, mode := range []pgctl.StopMode{pgctl.Fast, pgctl.Immediate} {
		OK(t, c.Stop(ctx, c.Primary(), mode))
		if err := c.Primary().Exec(ctx, "SELECT 1"); err == nil {
			t.Errorf("a stopped node answers")
		}
		OK(t, c.Start(ctx, c.Primary()))
	}
}
