package integration_test

import (
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/walfile"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// Memory is no disk: without a spool, and without standbys that may speak for it,
// a relay never says that it has flushed anything, and no commit is let go by it.
func TestMemoryNeverAcknowledgesAFlush(t *testing.T) {
	c := newSyncCluster(t, 1)
	ctx := pgtest.Context(t)
	primary, n2 := c.Primary(), c.Nodes[1]
	for n, policy := range []string{"none", "receipt"} {
		r := startRelay(t, primary.Server().Conninfo(""), acknowledging(t, policy))
		streamFrom(ctx, t, n2, r.conninfo("n2"))
		on := beginCommit(t, primary, "on", n)
		written := beginCommit(t, primary, "remote_write", n) // waits as well: PostgreSQL counts nobody who never flushes
		awaitConfirmed(ctx, t, r.Relay, primary, "n2")        // the standby's disk has it, and is not asked
		waits(t, r, on, written)
		known := whatIsKnownOf(ctx, t, primary, syncName)
		if known.Flush.Valid || known.Replay.Valid {
			t.Errorf("policy %s: the primary knows of a flush of %q, a replay of %q; want neither", policy, known.Flush.String, known.Replay.String)
		}
		if want := policy == "receipt"; known.Write.Valid != want {
			t.Errorf("policy %s: that the primary knows of a write is %t, want %t", policy, known.Write.Valid, want)
		}
		r.halt()
		// The commits go when nobody has to be waited for any more.
		streamFrom(ctx, t, n2, primary.Server().Conninfo(syncName))
		on.returns()
		written.returns()
	}
}

// With a spool what it has flushed is acknowledged, and no more than that.
func TestASpoolAcknowledgesWhatItHasFlushed(t *testing.T) {
	c := newSyncCluster(t, 0)
	ctx := pgtest.Context(t)
	primary, dir := c.Primary(), t.TempDir()
	r := startRelay(t, primary.Server().Conninfo(""), acknowledging(t, "receipt"), func(cfg *relay.Config) { cfg.SpoolDir = dir })
	spooled := inSpool(t, r, dir)
	for n := range 50 {
		beginCommit(t, primary, "on", n).returns()
		if known := whatIsKnownOf(ctx, t, primary, syncName); known.Flush.Valid {
			at, err := wal.ParseLSN(known.Flush.String)
			pgtest.OK(t, err)
			if !spooled(at) {
				t.Fatalf("the primary was told of a flush of %s, which is not in the spool", at)
			}
		}
	}
	known := whatIsKnownOf(ctx, t, primary, syncName)
	if !known.Flush.Valid || known.Replay.Valid {
		t.Errorf("the primary knows of a flush of %q, a replay of %q; want the flush only", known.Flush.String, known.Replay.String)
	}
}

// inSpool returns what tells whether the files in dir have the WAL up to a
// position.
func inSpool(t testing.TB, r *relayUnderTest, dir string) func(wal.LSN) bool {
	t.Helper()
	await(t, "the relay knows its source", func() bool { return r.Status().Connected })
	system, err := strconv.ParseUint(r.Status().System, 10, 64)
	pgtest.OK(t, err)
	return func(at wal.LSN) bool {
		files := walfile.OpenDir(dir, 16<<20, system)
		defer files.Close()
		var last [1]byte
		n, err := files.ReadAt(last[:], at-1, r.Status().Timeline)
		return n == 1 && err == nil
	}
}

// The gate has the last word: what it holds back is not told, and what it lets go
// is told when it says so.
func TestTheGateHoldsAcknowledgementsBack(t *testing.T) {
	c := newSyncCluster(t, 1)
	ctx := pgtest.Context(t)
	primary, n2 := c.Primary(), c.Nodes[1]
	var closed atomic.Bool
	var held atomic.Pointer[relay.Confirmation]
	r := startRelay(t, primary.Server().Conninfo(""), acknowledging(t, "ANY 1 (*)"), func(cfg *relay.Config) {
		cfg.Gate = func(q relay.Question) relay.Confirmation {
			if !closed.Load() {
				held.Store(&q.Confirmed)
			}
			return *held.Load()
		}
	})
	streamFrom(ctx, t, n2, r.conninfo("n2"))
	beginCommit(t, primary, "on", 1).returns()
	closed.Store(true)
	second := beginCommit(t, primary, "on", 2)
	awaitConfirmed(ctx, t, r.Relay, primary, "n2")
	waits(t, r, second)
	closed.Store(false)
	r.Release()
	second.returns()
}
