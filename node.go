package helios

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/pool"
	"github.com/heliosdb/helios/router"
	"github.com/heliosdb/helios/topology"
)

// node is one PostgreSQL server with everything the driver keeps about it. It
// lives from its declaration to its removal; views come and go meanwhile.
type node struct {
	name    string
	ordinal int // of all nodes ever declared; sessions keep hints by it
	config  *pgx.ConnConfig
	pool    *pool.Pool
	breaker *pool.Breaker
	load    *router.Backend
	proofs  proofs // of load's Replay
	traffic pool.Traffic
	counts  nodeCounts
	told    bool // guarded by the cluster's mu; it is part of it only because companions tell of it

	turnedAway atomic.Pointer[error]          // why the last probe's attempt to connect failed, if that was final
	refusal    atomic.Pointer[pgconn.PgError] // the server's answer to the last probe's attempt to connect; nil if it let it in

	down   atomic.Bool  // it answers no probes
	misses atomic.Int32 // proofs in a row that failed
	spared atomic.Int64 // until when, on the driver's clock in ns, no proof is asked for
}

// A replica that has just failed to prove that it is fresh is not asked again
// for this long, twice as long with every further failure, up to the longest:
// each failure costs its read a round trip.
const (
	spareFirst   = time.Millisecond
	spareLongest = 50 * time.Millisecond
)

// proved notes whether the node could prove that it was fresh.
func (n *node) proved(fresh bool, now func() time.Time) {
	if fresh {
		if n.misses.Load() != 0 {
			n.misses.Store(0)
			n.spared.Store(0)
		}
		return
	}
	pause := spareLongest
	if m := n.misses.Add(1); m < 8 {
		pause = min(spareFirst<<(m-1), spareLongest)
	}
	n.spared.Store(now().Add(pause).UnixNano())
}

// dialTimeout bounds one attempt to connect, authentication included, unless
// the DSN has a connect_timeout.
const dialTimeout = 5 * time.Second

// holdOff is for how long reads leave a node alone that has no room for another
// connection: each attempt costs the server a process, and the read its time.
const holdOff = 250 * time.Millisecond

// newNode returns a node that nothing was dialed on yet.
func (c *Cluster) newNode(name string, config *pgx.ConnConfig, decl topology.Node) *node {
	n := &node{name: name, ordinal: c.declared, config: config}
	c.declared++
	n.load = &router.Backend{Name: name, Zone: decl.Zone, Weight: decl.Weight}
	n.proofs.load = n.load
	n.breaker = pool.NewBreaker(name, pool.BreakerConfig{OnChange: n.load.SetBlocked})
	timeout := dialTimeout
	if config.ConnectTimeout > 0 {
		timeout = config.ConnectTimeout
	}
	n.pool = pool.New(pool.Config{
		Name:         name,
		Dial:         func(ctx context.Context) (*pool.Conn, error) { return c.dial(ctx, n) },
		MaxConns:     c.config.PoolMaxConns,
		MinConns:     c.config.PoolMinConns,
		MaxDials:     c.config.MaxDials,
		DialTimeout:  timeout,
		Clean:        func(ctx context.Context, conn *pool.Conn) error { return conn.Restore(ctx, c.extras.afterConnect) },
		CleanTimeout: timeout,
	})
	return n
}

// dial makes one connection to n and lets the breaker know how it went.
func (c *Cluster) dial(ctx context.Context, n *node) (*pool.Conn, error) {
	conn, err := pool.Dial(ctx, pool.DialOptions{
		Config:            n.config,
		Traffic:           &n.traffic,
		OnStatus:          func(conn *pool.Conn) { c.roleReported(n, conn) },
		AfterConnect:      c.extras.afterConnect,
		StatementCapacity: c.statementCapacity,
	})
	if err != nil {
		if connectCode(err) == codeTooMany {
			until := c.now().Add(holdOff).UnixNano()
			n.load.HoldOff(until)
			c.readClockUntil(until)
		}
		c.blame(n, err)
		return nil, err
	}
	n.proofs.void(c.now())
	return conn, nil
}

// blame tells the breaker and the prober that n failed. Errors that say nothing
// about the node (SQL errors, the caller's own timeout, too many connections)
// are not held against it.
func (c *Cluster) blame(n *node, err error) {
	if !pool.Counts(err) {
		return
	}
	n.counts.failures.Add(1)
	n.breaker.Failure(err)
	c.prober.Kick(n.name)
}

// roleReported hears from a response that n's role may have changed, and has it
// looked at. It runs on the query path: it must not block.
func (c *Cluster) roleReported(n *node, conn *pool.Conn) {
	if conn.Touched() {
		return // a session of the application may set default_transaction_read_only for itself
	}
	routes := c.routes.Load()
	isPrimary := routes.primary == n
	switch {
	case isPrimary && (conn.InRecovery() || conn.ReadOnly()):
		c.board.Doubt(n.name, errors.New("the server reports that it takes no writes"))
		c.prober.Kick("")
	case !isPrimary:
		c.prober.Kick(n.name)
	}
}

// turnedAway returns why there is no way into any node, such as a wrong password,
// if that is so for every node: waiting would not help.
func (c *Cluster) turnedAway(r *routes) error {
	var why error
	for i := range r.view.Nodes {
		n := r.byName[r.view.Nodes[i].Name]
		if n == nil || r.view.Nodes[i].State != topology.StateDown {
			return nil
		}
		final := n.turnedAway.Load()
		if final == nil {
			return nil
		}
		if why == nil {
			why = unsent(n.name, *final)
		}
	}
	return why
}

// giveBack returns a connection to the node's pool, which cleans it first if that
// is needed.
func (n *node) giveBack(conn *pool.Conn, hint *pool.Hint) {
	switch {
	case conn.Broken():
		n.pool.Discard(conn)
	case conn.Clean():
		n.pool.Release(conn, hint)
	default:
		n.pool.ReleaseDirty(conn)
	}
}

// close ends everything of the node.
func (n *node) close() {
	n.pool.Close() //nolint:errcheck // closing sockets has no news for anybody
}
