package integration_test

import (
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/companions"
)

// A fault befalls the primary's node.
type nodeFault struct {
	strike func(*companions.Node) error
	mend   func(*companions.Node) error // once another node has taken over
}

func restart(n *companions.Node) error { return n.Start() }

// failOverBy tells the story of one failover: the node has a fault, another takes
// over, the node comes back.
func failOverBy(t *testing.T, f nodeFault, lost int, flags ...string) {
	c := startCompanions(t, companions.Options{Nodes: 3, Flags: flags})
	k := employ(t, c, 4)
	old := primaryOf(t, c)
	fault := time.Now()
	if err := f.strike(old); err != nil {
		t.Fatal(err)
	}
	b := awaitBulletin(t, c, "another node is primary", companions.NewPrimary(old.Name))
	promoted := time.Since(fault)
	k.await(50)
	gap := k.ledger.Gap(fault)
	mended := time.Now()
	if err := f.mend(old); err != nil {
		t.Fatal(err)
	}
	awaitBulletin(t, c, "the old primary is a replica", companions.Healthy(3))
	t.Logf("FIGURES write gap %v, bulletin after %v, old primary back after %v; %s follows %s", gap, promoted, time.Since(mended), b.Primary, old.Name)
	k.await(20)
	k.audit(lost)
	for text, n := range k.errors() {
		t.Errorf("%d times the application saw: %s", n, text)
	}
}

func TestCompanionsFailOverWhenAMachineCrashes(t *testing.T) {
	failOverBy(t, nodeFault{(*companions.Node).Kill, restart}, 8)
}
