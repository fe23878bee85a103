package container

import (
	"os"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// requireDocker skips unless containers were asked for: a run costs half a
// minute and an engine.
func requireDocker(t *testing.T) {
	t.Helper()
	if os.Getenv("HELIOS_TEST_POSTGRES") != "docker" {
		t.Skip("containers are tested with HELIOS_TEST_POSTGRES=docker")
	}
}

// rows returns how many rows of the table t the node's queries see.
func rows(t *testing.T, n *pgtest.Node) int {
	t.Helper()
	count, err := pgtest.Value[int](pgtest.Context(t), n, "SELECT count(*)::int FROM t")
	pgtest.OK(t, err)
	return count
}

func TestClusterOfContainersFailsOverAndTakesTheOldPrimaryBack(t *testing.T) {
	requireDocker(t)
	begin := time.Now()
	ctx, c := pgtest.Context(t), pgtest.New(t, pgtest.Options{Replicas: 2, Proxied: true, Database: "shop"})
	t.Logf("1 + 2 containers took %v", time.Since(begin))
	old := c.Primary()
	pgtest.OK(t, old.Exec(ctx, "CREATE TABLE t AS SELECT 1 AS x"))
	pgtest.OK(t, c.WaitCaughtUp(ctx))

	next, err := c.Failover(ctx)
	pgtest.OK(t, err)
	pgtest.OK(t, next.Exec(ctx, "INSERT INTO t VALUES (2)"))
	pgtest.OK(t, c.Start(ctx, old))
	pgtest.OK(t, old.Exec(ctx, "INSERT INTO t VALUES (3), (4)"))
	pgtest.OK(t, c.Rejoin(ctx, old))
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	for _, n := range c.Nodes {
		if got := rows(t, n); got != 2 {
			t.Errorf("rows on %s = %d, want 2", n.Name, got)
		}
	}
}

func TestContainersSpeakTLS(t *testing.T) {
	requireDocker(t)
	ctx, c := pgtest.Context(t), pgtest.New(t, pgtest.Options{Replicas: 1, TLS: true})
	for _, n := range c.Nodes {
		encrypted, err := pgtest.Value[bool](ctx, n, "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_port > 0")
		pgtest.OK(t, err)
		if !encrypted {
			t.Errorf("%s has connections that are not encrypted", n.Name)
		}
	}
}

func TestVerbsReachContainers(t *testing.T) {
	requireDocker(t)
	ctx, c := pgtest.Context(t), pgtest.New(t, pgtest.Options{Replicas: 1, Settings: map[string]string{"cluster_name": "it's"}})
	replica := c.Nodes[1]
	pgtest.OK(t, c.Primary().Exec(ctx, "CREATE TABLE t(x int)"))
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	pgtest.OK(t, c.Lag(ctx, replica, time.Hour))
	pgtest.OK(t, c.Primary().Exec(ctx, "INSERT INTO t VALUES (1)"))
	if got := rows(t, replica); got != 0 {
		t.Errorf("rows on the lagging replica = %d, want 0", got)
	}
	pgtest.OK(t, c.Freeze(replica))
	pgtest.OK(t, c.Thaw(replica))
	pgtest.OK(t, c.Lag(ctx, replica, 0))
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	pgtest.OK(t, c.Fence(ctx, c.Primary()))
	if err := c.Primary().Exec(ctx, "INSERT INTO t VALUES (2)"); err == nil {
		t.Error("a fenced container takes writes")
	}
	for _, mode := range []pgctl.StopMode{pgctl.Smart, pgctl.Fast, pgctl.Immediate} {
		pgtest.OK(t, c.Stop(ctx, replica, mode))
		if err := c.Lag(ctx, replica, 0); err == nil {
			t.Error("Lag of a stopped container succeeded, want an error")
		}
		pgtest.OK(t, c.Start(ctx, replica))
	}
	if got := rows(t, replica); got != 1 {
		t.Errorf("rows on the restarted replica = %d, want 1", got)
	}
}
