package integration_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/pgtest"
)

// A standby freezes and misses an election that is won by one which has less: when it
// thaws it is past the fork. What only it has is read by nobody, and is taken back.
func TestAStandbyPastTheForkIsNotRead(t *testing.T) {
	c := startCompanions(t, companions.Options{Nodes: 3, Witness: true})
	_, err := c.Add(t.Context(), "x", true)
	pgtest.OK(t, err)
	awaitBulletin(t, c, "two witnesses vote", companions.Healthy(5))
	k := employ(t, c, clerks)
	old := primaryOf(t, c)
	ahead := standbyOf(t, c)
	behind := thirdOf(c, old, ahead)
	k.await(10)
	pgtest.OK(t, behind.Kill())
	const marker = -1
	db := k.db
	exec(t, pgtest.Context(t), db, "INSERT INTO ledger VALUES ($1)", marker)
	k.await(20)
	k.awaitRow(ahead, marker)
	// All that was written since behind has crashed is lost: that is what async means.
	pgtest.OK(t, ahead.Freeze())
	pgtest.OK(t, old.Kill())
	pgtest.OK(t, behind.Start())
	awaitBulletin(t, c, behind.Name+" is primary", companions.NewPrimary(old.Name))
	began := k.ledger.Acks()
	k.await(20)
	reading, stop := context.WithCancel(t.Context())
	defer stop()
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() { readNot(reading, t, k, marker) })
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
		if k.has(n, marker) {
			t.Errorf("%s still has the row that was lost", n.Name)
		}
	}
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
