package integration_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/server/api"
)

// A standby freezes and misses an election that is won by one which has less: when it
// thaws it is past the fork. What only it has is read by nobody, and is taken back.
func TestAStandbyPastTheForkIsNotRead(t *testing.T) {
	c := startWithTwoWitnesses(t)
	k := employ(t, c, clerks)
	old, ahead, behind := k.diverge()
	// All that was written since behind has crashed is lost: that is what async means.
	awaitBulletin(t, c, behind.Name+" is primary", companions.NewPrimary(old.Name))
	began := k.ledger.Acks()
	k.await(20)
	reading, stop := context.WithCancel(t.Context())
	defer stop()
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() { readNot(reading, t, k, lostRow) })
	}
	thawed := time.Now()
	pgtest.OK(t, ahead.Thaw())
	pgtest.OK(t, old.Start())
	awaitBulletin(t, c, "all are well", companions.Healthy(5))
	t.Logf("FIGURES all well %v after the thaw", time.Since(thawed))
	k.await(20)
	stop()
	readers.Wait()
	k.audit(began)
	for _, n := range []*companions.Node{old, ahead, behind} {
		if k.has(n, lostRow) {
			t.Errorf("%s still has the row that was lost", n.Name)
		}
	}
}

// A standby past the fork is further than the new primary, and its acknowledgements
// release no commit of it: commits wait until it has been taken back and has them.
func TestAStandbyPastTheForkAcknowledgesNothing(t *testing.T) {
	c := startWithTwoWitnesses(t, "--replication_mode=semisync", "--k=1")
	k := employ(t, c, clerks)
	old, ahead, behind := k.diverge()
	force := api.Failover{To: behind.Name, Force: true, AcceptLoss: old.Name}
	await(t, "the failover to be forced", func() bool {
		_, err := operator(t, c.Nodes...).Failover(pgtest.Context(t), force)
		// A leader may go away before it could tell what it has done.
		return err == nil || strings.Contains(err.Error(), "is the primary already")
	})
	awaitBulletin(t, c, behind.Name+" is primary", companions.NewPrimary(old.Name))
	began := k.ledger.Acks()
	conn := connectTo(t, behind)
	defer conn.Close(context.Background())
	var committed sync.WaitGroup
	var at string
	committed.Go(func() {
		const commit = "SELECT pg_logical_emit_message(true, 'helios', 'a commit')::text"
		if err := conn.QueryRow(pgtest.Context(t), commit).Scan(&at); err != nil {
			t.Error("a commit that only a standby past the fork could release:", err)
		}
	})
	watch := connectTo(t, behind)
	defer watch.Close(context.Background())
	await(t, "the commit to wait", func() bool {
		var waiting bool
		pgtest.OK(t, watch.QueryRow(pgtest.Context(t), "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep')",
			conn.PgConn().PID()).Scan(&waiting))
		return waiting
	})
	thawed := time.Now()
	pgtest.OK(t, ahead.Thaw())
	committed.Wait()
	took := time.Since(thawed)
	back := connectTo(t, ahead)
	defer back.Close(context.Background())
	var has bool
	// WAL that pg_rewind has copied is not received again, and counts as flushed once it is replayed.
	const flushed = "SELECT greatest(flushed_lsn, pg_last_wal_replay_lsn()) >= $1::text::pg_lsn AND received_tli > 1 FROM pg_stat_wal_receiver"
	if err := back.QueryRow(pgtest.Context(t), flushed, at).Scan(&has); err != nil || !has {
		t.Errorf("the commit at %s returned, and %s has not flushed it on the new timeline, error %v", at, ahead.Name, err)
	}
	t.Logf("FIGURES the commit returned %v after the thaw", took)
	pgtest.OK(t, old.Start())
	awaitBulletin(t, c, "all are well", companions.Healthy(5))
	k.await(20)
	k.audit(began)
}

// lostRow is what only a standby past the fork has.
const lostRow = -1

// startWithTwoWitnesses starts three nodes, of which two may be away.
func startWithTwoWitnesses(t *testing.T, flags ...string) *companions.Cluster {
	t.Helper()
	c := startCompanions(t, companions.Options{Nodes: 3, Witness: true, Flags: flags})
	_, err := c.Add(t.Context(), "x", true, flags...)
	pgtest.OK(t, err)
	awaitBulletin(t, c, "two witnesses vote", companions.Healthy(5))
	return c
}

// diverge has one standby miss what is written, and leaves the cluster to it: the other
// is frozen, and the primary's machine has crashed.
func (k *clerk) diverge() (old, ahead, behind *companions.Node) {
	t := k.t
	t.Helper()
	old, ahead = primaryOf(t, k.c), standbyOf(t, k.c)
	behind = thirdOf(k.c, old, ahead)
	k.await(10)
	pgtest.OK(t, behind.Kill())
	exec(t, pgtest.Context(t), k.db, "INSERT INTO ledger VALUES ($1)", lostRow)
	k.await(20)
	k.awaitRow(ahead, lostRow)
	pgtest.OK(t, ahead.Freeze())
	pgtest.OK(t, old.Kill())
	pgtest.OK(t, behind.Start())
	return old, ahead, behind
}

// thirdOf returns the third node with PostgreSQL.
func thirdOf(c *companions.Cluster, a, b *companions.Node) *companions.Node {
	for _, n := range c.Nodes {
		if n != a && n != b && n.Postgres != "" {
			return n
		}
	}
	return nil
}

// readNot reads by the driver, and must not find the row.
func readNot(ctx context.Context, t *testing.T, k *clerk, id int64) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		// Sessions of those who have written are told that it is lost.
		one, cancel := budget(helios.WithSession(ctx, helios.NewSession()))
		var n int
		err := k.db.QueryRowContext(one, "SELECT count(*) FROM ledger WHERE id = $1", id).Scan(&n)
		cancel()
		if err != nil || n != 0 {
			t.Errorf("a read finds %d rows that are lost, error %v", n, err)
			return
		}
		<-tick.C
	}
}

// has reports whether a node has the row.
func (k *clerk) has(n *companions.Node, id int64) bool {
	k.t.Helper()
	conn := connectTo(k.t, n)
	defer conn.Close(context.Background())
	var there bool
	pgtest.OK(k.t, conn.QueryRow(pgtest.Context(k.t), "SELECT EXISTS (SELECT FROM ledger WHERE id = $1)", id).Scan(&there))
	return there
}

// awaitRow returns when a node has the row.
func (k *clerk) awaitRow(n *companions.Node, id int64) {
	k.t.Helper()
	await(k.t, n.Name+" to have the row", func() bool { return k.has(n, id) })
}
