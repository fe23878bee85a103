package integration_test

import (
	"context"
	"database/sql"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// watched reads and writes through db until it is stopped, one after the other
// in each of its clients, and keeps how long each took.
type watched struct {
	quit    atomic.Bool
	done    atomic.Int64
	running sync.WaitGroup

	mu     sync.Mutex
	took   []time.Duration // guarded by mu
	failed []error         // guarded by mu
}

// observe starts clients that call do.
func observe(t testing.TB, clients int, do func(context.Context) error) *watched {
	t.Helper()
	w := &watched{}
	for range clients {
		w.running.Go(func() {
			for !w.quit.Load() {
				begun := time.Now()
				err := do(context.Background())
				w.note(time.Since(begun), err)
			}
		})
	}
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *watched) note(took time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.took = append(w.took, took)
	if err != nil {
		w.failed = append(w.failed, err)
	}
	w.done.Add(1)
}

// awaitDone returns when n more calls have ended.
func (w *watched) awaitDone(t testing.TB, n int64) {
	t.Helper()
	want := w.done.Load() + n
	await(t, "calls to end", func() bool { return w.done.Load() >= want })
}

// stop returns how many calls there were, and of their times the median, the
// 99th percentile and the longest.
func (w *watched) stop() (n int, times []time.Duration) {
	w.quit.Store(true)
	w.running.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.took)
	n = len(w.took)
	for _, i := range []int{n / 2, n * 99 / 100, n - 1} {
		times = append(times, w.took[max(i, 0)].Round(10*time.Microsecond))
	}
	return n, times
}

// bounded stops the clients, and fails the test if a call failed or took longer
// than limit.
func (w *watched) bounded(t testing.TB, what string, limit time.Duration) {
	t.Helper()
	n, times := w.stop()
	t.Logf("FIGURES flapping: %d %s took %v (median, 99%%, longest), %d failed", n, what, times, len(w.failed))
	if len(w.failed) > 0 {
		t.Errorf("%d of %d %s failed, the last one with %v", len(w.failed), n, what, w.failed[len(w.failed)-1])
	}
	if longest := times[2]; longest > limit {
		t.Errorf("one of the %s took %v, want at most %v", what, longest, limit)
	}
}

// reading returns what a client of watch does to read.
func reading(db *sql.DB) func(context.Context) error {
	return func(ctx context.Context) error {
		return db.QueryRowContext(ctx, "SELECT count(*) FROM pg_class WHERE oid < $1", 1000).Scan(new(int))
	}
}

// flapLimit is how long a call may take on a busy machine while nodes come and go:
// less than a failed attempt to connect to a silent node would take.
const flapLimit = 4 * time.Second

// A replica comes and goes every moment. The programs do not notice.
func TestAFlappingReplicaDisturbsNobody(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2, Proxied: true})
	pgtest.OK(t, c.Primary().Exec(t.Context(), "CREATE TABLE t (id int)"))
	db := open(t, c, "probe_interval=200ms", "probe_timeout=300ms")
	known := clusterOf(t, db)
	flapping, steady := c.Nodes[1], c.Nodes[2]
	pgtest.OK(t, db.Ping())
	awaitRoles(t, known, c.Primary(), 2)
	readers := observe(t, 8, reading(db))
	writers := observe(t, 2, func(ctx context.Context) error {
		ctx = helios.WithSession(ctx, helios.NewSession())
		_, err := db.ExecContext(ctx, "INSERT INTO t VALUES (1)")
		return err
	})
	for i := range 12 {
		switch i % 3 {
		case 0:
			flapping.Proxy.Refuse()
			flapping.Proxy.Cut()
		case 1:
			flapping.Proxy.Reset()
		case 2:
			flapping.Proxy.BlackHole()
		}
		readers.awaitDone(t, 300)
		pgtest.OK(t, flapping.Proxy.Heal())
		awaitReads(t, known, flapping, 10)
	}
	readers.bounded(t, "reads", flapLimit)
	writers.bounded(t, "writes", flapLimit)
	if a, b := statusOf(known, flapping).Reads, statusOf(known, steady).Reads; b < 500 {
		t.Errorf("the flapping replica answered %d reads and the other one %d", a, b)
	}
}

// All replicas lose their connections again and again. By what is counted all are
// bad, and nobody would be left: not more than half of them are left out.
func TestReplicasThatAllFlapAreStillRead(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 3, Proxied: true})
	db := open(t, c, "probe_interval=10s") // no probe repairs what statements find
	known := clusterOf(t, db)
	pgtest.OK(t, db.Ping())
	awaitRoles(t, known, c.Primary(), 3)
	readers := observe(t, 8, reading(db))
	before := known.Stats().Reads
	flaps := time.NewTicker(150 * time.Millisecond) // so that a read meets hardly more than one
	defer flaps.Stop()
	for range 20 {
		var cutting sync.WaitGroup
		for _, n := range c.Replicas() {
			cutting.Go(n.Proxy.Cut)
		}
		cutting.Wait()
		readers.awaitDone(t, 100)
		<-flaps.C
	}
	reads := known.Stats().Reads
	replicas, idle := uint64(0), 0
	for _, n := range c.Replicas() {
		share := reads[n.Addr()] - before[n.Addr()]
		replicas += share
		if share < 100 {
			idle++
		}
	}
	if idle > 1 {
		t.Errorf("%d of 3 replicas were left out", idle)
	}
	if primary := reads[c.Primary().Addr()] - before[c.Primary().Addr()]; primary > replicas {
		t.Errorf("%d reads went to the primary and %d to the replicas", primary, replicas)
	}
	t.Logf("FIGURES flapping: reads by node %v, %d sent again", reads, known.Stats().Retries)
	readers.bounded(t, "reads", flapLimit)
}

// The only node there is comes and goes. It is tried as soon as it is there,
// whatever was counted against it.
func TestTheOnlyPrimaryIsNeverShutOut(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Proxied: true})
	db := open(t, c, "failover_wait=50s")
	known := clusterOf(t, db)
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE t (id int)")
	proxy := c.Primary().Proxy
	var waits []time.Duration
	for i := range 15 {
		proxy.Refuse()
		proxy.Cut()
		for range 5 { // the breaker would open by now
			short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
			if _, err := db.ExecContext(short, "INSERT INTO t VALUES (-1)"); err == nil || !helios.SafeToRetry(err) {
				t.Errorf("a write while nothing listens = %v, want that nothing was sent", err)
			}
			cancel()
		}
		before := known.Stats().Waits
		wrote := make(chan error, 1)
		go func() {
			_, err := db.ExecContext(ctx, "INSERT INTO t VALUES ($1)", i)
			wrote <- err
		}()
		await(t, "the write to wait", func() bool { return known.Stats().Waits > before })
		pgtest.OK(t, proxy.Heal())
		back := time.Now()
		pgtest.OK(t, <-wrote)
		waits = append(waits, time.Since(back).Round(time.Millisecond))
	}
	slices.Sort(waits)
	t.Logf("FIGURES flapping: writes went on %v, %v, %v (least, median, most) after the only primary listened again", waits[0], waits[7], waits[14])
	if waits[14] > flapLimit {
		t.Errorf("a write went on %v after the primary listened again, want at most %v", waits[14], flapLimit)
	}
	if n := value[int](t, ctx, db, "SELECT count(*) FROM t"); n != 15 {
		t.Errorf("%d rows of 15 writes that succeeded", n)
	}
}
