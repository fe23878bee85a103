package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/heliosdb/helios/failover"
)

// Config is how a node is opened.
type Config struct {
	Name    string  // of the member; never changes, at most 255 bytes, without "@"
	Dir     string  // where the log is; made if it does not exist, for the owner alone
	Timings Timings // zero: those of "lan"
	Log     *slog.Logger

	// One of these reaches the other nodes. A Transport is raft's own, in tests that
	// of its memory.
	Stream    *StreamLayer
	Transport raft.Transport
}

// check returns what is wrong with a config, and fills in what may be left out.
func (c *Config) check() error {
	if c.Name == "" || len(c.Name) > 255 || c.Dir == "" || (c.Stream == nil) == (c.Transport == nil) {
		return errors.New("consensus: a node needs a name, a directory, and one way to reach others")
	}
	if c.Timings == (Timings{}) {
		c.Timings, _ = TimingsOf("")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// raft returns raft's own configuration.
func (c *Config) raft(log hclog.Logger) *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID = raft.ServerID(c.Name)
	r.HeartbeatTimeout, r.ElectionTimeout, r.LeaderLeaseTimeout = c.Timings.Heartbeat, c.Timings.Election, c.Timings.LeaderLease
	r.CommitTimeout = lazyCommit
	r.SnapshotThreshold, r.TrailingLogs = snapshotEntries, trailingEntries
	r.ShutdownOnRemove = false // who was removed shows its last state, and may be added again
	r.NoLegacyTelemetry = true
	r.Logger = log
	return r
}

// A Node is one companion's part in the log. It is safe for concurrent use.
type Node struct {
	name      string
	timings   Timings
	log       *slog.Logger
	raft      *raft.Raft
	machine   *machine
	transport *transport
	stream    *StreamLayer // nil over a Transport
	store     *store
	identity  *identity

	leadership chan bool     // holds the newest value, if nobody has taken it yet
	closing    chan struct{} // closed by Close
	running    sync.WaitGroup

	pacing sync.Mutex
	tempo  tempo // guarded by pacing

	mu     sync.Mutex
	closed bool           // guarded by mu
	calls  sync.WaitGroup // what raft has not answered yet; nothing is added once closed
}

// Open opens the node in c.Dir. It takes part in its cluster at once, if it is a member of one;
// a new one waits until it is added by the leader, or until Bootstrap. If Open
// fails, the stream layer is closed.
func Open(c Config) (n *Node, err error) {
	defer func() {
		if err != nil && c.Stream != nil {
			_ = c.Stream.Close() // it may be closed already
		}
	}()
	if err := c.check(); err != nil {
		return nil, err
	}
	log := newRaftLog(c.Log)
	store, err := openStore(c.Dir, log)
	if err != nil {
		return nil, fmt.Errorf("consensus: %w", err)
	}
	if n, err = start(c, store, log); err != nil {
		return nil, errors.Join(fmt.Errorf("consensus: %w", err), store.Close())
	}
	return n, nil
}

// streams is how many idle ones to each other node are kept.
const streams = 3

// start starts the node on an open store.
func start(c Config, store *store, log hclog.Logger) (*Node, error) {
	cluster, err := store.cluster()
	if err != nil {
		return nil, err
	}
	n := &Node{
		name: c.Name, timings: c.Timings, log: c.Log, machine: newMachine(), stream: c.Stream, store: store,
		identity:   &identity{name: c.Name, store: store, cluster: cluster},
		leadership: make(chan bool, 1), closing: make(chan struct{}),
	}
	inner := c.Transport
	if c.Stream != nil {
		c.Stream.self = n.identity
		inner = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: c.Stream, MaxPool: streams, Timeout: c.Timings.rpc(), Logger: log,
		})
	}
	n.transport = newTransport(inner, c.Stream != nil, n)
	n.raft, err = raft.NewRaft(c.raft(log), n.machine, store.logs, store.bolt, store.snapshots, n.transport)
	if err != nil {
		return nil, errors.Join(err, n.transport.Close())
	}
	n.transport.raft.Store(n.raft)
	n.running.Go(n.watchLeadership)
	return n, nil
}

// Close leaves the cluster to the others. Who leads it had better [Node.Transfer] leadership before,
// or they wait for an election. When Close returns, nothing of the node is running.
func (n *Node) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	n.mu.Unlock()
	// Raft answers everything as long as it runs: it commits, or finds that it
	// does not lead any more. What it had begun when it is shut down may stay unanswered.
	n.calls.Wait()
	close(n.closing)
	err := n.raft.Shutdown().Error() // closes the transport too, and with it the layer
	n.running.Wait()
	if n.stream != nil {
		n.stream.wait()
	}
	close(n.leadership)
	return errors.Join(err, n.store.Close())
}

// State returns what the log has come to, as far as this node knows. It is never nil.
func (n *Node) State() *failover.State { return n.machine.newest.Load().state }

// Watch returns the newest state, and a channel that is closed when there is a newer one.
func (n *Node) Watch() (*failover.State, <-chan struct{}) {
	v := n.machine.newest.Load()
	return v.state, v.replaced
}

// Leader returns the name of the leader and the address of its companion, as
// far as this node knows; "" if there is none.
func (n *Node) Leader() (name, addr string) {
	a, id := n.raft.LeaderWithID()
	return string(id), string(a)
}

// Term returns the number of the newest election that this node knows of.
func (n *Node) Term() uint64 { return n.raft.CurrentTerm() }

// Leadership tells whether this node leads. Only the newest value waits to be
// received, so true may follow upon true: leadership was lost and won again,
// in a newer term. When true is sent, [Node.State] has everything
// that was committed under earlier leaders. Close closes the channel.
func (n *Node) Leadership() <-chan bool { return n.leadership }

// watchLeadership publishes leadership until the node is closed.
func (n *Node) watchLeadership() {
	stop := func() {}
	defer func() { stop() }()
	for leads := false; ; {
		select {
		case <-n.closing:
			return
		case won := <-n.raft.LeaderCh():
			stop()
			n.pace(func(t *tempo) { t.leads = won })
			if won {
				stop = n.startPulse()
			}
			if won = won && n.catchUp(); !won && !leads {
				continue
			}
			leads = won
			n.publish(leads)
		}
	}
}

// pace changes the tempo, and raft's timings to what it asks for.
func (n *Node) pace(change func(*tempo)) {
	n.pacing.Lock()
	defer n.pacing.Unlock()
	before := n.timings.at(n.tempo)
	change(&n.tempo)
	t := n.timings.at(n.tempo)
	if t == before {
		return
	}
	c := n.raft.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = t.Heartbeat, t.Election
	if err := n.raft.ReloadConfig(c); err != nil {
		n.log.Warn("the timings stay as they were", "node", n.name, "tempo", n.tempo, "error", err)
	}
}

// transferring reports whether leadership is being handed over: raft takes no entries then.
func (n *Node) transferring() bool {
	n.pacing.Lock()
	defer n.pacing.Unlock()
	return n.tempo.transfers > 0
}

// catchUp waits until all that was committed before is applied. It returns false
// if leadership is lost meanwhile.
func (n *Node) catchUp() bool {
	for n.raft.State() == raft.Leader {
		err := n.call(context.Background(), func() error { return n.raft.Barrier(0).Error() })
		if err == nil {
			return true
		}
		// Leadership may be being handed over, which may come to nothing.
		select {
		case <-n.closing:
			return false
		case <-time.After(n.timings.LeaderLease / 5):
		}
	}
	return false
}

// publish replaces the value that waits to be received. Only watchLeadership calls it.
func (n *Node) publish(leads bool) {
	n.log.Info("leadership changed", "node", n.name, "leads", leads, "term", n.Term())
	select {
	case <-n.leadership:
	default:
	}
	n.leadership <- leads
}

// call has raft do something that it answers in its own time, and waits for
// the answer or the end of ctx. What has begun goes on then.
func (n *Node) call(ctx context.Context, do func() error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("consensus: %w", context.Cause(ctx))
	}
	answer := make(chan error, 1)
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return fmt.Errorf("consensus: %w", ErrClosed)
	}
	n.calls.Go(func() { answer <- do() })
	n.mu.Unlock()
	select {
	case err := <-answer:
		return n.explain(err)
	case <-ctx.Done():
		return fmt.Errorf("consensus: %w", context.Cause(ctx))
	}
}
