package integration_test

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
)

// Programs lose their patience at random moments, also before anything was sent
// and while a commit is under way: that says nothing about the nodes, costs
// hardly a connection, and what the programs are told is true.
func TestAStormOfCancelsLeavesEverythingAsItWas(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	all := newCalls(t, c.Primary())
	pgtest.OK(t, c.WaitCaughtUp(pgtest.Context(t)))
	dbs, closeAll := reckless(t, c)
	for _, db := range dbs {
		pgtest.OK(t, db.Ping())
		awaitRoles(t, clusterOf(t, db), c.Primary(), 2)
	}
	before := latencies(t, dbs[0])

	begun := time.Now()
	var storm sync.WaitGroup
	for n := range 12 {
		db := dbs[n%len(dbs)]
		storm.Go(func() {
			for all.next.Load() < 2500 {
				all.one(soonOver(t), db)
				ctx := soonOver(t)
				db.QueryRowContext(ctx, "SELECT count(*) FROM once, generate_series(1, 1000)").Scan(new(int))
			}
		})
	}
	storm.Wait()
	took := time.Since(begun)
	after := latencies(t, dbs[0])
	dialed, discarded := uint64(0), uint64(0)
	for _, db := range dbs {
		for _, n := range c.Nodes {
			st := statusOf(clusterOf(t, db), n)
			if st.State != "up" || st.Failures != 0 {
				t.Errorf("%s is %s with %d failures after the storm", n.Name, st.State, st.Failures)
			}
			dialed, discarded = dialed+st.Conns.Dialed, discarded+st.Conns.Discarded
		}
	}
	t.Logf("FIGURES storm: %v, %d connections were dialed and %d discarded; a read and a write took %v before it and %v after it (medians)",
		took.Round(time.Millisecond), dialed, discarded, before, after)
	if discarded > 50 { // of 5000 calls; more where the machine is so busy that a cancel takes too long
		t.Errorf("%d connections were given up", discarded)
	}
	closeAll()
	onlyKinds(t, all.audit(t, "storm", c.Primary()), "ok", "outcome unknown", "context deadline exceeded", "context canceled",
		"not committed", "session lost", "sql: transaction has already been committed or rolled back")
}

// soonOver returns a context that ends at a random moment: many at once, some
// within microseconds, some by a cancel.
func soonOver(t testing.TB) context.Context {
	t.Helper()
	within := time.Duration(rand.Int64N(int64(20 * time.Millisecond)))
	if rand.IntN(2) == 0 {
		within = time.Duration(rand.Int64N(int64(300 * time.Microsecond)))
	}
	if rand.IntN(2) == 0 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(within, cancel)
		return ctx
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	t.Cleanup(cancel)
	return ctx
}

// latencies returns the medians of reads and writes, one after the other.
func latencies(t testing.TB, db *sql.DB) []time.Duration {
	t.Helper()
	ctx := pgtest.Context(t)
	kinds := make([][]time.Duration, 2)
	for range 50 {
		begun := time.Now()
		value[int](t, ctx, db, "SELECT count(*) FROM pg_class WHERE oid < $1", 1000)
		read := time.Now()
		exec(t, ctx, db, "CREATE TEMP TABLE IF NOT EXISTS nothing ()")
		kinds[0], kinds[1] = append(kinds[0], read.Sub(begun)), append(kinds[1], time.Since(read))
	}
	medians := make([]time.Duration, len(kinds))
	for i, all := range kinds {
		slices.Sort(all)
		medians[i] = all[len(all)/2].Round(time.Microsecond)
	}
	return medians
}
