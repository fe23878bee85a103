package helios

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/internal/pgfake"
	"github.com/heliosdb/helios/internal/watchfake"
	"github.com/heliosdb/helios/pool"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

// A council is a stage with companions, which say what the test has them say.
type council struct {
	*stage
	companions []*watchfake.Companion
	seq        uint64
}

// confer plays f on n nodes and as many companions. They have told that n1 is
// the primary of epoch 1, and probes have seen every node since the driver
// connected to it.
func confer(t *testing.T, n int, params string, f func(c *council), options ...ClusterOption) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := convene(t, n)
		defer c.end()
		c.say(1, "ready", 1)
		c.open(params+"&companion="+c.list(), append([]ClusterOption{WithDialFunc(c.dial)}, options...)...)
		defer c.close()
		c.exec(t.Context(), c.db, insert)
		for i := 2; i <= n; i++ {
			c.node(Node(t.Context(), fmt.Sprint("n", i)), c.db)
		}
		time.Sleep(lateNews)
		c.look()
		c.say(1, "ready", 1)
		synctest.Wait()
		c.ResetLog()
		f(c)
	})
}

// convene makes the nodes and the companions.
func convene(t *testing.T, n int) *council {
	c := &council{stage: &stage{T: t, Cluster: pgfake.NewCluster(n)}}
	c.Latency = trip
	c.answerProbes()
	c.answerReads()
	for i := range n {
		c.companions = append(c.companions, watchfake.New(fmt.Sprintf("c%d:7101", i+1)))
	}
	return c
}

func (c *council) end() {
	c.Cluster.Close()
	for _, companion := range c.companions {
		companion.Close()
	}
}

// list returns the companions as a DSN has them.
func (c *council) list() string {
	var all []string
	for _, companion := range c.companions {
		all = append(all, companion.Addr)
	}
	return strings.Join(all, ",")
}

func (c *council) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	for _, companion := range c.companions {
		if companion.Addr == addr {
			return companion.Dial(ctx)
		}
	}
	if number, told := strings.CutPrefix(addr, "10.0.0."); told { // as the companions call it
		addr = "n" + number
	}
	return c.Dial(ctx, network, addr)
}

// look has every node probed.
func (c *council) look() {
	c.cluster.prober.Kick("")
	time.Sleep(2 * trip)
	synctest.Wait()
}

// picture returns a bulletin that says what the nodes are.
func (c *council) picture(epoch uint64, phase string, primary int) topology.Bulletin {
	c.seq++
	b := topology.Bulletin{SystemID: c.SystemID, Epoch: epoch, Phase: phase, History: c.History(), Timeline: 1, Term: epoch, Seq: c.seq}
	for _, s := range b.History {
		b.Timeline = s.Timeline
	}
	if primary != 0 {
		b.Primary = fmt.Sprint("member", primary)
	}
	for i, n := range c.Nodes() {
		at := n.Position()
		r := topology.Reported{
			Name: fmt.Sprint("member", i+1), Addr: fmt.Sprintf("10.0.0.%d:5432", i+1), Companion: c.companions[i].Addr,
			Role: "replica", State: "up", Timeline: at.Timeline, ReplayLSN: at.LSN, ReceiveLSN: at.LSN, Lag: -1, StartedAt: n.StartedAt(),
		}
		if n.IsPrimary() {
			r.Role, r.ReplayLSN, r.ReceiveLSN, r.CurrentLSN = "primary", 0, 0, at.LSN
		}
		b.Nodes = append(b.Nodes, r)
	}
	return b
}

// say has all companions tell what the nodes are, under names that are not the
// DSN's. primary is the number of the node that reigns, 0 for none.
func (c *council) say(epoch uint64, phase string, primary int, alter ...func(*topology.Bulletin)) {
	b := c.picture(epoch, phase, primary)
	for _, f := range alter {
		f(&b)
	}
	for _, companion := range c.companions {
		companion.Say(b)
	}
}

func holding(b *topology.Bulletin) { b.Hold = true }

// later has f happen after d, in a goroutine that has ended when the returned
// function returns.
func later(d time.Duration, f func()) (wait func()) {
	var running sync.WaitGroup
	running.Go(func() {
		time.Sleep(d)
		f()
	})
	return running.Wait
}

// wire returns how many statements all nodes have executed since the last call.
func (c *council) wire() int {
	synctest.Wait()
	n := 0
	for _, e := range c.Log() {
		if !isProbe(e.SQL) {
			n++
		}
	}
	c.ResetLog()
	return n
}

func TestWhatACompanionKnowsNeedsNoProof(t *testing.T) {
	confer(t, 2, rare, func(c *council) {
		c.node(c.Context(), c.db)
		c.exec(c.Context(), c.db, insert)
		c.wire()
		if got := c.node(c.Context(), c.db); got != "n2" || c.wire() != 2 {
			t.Errorf("%s answered, want n2 after it was asked for a proof", got)
		}
		c.exec(c.Context(), c.db, insert)
		c.say(1, "ready", 1)
		c.wire()
		for range 10 {
			if got := c.node(c.Context(), c.db); got != "n2" {
				t.Errorf("%s answered, want n2", got)
			}
		}
		if got := c.wire(); got != 10 {
			t.Errorf("10 reads cost %d statements, want one each", got)
		}
		c.Node(2).StopReplay()
		c.exec(c.Context(), c.db, insert)
		c.say(1, "ready", 1)
		synctest.Wait()
		if got := c.node(c.Context(), c.db); got != "n1" {
			t.Errorf("%s answered, want n1: n2 is known to be behind", got)
		}
	})
}

// A standby that was started anew may show less than before, and what its
// companion told before that may come late. If only one of its processes has
// crashed it is still the same run.
func TestNewsOfTheTimeBeforeARestartProveNothing(t *testing.T) {
	for name, sameRun := range map[string]bool{"restarted": false, "crashed": true} {
		t.Run(name, func(t *testing.T) {
			confer(t, 2, rare, func(c *council) {
				c.Node(2).StopReplay()
				c.exec(c.Context(), c.db, insert)
				late := c.picture(1, "ready", 1)
				late.Nodes[1].ReplayLSN = c.Node(1).Position().LSN
				c.Node(2).Kill()
				c.Node(2).Start()
				c.Node(2).StopReplay()
				c.look()
				c.node(Node(c.Context(), "n2"), c.db) // a connection to the new run
				if sameRun {
					late.Nodes[1].StartedAt = c.Node(2).StartedAt()
				}
				for _, told := range []string{"before a probe has seen the server since", "after it has"} {
					for _, companion := range c.companions {
						companion.Say(late)
					}
					synctest.Wait()
					if got := c.cluster.routes.Load().byName["n2"].load.Replay(); got >= late.Nodes[1].ReplayLSN {
						t.Errorf("%s, news of the time before prove %s", told, got)
					}
					c.look()
				}
			})
		})
	}
}

// What is proved holds for a timeline. The replica that was left behind by the
// failover shows more than the new primary has, on a timeline that is none.
func TestAStandbyPastTheForkProvesNothingInTheNextEpoch(t *testing.T) {
	for name, tt := range map[string]struct {
		alter func(r *topology.Reported)
	}{
		"it says so":                         {func(r *topology.Reported) { r.State = "diverged" }},
		"it says that it is well":            {func(*topology.Reported) {}},
		"it says it follows the new primary": {func(r *topology.Reported) { r.Timeline = 2 }},
	} {
		t.Run(name, func(t *testing.T) {
			confer(t, 3, rare, func(c *council) {
				c.Node(2).StopReplay()
				session := WithSession(c.Context(), NewSession())
				for range 5 {
					c.exec(session, c.db, insert)
				}
				c.say(1, "ready", 1) // n3 has proved all of it
				synctest.Wait()
				c.Node(1).Kill()
				c.Promote(c.Node(2))
				c.say(2, "ready", 2, func(b *topology.Bulletin) { tt.alter(&b.Nodes[2]) })
				synctest.Wait()
				if n3, n2 := c.Node(3).Position(), c.Node(2).Position(); n3.LSN <= n2.LSN || n3.Timeline != 1 {
					t.Fatalf("n3 is at %s and n2 at %s: nothing is tested", n3, n2)
				}
				c.ResetLog()
				err := c.db.QueryRowContext(session, where).Scan(new(string))
				c.wantError("the first read of the session whose writes are lost", err, ErrWriteLost)
				c.exec(session, c.db, insert)
				for range 20 {
					if got := c.node(session, c.db); got != "n2" {
						t.Fatalf("%s answers a read behind a write, want n2", got)
					}
					if got := c.node(WithConsistency(c.Context(), Eventual), c.db); got == "n3" && name != "it says it follows the new primary" {
						t.Fatal("n3 answers a read")
					}
				}
			})
		})
	}
}

func TestAHeldWriteGoesOutTheMomentAPrimaryIsTold(t *testing.T) {
	for name, write := range map[string]func(c *council){
		"alone": func(c *council) { c.exec(c.Context(), c.db, insert) },
		"a transaction": func(c *council) {
			c.transact(insert)
		},
		"a transaction that reads first": func(c *council) {
			tx, err := c.db.BeginTx(c.Context(), nil)
			if err != nil {
				c.Fatal(err)
			}
			c.node(c.Context(), tx)
			c.exec(c.Context(), tx, insert)
			if err := tx.Commit(); err != nil {
				c.Errorf("Commit() = %v", err)
			}
		},
		"a strong read": func(c *council) {
			c.node(WithConsistency(c.Context(), Strong), c.db)
			c.exec(c.Context(), c.db, insert)
		},
	} {
		t.Run(name, func(t *testing.T) {
			confer(t, 3, rare, func(c *council) {
				begun := time.Now()
				c.say(1, "ready", 1, holding)
				synctest.Wait()
				wait := later(time.Second, func() {
					c.Node(1).Shutdown()
					c.say(2, "fenced", 0)
					time.Sleep(137 * time.Millisecond)
					c.Promote(c.Node(2))
					c.say(2, "ready", 2)
				})
				write(c)
				wait()
				synctest.Wait()
				first := time.Time{}
				for _, e := range c.Log() {
					if first.IsZero() && !isProbe(e.SQL) {
						first = e.At
					}
				}
				if got := first.Sub(begun); got < 1137*time.Millisecond || got > 1137*time.Millisecond+3*trip/2 {
					t.Errorf("the first statement ran after %v, want within a round trip or two of 1.137s; log:\n%s", got, c.told())
				}
				c.wantExecuted(insert, "n2")
				if got := c.cluster.Stats().Retries; got != 0 {
					t.Errorf("%d retries, want none: nothing was sent in vain", got)
				}
			})
		})
	}
}

func TestAHoldThatIsLiftedLetsWritesGoOnWhereTheyWere(t *testing.T) {
	confer(t, 2, rare, func(c *council) {
		changes := c.cluster.Stats().PrimaryChanges
		c.say(1, "ready", 1, holding)
		synctest.Wait()
		wait := later(300*time.Millisecond, func() { c.say(2, "ready", 1) })
		c.within(300*time.Millisecond+trip, "the write", func() { c.exec(c.Context(), c.db, insert) })
		wait()
		c.wantExecuted(insert, "n1")
		if got := c.cluster.Stats().PrimaryChanges - changes; got != 0 {
			t.Errorf("%d changes of the primary, want none", got)
		}
	})
}

func TestAHoldIsBoundedByFailoverWaitAndTheContext(t *testing.T) {
	confer(t, 2, rare+"&failover_wait=3s", func(c *council) {
		c.say(1, "ready", 1, holding)
		synctest.Wait()
		c.within(3*time.Second, "the write", func() {
			_, err := c.db.ExecContext(c.Context(), insert)
			c.wantError("Exec", err, ErrNoPrimary)
			c.wantError("Exec", err, errHeld)
			if !SafeToRetry(err) {
				t.Error("a write that was held is not safe to retry")
			}
		})
		ctx, cancel := context.WithTimeout(c.Context(), time.Second)
		defer cancel()
		c.within(time.Second, "the write", func() {
			_, err := c.db.ExecContext(ctx, insert)
			c.wantError("Exec", err, context.DeadlineExceeded)
		})
		c.wantExecuted(insert)
	})
}

func TestWhatHasBegunGoesOnWhileWritesAreHeld(t *testing.T) {
	confer(t, 2, rare, func(c *council) {
		tx, err := c.db.BeginTx(c.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		c.exec(c.Context(), tx, insert)
		c.say(1, "ready", 1, holding)
		synctest.Wait()
		c.exec(c.Context(), tx, insert)
		if got := c.node(Primary(c.Context()), c.db); got != "n1" { // a read, though on the primary
			t.Errorf("%s answers, want n1", got)
		}
		if err := tx.Commit(); err != nil {
			t.Errorf("Commit() = %v", err)
		}
		c.wantExecuted(insert, "n1", "n1")
	})
}

// Who stands in line for a connection has not begun.
func TestAWriteThatWaitsForAConnectionIsHeld(t *testing.T) {
	confer(t, 2, rare+"&pool_max_conns=1", func(c *council) {
		tx, err := c.db.BeginTx(c.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		c.exec(c.Context(), tx, insert)
		waitWrite := later(0, func() { c.exec(c.Context(), c.db, insert) })
		synctest.Wait()
		c.say(1, "ready", 1, holding)
		synctest.Wait()
		if err := tx.Commit(); err != nil {
			t.Errorf("Commit() = %v", err)
		}
		time.Sleep(time.Second)
		c.wantExecuted(insert, "n1")
		c.Node(1).Shutdown()
		c.Promote(c.Node(2))
		c.say(2, "ready", 2)
		waitWrite()
		c.wantExecuted(insert, "n1", "n2")
	})
}

// A primary that froze says nothing and ends nothing. What is under way there
// ends when another one reigns, and never as a success.
func TestANewEpochEndsWhatIsUnderWayOnTheFormerPrimary(t *testing.T) {
	confer(t, 3, rare, func(c *council) {
		tx, err := c.db.BeginTx(c.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		c.exec(c.Context(), tx, insert)
		c.exec(c.Context(), c.db, insert) // over a second connection
		c.Node(1).Hang()
		begun := time.Now()
		write := make(chan error, 1)
		commit := make(chan error, 1)
		waitWrite := later(0, func() {
			_, err := c.db.ExecContext(c.Context(), insert)
			write <- err
		})
		waitCommit := later(0, func() { commit <- tx.Commit() })
		time.Sleep(700 * time.Millisecond)
		c.say(2, "fenced", 0)
		time.Sleep(100 * time.Millisecond)
		c.Promote(c.Node(2))
		c.say(2, "ready", 2)
		c.wantError("the write", <-write, ErrOutcomeUnknown)
		if took := time.Since(begun); took != 800*time.Millisecond {
			t.Errorf("the write ended after %v, want 800ms", took)
		}
		if err := <-commit; !errors.Is(err, ErrNotCommitted) && !errors.Is(err, ErrOutcomeUnknown) {
			t.Errorf("Commit() = %v, want that it is not known or that there was none", err)
		}
		waitWrite()
		waitCommit()
		c.ResetLog()
		c.exec(c.Context(), c.db, insert)
		c.Node(1).Resume()
		c.say(2, "ready", 2, func(b *topology.Bulletin) { b.Nodes[0].Age = time.Second })
		for range 20 {
			c.exec(c.Context(), c.db, insert)
			c.node(c.Context(), c.db)
		}
		for _, e := range c.Log() {
			if e.Node == "n1" && !isProbe(e.SQL) && strings.Contains(e.SQL, "INSERT") && e.At.Sub(begun) > 900*time.Millisecond {
				t.Errorf("%s ran on n1 at %v", e.SQL, e.At.Sub(begun))
			}
		}
		if got := c.cluster.Status().Nodes[0].State; got != "refused" && got != "down" {
			t.Errorf("n1 is %s, want refused or down", got)
		}
	})
}

// The first bulletin of the new epoch is enough: no probe says it yet.
func TestTheNextPrimaryIsUsedWarmAndAtOnce(t *testing.T) {
	confer(t, 3, rare, func(c *council) {
		opened := c.Node(2).Counters().Opened
		c.Node(1).Kill()
		c.Promote(c.Node(2))
		c.say(2, "ready", 2)
		synctest.Wait()
		if got := c.cluster.Status().Primary; got != "n2:5432" {
			t.Fatalf("the primary is %q, want n2", got)
		}
		c.exec(c.Context(), c.db, insert)
		c.wantExecuted(insert, "n2")
		if got := c.Node(2).Counters().Opened - opened; got != 0 {
			t.Errorf("%d connections to n2 were made, want none: there was one", got)
		}
	})
}

// The answer to a commit of a primary that was stopped in order may be read after
// the bulletin of the next one.
func TestACommitThatTheNextPrimaryHasIsNotLost(t *testing.T) {
	confer(t, 2, rare, func(c *council) {
		c.Node(1).Shutdown()
		began := c.Promote(c.Node(2))
		c.say(2, "ready", 2)
		synctest.Wait()
		for _, tt := range []struct {
			lsn  wal.LSN
			want error
		}{{began, nil}, {began + 1, ErrWriteLost}} {
			session := NewSession()
			call := &pool.Call{CommitTimeline: 1, CommitLSN: tt.lsn}
			err := c.cluster.committed(c.cluster.routes.Load().byName["n1"], session, call, 0, time.Now())
			if !errors.Is(err, tt.want) || (err == nil) != (session.Token().LSN == tt.lsn) {
				t.Errorf("a commit up to %s of timeline 1, which ends at %s: %v, token %v", tt.lsn, began, err, session.Token())
			}
		}
	})
}

func TestAnEpochThatHasEndedIsNotBelieved(t *testing.T) {
	confer(t, 3, rare, func(c *council) {
		old := c.picture(1, "ready", 1)
		c.Promote(c.Node(2))
		c.say(2, "ready", 2)
		synctest.Wait()
		for _, companion := range c.companions {
			old.Term, old.Seq = 9, c.seq+100 // as if a newer leader had not read all of the log
			companion.Say(old)
		}
		synctest.Wait()
		for range 5 {
			c.exec(c.Context(), c.db, insert)
		}
		c.wantExecuted(insert, "n2", "n2", "n2", "n2", "n2")
	})
}

func TestWithoutCompanionsProbesGoOn(t *testing.T) {
	confer(t, 3, "lsn=eager", func(c *council) {
		c.say(1, "ready", 1, holding)
		synctest.Wait()
		for _, companion := range c.companions {
			companion.Refuse(true)
		}
		c.within(2*time.Second+trip, "a write while companions that had it wait are away", func() {
			c.exec(c.Context(), c.db, insert)
		})
		if got := c.cluster.Status().Companion; got.Heard || got.Hold || got.Epoch != 1 || got.Reason == "" {
			t.Errorf("Status().Companion = %+v", got)
		}
		c.Node(1).Kill()
		c.Promote(c.Node(2))
		c.exec(c.Context(), c.db, insert)
		c.wantExecuted(insert, "n1", "n2")
		c.companions[2].Refuse(false)
		c.say(2, "ready", 2)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := c.cluster.Status().Companion; !got.Heard || got.Epoch != 2 || got.Address != "c3:7101" {
			t.Errorf("Status().Companion = %+v, want c3 with epoch 2", got)
		}
	})
}

func TestOneBulletinReachesAHundredDrivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := convene(t, 3)
		defer c.end()
		c.say(1, "ready", 1)
		var drivers []*council
		for range 100 {
			d := &council{stage: &stage{T: t, Cluster: c.Cluster}, companions: c.companions}
			d.open(rare+"&companion="+c.list(), WithDialFunc(c.dial))
			drivers = append(drivers, d)
		}
		var heard sync.WaitGroup
		c.Promote(c.Node(3))
		said := time.Now()
		for _, d := range drivers {
			heard.Go(func() {
				for d.cluster.routes.Load().primary != d.cluster.routes.Load().byName["n3"] {
					<-d.cluster.routes.Load().replaced
				}
				if took := time.Since(said); took != 0 {
					t.Errorf("it took %v", took)
				}
			})
		}
		c.say(2, "ready", 3)
		heard.Wait()
		for _, d := range drivers {
			if err := d.db.Close(); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(trip)
		synctest.Wait()
	})
}

// A switchover under load is a pause and nothing else.
func TestASwitchoverIsSeenByNobody(t *testing.T) {
	confer(t, 3, "lsn=eager", func(c *council) {
		stop := make(chan struct{})
		var clients sync.WaitGroup
		for i := range 8 {
			clients.Go(func() { c.live(i, stop) })
		}
		for epoch := uint64(2); epoch < 5; epoch++ {
			from, to := int(epoch)%2+1, int(epoch+1)%2+1
			if c.Node(from) != c.Primary() {
				from, to = to, from
			}
			time.Sleep(time.Second)
			c.say(epoch-1, "ready", from, holding)
			time.Sleep(3 * trip) // what was sent is answered
			c.Node(from).Shutdown()
			c.say(epoch, "fenced", 0)
			time.Sleep(70 * time.Millisecond)
			c.Promote(c.Node(to))
			c.say(epoch, "ready", to)
			time.Sleep(200 * time.Millisecond)
			c.Node(from).Follow(c.Node(to))
			c.Node(from).Start()
			c.say(epoch, "ready", to)
		}
		close(stop)
		clients.Wait()
	})
}

// live writes and reads its writes until stop is closed.
func (c *council) live(i int, stop <-chan struct{}) {
	ctx := WithSession(c.Context(), NewSession())
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(20+i) * time.Millisecond):
		}
		before := c.Primary().Position().LSN
		if _, err := c.db.ExecContext(ctx, insert); err != nil {
			c.Errorf("the write of client %d: %v", i, err)
			return
		}
		var seen int64
		if err := c.db.QueryRowContext(ctx, visible).Scan(&seen); err != nil || wal.LSN(seen) < before {
			c.Errorf("the read of client %d: %v, it saw %s and has written behind %s", i, err, wal.LSN(seen), before)
			return
		}
	}
}

func TestExplainAndStatusTellOfTheCompanion(t *testing.T) {
	confer(t, 2, rare, func(c *council) {
		time.Sleep(40 * time.Millisecond)
		route, err := c.cluster.Explain(c.Context(), insert)
		if want := " says epoch 1, heard 40ms ago"; err != nil || !strings.HasSuffix(route.Companion, want) {
			t.Errorf("Explain() = %+v, %v; want %q at the end", route, err, want)
		}
		st := c.cluster.Status().Companion
		if st.Address == "" || st.Name != st.Address || !st.Heard || st.Hold || st.Bulletins == 0 {
			t.Errorf("Status().Companion = %+v", st)
		}
		c.say(1, "ready", 1, holding)
		synctest.Wait()
		if st := c.cluster.Status().Companion; !st.Hold || !strings.Contains(st.String(), "writes wait") {
			t.Errorf("Status().Companion = %+v", st)
		}
	})
	play(t, 2, rare, func(s *stage) {
		if st := s.cluster.Status().Companion; st != nil {
			t.Errorf("without companions Status().Companion = %+v", st)
		}
	})
}
