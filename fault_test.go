package helios

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgfake"
)

const returning = "INSERT INTO t VALUES (1) RETURNING id"

// shutDown is the answer of a server that is shut down.
var shutDown = pgfake.Fault{Err: &pgfake.Error{Severity: "FATAL", Code: codeAdminShutdown, Message: "terminating connection due to administrator command"}}

// cut executes and answers nothing.
var cut = pgfake.Fault{Then: pgfake.Cut}

// tried returns how often the cluster tried to execute a statement.
func (s *stage) tried(text string) int {
	n := 0
	for _, e := range s.Log() {
		if e.SQL == text {
			n++
		}
	}
	return n
}

// wantTried checks how often the cluster tried to execute a statement.
func (s *stage) wantTried(text string, want int) {
	s.Helper()
	if got := s.tried(text); got != want {
		s.Errorf("%s was sent %d times, want %d; log:\n%s", text, got, want, s.told())
	}
}

// wantHealthy checks that no node was marked down.
func (s *stage) wantHealthy() {
	s.Helper()
	for _, node := range s.cluster.Status().Nodes {
		if !node.Healthy {
			s.Errorf("%s is %s: %s", node.Name, node.State, node.Reason)
		}
	}
}

func TestAnAnswerThatIsLostLeavesTheOutcomeUnknown(t *testing.T) {
	for name, do := range map[string]func(s *stage) error{
		"Exec": func(s *stage) error {
			_, err := s.db.Exec(returning)
			return err
		},
		"QueryRow": func(s *stage) error {
			return s.db.QueryRow(returning).Scan(new(int))
		},
		"Query": func(s *stage) error {
			rows, err := s.db.Query(returning)
			if err != nil {
				return err
			}
			for rows.Next() {
			}
			return errors.Join(rows.Err(), rows.Close())
		},
		"a prepared statement": func(s *stage) error {
			_, err := s.prepare(returning).Exec()
			return err
		},
		"Commit": func(s *stage) error {
			tx, err := s.db.Begin()
			if err != nil {
				return err
			}
			s.exec(s.Context(), tx, returning)
			return tx.Commit()
		},
		"a held session": func(s *stage) error {
			conn := s.session()
			defer s.finish(conn)
			s.exec(s.Context(), conn, "SET application_name = 'mine'")
			_, err := conn.ExecContext(s.Context(), returning)
			return err
		},
	} {
		for _, when := range []string{returning, "COMMIT"} {
			if name == "Commit" && when == returning {
				continue // the transaction notices it before its end
			}
			t.Run(name+" cut at "+when, func(t *testing.T) {
				play(t, 2, rare+"&resolve=off", func(s *stage) {
					s.Handle(returning, pgfake.Row(int64(7)))
					s.node(s.Context(), s.db)
					s.Node(1).Inject(when, 1, cut)
					err := do(s)
					s.wantError(name, err, ErrOutcomeUnknown)
					if SafeToRetry(err) {
						s.Errorf("SafeToRetry(%v) = true", err)
					}
					if route, ok := errors.AsType[*RouteError](err); !ok || route.Node != "n1:5432" || !route.Sent {
						s.Errorf("%v does not say that something was sent to n1", err)
					}
					s.wantTried(returning, 1)
					s.Node(2).StopReplay()
					if got := s.node(s.Context(), s.db); got != "n1" {
						s.Errorf("a read after what may have been written went to %s, want n1", got)
					}
				})
			})
		}
	}
}

func TestWhatCannotRunInABlockIsNeverSentTwice(t *testing.T) {
	for _, text := range []string{"CREATE TABLE u (v int)", "VACUUM t", "CALL p()", "UPDATE t SET v = 1; UPDATE t SET v = 2"} {
		t.Run(text, func(t *testing.T) {
			play(t, 2, rare, func(s *stage) {
				first, _, _ := strings.Cut(text, ";")
				s.Node(1).Inject(first, 1, cut)
				_, err := s.db.Exec(text)
				s.wantError(text, err, ErrOutcomeUnknown)
				s.wantTried(first, 1)
			})
		})
	}
}

func TestAReadWhoseAnswerIsLostIsAskedAgain(t *testing.T) {
	play(t, 3, rare, func(s *stage) {
		s.node(s.Context(), s.db)
		s.Node(2).Inject(where, 0, cut)
		for range 10 {
			if got := s.node(s.Context(), s.db); got != "n3" {
				s.Errorf("the read was answered by %s, want n3", got)
			}
		}
		s.Node(3).Inject(where, 0, cut)
		if got := s.node(s.Context(), s.db); got != "n1" {
			s.Errorf("the read was answered by %s, want n1", got)
		}
		if s.cluster.Stats().Retries == 0 {
			s.Error("no retry was counted")
		}
	})
}

// What breaks two connections in a row is breaking others, which look sound yet.
func TestAReadLetsAMomentPassBeforeItIsSentForTheLastTime(t *testing.T) {
	play(t, 4, rare, func(s *stage) {
		replicas := s.Nodes()[1:]
		for _, n := range replicas {
			s.node(Node(s.Context(), n.Name), s.db)
		}
		for _, n := range replicas {
			remove := n.Inject(where, 0, cut)
			time.AfterFunc(2*trip+3*time.Millisecond, func() { remove(); n.Reset() })
		}
		s.within(2*trip+breath+2*trip, "the read", func() { // the last time on a new connection, where it is prepared
			if got := s.node(s.Context(), s.db); got == "n1" {
				s.Errorf("the read was answered by %s, want a replica", got)
			}
		})
	})
}

// numbers is an answer of n rows.
func numbers(n int) pgfake.Reply {
	reply := pgfake.Reply{Columns: []pgfake.Column{{Name: "v", OID: 20}}}
	for i := range n {
		reply.Rows = append(reply.Rows, []any{i})
	}
	return reply
}

// readAll reads rows as far as they come, and counts them.
func (s *stage) readAll(text string) (rows *sql.Rows, n int) {
	s.Helper()
	rows, err := s.db.Query(text)
	if err != nil {
		s.Fatal(err)
	}
	for rows.Next() {
		n++
	}
	return rows, n
}

func TestRowsThatWereHandedOutAreNotAskedForAgain(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		const read = "SELECT v FROM many"
		s.Handle(read, numbers(10_000))
		s.Node(2).Inject(read, 1, pgfake.Fault{CutAfter: 20_000})
		rows, n := s.readAll(read)
		if rows.Err() == nil || n == 0 || n >= 10_000 {
			s.Errorf("%d rows, then %v, want some rows and an error", n, rows.Err())
		}
		if err := rows.Close(); err != nil && err.Error() != rows.Err().Error() {
			s.Error(err)
		}
		s.wantTried(read, 1)
	})
}

func TestAStatementOfATransactionIsNeverSentAgain(t *testing.T) {
	for _, text := range []string{insert, where} {
		t.Run(text, func(t *testing.T) {
			play(t, 2, rare, func(s *stage) {
				tx, err := s.db.Begin()
				if err != nil {
					s.Fatal(err)
				}
				s.exec(s.Context(), tx, "UPDATE t SET v = 1")
				s.Node(1).Inject(text, 1, cut)
				_, err = tx.Exec(text)
				s.wantError("Exec", err, ErrSessionLost)
				s.wantError("Exec", err, ErrNotCommitted)
				_, err = tx.Exec("UPDATE t SET v = 2")
				s.wantError("the next Exec", err, ErrSessionLost)
				err = tx.Commit()
				s.wantError("Commit", err, ErrNotCommitted)
				s.wantTried(text, 1)
				s.wantTried("UPDATE t SET v = 2", 0)
				s.exec(s.Context(), s.db, "UPDATE t SET v = 3")
			})
		})
	}
}

func TestAShutdownAsTheAnswerMeansNotExecuted(t *testing.T) {
	for _, text := range []string{insert, returning} {
		t.Run("retry=safe "+text, func(t *testing.T) {
			play(t, 1, rare, func(s *stage) {
				s.Handle(returning, pgfake.Row(int64(7)))
				s.exec(s.Context(), s.db, text)
				s.ResetLog()
				s.Node(1).Inject(text, 1, shutDown)
				s.exec(s.Context(), s.db, text)
				s.wantTried(text, 2)
				s.wantExecuted(text, "n1")
			})
		})
		t.Run("retry=off "+text, func(t *testing.T) {
			play(t, 1, rare+"&retry=off", func(s *stage) {
				s.Handle(returning, pgfake.Row(int64(7)))
				s.Node(1).Inject(text, 1, shutDown)
				_, err := s.db.Exec(text)
				s.wantError("Exec", err, ErrNotCommitted)
				if !SafeToRetry(err) {
					s.Errorf("SafeToRetry(%v) = false", err)
				}
				s.wantTried(text, 1)
			})
		})
	}
	t.Run("Commit", func(t *testing.T) {
		play(t, 1, rare, func(s *stage) {
			tx, err := s.db.Begin()
			if err != nil {
				s.Fatal(err)
			}
			s.exec(s.Context(), tx, insert)
			s.Node(1).Inject("COMMIT", 1, shutDown)
			s.wantError("Commit", tx.Commit(), ErrNotCommitted)
			s.wantTried(insert, 1)
		})
	})
}

// A server that is shut down sends the rows of a statement with its last words, before
// the commit.
func TestRowsOfAWriteAreHandedOutOnceItIsCommitted(t *testing.T) {
	for name, fault := range map[string]pgfake.Fault{"shut down": shutDown, "not executed": unexecuted} {
		t.Run(name, func(t *testing.T) {
			play(t, 1, rare+"&resolve=all", func(s *stage) {
				s.Handle(returning, pgfake.Row(int64(7)))
				s.exec(s.Context(), s.db, returning)
				s.ResetLog()
				s.Node(1).Inject("COMMIT", 1, fault)
				if fault.Hang {
					time.AfterFunc(2*trip, s.Node(1).Reset)
				}
				if got := one[int](s, s.Context(), s.db, returning); got != 7 {
					s.Errorf("got %d, want 7", got)
				}
				s.wantTried(returning, 2)
			})
		})
	}
	for _, params := range []string{"", "&lsn=lazy", "&lsn=off&consistency=eventual"} {
		t.Run("a commit that fails"+params, func(t *testing.T) {
			play(t, 1, rare+params, func(s *stage) {
				s.Handle(returning, pgfake.Row(int64(7)))
				s.Node(1).Inject(returning, 1, pgfake.Fault{AtCommit: &pgfake.Error{Code: codeSerialization, Message: "could not serialize access"}})
				rows, err := s.db.Query(returning)
				if err == nil {
					rows.Close()
				}
				if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != codeSerialization {
					s.Errorf("Query = %v, want %s before any row", err, codeSerialization)
				}
			})
		})
	}
}

// A long answer is not kept until the commit.
func TestRowsOfALongAnswerComeAsTheServerSendsThem(t *testing.T) {
	play(t, 1, rare, func(s *stage) {
		s.Handle(returning, numbers(10_000))
		for _, cut := range []int{0, 100_000} {
			s.Node(1).Inject(returning, 1, pgfake.Fault{CutAfter: cut})
			rows, n := s.readAll(returning)
			if (cut == 0) != (n == 10_000) || (cut == 0) != (rows.Err() == nil) || n == 0 {
				s.Errorf("cut after %d bytes: %d rows, then %v", cut, n, rows.Err())
			}
			rows.Close()
		}
	})
}

func TestACommitThatWaitedForItsStandbyInVainIsUnknown(t *testing.T) {
	for name, tt := range map[string]struct{ end func(s *stage) }{
		"terminated":     {func(s *stage) { s.Node(1).Terminate() }},
		"connection cut": {func(s *stage) { s.Node(1).Reset() }},
	} {
		for _, how := range []string{"Exec", "Commit", "DDL"} {
			t.Run(name+" "+how, func(t *testing.T) {
				play(t, 1, rare+"&resolve=off", func(s *stage) {
					text := insert
					waiting := "COMMIT"
					if how == "DDL" {
						text, waiting = "CREATE TABLE u (v int)", "CREATE TABLE u (v int)"
					}
					s.exec(s.Context(), s.db, insert)
					s.Node(1).Inject(waiting, 1, pgfake.Fault{SyncWait: true})
					result := make(chan error, 1)
					go func() {
						if how != "Commit" {
							_, err := s.db.Exec(text)
							result <- err
							return
						}
						tx, err := s.db.Begin()
						if err == nil {
							_, err = tx.Exec(text)
						}
						if err == nil {
							err = tx.Commit()
						}
						result <- err
					}()
					time.Sleep(time.Second)
					tt.end(s)
					s.wantError(how, <-result, ErrOutcomeUnknown)
					s.wantTried(text, map[bool]int{true: 2, false: 1}[text == insert])
				})
			})
		}
	}
}

func TestACancelledWaitForAStandbyIsNoSuccess(t *testing.T) {
	play(t, 1, rare, func(s *stage) {
		warned := pgfake.Fault{Notices: []pgfake.Error{{Code: "01000", Message: "canceling wait for synchronous replication due to user request", Routine: "SyncRepWaitForLSN"}}}
		s.Node(1).Inject("COMMIT", 2, warned)
		_, err := s.db.Exec(insert)
		s.wantError("Exec", err, ErrOutcomeUnknown)
		tx, err := s.db.Begin()
		if err != nil {
			s.Fatal(err)
		}
		s.exec(s.Context(), tx, insert)
		s.wantError("Commit", tx.Commit(), ErrOutcomeUnknown)
		s.wantTried(insert, 2)
	})
}

// A deferred constraint, or a conflict of serializable transactions, shows when
// the transaction commits, which is after the statement was completed.
func TestACommitThatFailsIsNoSuccess(t *testing.T) {
	doomed := pgfake.Fault{AtCommit: &pgfake.Error{Code: codeSerialization, Message: "could not serialize access"}}
	held := func(text string) func(*stage) error {
		return func(s *stage) error {
			conn := s.session()
			defer s.finish(conn)
			s.exec(s.Context(), conn, "SET application_name = 'mine'")
			_, err := conn.ExecContext(s.Context(), text)
			return err
		}
	}
	plain := func(text string) func(*stage) error {
		return func(s *stage) error { _, err := s.db.Exec(text); return err }
	}
	for name, tt := range map[string]struct {
		fails string
		do    func(s *stage) error
	}{
		"Exec":                  {insert, plain(insert)},
		"QueryRow":              {returning, func(s *stage) error { return s.db.QueryRow(returning).Scan(new(int)) }},
		"Stmt":                  {insert, func(s *stage) error { _, err := s.prepare(insert).Exec(); return err }},
		"a procedure":           {"CALL p()", plain("CALL p()")},
		"a block":               {"DO $$ $$", plain("DO $$ $$")},
		"DDL":                   {"CREATE TABLE u (v int)", plain("CREATE TABLE u (v int)")},
		"several statements":    {insert, plain("UPDATE t SET v = 1; " + insert)},
		"a pinned session":      {insert, held(insert)},
		"a pinned session's DO": {"DO $$ $$", held("DO $$ $$")},
		"Commit": {insert, func(s *stage) error {
			tx, err := s.db.Begin()
			if err != nil {
				return err
			}
			s.exec(s.Context(), tx, insert)
			return tx.Commit()
		}},
	} {
		for _, params := range []string{"lsn=eager", "lsn=lazy", "lsn=off&consistency=eventual"} {
			t.Run(name+" "+params, func(t *testing.T) {
				play(t, 2, rare+"&"+params, func(s *stage) {
					s.Handle(returning, pgfake.Row(int64(7)))
					before := s.Node(1).Position().LSN
					s.Node(1).Inject(tt.fails, 1, doomed)
					s.wantCode(name, tt.do(s), codeSerialization)
					s.wantTried(tt.fails, 1)
					if got := s.Node(1).Position().LSN; got != before {
						s.Error("something was committed")
					}
					s.exec(s.Context(), s.db, insert)
				})
			})
		}
	}
}

func TestTheEndOfAContextEndsTheCallAndKeepsTheConnection(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		node int
		want error
		ctx  func(context.Context) (context.Context, context.CancelFunc)
	}{
		"deadline of a read":  {where, 2, context.DeadlineExceeded, after(500 * time.Millisecond)},
		"deadline of a write": {insert, 1, context.DeadlineExceeded, after(500 * time.Millisecond)},
		"cancelled read":      {where, 2, context.Canceled, cancelled(500 * time.Millisecond)},
		"cancelled write":     {insert, 1, context.Canceled, cancelled(500 * time.Millisecond)},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, 2, rare+"&pool_max_conns=1", func(s *stage) {
				s.node(s.Context(), s.db)
				s.exec(s.Context(), s.db, insert)
				s.ResetLog()
				s.Node(tt.node).Inject(tt.text, 1, pgfake.Fault{Hang: true})
				ctx, cancel := tt.ctx(s.Context())
				defer cancel()
				s.within(500*time.Millisecond, "the call", func() {
					_, err := s.db.ExecContext(ctx, tt.text)
					s.wantError("Exec", err, tt.want)
					if unknown := errors.Is(err, ErrOutcomeUnknown); unknown != (tt.text == insert) {
						s.Errorf("%v: outcome unknown = %v", err, unknown)
					}
				})
				time.Sleep(time.Second)
				s.exec(s.Context(), s.db, tt.text)
				s.node(s.Context(), s.db)
				c := s.Node(tt.node).Counters()
				if c.Cancels != 1 || c.Opened != 0 {
					s.Errorf("%d cancel requests and %d new connections, want 1 and none", c.Cancels, c.Opened)
				}
				s.wantExecuted(insert, map[bool][]string{true: {"n1"}, false: nil}[tt.text == insert]...)
				s.wantHealthy()
			})
		})
	}
}

// after returns a context that ends by its deadline.
func after(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) }
}

// cancelled returns a context that somebody cancels.
func cancelled(d time.Duration) func(context.Context) (context.Context, context.CancelFunc) {
	return func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(ctx)
		timer := time.AfterFunc(d, func() { cancel(errors.New("the user left")) })
		return ctx, func() { timer.Stop(); cancel(nil) }
	}
}

func TestATransactionWhoseContextEndsIsRolledBack(t *testing.T) {
	play(t, 1, rare+"&pool_max_conns=1", func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		before := s.Node(1).Position().LSN
		s.ResetLog()
		ctx, cancel := context.WithTimeout(s.Context(), 500*time.Millisecond)
		defer cancel()
		tx, err := s.db.BeginTx(ctx, nil)
		if err != nil {
			s.Fatal(err)
		}
		s.exec(ctx, tx, insert)
		s.Node(1).Inject("UPDATE*", 1, pgfake.Fault{Hang: true})
		_, err = tx.ExecContext(ctx, "UPDATE t SET v = 2")
		s.wantError("Exec", err, context.DeadlineExceeded)
		time.Sleep(time.Second)
		if err := tx.Commit(); err == nil {
			s.Error("Commit after the context's end succeeded")
		}
		s.node(s.Context(), s.db)
		if got := s.Node(1).Position().LSN; got != before {
			s.Error("something was committed")
		}
		if got := s.Node(1).Counters().Opened; got != 0 {
			s.Errorf("%d new connections, want none", got)
		}
		s.wantHealthy()
	})
}

func TestAServerThatIgnoresCancelRequestsCostsItsConnectionOnly(t *testing.T) {
	play(t, 1, "pool_max_conns=1&probe_interval=1h", func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		s.ResetLog()
		s.Node(1).Hang()
		ctx, cancel := context.WithTimeout(s.Context(), 500*time.Millisecond)
		defer cancel()
		s.within(500*time.Millisecond, "the call", func() {
			_, err := s.db.ExecContext(ctx, insert)
			s.wantError("Exec", err, context.DeadlineExceeded)
		})
		time.Sleep(30 * time.Second)
		s.Node(1).Resume()
		s.exec(s.Context(), s.db, "UPDATE t SET v = 1")
		s.wantTried("UPDATE t SET v = 1", 1)
	})
}

func TestANodeThatTakesNoConnectionsNowIsNotDown(t *testing.T) {
	for name, tt := range map[string]struct{ full, free func(n *pgfake.Node) }{
		"too many connections": {
			func(n *pgfake.Node) { n.SetMaxConnections(1) }, // the probe's
			func(n *pgfake.Node) { n.SetMaxConnections(0) },
		},
		"starting up": {
			func(n *pgfake.Node) { n.RefuseStartup(&pgfake.Error{Severity: "FATAL", Code: codeCannotConnect}) },
			func(n *pgfake.Node) { n.RefuseStartup(nil) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, 2, rare, func(s *stage) {
				tt.full(s.Node(1))
				tt.full(s.Node(2))
				timer := time.AfterFunc(3*time.Second, func() { tt.free(s.Node(1)) })
				defer timer.Stop()
				begun := time.Now()
				s.exec(s.Context(), s.db, insert)
				if took := time.Since(begun); took < 3*time.Second || took > 4*time.Second {
					s.Errorf("the write took %v, want about 3s", took)
				}
				s.wantTried(insert, 1)
				if got := s.node(s.Context(), s.db); got != "n1" {
					s.Errorf("the read was answered by %s, want n1", got)
				}
				s.wantHealthy()
				s.Node(1).RefuseStartup(&pgfake.Error{Severity: "FATAL", Code: codeTooMany})
				s.Node(1).Reset()
				begun = time.Now()
				_, err := s.db.Exec(insert)
				if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || time.Since(begun) < 10*time.Second || !SafeToRetry(err) {
					s.Errorf("a write on a full node: %v after %v, want the server's error after failover_wait (%+v)", err, time.Since(begun), pg)
				}
			})
		})
	}
}

func TestReadsLeaveAReplicaWithoutRoomAloneForAMoment(t *testing.T) {
	play(t, 3, rare, func(s *stage) {
		s.Node(2).RefuseStartup(&pgfake.Error{Severity: "FATAL", Code: codeTooMany})
		begun := time.Now()
		for range 100 {
			if got := s.node(s.Context(), s.db); got != "n3" {
				s.Errorf("the read was answered by %s, want n3", got)
			}
		}
		took, errs := time.Since(begun), s.cluster.Status().Nodes[1].Conns.DialErrors
		if errs == 0 || errs > uint64(took/holdOff)+1 {
			s.Errorf("n2 was asked %d times for a connection in %v, want once in %v", errs, took, holdOff)
		}
		s.wantHealthy()
		s.Node(2).RefuseStartup(nil)
		time.Sleep(2 * holdOff)
		answers := map[string]int{}
		for range 100 {
			answers[s.node(s.Context(), s.db)]++
		}
		if answers["n2"] < 20 {
			s.Errorf("with room on n2 again reads were answered by %v", answers)
		}
	})
}

func TestAHandleThatNobodyHasRoomForSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{T: t, Cluster: pgfake.NewCluster(1)}
		defer s.Cluster.Close()
		s.answerProbes()
		s.Node(1).RefuseStartup(&pgfake.Error{Severity: "FATAL", Code: codeTooMany, Message: "sorry, too many clients already"})
		s.open("failover_wait=1s")
		defer s.close()
		_, err := s.db.Exec(insert)
		s.wantError("Exec", err, ErrNoPrimary)
		if err == nil || !strings.Contains(err.Error(), "too many clients") || !SafeToRetry(err) {
			s.Errorf("Exec = %v, want that there are too many clients, and that nothing was sent", err)
		}
	})
}

func TestAWrongPasswordIsToldAtOnce(t *testing.T) {
	wrong := &pgfake.Error{Severity: "FATAL", Code: "28P01", Message: `password authentication failed for user "app"`}
	says := func(err error) bool { return connectCode(err) == "28P01" }
	t.Run("changed while the cluster is watched", func(t *testing.T) {
		play(t, 2, rare, func(s *stage) {
			for _, node := range s.Nodes() {
				node.RefuseStartup(wrong)
			}
			s.toldAtOnce(says)
		})
	})
	t.Run("from the beginning", func(t *testing.T) {
		playClosed(t, rare, func(s *stage) {
			for _, node := range s.Nodes() {
				node.RefuseStartup(wrong)
			}
		}, says)
	})
}

// What the DSN demands of a server and no server offers is told like a wrong
// password: without waiting for a primary.
func TestAServerThatCannotBeTrustedIsToldAtOnce(t *testing.T) {
	for params, text := range map[string]string{
		"sslmode=require":         "server refused TLS connection",
		"channel_binding=require": "channel binding required",
	} {
		t.Run(params, func(t *testing.T) {
			playClosed(t, rare+"&"+params, func(*stage) {}, func(err error) bool {
				return strings.HasPrefix(err.Error(), "helios: node n1:5432: ") && strings.Contains(err.Error(), text) &&
					!strings.Contains(err.Error(), "\n")
			})
		})
	}
}

// playClosed opens a cluster of two nodes, prepared by f, that nobody gets into,
// and sees that everything says why at once.
func playClosed(t *testing.T, params string, f func(s *stage), says func(error) bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{T: t, Cluster: pgfake.NewCluster(2)}
		s.Latency = trip
		defer s.Cluster.Close()
		f(s)
		s.open(params)
		defer s.close()
		s.toldAtOnce(says)
	})
}

// toldAtOnce checks that whatever is asked fails at once, with an error that
// says why and nothing of the password.
func (s *stage) toldAtOnce(says func(error) bool) {
	s.Helper()
	for what, do := range map[string]func() error{
		"write": func() error { _, err := s.db.Exec(insert); return err },
		"read":  func() error { return s.db.QueryRow(where).Scan(new(string)) },
		"ping":  func() error { return s.db.Ping() },
		"transaction": func() error {
			tx, err := s.db.Begin()
			if err != nil {
				return err
			}
			_, err = tx.Exec(insert)
			if e := tx.Rollback(); e != nil {
				s.Errorf("Rollback() = %v", e)
			}
			return err
		},
	} {
		s.within(0, what, func() {
			err := do()
			switch {
			case err == nil || !says(err) || !SafeToRetry(err):
				s.Errorf("%s = %v, want the reason, and that nothing was sent", what, err)
			case strings.Contains(err.Error(), "hush"):
				s.Errorf("the password is in the error: %v", err)
			}
		})
	}
}

func TestPostgreSQLsErrorsComeBackBare(t *testing.T) {
	violation := pgfake.Fail("23505", "duplicate key value violates unique constraint")
	for name, tt := range map[string]struct {
		fault string
		do    func(s *stage) error
	}{
		"Exec": {returning, func(s *stage) error { _, err := s.db.Exec(returning); return err }},
		"Query": {returning, func(s *stage) error {
			rows, err := s.db.Query(returning)
			if err == nil {
				rows.Close()
			}
			return err
		}},
		"QueryRow": {returning, func(s *stage) error { return s.db.QueryRow(returning).Scan(new(int)) }},
		"Stmt":     {returning, func(s *stage) error { _, err := s.prepare(returning).Exec(); return err }},
		"a deferred constraint of Exec": {"COMMIT", func(s *stage) error {
			_, err := s.db.Exec(returning)
			return err
		}},
		"a deferred constraint of QueryRow": {"COMMIT", func(s *stage) error { return s.db.QueryRow(returning).Scan(new(int)) }},
		"a deferred constraint of Commit": {"COMMIT", func(s *stage) error {
			tx, err := s.db.Begin()
			if err != nil {
				return err
			}
			s.exec(s.Context(), tx, returning)
			return tx.Commit()
		}},
		"Exec in a transaction": {returning, func(s *stage) error {
			tx, err := s.db.Begin()
			if err != nil {
				return err
			}
			defer tx.Rollback()
			s.exec(s.Context(), tx, insert)
			_, err = tx.Exec(returning)
			return err
		}},
		"the first Exec in a transaction": {returning, func(s *stage) error {
			tx, err := s.db.Begin()
			if err != nil {
				return err
			}
			defer tx.Rollback()
			_, err = tx.Exec(returning)
			return err
		}},
		"a read on a replica": {where, func(s *stage) error { return s.db.QueryRow(where).Scan(new(string)) }},
		"a pinned session": {returning, func(s *stage) error {
			conn := s.session()
			defer s.finish(conn)
			s.exec(s.Context(), conn, "SET application_name = 'mine'")
			_, err := conn.ExecContext(s.Context(), returning)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, 2, rare+"&pool_max_conns=1", func(s *stage) {
				s.Handle(returning, pgfake.Row(int64(7)))
				s.node(s.Context(), s.db)
				s.exec(s.Context(), s.db, insert)
				s.ResetLog()
				before := s.Node(1).Position().LSN
				s.Node(1).Inject(tt.fault, 1, violation)
				s.Node(2).Inject(tt.fault, 1, violation)
				s.wantCode(name, tt.do(s), "23505")
				if got := s.Node(1).Position().LSN; got != before {
					s.Errorf("something was committed")
				}
				s.exec(s.Context(), s.db, insert)
				s.node(s.Context(), s.db)
				s.wantTried(returning, map[bool]int{true: 0, false: 1}[tt.fault == where])
				for _, node := range s.Nodes() {
					if got := node.Counters().Opened; got != 0 {
						s.Errorf("%d new connections to %s: the old one was not clean", got, node.Name)
					}
				}
				s.wantHealthy()
			})
		})
	}
}

func TestAFailedTransactionCannotBeCommitted(t *testing.T) {
	play(t, 1, rare, func(s *stage) {
		tx, err := s.db.Begin()
		if err != nil {
			s.Fatal(err)
		}
		s.exec(s.Context(), tx, insert)
		s.Node(1).Inject("UPDATE*", 1, pgfake.Fail("23505", "duplicate"))
		if _, err := tx.Exec("UPDATE t SET v = 1"); err == nil {
			s.Error("no error")
		}
		_, err = tx.Exec(insert)
		s.wantCode("Exec in a failed transaction", err, "25P02")
		if err := tx.Commit(); err == nil {
			s.Error("a failed transaction was committed")
		}
		s.exec(s.Context(), s.db, insert)
	})
}

func TestADeadIdleConnectionIsNotUsed(t *testing.T) {
	for name, end := range map[string]func(n *pgfake.Node){
		"terminated": (*pgfake.Node).Terminate, "reset": (*pgfake.Node).Reset,
	} {
		t.Run(name, func(t *testing.T) {
			play(t, 2, rare+"&retry=off", func(s *stage) {
				s.exec(s.Context(), s.db, insert)
				s.node(s.Context(), s.db)
				for _, node := range s.Nodes() {
					end(node)
				}
				time.Sleep(trip)
				s.exec(s.Context(), s.db, insert)
				s.node(s.Context(), s.db)
				s.wantTried(insert, 2)
			})
		})
	}
}

func TestANodeThatDoesNotAnswerAtAllIsPassedOver(t *testing.T) {
	for name, fail := range map[string]func(n *pgfake.Node){
		"killed": (*pgfake.Node).Kill, "shut down": (*pgfake.Node).Shutdown, "refuses": func(n *pgfake.Node) { n.Refuse(); n.Reset() },
	} {
		t.Run(name, func(t *testing.T) {
			play(t, 3, rare, func(s *stage) {
				for range 4 {
					s.node(s.Context(), s.db)
				}
				fail(s.Node(2))
				for range 10 {
					if got := s.node(s.Context(), s.db); got != "n3" {
						s.Errorf("the read was answered by %s, want n3", got)
					}
				}
			})
		})
	}
}

func TestTheLossOfATransactionsFirstStatementIsNoUnknownOutcome(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		tx, err := s.db.Begin()
		if err != nil {
			s.Fatal(err)
		}
		s.Node(1).Inject(insert, 1, cut)
		_, err = tx.Exec(insert)
		s.wantError("Exec", err, ErrNotCommitted)
		if errors.Is(err, ErrOutcomeUnknown) || !SafeToRetry(err) {
			s.Errorf("%v: nothing was committed, want it to be safe to retry", err)
		}
		if _, err := tx.Exec(insert); err == nil {
			s.Error("the transaction went on without its first statement")
		}
		s.wantError("Commit", tx.Commit(), ErrNotCommitted)
		s.wantTried(insert, 1)
	})
}

func TestAStatementThatBeginsATransactionInVainDoesNotLetItGoOn(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		ctx, cancel := context.WithTimeout(s.Context(), 300*time.Millisecond)
		defer cancel()
		tx, err := s.db.Begin()
		if err != nil {
			s.Fatal(err)
		}
		s.Node(1).Inject("UPDATE*", 1, pgfake.Fault{Hang: true})
		_, err = tx.ExecContext(ctx, "UPDATE t SET v = 1")
		s.wantError("Exec", err, context.DeadlineExceeded)
		if _, err := tx.Exec(insert); err == nil {
			s.Error("the transaction went on without its first statement")
		}
		if err := tx.Commit(); err == nil {
			s.Error("the transaction was committed without its first statement")
		}
		time.Sleep(time.Second) // the pool cancels what hangs
		s.wantExecuted(insert)
	})
}

func TestAFailedBeginDoesNotStrandTheStatementsBehindIt(t *testing.T) {
	for _, text := range []string{insert, insert + "; " + insert} {
		t.Run(text, func(t *testing.T) {
			play(t, 1, rare, func(s *stage) {
				ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
				defer cancel()
				s.Node(1).Inject("BEGIN", 1, pgfake.Fail("53200", "out of memory"))
				tx, err := s.db.BeginTx(ctx, nil)
				if err != nil {
					s.Fatal(err)
				}
				_, err = tx.ExecContext(ctx, text)
				s.wantCode("Exec", err, "53200")
				if err := tx.Rollback(); err != nil {
					s.Error(err)
				}
				if text == insert {
					s.wantExecuted(insert)
				}
				s.exec(ctx, s.db, insert)
			})
		})
	}
}

func TestASessionThatIsReadOnlyByItsOwnWishCastsNoDoubt(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		conn, other := s.session(), s.session()
		for range 2 {
			s.exec(s.Context(), conn, insert)
			s.exec(s.Context(), other, insert)
		}
		s.exec(s.Context(), conn, "SET default_transaction_read_only = off")
		s.exec(s.Context(), other, insert)
		s.finish(other)
		for _, value := range []string{"on", "off", "on"} {
			s.exec(s.Context(), conn, "SET default_transaction_read_only = "+value)
			s.costs(1, "a write of another session", func() { s.exec(s.Context(), s.db, insert) })
		}
		_, err := conn.ExecContext(s.Context(), insert)
		s.wantCode("a write of the session itself", err, codeReadOnly)
		s.costs(1, "a write of another session", func() { s.exec(s.Context(), s.db, insert) })
		s.finish(conn)
		if got := s.cluster.Stats().Waits; got != 0 {
			s.Errorf("%d statements waited for a primary", got)
		}
	})
}

func TestWhatWasOnlyPreparedWasNotExecuted(t *testing.T) {
	hang := pgfake.Fault{AtParse: true, Hang: true}
	t.Run("connection lost", func(t *testing.T) {
		play(t, 1, rare, func(s *stage) {
			s.Node(1).Inject(insert, 1, hang)
			timer := time.AfterFunc(time.Second, s.Node(1).Reset)
			defer timer.Stop()
			s.exec(s.Context(), s.db, insert)
			s.wantExecuted(insert, "n1")
		})
	})
	t.Run("deadline", func(t *testing.T) {
		play(t, 1, rare, func(s *stage) {
			s.Node(1).Inject(insert, 1, hang)
			ctx, cancel := context.WithTimeout(s.Context(), time.Second)
			defer cancel()
			s.within(time.Second, "Exec", func() {
				_, err := s.db.ExecContext(ctx, insert)
				s.wantError("Exec", err, context.DeadlineExceeded)
				if errors.Is(err, ErrOutcomeUnknown) || !SafeToRetry(err) {
					s.Errorf("%v: nothing was executed, want it to be safe to retry", err)
				}
			})
			time.Sleep(time.Second)
			s.exec(s.Context(), s.db, insert)
			s.wantExecuted(insert, "n1")
		})
	})
}
