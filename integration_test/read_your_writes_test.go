package integration_test

import (
	"context"
	"database/sql"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// Pairs of a write and a read of it: 64 programs' worth at once, one replica
// that applies everything 200 ms late and one that does not.
const (
	pairsInAll   = 100_000
	pairsInShort = 5_000
	pairClients  = 64
	pairDelay    = 200 * time.Millisecond
)

// pairs returns how many pairs each client makes. $HELIOS_TEST_PAIRS names
// another total.
func pairs(t *testing.T) int {
	t.Helper()
	total := pairsInAll
	if testing.Short() {
		total = pairsInShort
	}
	if text := os.Getenv("HELIOS_TEST_PAIRS"); text != "" {
		var err error
		total, err = strconv.Atoi(text)
		pgtest.OK(t, err)
	}
	return (total + pairClients - 1) / pairClients
}

func TestNoReadMissesTheWriteBeforeIt(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	late, fresh := c.Nodes[1], c.Nodes[2]
	setup := open(t, c)
	exec(t, pgtest.Context(t), setup, "CREATE TABLE pair (client int PRIMARY KEY, n int) WITH (fillfactor = 10)")
	exec(t, pgtest.Context(t), setup, "INSERT INTO pair SELECT i, 0 FROM generate_series(0, 63) i")
	pgtest.OK(t, c.WaitCaughtUp(pgtest.Context(t)))
	pgtest.OK(t, c.Lag(pgtest.Context(t), late, pairDelay))

	whole := func(ctx context.Context) context.Context { return ctx }
	own := func(ctx context.Context) context.Context { return helios.WithSession(ctx, helios.NewSession()) }
	for name, tt := range map[string]struct {
		session   func(context.Context) context.Context
		pairs     int     // of each client
		reads     int     // after each write
		offloaded float64 // least share of reads on the fresh replica
	}{
		"one session for the whole handle": {whole, pairs(t), 1, 0},
		"a session for each client":        {own, pairs(t) / 4, 4, 0.25},
	} {
		t.Run(name, func(t *testing.T) {
			db := open(t, c)
			known := clusterOf(t, db)
			begun := time.Now()
			reads, stale := writeAndRead(t, db, tt.session, tt.pairs, tt.reads)
			took := time.Since(begun)
			if stale != 0 {
				t.Errorf("%d of %d reads missed the write before them", stale, reads)
			}
			st := known.Stats()
			share := func(n *pgtest.Node) float64 { return float64(st.Reads[n.Addr()]) / float64(reads) }
			t.Logf("FIGURES pairs: %d writes, %d reads, %d stale, in %v; reads on the primary %.1f %%, late replica %.1f %%, fresh replica %.1f %%; %d answers not used",
				tt.pairs*pairClients, reads, stale, took.Round(time.Millisecond),
				100*share(c.Primary()), 100*share(late), 100*share(fresh), st.Behind)
			least := tt.offloaded
			if testing.Short() { // half a second: as many statements may find the replica busy as not
				least = min(least, 0.01)
			}
			if share(fresh) < least {
				t.Errorf("the fresh replica answered %.1f %% of the reads, want at least %.0f %%", 100*share(fresh), 100*least)
			}
		})
	}
}

// writeAndRead has every client write to its row and read it, and returns how
// many reads there were and how many of them missed the write.
func writeAndRead(t *testing.T, db *sql.DB, session func(context.Context) context.Context, pairs, readsEach int) (reads, stale int64) {
	t.Helper()
	var missed atomic.Int64
	var clients sync.WaitGroup
	for client := range pairClients {
		clients.Go(func() {
			ctx := session(t.Context())
			for n := 1; n <= pairs; n++ {
				if _, err := db.ExecContext(ctx, "UPDATE pair SET n = $2 WHERE client = $1", client, n); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				for range readsEach {
					var got int
					if err := db.QueryRowContext(ctx, "SELECT n FROM pair WHERE client = $1", client).Scan(&got); err != nil {
						t.Errorf("read: %v", err)
						return
					}
					if got != n {
						missed.Add(1)
					}
				}
			}
		})
	}
	clients.Wait()
	return int64(pairs) * pairClients * int64(readsEach), missed.Load()
}
