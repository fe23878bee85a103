package helios

import (
	"context"
	"database/sql/driver"
	"log/slog"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Connector makes sessions on one cluster. Every *sql.DB made from it shares
// the cluster; closing one of them closes it.
type Connector struct{ cluster *Cluster }

// settings are what a program can say and a DSN cannot.
type extras struct {
	log          *slog.Logger
	afterConnect func(context.Context, *pgx.Conn) error
	dial         pgconn.DialFunc
	lookup       pgconn.LookupFunc
	notice       pgconn.NoticeHandler
	notification pgconn.NotificationHandler
}

// A ClusterOption says something about a cluster that a DSN cannot.
type ClusterOption func(*extras)

// WithLogger has what happens to the cluster logged. The driver is silent
// without it.
func WithLogger(log *slog.Logger) ClusterOption {
	return func(s *extras) { s.log = log }
}

// WithAfterConnect has f prepare every physical connection: register types, set
// parameters. It runs again after a connection's session state was reset.
func WithAfterConnect(f func(context.Context, *pgx.Conn) error) ClusterOption {
	return func(s *extras) { s.afterConnect = f }
}

// WithDialFunc has dial make the sockets, through a tunnel for instance.
func WithDialFunc(dial func(ctx context.Context, network, addr string) (net.Conn, error)) ClusterOption {
	return func(s *extras) { s.dial = dial }
}

// WithLookupFunc has lookup resolve host names.
func WithLookupFunc(lookup func(ctx context.Context, host string) ([]string, error)) ClusterOption {
	return func(s *extras) { s.lookup = lookup }
}

// WithOnNotice has f called with every notice of a server, by the goroutine
// that uses the connection.
func WithOnNotice(f func(*pgconn.PgConn, *pgconn.Notice)) ClusterOption {
	return func(s *extras) { s.notice = f }
}

// WithOnNotification has f called with every notification that reaches a
// session which listens, by the goroutine that uses the connection.
func WithOnNotification(f func(*pgconn.PgConn, *pgconn.Notification)) ClusterOption {
	return func(s *extras) { s.notification = f }
}

// NewConnector returns a connector for the cluster that cfg describes, for
// [sql.OpenDB]. cfg is copied. Nothing is dialed until the first session.
func NewConnector(cfg *Config, options ...ClusterOption) (*Connector, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	s := extras{log: slog.New(slog.DiscardHandler)}
	for _, option := range options {
		option(&s)
	}
	cluster, err := newCluster(cfg.Clone(), s)
	if err != nil {
		return nil, err
	}
	return &Connector{cluster: cluster}, nil
}

// Connect implements driver.Connector. A session is not a socket: nothing is
// dialed here, and ctx is not needed.
func (c *Connector) Connect(context.Context) (driver.Conn, error) {
	if err := c.cluster.start(); err != nil {
		return nil, err
	}
	return &Conn{cluster: c.cluster, seed: c.cluster.seeds.Add(seedStep)}, nil
}

// seedStep keeps the seeds of sessions far apart: 2^64 divided by the golden
// ratio.
const seedStep = 0x9E3779B97F4A7C15

// Driver implements driver.Connector.
func (c *Connector) Driver() driver.Driver { return Driver{connector: c} }

// Cluster returns the cluster the connector's sessions run on.
func (c *Connector) Cluster() *Cluster { return c.cluster }

// Close implements io.Closer; closing the *sql.DB calls it. It stops every
// goroutine and closes every socket before it returns.
func (c *Connector) Close() error { return c.cluster.Close() }

// dialConfig returns how one node is connected to.
func (s *extras) dialConfig(cfg *Config, host Host) (*pgx.ConnConfig, error) {
	config, err := cfg.ConnConfig(host)
	if err != nil {
		return nil, err
	}
	if s.dial != nil {
		config.DialFunc = s.dial
	}
	if s.lookup != nil {
		config.LookupFunc = s.lookup
	}
	config.OnNotice = s.notice
	config.OnNotification = s.notification
	return config, nil
}
