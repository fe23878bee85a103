package integration_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal/relay"
)

// A walsender does not let its server stop before its standby has confirmed
// everything. A relay that has not is no reason to hang, whatever it is that it
// withholds.
func TestThePrimaryStopsThoughAcknowledgementsAreWithheld(t *testing.T) {
	for name, configure := range map[string]func(*relay.Config){
		"nothing is ever told":         acknowledging(t, "none"),
		"receipt in memory":            acknowledging(t, "receipt"),
		"receipt on disk":              acknowledging(t, "receipt"),
		"a quorum of frozen standbys":  acknowledging(t, "ANY 1 (n2)"),
		"a quorum of nobody":           acknowledging(t, "ANY 1 (n7)"),
		"a quorum that never flushes":  acknowledging(t, "ANY 1 (s1)"),
		"a gate that holds everything": acknowledging(t, "receipt"),
	} {
		if testing.Short() && !slices.Contains([]string{"nothing is ever told", "receipt in memory", "a quorum of frozen standbys"}, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := newSyncCluster(t, 1)
			ctx := pgtest.Context(t)
			primary := c.Primary()
			r := startRelay(t, primary.Server().Conninfo(""), configure, func(cfg *relay.Config) {
				cfg.ShutdownGrace = time.Second
				switch name {
				case "receipt on disk":
					cfg.SpoolDir = t.TempDir()
				case "a gate that holds everything":
					cfg.Gate = func(relay.Question) relay.Confirmation { return relay.Confirmation{} }
				}
			})
			for _, s := range c.Replicas() {
				streamFrom(ctx, t, s, r.conninfo(s.Name))
			}
			awaitConfirmed(ctx, t, r.Relay, primary, "n2")
			startStandIn(t, r.conninfo("s1")).confirm(true, false, false)
			for _, s := range c.Replicas() {
				pgtest.OK(t, c.Freeze(s))
			}
			pgtest.OK(t, primary.Exec(ctx, "INSERT INTO t SELECT generate_series(1, 1000)"))
			began := time.Now()
			stopInOrder(t, c, primary)
			t.Logf("FIGURES the primary stopped after %v", time.Since(began).Round(time.Millisecond))

			// Nothing is lost with that: what it wrote at its end reaches the standbys.
			for _, s := range c.Replicas() {
				pgtest.OK(t, c.Thaw(s))
			}
			pgtest.OK(t, c.Start(ctx, primary))
			awaitSame(ctx, t, primary, c.Replicas()...)
		})
	}
}

// stopInOrder stops a node by a fast shutdown, which must not hang.
func stopInOrder(t testing.TB, c *pgtest.Cluster, n *pgtest.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, errors.New("it hangs"))
	defer cancel()
	pgtest.OK(t, c.Stop(ctx, n, pgctl.Fast))
}

// What a quorum of standbys can still confirm while the primary stops it is
// given the time for: a shutdown in order leaves them with everything.
func TestAShutdownInOrderWaitsForTheQuorum(t *testing.T) {
	c := newSyncCluster(t, 1)
	ctx := pgtest.Context(t)
	primary, n2 := c.Primary(), c.Nodes[1]
	r := startRelay(t, primary.Server().Conninfo(""), acknowledging(t, "ANY 1 (n2)"), func(cfg *relay.Config) {
		cfg.ShutdownGrace = time.Minute // longer than the test has
	})
	streamFrom(ctx, t, n2, r.conninfo("n2"))
	awaitConfirmed(ctx, t, r.Relay, primary, "n2")
	pgtest.OK(t, c.Freeze(n2))
	pgtest.OK(t, primary.Exec(ctx, "INSERT INTO t SELECT generate_series(1, 1000)"))
	before := writtenOn(ctx, t, primary)
	stopping := make(chan error, 1)
	go func() { stopping <- c.Stop(ctx, primary, pgctl.Fast) }()
	await(t, "the primary's last checkpoint is in the relay", func() bool {
		log, err := primary.Server().Log()
		pgtest.OK(t, err)
		return strings.Contains(log, "LOG:  shutting down") && r.Status().Head > before
	})
	select {
	case err := <-stopping:
		t.Errorf("the primary stopped with %v before its standby had everything", err)
	default:
	}
	pgtest.OK(t, c.Thaw(n2))
	pgtest.OK(t, <-stopping)
	if s, _ := subscriber(r.Relay, "n2"); s.Confirmed.Flush != r.Status().Head {
		t.Errorf("when the primary had stopped, its standby had confirmed %s, and the primary written %s", s.Confirmed.Flush, r.Status().Head)
	}
}
