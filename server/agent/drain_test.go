package agent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// Who has begun a transaction when the stop is ordered may finish it soon; who
// does not is ended.
func TestAPlannedStopLetsClientsFinish(t *testing.T) {
	m := newTeam(t, "n1")
	m.found(async)
	n1 := m.nodes[0]
	n1.exec("CREATE TABLE t (i int)")
	soon, err := n1.pg.Connect(t.Context())
	pgtest.OK(t, err)
	never, err := n1.pg.Connect(t.Context())
	pgtest.OK(t, err)
	tx, err := soon.Begin(t.Context())
	pgtest.OK(t, err)
	_, err = tx.Exec(t.Context(), "INSERT INTO t VALUES (1)")
	pgtest.OK(t, err)
	_, err = never.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (2)")
	pgtest.OK(t, err)

	stopped := make(chan failover.Stopped, 1)
	began := time.Now()
	go func() { stopped <- n1.Stop(t.Context(), 2) }()
	await(t, "the stop has begun", func() bool { return n1.promises.get().newest() == 2 })
	if err := tx.Commit(t.Context()); err != nil {
		t.Errorf("Commit while the stop waits: %v", err)
	}
	done := <-stopped
	if took := time.Since(began); done.Err != "" || took < drainMost {
		t.Errorf("Stop() = %+v after %v, want it to have waited %v for the one that does not end", done, took, drainMost)
	}
	if _, err := never.Exec(t.Context(), "COMMIT"); err == nil {
		t.Error("the transaction that did not end was committed")
	}
}

// Clients that never hear of the fence and never rest are refused a write, or are cut
// off between two: none is left with a write that it does not know about. The server
// takes writes when it is the primary again.
func TestAPlannedStopCutsNoWriteOff(t *testing.T) {
	m := newTeam(t, "n1")
	m.found(async)
	n1 := m.nodes[0]
	n1.exec("CREATE TABLE t (i int)")
	var clients sync.WaitGroup
	var acknowledged, busy atomic.Int64
	ends := make(chan error, 8)
	for range cap(ends) {
		conn, err := n1.pg.Connect(t.Context())
		pgtest.OK(t, err)
		clients.Go(func() {
			defer conn.Close(context.Background())
			busy.Add(1)
			for {
				if _, err := conn.Exec(context.Background(), "INSERT INTO t VALUES (1)"); err != nil {
					ends <- err
					return
				}
				acknowledged.Add(1)
			}
		})
	}
	await(t, "all clients write", func() bool { return busy.Load() == int64(cap(ends)) && acknowledged.Load() > 100 })

	epoch := m.fence()
	if done := n1.Stop(pgtest.Context(t), epoch); done.Err != "" {
		t.Fatalf("Stop() = %+v", done)
	}
	clients.Wait()
	close(ends)
	refused := 0
	for err := range ends { // the others were cut off between two writes
		if isRefusal(err) {
			refused++
		}
	}
	t.Logf("FIGURES %d of %d clients were refused a write", refused, cap(ends))
	m.elect(n1, async)
	m.promote(n1, failover.Promote{Node: "n1", Epoch: epoch})
	if got := n1.count("t"); int64(got) != acknowledged.Load() {
		t.Errorf("%d rows are there, %d were acknowledged", got, acknowledged.Load())
	}
	n1.exec("INSERT INTO t VALUES (2)")
}

// A stop that came to nothing after it had writes refused leaves a server that takes
// them once it is elected again, whether it runs still or was ended.
func TestWritesAreTakenAgainAfterAStopThatCameToNothing(t *testing.T) {
	m := newTeam(t, "n1")
	m.found(async)
	n1 := m.nodes[0]
	n1.exec("CREATE TABLE t (i int)")
	for name, end := range map[string]func() error{
		"it runs still": func() error { return nil },
		"it was ended":  func() error { return n1.pg.Stop(t.Context(), pgctl.Immediate) },
	} {
		t.Run(name, func(t *testing.T) {
			epoch := m.fence()
			pgtest.OK(t, n1.take(t.Context())) // as a stop does: nobody else sets anything
			pgtest.OK(t, n1.refuseWrites(t.Context()))
			_, err := n1.conn().Exec(t.Context(), "INSERT INTO t VALUES (1)")
			if !isRefusal(err) {
				t.Errorf("a write before the stop = %v, want 25006", err)
			}
			pgtest.OK(t, end())
			n1.put()
			m.elect(n1, async)
			m.promote(n1, failover.Promote{Node: "n1", Epoch: epoch})
			n1.exec("INSERT INTO t VALUES (1)")
		})
	}
}

// isRefusal reports whether a server has refused a write as one that takes none.
func isRefusal(err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refused.Code == "25006"
}
