package integration_test

import (
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/netns"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/topology"
)

// Clients still reach the primary, and one of them stays with it. It is told nothing
// that the other side does not know, but what the last lease allows: in async mode
// that is what may be lost, and with semisync there is nothing.
func TestAPrimaryCutFromItsPeersAcknowledgesNothingAfterItsLease(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags []string
	}{
		{"async", nil},
		{"semisync", []string{semisyncFlag}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := startDivided(t, tt.flags...)
			p := d.pin()
			d.strike(func(n *netns.Network) error { return n.Cut(d.primary.Name, d.leader.Name, d.standby.Name) })
			d.awaitSuccessor()
			d.silentAfterLease()
			d.heal()
			d.healed("primary cut from its peers, " + tt.name)
			p.leave()
			d.silentAfterLease()
			d.audit()
		})
	}
}

// The driver's connections to the primary hang. What the primary answered before the
// end of its lease may come when the network is back: the driver does not pass it on.
func TestAPrimaryCutFromEverybodyIsReplaced(t *testing.T) {
	d := startDivided(t)
	d.strike(func(n *netns.Network) error { return n.Isolate(d.primary.Name) })
	d.awaitSuccessor()
	d.heal()
	d.healed("primary cut from everybody, async")
	d.silentAfterLease()
	d.audit()
}

// The others elect another leader, which renews the lease of the primary.
func TestAPrimaryStaysWhenTheLeaderIsCutOff(t *testing.T) {
	d := startDivided(t)
	d.strike(func(n *netns.Network) error { return n.Isolate(d.leader.Name) })
	await(t, "another companion to lead, and commits to go on", func() bool {
		b := awaitBulletin(t, d.c, "there is a primary", companions.NewPrimary(""))
		return b.Companion != d.leader.Name && b.Companion != d.primary.Name
	})
	d.k.await(50)
	d.stays()
	d.heal()
	d.healed("leader cut off, async")
	d.stays()
	d.audit()
}

// Packets are lost in one direction only. Between primary and leader somebody else
// takes over in the end; another standby's way says nothing about the primary.
func TestOneWayCutsLoseNothing(t *testing.T) {
	d := startDivided(t, semisyncFlag)
	for _, tt := range []struct {
		name     string
		cut      func(n *netns.Network) error
		replaced bool
	}{
		{"from the primary to a standby", func(n *netns.Network) error { return n.CutOneWay(d.primary.Name, d.standby.Name) }, false},
		{"from a standby to the primary", func(n *netns.Network) error { return n.CutOneWay(d.standby.Name, d.primary.Name) }, false},
		{"from the primary to the leader", func(n *netns.Network) error { return n.CutOneWay(d.primary.Name, d.leader.Name) }, true},
		{"from the leader to the primary", func(n *netns.Network) error { return n.CutOneWay(d.leader.Name, d.primary.Name) }, true},
	} {
		d.cutOnce(tt.name, tt.cut, tt.replaced)
	}
	d.audit()
}

// A network that comes and goes is worse than one that is gone: whatever is begun is
// not finished.
func TestAFlappingNetworkLosesNothing(t *testing.T) {
	d := startDivided(t, semisyncFlag)
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	before := d.k.ledger.Acks()
	for range 8 {
		d.strike(func(n *netns.Network) error { return n.Cut(d.primary.Name, d.leader.Name, d.standby.Name) })
		<-tick.C
		d.heal()
		<-tick.C
	}
	t.Logf("FIGURES %d writes acknowledged while it flapped", d.k.ledger.Acks()-before)
	d.healed("flapping every 300ms, semisync")
	if b := awaitBulletin(t, d.c, "there is a primary", companions.NewPrimary("")); b.Epoch > d.epoch+3 {
		t.Errorf("%d epochs have begun while the network flapped, want at most 3", b.Epoch-d.epoch)
	}
	d.audit()
}

// Whenever in a switchover somebody is cut off, it is finished or called off, and
// nothing is lost.
func TestASwitchoverSurvivesAPartition(t *testing.T) {
	d := startDivided(t, semisyncFlag)
	d.k.tolerant = true // a primary that falls silent while writes are held is away for longer than they are
	primary := func(n *netns.Network) error { return n.Cut(d.primary.Name, d.leader.Name, d.standby.Name) }
	leader := func(n *netns.Network) error { return n.Isolate(d.leader.Name) }
	begun := func(*topology.Bulletin) bool { return true }
	holds := func(b *topology.Bulletin) bool { return b.Hold || b.Epoch > d.epoch }
	closed := func(b *topology.Bulletin) bool { return b.Epoch > d.epoch }
	for _, tt := range []struct {
		name string
		when companions.Condition
		cut  func(n *netns.Network) error
	}{
		{"primary cut from its peers when a switchover has begun", begun, primary},
		{"primary cut from its peers when writes are held", holds, primary},
		{"primary cut from its peers when the epoch is closed", closed, primary},
		{"leader cut off when writes are held", holds, leader},
	} {
		d.roles()
		answered := d.order(d.standby)
		awaitBulletin(t, d.c, "the moment of the cut", tt.when)
		d.strike(tt.cut)
		d.outlive(d.lease() + lateness)
		d.heal()
		t.Logf("%s: the order was answered: %v", tt.name, <-answered)
		d.healed(tt.name + ", semisync")
	}
	d.audit()
}

// Commits wait for the one standby that counts, unless they may do without.
func TestCommitsWaitForTheOnlySyncStandby(t *testing.T) {
	d := startDividedAs(t, func(n *companions.Node) {
		if n.Name == "n3" {
			n.Flags = []string{noSync}
		}
	}, semisyncFlag)
	if set := d.syncSet(); len(set.Members) != 1 || set.Members[0] != "n2" {
		t.Fatalf("the sync set is %v, want n2 alone", set.Members)
	}
	d.strike(func(n *netns.Network) error { return n.Isolate("n2") })
	await(t, "commits to wait", func() bool {
		_, last := d.k.ledger.Reign(d.reign)
		return time.Since(last) > d.lease()
	})
	d.stays()
	d.heal()
	d.k.await(50)
	d.healed("only sync standby cut off, commits wait")
	d.stays()

	none := 0
	_, err := d.orders.ChangeSettings(pgtest.Context(t), api.SettingsPatch{MinReplicas: &none})
	pgtest.OK(t, err)
	d.roles()
	d.strike(func(n *netns.Network) error { return n.Isolate("n2") })
	d.k.await(50)
	await(t, "commits to wait for nobody", func() bool { return d.syncSet().K == 0 })
	d.k.await(50)
	d.heal()
	d.healed("only sync standby cut off, commits go on")
	d.stays()
	await(t, "commits to wait for n2 again", func() bool { return d.syncSet().K == 1 })
	d.audit()
}
