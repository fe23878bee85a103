package integration_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/histcheck"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// A client that knows nothing of the cluster holds on to a primary that freezes. When
// it thaws, another one has taken over: not one more of the client's rows is
// acknowledged.
func TestAClientThatHoldsOnToAFrozenPrimaryIsNotAcknowledged(t *testing.T) {
	modes := [][]string{nil, {"--replication_mode=semisync", "--k=1"}}
	if testing.Short() {
		modes = modes[:1]
	}
	for _, flags := range modes {
		c := startCompanions(t, companions.Options{Nodes: 3, Flags: flags})
		k := employ(t, c, clerks)
		old := primaryOf(t, c)
		ended := k.pin(old)
		failOverOnce(t, c, k, nodeFault{(*companions.Node).Freeze, func(n *companions.Node) error {
			if err := n.Thaw(); err != nil {
				return err
			}
			await(t, "the old primary to end the client's connection", ended.Load)
			return nil
		}})
		k.audit(inFlight(clerks + 1))
	}
}

// pin has a client write to one node until its connection ends, which it reports.
func (k *clerk) pin(n *companions.Node) *atomic.Bool {
	k.t.Helper()
	cfg, err := pgx.ParseConfig("postgres://" + pgctl.Superuser + "@" + n.Postgres + "/postgres?sslmode=disable")
	pgtest.OK(k.t, err)
	doubted := false // a commit that was cancelled while it waited comes back as success, with a warning
	cfg.OnNotice = func(_ *pgconn.PgConn, notice *pgconn.Notice) { doubted = doubted || notice.Code == "01000" }
	conn, err := pgx.ConnectConfig(pgtest.Context(k.t), cfg)
	pgtest.OK(k.t, err)
	ended := new(atomic.Bool)
	k.running.Go(func() {
		defer conn.Close(context.Background())
		defer ended.Store(true)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			id := k.ledger.Begin()
			var timeline uint64
			err := conn.QueryRow(ctx, clerkSQL, id).Scan(&timeline)
			cancel()
			if err != nil || doubted {
				k.ledger.End(id, histcheck.Unknown, 0)
				return
			}
			k.ledger.End(id, histcheck.Acknowledged, timeline)
			<-tick.C
		}
	})
	return ended
}
