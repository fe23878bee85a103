package consensus_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/failover/consensus"
)

// A cluster is nodes that reach each other through memory, in fake time.
type cluster struct {
	t       *testing.T
	members map[string]*member
	watched bool // the members send on their wires
}

type member struct {
	*consensus.Node
	name, addr, dir string
	transport       *raft.InmemTransport
	wire            *wire
	apart           bool
}

// A wire is a node's way to the others. All that is sent on it is seen, and may be lost.
type wire struct {
	*raft.InmemTransport
	mu   sync.Mutex
	lose func(to raft.ServerID, m *raft.AppendEntriesRequest) bool // guarded by mu; nil loses nothing
}

var errLost = errors.New("lost on the way")

func (w *wire) AppendEntries(id raft.ServerID, addr raft.ServerAddress, m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if w.loses(id, m) {
		return errLost
	}
	return w.InmemTransport.AppendEntries(id, addr, m, resp)
}

func (w *wire) AppendEntriesPipeline(id raft.ServerID, addr raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := w.InmemTransport.AppendEntriesPipeline(id, addr)
	return &pipeline{p, w, id}, err
}

type pipeline struct {
	raft.AppendPipeline
	wire *wire
	to   raft.ServerID
}

func (p *pipeline) AppendEntries(m *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if p.wire.loses(p.to, m) {
		return nil, errLost
	}
	return p.AppendPipeline.AppendEntries(m, resp)
}

func (w *wire) loses(to raft.ServerID, m *raft.AppendEntriesRequest) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lose != nil && w.lose(to, m)
}

// onEach has lose see all that is sent from now on, and decide.
func (w *wire) onEach(lose func(to raft.ServerID, m *raft.AppendEntriesRequest) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose = lose
}

// newCluster returns a cluster of the voters named, the first of which founded it.
func newCluster(t *testing.T, names ...string) *cluster {
	t.Helper()
	return found(&cluster{t: t, members: map[string]*member{}}, names)
}

// newWatched returns one whose members send on wires.
func newWatched(t *testing.T, names ...string) *cluster {
	t.Helper()
	return found(&cluster{t: t, members: map[string]*member{}, watched: true}, names)
}

func found(c *cluster, names []string) *cluster {
	t := c.t
	t.Helper()
	t.Cleanup(func() {
		for _, m := range c.members {
			ok(t, m.Close())
		}
	})
	first := c.open(names[0])
	ok(t, first.Bootstrap(c.within(time.Minute), failover.Member{Name: names[0], Companion: first.addr, Witness: true}))
	for _, name := range names[1:] {
		m := c.open(name)
		ok(t, first.AddVoter(c.within(time.Minute), name, m.addr))
	}
	c.agree(c.lead())
	return c
}

// open opens a node, or one that was closed, at its own address.
func (c *cluster) open(name string) *member {
	c.t.Helper()
	return c.openAt(name, name+":7101")
}

func (c *cluster) openAt(name, addr string) *member {
	c.t.Helper()
	m := &member{name: name, addr: addr}
	if before := c.members[name]; before != nil {
		m.dir = before.dir
	} else {
		m.dir = filepath.Join(c.t.TempDir(), name)
	}
	_, m.transport = raft.NewInmemTransportWithTimeout(raft.ServerAddress(addr), time.Second)
	m.wire = &wire{InmemTransport: m.transport}
	var way raft.Transport = m.transport
	if c.watched {
		way = m.wire
	}
	var err error
	m.Node, err = consensus.Open(consensus.Config{Name: name, Dir: m.dir, Transport: way})
	ok(c.t, err)
	c.members[name] = m
	c.connect()
	return m
}

// connect lets all reach each other who are not kept apart.
func (c *cluster) connect() {
	for _, a := range c.members {
		for _, b := range c.members {
			if a != b && !a.apart && !b.apart {
				a.transport.Connect(raft.ServerAddress(b.addr), b.transport)
			}
		}
	}
}

// cut cuts a node off from all others, in both directions.
func (c *cluster) cut(m *member) {
	m.apart = true
	m.transport.DisconnectAll()
	for _, other := range c.members {
		other.transport.Disconnect(raft.ServerAddress(m.addr))
	}
	time.Sleep(time.Millisecond) // what was sent at this very instant is an answer to whoever asks now
}

// heal undoes cut.
func (c *cluster) heal(m *member) {
	m.apart = false
	c.connect()
}

// lead waits until one of the nodes that are not cut off leads, by its own
// word, and all others of them know.
func (c *cluster) lead() *member {
	c.t.Helper()
	var leader *member
	c.wait("a leader that all follow", func() bool {
		for _, m := range c.members {
			if name, _ := m.Leader(); !m.apart && name == m.name && m.Verify(c.within(time.Second)) == nil {
				leader = m
			}
		}
		return leader != nil && c.every(func(m *member) bool { name, addr := m.Leader(); return name == leader.name && addr == leader.addr })
	})
	return leader
}

// every reports whether all nodes that are not cut off are so.
func (c *cluster) every(so func(*member) bool) bool {
	for _, m := range c.members {
		if !m.apart && !so(m) {
			return false
		}
	}
	return true
}

// agree has the leader commit something, and waits until all have it.
func (c *cluster) agree(leader *member) {
	c.t.Helper()
	number := highest(leader.State()) + 1
	ok(c.t, leader.Propose(c.within(time.Minute), numbered(number)))
	c.wait(fmt.Sprintf("number %d on all nodes", number), func() bool {
		return c.every(func(m *member) bool { return highest(m.State()) == number })
	})
}

// spreads has it that all know what the leader has just committed within as long.
func (c *cluster) spreads(number int, within time.Duration) {
	c.t.Helper()
	committed := time.Now()
	c.wait(fmt.Sprintf("number %d on all nodes", number), func() bool {
		return c.every(func(m *member) bool { return has(m.State(), number) })
	})
	if took := time.Since(committed); took > within {
		c.t.Errorf("the followers knew %v after the leader, want %v at most", took, within)
	}
}

// decides has it that the leader commits something again, 2 s after begun at the latest.
func (c *cluster) decides(leader *member, number int, begun time.Time) {
	c.t.Helper()
	for leader.Propose(c.within(time.Minute), numbered(number)) != nil {
		time.Sleep(10 * time.Millisecond)
	}
	if took := time.Since(begun); took > 2*time.Second {
		c.t.Errorf("nothing was decided for %v, want 2 s at most", took)
	}
}

// wait waits for a condition, in fake time.
func (c *cluster) wait(what string, condition func() bool) {
	c.t.Helper()
	for range 6000 {
		if condition() {
			return
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
	}
	c.t.Fatalf("no %s within a minute", what)
}

func (c *cluster) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeoutCause(context.Background(), d, errTimeout)
	c.t.Cleanup(cancel)
	return ctx
}

var errTimeout = errors.New("the test's patience has ended")

// others returns all nodes but m.
func (c *cluster) others(m *member) []*member {
	var others []*member
	for _, name := range []string{"n1", "n2", "n3", "n4", "n5"} {
		if other := c.members[name]; other != nil && other != m {
			others = append(others, other)
		}
	}
	return others
}

// numbered is a command that leaves its number in the state.
func numbered(n int) failover.Command {
	return failover.Command{Join: &failover.Member{
		Name: fmt.Sprintf("number%d", n), Companion: fmt.Sprintf("companion:%d", n), Postgres: fmt.Sprintf("postgres:%d", n), Priority: n,
	}}
}

// highest is the newest number that a state has.
func highest(s *failover.State) int {
	n := 0
	for _, m := range s.Members {
		n = max(n, m.Priority)
	}
	return n
}

func has(s *failover.State, number int) bool {
	return slices.ContainsFunc(s.Members, func(m failover.Member) bool { return m.Priority == number })
}

// refused is a command that no state allows.
func refused() failover.Command { return failover.Command{Cancel: "there is none"} }

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants fails unless err matches target.
func wants(t *testing.T, call string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s = %v, want %v", call, err, target)
	}
}
