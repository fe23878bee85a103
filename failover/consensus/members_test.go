package consensus_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/heliosdb/helios/failover/consensus"
)

func TestANodeMayMoveToAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		name := c.others(leader)[0].name
		ok(t, c.members[name].Close())
		moved := c.openAt(name, "elsewhere:7101")
		ok(t, leader.AddVoter(c.within(time.Minute), name, moved.addr))
		c.agree(leader)

		ok(t, leader.Transfer(c.within(time.Minute), name))
		if got := c.lead(); got != moved {
			t.Errorf("%s leads, want %s", got.name, name)
		}
		if got := len(moved.Servers()); got != 3 {
			t.Errorf("Servers() has %d, want 3", got)
		}
	})
}

func TestNodesComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		n4 := c.open("n4")
		ok(t, leader.AddVoter(c.within(time.Minute), "n4", n4.addr))
		c.agree(leader)

		gone := c.others(leader)[0]
		ok(t, leader.Remove(c.within(time.Minute), gone.name))
		gone.apart = true // only here: it reaches everybody
		time.Sleep(time.Minute)
		if got := c.lead(); got != leader {
			t.Errorf("the node that was removed disturbed: %s leads, want %s", got.name, leader.name)
		}
		gone.apart = false
		ok(t, leader.AddVoter(c.within(time.Minute), gone.name, gone.addr))
		c.agree(leader)

		ok(t, leader.Remove(c.within(time.Minute), leader.name))
		leader.apart = true
		next := c.lead()
		c.agree(next)
		if got := len(next.Servers()); got != 3 {
			t.Errorf("Servers() has %d, want 3", got)
		}
		wants(t, "Propose at a leader that was removed", leader.Propose(t.Context(), numbered(7)), consensus.ErrNotLeader)
	})
}

func TestANodeThatDoesNotAnswerIsNotAdded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1")
		leader := c.lead()
		if err := leader.AddVoter(c.within(time.Minute), "n2", "nowhere:1"); err == nil {
			t.Error("AddVoter of a node that does not answer succeeded")
		}
		c.open("n3")
		wants(t, "AddVoter of n2 at n3's address", leader.AddVoter(c.within(time.Minute), "n2", "n3:7101"), consensus.ErrOtherNode)
		wants(t, "AddNonvoter of n2 at n3's address", leader.AddNonvoter(c.within(time.Minute), "n2", "n3:7101"), consensus.ErrOtherNode)
		ok(t, leader.Propose(c.within(time.Second), numbered(7)))
		if got := len(leader.Servers()); got != 1 {
			t.Errorf("Servers() has %d, want 1", got)
		}
	})
}

// withNonvoters adds two nodes without a vote to a cluster of three.
func withNonvoters(t *testing.T, c *cluster) {
	t.Helper()
	for _, name := range []string{"n4", "n5"} {
		ok(t, c.lead().AddNonvoter(c.within(time.Minute), name, c.open(name).addr))
	}
	c.agree(c.lead())
}

func TestANonvoterHearsTheLogAndNeverVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		withNonvoters(t, c)
		leader := c.lead()
		if err := leader.Transfer(t.Context(), "n4"); err == nil {
			t.Error("leadership was handed to a node without a vote")
		}
		// Two of three voters are gone: what is left are three of five nodes.
		for _, m := range c.others(leader) {
			if m.name < "n4" {
				c.cut(m)
			}
		}
		wants(t, "Propose with one voter of three", leader.Propose(c.within(time.Minute), numbered(666)), consensus.ErrLeadershipLost)
		time.Sleep(time.Minute)
		for _, m := range c.members {
			wants(t, m.name+": Verify with one voter of three", m.Verify(c.within(time.Minute)), consensus.ErrNotLeader)
		}
	})
}

func TestNonvotersDoNotMakeALeaderSureOfItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		withNonvoters(t, c)
		leader := c.lead()
		for _, m := range c.others(leader) {
			if m.name < "n4" {
				leader.transport.Disconnect(raft.ServerAddress(m.addr))
				m.transport.Disconnect(raft.ServerAddress(leader.addr))
			}
		}
		time.Sleep(time.Millisecond) // what was sent at this very instant is an answer to whoever asks now
		// Raft counts the two non-voters that still follow, which is why Verify does not ask it alone.
		if err := leader.VerifyAsRaftDoes(); err != nil {
			t.Logf("raft does not count non-voters any more: %v", err)
		}
		if err := leader.Verify(c.within(time.Minute)); !errors.Is(err, consensus.ErrNotLeader) && !errors.Is(err, consensus.ErrLeadershipLost) {
			t.Errorf("Verify = %v with one voter of three; want ErrNotLeader", err)
		}
	})
}

func TestAVoteIsGivenAndTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		withNonvoters(t, c)
		leader := c.lead()
		voters := func() (n int) {
			for _, s := range leader.Servers() {
				if s.Voter {
					n++
				}
			}
			return n
		}
		ok(t, leader.AddVoter(c.within(time.Minute), "n4", "n4:7101"))
		if got := voters(); got != 4 {
			t.Errorf("%d voters, want 4", got)
		}
		ok(t, leader.AddNonvoter(c.within(time.Minute), "n4", "n4:7101"))
		if got := voters(); got != 3 {
			t.Errorf("%d voters, want 3", got)
		}
		c.agree(leader)
	})
}
