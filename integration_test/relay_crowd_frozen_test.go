package integration_test

import (
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// Who does not take WAL costs the others nothing, holds one chunk of memory, and
// is disconnected when its time is up. A standby that thaws comes back by itself.
func TestAFrozenSubscriberCostsTheOthersNothing(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := pgtest.Context(t)
	primary, n2 := c.Primary(), c.Nodes[1]
	const size, most = 8 << 20, 8<<20 + 4*(256<<10)
	r := startRelay(t, primary.Server().Conninfo(""), func(cfg *relay.Config) {
		cfg.BufferSize, cfg.SenderTimeout = size, 4*time.Second
	})
	streamFrom(ctx, t, n2, r.conninfo("n2"))
	awaitConfirmed(ctx, t, r.Relay, primary, "n2")
	readers := make([]*standIn, 4)
	for n := range readers {
		readers[n] = startStandIn(t, r.conninfo("reader"))
	}
	stuck, err := newStandIn(ctx, t, r.conninfo("stuck"), 0) // never reads
	pgtest.OK(t, err)
	defer stuck.leave()
	pgtest.OK(t, c.Freeze(n2))

	pgtest.OK(t, primary.Exec(ctx, "CREATE TABLE bulk AS SELECT n, repeat('x', 500) AS filler FROM generate_series(1, 50000) n"))
	at := writtenOn(ctx, t, primary)
	var first uint32
	for n, reader := range readers {
		sum, err := reader.sumUpTo(at)
		pgtest.OK(t, err)
		if n == 0 {
			first = sum
		}
		if sum != first {
			t.Errorf("reader %d got WAL with the checksum %x, and the first with %x", n, sum, first)
		}
	}
	m := r.Status().Metrics
	if m.Memory > most {
		t.Errorf("a buffer of %d bytes, with two subscribers that are stuck, takes %d, want %d at most", size, m.Memory, most)
	}
	for _, name := range []string{"stuck", "n2"} {
		await(t, name+" is disconnected", func() bool {
			_, there := subscriber(r.Relay, name)
			return !there
		})
	}
	t.Logf("FIGURES %d MB passed, %d bytes of memory", m.Bytes>>20, m.Memory)
	pgtest.OK(t, c.Thaw(n2))
	awaitSame(ctx, t, primary, n2)
}

// A subscriber that takes everything, and says nothing by itself, is asked before
// it is taken for dead: while WAL flows without a pause too. So it is with
// pg_receivewal, which speaks each ten seconds.
func TestWhoSpeaksOnlyWhenAskedIsAsked(t *testing.T) {
	const timeout = time.Second
	w := startWellspring(t)
	r := startRelay(t, w.conninfo(), func(cfg *relay.Config) {
		cfg.SenderTimeout, cfg.LagProbe = timeout, -1
	})
	s := startStandIn(t, r.conninfo("s1"), func(s *standIn) { s.quiet = true })
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var end wal.LSN
	for began := time.Now(); time.Since(began) < 3*timeout; <-tick.C {
		end = w.flow(100)
	}
	_, err := s.sumUpTo(end)
	pgtest.OK(t, err)
}
