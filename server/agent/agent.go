package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// An Agent looks after one PostgreSQL server. Make one with New, then Run it. Its
// methods are safe for concurrent use; Seal, Promote, Prepare and Stop work while
// Run does.
type Agent struct {
	cfg      Config
	log      *slog.Logger
	clock    func() time.Duration
	run      uint64 // a random number of this start
	pg       *pgctl.Instance
	relay    *relay.Relay
	lease    *Lease
	gate     *gate
	promises *promises
	probing  *parked // the health check's
	acting   *parked // what is done to the server asks it over this one

	hands   chan struct{}  // holds one while somebody does something to the server
	wake    chan struct{}  // holds one: the next step may be another one
	look    chan struct{}  // holds one: the server is to be asked at once
	started chan struct{}  // holds one: there is a server whose end is to be noticed
	running sync.WaitGroup // what goes on when a method has returned
	ending  chan struct{}  // closed when Run ends

	anew atomic.Bool         // the data directory is to be made anew
	plan failover.RejoinPlan // the last one told in the log; whoever has taken the agent has it

	source  sync.Mutex    // held while the relay's source is changed
	sourced string        // guarded by source; what it was changed to
	follows atomic.Uint64 // the epoch for which that was
	turns   atomic.Int64  // how often the walreceiver was brought back

	mu        sync.Mutex
	as        failover.Assignment
	assigned  bool
	state     failover.ServerState
	reason    string
	facts     facts
	known     bool // facts are those of the server that runs
	diverged  bool
	salvaged  wal.Position   // where the WAL of a server that has ended as the relay's source ends; zero if that is not known
	back      bool           // the lease is not wanted before the server is well again
	downSince time.Duration  // when the server ended
	downSeq   uint64         // the last report before that
	alone     string         // why a primary without a lease must not go on; "" if it may
	withdrawn string         // says that it was stopped for that reason; "" if it was not, or was started since
	elsewhere time.Duration  // since when another node is known to be primary; 0 if it is not
	stoppedIn failover.Epoch // Stop was told in it
	pointed   string         // primary_conninfo, as it was written last
	misled    time.Duration  // since when the walreceiver is at another upstream than the own relay; 0 if it is not
	requests  requests
	rejoining rejoining
	changed   chan struct{}
}

// New makes an agent that does nothing yet, and reads what was promised before.
func New(cfg Config) (*Agent, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	promises, err := openPromises(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	pg, err := newServer(cfg)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, log: cfg.Log, clock: cfg.Clock, run: rand.Uint64() | 1, pg: pg, lease: new(Lease), promises: promises,
		hands: make(chan struct{}, 1), wake: make(chan struct{}, 1), look: make(chan struct{}, 1), started: make(chan struct{}, 1), ending: make(chan struct{}),
		state: failover.ServerDown, changed: make(chan struct{}), downSince: cfg.Clock(), back: true,
	}
	a.probing, a.acting = newParked(pg.Connect), newParked(pg.Connect)
	if err := a.makeRelay(); err != nil {
		return nil, err
	}
	a.gate.fence(promises.get().newest())
	return a, nil
}

// newServer describes the server.
func newServer(cfg Config) (*pgctl.Instance, error) {
	return pgctl.New(pgctl.Config{
		Binaries: cfg.Binaries, Name: cfg.Name, Dir: cfg.DataDir, Port: cfg.Port, SocketDir: cfg.SocketDir,
		Superuser: cfg.Superuser, Detached: true,
	})
}

// makeRelay makes the relay with the gate in it.
func (a *Agent) makeRelay() error {
	r := a.cfg.Relay
	r.Name, r.Source, r.SourceLater = gateName, nil, true
	r.Acknowledge, r.Slot = relay.Policy{}, ""
	r.Log = a.log
	r.WALDir, r.WALOwner = cmp.Or(r.WALDir, filepath.Join(a.cfg.DataDir, "pg_wal")), a.cfg.Name
	a.gate = &gate{clock: a.clock, lease: a.lease, settled: a.tell, confirmed: a.cfg.Metrics.GateConfirmed}
	r.Gate = a.gate.confirm
	made, err := relay.New(r)
	if err != nil {
		return err
	}
	a.relay, a.gate.standbys = made, made.Replicator()
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Relay returns the relay that the local server is the source of, or stands
// behind.
func (a *Agent) Relay() *relay.Relay { return a.relay }

// Run looks after the server until ctx ends, and returns why it ended. A server
// that is found running is adopted and left as it is; whatever runs at the end
// goes on running.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := a.adopt(ctx); err != nil {
		return err
	}
	var parts sync.WaitGroup
	relaying, stopRelay := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRelay()
	var listeners []net.Listener
	if a.cfg.Listener != nil {
		listeners = append(listeners, a.cfg.Listener)
	}
	parts.Go(func() {
		if err := a.relay.Run(relaying, listeners...); relaying.Err() == nil {
			cancel(fmt.Errorf("agent: the relay ended: %w", err))
		}
	})
	parts.Go(func() { a.watchEnd(ctx) })
	parts.Go(func() { a.watchHealth(ctx) })
	parts.Go(func() { a.watchLease(ctx) })
	parts.Go(func() { a.reconcile(ctx) })
	<-ctx.Done()
	a.leave(context.WithoutCancel(ctx))
	stopRelay()
	parts.Wait()
	close(a.ending)
	a.running.Wait()
	a.probing.drop()
	a.acting.drop()
	a.pg.Release()
	return context.Cause(ctx)
}

// adopt takes over a server that runs already. The first node of a cluster may be making its
// own by then, which takes as long as the disk takes: that is no tool of a process before.
func (a *Agent) adopt(ctx context.Context) error {
	if err := a.take(ctx); err != nil {
		return err
	}
	defer a.put()
	if a.pg.Running() {
		return nil
	}
	if err := a.pg.AwaitTools(ctx); err != nil {
		return err
	}
	if !exists(filepath.Join(a.cfg.DataDir, "PG_VERSION")) {
		return nil
	}
	running, err := a.pg.Adopt(ctx)
	if err != nil {
		return err
	}
	if !running {
		return a.readStopped(ctx)
	}
	a.begun()
	if err := a.ask(ctx); err != nil { // it may be recovering: the health check goes on asking
		a.log.WarnContext(ctx, "a server was adopted that does not answer yet", "error", err)
	}
	return nil
}

// readStopped learns from its files what a server is that does not run.
func (a *Agent) readStopped(ctx context.Context) error {
	c, err := a.pg.ControlData(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.facts = facts{SystemID: c.SystemID, Timeline: max(c.Timeline, c.MinRecovery.Timeline), LSN: max(c.Checkpoint, c.MinRecovery.LSN), Recovery: a.isReplica()}
	return nil
}

// isReplica reports whether the server starts as a standby.
func (a *Agent) isReplica() bool { return exists(filepath.Join(a.cfg.DataDir, "standby.signal")) }

// leave takes the gate off, if that is wanted: until the next start of a
// companion commits then wait for nobody.
func (a *Agent) leave(ctx context.Context) {
	if a.cfg.Fencing != FencingRelaxed || a.gate.reigns() == 0 || !a.pg.Running() {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Second, errors.New("no answer within 2s"))
	defer cancel()
	if err := a.ungate(ctx); err != nil {
		a.log.ErrorContext(ctx, "the gate stays on: commits wait until the companion is back", "error", err)
		return
	}
	a.log.InfoContext(ctx, "the gate is off: commits wait for nobody until the companion is back")
}

func (a *Agent) ungate(ctx context.Context) error {
	if err := a.pg.Configure(map[string]string{"synchronous_standby_names": ""}); err != nil {
		return err
	}
	return a.pg.Reload(ctx)
}

// take waits until nobody else does anything to the server.
func (a *Agent) take(ctx context.Context) error {
	select {
	case a.hands <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("agent: %s: something else is being done to the server: %w", a.cfg.Name, context.Cause(ctx))
	}
}

func (a *Agent) put() { <-a.hands }

// poke puts one into a channel that holds one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// later does something that nobody waits for but Run, whose end cuts it short.
func (a *Agent) later(ctx context.Context, f func(context.Context)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	a.running.Go(func() {
		defer cancel()
		f(ctx)
	})
	a.running.Go(func() {
		select {
		case <-a.ending:
			cancel()
		case <-ctx.Done():
		}
	})
}

// tell has the leader told at once.
func (a *Agent) tell() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tellLocked()
}

// tellLocked has the leader told at once.
func (a *Agent) tellLocked() {
	close(a.changed)
	a.changed = make(chan struct{})
	poke(a.wake)
}
