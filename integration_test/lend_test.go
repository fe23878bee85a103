package integration_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// Notifications pour into a session that the driver and pgx use by turns. Each has
// a buffer of its own for what comes; neither takes half a message from the other.
// Each turn lets so many in: a server sends all that there are before it answers,
// and never answers where more pour in than a session reads.
func TestNotificationsDoNotComeBetweenTheDriverAndPgx(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	var heard atomic.Int64
	db, err := helios.Open(c.DSN(), helios.WithOnNotification(func(*pgconn.PgConn, *pgconn.Notification) { heard.Add(1) }))
	pgtest.OK(t, err)
	t.Cleanup(func() { pgtest.OK(t, db.Close()) })

	session, err := db.Conn(ctx)
	pgtest.OK(t, err)
	defer session.Close()
	exec(t, ctx, session, "LISTEN flood")

	turn := make(chan struct{}, 2)
	var pouring sync.WaitGroup
	for range cap(turn) {
		conn := c.Primary().Conn(t)
		pouring.Go(func() {
			for range turn {
				if _, err := conn.Exec(ctx, "SELECT pg_notify('flood', repeat('x', (random() * 7000)::int)) FROM generate_series(1, 20)"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	defer pouring.Wait()
	defer close(turn)
	pour := func() {
		for range cap(turn) {
			select {
			case turn <- struct{}{}:
			default: // they are at it
			}
		}
	}

	for i := 0; i < 400 || heard.Load() < 1000; i++ {
		pour()
		if got := value[int](t, ctx, session, "SELECT $1::int + 1", i); got != i+1 {
			t.Fatalf("the driver got %d, want %d", got, i+1)
		}
		err := session.Raw(func(dc any) error {
			conn, err := dc.(*helios.Conn).PgxConn(ctx)
			if err != nil {
				return err
			}
			pour()
			var got int
			if err := conn.QueryRow(ctx, "SELECT $1::int + 2", i).Scan(&got); err != nil {
				return err
			}
			if got != i+2 {
				t.Fatalf("pgx got %d, want %d", got, i+2)
			}
			return nil
		})
		pgtest.OK(t, err)
	}
}
