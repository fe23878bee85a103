package agent

import (
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// fakeQuorum is what standbys have, best first.
type fakeQuorum struct {
	has  map[string]wal.LSN
	head wal.Position
}

func (f *fakeQuorum) Position() wal.Position { return f.head }

func (f *fakeQuorum) Quorum(k int, names []string) relay.Confirmation {
	var best []wal.LSN
	for _, name := range names {
		if at, ok := f.has[name]; ok {
			best = append(best, at)
		}
	}
	if len(best) < k {
		return relay.Confirmation{}
	}
	for i := range best {
		for j := range best {
			if best[i] > best[j] {
				best[i], best[j] = best[j], best[i]
			}
		}
	}
	return relay.Confirmation{Write: best[k-1], Flush: best[k-1], Apply: best[k-1]}
}

// A gateTest is the gate of the primary of epoch 1 with a lease from 10 s to 12 s.
type gateTest struct {
	*gate
	now      time.Duration
	standbys *fakeQuorum
	said     int // how often it was said that a set is settled
}

func newGateTest() *gateTest {
	g := &gateTest{now: 11 * time.Second, standbys: &fakeQuorum{has: map[string]wal.LSN{}, head: wal.Position{Timeline: 1, LSN: 1000}}}
	g.gate = &gate{clock: func() time.Duration { return g.now }, lease: new(Lease), standbys: g.standbys, settled: func() { g.said++ }}
	g.at("local")
	g.reign(1)
	g.lease.Grant(10*time.Second, 2*time.Second, 1)
	return g
}

func (g *gateTest) ask() wal.LSN {
	return g.confirm(relay.Question{Source: "local", Timeline: g.standbys.head.Timeline, Head: g.standbys.head.LSN}).Flush
}

func TestTheGateConfirmsWhileTheLeaseHolds(t *testing.T) {
	for name, tt := range map[string]struct {
		edit func(*gateTest)
		want wal.LSN
	}{
		"what has arrived":                  {func(g *gateTest) { g.use(1, async) }, 1000},
		"before it is known for whom":       {func(*gateTest) {}, 0},
		"for another epoch":                 {func(g *gateTest) { g.use(2, async) }, 0},
		"what one of two has":               {func(g *gateTest) { g.use(1, failover.SyncSet{Members: []string{"n2", "n3"}, K: 1}) }, 900},
		"what both have":                    {func(g *gateTest) { g.use(1, failover.SyncSet{Members: []string{"n2", "n3"}, K: 2}) }, 800},
		"what more have than there are":     {func(g *gateTest) { g.use(1, failover.SyncSet{Members: []string{"n2", "n4"}, K: 2}) }, 0},
		"what one has that is not in it":    {func(g *gateTest) { g.use(1, semisync("n3")) }, 800},
		"no more than what has arrived":     {func(g *gateTest) { g.use(1, semisync("n2")); g.standbys.head.LSN = 850 }, 850},
		"not after its end":                 {func(g *gateTest) { g.use(1, async); g.now = 12 * time.Second }, 0},
		"not after it was given back":       {func(g *gateTest) { g.use(1, async); g.lease.GiveBack(g.now) }, 0},
		"not after a fence":                 {func(g *gateTest) { g.use(1, async); g.fence(2) }, 0},
		"after a fence, at an orderly stop": {func(g *gateTest) { g.use(1, async); g.fence(2); g.stopping(true) }, 1000},
		"not without a lease, at an orderly stop": {
			func(g *gateTest) { g.use(1, async); g.fence(2); g.stopping(true); g.now = 12 * time.Second }, 0,
		},
		"not for a standby":        {func(g *gateTest) { g.use(1, async); g.reign(0) }, 0},
		"not the epoch's before":   {func(g *gateTest) { g.use(1, async); g.reign(2); g.use(2, async) }, 0},
		"not to anybody elsewhere": {func(g *gateTest) { g.use(1, async); g.at("another") }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateTest()
			g.standbys.has["n2"], g.standbys.has["n3"] = 900, 800
			tt.edit(g)
			if got := g.ask(); got != tt.want {
				t.Errorf("%s is confirmed, want %s", got, tt.want)
			}
		})
	}
}

func TestWhatWasConfirmedIsNeverTakenBack(t *testing.T) {
	g := newGateTest()
	g.use(1, async)
	if got := g.ask(); got != 1000 {
		t.Fatalf("%s is confirmed, want 1000", got)
	}
	g.standbys.head.LSN = 2000
	g.now = 12 * time.Second
	if got := g.ask(); got != 1000 {
		t.Errorf("%s is confirmed without a lease, want 1000", got)
	}
	g.lease.Grant(g.now, time.Second, 1)
	g.use(1, semisync("n2"))
	g.standbys.has["n2"] = 500
	if got := g.ask(); got != 1000 {
		t.Errorf("%s is confirmed with a standby at 500, want 1000", got)
	}
	g.standbys.has["n2"] = 1500
	if got := g.ask(); got != 1500 {
		t.Errorf("%s is confirmed with a standby at 1500, want that", got)
	}
	g.standbys.head = wal.Position{Timeline: 2, LSN: 1800}
	g.now = time.Minute
	if got := g.ask(); got != 0 {
		t.Errorf("%s is confirmed of a new timeline without a lease, want nothing", got)
	}
}

func TestASetIsSettledWhenItHasWhatWasConfirmedWithoutIt(t *testing.T) {
	g := newGateTest()
	if got := g.state(); got.Settled || got.Set.K != 0 {
		t.Errorf("the state is %+v before there is a set", got)
	}
	g.use(1, async)
	if got := g.state(); !got.Settled {
		t.Errorf("the state is %+v, want a set of nobody settled", got)
	}
	set := semisync("n2", "n3")
	g.use(1, set)
	g.standbys.has["n2"] = 999
	if got := g.state(); got.Settled || got.Changed != 1000 || !sameSet(got.Set, set) {
		t.Errorf("the state is %+v, want it not settled before 1000", got)
	}
	g.standbys.head.LSN = 5000
	g.use(1, set) // the same again changes nothing
	g.standbys.has["n3"] = 1000
	g.ask()
	g.ask()
	if g.said != 1 {
		t.Errorf("it was said %d times that a set is settled, want once", g.said)
	}
	if got := g.state(); !got.Settled || got.Changed != 1000 {
		t.Errorf("the state is %+v, want it settled at 1000", got)
	}
	g.use(1, semisync("n2"))
	if got := g.state(); got.Settled || got.Changed != 5000 {
		t.Errorf("the state is %+v, want it not settled before 5000", got)
	}
	g.reign(2)
	if got := g.state(); got.Settled || got.Changed != 0 {
		t.Errorf("the state is %+v in a new epoch, want none", got)
	}
}
