package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/netns"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/server/client"
)

// demoNodes is how many nodes a demo with companions has.
const demoNodes = 3

// companionScene is a cluster that looks after itself.
type companionScene struct {
	demo     *demo
	cluster  *companions.Cluster
	log      *os.File       // nil if nobody wants it
	network  *netns.Network // of a partition
	outsider *outsider

	old   *companions.Node // the primary that the nemesis befalls
	epoch failover.Epoch   // before that
}

// clientHost is where the demo's own clients are in a network of its own.
const clientHost = "app"

func (s *companionScene) start(ctx context.Context) (err error) {
	s.demo.screen.say("starting %d companions, each with a PostgreSQL of its own, in a temporary directory ...", demoNodes)
	if path := s.demo.logFile; path != "" {
		if s.log, err = os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err != nil {
			return err
		}
	}
	options := companions.Options{
		Nodes: demoNodes, Command: companionCommandLine,
		Flags: []string{"--replication_mode=" + string(s.mode())},
	}
	if s.log != nil {
		options.Output = func(string) io.Writer { return s.log } // each line has the node in it
	}
	if s.demo.nemesis == partition {
		if err := s.layCables(&options); err != nil {
			return errors.Join(err, s.removeRest())
		}
	}
	starting, cancel := context.WithTimeoutCause(ctx, 2*patience, fmt.Errorf("the cluster was not ready within %v", 2*patience))
	defer cancel()
	if s.cluster, err = companions.Start(starting, options); err != nil {
		return errors.Join(err, s.removeRest())
	}
	return nil
}

func (s *companionScene) mode() failover.ReplicationMode {
	if s.demo.semisync {
		return failover.Semisync
	}
	return failover.Async
}

// layCables puts each node, and the demo's clients, on a host of its own.
func (s *companionScene) layCables(o *companions.Options) (err error) {
	hosts := []string{clientHost}
	for n := range demoNodes {
		hosts = append(hosts, fmt.Sprintf("n%d", n+1))
	}
	if s.network, err = netns.New(hosts...); err != nil {
		return fmt.Errorf("%w: %w", companions.ErrRemains, err)
	}
	o.Dial, o.Trust = s.network.Dial(clientHost), netns.Subnet
	o.Flags = append(o.Flags, "--insecure") // plain text between hosts that exist on this machine only
	o.Place = s.place
	return nil
}

// place puts a node on the host of its name. Its ports stay: Unix sockets are called
// by them, and hosts share the file system.
func (s *companionScene) place(n *companions.Node) error {
	for _, addr := range []*string{&n.Companion, &n.Postgres} {
		_, port, err := net.SplitHostPort(*addr)
		if err != nil {
			return err
		}
		*addr = net.JoinHostPort(s.network.Addr(n.Name), port)
	}
	n.Wrap(func(cmd *exec.Cmd) { s.network.Wrap(n.Name, cmd) })
	return nil
}

// companionCommandLine runs this program as a companion. What is in the environment
// for other companions is not for this one.
func companionCommandLine(args ...string) *exec.Cmd {
	program, err := os.Executable()
	if err != nil {
		program = os.Args[0]
	}
	cmd := exec.Command(program, append([]string{"server"}, args...)...) //nolint:noctx // companions.Node ends it
	for _, kv := range os.Environ() {
		ours := strings.HasPrefix(kv, "HELIOS_") && !strings.HasPrefix(kv, "HELIOS_PG_BIN=")
		if !ours && !strings.HasPrefix(kv, "PG") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	return cmd
}

func (s *companionScene) open() (*sql.DB, error) {
	cfg, err := helios.ParseDSN(s.cluster.DSN())
	if err != nil {
		return nil, err
	}
	connector, err := helios.NewConnector(cfg, helios.WithDialFunc(s.cluster.Dial))
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

func (s *companionScene) nodes() []demoNode {
	var nodes []demoNode
	for _, n := range s.cluster.Nodes {
		nodes = append(nodes, demoNode{n.Name, n.Postgres})
	}
	return nodes
}

func (s *companionScene) ready(ctx context.Context) error {
	told, err := s.ask(nil).Cluster(ctx)
	if err != nil {
		return err
	}
	s.demo.introduce(s.cluster.DSN(), s.demo.nemesis.story())
	s.demo.screen.say("commits  are %s; %s is the primary (epoch %d, timeline %s), and the companion of %s leads",
		told.Settings.Mode, told.Primary, told.Epoch, told.Timeline, told.Leader.Name)
	primary := s.cluster.Node(told.Primary)
	if _, err := s.demo.db.ExecContext(ctx, outsideTableSQL); err != nil {
		return err
	}
	s.outsider = &outsider{reigns: s.demo.load.reigns, connect: func(ctx context.Context) (*pgx.Conn, error) {
		return s.connect(ctx, primary, primary.Name)
	}}
	s.outsider.start(ctx)
	return nil
}

// connect opens a connection to a node's PostgreSQL, from a host.
func (s *companionScene) connect(ctx context.Context, n *companions.Node, from string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(fmt.Sprintf("postgres://%s@%s/postgres?sslmode=disable", pgctl.Superuser, n.Postgres))
	if err != nil {
		return nil, err
	}
	if s.network != nil {
		cfg.DialFunc = s.network.Dial(from)
	}
	cfg.OnNotice = breakOnUnreplicated
	return pgx.ConnectConfig(ctx, cfg)
}

// ask returns a client of all companions but that of one node.
func (s *companionScene) ask(but *companions.Node) *client.Client {
	var addrs []string
	for _, n := range s.cluster.Nodes {
		if n != but {
			addrs = append(addrs, n.Companion)
		}
	}
	c, err := client.New(addrs, client.Options{Timeout: time.Second, Dial: s.cluster.Dial})
	if err != nil {
		panic("helios demo: " + err.Error()) // they are host:port
	}
	return c
}

// strike has the nemesis befall the primary, and waits until another takes writes.
func (s *companionScene) strike(ctx context.Context) error {
	d := s.demo
	told, err := s.ask(nil).Cluster(ctx)
	if err != nil {
		return err
	}
	s.old, s.epoch = s.cluster.Node(told.Primary), told.Epoch
	d.screen.say("%s, the primary, %s", s.old.Name, d.nemesis.fault())
	reign := d.load.reigns.newest()
	d.result.oldReads = d.readsOn(s.old.Name)
	d.load.acks.forgetGaps()
	d.struck = time.Now()
	if err := s.fate().strike(ctx, s.old); err != nil {
		return err
	}
	next, err := d.load.reigns.after(ctx, reign.timeline)
	if err != nil {
		return err
	}
	d.result.PromotedMS = milliseconds(next.since.Sub(d.struck))
	if err := s.tellTakeover(ctx); err != nil || d.nemesis != switchover {
		return err
	}
	return s.awaitRejoin(ctx, next.since)
}

// fate returns what befalls the primary.
func (s *companionScene) fate() fate {
	return fate{nemesis: s.demo.nemesis, network: s.network, order: func(ctx context.Context) error {
		_, err := s.ask(nil).Switchover(ctx, "")
		return err
	}}
}

// tellTakeover tells who has taken over, and where the time went.
func (s *companionScene) tellTakeover(ctx context.Context) error {
	d := s.demo
	asked := s.ask(s.old)
	t, err := s.transition(ctx, asked)
	if err != nil {
		return err
	}
	r := &d.result
	r.replicaReads = d.readsOn(t.To)
	r.Primaries = []string{s.old.Name, t.To}
	r.DetectMS, r.FenceMS, r.SealMS, r.ElectMS, r.PromoteMS = t.Timing.DetectMS, t.Timing.FenceMS, t.Timing.SealMS, t.Timing.ElectMS, t.Timing.PromoteMS
	d.screen.say("%s takes writes, %.0f ms after that: detect %.0f, fence %.0f, seal %.0f, elect %.0f, promote %.0f ms",
		t.To, r.PromotedMS, r.DetectMS, r.FenceMS, r.SealMS, r.ElectMS, r.PromoteMS)
	leader := "nobody"
	if told, err := asked.Cluster(ctx); err == nil {
		leader = told.Leader.Name
	}
	d.screen.say("%s is the primary (epoch %d, timeline %s, from %s on), and the companion of %s leads", t.To, t.Epoch, t.Timeline, t.SwitchLSN, leader)
	return nil
}

// transition waits until the companions tell how the fault's first successor came
// to be: who is asked may hear of it later than a client.
func (s *companionScene) transition(ctx context.Context, c *client.Client) (*api.Transition, error) {
	for {
		history, err := c.History(ctx, 0)
		if err == nil {
			for _, t := range history.Transitions {
				if t.Epoch > s.epoch && t.Timeline != 0 {
					return &t, nil
				}
			}
		}
		if late := sleepUntil(ctx, time.Now().Add(10*time.Millisecond)); late != nil {
			return nil, errors.Join(late, err)
		}
	}
}

// mend gives the old primary's node back, and waits until it is a replica.
func (s *companionScene) mend(ctx context.Context) error {
	if s.demo.nemesis == switchover {
		return nil // it never went away
	}
	s.demo.screen.say("%s %s", s.old.Name, s.demo.nemesis.repair())
	from := time.Now()
	if err := s.fate().mend(s.old); err != nil {
		return err
	}
	return s.awaitRejoin(ctx, from)
}

// awaitRejoin waits until all nodes are what they should be.
func (s *companionScene) awaitRejoin(ctx context.Context, from time.Time) error {
	told, err := s.cluster.Await(ctx, "all nodes stream", companions.Healthy(demoNodes))
	if err != nil {
		return err
	}
	r := &s.demo.result
	r.RejoinMS = milliseconds(time.Since(from))
	s.demo.screen.say("%s is back as a replica of %s, %.0f ms after that", s.old.Name, told.Primary, r.RejoinMS)
	return nil
}

// conclude ends the outsider, and counts what it was told and who has been primary.
func (s *companionScene) conclude(ctx context.Context) error {
	s.outsider.end()
	history, err := s.ask(nil).History(ctx, 0)
	if err != nil {
		return err
	}
	r := &s.demo.result
	for _, t := range history.Transitions {
		if t.Epoch > s.epoch && t.Timeline != 0 {
			r.Failovers++
			r.Primaries[1] = t.To
		}
	}
	conn, err := s.primary(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // the judgement's own error tells more
	r.OutsideAcks, r.OutsideLost, err = s.outsider.judge(ctx, conn)
	return err
}

func (s *companionScene) primary(ctx context.Context) (*pgx.Conn, error) {
	told, err := s.cluster.Await(ctx, "there is a primary", companions.NewPrimary(""))
	if err != nil {
		return nil, err
	}
	return s.connect(ctx, s.cluster.Node(told.Primary), clientHost)
}

func (s *companionScene) close() error {
	if s.outsider != nil {
		s.outsider.end()
	}
	return errors.Join(s.cluster.Close(), s.removeRest())
}

// removeRest removes what is left when no companion runs any more.
func (s *companionScene) removeRest() (err error) {
	if s.log != nil {
		err = s.log.Close()
	}
	if s.network == nil {
		return err
	}
	if gone := s.network.Close(); gone != nil {
		err = errors.Join(err, fmt.Errorf("%w: %w", companions.ErrRemains, gone))
	}
	return err
}
