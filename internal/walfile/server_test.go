package walfile_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/walfile"
	"github.com/heliosdb/helios/wal"
)

// server is a real server's pg_wal.
type server struct {
	node   *pgtest.Node
	local  *pgtest.LocalServer
	dir    *walfile.Dir
	path   string
	size   int64
	system uint64
}

func serverOf(ctx context.Context, t *testing.T, n *pgtest.Node) *server {
	t.Helper()
	local, isLocal := n.Server().(*pgtest.LocalServer)
	if !isLocal {
		t.Fatalf("the server of %s is %T, want one whose files are on this machine", n.Name, n.Server())
	}
	text, err := pgtest.Value[string](ctx, n, "SELECT system_identifier::text FROM pg_control_system()")
	pgtest.OK(t, err)
	system, err := strconv.ParseUint(text, 10, 64)
	pgtest.OK(t, err)
	size, err := pgtest.Value[int64](ctx, n, "SELECT setting::int8 FROM pg_settings WHERE name = 'wal_segment_size'")
	pgtest.OK(t, err)
	s := &server{node: n, local: local, path: filepath.Join(local.Dir(), "pg_wal"), size: size, system: system}
	s.dir = walfile.OpenDir(s.path, size, system)
	t.Cleanup(func() { s.dir.Close() })
	return s
}

// work makes the server write WAL over a few segments, and returns where it ends.
func (s *server) work(ctx context.Context, t *testing.T) wal.LSN {
	t.Helper()
	for _, sql := range []string{
		"CREATE TABLE IF NOT EXISTS t (x int, y text)",
		"INSERT INTO t SELECT x, repeat(md5(x::text), 10) FROM generate_series(1, 20000) x",
		"SELECT pg_switch_wal()",
		"INSERT INTO t SELECT x, md5(x::text) FROM generate_series(1, 1000) x",
		"SELECT pg_switch_wal()",
		"DELETE FROM t WHERE x % 3 = 0",
	} {
		pgtest.OK(t, s.node.Exec(ctx, sql))
	}
	lsn, err := s.node.LSN(ctx)
	pgtest.OK(t, err)
	return lsn
}

// fill copies WAL up to a position of a timeline from the server to the spool,
// in pieces that end anywhere.
func (s *server) fill(t *testing.T, spool *walfile.Spool, h wal.History, timeline wal.Timeline, to wal.LSN) {
	t.Helper()
	buf := make([]byte, 123_457)
	for at := spool.Position().LSN; at < to; at = spool.Position().LSN {
		n, err := s.dir.ReadAt(buf[:min(len(buf), int(to-at))], at, walfile.TimelinesAt(h, timeline, at, s.size)...)
		if err != nil {
			t.Fatalf("ReadAt(%s) = %d, %v; want bytes up to %s", at, n, err, to)
		}
		pgtest.OK(t, spool.Write(at, buf[:n]))
	}
	_, err := spool.Sync()
	pgtest.OK(t, err)
}

// wantSame compares a position's segment in the spool with the server's file, up
// to where the spool ends.
func (s *server) wantSame(t *testing.T, spool *walfile.Spool, name string) {
	t.Helper()
	want, err := os.ReadFile(filepath.Join(s.path, strings.TrimSuffix(name, ".partial")))
	pgtest.OK(t, err)
	got, err := os.ReadFile(filepath.Join(spool.Path(), name))
	pgtest.OK(t, err)
	if len(got) > len(want) || !bytes.Equal(got, want[:len(got)]) {
		t.Errorf("%s in the spool differs from the server's file", name)
	}
}

// dump runs pg_waldump on a file, and returns what it says without the path.
func (s *server) dump(ctx context.Context, dir, name string) string {
	//nolint:gosec // a program of the release under test
	out, _ := exec.CommandContext(ctx, s.local.Binaries().Program("pg_waldump"), filepath.Join(dir, name)).CombinedOutput()
	return strings.ReplaceAll(string(out), dir, "DIR")
}

func TestWhatAServerWroteIsReadAndKeptByteForByte(t *testing.T) {
	ctx := pgtest.Context(t)
	c := pgtest.New(t, pgtest.Options{Replicas: 1, Settings: map[string]string{"min_wal_size": "160MB", "max_wal_size": "320MB"}})
	first := serverOf(ctx, t, c.Primary())
	end := first.work(ctx, t)
	start, found, err := first.dir.Oldest(1)
	if !found || err != nil || start >= end {
		t.Fatalf("Oldest(1) = %s, %v, %v; want a position before %s", start, found, err, end)
	}
	spool, err := walfile.OpenSpool(t.TempDir(), walfile.SpoolConfig{SegmentSize: first.size, System: first.system, Keep: 1 << 30})
	pgtest.OK(t, err)
	defer spool.Close()
	pgtest.OK(t, spool.Reset(start, 1))
	first.fill(t, spool, nil, 1, end)

	pgtest.OK(t, c.WaitCaughtUp(ctx))
	next := c.Replicas()[0]
	pgtest.OK(t, c.Kill(c.Primary()))
	pgtest.OK(t, c.Promote(ctx, next))
	second := serverOf(ctx, t, next)
	end = second.work(ctx, t)
	text, err := second.dir.History(2)
	pgtest.OK(t, err)
	h, err := wal.ParseHistory(2, text)
	pgtest.OK(t, err)
	fork, _ := h.Begin(2)
	second.fill(t, spool, h, 2, max(fork, spool.Position().LSN))
	pgtest.OK(t, spool.SwitchTimeline(2, fork, text))
	second.fill(t, spool, h, 2, end)
	second.wantKept(ctx, t, spool)
	second.wantRecycledSegmentsUnread(ctx, t, spool, h)
}

// wantKept compares every file of the spool with the server's.
func (s *server) wantKept(ctx context.Context, t *testing.T, spool *walfile.Spool) {
	t.Helper()
	files, err := spool.Files(s.size)
	pgtest.OK(t, err)
	whole := 0
	for _, f := range files {
		name := f.Name
		s.wantSame(t, spool, name)
		if f.Partial {
			continue
		}
		whole++
		got, want := s.dump(ctx, spool.Path(), name), s.dump(ctx, s.path, name)
		if got != want || !strings.Contains(got, "rmgr: ") {
			t.Errorf("pg_waldump of %s in the spool = %.300s, want %.300s", name, got, want)
		}
	}
	if whole < 4 {
		t.Errorf("the spool has %d whole segments of %v, want 4 at least", whole, files)
	}
}

// wantRecycledSegmentsUnread makes the server reuse segments that were read, and
// expects nothing but WAL of its place under their old and new names.
func (s *server) wantRecycledSegmentsUnread(ctx context.Context, t *testing.T, spool *walfile.Spool, h wal.History) {
	t.Helper()
	oldest := spool.Stats().Oldest
	if _, err := s.dir.ReadAt(make([]byte, 100), oldest, 2, 1); err != nil {
		t.Fatalf("ReadAt(%s) = %v, want bytes", oldest, err)
	}
	pgtest.OK(t, s.node.Exec(ctx, "ALTER SYSTEM SET wal_keep_size = 0"))
	pgtest.OK(t, s.node.Exec(ctx, "SELECT pg_reload_conf()"))
	pgtest.OK(t, s.node.Await(ctx, "SELECT setting = '0' FROM pg_settings WHERE name = 'wal_keep_size'"))
	pgtest.OK(t, s.node.Exec(ctx, "CHECKPOINT"))
	s.overwrite(ctx, t, spool, h, oldest)
	pgtest.OK(t, s.node.Exec(ctx, "CHECKPOINT"))
	end, err := s.node.LSN(ctx)
	pgtest.OK(t, err)
	files, err := s.dir.Files(s.size)
	pgtest.OK(t, err)
	ahead := 0
	for _, f := range files {
		if at := f.Start; at > end {
			ahead++
			wantGone(t, s.dir, at, f.Timeline)
			wantGone(t, s.dir, at+100_000, f.Timeline)
		}
	}
	if ahead == 0 {
		t.Errorf("no segment was recycled: %v with the WAL at %s", files, end)
	}
	s.fill(t, spool, h, 2, end)
	from, found, err := s.dir.Oldest(2)
	if !found || err != nil || from <= oldest || from >= end {
		t.Fatalf("Oldest(2) = %s, %v, %v; want between %s and %s", from, found, err, oldest, end)
	}
	for at := from; at < end; at += wal.LSN(s.size) {
		s.wantSame(t, spool, spool.FileAt(wal.Position{Timeline: 2, LSN: at}, at+wal.LSN(s.size) > end))
	}
}

// overwrite makes the server write until the segment at a position, which is open
// still, holds other WAL. In which order a server reuses what it has recycled is
// that of the directory; until it is a segment's turn, what is read is what it was.
func (s *server) overwrite(ctx context.Context, t *testing.T, spool *walfile.Spool, h wal.History, at wal.LSN) {
	t.Helper()
	want, got := make([]byte, 100), make([]byte, 100)
	_, err := spool.Dir().ReadAt(want, at, 1)
	pgtest.OK(t, err)
	for range 20 {
		n, err := s.dir.ReadAt(got, at, 2, 1)
		if errors.Is(err, walfile.ErrNotKept) {
			return
		}
		if err != nil || !bytes.Equal(got[:n], want[:n]) {
			t.Fatalf("ReadAt(%s) of a segment that was recycled = %x, %v; want %x or %v", at, got[:n], err, want, walfile.ErrNotKept)
		}
		s.fill(t, spool, h, 2, s.work(ctx, t))
	}
	t.Fatalf("ReadAt(%s) still gives bytes; want %v", at, walfile.ErrNotKept)
}

func wantGone(t testing.TB, d *walfile.Dir, at wal.LSN, timeline wal.Timeline) {
	t.Helper()
	if n, err := d.ReadAt(make([]byte, 100), at, timeline); n != 0 || !errors.Is(err, walfile.ErrNotKept) {
		t.Errorf("ReadAt(%s, %v) = %d, %v; want 0, %v", at, timeline, n, err, walfile.ErrNotKept)
	}
}
