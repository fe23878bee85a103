package helios

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
)

// warm makes every connection, and every statement the tests of this file use,
// known to the pools.
func (s *stage) warm(texts ...string) {
	s.Helper()
	ctx := s.Context()
	for range 2 {
		for _, text := range texts {
			s.exec(ctx, s.db, text)
		}
		for _, node := range s.Nodes() {
			s.node(Node(ctx, node.Name), s.db)
		}
	}
	for range 2 * len(s.Nodes()) {
		s.node(ctx, s.db)
	}
}

const insert = "INSERT INTO t VALUES (1)"

func TestAPlainReadIsOneRoundTrip(t *testing.T) {
	play(t, 3, rare, func(s *stage) {
		s.warm()
		s.costs(1, "read on a replica", func() { s.node(s.Context(), s.db) })
		s.costs(1, "read on the primary", func() { s.node(Primary(s.Context()), s.db) })
	})
}

func TestAReadThatMustSeeAWriteIsOneRoundTrip(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.warm(insert)
		s.exec(s.Context(), s.db, insert)
		s.costs(1, "read after a write", func() {
			if got := s.node(s.Context(), s.db); got != "n2" {
				s.Errorf("the read went to %s, want n2", got)
			}
		})
	})
}

func TestAWriteBringsItsPositionInOneRoundTrip(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.warm(insert)
		before := s.cluster.Token()
		s.costs(1, "write", func() { s.exec(s.Context(), s.db, insert) })
		after := s.cluster.Token()
		if want := s.Node(1).Position(); after.LSN != want.LSN || after.Timeline != want.Timeline || after.SystemID != s.SystemID {
			s.Errorf("token %v after a write, want the position of its commit, %v", after, want)
		}
		if after.LSN <= before.LSN {
			s.Errorf("token %v after a write, %v before", after, before)
		}
	})
}

func TestATransactionOfNStatementsIsNPlusOneRoundTrips(t *testing.T) {
	for _, n := range []int{1, 2, 5} {
		t.Run(fmt.Sprintf("n=%d", n), func(t *testing.T) {
			play(t, 2, rare, func(s *stage) {
				transact := func() {
					tx, err := s.db.BeginTx(s.Context(), nil)
					if err != nil {
						s.Fatal(err)
					}
					for range n {
						s.exec(s.Context(), tx, insert)
					}
					if err := tx.Commit(); err != nil {
						s.Fatalf("Commit() = %v", err)
					}
				}
				transact()
				s.costs(n+1, "transaction", transact)
				if got, want := s.cluster.Token().LSN, s.Node(1).Position().LSN; got != want {
					s.Errorf("token at %v after the commit, want %v", got, want)
				}
			})
		})
	}
}

func TestAReadOnlyTransactionOnAReplicaIsNPlusOneRoundTrips(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		transact := func() {
			tx, err := s.db.BeginTx(s.Context(), &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelRepeatableRead})
			if err != nil {
				s.Fatal(err)
			}
			for range 2 {
				if got := s.node(s.Context(), tx); got != "n2" {
					s.Errorf("the transaction runs on %s, want n2", got)
				}
			}
			if err := tx.Commit(); err != nil {
				s.Fatalf("Commit() = %v", err)
			}
		}
		s.exec(s.Context(), s.db, insert)
		transact()
		s.exec(s.Context(), s.db, insert)
		s.costs(3, "read-only transaction", transact)
	})
}

func TestTheFirstUseOfAStatementIsTwoRoundTripsAtMost(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.warm(insert)
		s.costs(2, "first use of a read", func() { one[int](s, s.Context(), s.db, "SELECT 41") })
		s.costs(2, "first use of a write", func() { s.exec(s.Context(), s.db, "UPDATE t SET v = 2") })
		s.costs(1, "second use of the write", func() { s.exec(s.Context(), s.db, "UPDATE t SET v = 2") })
	})
}

func TestWhatCannotRunInABlockIsOneRoundTripAndBringsItsPosition(t *testing.T) {
	for _, text := range []string{"CREATE TABLE u (v int)", "CALL p()"} {
		t.Run(text, func(t *testing.T) {
			play(t, 2, rare, func(s *stage) {
				s.warm(text)
				before := s.cluster.Token().LSN
				s.costs(1, text, func() { s.exec(s.Context(), s.db, text) })
				got, want := s.cluster.Token().LSN, s.Node(1).Position().LSN
				if got != want || got <= before {
					s.Errorf("token at %v, want %v, above %v", got, want, before)
				}
			})
		})
	}
}

func TestAnEmptyTransactionCostsNothing(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.costs(0, "empty transactions", func() {
			for _, end := range []func(*sql.Tx) error{(*sql.Tx).Commit, (*sql.Tx).Rollback} {
				tx, err := s.db.BeginTx(s.Context(), nil)
				if err != nil {
					s.Fatal(err)
				}
				if err := end(tx); err != nil {
					s.Error(err)
				}
			}
		})
	})
}

func TestALazyPositionIsLearnedByTheNextRead(t *testing.T) {
	play(t, 2, rare+"&lsn=lazy", func(s *stage) {
		s.warm(insert)
		s.node(s.Context(), s.db)
		s.costs(1, "write", func() { s.exec(s.Context(), s.db, insert) })
		s.costs(1, "next read", func() {
			if got := s.node(s.Context(), s.db); got != "n1" {
				s.Errorf("the read after the write went to %s, want the primary", got)
			}
		})
		if got, want := s.cluster.Token().LSN, s.Node(1).Position().LSN; got != want {
			s.Errorf("token at %v after the read, want %v", got, want)
		}
		s.costs(1, "the read after that", func() {
			if got := s.node(s.Context(), s.db); got != "n2" {
				s.Errorf("the second read went to %s, want a replica", got)
			}
		})
	})
}

func TestAPingIsOneRoundTrip(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		ping := func() {
			if err := s.db.PingContext(s.Context()); err != nil {
				s.Errorf("Ping() = %v", err)
			}
		}
		ping()
		s.costs(1, "ping", ping)
	})
}

func TestAPreparedStatementCostsWhatItsTextDoes(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.warm(insert)
		var read, write *sql.Stmt
		s.costs(0, "Prepare", func() { read, write = s.prepare(where), s.prepare(insert) })
		s.costs(1, "read", func() {
			var name string
			if err := read.QueryRow().Scan(&name); err != nil || name != "n2" {
				s.Errorf("%q, %v, want n2", name, err)
			}
		})
		s.costs(1, "write", func() {
			if _, err := write.Exec(); err != nil {
				s.Error(err)
			}
		})
		if got, want := s.cluster.Token().LSN, s.Node(1).Position().LSN; got != want {
			s.Errorf("token at %v after the write, want %v", got, want)
		}
	})
}

// prepare prepares a text on the *sql.DB until the test ends.
func (s *stage) prepare(text string) *sql.Stmt {
	s.Helper()
	stmt, err := s.db.PrepareContext(context.Background(), text)
	if err != nil {
		s.Fatal(err)
	}
	return stmt
}

func TestARolledBackTransactionIsNPlusOneRoundTrips(t *testing.T) {
	play(t, 1, rare, func(s *stage) {
		s.warm(insert)
		token := s.cluster.Token()
		s.costs(2, "transaction", func() {
			tx, err := s.db.BeginTx(s.Context(), nil)
			if err != nil {
				s.Fatal(err)
			}
			s.exec(s.Context(), tx, insert)
			if err := tx.Rollback(); err != nil {
				s.Error(err)
			}
		})
		if got := s.cluster.Token(); got != token {
			s.Errorf("token %v after a rollback, %v before", got, token)
		}
	})
}
