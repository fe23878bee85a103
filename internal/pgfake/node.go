package pgfake

import (
	"context"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/heliosdb/helios/wal"
)

// A Node is one scripted PostgreSQL server.
type Node struct {
	Name    string // n1, n2, …
	cluster *Cluster

	// guarded by cluster.mu
	primary  bool
	readOnly bool // default_transaction_read_only = on for everybody
	timeline wal.Timeline
	insert   wal.LSN // of a primary
	flush    wal.LSN // of a primary
	replay   wal.LSN // of a replica; on a promoted node the switch point
	follow   follow
	lag      time.Duration // of followLater
	pending  []replayed    // oldest first
	started  time.Time     // when the server was started last
	down     bool          // refuses connections
	frozen   bool          // accepts connections, answers nothing
	dark     bool          // the network to it swallows everything
	refusal  *Error        // answers every startup
	limit    int           // of connections; 0 for none
	latency  time.Duration // negative: the cluster's
	changed  chan struct{} // closed and replaced when frozen or dark end, or the node goes down
	answers  []answer
	faults   []*injected
	counters Counters
	sessions map[*session]bool
	unheard  []*Conn // reset while the node was dark
}

// Counters say what happened on a node since its start or ResetLog.
type Counters struct {
	RoundTrips int // writes of clients that contained a Sync or a Query
	Syncs      int // Sync and Query messages
	Parses     int // Parse messages
	Statements int // statements a node tried to execute
	Opened     int // connections that got through startup
	Open       int // connections that are open
	Cancels    int // CancelRequests
	Terminates int // connections that ended with a Terminate message
}

// Address returns the node's host and port, such as n1:5432.
func (n *Node) Address() string { return n.Name + ":5432" }

// Dial connects to the node, whatever the address says. It fits
// pgconn.Config.DialFunc and costs DialLatency.
func (n *Node) Dial(ctx context.Context, network, _ string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: addr(n.Address()), Err: err}
	}
	if err := n.reach(ctx); err != nil {
		return fail(err)
	}
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if n.down || n.cluster.closed {
		return fail(syscall.ECONNREFUSED)
	}
	client, server := pipe("client:0", addr(n.Address()))
	s := newSession(n, server)
	n.sessions[s] = true
	n.cluster.running.Go(s.serve)
	return client, nil
}

// reach takes the time that connecting costs, for ever while the node is dark.
func (n *Node) reach(ctx context.Context) error {
	if d := n.cluster.DialLatency; d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for {
		n.cluster.mu.Lock()
		dark, changed := n.dark, n.changed
		n.cluster.mu.Unlock()
		if !dark {
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// changedLocked wakes everybody who waits for the node's state.
func (n *Node) changedLocked() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// Kill ends the server as a crash does: connections are reset at once, dials
// are refused. After BlackHole it is a loss of power: nobody hears of it.
func (n *Node) Kill() {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.caughtUpLocked()
	n.down, n.frozen, n.pending = true, false, nil
	n.changedLocked()
	n.resetLocked()
}

// Reset cuts the node's connections; it goes on running.
func (n *Node) Reset() {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.resetLocked()
}

func (n *Node) resetLocked() {
	for s := range n.sessions {
		if n.dark {
			n.unheard = append(n.unheard, s.conn)
		}
		s.kill()
	}
}

// Refuse makes the node refuse new connections; open ones go on.
func (n *Node) Refuse() {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.down = true
}

// Start brings back a node that was killed or refused; it catches up.
func (n *Node) Start() {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.down, n.started = false, startOf(slices.Index(n.cluster.nodes, n))
	n.catchUpLocked()
}

// Shutdown is a fast shutdown: every connection is told 57P01 and ended, dials
// are refused.
func (n *Node) Shutdown() {
	n.Refuse()
	n.Terminate()
}

// Terminate ends every connection as pg_terminate_backend does: an idle one
// hears FATAL 57P01 and its end; one that waits for a synchronous standby hears
// a warning first, since its transaction is committed.
func (n *Node) Terminate() {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	for s := range n.sessions {
		s.terminate()
	}
}

// Hang freezes the server (SIGSTOP to all its processes): connections are
// accepted, nothing is answered, until Resume.
func (n *Node) Hang() { n.set(func() { n.frozen = true }) }

// Resume ends Hang: what was sent meanwhile is answered now.
func (n *Node) Resume() { n.set(func() { n.frozen = false }) }

// BlackHole makes the network swallow everything to and from the node, also
// what is under way; dials wait for their context.
func (n *Node) BlackHole() { n.setDark(true) }

// Heal ends BlackHole. What was sent meanwhile is delivered, as TCP does.
func (n *Node) Heal() { n.setDark(false) }

func (n *Node) setDark(dark bool) {
	n.set(func() {
		n.dark = dark
		for s := range n.sessions {
			s.conn.hold(dark)
		}
		for _, conn := range n.unheard {
			conn.hold(dark)
		}
	})
}

// SetReadOnly sets default_transaction_read_only for every connection: a soft
// fence. A transaction that is open is not affected.
func (n *Node) SetReadOnly(on bool) { n.set(func() { n.readOnly = on }) }

// SetLatency makes a round trip to this node cost d on later connections.
func (n *Node) SetLatency(d time.Duration) { n.set(func() { n.latency = d }) }

// SetMaxConnections makes connections beyond the limit fail with 53300; 0 for no limit.
func (n *Node) SetMaxConnections(limit int) { n.set(func() { n.limit = limit }) }

// RefuseStartup makes every new connection fail with err (FATAL), such as 57P03
// or 28P01, until it is called with nil.
func (n *Node) RefuseStartup(err *Error) { n.set(func() { n.refusal = err }) }

// set changes the node and wakes whoever waits for it.
func (n *Node) set(change func()) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	change()
	n.changedLocked()
}

// roundTrip is what a round trip costs on a new connection.
func (n *Node) roundTrip() time.Duration {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	if n.latency >= 0 {
		return n.latency
	}
	return n.cluster.Latency
}

// ReadOnly reports whether SetReadOnly is on.
func (n *Node) ReadOnly() bool { return n.state().readOnly }

// Dark reports whether BlackHole is on.
func (n *Node) Dark() bool {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	return n.dark
}

// StartedAt returns when the server was started last.
func (n *Node) StartedAt() time.Time { return n.state().started }

// IsPrimary reports whether the node is not in recovery.
func (n *Node) IsPrimary() bool { return n.state().primary }

// Counters returns what happened so far.
func (n *Node) Counters() Counters {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	return n.counters
}

// Log returns what the node tried to execute, in order.
func (n *Node) Log() []Entry {
	return slices.DeleteFunc(n.cluster.Log(), func(e Entry) bool { return e.Node != n.Name })
}

// Statements returns the texts of Log.
func (n *Node) Statements() []string {
	var texts []string
	for _, e := range n.Log() {
		texts = append(texts, e.SQL)
	}
	return texts
}
