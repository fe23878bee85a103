package integration_test

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal/relay"
)

// What a server had written when it crashed, and not sent, is on its disk: the relay
// beside it takes it from there, the standbys get it, and when the server comes back
// they go on where it does.
func TestARelaySalvagesWhatACrashedServerHadNotSent(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := storyContext(t)
	primary, standby := c.Primary(), c.Nodes[1]
	r := startRelay(t, primary.Server().Conninfo(""), func(cfg *relay.Config) {
		cfg.WALDir = filepath.Join(ownServer(t, primary).Dir(), "pg_wal")
	})
	streamFrom(ctx, t, standby, r.conninfo("n2"))
	fill(ctx, t, primary, 1<<20)
	awaitFlow(t, primary, standby)
	awaitRest(ctx, t, primary, standby)

	for round := range 3 {
		sender, err := pgtest.Value[int](ctx, primary, "SELECT pid FROM pg_stat_replication")
		pgtest.OK(t, err)
		pgtest.OK(t, syscall.Kill(sender, syscall.SIGSTOP)) // nothing is sent from here on
		fill(ctx, t, primary, 3<<20)
		pgtest.OK(t, primary.Exec(ctx, "CREATE TABLE IF NOT EXISTS last (n int)"))
		pgtest.OK(t, primary.Exec(ctx, "INSERT INTO last VALUES (1)"))
		written := writtenOn(ctx, t, primary)
		sent := r.Replicator().Position().LSN
		if sent >= written {
			t.Fatalf("round %d: the relay has %s, and all that was written is %s", round, sent, written)
		}
		pgtest.OK(t, c.Kill(primary))
		end, err := r.Salvage(ctx)
		pgtest.OK(t, err)
		if end != r.Replicator().Position() || end.LSN < written {
			t.Fatalf("round %d: the relay salvaged WAL up to %s and is at %s, and %s was written", round, end, r.Replicator().Position(), written)
		}
		pgtest.OK(t, standby.WaitReplayed(ctx, written))
		rows, err := pgtest.Value[int](ctx, standby, "SELECT count(*) FROM last")
		pgtest.OK(t, err)
		if rows != round+1 {
			t.Errorf("round %d: the standby has %d of the rows that were written last, want %d", round, rows, round+1)
		}
		pgtest.OK(t, c.Start(ctx, primary))
		fill(ctx, t, primary, 1<<20)
		awaitSame(ctx, t, primary, standby)
		awaitRest(ctx, t, primary, standby)
	}
}
