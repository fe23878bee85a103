package integration_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// takeAll opens connections to a node as a user until it takes no more, and
// returns what gives them back.
func takeAll(t testing.TB, n *pgtest.Node, user string) (free func()) {
	t.Helper()
	ctx := pgtest.Context(t)
	config, err := pgx.ParseConfig(n.DSN())
	pgtest.OK(t, err)
	config.User = user
	var taken []*pgx.Conn
	free = func() {
		for _, conn := range taken {
			conn.Close(context.Background())
		}
		taken = nil
	}
	t.Cleanup(free)
	for {
		conn, err := pgx.ConnectConfig(ctx, config)
		if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == "53300" {
			return free
		}
		pgtest.OK(t, err)
		taken = append(taken, conn)
	}
}

// Others take every connection of a node. That is no failure of the node: reads
// that find no connection go elsewhere, writes wait for one.
func TestANodeWhoseConnectionsAreTakenIsNotDown(t *testing.T) {
	for name, limit := range map[string]struct {
		settings map[string]string
		role     string // SQL that limits it
		hog      string // who takes all
	}{
		"the server's limit": {map[string]string{"superuser_reserved_connections": "84"}, "", "hog"},
		"the role's limit":   {nil, "ALTER ROLE app CONNECTION LIMIT 8", "app"},
	} {
		t.Run(name, func(t *testing.T) {
			c := pgtest.New(t, pgtest.Options{Replicas: 2, Settings: limit.settings})
			ctx := pgtest.Context(t)
			pgtest.OK(t, c.CreateUser(ctx, "hog", ""))
			pgtest.OK(t, c.CreateUser(ctx, "app", ""))
			for _, sql := range []string{"CREATE TABLE t (id int)", "GRANT ALL ON t TO app", limit.role} {
				pgtest.OK(t, c.Primary().Exec(ctx, sql))
			}
			pgtest.OK(t, c.WaitCaughtUp(ctx))
			fullNodes(t, c, limit.hog)
		})
	}
}

func fullNodes(t *testing.T, c *pgtest.Cluster, hog string) {
	ctx := pgtest.Context(t)
	db := openAs(t, c, "app", "probe_interval=50ms", "failover_wait=30s")
	known := clusterOf(t, db)
	replica := c.Nodes[1]
	exec(t, ctx, db, "INSERT INTO t VALUES (1)")
	awaitRoles(t, known, c.Primary(), 2)
	readers := startCrowd(t, db, 8)
	await(t, "reads", func() bool { return readers.done.Load() > 500 })
	before := latencies(t, db)

	free := takeAll(t, replica, hog)
	terminateProbes(t, replica) // the prober finds no connection either
	seen := readers.done.Load()
	await(t, "reads", func() bool { return readers.done.Load() > seen+500 })
	t.Logf("FIGURES full replica: a read and a write take %v beside it, %v without", latencies(t, db), before)
	stillUp(t, known, c)
	free()
	awaitReads(t, known, replica, 100)

	freePrimary := takeAll(t, c.Primary(), hog)
	terminateAll(t, c.Primary()) // of ours
	terminateProbes(t, c.Primary())
	free = takeAll(t, c.Primary(), hog)
	wrote := make(chan error, 8)
	for range cap(wrote) {
		go func() {
			_, err := db.ExecContext(ctx, "INSERT INTO t VALUES (2)")
			wrote <- err
		}()
	}
	seen = readers.done.Load()
	await(t, "reads while the primary is full", func() bool { return readers.done.Load() > seen+500 })
	stillUp(t, known, c)
	impatient := openAs(t, c, "app", "failover_wait=100ms", "probe_interval=50ms")
	if _, err := impatient.ExecContext(ctx, "INSERT INTO t VALUES (3)"); err == nil || !helios.SafeToRetry(err) || !strings.Contains(err.Error(), "53300") {
		t.Errorf("a write of a new handle while the primary is full = %v, want the server's 53300, and that nothing was sent", err)
	}
	freed := time.Now()
	freePrimary()
	free()
	for range cap(wrote) {
		pgtest.OK(t, <-wrote)
	}
	t.Logf("FIGURES full primary: the writes that waited were done %v after there was room; a read and a write then took %v",
		time.Since(freed).Round(time.Millisecond), latencies(t, db))
	stillUp(t, known, c)
	readers.stop(t)
	if n := value[int](t, ctx, db, "SELECT count(*) FROM t WHERE id = 2"); n != cap(wrote) {
		t.Errorf("%d rows of %d writes that waited", n, cap(wrote))
	}
}

// stillUp fails the test if any node has a bad name.
func stillUp(t testing.TB, known *helios.Cluster, c *pgtest.Cluster) {
	t.Helper()
	for _, n := range c.Nodes {
		if st := statusOf(known, n); st.State != "up" || st.Failures != 0 {
			t.Errorf("%s is %s (%s) with %d failures", n.Name, st.State, st.Reason, st.Failures)
		}
	}
}

// terminateProbes ends the sessions of the prober on a node.
func terminateProbes(t testing.TB, n *pgtest.Node) {
	t.Helper()
	pgtest.OK(t, n.Exec(pgtest.Context(t), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'helios probe'"))
}
