package consensus_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/failover/consensus"
)

// lose closes the nodes named, and forgets them.
func (c *cluster) lose(names ...string) {
	c.t.Helper()
	for _, name := range names {
		ok(c.t, c.members[name].Close())
		delete(c.members, name)
	}
}

func TestALostMajorityIsNamedAndLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		number := highest(c.lead().State())
		survivor := c.members["n2"]
		c.lose("n1", "n3")
		ok(t, survivor.Close())

		left, err := consensus.Recover(consensus.Recovery{Dir: survivor.dir, Name: "n2", Lost: []string{"n1", "n3"}})
		ok(t, err)
		if len(left) != 1 || left[0] != (consensus.Server{Name: "n2", Address: "n2:7101", Voter: true}) {
			t.Errorf("Recover = %+v, want n2 alone", left)
		}
		c.open("n2")
		leader := c.lead()
		if got := highest(leader.State()); got != number {
			t.Errorf("after it the number is %d, want %d", got, number)
		}
		// A new node takes the place of a lost one.
		ok(t, leader.AddVoter(c.within(time.Minute), "n3", c.open("n3").addr))
		c.agree(leader)
	})
}

func TestSeveralSurvivorsAreRecoveredAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3", "n4", "n5")
		number := highest(c.lead().State())
		c.lose("n3", "n4", "n5")
		for _, name := range []string{"n1", "n2"} {
			ok(t, c.members[name].Close())
			_, err := consensus.Recover(consensus.Recovery{
				Dir: c.members[name].dir, Name: name, Lost: []string{"n3", "n4", "n5"},
				Addresses: map[string]string{"n2": "elsewhere:7101"},
			})
			ok(t, err)
		}
		c.open("n1")
		c.openAt("n2", "elsewhere:7101")
		leader := c.lead()
		if got := highest(leader.State()); got != number {
			t.Errorf("after it the number is %d, want %d", got, number)
		}
		c.agree(leader)
	})
}

func TestRecoveryIsRefusedUnlessItIsNeededAndMeant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		dir := c.members["n1"].dir
		_, err := consensus.Recover(consensus.Recovery{Dir: dir, Name: "n1", Lost: []string{"n2", "n3"}})
		wants(t, "Recover of a node that runs", err, consensus.ErrInUse)
		for _, m := range c.members {
			ok(t, m.Close())
		}
		for name, tt := range map[string]struct {
			recovery consensus.Recovery
			want     string
		}{
			"one of three is lost":         {consensus.Recovery{Name: "n1", Lost: []string{"n2"}}, "2 of 3 voters are left"},
			"nobody is lost":               {consensus.Recovery{Name: "n1"}, "3 of 3 voters are left"},
			"who is lost is no member":     {consensus.Recovery{Name: "n1", Lost: []string{"n2", "n3", "n7"}}, "no n7"},
			"the survivor itself is lost":  {consensus.Recovery{Name: "n1", Lost: []string{"n1", "n3"}}, "n1 is no member"},
			"the survivor is no member":    {consensus.Recovery{Name: "n8", Lost: []string{"n2", "n3"}}, "n8 is no member"},
			"all members, and none is own": {consensus.Recovery{Name: "", Lost: []string{"n1", "n2", "n3"}}, "LocalID"},
		} {
			tt.recovery.Dir = dir
			if _, err := consensus.Recover(tt.recovery); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: Recover = %v, want %q", name, err, tt.want)
			}
		}
		for name := range c.members {
			c.open(name)
		}
		c.agree(c.lead())
	})
}

func TestAllMayHaveNewAddressesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		addresses := map[string]string{"n1": "a:1", "n2": "b:1", "n3": "c:1"}
		for _, m := range c.members {
			ok(t, m.Close())
		}
		for name, addr := range addresses {
			_, err := consensus.Recover(consensus.Recovery{Dir: c.members[name].dir, Name: name, Addresses: addresses})
			ok(t, err)
			c.openAt(name, addr)
		}
		c.agree(c.lead())
	})
}

func TestANonvoterThatSurvivesGetsTheVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		withNonvoters(t, c)
		dir := c.members["n4"].dir
		c.lose("n1", "n2", "n3", "n5")
		ok(t, c.members["n4"].Close())
		_, err := consensus.Recover(consensus.Recovery{Dir: dir, Name: "n4", Lost: []string{"n1", "n2", "n3", "n5"}})
		ok(t, err)
		c.open("n4")
		c.agree(c.lead())
	})
}
