package agent

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
)

// An island is a node, and what its companion hears when it asks all others.
type island struct {
	*testNode
	m     *team
	hears atomic.Pointer[Around]
	asked atomic.Int64 // how often
}

// island makes a node that is the primary of a cluster of three, and was started.
func (m *team) island(fencing string) *island {
	m.t.Helper()
	i := &island{m: m}
	i.hears.Store(&Around{Voters: 3})
	i.testNode = m.add("n1", func(c *Config) {
		c.Fencing, c.HardStopGrace = fencing, 300*time.Millisecond
		c.Around = func(context.Context) Around { i.asked.Add(1); return *i.hears.Load() }
	})
	m.found(async)
	i.exec("CREATE TABLE t (i int)")
	return i
}

// cut separates the node from the leader, so that it hears that of the others.
func (i *island) cut(hears Around) {
	i.hears.Store(&hears)
	i.m.cut("n1", true)
}

// staysWhileAsking waits until the others were asked some more times, and checks
// that the server runs.
func (i *island) staysWhileAsking() {
	i.t.Helper()
	until := i.asked.Load() + 6
	await(i.t, "the others to be asked", func() bool { return i.asked.Load() >= until })
	if !i.pg.Running() {
		i.t.Errorf("the server was stopped: %+v", i.Picture())
	}
}

// Most others are not heard, so that readers of this primary are told nothing old:
// it is stopped. Nobody was elected meanwhile, so it goes on as the primary of the
// same epoch, and never says that another one may take over.
func TestAPrimaryThatMayHaveBeenReplacedIsStoppedAndComesBack(t *testing.T) {
	m := newTeam(t)
	i := m.island(FencingStrict)
	lease, cut := i.LeaseRemaining(), time.Now()
	i.mu.Lock()
	answer := i.facts
	i.mu.Unlock()
	i.cut(Around{Voters: 3, Silent: 2})
	await(t, "the server to be stopped", func() bool {
		i.note(answer) // what it was asked earlier is heard at any time, and when it has ended too
		return !i.pg.Running() && i.Picture().Postgres == failover.ServerDown
	})
	i.note(answer)
	t.Logf("FIGURES stopped %v after the cut; the lease had %v left", time.Since(cut), lease)
	if took := time.Since(cut); took < lease+300*time.Millisecond-50*time.Millisecond {
		t.Errorf("it was stopped after %v, and the lease was for %v", took, lease)
	}
	r := i.Picture()
	if r.GivesBack || r.WantsLease || r.Reason == "" {
		t.Errorf("it reports %+v; want it to wait for its lease, and to say why", r)
	}
	i.hears.Store(&Around{Voters: 3})
	m.cut("n1", false)
	await(t, "the server to be primary again", func() bool { return i.LeaseRemaining() > 0 })
	i.begin().returns()
	if r := i.Picture(); r.Epoch != 1 || r.Reason != "" {
		t.Errorf("it reports %+v, want it well and in epoch 1", r)
	}
}

// Nobody leads, but the others are there: there will be a leader.
func TestAPrimaryThatHearsTheOthersIsNotStopped(t *testing.T) {
	m := newTeam(t)
	i := m.island(FencingStrict)
	i.cut(Around{Voters: 3, Silent: 1})
	i.lag.Store(int64(time.Hour))
	i.staysWhileAsking()
	c := i.begin()
	c.waits(i.testNode)

	// The companion restarts, and the leader has not spoken since.
	i.hears.Store(&Around{Voters: 3, Silent: 2})
	i.halt()
	i.start(m)
	asked := i.asked.Load()
	await(t, "the companion to know its server", func() bool { r := i.Picture(); return r.Postgres == failover.ServerUp && r.Primary })
	c.waits(i.testNode)
	if i.lacksLease() || i.asked.Load() != asked || !i.pg.Running() {
		t.Errorf("a companion that has not heard the leader since its start acts: %+v", i.Picture())
	}
	m.cut("n1", false)
	c.returns()
}

// With relaxed fencing nothing is done upon a suspicion. That there is another
// primary is none.
func TestARelaxedPrimaryIsStoppedWhenItHearsOfAnother(t *testing.T) {
	m := newTeam(t)
	i := m.island(FencingRelaxed)
	i.cut(Around{Voters: 3, Silent: 2})
	i.staysWhileAsking()
	i.hears.Store(&Around{Voters: 3, Silent: 1, Epoch: 2, Primary: "n2"})
	await(t, "the server to be stopped", func() bool { return !i.pg.Running() })
}
