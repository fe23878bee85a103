package replication_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// connect opens a replication connection to a node.
func connect(t *testing.T, n *pgtest.Node) *replication.Client {
	t.Helper()
	return connectTo(t, n.DSN("application_name=replication_test"))
}

func connectTo(t *testing.T, dsn string) *replication.Client {
	t.Helper()
	cfg, err := pgconn.ParseConfig(dsn)
	pgtest.OK(t, err)
	c, err := replication.Connect(pgtest.Context(t), cfg)
	pgtest.OK(t, err)
	t.Cleanup(func() { c.Close() })
	pgtest.OK(t, c.SetReadDeadline(time.Time{}))
	return c
}

func identify(t *testing.T, c *replication.Client) replication.Identity {
	t.Helper()
	id, err := c.Identify(pgtest.Context(t))
	pgtest.OK(t, err)
	return id
}

// start begins a stream that has to begin.
func start(t *testing.T, c *replication.Client, at wal.LSN, timeline wal.Timeline) {
	t.Helper()
	started, next, err := c.Start(pgtest.Context(t), "", at, timeline, "")
	if err != nil || !started {
		t.Fatalf("Start at %s of timeline %s = %v, %v, %v; want a stream", at, timeline, started, next, err)
	}
	pgtest.OK(t, c.SetReadDeadline(time.Now().Add(30*time.Second)))
}

// receive reads WAL up to a position, and returns it.
func receive(t *testing.T, c *replication.Client, from, to wal.LSN) []byte {
	t.Helper()
	var got []byte
	for from < to {
		e := next(t, c)
		switch e.Kind {
		case replication.KindKeepalive:
			if e.Reply {
				pgtest.OK(t, c.SendStatus(replication.Status{Write: from, Flush: from, SentAt: time.Now()}))
			}
			continue
		case replication.KindData:
		default:
			t.Fatalf("Next() = %+v at %s, want WAL up to %s", e, from, to)
		}
		if e.Start != from || e.End < e.Start+wal.LSN(e.Size) {
			t.Fatalf("Next() = %+v, want WAL from %s on", e, from)
		}
		part := make([]byte, e.Size)
		if n, err := c.Read(part); n != len(part) || err != nil {
			t.Fatalf("Read() = %d, %v; want %d", n, err, len(part))
		}
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Fatalf("Read() behind the end = %d, %v; want io.EOF", n, err)
		}
		got, from = append(got, part...), from+wal.LSN(len(part))
	}
	return got
}

func next(t *testing.T, c *replication.Client) replication.Event {
	t.Helper()
	e, err := c.Next()
	pgtest.OK(t, err)
	return e
}

// awaitEnd skips whatever comes before the end of the stream.
func awaitEnd(t *testing.T, c *replication.Client) replication.Event {
	t.Helper()
	for {
		if e := next(t, c); e.Kind == replication.KindEnd {
			return e
		}
	}
}

// segmentFile returns the contents of the file of WAL that a position is in.
func segmentFile(t *testing.T, n *pgtest.Node, id replication.Identity, at wal.LSN) []byte {
	t.Helper()
	number := int64(at) / id.SegmentSize
	perID := (int64(1) << 32) / id.SegmentSize
	name := fmt.Sprintf("pg_wal/%08X%08X%08X", uint32(id.Timeline), number/perID, number%perID)
	content, err := pgtest.Value[[]byte](pgtest.Context(t), n, "SELECT pg_read_binary_file($1)", name)
	pgtest.OK(t, err)
	return content
}

// work makes a node write WAL of all sizes, and returns where it ends.
func work(t *testing.T, n *pgtest.Node) wal.LSN {
	t.Helper()
	ctx := pgtest.Context(t)
	for _, sql := range []string{
		"CREATE TABLE IF NOT EXISTS t (id int, text text)",
		"INSERT INTO t SELECT i, repeat('x', i % 500) FROM generate_series(1, 20000) i",
		"CREATE INDEX ON t (id)",
		"UPDATE t SET text = 'y' WHERE id = 7",
		"CHECKPOINT",
	} {
		pgtest.OK(t, n.Exec(ctx, sql))
	}
	lsn, err := n.LSN(ctx)
	pgtest.OK(t, err)
	return lsn
}

func TestAServerTellsWhoItIs(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := pgtest.Context(t)
	for i, n := range cluster.Nodes {
		c := connect(t, n)
		id := identify(t, c)
		system, err := pgtest.Value[string](ctx, n, "SELECT system_identifier::text FROM pg_control_system()")
		pgtest.OK(t, err)
		version, err := pgtest.Value[int](ctx, n, "SELECT current_setting('server_version_num')::int")
		pgtest.OK(t, err)
		size, err := pgtest.Value[int64](ctx, n, "SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'")
		pgtest.OK(t, err)
		if id.System != system || id.Version != version || id.SegmentSize != size || id.Timeline != 1 || id.InRecovery != (i > 0) || id.Flush == 0 {
			t.Errorf("Identify() of %s = %+v; want system %s, version %d, segments of %d bytes, timeline 1, in recovery %v", n.Name, id, system, version, size, i > 0)
		}
		if got := c.Parameter("integer_datetimes"); got != "on" {
			t.Errorf("Parameter(integer_datetimes) = %q, want on", got)
		}
	}
}

func TestStreamedWALIsWhatTheServerHasInItsFiles(t *testing.T) {
	n := pgtest.New(t, pgtest.Options{}).Primary()
	c := connect(t, n)
	id := identify(t, c)
	from := id.Flush - id.Flush%wal.LSN(id.SegmentSize)
	start(t, c, from, 0)
	to := work(t, n)
	got := receive(t, c, from, to)
	for at := from; at < to; at += wal.LSN(id.SegmentSize) {
		file := segmentFile(t, n, id, at)
		part := got[at-from:]
		part = part[:min(len(part), len(file))]
		if !bytes.Equal(part, file[:len(part)]) {
			t.Errorf("%d bytes of WAL from %s on differ from the file", len(part), at)
		}
	}
}

func TestAStreamThatTheClientEndsLeavesAConnectionForCommands(t *testing.T) {
	n := pgtest.New(t, pgtest.Options{}).Primary()
	c := connect(t, n)
	id := identify(t, c)
	for range 2 {
		start(t, c, id.Flush, id.Timeline)
		if _, err := c.Identify(pgtest.Context(t)); err == nil {
			t.Error("Identify during a stream succeeds")
		}
		pgtest.OK(t, c.StopCopy())
		pgtest.OK(t, c.StopCopy())
		if err := c.SendStatus(replication.Status{}); err == nil {
			t.Error("SendStatus after StopCopy succeeds")
		}
		if e := awaitEnd(t, c); e.Next != (wal.Position{}) {
			t.Errorf("the stream ends with %+v, want no next timeline", e)
		}
		identify(t, c)
	}
}

func TestAPositionThatTheServerDoesNotHaveIsAnErrorAndNotTheEndOfTheConnection(t *testing.T) {
	n := pgtest.New(t, pgtest.Options{}).Primary()
	c := connect(t, n)
	id := identify(t, c)
	for name, tt := range map[string]struct {
		at       wal.LSN
		timeline wal.Timeline
	}{
		"ahead of the server":    {id.Flush + 1<<32, 1},
		"timeline of the future": {id.Flush, 9},
		"never written":          {0, 1},
	} {
		// What the server finds out after it has begun comes in the stream.
		started, _, err := c.Start(pgtest.Context(t), "", tt.at, tt.timeline, "")
		if started {
			_, err = c.Next()
		}
		if _, ok := errors.AsType[*pgconn.PgError](err); !ok {
			t.Errorf("%s: WAL from %s of timeline %s on gives %v, want the server's error", name, tt.at, tt.timeline, err)
		}
		identify(t, c)
	}
}

func TestSlotsAreMadeReadAndDropped(t *testing.T) {
	n := pgtest.New(t, pgtest.Options{}).Primary()
	c := connect(t, n)
	ctx := pgtest.Context(t)
	if err := c.CreateSlot(ctx, `no "slot"`, true, false); err == nil {
		t.Error("CreateSlot with a bad name succeeds")
	}
	pgtest.OK(t, c.CreateSlot(ctx, "lasting", false, true))
	pgtest.OK(t, c.CreateSlot(ctx, "passing", true, false))
	got, err := pgtest.Value[string](ctx, n, `SELECT string_agg(format('%s %s %s', slot_name, temporary, restart_lsn IS NOT NULL), ', ' ORDER BY slot_name) FROM pg_replication_slots`)
	if want := "lasting f t, passing t f"; err != nil || got != want {
		t.Errorf("slots are %q, %v; want %q", got, err, want)
	}
	if identify(t, c).Version >= 150000 {
		slot, err := c.ReadSlot(ctx, "lasting")
		if err != nil || slot.Type != "physical" || slot.Restart.Timeline != 1 || slot.Restart.LSN == 0 {
			t.Errorf("ReadSlot() = %+v, %v", slot, err)
		}
		if slot, err := c.ReadSlot(ctx, "missing"); err != nil || slot != (replication.Slot{}) {
			t.Errorf("ReadSlot() of no slot = %+v, %v", slot, err)
		}
	}
	pgtest.OK(t, c.DropSlot(ctx, "lasting"))
	if pg, ok := errors.AsType[*pgconn.PgError](c.DropSlot(ctx, "lasting")); !ok || pg.Code != "42704" {
		t.Errorf("DropSlot() of no slot = %v, want 42704", pg)
	}
}

func TestAStreamGoesOnOnTheNextTimelineAfterAPromotion(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := pgtest.Context(t)
	replica := cluster.Replicas()[0]
	c := connect(t, replica)
	id := identify(t, c)
	start(t, c, id.Flush, id.Timeline)
	pgtest.OK(t, cluster.Kill(cluster.Primary()))
	pgtest.OK(t, cluster.Promote(ctx, replica))
	end := awaitEnd(t, c)
	if end.Next.Timeline != 2 || end.Next.LSN < id.Flush {
		t.Fatalf("the stream ends with %+v, want timeline 2 from behind %s on", end, id.Flush)
	}

	file, err := c.History(ctx, 2)
	pgtest.OK(t, err)
	history, err := wal.ParseHistory(2, file)
	if begin, ok := history.Begin(2); err != nil || !ok || begin != end.Next.LSN {
		t.Errorf("the history %q has timeline 2 begin at %s, %v; want %s", file, begin, err, end.Next.LSN)
	}
	if id := identify(t, c); id.Timeline != 2 || id.InRecovery {
		t.Errorf("Identify() = %+v, want a primary on timeline 2", id)
	}

	started, next, err := c.Start(ctx, "", end.Next.LSN, 1, "")
	if err != nil || started || next != end.Next {
		t.Errorf("Start where timeline 1 ended = %v, %v, %v; want no stream but %v", started, next, err, end.Next)
	}
	start(t, c, end.Next.LSN, 2)
	if got := receive(t, c, end.Next.LSN, work(t, replica)); len(got) == 0 {
		t.Error("no WAL of timeline 2")
	}
}

func TestAShutdownOfTheServerEndsTheStreamInOrder(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{})
	n := cluster.Primary()
	c := connect(t, n)
	id := identify(t, c)
	start(t, c, id.Flush, 1)
	// Before that a shutdown ends the walsender like any other session.
	pgtest.OK(t, n.Await(pgtest.Context(t), "SELECT count(*) > 0 FROM pg_stat_replication WHERE state = 'streaming'"))
	stopped := make(chan error, 1)
	go func() { stopped <- cluster.Stop(context.Background(), n, pgctl.Fast) }()
	var at wal.LSN
	for {
		e, err := c.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		pgtest.OK(t, err)
		if e.Kind == replication.KindData {
			at = e.Start + wal.LSN(e.Size)
		}
		pgtest.OK(t, c.SendStatus(replication.Status{Write: max(at, e.End), Flush: max(at, e.End), SentAt: time.Now()}))
	}
	pgtest.OK(t, <-stopped)
}

func TestACrashOfTheServerIsNoOrderlyEnd(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{})
	n := cluster.Primary()
	c := connect(t, n)
	start(t, c, identify(t, c).Flush, 1)
	pgtest.OK(t, cluster.Kill(n))
	for {
		_, err := c.Next()
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) {
			t.Errorf("Next() = %v", err)
		}
		break
	}
	if _, err := c.Identify(pgtest.Context(t)); err == nil {
		t.Error("Identify on a broken connection succeeds")
	}
}

func TestACommandEndsWithItsContext(t *testing.T) {
	cluster := pgtest.New(t, pgtest.Options{})
	n := cluster.Primary()
	c := connect(t, n)
	pgtest.OK(t, cluster.Freeze(n))
	defer cluster.Thaw(n)
	why := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, why)
	defer cancel()
	if _, err := c.Identify(ctx); !errors.Is(err, why) {
		t.Errorf("Identify() = %v, want %v", err, why)
	}
	if _, err := c.Identify(t.Context()); err == nil {
		t.Error("Identify after half an answer succeeds")
	}
	pgtest.OK(t, c.Close())
	pgtest.OK(t, c.Close())
}

func TestAWaitThatTimesOutMayBeRepeated(t *testing.T) {
	n := pgtest.New(t, pgtest.Options{}).Primary()
	c := connect(t, n)
	id := identify(t, c)
	start(t, c, id.Flush, 1)
	deadline := func(d time.Duration) { pgtest.OK(t, c.SetReadDeadline(time.Now().Add(d))) }
	for {
		deadline(20 * time.Millisecond)
		_, err := c.Next()
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			break
		}
		pgtest.OK(t, err)
	}
	deadline(30 * time.Second)
	pgtest.OK(t, n.Exec(pgtest.Context(t), "CREATE TABLE late (id int)"))
	for next(t, c).Kind != replication.KindData {
	}
}
