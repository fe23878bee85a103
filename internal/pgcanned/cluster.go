package pgcanned

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	"github.com/heliosdb/helios/wal"
)

// What every cluster is, as its nodes tell the driver's probes.
const (
	SystemID = 7412983712346789012
	Timeline = wal.Timeline(1)

	version  = "15.18"
	began    = wal.LSN(0x1000000) // where the WAL stands at first
	perWrite = 0x100              // bytes of WAL that a commit leaves behind
)

// A Cluster is a number of nodes that share one WAL.
type Cluster struct {
	nodes    []*Node
	position atomic.Uint64 // end of the WAL
}

// A Node is one server of a cluster.
type Node struct {
	name    string
	cluster *Cluster
	primary atomic.Bool
	held    atomic.Uint64 // what a replica has replayed; 0 for everything
	dials   atomic.Int64
}

// NewCluster returns a cluster of n nodes named n1, n2 and so on. The first is
// the primary.
func NewCluster(n int) *Cluster {
	c := &Cluster{nodes: make([]*Node, n)}
	c.position.Store(uint64(began))
	for i := range c.nodes {
		c.nodes[i] = &Node{name: fmt.Sprintf("n%d", i+1), cluster: c}
	}
	c.nodes[0].primary.Store(true)
	return c
}

// Node returns the i-th node, from 1.
func (c *Cluster) Node(i int) *Node { return c.nodes[i-1] }

// DSN returns what a driver is given to connect to all nodes. scheme is helios
// or postgres; params are added, such as "consistency=session".
func (c *Cluster) DSN(scheme string, params ...string) string {
	hosts := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		hosts[i] = n.name
	}
	params = append([]string{"sslmode=disable"}, params...)
	return fmt.Sprintf("%s://app:hush@%s/shop?%s", scheme, strings.Join(hosts, ","), strings.Join(params, "&"))
}

// Dial connects to the node that addr names. It is a pgconn.DialFunc, and what
// helios.WithDialFunc takes.
func (c *Cluster) Dial(_ context.Context, _, addr string) (net.Conn, error) {
	name, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	for _, n := range c.nodes {
		if n.name == name {
			n.dials.Add(1)
			return newConn(n), nil
		}
	}
	return nil, fmt.Errorf("pgcanned: no node is called %s", name)
}

// Lookup lets every name stand for itself. It is a pgconn.LookupFunc.
func (c *Cluster) Lookup(_ context.Context, host string) ([]string, error) {
	return []string{host}, nil
}

// Position returns the end of the cluster's WAL.
func (c *Cluster) Position() wal.LSN { return wal.LSN(c.position.Load()) }

// Grow adds what one commit writes to the WAL and returns its new end.
func (c *Cluster) Grow() wal.LSN { return wal.LSN(c.position.Add(perWrite)) }

// Name returns the node's name, which is its host name too.
func (n *Node) Name() string { return n.name }

// Dials returns how many connections were made to the node.
func (n *Node) Dials() int64 { return n.dials.Load() }

// SetPrimary makes the node the primary, or a replica. Its connections report
// the change with their next answer, as those of a real server do.
func (n *Node) SetPrimary(primary bool) { n.primary.Store(primary) }

// HoldReplay keeps what a replica has replayed at lsn; with 0 it replays
// everything at once again.
func (n *Node) HoldReplay(lsn wal.LSN) { n.held.Store(uint64(lsn)) }

// visible returns how much of the WAL a query on the node sees.
func (n *Node) visible() wal.LSN {
	if held := wal.LSN(n.held.Load()); held != 0 && !n.primary.Load() {
		return held
	}
	return n.cluster.Position()
}
