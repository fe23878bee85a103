package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/pgtest"
)

// The primary crashes, its standby takes over, and the old primary comes back as
// a standby without a rewind.
func TestACrashedPrimaryIsReplacedAndComesBack(t *testing.T) {
	m := newTeam(t, "n1", "n2")
	m.found(semisync("n2"))
	n1, n2 := m.nodes[0], m.nodes[1]
	n1.exec("CREATE TABLE t (i int)")
	n1.exec("INSERT INTO t SELECT generate_series(1, 100)")

	changed := n1.Changed()
	crashed := time.Now()
	pgtest.OK(t, n1.pg.Kill())
	<-changed
	t.Logf("FIGURES crash until Changed: %v", time.Since(crashed))
	await(t, "n1 gives its lease back", func() bool { r := m.report("n1"); return r.GivesBack && r.Postgres == failover.ServerDown })
	done := m.failover(n2, async)
	n2.exec("INSERT INTO t SELECT generate_series(101, 200)")
	t.Logf("FIGURES crash until the first commit: %v", time.Since(crashed))
	if done.Timeline != 2 || done.SwitchLSN == 0 {
		t.Errorf("promoted %+v, want timeline 2", done)
	}
	await(t, "n1 streams", func() bool { return n1.Report().Streaming })
	t.Logf("FIGURES crash until the old primary streams: %v", time.Since(crashed))
	await(t, "n1 has all rows", func() bool { return n1.count("t") == 200 })
	if _, _, back := n1.counts.read(); !slices.Equal(back, []string{"follow"}) {
		t.Errorf("n1 counts that it came back by %v, want follow", back)
	}
	if _, _, back := n2.counts.read(); !slices.Equal(back, []string{"reclone"}) {
		t.Errorf("n2 counts that it came by %v, want reclone", back)
	}
}
