package integration_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/pgtest"
)

// All companions are restarted one after the other, and nobody but the log notices.
func TestCompanionsAreRestartedWithoutAFailover(t *testing.T) {
	c := startCompanions(t, companions.Options{Nodes: 3})
	k := employ(t, c, clerks)
	before := epochOf(t, c)
	for _, n := range c.Nodes {
		began := time.Now()
		pgtest.OK(t, n.StopCompanion())
		pgtest.OK(t, n.Start())
		awaitBulletin(t, c, n.Name+" is back", companions.Healthy(3))
		k.await(20)
		t.Logf("FIGURES write gap %v while %s was restarted", k.ledger.Gap(began), n.Name)
	}
	if now := epochOf(t, c); now != before {
		t.Errorf("the primary is %s, was %s", now, before)
	}
	if verdict := k.audit(0); verdict.Unknown > 0 {
		t.Errorf("the outcome of %d writes is not known", verdict.Unknown)
	}
}

// All machines lose their power at once, and come back in any order.
func TestAllMachinesLoseTheirPower(t *testing.T) {
	c := startCompanions(t, companions.Options{Nodes: 3})
	k := employ(t, c, clerks)
	k.tolerant = true
	orders := permutations(3)
	if testing.Short() {
		orders = orders[len(orders)-2:]
	}
	for _, order := range orders {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			k.risk()
			primary := primaryOf(t, c) // first, or it acknowledges while the others are killed
			pgtest.OK(t, primary.Kill())
			for _, n := range c.Nodes {
				if n != primary {
					pgtest.OK(t, n.Kill())
				}
			}
			began := time.Now()
			for _, i := range order {
				pgtest.OK(t, c.Nodes[i].Start())
				await(t, c.Nodes[i].Name+" to answer", func() bool {
					_, err := c.Nodes[i].Bulletin(pgtest.Context(t))
					return err == nil
				})
			}
			awaitBulletin(t, c, "all is well", companions.Healthy(3))
			healthy := time.Since(began)
			k.await(20)
			t.Logf("FIGURES %s; all well %v after the first start", epochOf(t, c), healthy)
		})
	}
	k.audit(inFlight(clerks) * len(orders))
}

// permutations returns all orders of 0 to n-1.
func permutations(n int) (all [][]int) {
	if n == 0 {
		return [][]int{nil}
	}
	for _, p := range permutations(n - 1) {
		for at := range n {
			all = append(all, slices.Insert(slices.Clone(p), at, n-1))
		}
	}
	return all
}

// A node is added under load, takes over, and the one before is removed. The driver, whose
// DSN does not name the new one, hears of it from the companions.
func TestANodeIsAddedAndAnotherRemovedUnderLoad(t *testing.T) {
	c := startCompanions(t, companions.Options{Nodes: 3})
	k := employ(t, c, clerks)
	began := time.Now()
	n4, err := c.Add(t.Context(), "n4", false)
	pgtest.OK(t, err)
	awaitBulletin(t, c, "n4 is a replica", companions.Healthy(4))
	t.Logf("FIGURES n4 streams after %v, write gap %v", time.Since(began), k.ledger.Gap(began))
	old := primaryOf(t, c)
	switchOnce(t, c, k, n4)
	pgtest.OK(t, old.Kill())
	await(t, "the old primary to be removed", func() bool { // on a busy machine nobody may lead for a moment
		_, err := operator(t, n4).Remove(pgtest.Context(t), old.Name)
		return err == nil
	})
	c.Nodes = slices.DeleteFunc(c.Nodes, func(n *companions.Node) bool { return n == old })
	k.await(20)
	failOverOnce(t, c, k, machineCrashes)
	k.audit(inFlight(clerks))
}

// Two nodes with PostgreSQL take a third voice to know which of them is alone.
func TestAWitnessMakesTwoNodesFailOver(t *testing.T) {
	c := startCompanions(t, companions.Options{Nodes: 2, Witness: true})
	k := employ(t, c, clerks)
	failOverOnce(t, c, k, machineCrashes)
	failOverOnce(t, c, k, machineFreezes)
	k.audit(2 * inFlight(clerks))
}

// Two nodes crash at once: with the votes of two witnesses the third goes on.
func TestTwoNodesCrashAtOnce(t *testing.T) {
	c := startCompanions(t, companions.Options{Nodes: 3, Witness: true})
	_, err := c.Add(t.Context(), "x", true)
	pgtest.OK(t, err)
	awaitBulletin(t, c, "the second witness votes", companions.Healthy(5))
	k := employ(t, c, clerks)
	for _, tt := range []struct {
		name  string
		other func() *companions.Node
	}{
		{"the primary and a standby", func() *companions.Node { return standbyOf(t, c) }},
		{"the primary and the leader of the log", func() *companions.Node {
			return c.Node(awaitBulletin(t, c, "there is a leader", companions.NewPrimary("")).Companion)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			other := tt.other()
			both := func(do ...func(*companions.Node) error) func(*companions.Node) error {
				return func(n *companions.Node) error {
					for _, do := range do {
						for _, n := range slices.Compact([]*companions.Node{n, other}) {
							if err := do(n); err != nil {
								return err
							}
						}
					}
					return nil
				}
			}
			// Frozen first: what is killed a moment later may have taken over by then, and have
			// taken a timeline with it that nobody else knows.
			failOverOnce(t, c, k, nodeFault{both((*companions.Node).Freeze, (*companions.Node).Kill), both(restart)})
		})
	}
	k.audit(2 * inFlight(clerks))
}
