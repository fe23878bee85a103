package helios

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/internal/pgfake"
)

// A loss is a way for the answer to a COMMIT to get lost, and what happens to the
// cluster afterwards.
type loss struct {
	fault pgfake.Fault     // of the COMMIT on n1
	then  func(s *stage)   // while the caller waits
	want  map[string]error // by what is resolved; nil for success
}

// unexecuted hangs a COMMIT until then ends it.
var unexecuted = pgfake.Fault{Hang: true}

// takeOver lets n2 follow n1 as its primary.
func takeOver(s *stage) {
	s.Node(1).Kill()
	time.Sleep(trip)
	s.Promote(s.Node(2))
}

var losses = map[string]loss{
	"executed, and the server lives": {
		fault: cut,
		want:  map[string]error{"transactions": nil, "all": nil, "off": ErrOutcomeUnknown},
	},
	"not executed, and the server lives": {
		fault: unexecuted,
		then:  func(s *stage) { s.Node(1).Reset() },
		want:  map[string]error{"transactions": ErrNotCommitted, "all": ErrNotCommitted, "off": ErrOutcomeUnknown},
	},
	"executed and replicated before a failover": {
		fault: cut,
		then:  takeOver,
		want:  map[string]error{"transactions": nil, "all": nil, "off": ErrOutcomeUnknown},
	},
	"not executed before a failover": {
		fault: unexecuted,
		then:  takeOver,
		want:  map[string]error{"transactions": ErrNotCommitted, "all": ErrNotCommitted, "off": ErrOutcomeUnknown},
	},
	"executed, and lost in a failover": {
		fault: pgfake.Fault{SyncWait: true}, // as well as any other way to stop behind the commit
		then:  takeOver,
		want:  map[string]error{"transactions": ErrNotCommitted, "all": ErrNotCommitted, "off": ErrOutcomeUnknown},
	},
	"executed, and the server crashed and came back": {
		fault: pgfake.Fault{SyncWait: true},
		then: func(s *stage) {
			s.Node(1).Kill()
			time.Sleep(trip)
			s.Node(1).Start()
		},
		want: map[string]error{"transactions": ErrOutcomeUnknown, "all": ErrOutcomeUnknown, "off": ErrOutcomeUnknown},
	},
	"executed, and nobody takes over": {
		fault: pgfake.Fault{SyncWait: true},
		then:  func(s *stage) { s.Node(1).Kill() },
		want:  map[string]error{"transactions": ErrOutcomeUnknown, "all": ErrOutcomeUnknown, "off": ErrOutcomeUnknown},
	},
}

// lose has do lose the answer to its COMMIT in the way tt says, on a cluster whose
// n2 replays only if it is to have the commit.
func (tt loss) lose(s *stage, do func() error) error {
	s.node(s.Context(), s.db)
	if tt.fault.SyncWait {
		s.Node(2).StopReplay()
	}
	s.Node(1).Inject("COMMIT", 1, tt.fault)
	result := make(chan error, 1)
	go func() { result <- do() }()
	time.Sleep(4 * trip)
	synctest.Wait()
	if tt.then != nil {
		tt.then(s)
	}
	return <-result
}

func TestATransactionWhoseCommitWasNotAnsweredIsResolved(t *testing.T) {
	for name, tt := range losses {
		for mode, want := range tt.want {
			t.Run(name+" resolve="+mode, func(t *testing.T) {
				play(t, 2, "resolve="+mode, func(s *stage) {
					own := NewSession()
					ctx := WithSession(s.Context(), own)
					err := tt.lose(s, func() error {
						tx, err := s.db.BeginTx(ctx, nil)
						if err != nil {
							return err
						}
						if _, err := tx.Exec(insert); err != nil {
							return err
						}
						return tx.Commit()
					})
					if !errors.Is(err, want) {
						s.Errorf("Commit = %v, want %v", err, want)
					}
					s.wantTried(insert, 1)
					if _, blind := own.blind(); blind != errors.Is(want, ErrOutcomeUnknown) {
						s.Errorf("whether the session's position is not known is %v after %v", blind, err)
					}
				})
			})
		}
	}
}

func TestASingleWriteWhoseCommitWasNotAnsweredIsResolved(t *testing.T) {
	for name, tt := range losses {
		t.Run(name, func(t *testing.T) {
			play(t, 2, "resolve=all", func(s *stage) {
				var affected int64
				err := tt.lose(s, func() error {
					result, err := s.db.Exec(insert)
					if err == nil {
						affected, err = result.RowsAffected()
					}
					return err
				})
				tries := 1
				want := tt.want["all"]
				if errors.Is(want, ErrNotCommitted) { // it had no effect: it was sent again
					tries, want = 2, nil
				}
				if !errors.Is(err, want) {
					s.Errorf("Exec = %v, want %v", err, want)
				}
				if want == nil && affected != 1 {
					s.Errorf("RowsAffected() = %d, want 1", affected)
				}
				s.wantTried(insert, tries)
			})
		})
	}
}

func TestASingleWriteIsResolvedHoweverItsPositionIsLearned(t *testing.T) {
	for _, mode := range []string{"lazy", "off&consistency=eventual"} {
		play(t, 2, "resolve=all&lsn="+mode, func(s *stage) {
			err := losses["executed, and the server lives"].lose(s, func() error {
				_, err := s.db.Exec(insert)
				return err
			})
			if err != nil {
				s.Errorf("lsn=%s: Exec = %v", mode, err)
			}
			s.wantTried(insert, 1)
		})
	}
}

func TestRowsOfAWriteThatWasResolvedAreHandedOut(t *testing.T) {
	play(t, 2, "resolve=all", func(s *stage) {
		s.Handle(returning, pgfake.Row(int64(7)))
		s.node(s.Context(), s.db)
		s.Node(1).Inject("COMMIT", 1, cut)
		if got := one[int](s, s.Context(), s.db, returning); got != 7 {
			s.Errorf("got %d, want 7", got)
		}
		s.wantTried(returning, 1)
		if got := s.cluster.Stats().Resolved; got != 1 {
			s.Errorf("Resolved = %d, want 1", got)
		}
	})
	t.Run("on a connection that the session holds", func(t *testing.T) {
		play(t, 2, "resolve=all", func(s *stage) {
			s.Handle(returning, pgfake.Row(int64(7)))
			conn := s.session()
			defer conn.Close()
			s.exec(s.Context(), conn, "SET x.y = '1'")
			s.Node(1).Inject("COMMIT", 1, cut)
			if got := one[int](s, s.Context(), conn, returning); got != 7 {
				s.Errorf("got %d, want 7", got)
			}
			s.wantTried(returning, 1)
		})
	})
}

func TestWithoutRetryAWriteThatWasNotCommittedIsTold(t *testing.T) {
	play(t, 2, "resolve=all&retry=off", func(s *stage) {
		err := losses["not executed, and the server lives"].lose(s, func() error {
			_, err := s.db.Exec(insert)
			return err
		})
		s.wantError("Exec", err, ErrNotCommitted)
		s.wantTried(insert, 1)
	})
}

func TestATransactionWithAStatementThatCarriedNoQuestionIsNotResolved(t *testing.T) {
	for _, text := range []string{"UPDATE t SET v = 1; UPDATE t SET v = 2", "ROLLBACK TO a"} {
		play(t, 2, "", func(s *stage) {
			err := losses["executed, and the server lives"].lose(s, func() error {
				tx, err := s.db.Begin()
				if err != nil {
					return err
				}
				s.exec(s.Context(), tx, "SAVEPOINT a")
				s.exec(s.Context(), tx, insert)
				s.exec(s.Context(), tx, text)
				return tx.Commit()
			})
			s.wantError(text, err, ErrOutcomeUnknown)
		})
	}
}

func TestSavepointsAreNoHindranceToAResolution(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		err := losses["executed, and the server lives"].lose(s, func() error {
			tx, err := s.db.Begin()
			if err != nil {
				return err
			}
			s.exec(s.Context(), tx, "SAVEPOINT a")
			s.exec(s.Context(), tx, insert)
			s.exec(s.Context(), tx, "RELEASE a")
			return tx.Commit()
		})
		if err != nil {
			s.Errorf("Commit = %v", err)
		}
	})
}

func TestWhatTakesNoSnapshotIsNoHindranceToAResolution(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		early := []string{"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET LOCAL lock_timeout = '1s'", "LOCK TABLE t", "NOTIFY n"}
		for _, text := range early {
			s.Handle(text, pgfake.Reply{})
		}
		err := losses["executed, and the server lives"].lose(s, func() error {
			tx, err := s.db.Begin()
			if err != nil {
				return err
			}
			for _, text := range early {
				s.exec(s.Context(), tx, text)
			}
			if n := s.asked(); n != 0 {
				s.Errorf("the identity was asked for %d times in front of the first query", n)
			}
			s.exec(s.Context(), tx, insert)
			s.exec(s.Context(), tx, early[1])
			if n := s.asked(); n != 2 {
				s.Errorf("the identity was asked for %d times, want 2", n)
			}
			return tx.Commit()
		})
		if err != nil {
			s.Errorf("Commit = %v", err)
		}
	})
}

// asked returns how often the identity of a transaction was asked for.
func (s *stage) asked() int {
	n := 0
	for _, e := range s.Log() {
		if strings.Contains(e.SQL, "pg_current_xact_id_if_assigned") {
			n++
		}
	}
	return n
}

// The transaction may have its id from a statement that wrote no WAL: only a
// position behind all that was written tells something about the id.
func TestAStatementThatWasInterruptedTakesTheIdentityWithIt(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		err := losses["executed, and the server lives"].lose(s, func() error {
			tx, err := s.db.Begin()
			if err != nil {
				return err
			}
			s.exec(s.Context(), tx, insert)
			ctx, cancel := context.WithTimeout(s.Context(), trip+trip/4) // it is prepared first
			defer cancel()
			_, err = tx.ExecContext(ctx, returning)
			s.wantError("Exec", err, context.DeadlineExceeded)
			time.Sleep(2 * trip) // it is done all the same
			return tx.Commit()
		})
		s.wantError("Commit", err, ErrOutcomeUnknown)
	})
}

func TestTheLookIntoALostCommitEndsWithItsContext(t *testing.T) {
	play(t, 1, "resolve=all&failover_wait=1h", func(s *stage) {
		s.node(s.Context(), s.db)
		s.Node(1).Inject("COMMIT", 1, cut)
		ctx, cancel := context.WithTimeout(s.Context(), 4*time.Second)
		defer cancel()
		s.within(4*time.Second, "Exec", func() {
			result := make(chan error, 1)
			go func() {
				_, err := s.db.ExecContext(ctx, insert)
				result <- err
			}()
			s.Node(1).Refuse()
			s.wantError("Exec", <-result, ErrOutcomeUnknown)
		})
	})
}

func TestALookIntoALostCommitNeedsNoSecondConnection(t *testing.T) {
	play(t, 1, "resolve=all&pool_max_conns=1&max_dials=1", func(s *stage) {
		s.node(s.Context(), s.db)
		s.Node(1).Inject("COMMIT", 2, cut)
		s.exec(s.Context(), s.db, insert)
		tx, err := s.db.Begin()
		if err != nil {
			s.Fatal(err)
		}
		s.exec(s.Context(), tx, insert)
		if err := tx.Commit(); err != nil {
			s.Errorf("Commit = %v", err)
		}
		s.wantTried(insert, 2)
	})
}

func TestALookIntoALostCommitOfASessionWithStateNeedsNoSecondConnection(t *testing.T) {
	play(t, 1, "pool_max_conns=1&max_dials=1", func(s *stage) {
		conn := s.session()
		defer conn.Close()
		s.exec(s.Context(), conn, "SET x.y = '1'")
		tx, err := conn.BeginTx(s.Context(), nil)
		if err != nil {
			s.Fatal(err)
		}
		s.exec(s.Context(), tx, insert)
		s.Node(1).Inject("COMMIT", 1, cut)
		if err := tx.Commit(); err != nil {
			s.Errorf("Commit = %v", err)
		}
		_, err = conn.ExecContext(s.Context(), insert)
		s.wantError("Exec on the session whose state is gone", err, ErrSessionLost)
	})
}

func TestTheStateThatAResolvedWriteLeftBehindIsKnownToBeLost(t *testing.T) {
	const text = "SELECT app.configure()" // which may have set something for the session
	play(t, 1, "resolve=all", func(s *stage) {
		s.Handle(text, pgfake.Reply{Columns: pgfake.Row("").Columns, Writes: true})
		conn := s.session()
		defer conn.Close()
		s.Node(1).Inject("COMMIT", 1, cut)
		s.exec(s.Context(), conn, text)
		_, err := conn.ExecContext(s.Context(), insert)
		s.wantError("Exec on the session whose state is gone", err, ErrSessionLost)
	})
}

func TestDDLWhoseCommitWasResolvedHasStatementsPreparedAnew(t *testing.T) {
	play(t, 1, "", func(s *stage) {
		before := s.cluster.schema.Load()
		tx, err := s.db.Begin()
		if err != nil {
			s.Fatal(err)
		}
		s.exec(s.Context(), tx, "ALTER TABLE t ADD x int")
		s.Node(1).Inject("COMMIT", 1, cut)
		if err := tx.Commit(); err != nil {
			s.Errorf("Commit = %v", err)
		}
		if s.cluster.schema.Load() == before {
			s.Error("other connections go on with what they had prepared")
		}
	})
}

// n3 has what n2 had not when it took over, and follows n2 as the primary: what is
// not committed for the one is for the other.
func TestAWriteThatOneHistoryLacksIsNotExecutedInAnother(t *testing.T) {
	play(t, 3, "resolve=all", func(s *stage) {
		s.node(s.Context(), s.db)
		s.Node(2).StopReplay()
		s.Node(1).Inject("COMMIT", 1, pgfake.Fault{SyncWait: true})
		result := make(chan error, 1)
		go func() {
			_, err := s.db.Exec(insert)
			result <- err
		}()
		time.Sleep(4 * trip)
		s.Node(1).Kill()
		time.Sleep(trip)
		s.Promote(s.Node(2))
		for s.cluster.Stats().Resolved == 0 {
			time.Sleep(time.Millisecond)
		}
		s.Node(2).Kill()
		s.Promote(s.Node(3))
		s.wantError("Exec", <-result, ErrOutcomeUnknown)
		s.wantTried(insert, 1)
	})
}
