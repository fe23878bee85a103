package integration_test

import (
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
)

// slowness is how much longer than promised things may take where others keep
// the machine busy.
const slowness = 5

// A standby that knows the relay and the primary behind it needs the relay for
// nothing: when that dies, libpq goes on to the next host of primary_conninfo.
//
// It stays there, since nobody leaves a connection that works. It comes back to
// the relay, which stands first, when that connection ends, or when the server
// is told of another primary_conninfo: a reload alone, with the same one, does
// not end it.
func TestStandbyGoesToThePrimaryWhileTheRelayIsGone(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := storyContext(t)
	primary, n2 := c.Primary(), c.Nodes[1]
	r := startRelayProcess(t, "r", primary.Server().Conninfo("r"))
	awaitListening(t, r.settings.Listen)
	streamFrom(ctx, t, n2, relayOrNode(t, r.port, primary, c, "n2"))
	load := startPgbench(t, c)
	direct := func(yes bool) {
		t.Helper()
		pgtest.OK(t, primary.Await(pgtest.Context(t), `SELECT (count(*) > 0) = $1 FROM pg_stat_replication
			WHERE application_name = 'n2' AND state = 'streaming'`, yes))
	}
	for round, back := range []string{"connection ends", "conninfo changes", "connection ends"} {
		direct(false)
		awaitFlow(t, primary, n2)
		gone := time.Now()
		if round%2 == 0 {
			r.kill()
		} else {
			r.stop()
		}
		direct(true)
		took := time.Since(gone)
		t.Logf("FIGURES from the relay's end to streaming from the primary: %v", took)
		if took > 2*time.Second*slowness {
			t.Errorf("the standby streams from the primary %v after the relay has gone, want 2 s", took)
		}
		awaitFlow(t, primary, n2)
		r.start()
		awaitListening(t, r.settings.Listen)
		returned := time.Now()
		if back == "connection ends" {
			_, err := pgtest.Value[bool](ctx, primary, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'n2'")
			pgtest.OK(t, err)
		} else {
			pgtest.OK(t, c.Configure(ctx, n2, nil))
			direct(true) // a reload changes nothing
			streamFrom(ctx, t, n2, relayOrNode(t, r.port, primary, c, "n2")+" connect_timeout=10")
		}
		direct(false)
		awaitFlow(t, primary, n2)
		t.Logf("FIGURES back at the relay when the %s: %v", back, time.Since(returned))
	}
	load.stop()
	awaitSame(ctx, t, primary, n2)
}
