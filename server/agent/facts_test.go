package agent

import (
	"testing"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// The control file of a standby that followed a promotion has the new timeline only
// from its next restartpoint on. If nobody sends it WAL any more, it is on it all the
// same, and not past a fork.
func TestAStandbyWithoutASourceKnowsItsTimeline(t *testing.T) {
	ctx, c := pgtest.Context(t), pgtest.New(t, pgtest.Options{Replicas: 2})
	next, other := c.Replicas()[0], c.Replicas()[1]
	pgtest.OK(t, c.Kill(c.Primary()))
	pgtest.OK(t, c.Promote(ctx, next))
	pgtest.OK(t, c.FollowOne(ctx, other, next))
	pgtest.OK(t, next.Exec(ctx, "CREATE TABLE t ()"))
	pgtest.OK(t, other.Await(ctx, "SELECT to_regclass('t') IS NOT NULL"))
	pgtest.OK(t, c.Stop(ctx, next, pgctl.Immediate))
	pgtest.OK(t, other.Await(ctx, "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE received_tli IS NOT NULL)"))
	f, err := readFacts(ctx, other.Conn(t))
	if err != nil || f.Timeline != 2 || !f.Recovery || f.Receiver {
		t.Errorf("readFacts = %+v, %v; want a standby on timeline 2 that receives nothing", f, err)
	}
}
