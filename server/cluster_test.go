package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/failover/consensus"
	"github.com/heliosdb/helios/internal/memnet"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

var quiet = slog.New(slog.DiscardHandler)

// A toy stands for the PostgreSQL of one node, and its agent: it does what its
// assignments say, in no time.
type toy struct {
	name  string
	began time.Time

	mu       sync.Mutex
	changed  chan struct{}
	as       failover.Assignment
	promised failover.Epoch
	reign    failover.Epoch // that it was promoted for last
	primary  bool
	down     bool
	timeline wal.Timeline
	lsn      wal.LSN
	lease    time.Duration // until when, by Clock
	leases   int           // how many were granted
	promotes int
}

func newToy(name string) *toy {
	return &toy{name: name, began: time.Now().Add(-time.Hour), changed: make(chan struct{}), timeline: 1, lsn: 0x5000}
}

func (n *toy) Clock() time.Duration { return time.Since(n.began) }

func (n *toy) Run(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) }

func (n *toy) Report() failover.Report {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := failover.Report{
		Node: n.name, Term: n.as.Term, Epoch: max(n.as.Epoch, n.reign), SystemID: 7, Postgres: failover.ServerUp,
		Primary: n.primary, Timeline: n.timeline, LSN: n.lsn, ReplayLSN: n.lsn, StartedAt: n.began,
	}
	// An agent does not wait for its assignment either.
	mine := n.as.Primary.Name == n.name || n.reign > n.as.Epoch || n.reign == n.as.Epoch && n.as.Primary.Name == ""
	switch {
	case n.down:
		r.Postgres, r.GivesBack = failover.ServerDown, mine
	case mine && n.primary && n.promised <= n.as.Epoch:
		r.WantsLease = true
	case n.as.Primary.Name != "":
		r.Streaming = true
	}
	return r
}

func (n *toy) Picture() failover.Report { return n.Report() }

func (n *toy) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// crash ends the server, and its agent notices.
func (n *toy) crash() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = true
	n.tell()
}

// tell has the node report at once. It needs mu held.
func (n *toy) tell() {
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *toy) Assign(as failover.Assignment, sent time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if as.Term < n.as.Term || as.Epoch < n.promised {
		return
	}
	n.as = as
	if as.Lease > 0 && sent > 0 {
		n.lease = sent + as.Lease
		n.leases++
	}
	if as.Phase == failover.PhaseReady && as.Primary.Name != n.name {
		n.primary, n.timeline, n.down = false, as.Timeline, false
	}
}

func (n *toy) Seal(_ context.Context, e failover.Epoch) failover.SealAnswer {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.promised = max(n.promised, e)
	return failover.SealAnswer{Epoch: e, Node: n.name, Sealed: failover.Sealed{
		Node: n.name, Position: wal.Position{Timeline: n.timeline, LSN: n.lsn}, ReplayLSN: n.lsn, Relayed: true,
	}}
}

func (n *toy) Prepare(context.Context) error { return nil }

func (n *toy) Stop(_ context.Context, e failover.Epoch) failover.Stopped {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.primary = false
	return failover.Stopped{Epoch: e, Position: wal.Position{Timeline: n.timeline, LSN: n.lsn}}
}

func (n *toy) Promote(_ context.Context, p failover.Promote) failover.Promoted {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		return failover.Promoted{Epoch: p.Epoch, Err: "down"}
	}
	n.promotes++
	if !n.primary && p.Epoch > 1 {
		n.timeline++
	}
	n.primary = true
	n.reign = p.Epoch
	n.tell()
	return failover.Promoted{Epoch: p.Epoch, Timeline: n.timeline, SwitchLSN: n.lsn}
}

func (n *toy) HasData() bool { return true }

func (n *toy) CloneFrom(context.Context, failover.Member) error { return nil }

func (n *toy) Reinit(context.Context) error { return nil }

func (n *toy) Found(context.Context) (failover.Found, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.primary = true
	return failover.Found{Node: n.name, SystemID: 7, Timeline: 1}, nil
}

func (n *toy) Relay() *relay.Relay { return nil }
func (n *toy) LeaseRemaining() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lease - n.Clock()
}

func (n *toy) isPrimary() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.primary
}

// A troupe is a number of companions in one process, in fake time.
type troupe struct {
	t       *testing.T
	net     *memnet.Net
	members map[string]*actor
}

type actor struct {
	*Server
	node *toy
	log  *consensus.Node
	end  func()
}

func newTroupe(t *testing.T, names ...string) *troupe {
	t.Helper()
	c := &troupe{t: t, net: memnet.New(), members: map[string]*actor{}}
	for _, name := range names {
		c.start(name, newToy(name))
	}
	t.Cleanup(func() {
		for _, a := range c.members {
			a.end()
		}
	})
	return c
}

// start starts a companion; the first one founds the cluster.
func (c *troupe) start(name string, node *toy) *actor {
	c.t.Helper()
	addr := name + ":7101"
	l := NewListeners(c.net.Listen(addr), nil, quiet)
	dial := func(ctx context.Context, a string) (net.Conn, error) { return c.net.DialContext(ctx, "tcp", a) }
	log, err := consensus.Open(consensus.Config{
		Name: name, Dir: filepath.Join(c.t.TempDir(), name), Log: quiet,
		Stream: consensus.NewStreamLayer(l.Raft(), consensus.Address(addr), dial),
	})
	if err != nil {
		c.t.Fatal(err)
	}
	cfg := Config{
		Self:     failover.Member{Name: name, Companion: addr, Postgres: name + ":5432"},
		Settings: failover.DefaultSettings(), Interval: 500 * time.Millisecond,
		Dial: c.net.DialContext, Log: quiet, Insecure: true, CheckLease: atMostMinutes,
	}
	for other := range c.members {
		cfg.Join = append(cfg.Join, other+":7101")
	}
	postgres := c.net.Listen(name + ":5432")
	a := &actor{Server: New(cfg, l, log, node), node: node, log: log}
	ctx, stop := context.WithCancelCause(context.Background())
	var running, serving sync.WaitGroup
	running.Go(func() {
		if err := a.Run(ctx); !errors.Is(err, errOver) {
			c.t.Errorf("Run of %s: %v", name, err)
		}
	})
	serving.Go(func() { // a server that is up takes connections
		for conn, err := postgres.Accept(); err == nil; conn, err = postgres.Accept() {
			conn.Close()
		}
	})
	c.t.Cleanup(func() {
		postgres.Close()
		serving.Wait()
	})
	a.end = sync.OnceFunc(func() {
		stop(errOver)
		running.Wait()
		if err := log.Close(); err != nil {
			c.t.Error(err)
		}
	})
	c.members[name] = a
	return a
}

var errOver = errors.New("the test is over")

// atMostMinutes stands for what the configuration says of a lease.
func atMostMinutes(lease time.Duration) error {
	if lease >= time.Hour {
		return fmt.Errorf("lease: is %v; must be less than an hour", lease)
	}
	return nil
}

// order has a companion carry out an order.
func (c *troupe) order(at string, o api.Order) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	return c.members[at].Do(ctx, o)
}

// await waits, in fake time, until a condition holds.
func (c *troupe) await(what string, ok func() bool) time.Duration {
	c.t.Helper()
	from := time.Now()
	for !ok() {
		if time.Since(from) > time.Minute {
			c.t.Fatalf("waited for a minute until %s; the log says %+v", what, c.members["n1"].State())
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(from)
}

// ready reports whether a companion knows of that primary.
func (c *troupe) ready(at, primary string) func() bool {
	return func() bool {
		s := c.members[at].State()
		return s.Phase == failover.PhaseReady && s.Primary == primary && len(s.Members) == len(c.members)
	}
}

func TestACrashIsFollowedByAnotherPrimaryAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTroupe(t, "n1", "n2", "n3")
		c.await("n1 is primary of three", c.ready("n3", "n1"))
		c.await("n1 has leases", func() bool { return c.members["n1"].node.LeaseRemaining() > time.Second })
		time.Sleep(5 * time.Second) // the leadership has moved off n1
		c.members["n1"].node.crash()
		took := c.await("another is primary", func() bool {
			b, _ := c.members["n2"].Bulletin()
			return b.Primary != "" && b.Primary != "n1"
		})
		if took > 10*time.Millisecond {
			t.Errorf("a crash that is noticed costs %v, want at most 10ms", took)
		}
		// What it reported when it was promoted was answered before it was ready.
		if took := c.await("the other has a lease", func() bool {
			now, _ := c.members["n2"].Bulletin()
			return c.members[now.Primary].node.LeaseRemaining() > 0
		}); took > 20*time.Millisecond {
			t.Errorf("the new primary has its lease after %v, want at most 20ms", took)
		}
		if left := c.members["n1"].node.LeaseRemaining(); left > 0 && c.members["n1"].node.isPrimary() {
			t.Errorf("n1 has a lease for another %v", left)
		}
	})
}

// What an operator has to look at is told by every companion, as long as it is so.
func TestWarningsReachEveryCompanion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTroupe(t, "n1", "n2", "n3")
		c.await("n1 is primary of three", c.ready("n3", "n1"))
		if err := c.order("n2", api.Order{Settings: &api.SettingsPatch{AutoFailover: new(false)}}); err != nil {
			t.Fatal(err)
		}
		warned := func(name string) bool {
			b, _ := c.members[name].Bulletin()
			return len(b.Warnings) == 1 && strings.HasSuffix(b.Warnings[0], "auto_failover is off, so that an operator decides")
		}
		silent := func(name string) bool {
			b, _ := c.members[name].Bulletin()
			return len(b.Warnings) == 0
		}
		for name := range c.members {
			c.await(name+" warns of nothing", func() bool { return silent(name) })
		}
		c.members["n1"].node.crash()
		for name := range c.members {
			c.await(name+" warns", func() bool { return warned(name) })
		}
		if err := c.order("n3", api.Order{Promote: "n2"}); err != nil {
			t.Fatal(err)
		}
		for name := range c.members {
			c.await(name+" warns of nothing any more", func() bool { return silent(name) })
		}
	})
}

func TestASilentPrimaryIsReplacedAfterItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTroupe(t, "n1", "n2", "n3")
		c.await("n1 is primary of three", c.ready("n3", "n1"))
		time.Sleep(5 * time.Second)
		c.members["n1"].end()
		from := time.Now()
		c.await("another is primary", func() bool {
			s := c.members["n2"].State()
			return s.Phase == failover.PhaseReady && s.Primary != "n1"
		})
		lease := c.members["n1"].node.LeaseRemaining()
		if lease > 0 {
			t.Errorf("another node is primary while n1 has a lease for %v", lease)
		}
		if took := time.Since(from); took > 3*time.Second {
			t.Errorf("silence costs %v, want the lease and at most 1s", took)
		}
	})
}

func TestASwitchoverIsOrderedAtAnyCompanion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTroupe(t, "n1", "n2", "n3")
		c.await("n1 is primary of three", c.ready("n3", "n1"))
		time.Sleep(3 * time.Second)
		for _, at := range []string{"n1", "n2", "n3"} {
			from := c.members[at].State().Primary
			to := map[string]string{"n1": "n2", "n2": "n3", "n3": "n1"}[from]
			if err := c.order(at, api.Order{Switchover: &api.Switchover{To: to}}); err != nil {
				t.Fatalf("switchover from %s to %s, ordered at %s: %v", from, to, at, err)
			}
			c.await(to+" is primary", c.ready("n2", to))
			time.Sleep(3 * time.Second)
		}
		err := c.order("n2", api.Order{Switchover: &api.Switchover{To: "n1"}})
		if refusal, ok := errors.AsType[*api.Error](err); !ok || refusal.Code != api.CodeRefused {
			t.Errorf("switchover to the primary: %v, want it refused", err)
		}
	})
}

func TestALeaseThatDoesNotGoWithTheConfigurationIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTroupe(t, "n1", "n2", "n3")
		c.await("n1 is primary of three", c.ready("n3", "n1"))
		order := func(lease time.Duration) error {
			return c.order("n2", api.Order{Settings: &api.SettingsPatch{Lease: new(api.Duration(lease))}})
		}
		err := order(time.Hour)
		if refusal, ok := errors.AsType[*api.Error](err); !ok || refusal.Code != api.CodeRefused || !strings.Contains(refusal.Message, "less than an hour") {
			t.Errorf("a lease of an hour: %v, want it refused with the reason", err)
		}
		if err := order(3 * time.Second); err != nil {
			t.Errorf("a lease of 3 s: %v", err)
		}
		if got := c.members["n1"].State().Settings.Lease; got != 3*time.Second {
			t.Errorf("the lease is %v, want 3 s", got)
		}
	})
}

func TestACompanionThatRestartsInTimeKeepsItsPrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTroupe(t, "n1", "n2", "n3")
		c.await("n1 is primary of three", c.ready("n3", "n1"))
		time.Sleep(3 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		epoch := c.members["n2"].State().Epoch
		c.members["n1"].Leave(ctx, 5*time.Second)
		c.members["n1"].end()
		time.Sleep(4 * time.Second)
		if s := c.members["n2"].State(); s.Epoch != epoch || s.Primary != "n1" {
			t.Errorf("4 s into a restart of 5 the primary is %s in epoch %d; want n1 in %d", s.Primary, s.Epoch, epoch)
		}
		c.await("another is primary, as n1 has not come back", func() bool { return c.members["n2"].State().Epoch > epoch })
	})
}

func TestBulletinsReachEveryCompanion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTroupe(t, "n1", "n2", "n3")
		c.await("n1 is primary of three", c.ready("n3", "n1"))
		for name, a := range c.members {
			c.await(name+" tells that n1 is primary and n2 and n3 are up", func() bool {
				b, _ := a.Bulletin()
				up := 0
				for _, n := range b.Nodes {
					if n.State == "up" {
						up++
					}
				}
				return b.Primary == "n1" && up == 3
			})
		}
		time.Sleep(3 * time.Second)
		c.members["n1"].node.crash()
		for _, name := range []string{"n2", "n3"} {
			took := c.await(name+" tells of another primary", func() bool {
				b, _ := c.members[name].Bulletin()
				return b.Primary != "" && b.Primary != "n1"
			})
			t.Log(fmt.Sprintf("%s tells after", name), took)
		}
	})
}
