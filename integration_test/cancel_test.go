package integration_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// nobodySleeps asks a server whether a pg_sleep of the driver still runs.
const nobodySleeps = `SELECT NOT EXISTS (SELECT FROM pg_stat_activity
	WHERE query LIKE '%pg_sleep(555)%' AND state = 'active' AND pid <> pg_backend_pid())`

// A statement whose context ends is cancelled on the server; the connection
// lives on.
func TestACancelledStatementEndsOnTheServerAndKeepsItsConnection(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	db := open(t, c, "pool_max_conns=1")
	known := clusterOf(t, db)
	ctx := helios.Primary(pgtest.Context(t))
	pid := value[int](t, ctx, db, "SELECT pg_backend_pid()")
	for range 5 {
		short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		begun := time.Now()
		_, err := db.ExecContext(short, "SELECT pg_sleep(555)")
		took := time.Since(begun)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a statement that runs out of time = %v, want DeadlineExceeded", err)
		}
		if took > 10*time.Second {
			t.Errorf("a timeout of 30ms took %v", took)
		}
		pgtest.OK(t, c.Primary().Await(ctx, nobodySleeps))
		if got := value[int](t, ctx, db, "SELECT pg_backend_pid()"); got != pid {
			t.Fatalf("the next statement ran on backend %d, want %d as before", got, pid)
		}
	}

	s := conn(t, db) // a session with state keeps it, too
	exec(t, ctx, s, "SET work_mem = '6MB'")
	short, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
	defer cancel()
	if _, err := s.ExecContext(short, "SELECT pg_sleep(555)"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("on a session: %v, want DeadlineExceeded", err)
	}
	if got := value[string](t, ctx, s, "SHOW work_mem"); got != "6MB" {
		t.Errorf("after a cancelled statement the session has work_mem %s, want 6MB", got)
	}
	if got := value[int](t, ctx, s, "SELECT pg_backend_pid()"); got != pid {
		t.Errorf("the session moved to backend %d from %d", got, pid)
	}
	if st := statusOf(known, c.Primary()); st.Failures != 0 || st.Conns.Discarded != 0 {
		t.Errorf("cancels cost %d failures and %d connections, want none", st.Failures, st.Conns.Discarded)
	}
}

// Hundreds of programs run out of patience at once: that says nothing about the
// nodes.
func TestAStormOfCancelsMarksNothingDown(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	db := open(t, c, "probe_interval=100ms")
	known := clusterOf(t, db)
	ctx := pgtest.Context(t)
	pgtest.OK(t, db.PingContext(ctx))
	awaitRoles(t, known, c.Primary(), 2)
	var storm sync.WaitGroup
	for i := range 200 {
		storm.Go(func() {
			on := ctx
			if i%2 == 0 {
				on = helios.Primary(ctx)
			}
			short, cancel := context.WithTimeout(on, time.Duration(20+i%50)*time.Millisecond)
			defer cancel()
			if _, err := db.ExecContext(short, "SELECT pg_sleep(555)"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("a statement that runs out of time = %v, want DeadlineExceeded", err)
			}
		})
	}
	storm.Wait()
	for _, n := range c.Nodes {
		pgtest.OK(t, n.Await(ctx, nobodySleeps))
		st := statusOf(known, n)
		t.Logf("FIGURES cancels: %s is %s, %d failures, %d connections dialed, %d discarded", n.Name, st.State, st.Failures, st.Conns.Dialed, st.Conns.Discarded)
		if st.State != "up" || st.Failures != 0 {
			t.Errorf("%s is %s with %d failures after the storm", n.Name, st.State, st.Failures)
		}
	}
	for range 50 {
		value[int](t, ctx, db, "SELECT 1")
		value[int](t, helios.Primary(ctx), db, "SELECT 1")
	}
}
