package pgtest

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/internal/pgctl"
)

// Node is one PostgreSQL server of a cluster. It is safe for concurrent use.
type Node struct {
	Name  string // n1, n2, …; a replica's application_name
	Proxy *Proxy // nil unless Options.Proxied

	cluster *Cluster
	server  Server
}

// Addr returns where clients of the cluster connect, as host:port: the proxy if
// there is one.
func (n *Node) Addr() string {
	if n.Proxy != nil {
		return n.Proxy.Addr()
	}
	return n.server.Addr()
}

// DirectAddr returns the server's own host:port, past any proxy.
func (n *Node) DirectAddr() string { return n.server.Addr() }

// DSN returns a postgres:// URL of this server alone, past any proxy. Each
// parameter is a key=value, such as "connect_timeout=1".
func (n *Node) DSN(params ...string) string {
	return n.cluster.url("postgres", pgctl.Superuser, n.server.Addr(), params)
}

// Server returns what runs the node, for what the verbs of [Cluster] do not
// offer. It is a [LocalServer] unless it runs in a container.
func (n *Node) Server() Server { return n.server }

// Connect opens a superuser's connection past any proxy. The caller closes it.
func (n *Node) Connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, n.DSN("application_name=pgtest"))
	if err != nil {
		return nil, n.failed(err)
	}
	return conn, nil
}

// Exec runs one statement on a connection of its own, past any proxy.
func (n *Node) Exec(ctx context.Context, sql string, args ...any) error {
	conn, err := n.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // the statement's own error tells more
	_, err = conn.Exec(ctx, sql, args...)
	return n.failed(err)
}

// Value returns the one value that a query yields on a node, on a connection of
// its own, past any proxy.
func Value[T any](ctx context.Context, n *Node, sql string, args ...any) (value T, err error) {
	conn, err := n.Connect(ctx)
	if err != nil {
		return value, err
	}
	defer conn.Close(ctx) //nolint:errcheck // the query's own error tells more
	err = conn.QueryRow(ctx, sql, args...).Scan(&value)
	return value, n.failed(err)
}

// setDown tells the proxy, if any, whether there is a server behind it.
func (n *Node) setDown(down bool) error {
	if n.Proxy == nil {
		return nil
	}
	return n.Proxy.setDown(down)
}

// failed says which node err is about; nil stays nil.
func (n *Node) failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", n.Name, err)
}
