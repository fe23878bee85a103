package integration_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// The network loses replies of the primary, again and again: a statement is
// executed at most once, and what the program is told about it is true.
func TestALostReplyNeverMeansASecondExecution(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1, Proxied: true})
	db := open(t, c)
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE once (id int, how text)")

	ways := []struct {
		name string
		run  func(ctx context.Context, id int) error
	}{
		{"exec", func(ctx context.Context, id int) error {
			_, err := db.ExecContext(ctx, "INSERT INTO once VALUES ($1, 'exec')", id)
			return err
		}},
		{"query", func(ctx context.Context, id int) error {
			var got int
			return db.QueryRowContext(ctx, "INSERT INTO once VALUES ($1, 'query') RETURNING id", id).Scan(&got)
		}},
		{"transaction", func(ctx context.Context, id int) error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			defer tx.Rollback()
			if _, err := tx.ExecContext(ctx, "INSERT INTO once VALUES ($1, 'tx')", id); err != nil {
				return err
			}
			return tx.Commit()
		}},
		{"without arguments", func(ctx context.Context, id int) error {
			_, err := db.ExecContext(ctx, "INSERT INTO once VALUES ("+strconv.Itoa(id)+", 'text')")
			return err
		}},
	}

	const statements, clients = 600, 8
	told := make([]error, statements)
	var next, done atomic.Int64
	var working, failing sync.WaitGroup
	quit, stop := context.WithCancel(ctx)
	failing.Go(func() { loseReplies(t, quit, c.Primary().Proxy, &done) })
	for range clients {
		working.Go(func() {
			for {
				id := int(next.Add(1)) - 1
				if id >= statements {
					return
				}
				told[id] = ways[id%len(ways)].run(ctx, id)
				done.Add(1)
			}
		})
	}
	working.Wait()
	stop()
	failing.Wait()
	pgtest.OK(t, c.Primary().Proxy.Heal())

	counts := rowsOf(t, c.Primary())
	kinds := map[string]int{}
	for id, err := range told {
		rows, way := counts[id], ways[id%len(ways)].name
		switch {
		case rows > 1:
			t.Errorf("%s: id %d is there %d times", way, id, rows)
		case err == nil && rows == 0:
			t.Errorf("%s: id %d was acknowledged and is not there", way, id)
		case err != nil && rows == 1 && helios.SafeToRetry(err):
			t.Errorf("%s: id %d is there, and SafeToRetry says yes to %v", way, id, err)
		case err != nil && rows == 1 && !errors.Is(err, helios.ErrOutcomeUnknown):
			t.Errorf("%s: id %d is there, and the program was told %v", way, id, err)
		}
		if err != nil {
			kinds[way+": "+kind(err)]++
		} else {
			kinds["ok"]++
		}
	}
	t.Logf("FIGURES replies: %v", kinds)
	if kinds["ok"] == statements {
		t.Error("no statement lost its reply: nothing was tried")
	}
}

// loseReplies makes the proxy lose replies in one way or another, each time that
// some more statements are done, until ctx ends.
func loseReplies(t *testing.T, ctx context.Context, p *pgtest.Proxy, done *atomic.Int64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for after := int64(5); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if done.Load() < after {
			continue
		}
		switch rand.IntN(4) {
		case 0:
			p.CutAfter(0)
		case 1:
			p.CutAfter(rand.Int64N(1000))
		case 2:
			p.Cut()
		case 3: // what the server says meanwhile is lost, and then the connections are
			p.DropReplies()
			<-tick.C
			p.Cut()
			if err := p.Heal(); err != nil {
				t.Error(err)
			}
		}
		after = done.Load() + 1 + rand.Int64N(20)
	}
}

// rowsOf returns how often each id is in the table of a node, when nobody
// writes to it any more.
func rowsOf(t *testing.T, n *pgtest.Node) map[int]int {
	t.Helper()
	ctx := pgtest.Context(t)
	pgtest.OK(t, n.Await(ctx, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_xid IS NOT NULL)"))
	rows, err := n.Conn(t).Query(ctx, "SELECT id, count(*) FROM once GROUP BY id")
	pgtest.OK(t, err)
	defer rows.Close()
	counts := map[int]int{}
	for rows.Next() {
		var id, count int
		pgtest.OK(t, rows.Scan(&id, &count))
		counts[id] = count
	}
	pgtest.OK(t, rows.Err())
	return counts
}
