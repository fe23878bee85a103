package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/pool"
)

// open opens the cluster and closes the handle at the end of the test. Each
// parameter is a key=value of the DSN.
func open(t testing.TB, c *pgtest.Cluster, params ...string) *sql.DB {
	t.Helper()
	return openDSN(t, c.DSN(params...))
}

// openAs is like open, for another user than the superuser, which CreateUser of
// the cluster has made.
func openAs(t testing.TB, c *pgtest.Cluster, user string, params ...string) *sql.DB {
	t.Helper()
	return openDSN(t, c.DSNAs(user, params...))
}

func openDSN(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("helios", dsn)
	pgtest.OK(t, err)
	t.Cleanup(func() { pgtest.OK(t, db.Close()) })
	return db
}

// clusterOf returns what db knows of its cluster.
func clusterOf(t testing.TB, db *sql.DB) *helios.Cluster {
	t.Helper()
	c, err := helios.ClusterOf(db)
	pgtest.OK(t, err)
	return c
}

// exec runs a statement that has to succeed.
func exec(t testing.TB, ctx context.Context, db executor, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(ctx, query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// executor is a *sql.DB, *sql.Conn or *sql.Tx.
type executor interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// value returns the one value of a query that has to succeed.
func value[T any](t testing.TB, ctx context.Context, db executor, query string, args ...any) (v T) {
	t.Helper()
	if err := db.QueryRowContext(ctx, query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// await returns when ok does, and fails the test after a minute.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("still waiting after a minute: %s", what)
		}
	}
}

// statusOf returns what the driver knows of a node.
func statusOf(c *helios.Cluster, n *pgtest.Node) helios.NodeStatus {
	for _, s := range c.Status().Nodes {
		if s.Name == n.Addr() {
			return s
		}
	}
	return helios.NodeStatus{}
}

// awaitRoles returns when the driver knows primary as such and sees as many
// healthy replicas.
func awaitRoles(t testing.TB, c *helios.Cluster, primary *pgtest.Node, replicas int) {
	t.Helper()
	defer func() {
		if t.Failed() {
			listNodes(t, c)
		}
	}()
	await(t, fmt.Sprintf("%s as primary with %d replicas", primary.Name, replicas), func() bool {
		st := c.Status()
		healthy := 0
		for _, n := range st.Nodes {
			if n.Healthy && n.Role == "replica" {
				healthy++
			}
		}
		return st.Primary == primary.Addr() && healthy == replicas
	})
}

// listNodes logs what the driver knows of every node.
func listNodes(t testing.TB, c *helios.Cluster) {
	t.Helper()
	for _, n := range c.Status().Nodes {
		t.Logf("%s: %s %s %s, timeline %d, reads %d, writes %d, failures %d, %+v",
			n.Name, n.State, n.Role, n.Reason, n.Timeline, n.Reads, n.Writes, n.Failures, n.Conns)
	}
}

// kind names what went wrong by what a program would ask with errors.Is.
func kind(err error) string {
	sentinels := []error{
		helios.ErrWriteLost, helios.ErrOutcomeUnknown, helios.ErrNotCommitted, helios.ErrSessionLost,
		helios.ErrNoPrimary, helios.ErrNoReplica, helios.ErrSplitBrain, helios.ErrClosed,
		context.Canceled, context.DeadlineExceeded,
	}
	for _, s := range sentinels {
		if errors.Is(err, s) {
			return s.Error()
		}
	}
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	if lost, ok := errors.AsType[*pool.LostError](err); ok {
		return fmt.Sprintf("connection lost, sent %t", lost.Sent)
	}
	return err.Error()
}
