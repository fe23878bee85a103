package integration_test

import (
	"context"
	"sync"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal/relay"
)

// The primary and the relay die at one moment, under load. What the primary had
// acknowledged is on the standby that had confirmed it, every row.
func TestNoAcknowledgedRowIsLostWithThePrimaryAndTheRelay(t *testing.T) {
	c := newSyncCluster(t, 2)
	ctx := pgtest.Context(t)
	primary, n2, n3 := c.Primary(), c.Nodes[1], c.Nodes[2]
	p := startRelayProcess(t, syncName, primary.Server().Conninfo(""), func(s *processSettings) {
		s.Acknowledge = relay.Policy{Mode: relay.ConfirmQuorum, K: 1, Names: []string{"n2", "n3"}}
	})
	for _, s := range []*pgtest.Node{n2, n3} {
		streamFrom(ctx, t, s, p.conninfo(s.Name))
	}
	beginCommit(t, primary, "on", 0).returns()
	pgtest.OK(t, n2.Await(ctx, "SELECT count(*) = 1 FROM t"))
	pgtest.OK(t, n3.Await(ctx, "SELECT count(*) = 1 FROM t"))
	pgtest.OK(t, c.Freeze(n3)) // from here on it is n2 that confirms

	w := startWriters(ctx, t, primary, 4)
	await(t, "300 rows are acknowledged", func() bool { return w.count() >= 300 })
	p.kill()
	pgtest.OK(t, c.Kill(primary))
	acknowledged := w.wait()

	pgtest.OK(t, c.Promote(ctx, n2))
	missing := missingOn(ctx, t, n2, acknowledged)
	if len(missing) > 0 {
		t.Errorf("%d of %d acknowledged rows are missing on the standby that confirmed them, the first is %d", len(missing), len(acknowledged), missing[0])
	}
	t.Logf("FIGURES %d rows acknowledged, %d missing", len(acknowledged), len(missing))
}

// rowWriters insert rows one by one, and know which were acknowledged.
type rowWriters struct {
	running sync.WaitGroup
	mu      sync.Mutex
	rows    []int // guarded by mu; acknowledged
}

// startWriters starts sessions that insert rows by synchronous commits until they
// fail. Each has numbers of its own, from 1000 on.
func startWriters(ctx context.Context, t testing.TB, primary *pgtest.Node, sessions int) *rowWriters {
	t.Helper()
	w := &rowWriters{}
	for s := range sessions {
		conn := primary.Conn(t)
		_, err := conn.Exec(ctx, "SET synchronous_commit = on")
		pgtest.OK(t, err)
		w.running.Go(func() {
			for n := 1000 + s; ; n += sessions {
				if _, err := conn.Exec(ctx, "INSERT INTO t VALUES ($1)", n); err != nil {
					return
				}
				w.mu.Lock()
				w.rows = append(w.rows, n)
				w.mu.Unlock()
			}
		})
	}
	return w
}

func (w *rowWriters) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.rows)
}

// wait returns the acknowledged rows when all sessions have ended.
func (w *rowWriters) wait() []int {
	w.running.Wait()
	return w.rows
}

// missingOn returns those of the rows that a node does not have.
func missingOn(ctx context.Context, t testing.TB, n *pgtest.Node, rows []int) []int {
	t.Helper()
	missing, err := pgtest.Value[[]int](ctx, n, `SELECT coalesce(array_agg(want ORDER BY want), '{}')
		FROM unnest($1::int[]) want WHERE NOT EXISTS (SELECT FROM t WHERE n = want)`, rows)
	pgtest.OK(t, err)
	return missing
}
