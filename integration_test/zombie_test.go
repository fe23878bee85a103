package integration_test

import (
	"database/sql"
	"strings"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
)

// The primary crashed, another node took over, and then the old primary comes
// back as it was: running, writable, with the data of before.
func TestAReturningPrimaryIsRefused(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	db := open(t, c, "probe_interval=100ms")
	known := clusterOf(t, db)
	ctx := pgtest.Context(t)
	l := startLoad(t, db, 4, 0, 4)
	replicated(t, c)
	l.awaitWrites(t, 50)
	old := c.Primary()
	next, err := c.Failover(ctx)
	pgtest.OK(t, err)
	l.awaitWrites(t, 50)

	begunLater := l.next.Load()
	pgtest.OK(t, c.Configure(ctx, old, map[string]string{"synchronous_standby_names": ""}))
	reads, writes := statusOf(known, old).Reads, statusOf(known, old).Writes
	pgtest.OK(t, c.Start(ctx, old))
	await(t, "the old primary to be refused", func() bool { return statusOf(known, old).State == "refused" })
	l.awaitWrites(t, 300)
	late := open(t, c) // has seen nothing of what happened, and is told the old primary first
	for range 50 {
		mustNotRunOn(t, late, old)
	}
	l.stop()

	st := statusOf(known, old)
	t.Logf("the old primary is %s: %s", st.State, st.Reason)
	if !strings.Contains(st.Reason, "timeline") {
		t.Errorf("the old primary is refused because %q, want a word about its timeline", st.Reason)
	}
	if st.Reads != reads || st.Writes != writes {
		t.Errorf("the old primary answered %d reads and %d writes after its return, want none", st.Reads-reads, st.Writes-writes)
	}
	for id := range l.rows(t, old) {
		if id > begunLater {
			t.Errorf("id %d was written to the old primary", id)
		}
	}
	l.allow(t, "write: outcome unknown", falseAlarm)
	l.verify(t, next)
	fewFalseAlarms(t, known)
	if n := value[int64](t, ctx, late, "SELECT count(*) FROM zombie"); n != 50 {
		t.Errorf("the new primary has %d rows of the late handle, want 50", n)
	}
}

// mustNotRunOn writes and reads, and fails the test if n did either.
func mustNotRunOn(t *testing.T, db *sql.DB, n *pgtest.Node) {
	t.Helper()
	ctx := pgtest.Context(t)
	exec(t, ctx, db, "CREATE TABLE IF NOT EXISTS zombie (port text)")
	port := n.Addr()[strings.LastIndex(n.Addr(), ":")+1:]
	for _, query := range []string{
		"INSERT INTO zombie VALUES (current_setting('port')) RETURNING port",
		"SELECT current_setting('port')",
	} {
		if got := value[string](t, ctx, db, query); got == port {
			t.Fatalf("%s ran on %s, which has lost its role", query, n.Name)
		}
	}
}
