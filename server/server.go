package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/lag/stats"
	"github.com/heliosdb/helios/server/api"
)

// A Config says what a companion is. Everything in it belongs to the [Server] from
// New on.
type Config struct {
	Self     failover.Member
	Join     []string          // companions of the cluster to become a member of; none begins a new cluster
	Settings failover.Settings // of a new cluster
	Interval time.Duration     // between two reports of a node that is not the primary (lag_monitor_interval)

	// CheckLease says why a lease that is ordered does not go with how this companion is
	// configured, as all others should be; nil for whatever failover.Settings allow.
	CheckLease func(lease time.Duration) error

	TLS      *tls.Config // of what is served; nil: plain text
	PeerTLS  *tls.Config // of calls to other companions; nil: plain text
	Insecure bool        // other machines are let in without TLS

	Token     string // that orders need; "" for none
	ReadToken string // that questions need; "" for none

	// LagThreshold is how far a replica may lag that load balancers send reads to, if they
	// do not say; 0 for as far as it likes.
	LagThreshold time.Duration

	// Metrics are what the node counts; nil for a companion whose node counts nothing.
	Metrics *api.Metrics

	// Dial opens connections to other companions; nil for TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	Log  *slog.Logger // nil for slog.Default
}

// A Server is one companion. Make one with New, then Run it. Its methods are safe
// for concurrent use.
type Server struct {
	cfg       Config
	log       Membership
	node      Node
	mux       *mux
	callers   *callers
	conductor *conductor
	board     *board
	lag       *stats.Monitor
	api       *api.Handler
	logger    *slog.Logger

	run     uint64        // a random number of this start
	seq     atomic.Uint64 // of reports
	leaving atomic.Int64  // nanoseconds that this companion means to be away; 0 while it stays
	closing chan struct{} // closed when Run ends
	work    sync.WaitGroup
}

// Membership is a [Log] that members can join and leave: *consensus.Node.
type Membership interface {
	Log
	// Fresh reports whether the log is that of no cluster yet.
	Fresh() bool
	Bootstrap(ctx context.Context, m failover.Member) error
	AddVoter(ctx context.Context, name, addr string) error
	AddNonvoter(ctx context.Context, name, addr string) error
	Remove(ctx context.Context, name string) error
}

// Listeners share the port of a companion. Serve the relay and the consensus from
// theirs.
type Listeners struct{ mux *mux }

// NewListeners shares a listener.
func NewListeners(l net.Listener, config *tls.Config, log *slog.Logger) *Listeners {
	return &Listeners{newMux(l, config, log)}
}

// Relay returns the listener of those who speak PostgreSQL's protocol.
func (l *Listeners) Relay() net.Listener { return l.mux.on(wireRelay) }

// Raft returns the listener of the consensus.
func (l *Listeners) Raft() net.Listener { return l.mux.on(wireRaft) }

// New puts a companion together, and begins nothing. A nil node makes it a witness.
func New(cfg Config, listeners *Listeners, log Membership, node Node) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if node == nil {
		node = &witness{start: time.Now()}
	}
	s := &Server{
		cfg: cfg, log: log, node: node, mux: listeners.mux, logger: cfg.Log,
		callers: newCallers(cfg.PeerTLS, cfg.Dial), board: newBoard(cfg.Self.Name), lag: stats.NewMonitor(cfg.Interval),
		run: rand.Uint64(), closing: make(chan struct{}),
	}
	s.api = api.New(api.Config{
		Cluster: s, Token: cfg.Token, ReadToken: cfg.ReadToken, ClientCerts: cfg.TLS != nil,
		LagThreshold: cfg.LagThreshold, Metrics: cfg.Metrics, Log: cfg.Log,
	})
	edit := &editor{s: s}
	s.conductor = &conductor{
		self: cfg.Self.Name, log: log, local: node, callers: s.callers, dial: cfg.Dial, logger: cfg.Log, tell: edit.note,
		inputs: make(chan failover.Input, 64), waiting: make(map[reportKey]chan failover.Assignment), warned: make(map[string]time.Time), deposed: make(chan struct{}, 1),
	}
	return s
}

// Run is the companion at work, until ctx ends; it returns the cause of that. When
// it returns everything but PostgreSQL and the consensus has ended.
func (s *Server) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	web := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: helloTimeout,
		IdleTimeout:       2 * time.Minute,
		ConnContext:       withTLS,
		ErrorLog:          slog.NewLogLogger(s.logger.Handler(), slog.LevelDebug),
	}
	group.Go(func() error { return s.mux.run(ctx) })
	group.Go(func() error {
		if err := web.Serve(s.mux.on(wireHTTP)); !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		close(s.closing)
		s.api.Close()
		return web.Close()
	})
	group.Go(func() error { return s.conductor.run(ctx) })
	group.Go(func() error { return s.node.Run(ctx) })
	group.Go(func() error { return (&reporter{s: s}).run(ctx) })
	group.Go(func() error { return s.listen(ctx) })
	group.Go(func() error { return s.lag.Run(ctx, s.observe) })
	group.Go(func() error { return s.belong(ctx) })
	err := group.Wait()
	s.work.Wait()
	s.callers.close()
	return err
}

// Leave tells the leader that this companion will be away for as long as d, so that
// its node keeps its role meanwhile, and gives the leadership away. Call it before
// the context of Run ends.
func (s *Server) Leave(ctx context.Context, d time.Duration) {
	s.leaving.Store(int64(d))
	if s.conductor.isLeading() {
		if err := s.log.Transfer(ctx, ""); err != nil {
			s.logger.InfoContext(ctx, "nobody takes the leadership", "error", err)
		}
	}
	for ctx.Err() == nil {
		sent := s.node.Clock()
		if as, err := s.askLeader(ctx, s.report()); err == nil {
			s.node.Assign(as, sent)
			return
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// tlsKey is where the state of a connection's TLS is in a request's context.
type tlsKey struct{}

// withTLS keeps what net/http does not find: the mux has shaken hands already.
func withTLS(ctx context.Context, conn net.Conn) context.Context {
	if r, ok := conn.(*replayed); ok {
		if state, ok := r.TLS(); ok {
			return context.WithValue(ctx, tlsKey{}, &state)
		}
	}
	return ctx
}

// handler serves everything that speaks HTTP.
func (s *Server) handler() http.Handler {
	peers := http.NewServeMux()
	peers.HandleFunc("POST "+pathReport, on(s.hearReport))
	peers.HandleFunc("POST "+pathAssign, on(s.hearAssignment))
	peers.HandleFunc("POST "+pathSeal, on(func(ctx context.Context, in epochCall) (failover.SealAnswer, error) {
		return s.node.Seal(ctx, in.Epoch), nil
	}))
	peers.HandleFunc("POST "+pathPrepare, on(func(ctx context.Context, _ epochCall) (empty, error) {
		return empty{}, s.node.Prepare(ctx)
	}))
	peers.HandleFunc("POST "+pathStop, on(func(ctx context.Context, in epochCall) (failover.Stopped, error) {
		return s.node.Stop(ctx, in.Epoch), nil
	}))
	peers.HandleFunc("POST "+pathPromote, on(func(ctx context.Context, in failover.Promote) (failover.Promoted, error) {
		return s.node.Promote(ctx, in), nil
	}))
	peers.HandleFunc("POST "+pathObserve, on(func(ctx context.Context, in observeCall) (failover.Observed, error) {
		return observe(ctx, s.cfg.Dial, s.cfg.Self.Name, in), nil
	}))
	peers.HandleFunc("POST "+pathJoin, on(s.hearJoin))
	peers.HandleFunc("POST "+pathOrder, on(func(ctx context.Context, o api.Order) (empty, error) {
		return empty{}, s.order(ctx, o)
	}))
	peers.HandleFunc("POST "+pathReinit, on(func(ctx context.Context, _ epochCall) (empty, error) {
		return empty{}, s.node.Reinit(ctx)
	}))
	peers.HandleFunc("POST "+pathKnown, on(func(context.Context, empty) (known, error) {
		return knownOf(s.log.State()), nil
	}))
	peers.HandleFunc("GET "+pathPark, parked(s.closing))
	all := http.NewServeMux()
	all.Handle("/peer/", s.peersOnly(peers))
	all.Handle("/", s.api)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if state, ok := r.Context().Value(tlsKey{}).(*tls.ConnectionState); ok {
			r.TLS = state
		}
		all.ServeHTTP(w, r)
	})
}

// hearReport answers a report with an assignment.
func (s *Server) hearReport(ctx context.Context, r failover.Report) (failover.Assignment, error) {
	if _, ok := s.log.State().Member(r.Node); !ok {
		return failover.Assignment{}, &api.Error{Code: codeNoMember, Message: fmt.Sprintf("%s is no member of this cluster", r.Node), Hint: "start its companion with --join"}
	}
	return s.conductor.report(ctx, r)
}

// hearAssignment passes on what the leader wants unasked.
func (s *Server) hearAssignment(_ context.Context, as failover.Assignment) (empty, error) {
	if as.Node != s.cfg.Self.Name {
		return empty{}, &api.Error{Code: codeWrongNode, Message: fmt.Sprintf("this is the companion of %s, not of %s: two members have one address", s.cfg.Self.Name, as.Node)}
	}
	as.Lease = 0
	s.node.Assign(as, 0)
	return empty{}, nil
}
