package integration_test

import (
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/companions"
)

// A nodeFault befalls the primary's node.
type nodeFault struct {
	strike func(*companions.Node) error
	mend   func(*companions.Node) error // once another node has taken over
}

var (
	machineCrashes = nodeFault{(*companions.Node).Kill, restart}
	machineFreezes = nodeFault{(*companions.Node).Freeze, (*companions.Node).Thaw}
)

func restart(n *companions.Node) error { return n.Start() }

// byItself mends what the companion mends.
func byItself(*companions.Node) error { return nil }

// inFlight is how many writes of so many clerks may be lost in async mode, where
// commits wait for no standby, with a machine or its companion: those of the moment of the fault, one of
// each clerk, and those that were being sent then. On a busy machine there are more on
// their way: see risk.
func inFlight(clerks int) int { return 2 * clerks }

// clerks is how many write in most stories.
const clerks = 4

// failOverBy tells the story of one failover: the primary's node has a fault, another
// takes over, the node comes back. At most so many acknowledged writes are lost.
func failOverBy(t *testing.T, f nodeFault, lost int, flags ...string) {
	t.Helper()
	c := startCompanions(t, companions.Options{Nodes: 3, Flags: flags})
	k := employ(t, c, clerks)
	failOverOnce(t, c, k, f)
	k.audit(lost)
}

// failOverOnce is that story in a cluster that goes on. It returns for how long
// nothing was acknowledged, and how long it took until all were well again.
func failOverOnce(t *testing.T, c *companions.Cluster, k *clerk, f nodeFault) (gap, back time.Duration) {
	t.Helper()
	old := primaryOf(t, c)
	k.risk()
	fault := time.Now()
	if err := f.strike(old); err != nil {
		t.Fatal(err)
	}
	b := awaitBulletin(t, c, "another node is primary", companions.NewPrimary(old.Name))
	promoted := time.Since(fault)
	k.await(50)
	gap = k.ledger.Gap(fault)
	mended := time.Now()
	if err := f.mend(old); err != nil {
		t.Fatal(err)
	}
	awaitBulletin(t, c, "the old primary is a replica", companions.Healthy(len(c.Nodes)))
	back = time.Since(mended)
	t.Logf("FIGURES write gap %v, bulletin after %v, old primary back after %v; %s follows %s", gap, promoted, back, b.Primary, old.Name)
	k.await(20)
	return gap, back
}

func TestCompanionsFailOverWhenAMachineCrashes(t *testing.T) {
	failOverBy(t, machineCrashes, inFlight(clerks))
}

func TestCompanionsFailOverWhenPostgresCrashes(t *testing.T) {
	failOverBy(t, nodeFault{(*companions.Node).KillPostgres, byItself}, 0) // its companion has what it wrote
}

func TestCompanionsFailOverWhenThePostmasterIsKilled(t *testing.T) {
	failOverBy(t, nodeFault{(*companions.Node).KillPostmaster, byItself}, 0)
}

// Without its companion a primary confirms no commit, so that another may take over
// when its lease has ended.
func TestCompanionsFailOverWhenACompanionIsKilled(t *testing.T) {
	failOverBy(t, nodeFault{(*companions.Node).KillCompanion, restart}, inFlight(clerks)) // it was the one who sends
}

func TestCompanionsFailOverWhenAMachineFreezes(t *testing.T) {
	failOverBy(t, machineFreezes, inFlight(clerks))
}

func TestCompanionsFailOverWhenPostgresFreezes(t *testing.T) {
	failOverBy(t, nodeFault{(*companions.Node).FreezePostgres, byItself}, 0) // it ends what is hung
}

func TestCompanionsFailOverWhenACompanionFreezes(t *testing.T) {
	failOverBy(t, nodeFault{(*companions.Node).FreezeCompanion, (*companions.Node).ThawCompanion}, inFlight(clerks))
}

// With semisync no acknowledged write is lost, whatever the fault.
func TestSemisyncLosesNothing(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault nodeFault
	}{
		{"when a machine crashes", machineCrashes},
		{"when a machine freezes", machineFreezes},
	} {
		t.Run(tt.name, func(t *testing.T) { failOverBy(t, tt.fault, 0, "--replication_mode=semisync", "--k=1") })
	}
}

// A companion that is back before its primary's lease has ended has missed nothing:
// commits have waited.
func TestCommitsWaitForTheCompanion(t *testing.T) {
	c := startCompanions(t, companions.Options{Nodes: 3})
	k := employ(t, c, clerks)
	before := epochOf(t, c)
	fault := time.Now()
	primary := primaryOf(t, c)
	if err := primary.KillCompanion(); err != nil {
		t.Fatal(err)
	}
	if err := primary.Start(); err != nil {
		t.Fatal(err)
	}
	k.await(50)
	t.Logf("FIGURES write gap %v", k.ledger.Gap(fault))
	if now := epochOf(t, c); now != before {
		t.Errorf("the primary is %s, was %s", now, before)
	}
	k.audit(0)
}
