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
		return Timings{Heartbeat: 500 * time.Millisecond, Election: 500 * time.Millisecond, LeaderLease: 500 * time.Millisecond}, nil
	case "lan-fast":
		return Timings{Heartbeat: 150 * time.Millisecond, Election: 150 * time.Millisecond, LeaderLease: 150 * time.Millisecond}, nil
	case "wan":
		return Timings{Heartbeat: 3 * time.Second, Election: 3 * time.Second, LeaderLease: 3 * time.Second}, nil
	}
	return Timings{}, fmt.Errorf("consensus: no timings %q: there are lan-fast, lan and wan", profile)
}

// beat is how often a leader sends heartbeats: two or more within the shortest patience
// of a follower, and within LeaderLease.
func (t Timings) beat() time.Duration { return t.Heartbeat * 2 / 5 }

// look is how often a leader looks whether a follower lacks something.
func (t Timings) look() time.Duration { return min(t.beat(), 200*time.Millisecond) }

// A tempo is what a node's timings depend on.
type tempo struct {
	leads     bool // by raft's word
	pulse     bool // and there are others that vote: raft's VerifyLeader sends heartbeats
	transfers int  // of leadership, under way
}

// at returns the timings of a node at a tempo. Raft's own leader sends each follower a
// heartbeat every tenth to fifth of its Heartbeat since the last one: with a pulse, that is
// seldom before the next of its own but while it waits for its disk. A transfer of leadership may
// take Election, twice, during which nothing is decided.
func (t Timings) at(now tempo) Timings {
	switch {
	case now.leads && now.pulse && now.transfers == 0:
		t.Heartbeat, t.Election = 9*t.beat(), 9*t.beat()
	case now.leads:
		t.Heartbeat, t.Election = 2*t.Heartbeat, 2*t.Election
	}
	return t
}

// lazyCommit is how often raft itself makes sure that a follower has all entries and knows
// which are committed, twice as seldom at most. It does so for each follower at a time of its
// own, and is behind what [pulse] does together.
const lazyCommit = 2 * time.Second

// rpc is how long an answer of another node is waited for.
func (t Timings) rpc() time.Duration { return max(2*t.Heartbeat, time.Second) }
