package helios

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/internal/pgfake"
	"github.com/heliosdb/helios/router"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

// primary returns what the driver takes for the primary, by the name of the
// scripted node.
func (s *stage) primary() string {
	name, _, _ := strings.Cut(s.cluster.Status().Primary, ":")
	return name
}

func TestAPromotionIsNoticed(t *testing.T) {
	for name, tt := range map[string]struct {
		params string
		notice func(s *stage)
	}{
		"by a probe": {"", func(*stage) { time.Sleep(1500 * time.Millisecond) }},
		"by a refused write": {rare, func(s *stage) {
			s.exec(s.Context(), s.db, insert)
		}},
		"by what a read's answer reports": {rare, func(s *stage) {
			s.node(Node(s.Context(), "n2"), s.db)
			time.Sleep(200 * time.Millisecond)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, 3, tt.params, func(s *stage) {
				s.exec(s.Context(), s.db, insert)
				s.node(Node(s.Context(), "n2"), s.db)
				s.Promote(s.Node(2))
				s.Node(1).Follow(s.Node(2))
				tt.notice(s)
				if got := s.primary(); got != "n2" {
					s.Fatalf("the primary is %q, want n2", got)
				}
				s.exec(s.Context(), s.db, insert)
				if got := s.executed(insert); got[len(got)-1] != "n2" {
					s.Errorf("the write after the promotion went to %v, want n2", got)
				}
			})
		})
	}
}

func TestAWriteThatAFencedPrimaryRefusesRunsOnTheNextOne(t *testing.T) {
	for _, version := range []string{"15.18", "13.16"} {
		for name, write := range map[string]func(s *stage){
			"alone":       func(s *stage) { s.exec(s.Context(), s.db, insert) },
			"of a text":   func(s *stage) { s.exec(s.Context(), s.db, insert+"; "+insert) },
			"transaction": func(s *stage) { s.transact(insert) },
		} {
			t.Run(version+" "+name, func(t *testing.T) {
				playOn(t, version, 2, rare, func(s *stage) {
					s.exec(s.Context(), s.db, insert)
					s.Node(1).SetReadOnly(true)
					timer := time.AfterFunc(2*time.Second, func() { s.Promote(s.Node(2)) })
					defer timer.Stop()
					begun := time.Now()
					write(s)
					if took := time.Since(begun); took < 2*time.Second || took > 2500*time.Millisecond {
						s.Errorf("the write took %v, want little more than 2s", took)
					}
					if got := s.executed(insert); len(got) < 2 || got[0] != "n1" || got[1] != "n2" {
						s.Errorf("the writes ran on %v, want n1 and then n2", got)
					}
				})
			})
		}
	}
}

// transact executes sql in a transaction of its own.
func (s *stage) transact(sql string) {
	s.Helper()
	tx, err := s.db.BeginTx(s.Context(), nil)
	if err != nil {
		s.Fatal(err)
	}
	s.exec(s.Context(), tx, sql)
	if err := tx.Commit(); err != nil {
		s.Errorf("Commit() = %v", err)
	}
}

// What a program's own transaction forbids is the program's to hear, whether
// or not the server reports its role.
func TestAWriteThatItsOwnTransactionForbidsIsRefusedAtOnce(t *testing.T) {
	for _, version := range []string{"15.18", "13.16"} {
		t.Run(version, func(t *testing.T) {
			playOn(t, version, 2, rare, func(s *stage) {
				for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelSerializable} {
					tx, err := s.db.BeginTx(s.Context(), &sql.TxOptions{ReadOnly: true, Isolation: level})
					if err != nil {
						s.Fatal(err)
					}
					begun := time.Now()
					if _, err := tx.Exec(insert); connectCode(err) != codeReadOnly {
						s.Errorf("Exec = %v, want %s", err, codeReadOnly)
					}
					if took := time.Since(begun); took > 3*trip { // described, executed, its reason asked for
						s.Errorf("the write took %v, want %v at most", took, 3*trip)
					}
					if _, err := tx.Exec("SELECT 1"); connectCode(err) != "25P02" {
						s.Errorf("the next statement of the transaction = %v, want 25P02", err)
					}
					if err := tx.Rollback(); err != nil {
						s.Errorf("Rollback() = %v", err)
					}
				}
				s.wantHealthy()
			})
		})
	}
}

func TestAFenceThatIsLiftedLetsWritesGoOn(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		s.Node(1).SetReadOnly(true)
		timer := time.AfterFunc(2*time.Second, func() { s.Node(1).SetReadOnly(false) })
		defer timer.Stop()
		s.exec(s.Context(), s.db, insert)
		s.wantExecuted(insert, "n1", "n1")
		s.within(trip, "the next write", func() { s.exec(s.Context(), s.db, insert) })
	})
}

func TestWritesWaitForAPrimaryAsLongAsFailoverWaitSays(t *testing.T) {
	for _, wait := range []time.Duration{0, 3 * time.Second, 10 * time.Second} {
		t.Run(wait.String(), func(t *testing.T) {
			play(t, 2, "failover_wait="+wait.String(), func(s *stage) {
				s.exec(s.Context(), s.db, insert)
				s.Node(1).Kill()
				time.Sleep(3 * time.Second)
				s.within(wait, "the write", func() {
					_, err := s.db.Exec(insert)
					s.wantError("Exec", err, ErrNoPrimary)
					if !SafeToRetry(err) {
						s.Errorf("SafeToRetry(%v) = false", err)
					}
				})
				s.within(wait, "the transaction", func() {
					tx, err := s.db.Begin()
					if err != nil {
						s.Fatal(err)
					}
					_, err = tx.Exec(insert)
					s.wantError("Exec", err, ErrNoPrimary)
					if err := tx.Rollback(); err != nil {
						s.Error(err)
					}
				})
				s.wantTried(insert, 1)
				if got := s.node(s.Context(), s.db); got != "n2" {
					s.Errorf("without a primary a read went to %s, want n2", got)
				}
			})
		})
	}
}

// Only a primary can tell how far a write reached whose position is not known. A
// read waits for one if that write was acknowledged, and else does without it.
func TestWithoutAPrimaryReadsWaitOnlyForWhatWasAcknowledged(t *testing.T) {
	lost := func(s *stage) {
		s.Node(1).Inject("COMMIT", 1, cut)
		_, err := s.db.Exec("UPDATE t SET v = 1")
		s.wantError("Exec", err, ErrOutcomeUnknown)
	}
	abandoned := func(s *stage) {
		tx, err := s.db.Begin()
		if err != nil {
			s.Fatal(err)
		}
		s.exec(s.Context(), tx, insert)
		s.Node(1).Inject("COMMIT", 1, cut)
		s.wantError("Commit", tx.Commit(), ErrOutcomeUnknown)
	}
	for name, tt := range map[string]struct {
		params string
		write  func(s *stage)
		waits  bool
	}{
		"its outcome is unknown":                   {"", lost, false},
		"its transaction's outcome is unknown":     {"", abandoned, false},
		"it was acknowledged without its position": {"&lsn=lazy", func(s *stage) { s.exec(s.Context(), s.db, insert) }, true},
		"one of each": {"&lsn=lazy", func(s *stage) {
			s.exec(s.Context(), s.db, insert)
			s.Node(1).Inject("UPDATE*", 1, cut)
			_, err := s.db.Exec("UPDATE t SET v = 1")
			s.wantError("Exec", err, ErrOutcomeUnknown)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, 2, "resolve=off&failover_wait=2s"+tt.params, func(s *stage) {
				s.exec(s.Context(), s.db, "UPDATE t SET v = 0")
				s.node(s.Context(), s.db) // learns what lsn=lazy leaves open
				tt.write(s)
				s.Node(1).Kill()
				time.Sleep(3 * time.Second)
				if !tt.waits {
					if got := s.node(s.Context(), s.db); got != "n2" {
						s.Errorf("the read went to %s, want n2", got)
					}
					return
				}
				s.within(2*time.Second, "the read", func() {
					s.wantError("QueryRow", s.db.QueryRow(where).Scan(new(string)), ErrNoPrimary)
				})
			})
		})
	}
}

// Nobody probes a node that was removed, and nobody would cut what it leaves
// unanswered.
func TestTheRemovalOfASilentReplicaWaitsForNobody(t *testing.T) {
	play(t, 3, "", func(s *stage) {
		s.node(Node(s.Context(), "n2"), s.db)
		s.Node(2).Inject(where, 0, pgfake.Fault{Hang: true})
		s.Node(3).Inject(where, 0, pgfake.Fault{Delay: trip})
		reads := make(chan error, 8)
		for range cap(reads) {
			go func() { reads <- s.db.QueryRow(where).Scan(new(string)) }()
		}
		time.Sleep(trip / 2)
		s.Node(2).BlackHole()
		for s.cluster.Status().Nodes[1].State != "down" {
			time.Sleep(10 * time.Millisecond)
		}
		begun := time.Now()
		if err := s.cluster.RemoveReplica(s.Context(), "n2"); err != nil {
			s.Error(err)
		}
		for range cap(reads) {
			if err := <-reads; err != nil {
				s.Errorf("a read that was under way = %v", err)
			}
		}
		if took := time.Since(begun); took > 10*trip {
			s.Errorf("the removal took %v", took)
		}
	})
}

// When no node answers probes statements try all the same. One that is left
// without a word for long is given up, however often the node was fenced before.
func TestAStatementOnANodeThatIsDownIsNotLeftWaiting(t *testing.T) {
	for name, do := range map[string]func(s *stage) error{
		"a write": func(s *stage) error { _, err := s.db.Exec(insert); return err },
		"a read":  func(s *stage) error { return s.db.QueryRow(where).Scan(new(string)) },
		"a held session": func(s *stage) error {
			conn := s.session()
			defer s.finish(conn)
			s.exec(s.Context(), conn, "SET application_name = 'mine'")
			_, err := conn.ExecContext(s.Context(), insert)
			return err
		},
		"a transaction": func(s *stage) error {
			tx, err := s.db.Begin()
			if err != nil {
				return err
			}
			defer tx.Rollback()
			_, err = tx.Exec(insert)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, 1, "failover_wait=1s", func(s *stage) {
				const probe = "SELECT pg_catalog.pg_is_in_recovery(), CASE WHEN NOT*"
				answerProbes := s.Node(1).Inject(probe, 0, pgfake.Fault{Hang: true})
				defer s.Node(1).Reset() // what hangs there notices no end
				defer answerProbes()
				time.Sleep(5 * time.Second)
				s.exec(s.Context(), s.db, insert)
				s.Node(1).Inject("UPDATE*", 1, pgfake.Fault{Delay: 4 * time.Second})
				s.exec(s.Context(), s.db, "UPDATE t SET v = 1") // slow, and not cut
				begun := time.Now()
				s.Node(1).Inject(insert, 1, pgfake.Fault{Hang: true})
				s.Node(1).Inject(where, 0, pgfake.Fault{Hang: true})
				if err := do(s); err == nil {
					s.Errorf("%s was answered", name)
				}
				if took := time.Since(begun); took > time.Minute {
					s.Errorf("%s took %v", name, took)
				}
			})
		})
	}
}

func TestAReplicaThatCameBackIsGivenReadsLittleByLittle(t *testing.T) {
	play(t, 3, "", func(s *stage) {
		s.Node(2).Kill()
		time.Sleep(3 * time.Second)
		s.Node(2).Start()
		time.Sleep(2 * time.Second) // a probe
		share := func() int {
			n := 0
			for range 100 { // two seconds
				if s.node(s.Context(), s.db) == "n2" {
					n++
				}
			}
			return n
		}
		early := share()
		time.Sleep(router.SlowStart)
		late := share()
		if early == 0 || early > 25 || late < 35 {
			s.Errorf("of 100 reads n2 answered %d soon after its return and %d later, want few and about half", early, late)
		}
	})
}

func TestAnErrorSaysOnceAndOnOneLineWhatIsWrong(t *testing.T) {
	play(t, 1, "failover_wait=1s", func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		s.Node(1).Kill()
		time.Sleep(5 * time.Second)
		_, err := s.db.Exec(insert)
		s.wantError("Exec", err, ErrNoPrimary)
		text := err.Error()
		for _, once := range []string{"helios: ", "node n1:5432: ", "connection refused"} {
			if n := strings.Count(text, once); n != 1 {
				s.Errorf("%q says %q %d times", text, once, n)
			}
		}
		if strings.ContainsAny(text, "\n\t") {
			s.Errorf("%q has more than a line", text)
		}
	})
}

func TestTheContextEndsTheWaitForAPrimary(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		s.Node(1).Kill()
		time.Sleep(3 * time.Second)
		ctx, cancel := context.WithTimeout(s.Context(), 700*time.Millisecond)
		defer cancel()
		s.within(700*time.Millisecond, "the write", func() {
			_, err := s.db.ExecContext(ctx, insert)
			s.wantError("Exec", err, context.DeadlineExceeded)
			s.wantError("Exec", err, ErrNoPrimary)
			if !SafeToRetry(err) || errors.Is(err, ErrOutcomeUnknown) {
				s.Errorf("%v: nothing was sent", err)
			}
		})
	})
}

func TestWritesGoOnAfterAFailover(t *testing.T) {
	play(t, 3, "", func(s *stage) {
		var clients sync.WaitGroup
		var mu sync.Mutex
		var failed []error
		ok := 0
		for range 8 {
			clients.Go(func() {
				for range 200 {
					_, err := s.db.Exec(insert)
					mu.Lock()
					if err == nil {
						ok++
					} else {
						failed = append(failed, err)
					}
					mu.Unlock()
					time.Sleep(20 * time.Millisecond)
				}
			})
		}
		time.Sleep(2 * time.Second)
		s.Node(1).Kill()
		time.Sleep(300 * time.Millisecond)
		s.Promote(s.Node(2))
		clients.Wait()
		for _, err := range failed {
			if !errors.Is(err, ErrOutcomeUnknown) {
				s.Errorf("a write failed with %v, want that its outcome is unknown", err)
			}
		}
		if len(failed) > 8 {
			s.Errorf("%d writes failed, want one for each client at most", len(failed))
		}
		if got := len(s.executed(insert)); got < ok || got > ok+len(failed) {
			s.Errorf("%d writes were executed, %d acknowledged and %d unknown", got, ok, len(failed))
		}
	})
}

func TestAnOldPrimaryThatComesBackGetsNothing(t *testing.T) {
	play(t, 3, "", func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		s.Node(1).Kill()
		time.Sleep(2 * time.Second)
		s.Promote(s.Node(2))
		time.Sleep(2 * time.Second)
		s.exec(s.Context(), s.db, insert)
		s.Node(1).Start() // on its old timeline, and it takes writes
		time.Sleep(3 * time.Second)
		s.ResetLog()
		for range 20 {
			s.exec(s.Context(), s.db, insert)
			s.node(s.Context(), s.db)
		}
		for _, e := range s.Node(1).Log() {
			if !isProbe(e.SQL) {
				s.Errorf("the old primary was sent %s", e.SQL)
			}
		}
		status := s.cluster.Status().Nodes[0]
		if status.Healthy || status.State != "refused" || !strings.Contains(status.Reason, "timeline 1") {
			s.Errorf("the old primary is %s (%s), want refused for its timeline", status.State, status.Reason)
		}
		s.Node(1).Follow(s.Node(2))
		time.Sleep(3 * time.Second)
		if got := s.node(Node(s.Context(), "n1"), s.db); got != "n1" {
			s.Errorf("after it follows the new primary %s answers, want n1", got)
		}
	})
}

func TestTwoPrimariesOnOneTimelineTakeNoWrites(t *testing.T) {
	play(t, 3, "failover_wait=2s", func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		s.HandleQuery(func(q pgfake.Query) (pgfake.Reply, bool) { // n2 is a copy of n1 that somebody started
			if q.Node.Name != "n2" || !isProbe(q.SQL) {
				return pgfake.Reply{}, false
			}
			at := s.Node(1).Position()
			return pgfake.Row(false, "00000001", at.LSN, nil, nil, nil, 16<<20, "read committed", "off", "150018", nil, false, nil,
				int(s.SystemID), 0, "0/0", 1, "0/28"), true
		})
		time.Sleep(3 * time.Second)
		s.ResetLog()
		s.within(2*time.Second, "the write", func() {
			_, err := s.db.Exec(insert)
			s.wantError("Exec", err, ErrSplitBrain)
			if !SafeToRetry(err) {
				s.Errorf("SafeToRetry(%v) = false", err)
			}
		})
		s.wantTried(insert, 0)
		if !s.cluster.Status().Split {
			s.Error("the status does not say so")
		}
		if got := one[string](s, s.Context(), s.db, where, AtLevel(Eventual)); got != "n3" {
			s.Errorf("a read went to %s, want n3", got)
		}
	})
}

func TestAHangOfThePrimaryEndsWhatIsUnderWay(t *testing.T) {
	for name, hang := range map[string]func(n *pgfake.Node){
		"network": (*pgfake.Node).BlackHole, "process": (*pgfake.Node).Hang,
	} {
		t.Run(name, func(t *testing.T) {
			play(t, 3, "", func(s *stage) {
				s.exec(s.Context(), s.db, insert)
				s.Node(1).Inject("UPDATE*", 1, pgfake.Fault{Delay: 500 * time.Millisecond})
				timer := time.AfterFunc(300*time.Millisecond, func() { hang(s.Node(1)) })
				defer timer.Stop()
				promotion := time.AfterFunc(1500*time.Millisecond, func() { s.Promote(s.Node(2)) })
				defer promotion.Stop()
				begun := time.Now()
				_, err := s.db.Exec("UPDATE t SET v = 1")
				s.wantError("the write under way", err, ErrOutcomeUnknown)
				if took := time.Since(begun); took > 5*time.Second {
					s.Errorf("it ended after %v", took)
				}
				begun = time.Now()
				s.exec(s.Context(), s.db, insert)
				if took := time.Since(begun); took > time.Second {
					s.Errorf("the next write took %v", took)
				}
				s.wantTried("UPDATE t SET v = 1", 1)
				if got := s.executed(insert); got[len(got)-1] != "n2" {
					s.Errorf("it was executed on %v, want n2", got)
				}
				for range 10 {
					if got := s.node(s.Context(), s.db); got == "n1" {
						s.Error("a read went to the silent node")
					}
				}
				s.Node(1).Resume() // it hears of what was closed
			})
		})
	}
}

func TestAHungReplicaDelaysReadsOnceAtMost(t *testing.T) {
	play(t, 3, "", func(s *stage) {
		for range 10 {
			s.node(s.Context(), s.db)
		}
		s.Node(2).BlackHole()
		begun := time.Now()
		for range 50 {
			if got := s.node(s.Context(), s.db); got == "n2" {
				s.Error("the silent node has answered")
			}
		}
		if took := time.Since(begun); took > 5*time.Second {
			s.Errorf("50 reads took %v", took)
		}
	})
}

func TestATransactionOnALostPrimarySurelyDidNotCommit(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		tx, err := s.db.Begin()
		if err != nil {
			s.Fatal(err)
		}
		s.exec(s.Context(), tx, insert)
		s.Node(1).Kill()
		s.Promote(s.Node(2))
		_, err = tx.Exec(insert)
		s.wantError("Exec", err, ErrSessionLost)
		s.wantError("Commit", tx.Commit(), ErrNotCommitted)
		s.exec(s.Context(), s.db, insert)
		s.wantExecuted(insert, "n1", "n2")
	})
}

func TestThePromotedNodesConnectionsAreKept(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		s.node(s.Context(), s.db)
		s.exec(s.Context(), s.db, insert)
		s.node(s.Context(), s.db)
		s.ResetLog()
		s.Node(1).Kill()
		s.Promote(s.Node(2))
		s.exec(s.Context(), s.db, insert)
		s.wantExecuted(insert, "n2")
		if got := s.Node(2).Counters().Opened; got != 0 {
			s.Errorf("%d new connections to the promoted node, want none", got)
		}
	})
}

func TestClosingEndsEverything(t *testing.T) {
	play(t, 3, "", func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		s.node(s.Context(), s.db)
		conn := s.session()
		s.exec(s.Context(), conn, "SET application_name = 'mine'")
		rows, err := s.db.Query(where)
		if err != nil {
			s.Fatal(err)
		}
		s.Node(1).Inject("UPDATE*", 1, pgfake.Fault{Delay: 5 * time.Second})
		under := make(chan error, 2)
		go func() {
			_, err := s.db.Exec("UPDATE t SET v = 1")
			under <- err
		}()
		time.Sleep(time.Second)
		s.within(0, "Close", func() {
			if err := s.db.Close(); err != nil {
				s.Errorf("Close() = %v", err)
			}
		})
		s.wantError("what was under way", <-under, ErrOutcomeUnknown)
		rows.Close()
		if _, err := conn.ExecContext(s.Context(), insert); err == nil {
			s.Error("a session outlived its *sql.DB")
		}
		conn.Close()
		if _, err := s.db.Exec(insert); err == nil {
			s.Error("a closed *sql.DB executes")
		}
		if _, err := s.cluster.Explain(s.Context(), where); !errors.Is(err, ErrClosed) {
			s.Errorf("Explain after Close = %v, want ErrClosed", err)
		}
		if err := s.cluster.Close(); err != nil {
			s.Errorf("the second Close() = %v", err)
		}
		time.Sleep(5 * time.Second) // the server notices when it answers
		synctest.Wait()
		for _, node := range s.Nodes() {
			if open := node.Counters().Open; open != 0 {
				s.Errorf("%s has %d open connections", node.Name, open)
			}
		}
	})
}

func TestClosingEndsWaits(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		s.Node(1).Kill()
		time.Sleep(3 * time.Second)
		waiting := make(chan error, 1)
		go func() {
			_, err := s.db.Exec(insert)
			waiting <- err
		}()
		time.Sleep(time.Second)
		s.within(0, "Close", func() { s.db.Close() })
		s.wantError("the write that waited", <-waiting, ErrClosed)
	})
}

func TestReplicasComeAndGoWhileReadsRun(t *testing.T) {
	play(t, 3, "", func(s *stage) {
		if err := s.cluster.RemoveReplica(s.Context(), "n1"); err == nil {
			s.Error("the primary was removed")
		}
		s.Node(2).Inject(where, 1, pgfake.Fault{Delay: time.Second})
		slow := make(chan string, 1)
		go func() { slow <- s.node(Node(s.Context(), "n2"), s.db) }()
		time.Sleep(100 * time.Millisecond)
		if err := s.cluster.RemoveReplica(s.Context(), "n2"); err != nil {
			s.Errorf("RemoveReplica() = %v", err)
		}
		if got := <-slow; got != "n2" {
			s.Errorf("the read under way was answered by %s, want n2", got)
		}
		time.Sleep(trip)
		if open := s.Node(2).Counters().Open; open != 0 {
			s.Errorf("%d connections to the removed node", open)
		}
		for range 10 {
			if got := s.node(s.Context(), s.db); got != "n3" {
				s.Errorf("a read went to %s, want n3", got)
			}
		}
		if err := s.cluster.AddReplica(s.Context(), "n2"); err != nil {
			s.Fatalf("AddReplica() = %v", err)
		}
		if err := s.cluster.AddReplica(s.Context(), "n2:5432"); err == nil {
			s.Error("a node was added twice")
		}
		time.Sleep(time.Minute)
		seen := map[string]bool{}
		for range 40 {
			seen[s.node(s.Context(), s.db)] = true
		}
		if !seen["n2"] || !seen["n3"] || seen["n1"] {
			s.Errorf("reads went to %v, want n2 and n3", seen)
		}
	})
}

func TestAllNodesSilentAreStillTried(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		for _, node := range s.Nodes() {
			node.Kill()
		}
		time.Sleep(5 * time.Second)
		timer := time.AfterFunc(2*time.Second, func() {
			for _, node := range s.Nodes() {
				node.Start()
			}
		})
		defer timer.Stop()
		begun := time.Now()
		s.exec(s.Context(), s.db, insert)
		if took := time.Since(begun); took > 3*time.Second {
			s.Errorf("the write took %v after an outage that ended 2s after its begin", took)
		}
		if got := s.node(s.Context(), s.db); got == "" {
			s.Error("no read")
		}
	})
}

func TestReplicaForReadHonoursTheStrategy(t *testing.T) {
	play(t, 3, rare, func(s *stage) {
		seen := map[string]int{}
		for range 10 {
			name, err := s.cluster.ReplicaForRead(s.Context(), router.RoundRobin)
			if err != nil {
				s.Fatal(err)
			}
			seen[name]++
		}
		if seen["n2:5432"] != 5 || seen["n3:5432"] != 5 {
			s.Errorf("reads would go to %v, want both replicas in turn", seen)
		}
	})
}

func TestChoosingANodeAllocatesNothing(t *testing.T) {
	cfg := DefaultConfig()
	for i := range 129 {
		cfg.Hosts = append(cfg.Hosts, Host{fmt.Sprintf("n%d", i), 5432})
	}
	c, err := newCluster(cfg, extras{log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	now := time.Now()
	for i, host := range cfg.Hosts {
		o := topology.Observation{Node: host.String(), At: now, SystemID: 7, Timeline: 1, Role: topology.RoleReplica, ReplayLSN: 100}
		if i == 0 {
			o.Role, o.CurrentLSN, o.ReplayLSN = topology.RolePrimary, 100, 0
		}
		c.board.Observe(o)
	}
	s := &Conn{cluster: c}
	c.whole.Advance(Token{SystemID: 7, Timeline: 1, LSN: 90})
	var read, write query
	err = s.newQuery(t.Context(), &read, where, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = s.newQuery(t.Context(), &write, insert, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := c.routes.Load()
	for name, f := range map[string]func(){
		"a read":    func() { _, _ = c.decide(r, &read, &tries{}) },
		"a write":   func() { _, _ = c.decide(r, &write, &tries{}) },
		"a session": func() { c.whole.wants(r.view) },
	} {
		if got := testing.AllocsPerRun(100, f); got != 0 {
			t.Errorf("%s: %v allocations, want none", name, got)
		}
	}
	if p, err := c.decide(r, &read, &tries{}); err != nil || !p.replica || len(r.replicas) != 128 {
		t.Errorf("decide = %+v, %v among %d replicas", p, err, len(r.replicas))
	}
}

func TestAFencedPrimaryStillAnswersReads(t *testing.T) {
	play(t, 1, "", func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		one[int64](s, s.Context(), s.db, visible)
		s.Node(1).SetReadOnly(true)
		time.Sleep(2 * time.Second)
		s.within(trip, "the read", func() {
			if got := wal.LSN(one[int64](s, s.Context(), s.db, visible)); got < s.cluster.Token().LSN {
				s.Errorf("the read saw %v", got)
			}
		})
		_, err := s.db.Exec(insert)
		s.wantError("a write", err, ErrNoPrimary)
	})
}

func TestASessionOnADeposedPrimaryIsLost(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		conn := s.session()
		s.exec(s.Context(), conn, "SET application_name = 'mine'")
		tx, err := s.db.Begin()
		if err != nil {
			s.Fatal(err)
		}
		s.exec(s.Context(), tx, insert)
		s.Promote(s.Node(2)) // and n1 goes on
		time.Sleep(3 * time.Second)
		_, err = conn.ExecContext(s.Context(), insert)
		s.wantError("a write of the pinned session", err, ErrSessionLost)
		s.wantError("Commit", tx.Commit(), ErrNotCommitted)
		s.finish(conn)
		before := s.Node(1).Position().LSN
		s.exec(s.Context(), s.db, insert)
		if got := s.Node(1).Position().LSN; got != before {
			s.Error("the deposed primary was written to")
		}
	})
}

func TestTheFirstStatementWaitsForNodesThatDoNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{T: t, Cluster: pgfake.NewCluster(3)}
		s.Latency = trip
		defer s.Cluster.Close()
		s.answerProbes()
		s.answerReads()
		s.Node(3).BlackHole() // it may be a newer primary
		s.open("probe_timeout=400ms")
		defer s.close()
		begun := time.Now()
		s.exec(s.Context(), s.db, insert)
		if took := time.Since(begun); took < 300*time.Millisecond || took > 500*time.Millisecond {
			s.Errorf("the first write took %v, want what is left of probe_timeout", took)
		}
		s.costs(1, "the next write", func() { s.exec(s.Context(), s.db, insert) })
	})
}
