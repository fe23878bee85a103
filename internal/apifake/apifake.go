package apifake

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/lag/stats"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// Facts are what a Cluster says. What they point to is not changed: Change replaces it.
type Facts struct {
	State      *failover.State
	Bulletin   *topology.Bulletin
	Local      failover.Report
	LeaderName string
	LeaderAddr string
	Lease      time.Duration
	Consensus  api.Consensus
	Lag        any
	WAL        *relay.Status // nil: no relay
	// Do carries out orders; nil: at once and well.
	Do func(context.Context, api.Order) error
}

// A Cluster implements api.Cluster. It is safe for concurrent use.
type Cluster struct {
	mu      sync.Mutex
	facts   Facts
	changed chan struct{} // closed when facts.Bulletin is replaced
	orders  []api.Order
}

// New returns the cluster of Sample as the companion of node sees it.
func New(node string) *Cluster {
	return &Cluster{facts: Sample(node), changed: make(chan struct{})}
}

// Change changes what the cluster says. Who waits for a bulletin hears of a new one.
func (c *Cluster) Change(change func(*Facts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.facts.Bulletin
	change(&c.facts)
	if c.facts.Bulletin != before {
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

// Publish publishes a bulletin that differs from the newest by change, and by its number.
func (c *Cluster) Publish(change func(*topology.Bulletin)) {
	c.Change(func(f *Facts) {
		b := *f.Bulletin
		b.Nodes = slices.Clone(b.Nodes)
		b.Seq++
		change(&b)
		f.Bulletin = &b
	})
}

// SetState has the log come to a state that differs from the last by change.
func (c *Cluster) SetState(change func(*failover.State)) {
	c.Change(func(f *Facts) {
		s := *f.State
		s.Members, s.History = slices.Clone(s.Members), slices.Clone(s.History)
		change(&s)
		f.State = &s
	})
}

// Orders returns what was ordered so far.
func (c *Cluster) Orders() []api.Order {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.orders)
}

func (c *Cluster) now() Facts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.facts
}

// State implements api.Cluster.
func (c *Cluster) State() *failover.State { return c.now().State }

// Bulletin implements api.Cluster.
func (c *Cluster) Bulletin() (*topology.Bulletin, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.facts.Bulletin, c.changed
}

// Local implements api.Cluster.
func (c *Cluster) Local() failover.Report { return c.now().Local }

// Leader implements api.Cluster.
func (c *Cluster) Leader() (name, addr string) { f := c.now(); return f.LeaderName, f.LeaderAddr }

// LeaseRemaining implements api.Cluster.
func (c *Cluster) LeaseRemaining() time.Duration { return c.now().Lease }

// Consensus implements api.Cluster.
func (c *Cluster) Consensus() api.Consensus { return c.now().Consensus }

// Lag implements api.Cluster.
func (c *Cluster) Lag() any { return c.now().Lag }

// WAL implements api.Cluster.
func (c *Cluster) WAL() (relay.Status, bool) {
	if w := c.now().WAL; w != nil {
		return *w, true
	}
	return relay.Status{}, false
}

// Do implements api.Cluster.
func (c *Cluster) Do(ctx context.Context, o api.Order) error {
	c.mu.Lock()
	c.orders = append(c.orders, o)
	do := c.facts.Do
	c.mu.Unlock()
	if do == nil {
		return nil
	}
	return do(ctx, o)
}

// sampled is when what Sample tells of happened.
var sampled = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Sample returns a cluster of three nodes in its second epoch: n2 is the primary and leads
// nothing, n3 leads, n1 was the primary before.
func Sample(node string) Facts {
	primary := node == "n2"
	local := failover.Report{
		Node: node, Run: 7, Epoch: 2, Seq: 40, Postgres: failover.ServerUp, SystemID: systemID, Primary: primary, Timeline: 2,
		LSN: 0x5000, StartedAt: sampled, WantsLease: primary, Gate: failover.GateState{Set: failover.SyncSet{Members: []string{"n1", "n3"}, K: 1}},
	}
	f := Facts{
		State: sampleState(), Bulletin: sampleBulletin(), Local: local,
		LeaderName: "n3", LeaderAddr: "127.0.0.1:7103",
		Consensus: api.Consensus{Term: 3, Committed: 12, Applied: 12, LastContact: 20 * time.Millisecond},
		Lag:       sampleLag(),
		WAL:       sampleWAL(),
	}
	if primary {
		f.Lease = 1500 * time.Millisecond
	} else {
		f.Local.Streaming, f.Local.ReplayLSN = true, 0x4f00
	}
	if node == "n3" {
		f.Consensus.LastContact = 0
	}
	return f
}

const systemID = 7_400_000_000_000_000_001 // more than a JavaScript number holds

func sampleState() *failover.State {
	s := &failover.State{
		SystemID: systemID, Settings: failover.DefaultSettings(), Epoch: 2, Phase: failover.PhaseReady, Primary: "n2",
		SyncSet: failover.SyncSet{Members: []string{"n1", "n3"}, K: 1}, Timeline: 2, SwitchLSN: 0x4000,
		History: []failover.Transition{
			{Epoch: 1, To: "n1", Reason: "the first primary", At: sampled, Timeline: 1},
			{
				Epoch: 2, From: "n1", To: "n2", Reason: "n1 does not answer", At: sampled.Add(time.Hour), Timeline: 2, SwitchLSN: 0x4000,
				Timing: failover.Timing{
					Detect: 20 * time.Millisecond, Fence: 3 * time.Millisecond, Seal: 12 * time.Millisecond,
					Elect: 2500 * time.Microsecond, Promote: 90 * time.Millisecond,
				},
				Sealed: []failover.Sealed{
					{Node: "n2", Position: wal.Position{Timeline: 1, LSN: 0x4000}, ReplayLSN: 0x4000},
					{Node: "n3", Position: wal.Position{Timeline: 1, LSN: 0x3f00}, ReplayLSN: 0x3f00, Err: "in maintenance"},
				},
			},
		},
	}
	for i, name := range []string{"n1", "n2", "n3"} {
		s.Members = append(s.Members, failover.Member{Name: name, Companion: companions[i], Postgres: servers[i], Zone: "z1"})
	}
	return s
}

var (
	companions = []string{"127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"}
	servers    = []string{"127.0.0.1:5501", "127.0.0.1:5502", "127.0.0.1:5503"}
)

func sampleBulletin() *topology.Bulletin {
	b := &topology.Bulletin{
		SystemID: systemID, Epoch: 2, Phase: string(failover.PhaseReady), Timeline: 2, History: wal.History{{Timeline: 2, LSN: 0x4000}},
		Primary: "n2", Companion: "n3", Term: 3, Seq: 100,
	}
	for i, name := range []string{"n1", "n2", "n3"} {
		n := topology.Reported{
			Name: name, Addr: servers[i], Companion: companions[i], Zone: "z1", Role: "replica", State: "up", Timeline: 2,
			ReceiveLSN: 0x5000, ReplayLSN: 0x4f00, Streaming: true, Lag: 30 * time.Millisecond, Behind: 0x100,
			StartedAt: sampled, Age: 40 * time.Millisecond,
		}
		if name == b.Primary {
			n.Role, n.CurrentLSN, n.ReceiveLSN, n.ReplayLSN, n.Streaming, n.Lag, n.Behind = "primary", 0x5000, 0, 0, false, 0, 0
		}
		b.Nodes = append(b.Nodes, n)
	}
	return b
}

func sampleLag() stats.Report {
	m := stats.NewMonitor(500 * time.Millisecond)
	replica := stats.Replica{Name: "n1", WriteLSN: 0x5000, FlushLSN: 0x5000, ReplayLSN: 0x4f00}
	for i := range 10 {
		at := sampled.Add(time.Duration(i) * 500 * time.Millisecond)
		m.Add(stats.Observation{
			At: at, Primary: stats.Primary{Name: "n2", LSN: 0x5000, At: at},
			Replicas: []stats.Replica{replica, {Name: "n3", Unknown: true}},
		})
	}
	return m.Report()
}

func sampleWAL() *relay.Status {
	return &relay.Status{
		Source: "127.0.0.1:5502", Connected: true, Since: sampled, System: "7400000000000000001", Slots: map[string]wal.LSN{"n1": 0x4f00},
		Spool: &relay.SpoolStatus{Dir: "/var/lib/helios/spool", Bytes: 16 << 20, Oldest: 0x1000, Flushed: 0x5000},
		Metrics: relay.Metrics{
			Timeline: 2, Head: 0x5000, Tail: 0x1000, Entries: 9, Bytes: 0x4000, Memory: 1 << 20, Ratio: 1,
			Confirmed: relay.Confirmation{Write: 0x5000, Flush: 0x5000, Apply: 0x4f00},
			Subscribers: []relay.SubscriberMetrics{{
				Name: "n1", Addr: "127.0.0.1:40001", State: "streaming", Timeline: 2, Sent: 0x5000,
				Lag: relay.Lag{Behind: 0x100, Apply: 3 * time.Millisecond}, Since: sampled, Heard: sampled, Bytes: 0x4100, RawBytes: 0x4000, Messages: 9,
			}},
		},
	}
}
