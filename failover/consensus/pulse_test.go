package consensus_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// everyBeat is how often a leader sends heartbeats, at the timings of these clusters.
const everyBeat = 200 * time.Millisecond

// What a quiet leader says is said to all at once, and not more often than it has to be:
// each moment wakes the leader, and costs more than what is sent in it.
func TestAQuietLeaderSpeaksToAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWatched(t, "n1", "n2", "n3")
		leader := c.lead()
		time.Sleep(5 * time.Second)
		moments := map[time.Duration]int{}
		start := time.Now()
		leader.wire.onEach(func(raft.ServerID, *raft.AppendEntriesRequest) bool {
			moments[time.Since(start)]++
			return false
		})
		const seconds = 20
		time.Sleep(seconds * time.Second)
		leader.wire.onEach(nil)
		onBeat, alone := 0, 0
		for _, messages := range moments {
			if messages == 2 {
				onBeat++
			} else {
				alone++
			}
		}
		if beats := int(seconds * time.Second / everyBeat); onBeat < beats-1 || onBeat > beats+1 {
			t.Errorf("in %d s the leader spoke to both followers at %d moments, want %d", seconds, onBeat, beats)
		}
		if alone > 3*seconds {
			t.Errorf("in %d s the leader spoke to one follower alone at %d moments, want %d at most", seconds, alone, 3*seconds)
		}
	})
}

func TestFollowersSoonKnowWhatIsCommitted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		for number := 100; number < 110; number++ {
			time.Sleep(3 * time.Second)
			ok(t, leader.Propose(c.within(time.Minute), numbered(number)))
			c.spreads(number, 2*everyBeat+20*time.Millisecond)
		}
	})
}

// An entry that is lost on the way is sent again soon, though raft itself waits for longer.
func TestALostEntryIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWatched(t, "n1", "n2", "n3")
		leader := c.lead()
		for number := 100; number < 110; number++ {
			time.Sleep(3 * time.Second)
			lost := map[raft.ServerID]bool{}
			leader.wire.onEach(func(to raft.ServerID, m *raft.AppendEntriesRequest) bool {
				lose := len(m.Entries) > 0 && !lost[to]
				lost[to] = lost[to] || lose
				return lose
			})
			begun := time.Now()
			ok(t, leader.Propose(c.within(time.Minute), numbered(number)))
			leader.wire.onEach(nil)
			took := time.Since(begun)
			c.spreads(number, 3*everyBeat)
			if len(lost) != 2 || took > 3*everyBeat {
				t.Errorf("an entry that was lost on %d ways was committed after %v, want three beats at most", len(lost), took)
			}
		}
	})
}

// However long a node was away, it hears of the leader, and of what it missed, as soon as it is back.
func TestANodeThatComesBackHearsOfItSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		away := c.others(leader)[0]
		for _, gone := range []time.Duration{2 * time.Second, time.Minute} {
			c.cut(away)
			time.Sleep(gone)
			if name, _ := away.Leader(); name != "" {
				t.Fatalf("%s knows of %s, though nobody reaches it", away.name, name)
			}
			c.heal(away)
			back := time.Now()
			c.wait("leader on the node", func() bool { name, _ := away.Leader(); return name == leader.name })
			if took := time.Since(back); took > everyBeat+20*time.Millisecond {
				t.Errorf("away for %v, back for %v until it heard of the leader, want one beat at most", gone, took)
			}
		}
		if c.lead() != leader {
			t.Error("the node that came back has cost the leader its place")
		}
	})
}

// A node that was restarted knows nothing but its snapshot until it is told what is committed,
// though it has all entries.
func TestANodeThatWasRestartedSoonKnowsTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		for number, gone := range []time.Duration{50 * time.Millisecond, time.Second, time.Minute} {
			number += 100
			ok(t, leader.Propose(c.within(time.Minute), numbered(number)))
			time.Sleep(5 * time.Second)
			restarted := c.others(leader)[0]
			c.cut(restarted)
			ok(t, restarted.Close())
			time.Sleep(gone)
			restarted = c.open(restarted.name)
			back := time.Now()
			c.wait("the state on the node", func() bool { return has(restarted.State(), number) })
			// The transport waits a second for an answer to what was on its way when the node was closed.
			if took := time.Since(back); took > time.Second+4*everyBeat {
				t.Errorf("away for %v, back for %v until it knew the state, want 1.8 s at most", gone, took)
			}
		}
	})
}

// What does not get better is not tried as often for ever: each try is an entry on every disk.
func TestRepairsGrowRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWatched(t, "n1", "n2", "n3")
		leader := c.lead()
		time.Sleep(5 * time.Second)
		var first, last uint64
		leader.wire.onEach(func(_ raft.ServerID, m *raft.AppendEntriesRequest) bool {
			for _, e := range m.Entries {
				if first == 0 {
					first = e.Index
				}
				last = max(last, e.Index)
			}
			return len(m.Entries) > 0
		})
		proposed := make(chan error, 1)
		go func() { proposed <- leader.Propose(c.within(5*time.Minute), numbered(100)) }()
		time.Sleep(2 * time.Minute)
		leader.wire.onEach(nil)
		if tries := last - first; tries < 5 || tries > 20 {
			t.Errorf("in two minutes in which no entry arrived there were %d more, want 5 to 20", tries)
		}
		begun := time.Now()
		ok(t, <-proposed)
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("committed %v after entries arrived again, want 15 s at most", took)
		}
	})
}

// While leadership is handed over nothing is decided: one that nobody takes ends soon.
func TestATransferToNobodyEndsSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWatched(t, "n1", "n2", "n3")
		leader := c.lead()
		time.Sleep(5 * time.Second)
		to := c.others(leader)[0]
		leader.wire.onEach(func(id raft.ServerID, m *raft.AppendEntriesRequest) bool {
			return string(id) == to.name && len(m.Entries) > 0
		})
		ok(t, leader.Propose(c.within(time.Minute), numbered(100)))
		begun := time.Now()
		if err := leader.Transfer(c.within(time.Minute), to.name); err == nil {
			t.Fatal("leadership went to a node that lacks an entry")
		}
		c.decides(leader, 101, begun)
	})
}

// Nor does one to a node that is away and lacks something keep the log from going on, however often
// it is tried.
func TestTransfersToANodeThatIsAwayLeaveALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		leader := c.lead()
		away := c.others(leader)[0]
		c.cut(away)
		ok(t, leader.Propose(c.within(time.Minute), numbered(100)))
		time.Sleep(5 * time.Second)
		for range 3 {
			if err := leader.Transfer(c.within(time.Minute), away.name); err == nil {
				t.Fatal("leadership went to a node that is away")
			}
		}
		c.decides(leader, 101, time.Now())
		c.heal(away)
		c.agree(c.lead())
	})
}
