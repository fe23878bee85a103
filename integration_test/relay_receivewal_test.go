package integration_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
)

// pg_receivewal cannot tell a relay from a walsender: what it writes is the
// primary's WAL byte for byte, over switches of segments, and over a failover,
// for which it neither ends nor connects again.
func TestReceivewalWritesThePrimarysSegments(t *testing.T) {
	for name, slot := range map[string]string{"without a slot": "", "with a slot": "archive"} {
		t.Run(name, func(t *testing.T) {
			c := pgtest.New(t, pgtest.Options{Replicas: 1})
			ctx := storyContext(t)
			n1, n2 := c.Nodes[0], c.Nodes[1]
			near := startRelay(t, n1.Server().Conninfo(""))
			r := startRelay(t, near.conninfo(""))
			pgbench(ctx, t, n1, "-i", "-q")
			archive := startReceivewal(t, r, slot)
			for range 3 {
				pgbench(ctx, t, n1, "-n", "-c", "2", "-t", "100")
				pgtest.OK(t, n1.Exec(ctx, "SELECT pg_switch_wal()"))
			}
			last := archive.awaitSegment(t, segmentBefore(ctx, t, n1))
			archive.compare(t, filepath.Join(ownServer(t, n1).Dir(), "pg_wal"), regexp.MustCompile(`^00000001[0-9A-F]{16}$`), last)

			pgtest.OK(t, n1.Exec(ctx, "CREATE TABLE last_of_timeline_1 ()"))
			awaitFlow(t, n1, n2)
			pgtest.OK(t, c.Kill(n1))
			pgtest.OK(t, c.Promote(ctx, n2))
			source(t, near, n2)
			for range 2 {
				pgbench(ctx, t, n2, "-n", "-c", "2", "-t", "100")
				pgtest.OK(t, n2.Exec(ctx, "SELECT pg_switch_wal()"))
			}
			last = archive.awaitSegment(t, segmentBefore(ctx, t, n2))
			archive.compare(t, filepath.Join(ownServer(t, n2).Dir(), "pg_wal"), regexp.MustCompile(`^00000002([0-9A-F]{16}|\.history)$`), last)
			archive.end(t)
			if said := archive.said.String(); strings.Contains(said, "disconnected") || strings.Contains(said, "could not") {
				t.Errorf("pg_receivewal had to connect again:\n%s", said)
			}
			if files := archive.list(t); !slices.ContainsFunc(files, regexp.MustCompile(`^00000001[0-9A-F]{16}\.partial$`).MatchString) {
				t.Errorf("the end of timeline 1 is not there as .partial: %v", files)
			}
		})
	}
}

// A receivedWAL is a directory that pg_receivewal writes.
type receivedWAL struct {
	dir   string
	cmd   *osexec.Cmd
	ended chan error
	said  bytes.Buffer
}

// startReceivewal streams from the relay, through a slot unless that is "".
func startReceivewal(t testing.TB, r *relayUnderTest, slot string) *receivedWAL {
	t.Helper()
	a := &receivedWAL{dir: t.TempDir(), ended: make(chan error, 1)}
	args := []string{"-D", a.dir, "--no-loop", "--verbose", "-s", "1", "-d", r.conninfo("archive")}
	if slot != "" {
		run(t.Context(), t, "pg_receivewal", "-d", r.conninfo("archive"), "--slot="+slot, "--create-slot")
		args = append(args, "--slot="+slot)
	}
	a.cmd = tool(context.Background(), t, "pg_receivewal", args...)
	a.cmd.Stdout, a.cmd.Stderr = &a.said, &a.said
	pgtest.OK(t, a.cmd.Start())
	go func() { a.ended <- a.cmd.Wait() }()
	t.Cleanup(func() { a.cmd.Process.Kill() }) // it has ended
	return a
}

// end ends it as Ctrl-C does.
func (a *receivedWAL) end(t testing.TB) {
	t.Helper()
	pgtest.OK(t, a.cmd.Process.Signal(syscall.SIGINT))
	if err := <-a.ended; err != nil {
		t.Errorf("pg_receivewal: %v\n%s", err, a.said.String())
	}
}

func (a *receivedWAL) list(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir(a.dir)
	pgtest.OK(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// awaitSegment returns when the segment of that name is complete.
func (a *receivedWAL) awaitSegment(t testing.TB, name string) string {
	t.Helper()
	await(t, "segment "+name+" to be received", func() bool {
		select {
		case err := <-a.ended:
			t.Fatalf("pg_receivewal ended: %v\n%s", err, a.said.String())
		default:
		}
		_, err := os.Stat(filepath.Join(a.dir, name))
		return err == nil
	})
	return name
}

// compare compares the received files whose names match with those of the same
// name in dir.
func (a *receivedWAL) compare(t testing.TB, dir string, names *regexp.Regexp, last string) {
	t.Helper()
	compared := 0
	for _, name := range a.list(t) {
		if !names.MatchString(name) {
			continue
		}
		got, err := os.ReadFile(filepath.Join(a.dir, name))
		pgtest.OK(t, err)
		want, err := os.ReadFile(filepath.Join(dir, name))
		pgtest.OK(t, err)
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not the server's file of that name: they have %d and %d bytes, and differ at %d", name, len(got), len(want), firstDifference(got, want))
		}
		compared++
	}
	if compared < 2 {
		t.Errorf("%d files compared up to %s, want 2 or more: %v", compared, last, a.list(t))
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// segmentBefore returns the name of the last segment that the primary has
// completed.
func segmentBefore(ctx context.Context, t testing.TB, n *pgtest.Node) string {
	t.Helper()
	const segmentSize = 16 << 20
	before := writtenOn(ctx, t, n) - segmentSize - 1 // not on the border of two
	name, err := pgtest.Value[string](ctx, n, "SELECT pg_walfile_name($1::text::pg_lsn)", before.String())
	pgtest.OK(t, err)
	return name
}

// A base backup is for the server behind the relay, and the refusal says where
// that is; a copy that was made there streams from the relay at once.
func TestABaseBackupIsMadeAtTheServerBehindTheRelay(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := storyContext(t)
	primary, n2 := c.Primary(), c.Nodes[1]
	r := startRelay(t, primary.Server().Conninfo(""))
	pgbench(ctx, t, primary, "-i", "-q")
	for _, method := range []string{"none", "stream"} {
		out, err := tool(ctx, t, "pg_basebackup", "-D", filepath.Join(t.TempDir(), "copy"), "-X", method, "-d", r.conninfo("copy")).CombinedOutput()
		want := fmt.Sprintf("HINT:  Run pg_basebackup against the PostgreSQL server behind it, %s", primary.DirectAddr())
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("pg_basebackup -X %s of a relay: %v\n%swant %s", method, err, out, want)
		}
	}
	local := ownServer(t, n2)
	pgtest.OK(t, local.Close())
	pgtest.OK(t, os.RemoveAll(local.Dir()))
	pgtest.OK(t, local.CloneFrom(ctx, primary.Server().Conninfo("copy")))
	pgtest.OK(t, local.SetStandby(r.conninfo("n2")))
	pgtest.OK(t, local.Start(ctx))
	pgbench(ctx, t, primary, "-n", "-c", "2", "-t", "100")
	awaitSame(ctx, t, primary, n2)
}
