package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/walfake"
	"github.com/heliosdb/helios/wal"
)

// dumpLog writes two segments of a log to a directory: three records, and a
// switch, and one record more.
func dumpLog(t *testing.T) (dir, first, second string) {
	t.Helper()
	dir = t.TempDir()
	size := wal.MinSegmentSize
	log := walfake.New(15, 0x1000000)
	log.SegmentSize = size
	for xid := range uint32(3) {
		log.Append(walfake.Record{XID: 700 + xid, Manager: wal.ManagerHeap, Info: 0x80, Body: append(
			[]byte{0, 0x60, 2, 0, 0x7F, 6, 0, 0, 5, 0, 0, 0, 0, 64, 0, 0, 9, 0, 0, 0, 255, 3, 1, 2}, 1, 2, 3)})
	}
	log.Switch()
	commit := make([]byte, 8)
	log.Append(walfake.Record{XID: 702, Manager: wal.ManagerTransaction, Body: walfake.Main(commit)})
	bytes := make([]byte, 2*size)
	copy(bytes, log.Bytes())
	first, second = filepath.Join(dir, size.Name(1, 0x1000000)), filepath.Join(dir, size.Name(1, 0x1100000))
	pgtest.OK(t, os.WriteFile(first, bytes[:size], 0o600))
	pgtest.OK(t, os.WriteFile(second, bytes[size:], 0o600))
	return dir, first, second
}

func TestDumpPrintsFilesAsPgWaldumpDoes(t *testing.T) {
	dir, first, second := dumpLog(t)
	const (
		insert = "rmgr: Heap        len (rec/tot):     51/    51, tx:        700, lsn: 0/01000028, prev 0/00000000, desc: INSERT+INIT, blkref #0: rel 1663/5/16384 blk 9\n"
		commit = "rmgr: Transaction len (rec/tot):     34/    34, tx:        702, lsn: 0/01100028, prev 0/010000D0, desc: COMMIT 2000-01-01 00:00:00.000000 UTC\n"
	)
	copied := filepath.Join(t.TempDir(), "copy")
	content, err := os.ReadFile(second)
	pgtest.OK(t, err)
	pgtest.OK(t, os.WriteFile(copied, content, 0o600))
	for name, tt := range map[string]struct {
		args  []string
		begin string
		lines int
		end   string
	}{
		"a directory":        {[]string{dir}, insert, 5, "wal dump: the log ends at 0/1100050: invalid record length"},
		"files":              {[]string{first, second}, insert, 5, "ends at 0/1100050"},
		"one file":           {[]string{second}, commit, 1, "ends at 0/1100050"},
		"a file's copy":      {[]string{copied}, commit, 1, "ends at 0/1100050"},
		"from the second on": {[]string{"--from", "0/1100000", dir}, commit, 1, "ends at 0/1100050"},
		"from a record on":   {[]string{"--from", "0/1000061", dir, "--limit", "2"}, "rmgr: Heap        len (rec/tot):     51/    51, tx:        702", 2, ""},
		"up to a record":     {[]string{"--to", "0/1000061", dir}, insert, 2, ""},
		"one record":         {[]string{"--limit=1", dir}, insert, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, stderr := runHelios(t.Context(), "", append([]string{"wal", "dump"}, tt.args...)...)
			if code != exitOK || !strings.HasPrefix(out, tt.begin) || strings.Count(out, "\n") != tt.lines {
				t.Errorf("wal dump %q = %d:\n%swant %d lines, the first being\n%s", tt.args, code, out, tt.lines, tt.begin)
			}
			if !strings.Contains(stderr, tt.end) || (tt.end == "") != (stderr == "") {
				t.Errorf("it said %q, want %q", stderr, tt.end)
			}
		})
	}
}

func TestDumpPrintsAnObjectForEachRecord(t *testing.T) {
	dir, _, _ := dumpLog(t)
	_, out, _ := runHelios(t.Context(), "", "wal", "dump", "--json", dir)
	var records []dumpedRecord
	for line := range strings.Lines(out) {
		var r dumpedRecord
		pgtest.OK(t, json.Unmarshal([]byte(line), &r))
		records = append(records, r)
	}
	if len(records) != 5 || records[0].XID != 700 || records[0].Blocks[0].Relation != "1663/5/16384" || records[0].Time != nil {
		t.Fatalf("got %d records:\n%s", len(records), out)
	}
	if last := records[4]; last.Operation != wal.OpCommit || last.Time == nil || last.Time.Year() != 2000 || last.LSN != 0x1100028 {
		t.Errorf("the last one is %+v, want a commit of 2000", last)
	}
}

func TestDumpSaysWhatIsWrongWithFiles(t *testing.T) {
	dir, first, second := dumpLog(t)
	damage := func(file string, at int64) string {
		content, err := os.ReadFile(file)
		pgtest.OK(t, err)
		content[at] ^= 0x10
		damaged := filepath.Join(t.TempDir(), filepath.Base(file))
		pgtest.OK(t, os.WriteFile(damaged, content, 0o600))
		return damaged
	}
	text := filepath.Join(t.TempDir(), "text")
	pgtest.OK(t, os.WriteFile(text, []byte("hello"), 0o600))
	size := wal.MinSegmentSize
	far := filepath.Join(t.TempDir(), size.Name(1, 0x1300000))
	pgtest.OK(t, os.Rename(second, far))
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"a damaged record":      {[]string{damage(first, 60)}, "damaged at 0/1000028: incorrect resource manager data checksum in record\nhint: compare"},
		"another version":       {[]string{damage(first, 0)}, "page at 0/1000000 has magic number D100: want one of PostgreSQL 13 to 18\nhint: a newer"},
		"no log":                {[]string{text}, "text is no WAL segment: it has 5 bytes"},
		"no file":               {[]string{filepath.Join(dir, "none")}, "no such file"},
		"an empty directory":    {[]string{t.TempDir()}, "holds no WAL segments\nhint: want a server's pg_wal"},
		"files that are apart":  {[]string{first, far}, "does not follow"},
		"a log that is shorter": {[]string{dir, "--from", "0/2000000"}, "nothing of the log from 0/2000000 on"},
		"a log that is later":   {[]string{dir, "--from", "0/10"}, "begins at 0/1000000 only"},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := runHelios(t.Context(), "", append([]string{"wal", "dump"}, tt.args...)...)
			if code != exitFailed || !strings.HasPrefix(stderr, "helios: wal dump: ") || !strings.Contains(stderr, tt.want) {
				t.Errorf("wal dump %q = %d, %q; want %q", tt.args, code, stderr, tt.want)
			}
		})
	}
}

func TestDumpOfAServerNamesRelations(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Database: "shop"})
	ctx := pgtest.Context(t)
	conn := c.Primary().Conn(t)
	for _, sql := range []string{"CREATE TABLE orders (id int PRIMARY KEY)", "INSERT INTO orders VALUES (1)"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	for name, dsn := range map[string]string{"a cluster": c.DSN(), "a node": c.Primary().DSN(), "another database": strings.Replace(c.DSN(), "/shop", "/postgres", 1)} {
		code, out, stderr := runHelios(ctx, "", "wal", "dump", dsn)
		if code != exitOK || stderr != "" {
			t.Errorf("%s: wal dump = %d, %q", name, code, stderr)
		}
		for _, want := range []string{"desc: INSERT+INIT, blkref #0: rel public.orders blk 0", "rel public.orders_pkey blk 1", "rel pg_catalog.pg_class ", "desc: COMMIT 20"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no record has %q", name, want)
			}
		}
	}
	lsn, err := c.Primary().LSN(ctx)
	pgtest.OK(t, err)
	code, _, stderr := runHelios(ctx, "", "wal", "dump", c.DSN(), "--from", (lsn + 1<<30).String())
	if code != exitFailed || !strings.Contains(stderr, "has flushed its log up to") {
		t.Errorf("wal dump from the future = %d, %q", code, stderr)
	}
	pgtest.OK(t, c.CreateUser(ctx, "app", ""))
	code, _, stderr = runHelios(ctx, "", "wal", "dump", c.DSNAs("app"))
	if code != exitFailed || !strings.Contains(stderr, "hint: the role needs REPLICATION") {
		t.Errorf("wal dump without REPLICATION = %d, %q", code, stderr)
	}
}

func TestDumpFollowsWhatIsWritten(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := pgtest.Context(t)
	from, err := c.Primary().LSN(ctx)
	pgtest.OK(t, err)
	type result struct {
		code   int
		stderr string
		out    string
	}
	done := make(chan result)
	go func() {
		code, out, stderr := runHelios(ctx, "", "wal", "dump", c.DSN(), "--follow", "--json", "--limit", "200", "--from", from.String())
		done <- result{code, stderr, out}
	}()
	conn := c.Primary().Conn(t)
	for i := 0; ; i++ {
		select {
		case r := <-done:
			if r.code != exitOK || strings.Count(r.out, "\n") != 200 {
				t.Errorf("wal dump --follow = %d, %q, %d lines", r.code, r.stderr, strings.Count(r.out, "\n"))
			}
			return
		default:
			if _, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(true, 'dump', 'x')"); err != nil {
				t.Fatal(err)
			}
		}
	}
}
