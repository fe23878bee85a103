package agent

import (
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
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
