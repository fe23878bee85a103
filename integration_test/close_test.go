package integration_test

import (
	"context"
	"database/sql"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// sockets returns how many sockets this process has open; -1 where it cannot be
// told.
func sockets() int {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// noStrangers asks a server whether anybody is connected who is not of pgtest.
const noStrangers = `SELECT NOT EXISTS (SELECT FROM pg_stat_activity
	WHERE backend_type = 'client backend' AND application_name <> 'pgtest')`

// Closing the handle ends all it has begun, whatever it is doing.
func TestCloseLeavesNothingBehind(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	for name, use := range map[string]func(t *testing.T, ctx context.Context, db *sql.DB){
		"never used": func(*testing.T, context.Context, *sql.DB) {},
		"pinged":     func(t *testing.T, ctx context.Context, db *sql.DB) { pgtest.OK(t, db.PingContext(ctx)) },
		"idle": func(t *testing.T, ctx context.Context, db *sql.DB) {
			for range 20 {
				exec(t, ctx, db, "SELECT pg_backend_pid()")
			}
		},
		"with a session pinned": func(t *testing.T, ctx context.Context, db *sql.DB) {
			s, err := db.Conn(ctx)
			pgtest.OK(t, err)
			exec(t, ctx, s, "SET work_mem = '5MB'")
		},
		"with a transaction open": func(t *testing.T, ctx context.Context, db *sql.DB) {
			tx, err := db.BeginTx(ctx, nil)
			pgtest.OK(t, err)
			exec(t, ctx, tx, "CREATE TABLE never (n int)")
		},
		"with rows open": func(t *testing.T, ctx context.Context, db *sql.DB) {
			rows, err := db.QueryContext(ctx, "SELECT * FROM generate_series(1, 1000000)")
			pgtest.OK(t, err)
			rows.Next()
		},
	} {
		t.Run(name, func(t *testing.T) {
			goroutines, open := runtime.NumGoroutine(), sockets()
			db, err := sql.Open("helios", c.DSN())
			pgtest.OK(t, err)
			ctx, cancel := context.WithCancel(pgtest.Context(t))
			use(t, ctx, db)
			pgtest.OK(t, db.Close())
			if now := sockets(); now != open {
				t.Errorf("%d sockets are open right after Close, want %d as before", now, open)
			}
			cancel() // database/sql itself waits for it while there are rows or a transaction
			nothingLeft(t, c, goroutines, open)
			if err := db.PingContext(t.Context()); err == nil {
				t.Error("a closed handle answers")
			}
		})
	}
}

// Close does not wait for what runs on the servers: it closes the sockets, and
// servers that look at theirs now and then end what nobody waits for.
func TestCloseEndsStatementsUnderWay(t *testing.T) {
	settings := map[string]string{"client_connection_check_interval": "50ms"}
	if major < 14 { // whose servers do not look
		settings = nil
	}
	c := pgtest.New(t, pgtest.Options{Replicas: 2, Settings: settings})
	ctx := pgtest.Context(t)
	goroutines, before := runtime.NumGoroutine(), sockets()
	db, err := sql.Open("helios", c.DSN())
	pgtest.OK(t, err)
	var running sync.WaitGroup
	for i := range 12 {
		running.Go(func() {
			on := ctx
			if i%3 == 0 {
				on = helios.Primary(ctx)
			}
			if _, err := db.ExecContext(on, "SELECT pg_sleep(50)"); err == nil {
				t.Error("a statement of 50 s succeeded")
			}
		})
	}
	asleep := 0
	await(t, "all statements to run", func() bool {
		asleep = 0
		for _, n := range c.Nodes {
			count, err := pgtest.Value[int](ctx, n, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(50)%' AND wait_event = 'PgSleep'")
			pgtest.OK(t, err)
			asleep += count
		}
		return asleep == 12
	})
	pgtest.OK(t, db.Close())
	running.Wait()
	for _, n := range c.Nodes {
		if major < 14 {
			pgtest.OK(t, n.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
		}
	}
	nothingLeft(t, c, goroutines, before)
}

// nothingLeft waits until there are as few goroutines and sockets as before and
// no server has a connection of the driver.
func nothingLeft(t *testing.T, c *pgtest.Cluster, goroutines, open int) {
	t.Helper()
	await(t, "sockets to be closed", func() bool { return sockets() <= open })
	await(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
	for _, n := range c.Nodes {
		if err := n.Await(context.Background(), noStrangers); err != nil {
			t.Errorf("connections after Close: %v", err)
		}
	}
}
