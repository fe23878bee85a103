package integration_test

import (
	"context"
	"errors"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
)

// A Go program that runs a relay is told of every record as it arrives.
func TestAProgramSubscribesToTheRecordsOfARelay(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	primary := c.Primary()
	conn := primary.Conn(t)
	r := startRelay(t, primary.Server().Conninfo("relay"))
	await(t, "the relay has begun", func() bool { return r.Status().Head != 0 })
	_, err := conn.Exec(ctx, "CREATE TABLE told (id int)")
	pgtest.OK(t, err)
	from := writtenOn(ctx, t, primary)
	buffer := r.Replicator().Buffer()
	following, err := buffer.Subscribe(ctx, "audit", from)
	pgtest.OK(t, err)
	defer following.Close()

	_, err = conn.Exec(ctx, "INSERT INTO told SELECT generate_series(1, 500)")
	pgtest.OK(t, err)
	var xid uint32
	pgtest.OK(t, conn.QueryRow(ctx, "SELECT xmin::text::bigint FROM told LIMIT 1").Scan(&xid))
	inserts := 0
	for {
		e, err := following.Next()
		pgtest.OK(t, err)
		if e.TxnID != xid {
			continue
		}
		if e.Operation == "COMMIT" {
			if e.Timestamp.IsZero() {
				t.Error("a commit without a time")
			}
			break
		}
		if e.Manager == wal.ManagerHeap && e.Operation == "INSERT" || e.Operation == "INSERT+INIT" {
			inserts++
		}
	}
	if inserts != 500 {
		t.Errorf("told of %d inserts, want 500", inserts)
	}
	again, err := buffer.EntriesFrom(from, 100)
	if err != nil || len(again) != 100 || again[0].LSN < from {
		t.Errorf("EntriesFrom(%s, 100) = %d entries, %v", from, len(again), err)
	}
	waiting, cancel := context.WithCancel(ctx)
	idle, err := buffer.Subscribe(waiting, "idle", buffer.Head())
	pgtest.OK(t, err)
	defer idle.Close()
	cancel()
	for {
		if _, err := idle.Next(); errors.Is(err, context.Canceled) {
			break
		} else if err != nil {
			t.Fatalf("Next after the context's end = %v", err)
		}
	}
}
