package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// writes are calls that insert their number into the table once, under load, and
// what each was told.
type writes struct {
	next, done atomic.Int64
	mu         sync.Mutex
	told       map[int]error
}

// run has clients call write with ever new numbers until quit is closed.
func (w *writes) run(ctx context.Context, clients int, quit <-chan struct{}, write func(context.Context, int) error) {
	var working sync.WaitGroup
	for range clients {
		working.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				id := int(w.next.Add(1))
				err := write(ctx, id)
				w.mu.Lock()
				w.told[id] = err
				w.mu.Unlock()
				w.done.Add(1)
			}
		})
	}
	working.Wait()
}

// check compares what the calls were told with what is there, and returns how
// often each error was told.
func (w *writes) check(t *testing.T, counts map[int]int) map[string]int {
	t.Helper()
	kinds := map[string]int{}
	for id, err := range w.told {
		rows := counts[id]
		switch {
		case rows > 1:
			t.Errorf("%d is there %d times", id, rows)
		case err == nil && rows == 0:
			t.Errorf("%d was acknowledged and is not there", id)
		case err != nil && rows == 1 && !errors.Is(err, helios.ErrOutcomeUnknown):
			t.Errorf("%d is there, and the program was told %v", id, err)
		}
		if err == nil {
			kinds["ok"]++
		} else {
			kinds[kind(err)]++
		}
	}
	return kinds
}

// transact inserts id in a transaction.
func transact(db *sql.DB) func(context.Context, int) error {
	return func(ctx context.Context, id int) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, "INSERT INTO once VALUES ($1, 'tx')", id); err != nil {
			return err
		}
		return tx.Commit()
	}
}

// insert inserts id in a statement of its own.
func insert(db *sql.DB) func(context.Context, int) error {
	return func(ctx context.Context, id int) error {
		_, err := db.ExecContext(ctx, "INSERT INTO once VALUES ($1, 'exec')", id)
		return err
	}
}

// The primary crashes with commits under way, and a synchronous standby takes
// over. A transaction is there if its Commit says so, and is not if it does not:
// no caller is left in doubt. A single statement is carried through, unless the
// server crashed before it could say in which transaction it executes it.
func TestCommitsUnderWayAtAFailoverAreResolved(t *testing.T) {
	const clients = 8
	for name, tt := range map[string]struct {
		dsn   string
		write func(*sql.DB) func(context.Context, int) error
		doubt int // so many calls at most
	}{
		"transactions":      {"resolve=transactions", transact, 0},
		"single statements": {"resolve=all", insert, clients},
	} {
		t.Run(name, func(t *testing.T) {
			c := pgtest.New(t, pgtest.Options{Replicas: 1})
			ctx := pgtest.Context(t)
			old, standby := c.Nodes[0], c.Nodes[1]
			pgtest.OK(t, c.Configure(ctx, old, map[string]string{"synchronous_standby_names": standby.Name}))
			db := open(t, c, tt.dsn, "probe_timeout=500ms")
			exec(t, ctx, db, "CREATE TABLE once (id int, how text)")

			w := &writes{told: map[int]error{}}
			quit := make(chan struct{})
			var working sync.WaitGroup
			working.Go(func() { w.run(ctx, clients, quit, tt.write(db)) })
			await(t, "some writes", func() bool { return w.done.Load() > 200 })
			pgtest.OK(t, c.Kill(old))
			pgtest.OK(t, c.Promote(ctx, standby))
			resumed := w.done.Load()
			await(t, "writes on the new primary", func() bool { return w.done.Load() > resumed+200 })
			close(quit)
			working.Wait()

			kinds := w.check(t, rowsOf(t, standby))
			t.Logf("FIGURES %s at a failover: %v, resolved %d", name, kinds, clusterOf(t, db).Stats().Resolved)
			if n := kinds[helios.ErrOutcomeUnknown.Error()]; n > tt.doubt {
				t.Errorf("%d calls were left in doubt, want at most %d", n, tt.doubt)
			}
			delete(kinds, "ok")
			delete(kinds, helios.ErrOutcomeUnknown.Error())
			delete(kinds, helios.ErrNotCommitted.Error())
			if len(kinds) > 0 {
				t.Errorf("calls failed in other ways: %v", kinds)
			}
		})
	}
}

// A strandedConn is a connection whose network is gone once it is cut: what is
// written arrives nowhere, and the server hears of no end.
type strandedConn struct {
	net.Conn
	cut atomic.Bool
}

func (c *strandedConn) Write(b []byte) (int, error) {
	if c.cut.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *strandedConn) Read(b []byte) (int, error) {
	if c.cut.Load() {
		return 0, io.EOF
	}
	return c.Conn.Read(b)
}

// Close leaves the server's side open, as the loss of a network would.
func (c *strandedConn) Close() error {
	if c.cut.Load() {
		return nil
	}
	return c.Conn.Close()
}

// A COMMIT is lost on its way to the server, where the transaction stays open. The
// driver, which has given the connection up, ends it there, and then knows.
func TestATransactionWhoseCommitNeverArrivedIsEnded(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	var mu sync.Mutex
	var conns []*strandedConn
	db, err := helios.Open(c.DSN("failover_wait=20s"), helios.WithDialFunc(func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, &strandedConn{Conn: conn})
		return conns[len(conns)-1], nil
	}))
	pgtest.OK(t, err)
	t.Cleanup(func() {
		pgtest.OK(t, db.Close())
		for _, conn := range conns {
			conn.Conn.Close()
		}
	})
	exec(t, ctx, db, "CREATE TABLE once (id int, how text)")
	tx, err := db.BeginTx(ctx, nil)
	pgtest.OK(t, err)
	defer tx.Rollback()
	exec(t, ctx, tx, "INSERT INTO once VALUES (1, 'tx')")
	holder := value[int](t, ctx, tx, "SELECT pg_backend_pid()")

	mu.Lock()
	for _, conn := range conns {
		conn.cut.Store(true)
	}
	mu.Unlock()
	begin := time.Now()
	if err := tx.Commit(); !errors.Is(err, helios.ErrNotCommitted) {
		t.Errorf("Commit = %v, want %v", err, helios.ErrNotCommitted)
	}
	t.Logf("FIGURES a commit that never arrived: known after %v", time.Since(begin))
	pgtest.OK(t, c.Primary().Await(ctx, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", holder))
	if n := rowsOf(t, c.Primary())[1]; n != 0 {
		t.Errorf("the row is there %d times", n)
	}
}
