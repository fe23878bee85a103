package helios

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/internal/pgfake"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

func TestReadGoesOnlyWhereTheWriteIsVisible(t *testing.T) {
	for name, tt := range map[string]struct {
		stale []int // numbers of the replicas that stand still
		want  []string
	}{
		"every replica is fresh":    {nil, []string{"n2", "n3"}},
		"only n3 is fresh":          {[]int{2}, []string{"n3"}},
		"only n2 is fresh":          {[]int{3}, []string{"n2"}},
		"only the primary is fresh": {[]int{2, 3}, []string{"n1"}},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, 3, rare, func(s *stage) {
				for _, i := range tt.stale {
					s.Node(i).StopReplay()
				}
				s.exec(s.Context(), s.db, insert)
				for range 20 {
					if got := s.node(s.Context(), s.db); !slices.Contains(tt.want, got) {
						s.Fatalf("a read after the write was answered by %s, want one of %v", got, tt.want)
					}
				}
			})
		})
	}
}

func TestAStaleAnswerIsNeverHandedOut(t *testing.T) {
	for _, params := range []string{
		"lsn=eager", "lsn=lazy", "balance=round_robin", "balance=latency", "balance=random", "lsn=lazy&balance=round_robin&pool_max_conns=2",
	} {
		for _, how := range []string{"Exec", "Tx", "Conn"} {
			t.Run(params+" "+how, func(t *testing.T) {
				play(t, 3, params, func(s *stage) {
					s.Node(2).FollowAfter(35 * time.Millisecond)
					s.Node(3).FollowAfter(90 * time.Millisecond)
					var clients sync.WaitGroup
					for range 6 {
						clients.Go(func() { s.readWhatIsWritten(how) })
					}
					clients.Wait()
					if stats := s.cluster.Stats(); stats.Reads["n2:5432"]+stats.Reads["n3:5432"] == 0 {
						s.Error("no replica was ever read: nothing was tested")
					}
				})
			})
		}
	}
}

// readWhatIsWritten writes in one of several ways, and reads in a session of
// its own what it has written.
func (s *stage) readWhatIsWritten(how string) {
	ctx := WithSession(s.Context(), NewSession())
	conn := s.session()
	defer conn.Close()
	for range 15 {
		before := s.Node(1).Position().LSN
		switch how {
		case "Exec":
			s.exec(ctx, s.db, insert)
		case "Conn":
			s.exec(ctx, conn, insert)
		case "Tx":
			tx, err := s.db.BeginTx(ctx, nil)
			if err != nil {
				s.Error(err)
				return
			}
			s.exec(s.Context(), tx, insert)
			if err := tx.Commit(); err != nil {
				s.Error(err)
			}
		}
		for range 3 {
			if got := wal.LSN(one[int64](s, ctx, s.db, visible)); got <= before {
				s.Errorf("a read saw %v, its session has written behind %v", got, before)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestReadsComeBackToAReplicaThatCaughtUp(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		s.Node(2).StopReplay()
		s.exec(s.Context(), s.db, insert)
		if got := s.node(s.Context(), s.db); got != "n1" {
			s.Errorf("while n2 is behind %s answers, want n1", got)
		}
		s.Node(2).FollowImmediately()
		time.Sleep(2 * spareLongest)
		if got := s.node(s.Context(), s.db); got != "n2" {
			s.Errorf("after n2 caught up %s answers, want n2", got)
		}
	})
}

// Whoever has proved a position is asked plainly from then on. The others come
// back by what they tell the prober: there may be no further write to prove.
func TestReadsAreSharedAgainWithAReplicaThatCaughtUp(t *testing.T) {
	play(t, 3, "", func(s *stage) {
		s.Node(2).StopReplay()
		s.exec(s.Context(), s.db, insert)
		for range 10 {
			if got := s.node(s.Context(), s.db); got != "n3" {
				s.Errorf("while n2 is behind %s answers, want n3", got)
			}
		}
		s.Node(2).FollowImmediately()
		time.Sleep(2 * time.Second) // a probe
		answers := map[string]int{}
		for range 100 {
			answers[s.node(s.Context(), s.db)]++
		}
		if answers["n2"] < 20 || answers["n3"] < 20 {
			s.Errorf("reads were answered by %v, want by both replicas", answers)
		}
	})
}

func TestATokenBelongsToItsSession(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.Node(2).StopReplay()
		alice, bob := WithSession(s.Context(), NewSession()), WithSession(s.Context(), NewSession())
		named, other := WithSessionID(s.Context(), "user-42"), WithSessionID(s.Context(), "user-43")
		s.exec(alice, s.db, insert)
		s.exec(named, s.db, insert)
		for name, tt := range map[string]struct {
			ctx  context.Context
			want string
		}{
			"the session that wrote":             {alice, "n1"},
			"another session":                    {bob, "n2"},
			"the named session that wrote":       {named, "n1"},
			"the same name in another context":   {WithSessionID(s.Context(), "user-42"), "n1"},
			"another named session":              {other, "n2"},
			"no session: that of the whole DB":   {s.Context(), "n1"},
			"the session's token, carried":       {carry(s, alice), "n1"},
			"a session without its token":        {WithSession(s.Context(), NewSession()), "n2"},
			"a session that outranks its parent": {WithSession(named, NewSession()), "n2"},
		} {
			if got := s.node(tt.ctx, s.db); got != tt.want {
				s.Errorf("%s: the read went to %s, want %s", name, got, tt.want)
			}
		}
	})
}

// carry returns a context whose session has got the token of the one of ctx as
// text.
func carry(s *stage, ctx context.Context) context.Context {
	token, err := ParseToken(wishOf(ctx).session.Token().String())
	if err != nil {
		s.Fatal(err)
	}
	session := NewSession()
	session.Advance(token)
	return WithSession(s.Context(), session)
}

func TestANamedSessionIsForgottenAfterItsTimeout(t *testing.T) {
	play(t, 2, rare+"&session_timeout=1m", func(s *stage) {
		s.Node(2).StopReplay()
		ctx := WithSessionID(s.Context(), "user-42")
		s.exec(ctx, s.db, insert)
		for range 4 { // use keeps it
			time.Sleep(50 * time.Second)
			if got := s.node(ctx, s.db); got != "n1" {
				s.Fatalf("while the session is used its read goes to %s, want n1", got)
			}
		}
		time.Sleep(2*time.Minute + time.Second)
		if got := s.node(ctx, s.db); got != "n2" {
			s.Errorf("after the timeout the read goes to %s, want n2", got)
		}
		if got := s.cluster.Stats().Sessions; got != 1 {
			s.Errorf("%d sessions are remembered, want 1", got)
		}
	})
}

func TestAnIdleNamedSessionIsKeptForItsTimeout(t *testing.T) {
	play(t, 2, rare+"&session_timeout=1m", func(s *stage) {
		s.Node(2).StopReplay()
		for wait := range 6 {
			ctx := WithSessionID(s.Context(), fmt.Sprint("user", wait))
			s.exec(ctx, s.db, insert)
			time.Sleep(time.Duration(wait) * 11 * time.Second)
			if got := s.node(ctx, s.db); got != "n1" {
				s.Errorf("%d s after the write the read goes to %s, want n1", wait*11, got)
			}
		}
	})
}

func TestLevelsSayWhatAReadMayMiss(t *testing.T) {
	play(t, 2, "probe_interval=100ms", func(s *stage) {
		time.Sleep(2 * time.Second)
		s.Node(2).StopReplay()
		s.exec(s.Context(), s.db, insert)
		nodes := func(when string, want map[Consistency]string) {
			for level, node := range want {
				if got := s.node(WithConsistency(s.Context(), level), s.db); got != node {
					s.Errorf("%s: a read with consistency=%v goes to %s, want %s", when, level, got, node)
				}
				if got := one[string](s, s.Context(), s.db, where, AtLevel(level)); got != node {
					s.Errorf("%s: a read with AtLevel(%v) goes to %s, want %s", when, level, got, node)
				}
			}
		}
		nodes("at once", map[Consistency]string{Eventual: "n2", Bounded(time.Second): "n2", PerSession: "n1", Strong: "n1", Bounded(0): "n1"})
		time.Sleep(2 * time.Second)
		nodes("later", map[Consistency]string{Eventual: "n2", Bounded(time.Second): "n1", PerSession: "n1", Strong: "n1"})
		s.Node(2).FollowImmediately()
		time.Sleep(time.Second)
		nodes("caught up", map[Consistency]string{Eventual: "n2", Bounded(time.Second): "n2", PerSession: "n2", Strong: "n1"})
	})
}

func TestTheLevelOfTheDSNIsTheDefault(t *testing.T) {
	for level, want := range map[string]string{"eventual": "n2", "session": "n1", "strong": "n1"} {
		t.Run(level, func(t *testing.T) {
			play(t, 2, rare+"&consistency="+level, func(s *stage) {
				s.Node(2).StopReplay()
				s.exec(s.Context(), s.db, insert)
				if got := s.node(s.Context(), s.db); got != want {
					s.Errorf("the read goes to %s, want %s", got, want)
				}
			})
		})
	}
}

func TestHintsDecideWhereAStatementGoes(t *testing.T) {
	play(t, 3, rare, func(s *stage) {
		bg := s.Context()
		for name, tt := range map[string]struct {
			ctx  context.Context
			text string
			args []any
			want string
		}{
			"Primary":                            {Primary(bg), where, nil, "n1"},
			"Replica":                            {Replica(bg), where, nil, "n2 n3"},
			"Node":                               {Node(bg, "n3"), where, nil, "n3"},
			"Node with its port":                 {Node(bg, "n3:5432"), where, nil, "n3"},
			"OnPrimary":                          {bg, where, []any{OnPrimary}, "n1"},
			"OnNode":                             {bg, where, []any{OnNode("n2")}, "n2"},
			"OnReplica outweighs Primary":        {Primary(bg), where, []any{OnReplica}, "n2 n3"},
			"the later context wins":             {Replica(Primary(bg)), where, nil, "n2 n3"},
			"a leading comment":                  {bg, "/* helios:primary */ " + where, nil, "n1"},
			"a leading comment for replicas":     {bg, "/* helios:replica */ " + where, nil, "n2 n3"},
			"a comment elsewhere is a comment":   {bg, where + " /* helios:primary */", nil, "n2 n3"},
			"a context outweighs the comment":    {Replica(bg), "/* helios:primary */ " + where, nil, "n2 n3"},
			"a hint for one node is for no more": {bg, where, nil, "n2 n3"},
		} {
			for range 5 {
				if got := one[string](s, tt.ctx, s.db, tt.text, tt.args...); !slices.Contains(strings.Fields(tt.want), got) {
					s.Errorf("%s: the read went to %s, want one of %s", name, got, tt.want)
				}
			}
		}
	})
}

func TestAWriteWithAHintForReplicasStillHappensOnThePrimary(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.exec(Replica(s.Context()), s.db, insert)
		s.wantExecuted(insert, "n1")
	})
}

func TestANamedNodeIsTheOnlyOneAsked(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		_, err := s.db.ExecContext(Node(s.Context(), "n2"), insert)
		s.wantCode("write on a replica", err, codeReadOnly)
		_, err = s.db.ExecContext(Node(s.Context(), "n9"), insert)
		if err == nil || !strings.Contains(err.Error(), "n9") || !SafeToRetry(err) {
			s.Errorf("write on a node that is not there = %v, want an error that names it and says that nothing was sent", err)
		}
		s.wantExecuted(insert)
		s.Node(2).Kill()
		if err := s.db.QueryRowContext(Node(s.Context(), "n2"), where).Scan(new(string)); err == nil {
			s.Error("a read on a dead node succeeded")
		}
		s.wantExecuted(where)
	})
}

func TestWithoutFallbackAReadNeedsAReplica(t *testing.T) {
	play(t, 2, "replica_fallback=error", func(s *stage) {
		if got := s.node(s.Context(), s.db); got != "n2" {
			s.Errorf("the read went to %s, want n2", got)
		}
		s.Node(2).Kill()
		time.Sleep(5 * time.Second)
		s.within(0, "the read", func() {
			err := s.db.QueryRow(where).Scan(new(string))
			s.wantError("read without a replica", err, ErrNoReplica)
		})
		if got := s.node(Primary(s.Context()), s.db); got != "n1" {
			s.Errorf("a read for the primary went to %s", got)
		}
		s.exec(s.Context(), s.db, insert)
	})
}

func TestWithoutFallbackAReadWaitsForAReplicaToCatchUp(t *testing.T) {
	play(t, 2, "replica_fallback=error", func(s *stage) {
		s.node(s.Context(), s.db)
		s.Node(2).FollowAfter(3 * time.Second)
		s.exec(s.Context(), s.db, insert)
		begun := time.Now()
		if got := s.node(s.Context(), s.db); got != "n2" {
			s.Errorf("the read went to %s, want n2", got)
		}
		if took := time.Since(begun); took < 2*time.Second || took > 4*time.Second {
			s.Errorf("the read took %v, want about 3s", took)
		}
		s.Node(2).StopReplay()
		s.exec(s.Context(), s.db, insert)
		begun = time.Now()
		err := s.db.QueryRow(where).Scan(new(string))
		s.wantError("read while the replica stands still", err, ErrNoReplica)
		if took := time.Since(begun); took < 10*time.Second || took > 11*time.Second {
			s.Errorf("the read failed after %v, want failover_wait", took)
		}
	})
}

func TestWritesNeedMinReplicas(t *testing.T) {
	play(t, 3, "min_replicas=2&failover_wait=3s", func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		s.Node(3).Kill()
		time.Sleep(5 * time.Second)
		s.ResetLog()
		s.within(3*time.Second, "the write", func() {
			_, err := s.db.Exec(insert)
			s.wantError("write with one replica", err, ErrNoReplica)
		})
		s.wantExecuted(insert)
		s.node(Primary(s.Context()), s.db)
		s.Node(3).Start()
		time.Sleep(2 * time.Second)
		s.exec(s.Context(), s.db, insert)
	})
}

func TestMaxLagKeepsReadsFromSlowReplicas(t *testing.T) {
	play(t, 3, "max_lag=500ms&consistency=eventual&probe_interval=100ms", func(s *stage) {
		time.Sleep(time.Second)
		s.Node(2).StopReplay()
		for range 20 {
			s.exec(s.Context(), s.db, insert)
			time.Sleep(100 * time.Millisecond)
		}
		for range 20 {
			if got := s.node(s.Context(), s.db); got != "n3" {
				s.Fatalf("a read went to %s, whose lag is over max_lag; want n3", got)
			}
		}
		s.Node(2).FollowImmediately()
		time.Sleep(time.Second)
		seen := map[string]bool{}
		for range 40 {
			seen[s.node(s.Context(), s.db)] = true
		}
		if !seen["n2"] {
			s.Error("no read went to n2 after it caught up")
		}
	})
}

func TestTargetSessionAttrsRestrictTheNodes(t *testing.T) {
	t.Run("primary", func(t *testing.T) {
		play(t, 2, rare+"&target_session_attrs=primary", func(s *stage) {
			if got := s.node(s.Context(), s.db); got != "n1" {
				s.Errorf("the read went to %s, want n1", got)
			}
			if got := s.node(Replica(s.Context()), s.db); got != "n1" {
				s.Errorf("the read went to %s, want n1", got)
			}
		})
	})
	t.Run("standby", func(t *testing.T) {
		play(t, 2, rare+"&target_session_attrs=standby", func(s *stage) {
			if got := s.node(s.Context(), s.db); got != "n2" {
				s.Errorf("the read went to %s, want n2", got)
			}
			if err := s.db.PingContext(s.Context()); err != nil {
				s.Errorf("Ping() = %v", err)
			}
			ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
			defer cancel()
			_, err := s.db.ExecContext(ctx, insert)
			s.wantCode("write", err, codeReadOnly)
			s.wantExecuted(insert)
		})
	})
}

func TestWhatAReplicaRefusesRunsOnceOnThePrimary(t *testing.T) {
	const read = "SELECT v FROM writing_view"
	for _, code := range []string{codeReadOnly, codeUnsupported, codeNotPrerequisite, codeInternal} {
		t.Run(code, func(t *testing.T) {
			play(t, 2, rare, func(s *stage) {
				s.Handle(read, pgfake.Row(int64(7)))
				s.Node(2).Inject(read, 0, pgfake.Fail(code, "recovery is in progress"))
				if got := one[int](s, s.Context(), s.db, read); got != 7 {
					s.Errorf("got %d, want 7", got)
				}
				s.wantExecuted(read, "n1")
				one[int](s, s.Context(), s.db, read)
				s.wantExecuted(read, "n1", "n1")
				if tried := len(s.Log()) - len(s.executed(read)); slices.ContainsFunc(s.Node(2).Log()[1:], func(e pgfake.Entry) bool { return e.SQL == read }) {
					s.Errorf("the replica was asked again; %d other statements", tried)
				}
				if got := s.cluster.Stats().Learned; got != 1 {
					s.Errorf("Learned = %d, want 1", got)
				}
			})
		})
	}
}

func TestAnErrorThatBothNodesGiveIsTold(t *testing.T) {
	const read = "SELECT v FROM nothing"
	play(t, 2, rare, func(s *stage) {
		for _, node := range s.Nodes() {
			node.Handle(read, pgfake.Row(int64(7)))
			node.Inject(read, 0, pgfake.Fail(codeUnsupported, "no such feature"))
		}
		err := s.db.QueryRow(read).Scan(new(int))
		s.wantCode("QueryRow", err, codeUnsupported)
	})
}

func TestAReadThatReplayCancelsIsAnsweredElsewhere(t *testing.T) {
	for _, code := range []string{codeSerialization, codeDeadlock} {
		for n := 2; n <= 3; n++ {
			t.Run(fmt.Sprintf("%s with %d nodes", code, n), func(t *testing.T) {
				play(t, n, rare, func(s *stage) {
					s.Node(2).Inject(where, 0, pgfake.Fail(code, "canceling statement due to conflict with recovery"))
					for range 10 {
						if got, want := s.node(s.Context(), s.db), fmt.Sprintf("n%d", []int{0, 0, 1, 3}[n]); got != want {
							s.Errorf("the read was answered by %s, want %s", got, want)
						}
					}
					if s.cluster.Stats().Conflicts == 0 {
						s.Error("no conflict was counted")
					}
				})
			})
		}
	}
}

func TestAVoidPlanIsPreparedAgain(t *testing.T) {
	void := map[string]pgfake.Error{
		"the statement is gone":    {Code: codeNoStatement, Message: "prepared statement does not exist"},
		"its result type is other": {Code: codeUnsupported, Message: "cached plan must not change result type", Routine: "RevalidateCachedQuery"},
	}
	for name, refusal := range void {
		t.Run(name, func(t *testing.T) {
			play(t, 2, rare, func(s *stage) {
				s.node(s.Context(), s.db)
				s.node(Primary(s.Context()), s.db)
				s.exec(s.Context(), s.db, insert)
				s.ResetLog()
				s.Node(2).Inject(where, 1, pgfake.Fault{Err: &refusal})
				if got := s.node(s.Context(), s.db); got != "n2" {
					s.Errorf("the read was answered by %s, want n2", got)
				}
				if got := s.Node(2).Counters().Parses; got == 0 {
					s.Error("the statement was not prepared again")
				}
				s.Node(1).Inject(insert, 1, pgfake.Fault{Err: &refusal})
				s.exec(s.Context(), s.db, insert)
				s.wantExecuted(insert, "n1")
				if got := s.cluster.Stats().Learned; got != 0 {
					s.Errorf("Learned = %d: a void plan says nothing about the statement", got)
				}
			})
			play(t, 1, rare, func(s *stage) {
				s.Node(1).Inject(insert, 0, pgfake.Fault{Err: &refusal})
				_, err := s.db.Exec(insert)
				s.wantCode("a plan that stays void", err, refusal.Code)
			})
			play(t, 1, rare, func(s *stage) {
				tx, err := s.db.Begin()
				if err != nil {
					s.Fatal(err)
				}
				s.exec(s.Context(), tx, "UPDATE t SET v = 1")
				s.Node(1).Inject(insert, 1, pgfake.Fault{Err: &refusal})
				_, err = tx.Exec(insert)
				s.wantCode("a void plan in a transaction", err, refusal.Code)
				if err := tx.Rollback(); err != nil {
					s.Error(err)
				}
				s.exec(s.Context(), s.db, insert)
			})
		})
	}
}

func TestAFailedCheckOfAReplicaIsNotHeldAgainstTheStatement(t *testing.T) {
	play(t, 2, rare, func(s *stage) { // the table is not there yet
		const read = "SELECT v FROM newborn"
		s.Handle(read, pgfake.Row(int64(7)))
		s.Node(2).StopReplay()
		s.Node(2).Inject(read, 0, pgfake.Fault{Err: &pgfake.Error{Code: "42P01", Message: "relation does not exist"}, AtParse: true})
		s.exec(s.Context(), s.db, "CREATE TABLE newborn (v int)")
		if got := one[int](s, s.Context(), s.db, read); got != 7 {
			s.Errorf("got %d, want 7", got)
		}
	})
}

func TestALostWriteIsToldOnce(t *testing.T) {
	play(t, 3, "", func(s *stage) {
		s.node(s.Context(), s.db)
		kept, lost := WithSession(s.Context(), NewSession()), WithSession(s.Context(), NewSession())
		s.exec(kept, s.db, insert)
		time.Sleep(trip)
		s.Node(2).StopReplay()
		s.Node(3).StopReplay()
		s.exec(lost, s.db, insert)
		time.Sleep(2 * time.Second)
		s.Node(1).Kill()
		time.Sleep(2 * time.Second)
		s.Promote(s.Node(2))
		time.Sleep(2 * time.Second)
		if got := s.node(kept, s.db); got == "n1" {
			s.Errorf("a read went to %s", got)
		}
		err := s.db.QueryRowContext(lost, where).Scan(new(string))
		s.wantError("the first read after the loss", err, ErrWriteLost)
		s.node(lost, s.db)
		s.node(lost, s.db)
		err = s.db.QueryRow(where).Scan(new(string))
		s.wantError("the first read of the whole DB", err, ErrWriteLost)
		s.node(s.Context(), s.db)
		if got := s.cluster.Stats().WritesLost; got != 2 {
			s.Errorf("WritesLost = %d, want 2", got)
		}
		s.exec(lost, s.db, insert)
		if token := wishOf(lost).session.Token(); token.Timeline != 2 {
			s.Errorf("token %v after a write on the new primary", token)
		}
		s.node(lost, s.db)
	})
}

func TestALostWriteIsToldAlsoAfterAWriteOnTheNewPrimary(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		ctx := WithSession(s.Context(), NewSession())
		s.Node(2).StopReplay()
		s.exec(ctx, s.db, insert)
		s.Node(1).Kill()
		s.Promote(s.Node(2))
		s.exec(ctx, s.db, insert)
		time.Sleep(2 * time.Second)
		err := s.db.QueryRowContext(ctx, where).Scan(new(string))
		s.wantError("the first read", err, ErrWriteLost)
		s.node(ctx, s.db)
	})
}

func TestTokensMergeToTheNewest(t *testing.T) {
	at := func(timeline wal.Timeline, lsn wal.LSN) Token {
		return Token{SystemID: 7, Timeline: timeline, LSN: lsn}
	}
	for name, tt := range map[string]struct {
		tokens []Token
		want   Token
	}{
		"nothing":                       {nil, Token{}},
		"another cluster's is put away": {[]Token{{SystemID: 8, Timeline: 9, LSN: 9}, at(1, 5)}, at(1, 5)},
		"a zero token asks for nothing": {[]Token{at(1, 5), {}}, at(1, 5)},
		"the greater position counts":   {[]Token{at(1, 5), at(1, 9), at(1, 7)}, at(1, 9)},
		"the newer timeline counts":     {[]Token{at(1, 9), at(2, 5)}, at(2, 5)},
		"an older one changes nothing":  {[]Token{at(2, 5), at(1, 9)}, at(2, 5)},
	} {
		s := NewSession()
		for _, token := range tt.tokens {
			s.Advance(token)
		}
		if got := s.Token(); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestASessionAsksForWhatItsTimelineKept(t *testing.T) {
	history := wal.History{{Timeline: 2, LSN: 100}, {Timeline: 3, LSN: 200}}
	view := func(timeline wal.Timeline, history wal.History) *topology.View {
		return &topology.View{SystemID: 7, Timeline: timeline, History: history}
	}
	type ask struct {
		lsn     wal.LSN
		verdict wal.Verdict
	}
	for name, tt := range map[string]struct {
		tokens []wal.Position
		view   *topology.View
		want   []ask // of one call after the other
	}{
		"a new session":             {nil, view(1, nil), []ask{{0, wal.Kept}}},
		"the same timeline":         {[]wal.Position{{Timeline: 1, LSN: 90}}, view(1, nil), []ask{{90, wal.Kept}}},
		"kept by the next":          {[]wal.Position{{Timeline: 1, LSN: 100}}, view(2, history), []ask{{100, wal.Kept}}},
		"lost by the next":          {[]wal.Position{{Timeline: 1, LSN: 101}}, view(2, history), []ask{{100, wal.Lost}, {100, wal.Kept}}},
		"lost by the next but one":  {[]wal.Position{{Timeline: 2, LSN: 201}}, view(3, history), []ask{{200, wal.Lost}, {200, wal.Kept}}},
		"no beginning known":        {[]wal.Position{{Timeline: 1, LSN: 90}}, view(2, nil), []ask{{90, wal.Undecided}, {90, wal.Undecided}}},
		"of another cluster":        {[]wal.Position{{Timeline: 1, LSN: 90}}, &topology.View{SystemID: 8, Timeline: 1}, []ask{{0, wal.Kept}}},
		"kept, then wrote":          {[]wal.Position{{Timeline: 1, LSN: 100}, {Timeline: 2, LSN: 150}}, view(2, history), []ask{{150, wal.Kept}}},
		"lost, then wrote":          {[]wal.Position{{Timeline: 1, LSN: 101}, {Timeline: 2, LSN: 150}}, view(2, history), []ask{{150, wal.Lost}, {150, wal.Kept}}},
		"lost, then twice promoted": {[]wal.Position{{Timeline: 1, LSN: 101}, {Timeline: 2, LSN: 150}}, view(3, history), []ask{{150, wal.Lost}, {150, wal.Kept}}},
	} {
		s := NewSession()
		for _, p := range tt.tokens {
			s.Advance(Token{SystemID: 7, Timeline: p.Timeline, LSN: p.LSN})
		}
		for i, want := range tt.want {
			if lsn, verdict, _ := s.wants(tt.view); lsn != want.lsn || verdict != want.verdict {
				t.Errorf("%s: call %d asks for %v, verdict %v, want %v, %v", name, i+1, lsn, verdict, want.lsn, want.verdict)
			}
		}
	}
}

func TestATokenOfATimelineNotYetKnownWaitsForIt(t *testing.T) {
	play(t, 3, rare, func(s *stage) {
		s.node(s.Context(), s.db)
		switched := s.Promote(s.Node(2)) // nobody has noticed; n1 still answers
		session := NewSession()
		session.Advance(Token{SystemID: s.SystemID, Timeline: 2, LSN: switched})
		if got := s.node(Primary(WithSession(s.Context(), session)), s.db); got == "n1" {
			s.Error("a session that has seen timeline 2 was answered by the primary of timeline 1")
		}
		if got := s.node(WithSession(s.Context(), session), s.db); got == "n1" {
			s.Error("a session that has seen timeline 2 was answered by the primary of timeline 1")
		}
	})
}

func TestTokensTravelAsText(t *testing.T) {
	for text, token := range map[string]Token{
		"":                                    {},
		"7412983712346789012.2.16-B374D848":   {7412983712346789012, 2, 0x16B374D848},
		"1.1.0-1":                             {1, 1, 1},
		"18446744073709551615.4294967295.0-0": {1<<64 - 1, 1<<32 - 1, 0},
	} {
		got, err := ParseToken(text)
		if err != nil || got != token {
			t.Errorf("ParseToken(%q) = %v, %v, want %v", text, got, err, token)
		}
		if got := token.String(); got != text {
			t.Errorf("String() = %q, want %q", got, text)
		}
		if token.IsZero() != (text == "") {
			t.Errorf("%q: IsZero() = %v", text, token.IsZero())
		}
		var back Token
		if b, err := token.MarshalText(); err != nil || back.UnmarshalText(b) != nil || back != token {
			t.Errorf("%q comes back as %v through its MarshalText", text, back)
		}
	}
	for _, text := range []string{
		" ", "1", "1.1", "1.1.0/1.1", "x.1.0-1", "1.x.0-1", "1.0.0-1", "1.1.0", "1.1.x-1", "-1.1.0-1", "1.4294967296.0-1", "18446744073709551616.1.0-1", "1.1.0-1\n",
	} {
		if got, err := ParseToken(text); err == nil {
			t.Errorf("ParseToken(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	for _, text := range []string{"", "1.1.0-1", "7412983712346789012.2.16-B374D848", "1.1.0/1", "a.b.c"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			return
		}
		again, err := ParseToken(token.String())
		if err != nil || again != token {
			t.Errorf("ParseToken(%q) = %v, which comes back as %v, %v", text, token, again, err)
		}
	})
}

func TestAReadOnlyTransactionSeesTheSessionsWrites(t *testing.T) {
	play(t, 3, rare, func(s *stage) {
		s.Node(2).StopReplay()
		s.exec(s.Context(), s.db, insert)
		wrote := s.cluster.Token().LSN
		for range 10 {
			tx, err := s.db.BeginTx(s.Context(), &sql.TxOptions{ReadOnly: true})
			if err != nil {
				s.Fatal(err)
			}
			if got := wal.LSN(one[int64](s, s.Context(), tx, visible)); got < wrote {
				s.Errorf("the transaction sees %v, the session wrote %v", got, wrote)
			}
			if got := s.node(s.Context(), tx); got != "n3" {
				s.Errorf("the transaction runs on %s, want n3", got)
			}
			if err := tx.Commit(); err != nil {
				s.Error(err)
			}
		}
	})
}

func TestASerializableTransactionRunsOnThePrimary(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		tx, err := s.db.BeginTx(s.Context(), &sql.TxOptions{ReadOnly: true, Isolation: sql.LevelSerializable})
		if err != nil {
			s.Fatal(err)
		}
		if got := s.node(s.Context(), tx); got != "n1" {
			s.Errorf("it runs on %s, want n1", got)
		}
		if err := tx.Commit(); err != nil {
			s.Error(err)
		}
	})
}

func TestRelaxedCommitsAreSeenAsWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stage{T: t, Cluster: pgfake.NewCluster(2)}
		s.Latency, s.SyncCommit = trip, "off"
		defer s.Cluster.Close()
		s.answerProbes()
		s.answerReads()
		s.open(rare)
		defer s.close()
		s.exec(s.Context(), s.db, insert)
		if got := s.node(s.Context(), s.db); got != "n1" {
			s.Errorf("a read of what is not flushed yet went to %s, want n1", got)
		}
		s.Node(1).Flush()
		time.Sleep(2 * spareLongest)
		if got := s.node(s.Context(), s.db); got != "n2" {
			s.Errorf("after the flush the read went to %s, want n2", got)
		}
	})
}

func TestSetLocalIsNoticedByTheCommit(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		tx, err := s.db.Begin()
		if err != nil {
			s.Fatal(err)
		}
		s.exec(s.Context(), tx, "SET LOCAL synchronous_commit = off")
		s.exec(s.Context(), tx, insert)
		if err := tx.Commit(); err != nil {
			s.Fatal(err)
		}
		if got := s.node(s.Context(), s.db); got != "n1" {
			s.Errorf("a read of what is not flushed yet went to %s, want n1", got)
		}
	})
}

func TestExplainSaysWhereAndWhy(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		for text, want := range map[string]Route{
			where:             {Class: "read", Node: "n2:5432", Role: "replica"},
			insert:            {Class: "write", Node: "n1:5432", Role: "primary"},
			"SET a.b = 1":     {Class: "session", Node: "n1:5432", Role: "primary", Pins: true},
			"CREATE TABLE t;": {Class: "utility", Node: "n1:5432", Role: "primary"},
		} {
			got, err := s.cluster.Explain(s.Context(), text)
			if err != nil {
				s.Errorf("Explain(%q) = %v", text, err)
			}
			if got.Class != want.Class || got.Node != want.Node || got.Role != want.Role || got.Pins != want.Pins || got.Reason == "" {
				s.Errorf("Explain(%q) = %+v, want %+v", text, got, want)
			}
		}
		if trips := s.trips(); trips != 0 {
			s.Errorf("%d round trips for explanations, want none", trips)
		}
		_, err := s.cluster.Explain(Node(s.Context(), "n7"), where)
		if route, ok := errors.AsType[*RouteError](err); !ok || route.Sent {
			s.Errorf("Explain on a node that is not there = %v", err)
		}
	})
}

func TestARestartedReplicaProvesItsPositionAnew(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		before := s.Node(2).Position().LSN
		s.exec(s.Context(), s.db, insert)
		for range 2 {
			if got := s.node(s.Context(), s.db); got != "n2" {
				s.Errorf("the read went to %s, want n2", got)
			}
		}
		s.Node(2).Kill()
		s.Node(2).Replay(before) // it begins at its last restart point
		s.Node(2).Start()
		for range 3 {
			if got := s.node(s.Context(), s.db); got != "n1" {
				s.Errorf("n2 is where it was before the write, and %s has answered", got)
			}
		}
	})
}

func TestAProofThatFailsIsNoProof(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.Node(2).StopReplay()
		s.exec(s.Context(), s.db, insert)
		wrote := s.cluster.Token().LSN
		s.Node(2).Inject("SELECT pg_catalog.pg_is_in_recovery(), CASE WHEN pg_catalog.pg_is_in_recovery()*", 0, pgfake.Fail("57014", "canceling statement"))
		for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead} {
			tx, err := s.db.BeginTx(s.Context(), &sql.TxOptions{ReadOnly: true, Isolation: level})
			if err != nil {
				s.Fatal(err)
			}
			if got := wal.LSN(one[int64](s, s.Context(), tx, visible)); got < wrote {
				s.Errorf("%v: the transaction saw %v, the session wrote %v", level, got, wrote)
			}
			if err := tx.Commit(); err != nil {
				s.Error(err)
			}
			time.Sleep(time.Second)
		}
		if got := wal.LSN(one[int64](s, s.Context(), s.db, visible)); got < wrote {
			s.Errorf("a read saw %v, the session wrote %v", got, wrote)
		}
	})
}

func TestATransactionBelongsToTheSessionOfItsBegin(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.Node(2).StopReplay()
		ctx := WithSession(s.Context(), NewSession())
		tx, err := s.db.BeginTx(ctx, nil)
		if err != nil {
			s.Fatal(err)
		}
		if _, err := tx.Exec(insert); err != nil {
			s.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			s.Fatal(err)
		}
		if got := s.node(ctx, s.db); got != "n1" {
			s.Errorf("after a transaction of the session its read went to %s, want n1", got)
		}
		tx, err = s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
		if err != nil {
			s.Fatal(err)
		}
		if got := s.node(context.Background(), tx); got != "n1" {
			s.Errorf("a read-only transaction of the session runs on %s, want n1", got)
		}
		if err := tx.Commit(); err != nil {
			s.Error(err)
		}
	})
}

func TestHintsOfBeginHoldForTheTransaction(t *testing.T) {
	play(t, 3, rare, func(s *stage) {
		for name, tt := range map[string]struct {
			ctx  context.Context
			want string
		}{
			"Primary": {Primary(s.Context()), "n1"},
			"Node n2": {Node(s.Context(), "n2"), "n2"},
			"Node n3": {Node(s.Context(), "n3"), "n3"},
			"Strong":  {WithConsistency(s.Context(), Strong), "n1"},
		} {
			tx, err := s.db.BeginTx(tt.ctx, &sql.TxOptions{ReadOnly: true})
			if err != nil {
				s.Fatal(err)
			}
			if got := s.node(context.Background(), tx); got != tt.want {
				s.Errorf("%s: the transaction runs on %s, want %s", name, got, tt.want)
			}
			if err := tx.Rollback(); err != nil {
				s.Error(err)
			}
		}
	})
}

// A standby that was started while commits waited for synchronous ones takes their
// transactions for running, until it has replayed the end of a later one.
func TestAReplicaThatHasReplayedNoTransactionProvesNothing(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.exec(s.Context(), s.db, insert)
		s.HandleFunc(func(n *pgfake.Node, sql string) (pgfake.Reply, bool) {
			if n.IsPrimary() || !strings.HasPrefix(sql, "SELECT pg_catalog.pg_is_in_recovery(), CASE WHEN pg_catalog.pg_is_in_recovery()") {
				return pgfake.Reply{}, false
			}
			return pgfake.Row(true, n.Position().LSN, nil), true
		})
		s.exec(s.Context(), s.db, insert)
		for range 3 {
			if got := s.node(s.Context(), s.db); got != "n1" {
				s.Errorf("n2 has replayed the end of no transaction, and %s has answered", got)
			}
		}
	})
}
