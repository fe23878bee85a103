package companions

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/topology"
)

// Options say what to start.
type Options struct {
	// Nodes is how many nodes have PostgreSQL.
	Nodes int
	// Witness adds a companion without.
	Witness bool
	// Flags are given to every companion, such as "--lease=1s".
	Flags []string
	// Command makes the process of a companion, given the flags of helios server.
	Command func(args ...string) *exec.Cmd
	// Place changes where a node is before it is started; nil leaves it on 127.0.0.1.
	Place func(n *Node) error
	// Dial opens connections to nodes that this process does not reach by itself.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS is spoken with companions; nil where they speak plain text.
	TLS *tls.Config
	// Keys are more of the DSN, such as "&companion_sslrootcert=ca.crt".
	Keys string
	// Trust are addresses, such as 10.0.0.0/8, from which servers let the superuser in
	// without a password. From this machine they always do.
	Trust string
	// Output takes what companions say.
	Output func(node string) io.Writer
}

// A Cluster is a number of nodes.
type Cluster struct {
	Nodes []*Node

	opts   Options
	dir    string
	client *http.Client // asks companions; a frozen one does not answer
}

// A Node is a companion, and its PostgreSQL if it is no witness.
type Node struct {
	Name      string
	Companion string   // host:port
	Advertise string   // host:port by which other companions reach Companion, if it is not that
	Postgres  string   // host:port; "" for a witness
	Dir       string   // data directory; "" for a witness
	State     string   // the companion's own directory
	Flags     []string // of this companion alone

	cluster *Cluster
	wrap    func(cmd *exec.Cmd)

	running sync.WaitGroup // who waits for the companion's end

	mu   sync.Mutex
	cmd  *exec.Cmd     // guarded by mu; the companion that was started last
	done chan struct{} // guarded by mu; closed when it has ended
}

// Start starts a cluster, and returns when all its nodes stream.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	dir, err := pgctl.MakeTempDir("helios-companions-")
	if err != nil {
		return nil, err
	}
	c := &Cluster{opts: o, dir: dir}
	c.client = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: c.Dial, TLSClientConfig: o.TLS}}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	for i := range c.opts.Nodes {
		n, err := c.Add(ctx, fmt.Sprintf("n%d", i+1), false)
		if err == nil && i == 0 && c.opts.Trust != "" {
			err = c.letIn(ctx, n)
		}
		if err != nil {
			return err
		}
	}
	if c.opts.Witness {
		if _, err := c.Add(ctx, "w", true); err != nil {
			return err
		}
	}
	_, err := c.Await(ctx, "all nodes stream", Healthy(len(c.Nodes)))
	return err
}

// letIn has the first node's server let in the addresses of Options.Trust. The others
// copy that.
func (c *Cluster) letIn(ctx context.Context, n *Node) error {
	if _, err := c.Await(ctx, "there is a first primary", NewPrimary("")); err != nil {
		return err
	}
	path := filepath.Join(n.Dir, "pg_hba.conf")
	rules, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// In front of those that ask for a certificate or a password, whose roles are others.
	for _, database := range []string{"all", "replication"} {
		rules = fmt.Appendf(nil, "host %s %s %s trust\n%s", database, pgctl.Superuser, c.opts.Trust, rules)
	}
	if err := pgctl.WriteFile(path, string(rules)); err != nil {
		return err
	}
	return n.onPostgres(func(i *pgctl.Instance) error { return syscall.Kill(i.PID(), syscall.SIGHUP) })
}

// Add starts one more node, which joins the others.
func (c *Cluster) Add(ctx context.Context, name string, isWitness bool, flags ...string) (*Node, error) {
	n := &Node{Name: name, cluster: c, Flags: flags, State: filepath.Join(c.dir, name+".state")}
	for _, addr := range []*string{&n.Companion, &n.Postgres} {
		port, err := pgtest.TakePort(ctx)
		if err != nil {
			return nil, err
		}
		*addr = fmt.Sprintf("127.0.0.1:%d", port)
	}
	n.Dir = filepath.Join(c.dir, name)
	if isWitness {
		n.Dir, n.Postgres = "", ""
	}
	if c.opts.Place != nil {
		if err := c.opts.Place(n); err != nil {
			return nil, err
		}
	}
	c.Nodes = append(c.Nodes, n)
	return n, n.Start()
}

// Wrap has every start of the node's companion changed by wrap, such as to have
// it in a network namespace.
func (n *Node) Wrap(wrap func(cmd *exec.Cmd)) { n.wrap = wrap }

// Start starts the companion, which starts or finds PostgreSQL.
func (n *Node) Start() error {
	args := []string{"--name=" + n.Name, "--listen=" + n.Companion, "--state=" + n.State}
	if n.Dir == "" {
		args = append(args, "--witness")
	} else {
		args = append(args, "--pgdata="+n.Dir, "--postgres="+n.Postgres)
	}
	if n.Advertise != "" {
		args = append(args, "--advertise="+n.Advertise)
	}
	var others []string
	for _, other := range n.cluster.Nodes {
		if other != n {
			others = append(others, cmp.Or(other.Advertise, other.Companion))
		}
	}
	if len(others) > 0 && n != n.cluster.Nodes[0] {
		args = append(args, "--join="+strings.Join(others, ","))
	}
	args = append(append(args, n.cluster.opts.Flags...), n.Flags...)
	cmd := n.cluster.opts.Command(args...)
	if out := n.cluster.opts.Output; out != nil {
		cmd.Stdout, cmd.Stderr = out(n.Name), out(n.Name)
	}
	if n.wrap != nil {
		n.wrap(cmd)
	}
	if cmd.SysProcAttr == nil {
		// An interrupt typed at the terminal is for us, who then end the companion.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	done := make(chan struct{})
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	n.cmd, n.done = cmd, done
	n.running.Go(func() {
		cmd.Wait() //nolint:errcheck // most of them are killed
		close(done)
	})
	return nil
}

// ErrRemains is in the error of a Close, or of a Start that failed, if something of
// the cluster may be left.
var ErrRemains = errors.New("not everything is removed")

// Close ends everything and removes it.
func (c *Cluster) Close() error {
	var all sync.WaitGroup
	errs := make([]error, len(c.Nodes))
	for i, n := range c.Nodes {
		all.Go(func() { errs[i] = n.Kill() })
	}
	all.Wait()
	for _, n := range c.Nodes {
		for _, addr := range []string{n.Companion, n.Postgres} {
			if _, port, ok := strings.Cut(addr, ":"); ok {
				var p int
				if _, err := fmt.Sscan(port, &p); err == nil {
					pgtest.GivePort(p)
				}
			}
		}
	}
	// What a companion has started, such as initdb, does not end with it.
	err := errors.Join(errors.Join(errs...), endPrograms(c.dir))
	if err := errors.Join(err, os.RemoveAll(c.dir)); err != nil {
		return fmt.Errorf("%w: %w", ErrRemains, err)
	}
	return nil
}

// Node returns the node of that name.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// Dial opens a connection to an address as it is reached from where the cluster's
// clients are.
func (c *Cluster) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if c.opts.Dial != nil {
		return c.opts.Dial(ctx, network, addr)
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// Dial opens a connection to an address as [Cluster.Dial] does.
func (n *Node) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return n.cluster.Dial(ctx, network, addr)
}

// DSN is what a driver opens: all nodes, and their companions.
func (c *Cluster) DSN() string {
	var hosts, listen []string
	for _, n := range c.Nodes {
		listen = append(listen, n.Companion)
		if n.Postgres != "" {
			hosts = append(hosts, n.Postgres)
		}
	}
	return fmt.Sprintf("helios://%s@%s/postgres?companion=%s%s", pgctl.Superuser, strings.Join(hosts, ","), strings.Join(listen, ","), c.opts.Keys)
}

// A Condition looks at a bulletin.
type Condition func(b *topology.Bulletin) bool

// Healthy is the condition that there is a primary and that all of n members are up,
// every replica streaming on its timeline, by what each has told since Healthy was
// called.
func Healthy(n int) Condition {
	from := time.Now()
	return func(b *topology.Bulletin) bool {
		if b.Phase != "ready" || b.Primary == "" || len(b.Nodes) != n {
			return false
		}
		for _, node := range b.Nodes {
			if node.State != "up" || node.Age >= time.Since(from) || !inPlace(b, node) {
				return false
			}
		}
		return true
	}
}

// inPlace reports whether a node is what it should be in a cluster that is well.
func inPlace(b *topology.Bulletin, n topology.Reported) bool {
	switch n.Role {
	case "witness":
		return true
	case "primary":
		return n.Name == b.Primary
	case "replica":
		return n.Name != b.Primary && n.Streaming && n.Timeline == b.Timeline
	}
	return false
}

// NewPrimary is the condition that somebody else than old takes writes.
func NewPrimary(old string) Condition {
	return func(b *topology.Bulletin) bool { return b.Phase == "ready" && b.Primary != "" && b.Primary != old }
}

// Await asks all companions until the one that leads has a bulletin which satisfies
// the condition: what the others pass on may be from before a fault.
func (c *Cluster) Await(ctx context.Context, what string, ok Condition) (*topology.Bulletin, error) {
	var last *topology.Bulletin
	for {
		for _, n := range c.Nodes {
			b, err := n.Bulletin(ctx)
			if err != nil || b.Companion != n.Name {
				continue
			}
			if last = b; ok(b) {
				return b, nil
			}
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return last, fmt.Errorf("waiting until %s: %w; last seen: %s", what, context.Cause(ctx), describe(last))
		}
	}
}
