package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// A testNode is an agent with a server of its own, on this machine.
type testNode struct {
	*Agent
	t      *testing.T
	cfg    Config
	member failover.Member
	blank  atomic.Bool  // the companions' log has not come here yet
	lag    atomic.Int64 // added to the clock of the agent, in nanoseconds
	stop   context.CancelFunc
	done   sync.WaitGroup
	counts counts
}

// counts are what a node has counted.
type counts struct {
	mu     sync.Mutex
	waited []time.Duration // at the gate
	back   []string        // how it was made a standby
}

// GateConfirmed implements Metrics.
func (c *counts) GateConfirmed(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waited = append(c.waited, d)
}

// Rejoined implements Metrics.
func (c *counts) Rejoined(method string, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.back = append(c.back, method); d <= 0 {
		panic(fmt.Sprintf("streams again after %v", d))
	}
}

// read returns the longest wait at the gate, how many there were, and how the node was
// made a standby each time.
func (c *counts) read() (longest time.Duration, confirmed int, back []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Max(append([]time.Duration{0}, c.waited...)), len(c.waited), slices.Clone(c.back)
}

// A team is some nodes, and a leader that does what the test says.
type team struct {
	t     *testing.T
	dir   string
	nodes []*testNode

	mu      sync.Mutex
	as      failover.Assignment // what every node is told, but for whom it is for
	silent  map[string]bool     // nodes that are cut off from the leader
	leased  time.Duration       // what the primary is granted
	reports map[string]failover.Report
	history []failover.Transition // the epochs that were ready
	heard   chan struct{}
}

// newTeam makes nodes without servers.
func newTeam(t *testing.T, names ...string) *team {
	t.Helper()
	if _, err := pgctl.FindBinaries(); err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	dir, err := pgctl.MakeTempDir("helios-agent-")
	pgtest.OK(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	reap(t, dir)
	m := &team{t: t, dir: dir, silent: map[string]bool{}, leased: 2 * time.Second, reports: map[string]failover.Report{}, heard: make(chan struct{})}
	m.as = failover.Assignment{Leader: "test", Term: 1, Phase: failover.PhaseForming}
	for _, name := range names {
		m.add(name)
	}
	t.Cleanup(func() {
		if t.Failed() {
			m.logs()
		}
	})
	return m
}

// reap ends the servers in dir when this process has ended, by whatever cause:
// the input of a shell then ends.
func reap(t *testing.T, dir string) {
	t.Helper()
	in, hold, err := os.Pipe()
	pgtest.OK(t, err)
	defer in.Close()
	t.Cleanup(func() { hold.Close() })
	const script = `trap "" INT TERM HUP; read -r _; for f in "$0"/*/postmaster.pid; do [ -f "$f" ] && kill -QUIT "$(head -n 1 "$f")"; done; sleep 1; rm -rf "$0"`
	shell := exec.Command("/bin/sh", "-c", script, dir)
	shell.Stdin, shell.Dir, shell.SysProcAttr = in, "/", &syscall.SysProcAttr{Setsid: true}
	pgtest.OK(t, shell.Start())
	go shell.Wait()
}

// add makes a node.
func (m *team) add(name string, edit ...func(*Config)) *testNode {
	m.t.Helper()
	port, err := pgtest.TakePort(m.t.Context())
	pgtest.OK(m.t, err)
	own, err := pgtest.TakePort(m.t.Context())
	pgtest.OK(m.t, err)
	m.t.Cleanup(func() { pgtest.GivePort(port); pgtest.GivePort(own) })
	n := &testNode{t: m.t, member: failover.Member{Name: name, Companion: fmt.Sprintf("127.0.0.1:%d", own), Postgres: fmt.Sprintf("127.0.0.1:%d", port)}}
	n.cfg = Config{
		Name: name, DataDir: filepath.Join(m.dir, name), SocketDir: m.dir, Port: port, Self: n.member, RelayAddr: n.member.Companion,
		Relay: relay.Config{BufferSize: 64 << 20}, PeerConn: peerConn, Conninfo: "user=postgres sslmode=disable",
		Clock: func() time.Duration { return Boottime() + time.Duration(n.lag.Load()) },
		Log:   slog.New(slog.NewTextHandler(testLog{m.t, name}, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	n.cfg.Metrics = &n.counts
	n.cfg.State = func() *failover.State {
		if n.blank.Load() {
			return &failover.State{}
		}
		return m.state()
	}
	for _, e := range edit {
		e(&n.cfg)
	}
	m.nodes = append(m.nodes, n)
	m.t.Cleanup(n.end)
	m.t.Cleanup(n.halt)
	n.start(m)
	return n
}

// testLog writes a log where the test's own lines go.
type testLog struct {
	t    *testing.T
	name string
}

func (l testLog) Write(p []byte) (int, error) {
	l.t.Logf("%s %s: %s", time.Now().Format("05.000"), l.name, strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

// state is what the log of the leader has come to.
func (m *team) state() *failover.State {
	var s failover.State
	for _, n := range m.nodes {
		s.Members = append(s.Members, n.member)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Epoch, s.Phase, s.Timeline, s.SwitchLSN, s.History = m.as.Epoch, m.as.Phase, m.as.Timeline, m.as.SwitchLSN, slices.Clone(m.history)
	return &s
}

func peerConn(m failover.Member, relay bool) (*pgconn.Config, error) {
	addr := m.Postgres
	if relay {
		addr = m.Companion
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return pgconn.ParseConfig(fmt.Sprintf("host=%s port=%s user=postgres sslmode=disable", host, port))
}

// start runs the agent, anew if it was halted.
func (n *testNode) start(m *team) {
	n.t.Helper()
	l, err := net.Listen("tcp", n.member.Companion)
	pgtest.OK(n.t, err)
	n.cfg.Listener = l
	n.Agent, err = New(n.cfg)
	pgtest.OK(n.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	a := n.Agent
	n.stop = cancel
	n.done.Go(func() {
		if err := a.Run(ctx); ctx.Err() == nil {
			n.t.Errorf("the agent of %s ended by itself: %v", n.member.Name, err)
		}
	})
	n.done.Go(func() { m.lead(ctx, n.member.Name, a) })
}

// halt ends the agent, and leaves the server running.
func (n *testNode) halt() {
	n.stop()
	n.done.Wait()
}

// end ends the server, after the agent has.
func (n *testNode) end() {
	pg, err := newServer(n.cfg)
	pgtest.OK(n.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if found, err := pg.Adopt(ctx); err != nil || !found {
		return
	}
	if err := pg.HardStop(ctx, 5*time.Second); err != nil {
		n.t.Errorf("the server of %s is not ended: %v", n.member.Name, err)
	}
}

// lead answers the reports of one node.
func (m *team) lead(ctx context.Context, name string, a *Agent) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		changed := a.Changed()
		sent := a.clock()
		r := a.Report()
		if as, ok := m.answer(name, r); ok {
			a.Assign(as, sent)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		case <-m.wait():
		}
	}
}

func (m *team) wait() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.heard
}

// answer is the leader's.
func (m *team) answer(name string, r failover.Report) (failover.Assignment, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.silent[name] {
		return failover.Assignment{}, false
	}
	m.reports[name] = r
	as := m.as
	as.Node, as.Run, as.Seq = name, r.Run, r.Seq
	if as.Primary.Name == name && r.WantsLease && r.Epoch == as.Epoch {
		as.Lease = m.leased
	}
	return as, as.Phase != failover.PhaseForming
}

// change changes what the leader says, and has it said at once.
func (m *team) change(edit func(*failover.Assignment)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	edit(&m.as)
	m.as.Number++
	close(m.heard)
	m.heard = make(chan struct{})
}

// setGate changes by whose flushes the primary confirms.
func (m *team) setGate(set failover.SyncSet) {
	m.change(func(as *failover.Assignment) { as.Gate = set })
}

// cut separates a node from the leader, or brings it back.
func (m *team) cut(name string, off bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.silent[name] = off
}

// report is what a node has said last.
func (m *team) report(name string) failover.Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reports[name]
}

// found makes the first node the primary of epoch 1, and the others its standbys.
func (m *team) found(set failover.SyncSet) {
	m.t.Helper()
	ctx := pgtest.Context(m.t)
	first := m.nodes[0]
	f, err := first.Found(ctx)
	pgtest.OK(m.t, err)
	m.change(func(as *failover.Assignment) {
		as.Epoch, as.Phase, as.Primary, as.Timeline, as.Gate = 1, failover.PhaseElected, first.member, f.Timeline, set
	})
	if p := first.Promote(ctx, failover.Promote{Node: first.member.Name, Epoch: 1}); p.Err != "" {
		m.t.Fatalf("the first primary: %s", p.Err)
	}
	m.change(func(as *failover.Assignment) {
		as.Phase = failover.PhaseReady
		m.history = append(m.history, failover.Transition{Epoch: 1, To: first.member.Name, Timeline: f.Timeline})
	})
	for _, n := range m.nodes[1:] {
		began := time.Now()
		pgtest.OK(m.t, n.CloneFrom(ctx, first.member))
		m.t.Logf("FIGURES clone of %s: %v", n.member.Name, time.Since(began))
	}
	for _, n := range m.nodes[1:] {
		await(m.t, n.member.Name+" streams", func() bool { return n.Report().Streaming })
	}
}

// failover seals the nodes, and makes one of them the primary of a new epoch.
func (m *team) failover(to *testNode, set failover.SyncSet, others ...*testNode) failover.Promoted {
	m.t.Helper()
	ctx := pgtest.Context(m.t)
	epoch := m.fence()
	for _, n := range append(others, to) {
		began := time.Now()
		s := n.Seal(ctx, epoch)
		m.t.Logf("FIGURES seal of %s: %v, %+v", n.member.Name, time.Since(began), s.Sealed)
		if s.Err != "" {
			m.t.Fatalf("seal of %s: %s", n.member.Name, s.Err)
		}
	}
	m.change(func(as *failover.Assignment) { as.Phase, as.Primary, as.Gate = failover.PhaseElected, to.member, set })
	return m.promote(to, failover.Promote{Node: to.member.Name, Epoch: epoch})
}

// promote makes the elected node the primary.
func (m *team) promote(to *testNode, p failover.Promote) failover.Promoted {
	m.t.Helper()
	done := m.ascend(to, p)
	m.change(func(as *failover.Assignment) {
		as.Phase, as.Timeline, as.SwitchLSN = failover.PhaseReady, done.Timeline, done.SwitchLSN
		last := &m.history[len(m.history)-1]
		last.To, last.Timeline = to.member.Name, done.Timeline
	})
	return done
}

// ascend makes the elected node the primary, and tells nobody.
func (m *team) ascend(to *testNode, p failover.Promote) failover.Promoted {
	m.t.Helper()
	s := m.state()
	p.Ruler, p.Timeline = s.Ruler(), s.Timeline
	began := time.Now()
	done := to.Promote(pgtest.Context(m.t), p)
	m.t.Logf("FIGURES promotion of %s: %v, %+v", to.member.Name, time.Since(began), done)
	if done.Err != "" {
		m.t.Fatalf("promotion of %s: %s", to.member.Name, done.Err)
	}
	return done
}

// conn opens a superuser's connection to the node's server.
func (n *testNode) conn() *pgx.Conn {
	n.t.Helper()
	conn, err := pgx.Connect(pgtest.Context(n.t), fmt.Sprintf("host=%s port=%d user=postgres sslmode=disable", n.cfg.SocketDir, n.cfg.Port))
	pgtest.OK(n.t, err)
	n.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// exec runs a statement on a connection of its own.
func (n *testNode) exec(sql string) {
	n.t.Helper()
	_, err := n.conn().Exec(pgtest.Context(n.t), sql)
	pgtest.OK(n.t, err)
}

// count returns how many rows a table has on the node; -1 if it is not there.
func (n *testNode) count(table string) int {
	conn, err := pgx.Connect(pgtest.Context(n.t), fmt.Sprintf("host=%s port=%d user=postgres sslmode=disable", n.cfg.SocketDir, n.cfg.Port))
	if err != nil {
		return -1
	}
	defer conn.Close(context.Background())
	rows := -1
	if conn.QueryRow(pgtest.Context(n.t), "SELECT count(*) FROM "+table).Scan(&rows) != nil {
		return -1
	}
	return rows
}

// lsn asks the node's server for a position; 0 if it has none.
func (n *testNode) lsn(function string) wal.LSN {
	n.t.Helper()
	var text string
	pgtest.OK(n.t, n.conn().QueryRow(pgtest.Context(n.t), "SELECT coalesce("+function+", '0/0')::text").Scan(&text))
	at, err := wal.ParseLSN(text)
	pgtest.OK(n.t, err)
	return at
}

// logs shows how every server's log ends.
func (m *team) logs() {
	for _, n := range m.nodes {
		text, err := os.ReadFile(n.cfg.DataDir + ".log")
		m.t.Logf("log of %s (%v):\n%s", n.member.Name, err, text[max(0, len(text)-6000):])
	}
}

// await waits for a condition, up to a minute.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("in vain: %s", what)
		}
	}
}

// async is the set of nobody.
var async = failover.SyncSet{}

func semisync(names ...string) failover.SyncSet { return failover.SyncSet{Members: names, K: 1} }
