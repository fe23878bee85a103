package helios

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/internal/pgfake"
)

// backend returns which connection of the cluster answers.
func (s *stage) backend(ctx context.Context, q queryer) int {
	s.Helper()
	return one[int](s, ctx, q, "SELECT pg_backend_pid()")
}

// finish closes a session.
func (s *stage) finish(conn *sql.Conn) {
	s.Helper()
	if err := conn.Close(); err != nil {
		s.Errorf("Close() = %v", err)
	}
	synctest.Wait()
}

func TestStateOnTheServerPinsTheSession(t *testing.T) {
	for _, text := range []string{
		"SET application_name = 'mine'", "CREATE TEMP TABLE mine (v int)", "LISTEN news", "PREPARE mine AS SELECT 1",
		"SELECT pg_advisory_lock(1)", "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
	} {
		t.Run(text, func(t *testing.T) {
			play(t, 2, rare, func(s *stage) {
				one, other := s.session(), s.session()
				s.exec(s.Context(), one, text)
				pid := s.Node(1).Log()[len(s.Node(1).Log())-1].Conn
				for range 3 {
					s.exec(s.Context(), other, insert)
					if got := s.node(s.Context(), one); got != "n1" {
						s.Errorf("a read of the pinned session went to %s, want n1", got)
					}
					s.exec(s.Context(), one, insert)
				}
				for _, e := range s.Node(1).Log() {
					if e.SQL == where && e.Conn != pid {
						s.Errorf("a read of the pinned session ran on connection %d, want %d", e.Conn, pid)
					}
				}
				s.finish(one)
				s.finish(other)
			})
		})
	}
}

func TestWhatASessionSetIsGoneForTheNextOne(t *testing.T) {
	play(t, 1, rare+"&pool_max_conns=1", func(s *stage) {
		conn := s.session()
		s.exec(s.Context(), conn, "SET application_name = 'mine'")
		s.exec(s.Context(), conn, "UPDATE t SET v = $1", 7)
		if got := one[string](s, s.Context(), conn, "SHOW application_name"); got != "mine" {
			s.Errorf("application_name = %q in the session that set it", got)
		}
		pid := s.backend(s.Context(), conn)
		s.finish(conn)
		s.ResetLog()
		if got := one[string](s, s.Context(), s.db, "SHOW application_name"); got == "mine" {
			s.Error("the next session sees what another one has set")
		}
		if got := s.backend(s.Context(), s.db); got != pid {
			s.Errorf("connection %d instead of %d: it was not reset but replaced", got, pid)
		}
		s.exec(s.Context(), s.db, "UPDATE t SET v = $1", 8)
		if got := s.Node(1).Counters().Parses; got != 0 {
			s.Errorf("%d statements were prepared again after the reset, want none", got)
		}
		if log := s.told(); strings.Contains(log, "DEALLOCATE") || strings.Contains(log, "DISCARD ALL") {
			s.Errorf("the reset drops prepared statements:\n%s", log)
		}
	})
}

func TestACleanSessionIsNotReset(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		conn := s.session()
		s.exec(s.Context(), conn, insert)
		s.node(s.Context(), conn)
		s.finish(conn)
		time.Sleep(time.Second)
		if log := s.told(); strings.Contains(log, "RESET") {
			s.Errorf("a session without state was reset:\n%s", log)
		}
	})
}

func TestASessionThatPreparedIsResetWithItsStatements(t *testing.T) {
	play(t, 1, rare+"&pool_max_conns=1", func(s *stage) {
		conn := s.session()
		s.exec(s.Context(), conn, insert)
		s.exec(s.Context(), conn, "PREPARE mine AS SELECT 1")
		s.exec(s.Context(), conn, "DEALLOCATE ALL")
		s.exec(s.Context(), conn, insert)
		s.finish(conn)
		time.Sleep(time.Second)
		s.wantExecuted("DEALLOCATE ALL", "n1")
		s.wantExecuted("deallocate all", "n1") // pgx does it, and forgets its own as well
		s.exec(s.Context(), s.db, insert)
		s.node(s.Context(), s.db)
	})
}

func TestAnAdvisoryLockIsReleasedByTheBackendThatTookIt(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		for range 3 {
			conn := s.session()
			if !one[bool](s, s.Context(), conn, "SELECT pg_try_advisory_lock($1::int8)", 42) {
				s.Error("the lock was not taken")
			}
			s.exec(s.Context(), s.db, insert)
			if !one[bool](s, s.Context(), conn, "SELECT pg_advisory_unlock($1::int8)", 42) {
				s.Error("the lock was not released")
			}
			s.finish(conn)
		}
		taken := map[int]int{}
		for _, e := range s.Log() {
			if strings.Contains(e.SQL, "pg_try_advisory_lock") {
				taken[e.Conn]++
			}
			if strings.Contains(e.SQL, "pg_advisory_unlock(") {
				taken[e.Conn]--
			}
			if strings.Contains(e.SQL, "advisory") && e.Node != "n1" {
				s.Errorf("%s ran on %s", e.SQL, e.Node)
			}
		}
		for conn, n := range taken {
			if n != 0 {
				s.Errorf("connection %d has %d locks left", conn, n)
			}
		}
	})
}

func TestALostConnectionLosesThePinnedSessionUntilItEnds(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		conn := s.session()
		s.exec(s.Context(), conn, "SET application_name = 'mine'")
		s.Node(1).Reset()
		for range 3 {
			_, err := conn.ExecContext(s.Context(), insert)
			s.wantError("Exec", err, ErrSessionLost)
			err = conn.QueryRowContext(s.Context(), where).Scan(new(string))
			s.wantError("QueryRow", err, ErrSessionLost)
		}
		if tx, err := conn.BeginTx(s.Context(), nil); err == nil {
			s.Errorf("BeginTx in a lost session succeeded; Rollback() = %v", tx.Rollback())
		} else {
			s.wantError("BeginTx", err, ErrSessionLost)
		}
		s.wantExecuted(insert)
		s.finish(conn)
		next := s.session()
		s.exec(s.Context(), next, insert)
		s.finish(next)
	})
}

func TestTransactionsThatTheUserWritesStayOnOneConnection(t *testing.T) {
	for _, end := range []string{"COMMIT", "ROLLBACK"} {
		t.Run(end, func(t *testing.T) {
			play(t, 2, rare, func(s *stage) {
				before := s.Node(1).Position().LSN
				conn := s.session()
				s.exec(s.Context(), conn, "BEGIN")
				s.exec(s.Context(), conn, insert)
				if got := s.node(s.Context(), conn); got != "n1" {
					s.Errorf("a read in the transaction went to %s, want n1", got)
				}
				if got := s.Node(1).Position().LSN; got != before {
					s.Error("something was committed before the user did")
				}
				s.exec(s.Context(), conn, end)
				if got := s.Node(1).Position().LSN; (got > before) != (end == "COMMIT") {
					s.Errorf("after %s the primary is at %v, before at %v", end, got, before)
				}
				conns := map[int]bool{}
				for _, e := range s.Node(1).Log() {
					if slices.Contains([]string{"BEGIN", insert, where, end}, e.SQL) {
						conns[e.Conn] = true
					}
				}
				if len(conns) != 1 {
					s.Errorf("the transaction ran on %d connections", len(conns))
				}
				s.finish(conn)
			})
		})
	}
}

func TestATransactionThatTheUserLeavesOpenIsRolledBack(t *testing.T) {
	play(t, 1, rare+"&pool_max_conns=1", func(s *stage) {
		before := s.Node(1).Position().LSN
		conn := s.session()
		s.exec(s.Context(), conn, "BEGIN")
		s.exec(s.Context(), conn, insert)
		s.finish(conn)
		s.node(s.Context(), s.db)
		if got := s.Node(1).Position().LSN; got != before {
			s.Error("the transaction was committed")
		}
		s.wantExecuted("ROLLBACK", "n1")
	})
}

func TestReadYourWritesHoldsAfterATransactionTheUserWrote(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.Node(2).StopReplay()
		conn := s.session()
		s.exec(s.Context(), conn, "BEGIN")
		s.exec(s.Context(), conn, insert)
		s.exec(s.Context(), conn, "COMMIT")
		s.finish(conn)
		if got := s.node(s.Context(), s.db); got != "n1" {
			s.Errorf("a read after the commit went to %s, want n1", got)
		}
	})
}

func TestTextsWithSeveralStatementsMayHoldATransaction(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.Node(2).StopReplay()
		s.exec(s.Context(), s.db, "BEGIN; "+insert+"; COMMIT")
		s.wantExecuted(insert, "n1")
		if got := s.node(s.Context(), s.db); got != "n1" {
			s.Errorf("a read after the commit went to %s, want n1", got)
		}
	})
}

func TestIdleSessionsHoldNoSockets(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		const many = 10_000
		conns := make([]*sql.Conn, many)
		for i := range conns {
			conns[i] = s.session()
		}
		for _, conn := range conns[:many/10] {
			s.node(s.Context(), conn)
		}
		for _, node := range s.Nodes() {
			if open := node.Counters().Open; open > 2 {
				s.Errorf("%s has %d open connections for %d idle sessions", node.Name, open, many)
			}
		}
		for _, conn := range conns {
			if err := conn.Close(); err != nil {
				s.Fatal(err)
			}
		}
	})
}

func TestThePoolsLimitIsHonouredInOrder(t *testing.T) {
	play(t, 1, rare+"&pool_max_conns=3", func(s *stage) {
		s.Node(1).Inject("~^UPDATE", 0, pgfake.Fault{Delay: time.Second})
		var clients sync.WaitGroup
		for i := range 30 {
			clients.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				s.exec(s.Context(), s.db, fmt.Sprintf("UPDATE t SET v = %d", i))
			})
		}
		clients.Wait()
		if open := s.Node(1).Counters().Open; open > 3+1 { // and the probe's
			s.Errorf("%d connections are open, want 3", open)
		}
		var order []string
		for _, e := range s.Log() {
			if strings.HasPrefix(e.SQL, "UPDATE") {
				order = append(order, strings.TrimPrefix(e.SQL, "UPDATE t SET v = "))
			}
		}
		for i, v := range order {
			if v != fmt.Sprint(i) {
				s.Fatalf("statements were executed in the order %v, want that of their arrival", order)
			}
		}
	})
}

func TestWaitingForAConnectionEndsWithTheContext(t *testing.T) {
	play(t, 1, rare+"&pool_max_conns=1", func(s *stage) {
		rows, err := s.db.Query(where)
		if err != nil {
			s.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(s.Context(), 300*time.Millisecond)
		defer cancel()
		s.within(300*time.Millisecond, "Exec", func() {
			_, err := s.db.ExecContext(ctx, insert)
			s.wantError("Exec", err, context.DeadlineExceeded)
			if !SafeToRetry(err) {
				s.Errorf("%v: nothing was sent, want it to be safe to retry", err)
			}
		})
		if err := rows.Close(); err != nil {
			s.Error(err)
		}
		s.exec(s.Context(), s.db, insert)
		s.wantExecuted(insert, "n1")
	})
}

func TestASessionLendsItsConnectionToPgx(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.Node(2).StopReplay()
		conn := s.session()
		err := conn.Raw(func(dc any) error {
			raw := dc.(interface{ Raw() driver.Conn }).Raw()
			c, err := raw.(*Conn).PgxConn(s.Context())
			if err != nil {
				return err
			}
			_, err = c.Exec(s.Context(), insert)
			return err
		})
		if err != nil {
			s.Fatal(err)
		}
		s.wantExecuted(insert, "n1")
		s.finish(conn)
		if got := s.node(s.Context(), s.db); got != "n1" {
			s.Errorf("a read after what was written through pgx went to %s, want n1", got)
		}
	})
}

func TestAPinnedSessionsTransactionStaysOnItsConnection(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		conn := s.session()
		s.exec(s.Context(), conn, "SET application_name = 'mine'")
		pid := s.backend(s.Context(), conn)
		for _, readOnly := range []bool{false, true} {
			tx, err := conn.BeginTx(s.Context(), &sql.TxOptions{ReadOnly: readOnly})
			if err != nil {
				s.Fatal(err)
			}
			if got := s.backend(s.Context(), tx); got != pid {
				s.Errorf("readOnly=%v: the transaction runs on connection %d, want %d", readOnly, got, pid)
			}
			if err := tx.Commit(); err != nil {
				s.Error(err)
			}
		}
		if got := one[string](s, s.Context(), conn, "SHOW application_name"); got != "mine" {
			s.Errorf("application_name = %q after the transactions", got)
		}
		s.finish(conn)
	})
}

func TestASetInsideATransactionPinsWhatFollows(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		conn := s.session()
		tx, err := conn.BeginTx(s.Context(), nil)
		if err != nil {
			s.Fatal(err)
		}
		s.exec(s.Context(), tx, "SET application_name = 'mine'")
		if err := tx.Commit(); err != nil {
			s.Fatal(err)
		}
		if got := one[string](s, s.Context(), conn, "SHOW application_name"); got != "mine" {
			s.Errorf("application_name = %q after the transaction that set it", got)
		}
		s.finish(conn)
		if got := one[string](s, s.Context(), s.db, "SHOW application_name"); got == "mine" {
			s.Error("the next session sees what another one has set")
		}
	})
}
