package integration_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/heliosdb/helios"
)

const (
	insertRow = "INSERT INTO ledger VALUES ($1, $2)"
	countRows = "SELECT count(*) FROM ledger WHERE id = $1"
)

// soakClients is how many programs startClients starts.
const soakClients = 21

// startClients starts programs of all kinds, each of which does something every
// few milliseconds until the context ends. What was begun is ended.
func (s *soak) startClients(until context.Context, running *sync.WaitGroup) {
	insertStmt, err := s.db.Prepare(insertRow)
	if err != nil {
		panic(err) // nothing is sent for it
	}
	countStmt, err := s.db.Prepare(countRows)
	if err != nil {
		panic(err) // likewise
	}
	whole := func(int) context.Context { return context.Background() }
	own := func(int) context.Context { return helios.WithSession(context.Background(), helios.NewSession()) }
	for _, kind := range []struct {
		clients int
		session func(turn int) context.Context
		do      func(ctx context.Context)
	}{
		{4, whole, s.writeAndLook},
		{3, own, s.writeAndLook},
		{3, whole, s.transact},
		{2, own, s.transact},
		{2, own, s.writeAndLookInATransaction},
		{2, own, func(ctx context.Context) { s.prepared(ctx, insertStmt, countStmt) }},
		{2, own, s.impatient},
	} {
		for range kind.clients {
			running.Go(func() { pace(until, func(turn int) { kind.do(kind.session(turn)) }) })
		}
	}
	for n := range 3 { // each has names of its own
		running.Go(func() {
			pace(until, func(turn int) {
				s.writeAndLook(helios.WithSessionID(context.Background(), fmt.Sprintf("user %d of %d", turn%100, n)))
			})
		})
	}
}

// pace calls do every few milliseconds until the context ends.
func pace(until context.Context, do func(turn int)) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for turn := 0; until.Err() == nil; turn++ {
		do(turn)
		select {
		case <-tick.C:
		case <-until.Done():
		}
	}
}

// writeAndLook writes a row and looks for it twice.
func (s *soak) writeAndLook(ctx context.Context) {
	id := s.book.next.Add(1)
	_, err := s.db.ExecContext(ctx, insertRow, id, "w")
	s.book.wrote(id, err)
	for range 2 {
		if err == nil {
			s.look(ctx, s.db, "read", id)
		}
	}
}

// look reads a row that the session has seen.
func (s *soak) look(ctx context.Context, db executor, what string, id int64) {
	var rows int
	err := db.QueryRowContext(ctx, countRows, id).Scan(&rows)
	s.book.saw(what, id, rows, err)
}

// transact writes two rows in one transaction and looks for one of them.
func (s *soak) transact(ctx context.Context) {
	id := s.book.next.Add(1)
	err := s.pair(ctx, id)
	s.book.wrote(id, err)
	if err == nil {
		s.look(ctx, s.db, "read", id)
	}
}

// pair inserts id and -id.
func (s *soak) pair(ctx context.Context, id int64) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, n := range []int64{id, -id} {
		if _, err := tx.ExecContext(ctx, insertRow, n, "t"); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// writeAndLookInATransaction writes a row and looks for it in read-only
// transactions.
func (s *soak) writeAndLookInATransaction(ctx context.Context) {
	id := s.book.next.Add(1)
	var got int64
	err := s.db.QueryRowContext(ctx, insertRow+" RETURNING id", id, "q").Scan(&got)
	s.book.wrote(id, err)
	if err != nil {
		return
	}
	for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelRepeatableRead} {
		tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true, Isolation: level})
		if err != nil {
			s.book.failed("read-only transaction", err)
			return
		}
		s.look(ctx, tx, "read-only transaction", id)
		if err := tx.Rollback(); err != nil {
			s.book.failed("read-only transaction", err)
		}
	}
}

// prepared does with prepared statements what writeAndLook does.
func (s *soak) prepared(ctx context.Context, insertStmt, countStmt *sql.Stmt) {
	id := s.book.next.Add(1)
	_, err := insertStmt.ExecContext(ctx, id, "p")
	s.book.wrote(id, err)
	if err != nil {
		return
	}
	var rows int
	err = countStmt.QueryRowContext(ctx, id).Scan(&rows)
	s.book.saw("read", id, rows, err)
}

// impatient gives up statements at random moments.
func (s *soak) impatient(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(rand.Int64N(int64(5*time.Millisecond))))
	defer cancel()
	id := s.book.next.Add(1)
	_, err := s.db.ExecContext(ctx, insertRow, id, "i")
	if err == nil {
		s.book.wrote(id, nil)
		return
	}
	s.book.gaveUp(id, err)
	if err := s.db.QueryRowContext(ctx, "SELECT count(*) FROM ledger").Scan(new(int)); err != nil {
		s.book.failed("impatience", err)
	}
}
