package integration_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// A relay's slots are made, read and dropped as a server's are, by the programs
// that do so.
func TestSlotsOfARelayAreThoseOfAServer(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := storyContext(t)
	r := startRelay(t, c.Primary().Server().Conninfo(""))
	ask := func(command string) string {
		t.Helper()
		out, _ := tool(ctx, t, "psql", "-XAt", "-d", r.conninfo("psql")+" replication=1", "-c", command).CombinedOutput()
		return strings.TrimSpace(string(out))
	}
	head := func() string { return r.Status().Head.String() }
	awaitHead(t, r.Relay, writtenOn(ctx, t, c.Primary()))
	for _, tt := range []struct{ command, want string }{
		{`READ_REPLICATION_SLOT "kept"`, "||"},
		{`CREATE_REPLICATION_SLOT "kept" PHYSICAL RESERVE_WAL`, "kept|0/0||"},
		{`CREATE_REPLICATION_SLOT "kept" PHYSICAL`, `ERROR:  replication slot "kept" already exists`},
		{`READ_REPLICATION_SLOT "kept"`, "physical|" + head() + "|1"},
		{`CREATE_REPLICATION_SLOT "unused" PHYSICAL`, "unused|0/0||"},
		{`READ_REPLICATION_SLOT "unused"`, "physical||"},
		{`CREATE_REPLICATION_SLOT "Large" PHYSICAL`, "ERROR:  replication slot name \"Large\" contains invalid character\n" +
			"HINT:  Replication slot names may only contain lower case letters, numbers, and the underscore character."},
		{`DROP_REPLICATION_SLOT "unused"`, "DROP_REPLICATION_SLOT"},
		{`DROP_REPLICATION_SLOT "unused"`, `ERROR:  replication slot "unused" does not exist`},
	} {
		if got := ask(tt.command); got != tt.want {
			t.Errorf("psql -c '%s' says\n%s\nwant\n%s", tt.command, got, tt.want)
		}
	}

	run(ctx, t, "pg_receivewal", "-d", r.conninfo(""), "--slot=archive", "--create-slot")
	run(ctx, t, "pg_receivewal", "-d", r.conninfo(""), "--slot=archive", "--create-slot", "--if-not-exists")
	wantSlots(t, r, "archive", "kept")
	run(ctx, t, "pg_receivewal", "-d", r.conninfo(""), "--slot=archive", "--drop-slot")
	wantSlots(t, r, "kept")

	// A temporary one is its session's, and ends with it.
	owner, other := replicationClient(ctx, t, r.conninfo("owner")), replicationClient(ctx, t, r.conninfo("other"))
	pgtest.OK(t, owner.CreateSlot(ctx, "passing", true, true))
	wantSlots(t, r, "kept", "passing")
	err := other.DropSlot(ctx, "passing")
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "55006" || !strings.HasPrefix(pgErr.Message, `replication slot "passing" is active for PID `) {
		t.Errorf("dropping another session's slot = %v, want that it is active", err)
	}
	pgtest.OK(t, owner.Close())
	await(t, "the temporary slot is gone", func() bool { return len(r.Status().Slots) == 1 })
}

// wantSlots compares the names of the relay's slots.
func wantSlots(t testing.TB, r *relayUnderTest, want ...string) {
	t.Helper()
	slots := r.Status().Slots
	ok := len(slots) == len(want)
	for _, name := range want {
		_, there := slots[name]
		ok = ok && there
	}
	if !ok {
		t.Errorf("the relay has the slots %v, want %q", slots, want)
	}
}

// replicationClient connects as a walreceiver does.
func replicationClient(ctx context.Context, t testing.TB, conninfo string) *replication.Client {
	t.Helper()
	cfg, err := pgconn.ParseConfig(conninfo)
	pgtest.OK(t, err)
	client, err := replication.Connect(ctx, cfg)
	pgtest.OK(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// A standby's slot moves with what it has flushed, is its own while it streams,
// and is there again after a restart of a relay that has a spool.
func TestAStandbysSlotOutlivesTheRelay(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := storyContext(t)
	primary, n2 := c.Primary(), c.Nodes[1]
	r := startRelay(t, primary.Server().Conninfo(""), func(cfg *relay.Config) { cfg.SpoolDir = t.TempDir() })
	streamThrough(ctx, t, n2, r, "n2_slot")
	pgtest.OK(t, primary.Exec(ctx, "CREATE TABLE t AS SELECT generate_series(1, 1000) n"))
	at := writtenOn(ctx, t, primary)
	await(t, "the slot moves", func() bool { return r.Status().Slots["n2_slot"] >= at })

	client := replicationClient(ctx, t, r.conninfo("thief"))
	_, _, err := client.Start(ctx, "n2_slot", at&^wal.LSN(16<<20-1), 1, "")
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); !ok || pgErr.Code != "55006" {
		t.Errorf("streaming with a slot that is in use = %v, want that it is active", err)
	}

	pgtest.OK(t, c.Stop(ctx, n2, pgctl.Fast))
	await(t, "the standby has left", func() bool {
		_, there := subscriber(r.Relay, "n2")
		return !there
	})
	before := r.Status().Slots["n2_slot"]
	r.halt()
	r.start()
	await(t, "the relay knows its source", func() bool { return r.Status().Connected })
	if after := r.Status().Slots["n2_slot"]; after != before {
		t.Errorf("the slot was at %s before the restart, and is at %s", before, after)
	}
	pgtest.OK(t, c.Start(ctx, n2))
	pgtest.OK(t, primary.Exec(ctx, "INSERT INTO t VALUES (1)"))
	awaitSame(ctx, t, primary, n2)
}

// A slot that nobody has made by hand is there after a crash of the relay as well,
// and holds no less than its standby needs.
func TestAStandbysSlotOutlivesACrashOfTheRelay(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := storyContext(t)
	primary, n2 := c.Primary(), c.Nodes[1]
	r := startRelayProcess(t, "crashing", primary.Server().Conninfo(""), func(s *processSettings) { s.Spool = t.TempDir() })
	pgtest.OK(t, c.Configure(ctx, n2, map[string]string{"primary_conninfo": r.conninfo("n2"), "primary_slot_name": "n2"}))
	pgtest.OK(t, primary.Exec(ctx, "CREATE TABLE t AS SELECT generate_series(1, 1000) n"))
	awaitSame(ctx, t, primary, n2)
	at, err := n2.LSN(ctx)
	pgtest.OK(t, err)
	saved := filepath.Join(r.settings.Spool, "slots.json")
	await(t, "the slot is saved", func() bool {
		text, err := os.ReadFile(saved)
		return err == nil && strings.Contains(string(text), at.String())
	})
	pgtest.OK(t, c.Stop(ctx, n2, pgctl.Fast))
	r.kill()
	r.start()
	awaitListening(t, r.settings.Listen)
	slot, err := replicationClient(ctx, t, r.conninfo("client")).ReadSlot(ctx, "n2")
	pgtest.OK(t, err)
	if slot.Type != "physical" || slot.Restart.LSN < at {
		t.Errorf("the slot after the crash is %+v, want %s or a little more", slot, at)
	}
	pgtest.OK(t, c.Start(ctx, n2))
	pgtest.OK(t, primary.Exec(ctx, "INSERT INTO t VALUES (1)"))
	awaitSame(ctx, t, primary, n2)
}

// streamThrough makes a standby stream from the relay through a slot there.
func streamThrough(ctx context.Context, t testing.TB, n *pgtest.Node, r *relayUnderTest, slot string) {
	t.Helper()
	pgtest.OK(t, n.Server().Configure(ctx, map[string]string{"primary_conninfo": r.conninfo(n.Name), "primary_slot_name": slot}))
}

// The relay's own slot at the primary is made by the relay, stands still while
// nobody streams through it, and keeps there what the slowest standby has not
// flushed: no more than it may, and no longer than it must.
func TestTheRelaysSlotKeepsWhatItsStandbysNeed(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2, Settings: map[string]string{"wal_keep_size": "0", "max_wal_size": "32MB", "min_wal_size": "32MB"}})
	ctx := storyContext(t)
	primary, n2, n3 := c.Primary(), c.Nodes[1], c.Nodes[2]
	const limit = 64 << 20
	r := startRelay(t, primary.Server().Conninfo(""), func(cfg *relay.Config) {
		cfg.Slot, cfg.SlotLimit, cfg.BufferSize = "helios", limit, relay.MinBufferSize
	})
	streamThrough(ctx, t, n2, r, "n2")
	streamThrough(ctx, t, n3, r, "n3")
	moved := func(at wal.LSN) {
		t.Helper()
		pgtest.OK(t, primary.Await(ctx, `SELECT coalesce(bool_or(restart_lsn >= $1::text::pg_lsn AND NOT active AND slot_type = 'physical'), false)
			FROM pg_replication_slots WHERE slot_name = 'helios'`, at.String()))
	}
	fillQuickly(ctx, t, primary, 1<<20)
	moved(writtenOn(ctx, t, primary))

	// One standby is away. What it lacks stays, though the buffer and the primary
	// would have dropped it.
	pgtest.OK(t, c.Stop(ctx, n2, pgctl.Fast))
	left := r.Status().Slots["n2"]
	for range 2 {
		fillQuickly(ctx, t, primary, 16<<20)
		pgtest.OK(t, primary.Exec(ctx, "CHECKPOINT"))
	}
	at := writtenOn(ctx, t, primary)
	await(t, "the other standby's slot is at the end", func() bool { return r.Status().Slots["n3"] >= at })
	kept, err := pgtest.Value[string](ctx, primary, "SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = 'helios'")
	pgtest.OK(t, err)
	if restart, err := wal.ParseLSN(kept); err != nil || restart > left {
		t.Errorf("the slot at the primary is at %s, %v, and a standby left at %s", kept, err, left)
	}
	pgtest.OK(t, c.Start(ctx, n2))
	awaitSame(ctx, t, primary, n2, n3)
	moved(writtenOn(ctx, t, primary))

	// Who stays away for too long holds no more than the limit.
	pgtest.OK(t, c.Stop(ctx, n2, pgctl.Fast))
	for range 5 {
		fillQuickly(ctx, t, primary, 16<<20)
	}
	at = writtenOn(ctx, t, primary)
	moved(at - limit)
	pgtest.OK(t, primary.Exec(ctx, "CHECKPOINT"))
	behind, err := pgtest.Value[int64](ctx, primary, "SELECT (pg_current_wal_lsn() - restart_lsn)::bigint FROM pg_replication_slots WHERE slot_name = 'helios'")
	pgtest.OK(t, err)
	if behind > limit+(16<<20) || behind < limit-(16<<20) {
		t.Errorf("the slot keeps %d bytes for a standby that is away, want about %d", behind, limit)
	}
}

// fillQuickly is fill with rows that are all alike, which takes the servers less
// time.
func fillQuickly(ctx context.Context, t testing.TB, n *pgtest.Node, bytes int64) {
	t.Helper()
	const row = 1950 // four of them fill a page
	pgtest.OK(t, n.Exec(ctx, "CREATE TABLE IF NOT EXISTS filling_quickly (t text)"))
	pgtest.OK(t, n.Exec(ctx, "ALTER TABLE filling_quickly ALTER t SET STORAGE PLAIN"))
	pgtest.OK(t, n.Exec(ctx, "INSERT INTO filling_quickly SELECT repeat('x', $1) FROM generate_series(1, $2::bigint)", row, bytes/row))
}
