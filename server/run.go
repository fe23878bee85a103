package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/failover/consensus"
	"github.com/heliosdb/helios/internal/certs"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/server/agent"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/server/config"
	"github.com/heliosdb/helios/wal/relay"
)

// restartGrace is for how long the leader waits for a companion that said that it
// restarts.
const restartGrace = 5 * time.Second

// leaveBudget is how long a companion that ends takes to say so.
const leaveBudget = 2 * time.Second

// Run is the companion that cfg describes, until ctx ends. It then tells the
// leader that it restarts, and leaves PostgreSQL running.
func Run(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	c, err := assemble(ctx, cfg, log)
	if err != nil {
		return err
	}
	running, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	done := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(done)
		leaving, cancel := context.WithTimeout(running, leaveBudget)
		defer cancel()
		c.server.Leave(leaving, restartGrace)
		stop(context.Cause(ctx))
	})()
	err = c.server.Run(running)
	if ctx.Err() != nil {
		<-done
		err = nil // it was told to end
	}
	return errors.Join(err, c.close())
}

// A companion is everything that a [config.Config] describes.
type companion struct {
	server *Server
	log    *consensus.Node
	port   net.Listener
}

func (c *companion) close() error {
	var errs []error
	if c.log != nil {
		errs = append(errs, c.log.Close())
	}
	if c.port != nil {
		c.port.Close() //nolint:errcheck // closed with the server, if that ran
	}
	return errors.Join(errs...)
}

// assemble makes a companion, and begins nothing but the consensus.
func assemble(ctx context.Context, cfg config.Config, log *slog.Logger) (*companion, error) {
	w := wiring{cfg: cfg, log: log.With("node", cfg.Name), metrics: api.NewMetrics()}
	if err := w.secrets(); err != nil {
		return nil, err
	}
	c := &companion{}
	var err error
	if c.port, err = new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen); err != nil {
		return nil, err
	}
	listeners := NewListeners(c.port, w.serve, w.log)
	if c.log, err = w.consensus(listeners.Raft()); err != nil {
		return nil, errors.Join(err, c.close())
	}
	var node Node
	if !cfg.Witness {
		if node, err = w.agent(listeners.Relay(), c.log.State); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	c.server = New(Config{
		Self: cfg.Member(), Join: cfg.Join, Settings: cfg.Settings, Interval: cfg.LagMonitorInterval, CheckLease: cfg.CheckLease,
		TLS: w.serve, PeerTLS: w.dial, Insecure: cfg.Insecure, Token: w.token, ReadToken: w.readToken, LagThreshold: cfg.LagThreshold, Metrics: w.metrics, Log: w.log,
	}, listeners, c.log, node)
	return c, nil
}

// wiring is what the parts of a companion share.
type wiring struct {
	cfg   config.Config
	log   *slog.Logger
	serve *tls.Config // nil without certificates
	dial  *tls.Config

	token, readToken string
	metrics          *api.Metrics
}

// secrets reads what is secret.
func (w *wiring) secrets() error {
	if w.cfg.TLS != "" {
		id, err := certs.Load(w.cfg.TLS, w.log)
		if err != nil {
			return err
		}
		w.serve, w.dial = id.Server(false), id.Client()
	}
	var err error
	if w.cfg.TokenFile != "" {
		w.token, err = config.ReadToken(w.cfg.TokenFile)
	}
	if err == nil && w.cfg.ReadTokenFile != "" {
		w.readToken, err = config.ReadToken(w.cfg.ReadTokenFile)
	}
	return err
}

// consensus opens this companion's part of the log.
func (w *wiring) consensus(l net.Listener) (*consensus.Node, error) {
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		if w.dial == nil {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
		return (&tls.Dialer{Config: w.dial}).DialContext(ctx, "tcp", addr)
	}
	timings, err := consensus.TimingsOf(string(w.cfg.Network))
	if err != nil {
		return nil, err
	}
	return consensus.Open(consensus.Config{
		Timings: timings,
		Name:    w.cfg.Name, Dir: filepath.Join(w.cfg.State, "log"), Log: w.log,
		Stream: consensus.NewStreamLayer(l, consensus.Address(w.cfg.Advertise), dial),
	})
}

// agent makes the part that looks after PostgreSQL.
func (w *wiring) agent(l net.Listener, state func() *failover.State) (*agent.Agent, error) {
	binaries, err := w.binaries()
	if err != nil {
		return nil, err
	}
	host, port, err := splitPort(w.cfg.Postgres)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	listen := host
	if w.cfg.TLS != "" || w.cfg.Insecure {
		listen = "*"
	}
	wal := relay.DefaultConfig()
	wal.BufferSize, wal.BatchSize, wal.Compression = w.cfg.WALBufferSize, w.cfg.WALBatchSize, w.cfg.EnableCompression
	wal.TLS, wal.RequireTLS, wal.Log = w.serve, w.serve != nil, w.log
	if wal.TrustAll = w.cfg.Insecure; wal.TrustAll {
		w.log.Warn("whoever reaches this port can read all data, and order a failover: insecure is on", "listen", w.cfg.Listen)
	}
	var hba []string
	var role string
	if w.cfg.TLS != "" {
		role = certs.NodeName
		hba = []string{"hostssl replication " + role + " all cert", "hostssl postgres " + role + " all cert", "hostssl all all all scram-sha-256"}
	}
	others := newCallers(w.dial, new(net.Dialer).DialContext).once()
	return agent.New(agent.Config{
		Around: func(ctx context.Context) agent.Around { return askAround(ctx, state(), w.cfg.Name, others) },
		HBA:    hba, Role: role, Certificates: w.cfg.TLS,
		Name: w.cfg.Name, DataDir: w.cfg.PGData, StateDir: w.cfg.State, State: state, Binaries: binaries,
		Host: listen, Port: port, Superuser: w.cfg.Superuser,
		Self: w.cfg.Member(), Listener: l, RelayAddr: w.cfg.Advertise, Relay: wal,
		PeerConn: w.peer, Conninfo: w.conninfo(),
		HealthInterval: w.cfg.HealthCheckInterval, HealthTimeout: w.cfg.HealthCheckTimeout, HardStopGrace: w.cfg.HardStopGrace,
		Fencing: string(w.cfg.Fencing), Metrics: w.metrics, Log: w.log,
	})
}

func (w *wiring) binaries() (pgctl.Binaries, error) {
	if w.cfg.PGBin != "" {
		return pgctl.BinariesIn(w.cfg.PGBin)
	}
	return pgctl.FindBinaries()
}

// user is who replicates: with certificates, the role that they name.
func (w *wiring) user() string {
	if w.dial != nil {
		return certs.NodeName
	}
	return w.cfg.Superuser
}

// conninfo is what primary_conninfo has besides hosts and ports.
func (w *wiring) conninfo() string {
	if w.dial == nil {
		return "user=" + w.user()
	}
	file := func(name string) string {
		return "'" + strings.ReplaceAll(filepath.Join(w.cfg.TLS, name), "'", `\'`) + "'"
	}
	return fmt.Sprintf("user=%s sslmode=verify-full sslrootcert=%s sslcert=%s sslkey=%s", w.user(), file("ca.crt"), file("node.crt"), file("node.key"))
}

// peer says how another node's relay or PostgreSQL is connected to for
// replication.
func (w *wiring) peer(m failover.Member, toRelay bool) (*pgconn.Config, error) {
	addr := m.Postgres
	if toRelay {
		addr = m.Companion
	}
	host, port, err := splitPort(addr)
	if err != nil {
		return nil, fmt.Errorf("member %s: %w", m.Name, err)
	}
	c, err := pgconn.ParseConfig(fmt.Sprintf("host='%s' port=%d dbname=postgres connect_timeout=5 %s", host, port, w.conninfo()))
	if err != nil {
		return nil, fmt.Errorf("member %s: %w", m.Name, err)
	}
	return c, nil
}

func splitPort(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	port, err = net.DefaultResolver.LookupPort(context.Background(), "tcp", text)
	return host, port, err
}
