package integration_test

import (
	"strings"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal/relay"
)

// A relay that is started again, and finds nobody but a primary that was left
// behind, throws nothing away for it: what its spool has may have been
// acknowledged. With a source that continues it, it goes on.
func TestARestartedRelayKeepsItsSpoolFromAPrimaryThatWasLeftBehind(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := storyContext(t)
	old, next := c.Nodes[0], c.Nodes[1]
	r := startRelay(t, old.Server().Conninfo(""), func(cfg *relay.Config) {
		cfg.SpoolDir, cfg.Acknowledge = t.TempDir(), relay.Policy{Mode: relay.ConfirmReceipt}
	})
	write(ctx, t, old, "before", next)
	pgtest.OK(t, c.Kill(old))
	pgtest.OK(t, c.Promote(ctx, next))
	source(t, r, next)
	await(t, "the relay on timeline 2", func() bool { return r.Status().Timeline == 2 })
	write(ctx, t, next, "acknowledged")
	written := writtenOn(ctx, t, next)
	await(t, "the spool to have it", func() bool { return r.Status().Confirmed.Flush >= written })

	r.halt()
	pgtest.OK(t, c.Start(ctx, old)) // as a primary, on timeline 1
	r.start()
	await(t, "the relay to refuse it", func() bool {
		return strings.Contains(r.Status().Error, "on timeline 1: a primary that was left behind")
	})
	source(t, r, old, next)
	await(t, "the relay to go on where its spool ends", func() bool {
		s := r.Status()
		return s.Connected && s.Timeline == 2 && s.Tail <= written && s.Confirmed.Flush >= written
	})
	if s := r.Status(); s.Spool == nil || s.Spool.Oldest > 0x2000000 {
		t.Errorf("the spool has been made anew: %+v", s.Spool)
	}
}
