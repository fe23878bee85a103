package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/router"
)

// crowd reads through db from several goroutines until it is stopped.
type crowd struct {
	quit    atomic.Bool
	done    atomic.Int64
	failed  atomic.Pointer[error]
	running sync.WaitGroup
}

func startCrowd(t testing.TB, db *sql.DB, readers int) *crowd {
	t.Helper()
	c := &crowd{}
	for range readers {
		c.running.Go(func() {
			for !c.quit.Load() {
				var n int
				if err := db.QueryRowContext(context.Background(), "SELECT count(*) FROM pg_class WHERE oid < $1", 1000).Scan(&n); err != nil {
					c.failed.Store(&err)
				}
				c.done.Add(1)
			}
		})
	}
	t.Cleanup(func() { c.stop(t) })
	return c
}

func (c *crowd) stop(t testing.TB) {
	t.Helper()
	c.quit.Store(true)
	c.running.Wait()
	if err := c.failed.Load(); err != nil {
		t.Errorf("a read failed: %v", *err)
	}
}

// awaitReads returns when a node has answered n more reads.
func awaitReads(t testing.TB, known *helios.Cluster, node *pgtest.Node, n uint64) {
	t.Helper()
	before := known.Stats().Reads[node.Addr()]
	await(t, "more reads on "+node.Name, func() bool { return known.Stats().Reads[node.Addr()] >= before+n })
}

// Replicas come and go by command while programs read; nobody notices.
func TestReplicasAreAddedAndRemovedUnderLoad(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	db := openDSN(t, c.DSNOf(c.Nodes[:2]))
	known := clusterOf(t, db)
	ctx := pgtest.Context(t)
	readers := startCrowd(t, db, 8)
	awaitRoles(t, known, c.Primary(), 1)
	second := c.Nodes[2]
	for range 5 {
		pgtest.OK(t, known.AddReplica(ctx, second.Addr()))
		if err := known.AddReplica(ctx, second.Addr()); err == nil {
			t.Error("a node was added twice")
		}
		awaitReads(t, known, second, 100)
		pgtest.OK(t, known.RemoveReplica(ctx, second.Addr()))
		if n := len(known.Status().Nodes); n != 2 {
			t.Errorf("%d nodes after one of three was removed", n)
		}
		pgtest.OK(t, second.Await(ctx, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name <> 'pgtest')"))
	}
	if err := known.RemoveReplica(ctx, c.Primary().Addr()); err == nil {
		t.Error("the primary was removed")
	}
	if err := known.RemoveReplica(ctx, second.Addr()); err == nil {
		t.Error("a node that is not there was removed")
	}
	readers.stop(t)
}

// A removal waits for what runs on the node, as long as its context lasts.
func TestARemovalWaitsForTheStatementsOfTheNode(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	db := open(t, c)
	known := clusterOf(t, db)
	ctx := pgtest.Context(t)
	replica := c.Nodes[1]
	pgtest.OK(t, db.PingContext(ctx))
	awaitRoles(t, known, c.Primary(), 1)

	rows, err := db.QueryContext(helios.Node(ctx, replica.Addr()), "SELECT * FROM generate_series(1, 100000)")
	pgtest.OK(t, err)
	defer rows.Close()
	rows.Next()
	removed := make(chan error)
	go func() { removed <- known.RemoveReplica(ctx, replica.Addr()) }()
	await(t, "the node to be gone from the status", func() bool { return len(known.Status().Nodes) == 1 })
	n := 1
	for rows.Next() {
		n++
	}
	if err := rows.Err(); err != nil || n != 100000 {
		t.Errorf("the statement under way yielded %d rows and %v, want all 100000", n, err)
	}
	pgtest.OK(t, rows.Close())
	pgtest.OK(t, <-removed)
	if value[bool](t, ctx, db, "SELECT pg_is_in_recovery()") {
		t.Error("a read went to the removed replica")
	}
}

// With all replicas dead reads go to the primary, and back when they return.
func TestReadsGoToThePrimaryWhileNoReplicaIsThere(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	db := open(t, c, "probe_interval=100ms")
	known := clusterOf(t, db)
	ctx := pgtest.Context(t)
	readers := startCrowd(t, db, 8)
	awaitRoles(t, known, c.Primary(), 2)
	awaitReads(t, known, c.Nodes[1], 50)
	awaitReads(t, known, c.Nodes[2], 50)

	for _, n := range c.Replicas() {
		pgtest.OK(t, c.Kill(n))
	}
	awaitReads(t, known, c.Primary(), 200)
	awaitRoles(t, known, c.Primary(), 0)
	strict := open(t, c, "replica_fallback=error")
	pgtest.OK(t, strict.PingContext(ctx))
	if err := strict.QueryRowContext(ctx, "SELECT 1").Scan(new(int)); !errors.Is(err, helios.ErrNoReplica) {
		t.Errorf("replica_fallback=error: a read without replicas = %v, want ErrNoReplica", err)
	}
	for _, n := range c.Replicas() {
		pgtest.OK(t, c.Start(ctx, n))
	}
	back := time.Now()
	awaitReads(t, known, c.Nodes[1], 100)
	awaitReads(t, known, c.Nodes[2], 100)
	t.Logf("FIGURES replicas: reads were back on both %v after their return", time.Since(back).Round(time.Millisecond))
	readers.stop(t)
}

// Every way of balancing keeps both replicas busy and the primary free.
func TestEveryBalanceSpreadsReads(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	for _, balance := range []string{"round_robin", "least_conns", "latency", "random"} {
		t.Run(balance, func(t *testing.T) {
			db := open(t, c, "balance="+balance)
			known := clusterOf(t, db)
			pgtest.OK(t, db.PingContext(pgtest.Context(t)))
			awaitRoles(t, known, c.Primary(), 2)
			readers := startCrowd(t, db, 8)
			await(t, "2000 reads", func() bool { return readers.done.Load() >= 2000 })
			readers.stop(t)
			reads := known.Stats().Reads
			a, b, primary := reads[c.Nodes[1].Addr()], reads[c.Nodes[2].Addr()], reads[c.Nodes[0].Addr()]
			t.Logf("FIGURES balance %s: %d and %d on the replicas, %d on the primary", balance, a, b, primary)
			least := (a + b) / 10
			if balance == "latency" {
				least = 1 // which of two equals is the slower one is a matter of the machine
			}
			if a < least || b < least || primary > 1 { // the ping
				t.Errorf("%d and %d reads on the replicas and %d on the primary, want a spread over the replicas", a, b, primary)
			}
		})
	}
}

// What the driver says about its cluster is so.
func TestWhatTheDriverTellsAboutItsCluster(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	db := open(t, c, "probe_interval=50ms")
	known := clusterOf(t, db)
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE t (n int)")
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	awaitRoles(t, known, c.Primary(), 2)

	system, err := pgtest.Value[int64](ctx, c.Primary(), "SELECT system_identifier FROM pg_control_system()")
	pgtest.OK(t, err)
	st := known.Status()
	if st.Primary != c.Primary().Addr() || st.Timeline != 1 || st.SystemID != uint64(system) || st.Split {
		t.Errorf("Status = %+v, want timeline 1 of system %d", st, system)
	}
	for _, n := range st.Nodes {
		if !n.Healthy || n.Version/10000 < 13 || n.RTT <= 0 || n.SeenAt.IsZero() || n.Reason != "" {
			t.Errorf("Status of %s = %+v", n.Name, n)
		}
	}
	if lag, ok := known.Lag(c.Primary().Addr()); lag != 0 || !ok {
		t.Errorf("Lag of the primary = %v, %t", lag, ok)
	}
	if _, ok := known.Lag("nobody:1"); ok {
		t.Error("the lag of a node that is not there is known")
	}
	explain(t, known, c)

	late := c.Nodes[1]
	pgtest.OK(t, c.Lag(ctx, late, time.Hour))
	exec(t, ctx, db, "INSERT INTO t VALUES (1)")
	await(t, "the lag of the late replica to show", func() bool {
		exec(t, ctx, db, "INSERT INTO t VALUES (1)")
		lag, ok := known.Lag(late.Addr())
		s := statusOf(known, late)
		return ok && lag > 200*time.Millisecond && s.Behind > 0 && s.ReplayLSN < statusOf(known, c.Primary()).CurrentLSN
	})
	if lag, ok := known.Lag(c.Nodes[2].Addr()); !ok || lag > 10*time.Second {
		t.Errorf("Lag of the replica that keeps up = %v, %t", lag, ok)
	}
}

// explain asks where statements would go.
func explain(t *testing.T, known *helios.Cluster, c *pgtest.Cluster) {
	t.Helper()
	ctx := pgtest.Context(t)
	for name, tt := range map[string]struct {
		ctx              context.Context
		sql, class, role string
		pins             bool
	}{
		"read":           {ctx, "SELECT 1", "read", "replica", false},
		"write":          {ctx, "INSERT INTO t VALUES (1)", "write", "primary", false},
		"lock":           {ctx, "SELECT * FROM t FOR UPDATE", "write", "primary", false},
		"session":        {ctx, "SET work_mem = '1MB'", "session", "primary", true},
		"hint":           {helios.Primary(ctx), "SELECT 1", "read", "primary", false},
		"strong":         {helios.WithConsistency(ctx, helios.Strong), "SELECT 1", "read", "primary", false},
		"node":           {helios.Node(ctx, c.Nodes[2].Addr()), "SELECT 1", "read", "", false},
		"comment":        {ctx, "/* helios:primary */ SELECT 1", "read", "primary", false},
		"data-modifying": {ctx, "WITH x AS (DELETE FROM t RETURNING 1) SELECT count(*) FROM x", "write", "primary", false},
	} {
		route, err := known.Explain(tt.ctx, tt.sql)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if route.Class != tt.class || tt.role != "" && route.Role != tt.role || route.Pins != tt.pins || route.Reason == "" {
			t.Errorf("%s: Explain(%s) = %+v, want class %s on a %s", name, tt.sql, route, tt.class, tt.role)
		}
		if tt.role == "primary" && route.Node != c.Primary().Addr() {
			t.Errorf("%s: Explain names %s, the primary is %s", name, route.Node, c.Primary().Addr())
		}
	}
	for _, balance := range []router.Balance{router.RoundRobin, router.LeastConns, router.Latency, router.Random} {
		name, err := known.ReplicaForRead(ctx, balance)
		if err != nil || name != c.Nodes[1].Addr() && name != c.Nodes[2].Addr() {
			t.Errorf("ReplicaForRead(%v) = %q, %v, want one of the replicas", balance, name, err)
		}
	}
}
