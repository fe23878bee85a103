package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/topology"
)

// What a zero field of a [Prober] means.
const (
	DefaultInterval = time.Second
	DefaultTimeout  = time.Second
	DefaultCrisis   = 25 * time.Millisecond
)

// ApplicationName is the application_name of the prober's connections.
const ApplicationName = "helios probe"

// After longCrisis without a primary, probes come slowCrisis apart at most
// often: whoever repairs the cluster needs its connections too.
const (
	longCrisis = 5 * time.Second
	slowCrisis = 250 * time.Millisecond
)

// SQLSTATE of a node that is alive but has no connection left for us.
const tooManyConnections = "53300"

// A Prober asks every node of a board what it is, again and again. Set its
// fields before Run and do not change them after. Kick is safe for concurrent
// use, and Run is called once.
type Prober struct {
	Board    *topology.Board
	Interval time.Duration // between probes of a node in quiet times, give or take a tenth
	Timeout  time.Duration // for one probe, connecting included
	Crisis   time.Duration // between probes of every node while the cluster has no primary

	// Connect makes a connection to the named node and to no other, under the
	// name of ApplicationName, and gives up when ctx ends. The prober owns the
	// connection.
	Connect func(ctx context.Context, node string) (*pgconn.PgConn, error)

	// Heard, if not nil, is called with what every probe has found that said
	// something about the node, once the board knows it. Calls for different nodes
	// overlap.
	Heard func(o *topology.Observation)

	Log *slog.Logger // nil for silence

	mu    sync.Mutex
	kicks map[string]chan struct{} // guarded by mu; one for each node being watched
}

// Run probes the nodes on the board, including those that are added while it
// runs, until ctx ends, and returns the cause of that end. Everything it
// started has ended when it returns.
func (p *Prober) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	stops := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for {
		v, changed := p.Board.Watch()
		for name, stop := range stops {
			if v.Index(name) < 0 {
				stop()
				delete(stops, name)
			}
		}
		for _, n := range v.Nodes {
			if stops[n.Name] == nil {
				stops[n.Name] = p.start(ctx, n.Name, &running)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// start begins to watch a node, until ctx ends or the returned function is
// called.
func (p *Prober) start(ctx context.Context, node string, running *sync.WaitGroup) context.CancelFunc {
	ctx, stop := context.WithCancel(ctx)
	w := &watcher{Prober: p, node: node, kick: make(chan struct{}, 1)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kicks == nil {
		p.kicks = map[string]chan struct{}{}
	}
	p.kicks[node] = w.kick
	running.Go(func() {
		defer p.forget(w)
		w.run(ctx)
	})
	return stop
}

// forget takes back what start noted, unless another watcher has followed.
func (p *Prober) forget(w *watcher) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kicks[w.node] == w.kick {
		delete(p.kicks, w.node)
	}
}

// Kick has the named node probed now, or every node if node is "". It never
// blocks; of several kicks during one probe, one is remembered.
func (p *Prober) Kick(node string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, kick := range p.kicks {
		if node != "" && node != name {
			continue
		}
		select {
		case kick <- struct{}{}:
		default:
		}
	}
}

func (p *Prober) log() *slog.Logger {
	if p.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return p.Log
}

// A watcher probes one node. It belongs to one goroutine.
type watcher struct {
	*Prober
	node string
	kick chan struct{} // holds one; sent to by Kick

	asker  *asker    // nil while there is no connection
	failed bool      // the last probe failed
	crisis time.Time // since when the cluster has had no primary; zero in quiet times
}

func (w *watcher) run(ctx context.Context) {
	defer w.hangUp()
	for ctx.Err() == nil {
		begun := time.Now()
		w.probe(ctx)
		w.wait(ctx, begun)
	}
}

// wait returns when it is time for the probe that follows the one begun then.
func (w *watcher) wait(ctx context.Context, begun time.Time) {
	spread := 0.9 + 0.2*rand.Float64() // so that many clients do not ask in step
	for {
		v, changed := w.Board.Watch()
		pause := time.Duration(spread * float64(w.pace(v, time.Now())))
		timer := time.NewTimer(time.Until(begun.Add(pause)))
		select {
		case <-timer.C:
			return
		case <-w.kick:
		case <-ctx.Done():
		case <-changed: // perhaps there is no primary any more
			timer.Stop()
			continue
		}
		timer.Stop()
		return
	}
}

// pace returns the time between two probes, as v looks at now.
func (w *watcher) pace(v *topology.View, now time.Time) time.Duration {
	quiet := orDefault(w.Interval, DefaultInterval)
	if v.Primary >= 0 {
		w.crisis = time.Time{}
		return quiet
	}
	if w.crisis.IsZero() {
		w.crisis = now
	}
	pace := orDefault(w.Crisis, DefaultCrisis)
	if now.Sub(w.crisis) >= longCrisis {
		pace = max(pace, slowCrisis)
	}
	return min(pace, quiet)
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// probe asks the node once, within Timeout, and puts the answer on the board.
func (w *watcher) probe(ctx context.Context) {
	timeout := orDefault(w.Timeout, DefaultTimeout)
	limited, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	o, err := w.ask(limited)
	if err != nil || limited.Err() != nil { // the end of a context closes the socket
		w.hangUp()
	}
	if ctx.Err() != nil {
		return // we are being stopped: that says nothing about the node
	}
	if limited.Err() != nil && err != nil {
		err = context.Cause(limited)
	}
	w.report(ctx, o, err)
}

// ask asks over the connection there is. If that fails, or there is none, it
// asks over a new one: that somebody ended the old session says nothing about
// the node.
func (w *watcher) ask(ctx context.Context) (topology.Observation, error) {
	if w.asker != nil {
		if o, err := w.asker.ask(ctx); err == nil || ctx.Err() != nil {
			return o, err
		}
		w.hangUp()
	}
	conn, err := w.Connect(ctx, w.node)
	if err != nil {
		return topology.Observation{}, err
	}
	w.asker = &asker{conn: conn}
	return w.asker.ask(ctx)
}

func (w *watcher) hangUp() {
	if w.asker != nil {
		w.asker.close()
		w.asker = nil
	}
}

// report puts on the board what a probe has found.
func (w *watcher) report(ctx context.Context, o topology.Observation, err error) {
	o.Node, o.At = w.node, time.Now()
	var pg *pgconn.PgError
	switch {
	case err == nil:
		if w.failed {
			w.log().InfoContext(ctx, "node answers again", "node", w.node, "role", o.Role.String())
		}
	case errors.As(err, &pg) && pg.Code == tooManyConnections:
		w.log().DebugContext(ctx, "no connection left for the probe", "node", w.node, "error", err)
		return
	default:
		o.Err = brief(err)
		if !w.failed {
			w.log().WarnContext(ctx, "node does not answer", "node", w.node, "error", o.Err)
		}
	}
	w.failed = err != nil
	w.Board.Observe(o)
	if w.Heard != nil {
		w.Heard(&o)
	}
}
