package pgctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait for a real server.
const patience = 90 * time.Second

// newInstance describes a server in a directory of its own and ends it with the
// test.
func newInstance(t testing.TB, name string) *Instance {
	t.Helper()
	if _, err := FindBinaries(); err != nil {
		t.Skip(err)
	}
	dir, err := MakeTempDir("pgctl-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	i, err := New(Config{Name: name, Dir: filepath.Join(dir, "data"), Port: freePort(t), Settings: map[string]string{
		"fsync": "off", "dynamic_shared_memory_type": "mmap", "shared_buffers": "4MB", "wal_log_hints": "on", "wal_retrieve_retry_interval": "50ms", "wal_keep_size": "64MB",
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(i.Close(), i.Remove(context.Background())); err != nil {
			t.Errorf("Close and Remove of %s: %v", name, err)
		}
	})
	return i
}

// template is a cluster that initialise copies: initdb takes seconds on a busy
// machine.
var template = sync.OnceValues(func() (*Instance, error) {
	dir, err := MakeTempDir("pgctl-template")
	if err != nil {
		return nil, err
	}
	templateDir = dir
	i, err := New(Config{Dir: filepath.Join(dir, "data")})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return i, i.Init(ctx)
})

// templateDir is where template is; "" if no test asked for it.
var templateDir string

// initialise is Init that is quick. All servers are of one cluster then.
func initialise(ctx context.Context, t testing.TB, i *Instance) {
	t.Helper()
	made, err := template()
	ok(t, err)
	ok(t, i.Clone(ctx, made))
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(toolParent); dir != "" {
		if err := runTool(dir); err != nil {
			fmt.Fprintln(os.Stderr, "a tool:", err)
		}
		os.Exit(1)
	}
	code := m.Run()
	if templateDir != "" {
		_ = os.RemoveAll(templateDir)
	}
	os.Exit(code)
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func waiting(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, fmt.Errorf("not done within %v", patience))
	t.Cleanup(cancel)
	return ctx
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// startedPair returns a running primary, with a table t, and its running replica.
func startedPair(ctx context.Context, t testing.TB) (primary, replica *Instance) {
	t.Helper()
	primary, replica = newInstance(t, "primary"), newInstance(t, "replica")
	initialise(ctx, t, primary)
	ok(t, primary.Start(ctx))
	run(ctx, t, primary, "CREATE TABLE t(x int)")
	ok(t, replica.Clone(ctx, primary))
	ok(t, replica.SetStandby(primary.ConnString()+" application_name=replica"))
	ok(t, replica.Start(ctx))
	return primary, replica
}

func run(ctx context.Context, t testing.TB, i *Instance, sql string) {
	t.Helper()
	conn, err := i.Connect(ctx)
	ok(t, err)
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql); err != nil {
		t.Fatalf("%s on %s: %v", sql, i.cfg.Name, err)
	}
}

func ask(ctx context.Context, t testing.TB, i *Instance, sql string) string {
	t.Helper()
	conn, err := i.Connect(ctx)
	ok(t, err)
	defer conn.Close(ctx)
	var answer string
	if err := conn.QueryRow(ctx, sql).Scan(&answer); err != nil {
		t.Fatalf("%s on %s: %v", sql, i.cfg.Name, err)
	}
	return answer
}

// await asks until the answer is want.
func await(ctx context.Context, t testing.TB, i *Instance, sql, want string) {
	t.Helper()
	for {
		got := ask(ctx, t, i, sql)
		if got == want {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s on %s = %s, want %s", sql, i.cfg.Name, got, want)
		}
	}
}

func TestServerStartsStopsAndStartsAgain(t *testing.T) {
	ctx, i := waiting(t), newInstance(t, "n1")
	ok(t, i.Init(ctx))
	for _, mode := range []StopMode{Smart, Fast, Immediate} {
		ok(t, i.Start(ctx))
		if err := i.Start(ctx); !errors.Is(err, errRunning) {
			t.Errorf("second Start = %v, want %v", err, errRunning)
		}
		ok(t, i.Stop(ctx, mode))
		if i.Running() || i.PID() != 0 {
			t.Errorf("Running after Stop(%d)", mode)
		}
		<-i.Done()
	}
	ok(t, i.Stop(ctx, Fast))
	ok(t, i.Remove(ctx))
}

func TestStartQuotesWhatTheServerComplainedAbout(t *testing.T) {
	ctx, i := waiting(t), newInstance(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Configure(map[string]string{"shared_buffers": "plenty"}))
	err := i.Start(ctx)
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "shared_buffers": "plenty"`) {
		t.Errorf("Start = %v, want the complaint about shared_buffers", err)
	}
}

func TestKillLeavesNoProcessAndTheServerRecovers(t *testing.T) {
	ctx, i := waiting(t), newInstance(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Start(ctx))
	run(ctx, t, i, "CREATE TABLE t AS SELECT 1 AS x")
	tree, err := processTree(i.PID())
	ok(t, err)
	if len(tree) < 5 {
		t.Fatalf("processTree = %v, want the postmaster and its helpers", tree)
	}
	ok(t, i.Kill())
	for _, q := range tree {
		if after, err := processTree(q.pid); err != nil || anyAlive(after, 0) {
			t.Errorf("process %d after Kill: %v, %v; want none alive", q.pid, after, err)
		}
	}
	ok(t, i.Kill())
	ok(t, i.Start(ctx))
	if got := ask(ctx, t, i, "SELECT x::text FROM t"); got != "1" {
		t.Errorf("row after the crash = %s, want 1", got)
	}
}

func TestFrozenServerIsSilentUntilThawed(t *testing.T) {
	ctx, i := waiting(t), newInstance(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Start(ctx))
	conn, err := i.Connect(ctx)
	ok(t, err)
	defer conn.Close(ctx)
	ok(t, i.Freeze())
	ok(t, i.Freeze())
	tree, err := processTree(i.PID())
	ok(t, err)
	for _, q := range tree {
		if q.runs() {
			t.Errorf("process %d runs in state %c while frozen", q.pid, q.state)
		}
	}
	answered := make(chan error, 1)
	go func() { answered <- conn.Ping(ctx) }()
	select {
	case err := <-answered:
		t.Fatalf("frozen server answered: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	ok(t, i.Thaw())
	ok(t, <-answered)
	ok(t, i.Freeze())
	ok(t, i.Kill())
}

func TestReplicaFollowsAndIsPromoted(t *testing.T) {
	ctx := waiting(t)
	primary, replica := startedPair(ctx, t)
	run(ctx, t, primary, "INSERT INTO t VALUES (7)")
	await(ctx, t, replica, "SELECT count(*)::text FROM t WHERE x = 7", "1")
	ok(t, primary.Kill())
	begin := time.Now()
	ok(t, replica.Promote(ctx))
	t.Logf("promotion took %v", time.Since(begin))
	run(ctx, t, replica, "INSERT INTO t VALUES (8)")
	ok(t, replica.Promote(ctx))

	// The old primary wrote nothing more, but a rewind must not hurt.
	run(ctx, t, replica, "CHECKPOINT")
	ok(t, primary.Start(ctx))
	run(ctx, t, primary, "INSERT INTO t VALUES (9)")
	ok(t, primary.Stop(ctx, Fast))
	ok(t, primary.Rewind(ctx, replica.ConnString()))
	ok(t, primary.SetStandby(replica.ConnString()))
	ok(t, primary.Start(ctx))
	await(ctx, t, primary, "SELECT string_agg(x::text, ' ' ORDER BY x) FROM t", "7 8")
}

func TestReloadReturnsWhenSettingsAreRead(t *testing.T) {
	ctx, i := waiting(t), newInstance(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Start(ctx))
	for _, want := range []string{"it's", `back\slash`, ""} {
		ok(t, i.Configure(map[string]string{"cluster_name": "n1", "helios.note": want}))
		ok(t, i.Reload(ctx))
		if got := ask(ctx, t, i, "SHOW helios.note"); got != want {
			t.Errorf("helios.note = %q after Reload, want %q", got, want)
		}
	}
	ok(t, i.Stop(ctx, Fast))
	if err := i.Reload(ctx); !errors.Is(err, errStopped) {
		t.Errorf("Reload of a stopped server = %v, want %v", err, errStopped)
	}
}

func TestCloneOfStoppedServerKeepsItsOwnPort(t *testing.T) {
	ctx := waiting(t)
	a, b := newInstance(t, "a"), newInstance(t, "b")
	initialise(ctx, t, a)
	ok(t, b.Clone(ctx, a))
	ok(t, a.Start(ctx))
	ok(t, b.Start(ctx))
	if got, want := ask(ctx, t, b, "SHOW port"), fmt.Sprint(b.cfg.Port); got != want {
		t.Errorf("port of the copy = %s, want %s", got, want)
	}
	if err := b.Clone(ctx, a); err == nil {
		t.Error("Clone over an existing data directory succeeded")
	}
}
