package consensus

import (
	"fmt"
	"time"
)

// Timings say how long the log's followers wait for its leader. The shorter,
// the sooner a lost leader is replaced, and the sooner a machine that is merely
// busy is taken for lost.
type Timings struct {
	Heartbeat   time.Duration // a follower that hears nothing for so long, or up to twice as long, wants an election
	Election    time.Duration // and one that gets no majority tries again after as long; at least Heartbeat
	LeaderLease time.Duration // a leader that hears of no majority for so long gives up; at most Heartbeat
}

// TimingsOf returns the timings of a profile: "lan" ("" is the same), "lan-fast"
// for quiet machines on one switch, or "wan".
func TimingsOf(profile string) (Timings, error) {
	switch profile {
	case "", "lan":
		return Timings{Heartbeat: 500 * time.Millisecond, Election: 500 * time.Millisecond, LeaderLease: 400 * time.Millisecond}, nil
	case "lan-fast":
		return Timings{Heartbeat: 150 * time.Millisecond, Election: 150 * time.Millisecond, LeaderLease: 120 * time.Millisecond}, nil
	case "wan":
		return Timings{Heartbeat: 3 * time.Second, Election: 3 * time.Second, LeaderLease: 2400 * time.Millisecond}, nil
	}
	return Timings{}, fmt.Errorf("consensus: no timings %q: there are lan-fast, lan and wan", profile)
}

// leading returns the timings of a node while it leads. Raft's leader sends heartbeats
// every tenth to fifth of its own Heartbeat, which are most of what a quiet cluster
// costs: twice as long leaves two to five of them to the shortest patience of a follower.
func (t Timings) leading() Timings {
	t.Heartbeat, t.Election = 2*t.Heartbeat, 2*t.Election
	return t
}

// lazyCommit bounds how much later than the leader a follower knows that the
// last of several entries is committed, half of it at least. Raft tells by a message of its own,
// and each such message costs a few thousandths of a core in a second.
func (t Timings) lazyCommit() time.Duration { return min(t.Heartbeat/2, 250*time.Millisecond) }

// rpc is how long an answer of another node is waited for.
func (t Timings) rpc() time.Duration { return max(2*t.Heartbeat, time.Second) }
