package integration_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/histcheck"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/server/client"
)

// A driver that listens sees of a switchover that some statements took longer:
// it holds back what it has not sent, and the primary stops when nothing is under
// way. Where that takes too long, what was cut off is resolved.
func TestADriverThatListensSeesNoErrorInASwitchover(t *testing.T) {
	c := startCompanions(t, companions.Options{Nodes: 3})
	k := employ(t, c, 4, "resolve=all")
	readers, stop := context.WithCancel(context.Background())
	defer stop()
	for range 2 {
		k.running.Go(func() { k.readBack(readers) })
	}
	orders, err := client.New([]string{c.Nodes[0].Companion, c.Nodes[1].Companion, c.Nodes[2].Companion}, client.Options{TLS: c.Nodes[0].TLS()})
	pgtest.OK(t, err)
	defer orders.Close()
	cluster, err := helios.ClusterOf(k.db)
	pgtest.OK(t, err)
	for range 3 {
		old := primaryOf(t, c)
		began := time.Now()
		_, err := orders.Switchover(pgtest.Context(t), "")
		pgtest.OK(t, err)
		took := time.Since(began)
		b := awaitBulletin(t, c, "another node is primary", companions.NewPrimary(old.Name))
		k.await(50)
		t.Logf("FIGURES write gap %v, switchover %v, %s", k.ledger.Gap(began), took, cluster.Status().Companion)
		if got, want := cluster.Status().Primary, c.Node(b.Primary).Postgres; got != want {
			t.Errorf("the driver takes %s for the primary, the companions %s", got, want)
		}
		awaitBulletin(t, c, "the old primary is a replica", companions.Healthy(3))
	}
	stop()
	verdict := k.audit(0)
	if verdict.Unknown > 0 {
		t.Errorf("the outcome of %d writes is not known", verdict.Unknown)
	}
	for text, n := range k.errors() {
		t.Errorf("%d times the application saw: %s", n, text)
	}
	stats := cluster.Stats()
	t.Logf("FIGURES %d reads, %d of them first by a replica that was behind, %d commits resolved", sum(stats.Reads), stats.Behind, stats.Resolved)
}

// readBack writes and reads what it has written, in a session of its own.
func (k *clerk) readBack(ctx context.Context) {
	own := helios.WithSession(context.Background(), helios.NewSession())
	for ctx.Err() == nil {
		id := k.ledger.Begin()
		var timeline uint64
		var found bool
		err := k.db.QueryRowContext(own, clerkSQL, id).Scan(&timeline)
		if err == nil {
			k.ledger.End(id, histcheck.Acknowledged, timeline)
			err = k.db.QueryRowContext(own, "SELECT EXISTS (SELECT FROM ledger WHERE id = $1)", id).Scan(&found)
		}
		if err == nil && !found {
			err = errors.New("a read did not see what its session had written")
		}
		if err != nil {
			k.mu.Lock()
			k.errs[err.Error()]++
			k.mu.Unlock()
		}
	}
}

func sum(counts map[string]uint64) (n uint64) {
	for _, count := range counts {
		n += count
	}
	return n
}
