package main

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// An outsider writes to one PostgreSQL as if there were no helios: past the driver,
// without a limit of time, and for ever to the same address. It is what would make
// a split brain show. It is safe for concurrent use.
type outsider struct {
	connect func(ctx context.Context) (*pgx.Conn, error)
	reigns  *reigns
	stop    context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex
	acked []int64 // guarded by mu
}

// The statements of the outsider.
const (
	outsideTableSQL = "CREATE TABLE outside (n bigint PRIMARY KEY)"
	outsideWriteSQL = "INSERT INTO outside (n) VALUES ($1) RETURNING " + reignSQL
	outsideKeptSQL  = "SELECT n FROM outside"
)

// outsiderPause is how long it waits after something went wrong.
const outsiderPause = 50 * time.Millisecond

// start lets it write until end is called or ctx ends.
func (o *outsider) start(ctx context.Context) {
	ctx, o.stop = context.WithCancel(ctx)
	o.running.Go(func() {
		for next := int64(1); ctx.Err() == nil; {
			next = o.visit(ctx, next)
			sleepUntil(ctx, time.Now().Add(outsiderPause)) //nolint:errcheck // the loop looks at ctx
		}
	})
}

// end stops the writing, and waits for that.
func (o *outsider) end() {
	if o.stop != nil {
		o.stop()
		o.running.Wait()
	}
}

// visit writes on one connection until something goes wrong, and returns the next
// number: none is tried twice.
func (o *outsider) visit(ctx context.Context, next int64) int64 {
	conn, err := o.connect(ctx)
	if err != nil {
		return next
	}
	defer conn.Close(ctx) //nolint:errcheck // it is broken
	for ; ; next++ {
		began := time.Now()
		var reign int64
		if err := conn.QueryRow(ctx, outsideWriteSQL, next).Scan(&reign); err != nil {
			return next + 1
		}
		o.reigns.acknowledged(reign, began)
		o.mu.Lock()
		o.acked = append(o.acked, next)
		o.mu.Unlock()
		sleepUntil(ctx, time.Now().Add(writePause)) //nolint:errcheck // the next write looks at ctx
	}
}

// judge returns how many writes were acknowledged, and how many of them the node
// behind conn does not have.
func (o *outsider) judge(ctx context.Context, conn *pgx.Conn) (acks, lost uint64, err error) {
	kept, err := numbersOf(ctx, conn, outsideKeptSQL)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range o.acked {
		if !kept[n] {
			lost++
		}
	}
	return uint64(len(o.acked)), lost, err
}

// breakOnUnreplicated closes a connection whose server warns that it did not wait
// for the replication of a commit: that is no acknowledgement, though the statement
// succeeds.
func breakOnUnreplicated(conn *pgconn.PgConn, notice *pgconn.Notice) {
	if strings.Contains(notice.Message, "synchronous replication") {
		conn.Conn().Close() //nolint:errcheck // it is given up
	}
}
