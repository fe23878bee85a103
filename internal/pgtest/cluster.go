package pgtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/heliosdb/helios/internal/pgctl"
)

// Options say what cluster is wanted. The zero value is one primary.
type Options struct {
	Replicas int               // beside the primary; all stream from it
	Settings map[string]string // of postgresql.conf on every node, over those of DefaultSettings
	Proxied  bool              // put a Proxy in front of every node; Cluster.DSN goes through them
	Database string            // made if it is not "postgres"; "" means "postgres"
	Foreign  bool              // with another system identifier than clusters that are not
	TLS      bool              // clients come by TLS and SCRAM-SHA-256, or not at all; $HELIOS_TEST_TLS=1 says so for every cluster
}

// defaultDatabase is the one that every server has.
const defaultDatabase = "postgres"

// DefaultSettings returns what nodes run with unless [Options] say otherwise:
// small, careless about the disk, quick to reconnect, and ready to be promoted
// and rewound.
func DefaultSettings() map[string]string {
	return map[string]string{
		"fsync":                       "off",
		"hot_standby":                 "on",
		"jit":                         "off",
		"max_connections":             "100",
		"max_replication_slots":       "20",
		"max_wal_senders":             "20",
		"shared_buffers":              "16MB",
		"wal_keep_size":               "256MB",
		"wal_level":                   "replica",
		"wal_log_hints":               "on",
		"wal_retrieve_retry_interval": "100ms",
	}
}

// Cluster is a running primary and its replicas. It is safe for concurrent use.
//
// Which node is the primary is what the verbs of this package made of it:
// a promotion behind its back is not noticed.
type Cluster struct {
	Nodes []*Node // n1, n2, …; the first primary is Nodes[0]

	fleet    Fleet
	database string
	tls      *TLS // nil if clients do not speak it
	closing  sync.Once
	closed   error // guarded by closing

	mu      sync.Mutex
	primary *Node // guarded by mu
}

// Start starts a cluster and returns when every replica streams from the
// primary and has caught up. The caller closes it. Without PostgreSQL the error
// is [ErrUnavailable].
func Start(ctx context.Context, o Options) (*Cluster, error) {
	provider, err := chosenProvider(ctx)
	if err != nil {
		return nil, err
	}
	secure, err := chosenTLS(o)
	if err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	fleet, err := provider.Fleet(ctx)
	if err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	c := &Cluster{fleet: fleet, database: defaultDatabase, tls: secure, Nodes: make([]*Node, 1+o.Replicas)}
	if err := c.launch(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("pgtest: %w", err), c.Close())
	}
	return c, nil
}

// chosenTLS returns what o or the environment ask for; nil if nobody does.
func chosenTLS(o Options) (*TLS, error) {
	everywhere, err := TLSWanted()
	if err != nil || !everywhere && !o.TLS {
		return nil, err
	}
	return run.speakTLS()
}

// launch starts the primary and then all replicas at once.
func (c *Cluster) launch(ctx context.Context, o Options) error {
	first, err := c.launchNode(ctx, 0, o)
	if err != nil {
		return err
	}
	c.primary = first
	database := cmp.Or(o.Database, defaultDatabase)
	if database != defaultDatabase {
		if err := first.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{database}.Sanitize()); err != nil {
			return err
		}
	}
	replicas, launching := errgroup.WithContext(ctx)
	for n := range o.Replicas {
		replicas.Go(func() error {
			_, err := c.launchNode(launching, n+1, o)
			return err
		})
	}
	if err := replicas.Wait(); err != nil {
		return err
	}
	if err := c.WaitCaughtUp(ctx); err != nil {
		return err
	}
	c.database = database // only now every node has it
	return nil
}

// launchNode starts node number n, a replica of the first unless it is that.
func (c *Cluster) launchNode(ctx context.Context, n int, o Options) (*Node, error) {
	node := &Node{Name: "n" + strconv.Itoa(n+1), cluster: c}
	spec := ServerSpec{Name: node.Name, Settings: DefaultSettings(), Foreign: o.Foreign, TLS: c.tls}
	maps.Copy(spec.Settings, o.Settings)
	if n > 0 {
		spec.Upstream = c.Nodes[0].server
	}
	var err error
	if node.server, err = c.fleet.Launch(ctx, spec); err != nil {
		return nil, err
	}
	c.Nodes[n] = node
	if o.Proxied {
		node.Proxy, err = StartProxy(node.server.Addr())
	}
	return node, err
}

// Close ends all nodes and proxies and removes their files. When it returns,
// nothing of the cluster is left. It may be called more than once.
func (c *Cluster) Close() error {
	c.closing.Do(func() {
		for _, n := range c.Nodes {
			if n != nil && n.Proxy != nil {
				c.closed = errors.Join(c.closed, n.Proxy.Close())
			}
		}
		c.closed = errors.Join(c.closed, c.fleet.Close())
	})
	return c.closed
}

// Primary returns the node that was promoted last, or the first one. It may be
// down.
func (c *Cluster) Primary() *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.primary
}

// Replicas returns all nodes but the primary, running or not.
func (c *Cluster) Replicas() []*Node {
	primary := c.Primary()
	var replicas []*Node
	for _, n := range c.Nodes {
		if n != primary {
			replicas = append(replicas, n)
		}
	}
	return replicas
}

// Database returns the name of the database that DSN names.
func (c *Cluster) Database() string { return c.database }

// TLS returns what clients have to know; nil if they do not speak TLS.
func (c *Cluster) TLS() *TLS { return c.tls }

// DSN returns a superuser's helios:// URL of all nodes, through their proxies if
// there are any. Each parameter is a key=value, such as "consistency=session";
// of two with the same key the last one counts.
func (c *Cluster) DSN(params ...string) string { return c.DSNAs(pgctl.Superuser, params...) }

// DSNAs is DSN for another user, which CreateUser has made.
func (c *Cluster) DSNAs(user string, params ...string) string {
	return c.url("helios", user, addrs(c.Nodes), params)
}

// DSNOf is DSN for some of the nodes, in the order given.
func (c *Cluster) DSNOf(nodes []*Node, params ...string) string {
	return c.url("helios", pgctl.Superuser, addrs(nodes), params)
}

func addrs(nodes []*Node) string {
	hosts := make([]string, len(nodes))
	for i, n := range nodes {
		hosts[i] = n.Addr()
	}
	return strings.Join(hosts, ",")
}

// url returns the DSN of a user of the cluster, with the password if there is one.
func (c *Cluster) url(scheme, user, hosts string, params []string) string {
	who := url.User(user)
	if c.tls != nil {
		who = url.UserPassword(user, c.tls.Password)
	}
	var keys []string
	values := map[string]string{}
	for _, p := range slices.Concat(c.tls.params(), params) {
		key, value, _ := strings.Cut(p, "=")
		if _, again := values[key]; !again {
			keys = append(keys, key)
		}
		values[key] = value
	}
	query := make([]string, len(keys))
	for i, key := range keys {
		pair := url.QueryEscape(key) + "=" + url.QueryEscape(values[key])
		query[i] = strings.ReplaceAll(pair, "+", "%20") // to helios and libpq a plus sign is no space
	}
	return fmt.Sprintf("%s://%s@%s/%s?%s", scheme, who, hosts, url.PathEscape(c.database), strings.Join(query, "&"))
}

// CreateUser makes a user that may log in, with more attributes in SQL, such as
// "IN ROLE pg_monitor". Replicas know it when they have replayed that.
func (c *Cluster) CreateUser(ctx context.Context, name, attributes string) error {
	create := "CREATE USER " + pgx.Identifier{name}.Sanitize() + " " + attributes
	if c.tls != nil {
		create += " PASSWORD '" + c.tls.Password + "'"
	}
	return c.Primary().Exec(ctx, create)
}
