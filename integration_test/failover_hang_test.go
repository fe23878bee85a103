package integration_test

import (
	"path"
	"strings"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
)

// The primary hangs: its sockets stay open and nothing answers. Another node is
// promoted, and later the old primary goes on as if nothing had happened. Until
// the hang is noticed nodes are probed at leisure; from then on all the time.
func TestAHungPrimaryIsLeftAndNeverWrittenAgain(t *testing.T) {
	t.Run("promoted at once", func(t *testing.T) { hang(t, false) })
	t.Run("promoted when the hang was noticed", func(t *testing.T) { hang(t, true) })
}

// hang tells the story.
func hang(t *testing.T, noticed bool) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	db := open(t, c, "probe_interval=200ms", "probe_timeout=300ms")
	known := clusterOf(t, db)
	ctx := pgtest.Context(t)
	l := startLoad(t, db, 8, 2, 4)
	replicated(t, c)
	l.awaitWrites(t, 200)

	old := c.Primary()
	frozen := time.Now()
	pgtest.OK(t, c.Freeze(old))
	t.Cleanup(func() { c.Thaw(old) })
	next, err := c.BestReplica(ctx)
	pgtest.OK(t, err)
	if noticed {
		await(t, "the driver to miss its primary", func() bool { return known.Status().Primary == "" })
	}
	promoting := time.Now()
	pgtest.OK(t, c.Promote(ctx, next))
	promoted := time.Now()
	await(t, "the statements in flight on the old primary to be aborted", func() bool { return statusOf(known, old).Conns.Busy == 0 })
	aborted := time.Now()
	pgtest.OK(t, c.Follow(ctx, next))
	l.awaitWrites(t, 500)
	first := l.firstSince(promoting)

	begunLater := l.next.Load() // ids above were handed out when the old primary had been left
	pgtest.OK(t, c.Thaw(old))
	await(t, "the old primary to be refused", func() bool { return statusOf(known, old).State == "refused" })
	l.awaitWrites(t, 500)
	l.stop()

	t.Logf("FIGURES hang (%s): promoted %v after the freeze, first write %v after that, statements in flight aborted %v after the freeze; writes %d, reads %d, errors: %s",
		path.Base(t.Name()), promoted.Sub(frozen).Round(time.Millisecond), first.Sub(promoted).Round(time.Microsecond), aborted.Sub(frozen).Round(time.Millisecond),
		l.count.Load(), l.reads.Load(), l.kinds())
	l.allow(t, "write: outcome unknown", "write: not committed", falseAlarm)
	l.verify(t, next)
	fewFalseAlarms(t, known)
	if reason := statusOf(known, old).Reason; !strings.Contains(reason, "timeline") {
		t.Errorf("the old primary is refused because %q, want a word about its timeline", reason)
	}

	// What it was executing when it froze waits for a replica: let it become visible.
	pgtest.OK(t, c.Configure(ctx, old, map[string]string{"synchronous_standby_names": ""}))
	awaitNobodyWaiting(t, old)
	for id := range l.rows(t, old) {
		if max(id, -id) > begunLater {
			t.Errorf("id %d was written to the old primary", id)
		}
	}
}
