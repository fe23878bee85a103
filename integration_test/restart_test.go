package integration_test

import (
	"fmt"
	"testing"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// The primary restarts under load, in every manner that PostgreSQL knows: what
// it was executing is not executed again, and what it acknowledged is there.
func TestARestartOfThePrimaryNeverMeansASecondExecution(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1, Settings: slowCommits})
	all := newCalls(t, c.Primary())
	linger(t, c.Primary())
	dbs, closeAll := reckless(t, c)
	primary := c.Primary()
	all.start(t, dbs, 8)
	stop := func(mode pgctl.StopMode) func() {
		return func() { pgtest.OK(t, c.Stop(pgtest.Context(t), primary, mode)) }
	}
	for name, end := range map[string]func(){
		"a backend crashes": func() { crashBackend(t, primary) },
		"immediate stop":    stop(pgctl.Immediate),
		"fast stop":         stop(pgctl.Fast),
		"the machine dies":  func() { pgtest.OK(t, c.Kill(primary)) },
	} {
		for range 2 {
			all.awaitDone(t, 40)
			end()
			if name != "a backend crashes" { // which the server survives
				pgtest.OK(t, c.Start(pgtest.Context(t), primary))
			}
			acked := all.acked.Load()
			await(t, "calls to succeed again after "+name, func() bool { return all.acked.Load() > acked })
		}
	}
	all.awaitDone(t, 100)
	all.stop()
	closeAll()
	onlyKinds(t, all.audit(t, "restarts", primary), "ok", "outcome unknown", "not committed", "session lost")
}

// crashBackend kills one backend of a client, upon which the server ends all
// others and recovers, and returns when it takes connections again.
func crashBackend(t testing.TB, n *pgtest.Node) {
	t.Helper()
	ctx := pgtest.Context(t)
	witness := n.Conn(t)
	pid, err := pgtest.Value[int](ctx, n, `SELECT max(pid) FROM pg_stat_activity
		WHERE backend_type = 'client backend' AND application_name <> 'pgtest'`)
	pgtest.OK(t, err)
	// The answer may not come: this session ends with all the others.
	_ = n.Exec(ctx, fmt.Sprintf("COPY (SELECT 1) TO PROGRAM 'kill -9 %d'", pid))
	await(t, "the server to end all sessions", func() bool { return witness.Ping(ctx) != nil })
	await(t, "the server to recover", func() bool { return n.Exec(ctx, "SELECT 1") == nil })
}
