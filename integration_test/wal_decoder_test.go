package integration_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	osexec "os/exec" // exec is a helper of these stories
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/walfake"
	"github.com/heliosdb/helios/wal"
)

// ownServer returns a node's server, whose files are on this machine.
func ownServer(t testing.TB, n *pgtest.Node) *pgtest.LocalServer {
	t.Helper()
	server, ok := n.Server().(*pgtest.LocalServer)
	if !ok {
		t.Skip("servers in containers do not show their log's files")
	}
	return server
}

// program returns one of the programs that belong to a server, to run in UTC.
func program(ctx context.Context, b pgctl.Binaries, name string, args ...string) *osexec.Cmd {
	cmd := osexec.CommandContext(ctx, b.Program(name), args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	return cmd
}

// simply runs statements one by one, as psql would.
func simply(t testing.TB, ctx context.Context, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, sql := range statements {
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// A server writes every kind of record that it can be made to write. helios and
// the server's own pg_waldump read the same in it.
func TestTheLogIsReadAsItsServerReadsIt(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Settings: map[string]string{
		"wal_level": "logical", "max_prepared_transactions": "10", "track_commit_timestamp": "on", "autovacuum": "off",
		"shared_buffers": "64MB", "synchronous_commit": "off",
	}})
	server := ownServer(t, c.Primary())
	writeZoo(t, c.Primary())
	writeLoad(t, c.Primary(), server)
	restartInManyWays(t, c)
	compareWithDump(t, server)
}

// writeZoo makes a server write what one or two clients can make it write.
func writeZoo(t testing.TB, n *pgtest.Node) {
	t.Helper()
	ctx := pgtest.Context(t)
	conn := n.Conn(t)
	for _, part := range walZoo {
		if major >= part.since {
			simply(t, ctx, conn, part.sql...)
		}
	}
	lockTogether(t, ctx, n)
	backUp(t, ctx, conn)
}

// writeLoad copies rows into a server, and has clients change rows of it at once.
func writeLoad(t testing.TB, n *pgtest.Node, server *pgtest.LocalServer) {
	t.Helper()
	ctx := pgtest.Context(t)
	rows := pgx.CopyFromSlice(3000, func(i int) ([]any, error) { return []any{2000000 + i, 1}, nil })
	_, err := n.Conn(t).CopyFrom(ctx, pgx.Identifier{"heap"}, []string{"id", "n"}, rows)
	pgtest.OK(t, err)
	for _, args := range [][]string{{"-i", "-q"}, {"-n", "-c", "2", "-t", "200"}} {
		if out, err := program(ctx, server.Binaries(), "pgbench", append(args, server.ConnString())...).CombinedOutput(); err != nil {
			t.Fatalf("pgbench %q: %v: %s", args, err, out)
		}
	}
}

// restartInManyWays crashes the primary, lets it recover, changes what needs a
// restart, and stops it.
func restartInManyWays(t testing.TB, c *pgtest.Cluster) {
	t.Helper()
	ctx := pgtest.Context(t)
	pgtest.OK(t, c.Kill(c.Primary()))
	pgtest.OK(t, c.Start(ctx, c.Primary()))
	pgtest.OK(t, c.Configure(ctx, c.Primary(), map[string]string{"max_locks_per_transaction": "70"}))
	pgtest.OK(t, c.Restart(ctx, c.Primary()))
	pgtest.OK(t, c.Stop(ctx, c.Primary(), pgctl.Fast))
}

// lockTogether has several sessions lock the same rows, and lock rows that others
// are changing.
func lockTogether(t testing.TB, ctx context.Context, n *pgtest.Node) {
	t.Helper()
	a, b := n.Conn(t), n.Conn(t)
	simply(t, ctx, a, "BEGIN", "SELECT * FROM heap WHERE id < 30 FOR SHARE")
	simply(t, ctx, b, "BEGIN", "SELECT * FROM heap WHERE id < 30 FOR KEY SHARE", "COMMIT")
	simply(t, ctx, a, "COMMIT", "BEGIN", "UPDATE heap SET n = n + 1 WHERE id < 30", "SAVEPOINT s", "UPDATE heap SET n = n + 1 WHERE id < 10")
	simply(t, ctx, b, "BEGIN", "SELECT * FROM heap WHERE id < 30 FOR KEY SHARE")
	simply(t, ctx, a, "COMMIT")
	simply(t, ctx, b, "SELECT * FROM heap WHERE id < 30 FOR KEY SHARE", "COMMIT", "VACUUM FREEZE heap")
}

// backUp begins a backup and ends it, which copies nothing.
func backUp(t testing.TB, ctx context.Context, conn *pgx.Conn) {
	t.Helper()
	begin, end := "SELECT pg_backup_start('b', true)", "SELECT pg_backup_stop(false)"
	if major < 15 {
		begin, end = "SELECT pg_start_backup('b', true, false)", "SELECT pg_stop_backup(false, false)"
	}
	simply(t, ctx, conn, begin, end)
}

// compareWithDump reads the log of a stopped server and compares each record with
// the line that pg_waldump prints.
func compareWithDump(t testing.TB, server *pgtest.LocalServer) {
	t.Helper()
	ctx := pgtest.Context(t)
	dir := filepath.Join(server.Dir(), "pg_wal")
	files, err := filepath.Glob(filepath.Join(dir, "00000001????????????????"))
	pgtest.OK(t, err)
	_, start, err := wal.SegmentSize(wal.DefaultSegmentSize).Parse(filepath.Base(files[0]))
	pgtest.OK(t, err)
	cmd := program(ctx, server.Binaries(), "pg_waldump", files[0], files[len(files)-1])
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	pgtest.OK(t, err)
	pgtest.OK(t, cmd.Start())
	theirs := bufio.NewScanner(out)
	theirs.Buffer(nil, 10<<20)
	records, kinds, decoder := 0, map[string]int{}, wal.NewDecoder(start)
	for _, file := range files {
		segment, err := os.ReadFile(file)
		pgtest.OK(t, err)
		decoder.Feed(segment)
		for r := decoder.Next(); r != nil; r = decoder.Next() {
			if !theirs.Scan() {
				cmd.Wait()
				t.Fatalf("record %d is %s; pg_waldump has no more, and says %s", records, r, &complaint)
			}
			if !sameRecord(r, theirs.Text()) {
				t.Fatalf("record %d:\n got %s\nwant %s", records, r, theirs.Text())
			}
			records++
			kinds[r.Manager.String()+"/"+r.Operation()]++
		}
	}
	end, ok := decoder.Err().(*wal.EndError) //nolint:errorlint // never wrapped
	if theirs.Scan() || !ok {
		t.Errorf("the log ends with %v; want a plain end; pg_waldump goes on with %q", decoder.Err(), theirs.Text())
	} else if cmd.Wait(); !strings.Contains(complaint.String(), end.LSN.String()) && !strings.Contains(complaint.String(), fmt.Sprintf("%X/%08X", uint64(end.LSN)>>32, uint32(end.LSN))) {
		t.Errorf("the log ends at %s; pg_waldump says %s", end.LSN, complaint.String())
	}
	t.Logf("PostgreSQL %d: %d records of %d kinds are the same", major, records, len(kinds))
	if len(kinds) < 95 {
		t.Errorf("the zoo has only %d kinds of records: %v", len(kinds), kinds)
	}
}

// sameRecord reports whether a line of pg_waldump says of r what we do: it has the
// manager's own words between the operation and the blocks.
func sameRecord(r *wal.Record, line string) bool {
	head, blocks, _ := strings.Cut(r.String(), ", blkref #")
	rest, ok := strings.CutPrefix(line, head+" ")
	if !ok {
		return false
	}
	_, theirs, _ := strings.Cut(rest, ", blkref #")
	if theirs != blocks {
		return false
	}
	if end, ok := r.TransactionEnd(); ok {
		return strings.Contains(rest, end.Time.Format("2006-01-02 15:04:05.000000 UTC")) && end.Committed == strings.Contains(head, "COMMIT")
	}
	return true
}

// A log with every number of every manager is read by pg_waldump, which counts
// records by name.
func TestEveryOperationIsCalledAsTheServersProgramsCallIt(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	server := ownServer(t, c.Primary())
	log := walfake.New(major, 0x1000000)
	for number := range 256 {
		for info := 0; info < 256; info += 16 {
			m := wal.Manager(number)
			if known := m <= wal.ManagerLogicalMessage || number >= 128 && major >= 15; !known || m == wal.ManagerXLOG && info == 0x40 {
				continue // a SWITCH would end the segment
			}
			log.Append(walfake.Record{Manager: m, Info: uint8(info), Body: walfake.Main(make([]byte, 64))})
		}
	}
	dir := t.TempDir()
	pgtest.OK(t, os.WriteFile(filepath.Join(dir, "000000010000000000000001"), log.Segment(), 0o600))
	cmd := program(pgtest.Context(t), server.Binaries(), "pg_waldump", "--stats=record", filepath.Join(dir, "000000010000000000000001"))
	out, _ := cmd.Output() // it does not like the end of the log
	want := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if name, _, ok := strings.Cut(strings.TrimLeft(line, " "), "  "); ok && strings.Contains(name, "/") {
			want[name] = true
		}
	}
	got := map[string]bool{}
	decoder := wal.NewDecoder(0x1000000)
	decoder.Feed(log.Bytes())
	for r := decoder.Next(); r != nil; r = decoder.Next() {
		if r.Manager == wal.ManagerTransaction && strings.HasPrefix(r.Operation(), "UNKNOWN") {
			continue // the statistics have lost what bit 80 of Info says
		}
		name := r.Manager.String() + "/" + r.Operation()
		got[name] = true
		if !want[name] {
			t.Errorf("%s is no name of pg_waldump %d", name, major)
		}
	}
	if len(got) < 300 || decoder.Err() != nil {
		t.Errorf("%d names, %v; pg_waldump has %d: %s", len(got), decoder.Err(), len(want), out)
	}
	t.Logf("PostgreSQL %d: %d names are the same", major, len(got))
}
