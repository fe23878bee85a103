package pgfake

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/heliosdb/helios/wal"
)

// A Cluster is a primary, its replicas, and everything a test told them.
type Cluster struct {
	Latency      time.Duration // what a network round trip costs, once connected
	DialLatency  time.Duration // what connecting costs: TCP, startup and authentication together
	WALPerCommit wal.LSN       // by how much a commit that wrote grows the WAL; 0x100 from NewCluster
	SystemID     uint64        // from NewCluster: 7000000000000000001
	Version      string        // server_version; 15.18 from NewCluster. "13." begins one that does not report its role
	SyncCommit   string        // synchronous_commit of new connections; "on" from NewCluster

	running sync.WaitGroup // every goroutine that serves a connection

	mu       sync.Mutex
	nodes    []*Node // all nodes, in order; never changes
	closed   bool
	conns    int // connections opened so far
	history  wal.History
	xids     uint64                  // transaction ids given so far
	commits  map[uint64]wal.Position // of transactions, where their commit record ends
	handlers []func(Query) (Reply, bool)
	log      []*Entry
}

// An Entry is a statement a node tried to execute.
type Entry struct {
	Node  string
	Conn  int       // number of the connection in the cluster, from 1
	SQL   string    // normalised: no comments, no superfluous white space
	Error string    // SQLSTATE of its failure, "" if it succeeded
	At    time.Time // when it began
}

// NewCluster makes a cluster of n nodes named n1, n2, …; n1 is the primary on
// timeline 1 at LSN 0/1000000, and the others follow it immediately. Nothing
// runs until a node is dialed.
func NewCluster(n int) *Cluster {
	c := &Cluster{
		commits: make(map[uint64]wal.Position), xids: 700,
		WALPerCommit: 0x100, SystemID: 7000000000000000001, Version: "15.18", SyncCommit: "on",
	}
	const start = wal.LSN(0x1000000)
	for i := range n {
		node := &Node{
			Name: fmt.Sprintf("n%d", i+1), cluster: c, primary: i == 0, timeline: 1,
			insert: start, flush: start, replay: start, changed: make(chan struct{}),
			started: startOf(i), latency: -1, sessions: make(map[*session]bool),
		}
		c.nodes = append(c.nodes, node)
	}
	return c
}

// startOf returns the time as the start of a server: no two nodes have the same,
// even if they were started at once.
func startOf(i int) time.Time { return time.Now().Add(time.Duration(i) * time.Microsecond) }

// Close kills every connection and waits until nothing of the cluster runs.
func (c *Cluster) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	for _, n := range c.nodes {
		n.Kill()
		n.Heal()
	}
	c.running.Wait()
	return nil
}

// Nodes returns all nodes in order.
func (c *Cluster) Nodes() []*Node { return slices.Clone(c.nodes) }

// Node returns node number i, from 1, as its name says.
func (c *Cluster) Node(i int) *Node { return c.nodes[i-1] }

// Primary returns the node with the highest timeline that acts as primary, nil
// if none does.
func (c *Cluster) Primary() *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.primaryLocked()
}

func (c *Cluster) primaryLocked() *Node {
	var best *Node
	for _, n := range c.nodes {
		if n.primary && (best == nil || n.timeline > best.timeline) {
			best = n
		}
	}
	return best
}

// Dial connects to the node the address names, such as n1:5432. It fits
// pgconn.Config.DialFunc.
func (c *Cluster) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	for _, n := range c.nodes {
		if n.Name == host {
			return n.Dial(ctx, network, address)
		}
	}
	return nil, &net.OpError{Op: "dial", Net: network, Addr: addr(address), Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
}

// Lookup returns the name itself, so that no DNS is asked. It fits
// pgconn.Config.LookupFunc.
func (c *Cluster) Lookup(_ context.Context, host string) ([]string, error) {
	return []string{host}, nil
}

// HandleFunc adds an answer for every node, consulted before what nodes know
// themselves. It is called without locks when a statement is executed, so that
// values are those of that moment, and once when it is parsed, for its shape.
func (c *Cluster) HandleFunc(f func(n *Node, sql string) (Reply, bool)) {
	c.HandleQuery(func(q Query) (Reply, bool) { return f(q.Node, q.SQL) })
}

// HandleQuery is HandleFunc for handlers that look at the arguments or at the
// connection. The handler added last is asked first.
func (c *Cluster) HandleQuery(f func(Query) (Reply, bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handlers = append(slices.Clone(c.handlers), f)
}

// Handle registers a reply on every node; see [Node.Handle].
func (c *Cluster) Handle(pattern string, r Reply) {
	for _, n := range c.nodes {
		n.Handle(pattern, r)
	}
}

// Log returns what was executed on all nodes, in order.
func (c *Cluster) Log() []Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	entries := make([]Entry, len(c.log))
	for i, e := range c.log {
		entries[i] = *e
	}
	return entries
}

// ResetLog forgets the log and sets the counters of all nodes to zero, except
// Open.
func (c *Cluster) ResetLog() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log = nil
	for _, n := range c.nodes {
		n.counters = Counters{Open: n.counters.Open}
	}
}

// History returns the timelines begun by Promote.
func (c *Cluster) History() wal.History {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.history
}

// Promote makes n a primary on a new timeline and returns the LSN at which it
// branched off. Connections stay; the next response on each carries the changed
// parameters. Replicas that are alive and not past that LSN follow n. The old
// primary is left as it is: kill it, or have two.
func (c *Cluster) Promote(n *Node) wal.LSN {
	c.mu.Lock()
	defer c.mu.Unlock()
	n.caughtUpLocked()
	var highest wal.Timeline
	for _, other := range c.nodes {
		highest = max(highest, other.timeline)
	}
	n.primary, n.timeline, n.insert, n.flush = true, highest+1, n.replay, n.replay
	c.history = c.history.With(wal.Switch{Timeline: n.timeline, LSN: n.replay})
	for _, other := range c.nodes {
		other.caughtUpLocked()
		if !other.primary && !other.down && other.replay <= n.replay {
			other.timeline = n.timeline
			other.followLocked(n.flush)
		}
	}
	return n.replay
}
