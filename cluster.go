package helios

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/router"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/topology/watch"
	"github.com/heliosdb/helios/wal"
)

// Cluster is what a *sql.DB opened with this driver knows of its nodes, and
// what it does about them. It is safe for concurrent use.
type Cluster struct {
	config     *Config
	extras     extras
	log        *slog.Logger
	board      *topology.Board
	prober     *watch.Prober
	listener   *watch.Listener // nil if the DSN names no companion
	statements *router.Cache
	routes     atomic.Pointer[routes] // never nil
	whole      Session                // of every statement that has no session of its own
	named      *named
	seeds      atomic.Uint64 // of sessions
	rampUntil  atomic.Int64  // on the driver's clock in ns, when the last slow start or hold-off is over; 0: there is none
	schema     atomic.Uint64 // counts statements that may have made prepared ones void
	counts     counts

	companionTLS map[string][]*tls.Config // how each companion is connected to, best first
	rumours      map[string]rumour        // by name of the companions; the listener's
	strangers    map[string]bool          // names of nodes that were told of as not in the DSN; the listener's
	members      members                  // that companions have told of; the listener's

	statementCapacity int               // statements that stay prepared on a connection
	execMode          pgx.QueryExecMode // of statements that do not say
	measures          bool              // the balancer goes by latency

	mu       sync.Mutex
	nodes    map[string]*node // guarded by mu; by name
	declared int              // guarded by mu; nodes declared so far
	applied  uint64           // guarded by mu; version of the view behind routes
	started  bool             // guarded by mu
	reigning *node            // guarded by mu; the last primary there was; nil if there was none
	reign    uint64           // guarded by mu; the epoch in which it became that
	known    time.Time        // written before the first session; when a view counts even if a node has not been heard of
	closed   atomic.Bool      // written under mu
	stop     context.CancelCauseFunc
	ended    context.Context //nolint:containedctx // the cluster's own life, ended by Close
	running  sync.WaitGroup  // every goroutine started by the cluster
}

// routes is what the query path reads: one view, and the nodes behind it. It is
// immutable.
type routes struct {
	view     *topology.View
	primary  *node             // nil if no node takes writes
	replaced chan struct{}     // closed when newer routes are there to be loaded
	guess    bool              // no node answers probes: primary is who it was last
	fenced   *node             // the primary that is up and takes no writes, if there is none that does, or that is to have none
	replicas []*node           // that may be read
	loads    []*router.Backend // of replicas, in the same order
	heaviest int               // highest weight among loads
	current  []*node           // replicas that are surely on the cluster's timeline
	currents []*router.Backend // of current, in the same order
	byName   map[string]*node
}

// newCluster returns a cluster that nothing was dialed on yet.
func newCluster(cfg *Config, s extras) (*Cluster, error) {
	c := &Cluster{
		config:     cfg,
		extras:     s,
		log:        s.log,
		statements: router.NewCache(statementCacheSize),
		named:      newNamed(cfg.SessionTimeout),
		nodes:      map[string]*node{},
		rumours:    map[string]rumour{},
		strangers:  map[string]bool{},
		members:    members{},
		measures:   cfg.Balance == router.Latency,
	}
	c.ended, c.stop = context.WithCancelCause(context.Background())
	var declared []topology.Node
	for i, host := range cfg.Hosts {
		decl := topology.Node{Name: host.String(), Zone: cfg.ZoneOf(i), Weight: cfg.WeightOf(i)}
		config, err := s.dialConfig(cfg, host)
		if err != nil {
			return nil, err
		}
		c.nodes[decl.Name] = c.newNode(decl.Name, config, decl)
		c.statementCapacity, c.execMode = config.StatementCacheCapacity, config.DefaultQueryExecMode
		declared = append(declared, decl)
	}
	c.board = topology.NewBoard(declared...)
	c.prober = &watch.Prober{
		Board:    c.board,
		Interval: cfg.ProbeInterval,
		Timeout:  cfg.ProbeTimeout,
		Connect:  c.connectProbe,
		Heard:    c.heard,
		Log:      s.log,
	}
	if cfg.replicasOnly() {
		c.prober.Crisis = cfg.ProbeInterval // the primary may well be none of these nodes
	}
	var err error
	if c.listener, err = c.newListener(); err != nil {
		return nil, err
	}
	c.board.OnChange(c.apply)
	c.mu.Lock()
	c.rebuildLocked(c.board.Peek())
	c.mu.Unlock()
	return c, nil
}

// statementCacheSize is how many statement texts are remembered with their
// class: some hundred bytes each.
const statementCacheSize = 16384

// ClusterOf returns the cluster behind db, which must have been opened with
// this driver, directly or through a driver that wraps it and offers
// Raw() driver.Conn.
func ClusterOf(db *sql.DB) (*Cluster, error) {
	if d, ok := db.Driver().(Driver); ok && d.connector != nil {
		return d.connector.cluster, nil
	}
	conn, err := db.Conn(context.Background())
	if err != nil {
		return nil, fmt.Errorf("helios: cluster of this *sql.DB: %w", err)
	}
	defer conn.Close() //nolint:errcheck // a session without state has nothing to lose
	var found *Cluster
	err = conn.Raw(func(dc any) error {
		for {
			switch c := dc.(type) {
			case *Conn:
				found = c.cluster
				return nil
			case interface{ Raw() driver.Conn }:
				dc = c.Raw()
			default:
				return fmt.Errorf("helios: this *sql.DB was opened with %T, not with helios", db.Driver())
			}
		}
	})
	return found, err
}

// start begins to watch the cluster, at the first session.
func (c *Cluster) start() error {
	if c.closed.Load() {
		return ErrClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return ErrClosed
	}
	if c.started {
		return nil
	}
	c.started, c.known = true, c.now().Add(2*c.config.ProbeTimeout)
	c.running.Go(func() {
		if err := c.prober.Run(c.ended); err != nil && !errors.Is(err, ErrClosed) {
			c.log.Error("cluster is no longer watched", "error", err)
		}
	})
	if c.listener != nil {
		c.running.Go(func() {
			c.listener.Run(c.ended) //nolint:errcheck // it ends with the cluster
		})
	}
	return nil
}

// Close ends the cluster: every goroutine it started has returned and every
// socket is closed when it returns. Statements under way fail. Closing the
// *sql.DB calls it. It may be called more than once.
func (c *Cluster) Close() error {
	c.mu.Lock()
	c.closed.Store(true)
	nodes := make([]*node, 0, len(c.nodes))
	for _, n := range c.nodes {
		nodes = append(nodes, n)
	}
	c.mu.Unlock()
	c.stop(ErrClosed)
	for _, n := range nodes {
		n.pool.Fence(ErrClosed) // what is under way ends with it
		n.close()
	}
	c.running.Wait()
	return nil
}

// connectProbe makes a connection for the prober.
func (c *Cluster) connectProbe(ctx context.Context, name string) (*pgconn.PgConn, error) {
	c.mu.Lock()
	n := c.nodes[name]
	c.mu.Unlock()
	if n == nil {
		return nil, fmt.Errorf("helios: node %s is not part of the cluster", name)
	}
	config := n.config.Config.Copy()
	config.OnNotice, config.OnNotification = nil, nil
	config.RuntimeParams["application_name"] = watch.ApplicationName
	conn, err := pgconn.ConnectConfig(ctx, config)
	if final := turnsAway(err); final != nil {
		n.turnedAway.Store(&final)
	} else {
		n.turnedAway.Store(nil)
	}
	refusal, _ := errors.AsType[*pgconn.PgError](err)
	n.refusal.Store(refusal)
	return conn, err
}

// heard tells a node's breaker how a probe went, a success closes it at once, and
// the balancer how far behind the node is, and what it has replayed: that changes
// no routes.
func (c *Cluster) heard(o *topology.Observation) {
	n := c.routes.Load().byName[o.Node]
	if n == nil {
		return
	}
	n.breaker.Probe(o.Err)
	view := c.board.Peek()
	v := nodeIn(view, o.Node)
	if v == nil {
		return
	}
	n.load.SetLag(v.Lag)
	if o.Err != nil {
		return
	}
	proved := wal.LSN(0)
	if o.Replayed && v.Role == topology.RoleReplica && v.State == topology.StateUp && v.OnTimeline(view.Timeline) {
		proved = o.ReplayLSN
	}
	n.proofs.probed(o, proved)
}

// nodeIn returns the node called name in view; nil if it is not there.
func nodeIn(view *topology.View, name string) *topology.Node {
	for i := range view.Nodes {
		if view.Nodes[i].Name == name {
			return &view.Nodes[i]
		}
	}
	return nil
}

// rebuildLocked publishes the routes of view.
func (c *Cluster) rebuildLocked(view *topology.View) {
	r := &routes{view: view, replaced: make(chan struct{}), byName: make(map[string]*node, len(c.nodes))}
	for i := range view.Nodes {
		v := &view.Nodes[i]
		n := c.nodes[v.Name]
		if n == nil {
			continue
		}
		r.byName[v.Name] = n
		if host, _, err := net.SplitHostPort(v.Name); err == nil && r.byName[host] == nil {
			r.byName[host] = n
		}
		switch {
		case i == view.Primary && view.Told.Hold:
			r.fenced = n
		case i == view.Primary:
			r.primary = n
		case i == view.LastPrimary && v.Role == topology.RolePrimary && v.State == topology.StateUp:
			r.fenced = n
		}
		if v.Role != topology.RoleReplica || v.State != topology.StateUp {
			continue
		}
		r.replicas, r.loads = append(r.replicas, n), append(r.loads, n.load)
		if v.OnTimeline(view.Timeline) {
			r.current, r.currents = append(r.current, n), append(r.currents, n.load)
		}
	}
	if view.Settled && r.primary == nil && !view.Split && !view.Told.Hold && allDown(view) {
		c.guessLocked(r)
	}
	r.heaviest = router.MaxWeight(r.loads)
	if before := c.routes.Swap(r); before != nil {
		close(before.replaced)
	}
}

// allDown reports whether no node answers.
func allDown(view *topology.View) bool {
	for i := range view.Nodes {
		if view.Nodes[i].State != topology.StateDown {
			return false
		}
	}
	return true
}

// guessLocked routes to nodes that do not answer probes, in the roles they had
// last. When all of them seem down it may well be the probes that fail.
func (c *Cluster) guessLocked(r *routes) {
	for i := range r.view.Nodes {
		v := &r.view.Nodes[i]
		n := c.nodes[v.Name]
		switch {
		case n == nil:
		case i == r.view.LastPrimary:
			r.primary, r.guess = n, true
		case v.Role == topology.RoleReplica:
			r.replicas, r.loads = append(r.replicas, n), append(r.loads, n.load)
			if v.OnTimeline(r.view.Timeline) {
				r.current, r.currents = append(r.current, n), append(r.currents, n.load)
			}
		}
	}
}

// AddReplica makes the server at address (host or host:port) part of the
// cluster while it runs. It is read as soon as it has answered a probe as a
// healthy replica. One that is part of it because companions tell of it stays
// when they do not any more.
func (c *Cluster) AddReplica(_ context.Context, address string) error {
	host, err := parseAddress(address)
	if err != nil {
		return fmt.Errorf("helios: add replica: %w", err)
	}
	decl := topology.Node{Name: host.String(), Weight: 1}
	c.mu.Lock()
	if n := c.nodes[decl.Name]; n != nil && n.told && !c.closed.Load() {
		n.told = false
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	return c.add(host, decl, false)
}

// add makes one more node part of the cluster. told means that companions tell of
// it and that nobody else has named it.
func (c *Cluster) add(host Host, decl topology.Node, told bool) error {
	config, err := c.extras.dialConfig(c.config, host)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if c.closed.Load() {
		c.mu.Unlock()
		return ErrClosed
	}
	if c.nodes[decl.Name] != nil {
		c.mu.Unlock()
		return fmt.Errorf("helios: add replica: node %s is part of the cluster already", decl.Name)
	}
	n := c.newNode(decl.Name, config, decl)
	n.told = told
	c.nodes[decl.Name] = n
	c.mu.Unlock()
	return c.board.Add(decl)
}

// parseAddress reads host, host:port, [IPv6]:port or the directory of a Unix
// socket.
func parseAddress(address string) (Host, error) {
	const want = "want host, host:port, [IPv6]:port or the directory of a Unix socket"
	if address == "" || strings.ContainsAny(address, ", \t\n?#@%") || strings.LastIndexByte(address, '/') > 0 && address[0] != '/' {
		return Host{}, fmt.Errorf("%q is not one address: %s", address, want)
	}
	if strings.HasPrefix(address, "/") {
		address = url.PathEscape(address)
	}
	cfg, err := ParseDSN("helios://" + address + "/")
	if err != nil || len(cfg.Hosts) != 1 {
		return Host{}, fmt.Errorf("%q is not an address: %s", address, want)
	}
	return cfg.Hosts[0], nil
}

// RemoveReplica takes a node out of the cluster: it gets no new statements at
// once, and is closed when those under way have ended or ctx ends; a node that is
// down is not waited for. The primary cannot be removed. A node that companions
// tell of stays out until they tell of it anew.
func (c *Cluster) RemoveReplica(ctx context.Context, name string) error {
	routes := c.routes.Load()
	n := routes.byName[name]
	switch {
	case n == nil:
		return fmt.Errorf("helios: remove replica: node %s is not part of the cluster", name)
	case routes.primary == n, routes.view.Told.Hold && routes.fenced == n:
		return fmt.Errorf("helios: remove replica: node %s is the primary", name)
	}
	if err := c.takeOut(n); err != nil {
		return fmt.Errorf("helios: remove replica: %w", err)
	}
	err := n.drain(ctx)
	n.close()
	return err
}

// takeOut takes n out of the cluster: it gets no new statements. Those under way
// on a node that is down end, since nobody looks at it any more.
func (c *Cluster) takeOut(n *node) error {
	if err := c.board.Remove(n.name); err != nil {
		return err
	}
	c.mu.Lock()
	delete(c.nodes, n.name)
	c.rebuildLocked(c.board.Peek())
	c.mu.Unlock()
	if n.down.Load() {
		n.pool.Fence(unsent(n.name, errors.New("node is down and was removed")))
	}
	return nil
}

// drain waits until no statement runs on n.
func (n *node) drain(ctx context.Context) error {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for n.pool.Stats().Busy > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("helios: node %s was removed before its statements ended: %w", n.name, context.Cause(ctx))
		}
	}
	return nil
}

// drainPoll is how often a node that is being removed is looked at.
const drainPoll = 5 * time.Millisecond
