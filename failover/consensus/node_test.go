package consensus_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/failover/consensus"
)

func TestVotersElectALeaderAndAgree(t *testing.T) {
	for name, voters := range map[string][]string{
		"alone":           {"n1"},
		"two":             {"n1", "n2"},
		"three":           {"n1", "n2", "n3"},
		"as many as five": {"n1", "n2", "n3", "n4", "n5"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, voters...)
				if got := len(c.lead().Servers()); got != len(voters) {
					t.Errorf("Servers() has %d, want %d", got, len(voters))
				}
			})
		})
	}
}

func TestALostLeaderIsReplacedAndNothingIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		old := c.lead()
		term, state := old.Term(), highest(old.State())
		lost := time.Now()
		ok(t, old.Close())
		delete(c.members, old.name)
		t.Cleanup(func() { ok(t, old.Close()) })

		leader := c.lead()
		if took := time.Since(lost); took > 3*time.Second {
			t.Errorf("the new leader took %v, want at most a few times 500ms", took)
		}
		if leader.Term() <= term || highest(leader.State()) != state {
			t.Errorf("term %d and number %d; want more than %d, and %d", leader.Term(), highest(leader.State()), term, state)
		}
		c.agree(leader)
	})
}

func patienceOf(leader bool) time.Duration {
	if leader {
		return 1800 * time.Millisecond
	}
	return 500 * time.Millisecond
}

// Followers are as patient as ever: what a leader saves in heartbeats does not make
// an election slower.
func TestOnlyALeaderIsCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		patience := func(leader *member) func() bool {
			return func() bool {
				return c.every(func(m *member) bool {
					return m.Patience() == patienceOf(m == leader)
				})
			}
		}
		first := c.lead()
		eventually(t, "heartbeats of the first leader", patience(first))
		ok(t, first.Transfer(c.within(time.Minute), ""))
		next := c.lead()
		eventually(t, "heartbeats of the next leader", patience(next))
		if next == first {
			t.Error("the first leader leads")
		}
	})
}

func TestALeaderThatIsCutOffCommitsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		old := c.lead()
		c.cut(old)
		wants(t, "Propose at a leader without followers", old.Propose(c.within(time.Minute), numbered(666)), consensus.ErrLeadershipLost)
		if err := old.Verify(c.within(time.Minute)); !errors.Is(err, consensus.ErrNotLeader) {
			t.Errorf("Verify = %v, want ErrNotLeader", err)
		}

		c.agree(c.lead())
		if has(old.State(), 666) {
			t.Error("what no majority has was applied")
		}
		c.heal(old)
		c.agree(c.lead())
		if !c.every(func(m *member) bool { return !has(m.State(), 666) }) {
			t.Error("what the lost leader had proposed came to be committed")
		}
	})
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		c.cut(leader)
		err := leader.Verify(c.within(20 * time.Millisecond))
		wants(t, "Verify within 20ms", err, errTimeout)
		err = leader.Propose(c.within(20*time.Millisecond), numbered(7))
		wants(t, "Propose within 20ms", err, errTimeout)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		wants(t, "Propose in a context that has ended", leader.Propose(ended, numbered(8)), context.Canceled)
	})
}

func TestAFollowerThatComesBackDisturbsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		term := leader.Term()
		away := c.others(leader)[0]
		c.cut(away)
		time.Sleep(time.Minute)
		c.agree(leader)
		if highest(away.State()) == highest(leader.State()) {
			t.Error("a node that is cut off knows what was committed")
		}
		c.heal(away)
		c.agree(leader)
		if leader.Term() != term {
			t.Errorf("there was an election: term %d, want %d", leader.Term(), term)
		}
	})
}

func TestAProposalElsewhereSaysWhereToGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		for _, follower := range c.others(leader) {
			for call, err := range map[string]error{
				"Propose":  follower.Propose(t.Context(), numbered(7)),
				"Verify":   follower.Verify(t.Context()),
				"Transfer": follower.Transfer(t.Context(), ""),
				"AddVoter": follower.AddVoter(t.Context(), "n4", "n4:7101"),
				"Remove":   follower.Remove(t.Context(), leader.name),
			} {
				other, is := errors.AsType[*consensus.NotLeaderError](err)
				if !is || other.Leader != leader.name || other.Address != leader.addr {
					t.Errorf("%s = %v, want a NotLeaderError with %s at %s", call, err, leader.name, leader.addr)
				}
			}
		}
	})
}

func TestWhatTheStateDoesNotAllowIsRefusedWithItsReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		before, replaced := leader.Watch()
		err := leader.Propose(t.Context(), refused())
		if refusal, is := errors.AsType[*consensus.RefusedError](err); !is || refusal.Err == nil {
			t.Errorf("Propose = %v, want a RefusedError with a reason", err)
		}
		select {
		case <-replaced:
			t.Error("a refused command woke those who watch")
		default:
		}
		if leader.State() != before {
			t.Error("a refused command changed the state")
		}
		c.agree(leader)
	})
}

func TestWhoWatchesIsToldOfEveryState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		follower := c.others(leader)[0]
		state, replaced := follower.Watch()
		ok(t, leader.Propose(t.Context(), numbered(70)))
		<-replaced
		next, _ := follower.Watch()
		if has(state, 70) || !has(next, 70) {
			t.Errorf("before: %v, after: %v; want 70 in the second only", has(state, 70), has(next, 70))
		}
	})
}

func TestAfterARestartLeadershipComesWithTheWholeState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		ok(t, leader.Snapshot())
		for number := 10; number < 30; number++ {
			ok(t, leader.Propose(t.Context(), numbered(number)))
		}
		for _, m := range c.members {
			ok(t, m.Close())
		}
		for name := range c.members {
			m := c.open(name)
			if m.Fresh() || has(m.State(), 29) {
				t.Errorf("%s: Fresh() = %v, and the newest state is known: %v; want neither before there is a leader", name, m.Fresh(), has(m.State(), 29))
			}
			select {
			case leads := <-m.Leadership():
				t.Errorf("%s: leadership is %v before others could vote", name, leads)
			default:
			}
		}
		leader = c.lead()
		if leads := <-leader.Leadership(); !leads || highest(leader.State()) != 29 {
			t.Errorf("leadership is %v with number %d; want true with 29", leads, highest(leader.State()))
		}
		for _, m := range c.others(leader) {
			select {
			case leads := <-m.Leadership():
				t.Errorf("%s follows, and hears that leadership is %v", m.name, leads)
			default:
			}
		}
		c.agree(leader)
	})
}

func TestALaggardGetsTheSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		away := c.others(leader)[0]
		c.cut(away)
		c.agree(leader)
		ok(t, leader.Snapshot())
		c.heal(away)
		c.agree(leader)
		if got, want := len(away.State().Members), len(leader.State().Members); got != want {
			t.Errorf("the snapshot has %d members, want %d", got, want)
		}
	})
}

func TestLeadershipIsHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		next := c.others(leader)[1]
		if leads := <-leader.Leadership(); !leads {
			t.Error("the leader hears that it does not lead")
		}
		began := time.Now()
		ok(t, leader.Transfer(c.within(time.Minute), next.name))
		if leads := <-leader.Leadership(); leads {
			t.Error("who handed over leadership hears that it leads")
		}
		if got := c.lead(); got != next {
			t.Errorf("%s leads, want %s", got.name, next.name)
		}
		if took := time.Since(began); took > 200*time.Millisecond {
			t.Errorf("it took %v, which is as long as an election", took)
		}
		if leads := <-next.Leadership(); !leads {
			t.Error("the new leader hears that it does not lead")
		}

		if err := next.Transfer(t.Context(), "n9"); err == nil {
			t.Error("Transfer to a stranger succeeded")
		}
		ok(t, next.Transfer(c.within(time.Minute), ""))
		if got := c.lead(); got == next {
			t.Errorf("%s leads still", got.name)
		}
	})
}

func TestAClosedNodeSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1")
		n := c.lead()
		ok(t, n.Close())
		wants(t, "Propose", n.Propose(t.Context(), numbered(7)), consensus.ErrClosed)
		wants(t, "Verify", n.Verify(t.Context()), consensus.ErrClosed)
		for range n.Leadership() {
		}
		ok(t, n.Close())
		if n.State() == nil {
			t.Error("State() is nil")
		}
	})
}

func TestCloseAnswersWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		answers := make(chan error, 20)
		for i := range cap(answers) {
			go func() { answers <- leader.Propose(context.Background(), numbered(100+i)) }()
		}
		ok(t, leader.Close())
		for range cap(answers) {
			err := <-answers
			if err != nil && !errors.Is(err, consensus.ErrClosed) && !errors.Is(err, consensus.ErrLeadershipLost) {
				t.Errorf("Propose = %v; want nil, ErrClosed or ErrLeadershipLost", err)
			}
		}
	})
}

func TestTheStoreIsItsOwnersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1")
		dir := c.members["n1"].dir
		info, err := os.Stat(dir)
		ok(t, err)
		if got := info.Mode().Perm(); got != 0o700 {
			t.Errorf("mode %o, want 700", got)
		}
		_, err = consensus.Open(consensus.Config{Name: "n1", Dir: dir, Transport: c.members["n1"].transport})
		wants(t, "Open of a directory that is open", err, consensus.ErrInUse)
	})
}

func TestWhatIsMissingInAConfigIsSaid(t *testing.T) {
	for name, c := range map[string]consensus.Config{
		"everything":      {},
		"a way to others": {Name: "n1", Dir: "d"},
	} {
		if _, err := consensus.Open(c); err == nil {
			t.Errorf("Open without %s succeeded", name)
		}
	}
	if _, err := consensus.TimingsOf("moon"); err == nil {
		t.Error(`TimingsOf("moon") succeeded`)
	}
	for _, profile := range []string{"", "lan", "lan-fast", "wan"} {
		if timings, err := consensus.TimingsOf(profile); err != nil || timings.LeaderLease > timings.Heartbeat {
			t.Errorf("TimingsOf(%q) = %+v, %v", profile, timings, err)
		}
	}
}

func TestAClusterIsFoundedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2")
		for _, m := range c.members {
			err := m.Bootstrap(t.Context(), failover.Member{Name: m.name})
			wants(t, m.name+": Bootstrap of a member", err, consensus.ErrExists)
		}
		fresh := c.open("n3")
		if !fresh.Fresh() {
			t.Error("Fresh() of a node that was never added is false")
		}
		if err := fresh.Bootstrap(t.Context(), failover.Member{Name: "n4"}); err == nil {
			t.Error("n3 founded a cluster for n4")
		}
	})
}
