package integration_test

import (
	"slices"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/topology"
)

// standbyOf returns a node that is not the primary.
func standbyOf(t testing.TB, c *companions.Cluster) *companions.Node {
	t.Helper()
	primary := primaryOf(t, c)
	for _, n := range c.Nodes {
		if n != primary && n.Postgres != "" {
			return n
		}
	}
	t.Fatal("there is no standby")
	return nil
}

// Planned changes lose nothing, leave no outcome unknown, and no error is seen: to
// each node in turn, and back.
func TestASwitchoverUnderLoadIsNotNoticed(t *testing.T) {
	c := startCompanions(t, companions.Options{Nodes: 3})
	k := employ(t, c, clerks)
	for range 3 {
		switchOnce(t, c, k, standbyOf(t, c))
	}
	if verdict := k.audit(0); verdict.Unknown > 0 {
		t.Errorf("the outcome of %d writes is not known", verdict.Unknown)
	}
}

// switchOnce makes a node the primary, and waits until all is well again. It returns
// what failOverOnce does.
func switchOnce(t *testing.T, c *companions.Cluster, k *clerk, to *companions.Node) (gap, back time.Duration) {
	t.Helper()
	began := time.Now()
	_, err := operator(t, c.Nodes...).Switchover(pgtest.Context(t), to.Name)
	pgtest.OK(t, err)
	took := time.Since(began)
	if now := primaryOf(t, c); now != to {
		t.Errorf("the primary is %s, want %s", now.Name, to.Name)
	}
	ended := time.Now()
	awaitBulletin(t, c, "the old primary is a replica", companions.Healthy(len(c.Nodes)))
	back = time.Since(ended)
	k.await(50)
	gap = k.ledger.Gap(began)
	t.Logf("FIGURES write gap %v, switchover to %s done after %v, old primary back after %v", gap, to.Name, took, back)
	return gap, back
}

// A switchover to a node that cannot take over is refused, and the primary goes on.
func TestASwitchoverToANodeThatCannotIsRefused(t *testing.T) {
	c := startCompanions(t, companions.Options{Nodes: 3})
	k := employ(t, c, clerks)
	before := epochOf(t, c)
	to := standbyOf(t, c)
	for _, tt := range []struct {
		name         string
		strike, mend func(*companions.Node) error
	}{
		{"its machine has crashed", (*companions.Node).Kill, restart},
		{"its machine is frozen", (*companions.Node).Freeze, (*companions.Node).Thaw},
		{"its replay is paused", pauseReplay(t, c), resumeReplay(t)},
		{"it has much to replay", delayReplay(t, c), replayAtOnce(t)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pgtest.OK(t, tt.strike(to))
			began := time.Now()
			_, err := operator(t, c.Nodes...).Switchover(pgtest.Context(t), to.Name)
			if err == nil {
				t.Errorf("a switchover to %s succeeded", to.Name)
			}
			refused := time.Since(began)
			if now := epochOf(t, c); now != before {
				t.Errorf("the primary is %s, was %s", now, before)
			}
			k.await(20)
			t.Logf("FIGURES write gap %v; refused after %v: %v", k.ledger.Gap(began), refused, err)
			pgtest.OK(t, tt.mend(to))
			awaitBulletin(t, c, "all is well again", companions.Healthy(3))
		})
	}
	if verdict := k.audit(0); verdict.Unknown > 0 {
		t.Errorf("the outcome of %d writes is not known", verdict.Unknown)
	}
}

// pauseReplay has a standby stand still; its companion has noticed.
func pauseReplay(t *testing.T, c *companions.Cluster) func(*companions.Node) error {
	return func(n *companions.Node) error {
		conn := connectTo(t, n)
		defer conn.Close(pgtest.Context(t))
		if _, err := conn.Exec(pgtest.Context(t), "SELECT pg_wal_replay_pause()"); err != nil {
			return err
		}
		_, err := c.Await(pgtest.Context(t), "the pause is noticed", func(b *topology.Bulletin) bool {
			return slices.ContainsFunc(b.Nodes, func(r topology.Reported) bool { return r.Name == n.Name && r.Reason == "replay is paused" })
		})
		return err
	}
}

// resumeReplay has it go on.
func resumeReplay(t *testing.T) func(*companions.Node) error {
	return func(n *companions.Node) error {
		conn := connectTo(t, n)
		defer conn.Close(pgtest.Context(t))
		_, err := conn.Exec(pgtest.Context(t), "SELECT pg_wal_replay_resume()")
		return err
	}
}

// delayReplay has a standby replay an hour late, and writes more than it may be behind;
// its companion has noticed.
func delayReplay(t *testing.T, c *companions.Cluster) func(*companions.Node) error {
	return func(n *companions.Node) error {
		setDelay(t, n, "1h")
		conn := connectTo(t, primaryOf(t, c))
		defer conn.Close(pgtest.Context(t))
		const backlog = 20 << 20
		_, err := conn.Exec(pgtest.Context(t), "SELECT pg_logical_emit_message(true, 'helios', repeat('x', 1 << 20)) FROM generate_series(1, 20)")
		if err != nil {
			return err
		}
		_, err = c.Await(pgtest.Context(t), "the backlog is noticed", func(b *topology.Bulletin) bool {
			i := slices.IndexFunc(b.Nodes, func(r topology.Reported) bool { return r.Name == n.Name })
			return i >= 0 && b.Nodes[i].ReplayLSN.Behind(b.Nodes[i].ReceiveLSN) >= backlog
		})
		return err
	}
}

// replayAtOnce ends the delay.
func replayAtOnce(t *testing.T) func(*companions.Node) error {
	return func(n *companions.Node) error {
		setDelay(t, n, "0")
		return nil
	}
}

func setDelay(t *testing.T, n *companions.Node, delay string) {
	t.Helper()
	conn := connectTo(t, n)
	defer conn.Close(pgtest.Context(t))
	for _, sql := range []string{"ALTER SYSTEM SET recovery_min_apply_delay = '" + delay + "'", "SELECT pg_reload_conf()"} {
		_, err := conn.Exec(pgtest.Context(t), sql)
		pgtest.OK(t, err)
	}
}
