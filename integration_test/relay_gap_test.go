package integration_test

import (
	"net"
	"strings"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
)

// A relay that was cut off for so long that its source has removed what comes
// next goes on with what there is, for those who have the rest from elsewhere.
func TestARelayGoesOnBehindWALThatItsSourceHasRemoved(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1}) // n2 streams from the primary
	ctx := storyContext(t)
	primary, n2 := c.Primary(), c.Nodes[1]
	// What n2 has not received is not to be removed.
	pgtest.OK(t, primary.Exec(ctx, "SELECT pg_create_physical_replication_slot('n2', true)"))
	pgtest.OK(t, c.Configure(ctx, n2, map[string]string{"primary_slot_name": "n2"}))
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	link, err := pgtest.StartProxy(primary.DirectAddr())
	pgtest.OK(t, err)
	t.Cleanup(func() { pgtest.OK(t, link.Close()) })
	r := startRelay(t, through(t, primary, link))
	await(t, "the relay to follow", func() bool { return r.Status().Head >= writtenOn(ctx, t, primary) })
	link.Refuse()
	link.Reset()
	stood := r.Status().Head
	pgtest.OK(t, c.Configure(ctx, primary, map[string]string{"wal_keep_size": "0", "max_wal_size": "32MB", "min_wal_size": "32MB"}))
	await(t, "the primary to have removed what the relay needs", func() bool {
		fill(ctx, t, primary, 8<<20)
		pgtest.OK(t, c.WaitCaughtUp(ctx))
		pgtest.OK(t, primary.Exec(ctx, "CHECKPOINT"))
		removed, err := pgtest.Value[bool](ctx, primary, `SELECT min(name) > pg_walfile_name($1::text::pg_lsn)
			FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'`, stood.String())
		pgtest.OK(t, err)
		return removed
	})
	pgtest.OK(t, link.Heal())
	streamFrom(ctx, t, n2, r.conninfo("n2"))
	fill(ctx, t, primary, 1<<20)
	awaitSame(ctx, t, primary, n2)
	if tail := r.Status().Tail; tail <= stood {
		t.Errorf("the relay's buffer begins at %s, at or before %s where it had stopped: was nothing removed?", tail, stood)
	}
	await(t, "n2 to stream through the relay", func() bool { return len(r.Status().Subscribers) == 1 })
}

// through is the node's conninfo with the proxy's port.
func through(t testing.TB, n *pgtest.Node, link *pgtest.Proxy) string {
	t.Helper()
	_, port, err := net.SplitHostPort(n.DirectAddr())
	pgtest.OK(t, err)
	_, proxied, err := net.SplitHostPort(link.Addr())
	pgtest.OK(t, err)
	return strings.Replace(n.Server().Conninfo(""), "port="+port, "port="+proxied, 1)
}
