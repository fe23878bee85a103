package integration_test

import (
	"context"
	"fmt"
	"math"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/histcheck"
	"github.com/heliosdb/helios/internal/netns"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/server/client"
	"github.com/heliosdb/helios/topology"
)

const (
	// clients is the host on which clients are.
	clients = "client"
	// token lets them give orders.
	token = "a-secret-of-this-test"
	// lateness is how much later than it should be something may be seen on a busy machine.
	lateness = 750 * time.Millisecond
)

// A divided cluster has each node on a host of its own, and its clients on another,
// so that any of them can be cut off.
type divided struct {
	t   *testing.T
	net *netns.Network
	c   *companions.Cluster
	k   *clerk

	orders   *client.Client
	semisync bool

	primary, leader, standby *companions.Node // before the fault; leader is a standby too
	epoch                    uint64           // and timeline, before the fault
	reign                    uint64

	struck     atomic.Bool
	began, cut time.Time // of the fault: before the first packet was lost, and all from then on
}

// startDivided starts a cluster, and clerks that write to it.
func startDivided(t *testing.T, flags ...string) *divided {
	t.Helper()
	return startDividedAs(t, func(*companions.Node) {}, flags...)
}

// startDividedAs is startDivided with nodes that are changed before they start.
func startDividedAs(t *testing.T, change func(n *companions.Node), flags ...string) *divided {
	t.Helper()
	if err := netns.Available(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("there must be partitions in CI: ", err)
		}
		t.Skip("no partitions here: ", err)
	}
	network, err := netns.New("n1", "n2", "n3", clients)
	pgtest.OK(t, err)
	t.Cleanup(func() {
		if err := network.Close(); err != nil {
			t.Errorf("Close of the network: %v", err)
		}
	})
	d := &divided{t: t, net: network, semisync: slices.Contains(flags, semisyncFlag)}
	secret := filepath.Join(t.TempDir(), "token")
	pgtest.OK(t, os.WriteFile(secret, []byte(token), 0o600))
	d.c = startCompanions(t, companions.Options{
		Nodes: 3, Flags: append([]string{"--insecure", "--token_file=" + secret}, flags...), Trust: netns.Subnet, Dial: network.Dial(clients),
		Place: func(n *companions.Node) error {
			change(n)
			return settle(network, n)
		},
	})
	d.orders = d.operator()
	d.k = employ(t, d.c, clerks)
	d.roles()
	return d
}

const (
	semisyncFlag = "--replication_mode=semisync"
	noSync       = "--nosync"
)

// settle puts a node on the host of its name. Its ports stay: Unix sockets are
// called by them, and hosts share the file system.
func settle(network *netns.Network, n *companions.Node) error {
	for _, addr := range []*string{&n.Companion, &n.Postgres} {
		_, port, err := net.SplitHostPort(*addr)
		if err != nil {
			return err
		}
		*addr = net.JoinHostPort(network.Addr(n.Name), port)
	}
	n.Wrap(func(cmd *osexec.Cmd) { network.Wrap(n.Name, cmd) })
	return nil
}

// roles waits until the leader is not beside the primary, and until commits wait for
// whom they should, and notes who is what.
func (d *divided) roles() {
	d.t.Helper()
	healthy := companions.Healthy(3)
	await(d.t, "the leader to be beside a standby", func() bool {
		b := awaitBulletin(d.t, d.c, "all nodes stream", healthy)
		d.primary, d.leader = d.c.Node(b.Primary), d.c.Node(b.Companion)
		d.epoch, d.reign = b.Epoch, uint64(b.Timeline)
		for _, n := range d.c.Nodes {
			if n != d.primary && n != d.leader {
				d.standby = n
			}
		}
		return b.Primary != b.Companion && (!d.semisync || d.count(d.leader, d.standby))
	})
	d.k.await(20)
}

// operator is a client that may give orders from another machine.
func (d *divided) operator() *client.Client {
	d.t.Helper()
	var addrs []string
	for _, n := range d.c.Nodes {
		addrs = append(addrs, n.Companion)
	}
	orders, err := client.New(addrs, client.Options{Dial: d.c.Dial, Token: token, TLS: d.c.Nodes[0].TLS()})
	pgtest.OK(d.t, err)
	d.t.Cleanup(orders.Close)
	return orders
}

// syncSet is for whose flushes commits wait, by the log.
func (d *divided) syncSet() failover.SyncSet {
	d.t.Helper()
	overview, err := d.orders.Cluster(pgtest.Context(d.t))
	pgtest.OK(d.t, err)
	return overview.SyncSet
}

// count reports whether commits wait for one of these nodes, but for those that never
// count.
func (d *divided) count(nodes ...*companions.Node) bool {
	set := d.syncSet()
	for _, n := range nodes {
		if !slices.Contains(n.Flags, noSync) && !slices.Contains(set.Members, n.Name) {
			return false
		}
	}
	return set.K == 1
}

// strike makes the fault, and notes when.
func (d *divided) strike(fault func(network *netns.Network) error) {
	d.t.Helper()
	d.struck.Store(true)
	d.began = time.Now()
	pgtest.OK(d.t, fault(d.net))
	d.cut = time.Now()
}

func (d *divided) heal() {
	d.t.Helper()
	pgtest.OK(d.t, d.net.Heal())
}

// cutOnce tells of one cut, and whether the primary is replaced. On a busy machine the
// leadership may have moved before the cut, which then was another one: it is told again.
func (d *divided) cutOnce(name string, cut func(*netns.Network) error, replaced bool) {
	d.t.Helper()
	for range 3 {
		d.roles()
		d.strike(cut)
		if replaced {
			await(d.t, "the primary to be replaced, or another leader", func() bool { return d.isReplaced() || d.movedOn() })
		} else {
			d.outlive(d.lease() + lateness)
		}
		moved := d.movedOn()
		d.heal()
		d.healed("cut " + name + ", semisync")
		if d.isReplaced() == replaced || !moved {
			break
		}
	}
	if d.isReplaced() != replaced {
		d.t.Errorf("cut %s: the primary is replaced: %v, want %v", name, !replaced, replaced)
	}
	if d.isReplaced() {
		d.silentAfterLease()
	}
}

// isReplaced reports whether another primary than that before the fault has
// acknowledged writes.
func (d *divided) isReplaced() bool {
	first, _ := d.k.ledger.Reign(d.reign + 1)
	return !first.IsZero()
}

// movedOn reports whether another companion leads than before the fault. One that was
// elected again does what it would have done.
func (d *divided) movedOn() bool {
	d.t.Helper()
	b := awaitBulletin(d.t, d.c, "there is a leader", func(*topology.Bulletin) bool { return true })
	return b.Companion != d.leader.Name
}

// order has the primary hand over to a node, again as long as that is refused before the
// fault. The channel has the answer.
func (d *divided) order(to *companions.Node) <-chan error {
	answered := make(chan error, 1)
	d.struck.Store(false)
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			_, err := d.orders.Switchover(d.t.Context(), to.Name)
			if err == nil || d.t.Context().Err() != nil || d.struck.Load() {
				answered <- err
				return
			}
			<-tick.C
		}
	}()
	return answered
}

// awaitSuccessor returns when another primary than that before the fault has
// acknowledged writes.
func (d *divided) awaitSuccessor() {
	d.t.Helper()
	await(d.t, "another primary to acknowledge writes", d.isReplaced)
	d.k.await(20)
}

// lease is how long a primary may go on by itself.
func (d *divided) lease() time.Duration { return failover.DefaultSettings().Lease }

// A pin is a client that stays with one server, whatever others say. It writes all
// the time and waits for every answer.
type pin struct {
	d       *divided
	stop    context.CancelFunc
	running sync.WaitGroup
}

// pin has a client stay with the primary. It takes down what it is told where the
// clerks do.
func (d *divided) pin() *pin {
	d.t.Helper()
	conn := connectTo(d.t, d.primary)
	ctx, stop := context.WithCancel(context.Background())
	p := &pin{d: d, stop: stop}
	p.running.Go(func() {
		defer conn.Close(ctx)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for p.write(ctx, conn) == nil {
			<-tick.C
		}
	})
	d.t.Cleanup(p.leave)
	return p
}

func (p *pin) write(ctx context.Context, conn *pgx.Conn) error {
	id := p.d.k.ledger.Begin()
	var timeline uint64
	if err := conn.QueryRow(ctx, clerkSQL, id).Scan(&timeline); err != nil {
		p.d.k.ledger.End(id, histcheck.Unknown, 0)
		return err
	}
	p.d.k.ledger.End(id, histcheck.Acknowledged, timeline)
	return nil
}

func (p *pin) leave() {
	p.stop()
	p.running.Wait()
}

// healed waits until all is as it was, and tells what the fault has cost.
func (d *divided) healed(what string) {
	d.t.Helper()
	from := time.Now()
	b := awaitBulletin(d.t, d.c, "all is as it was", companions.Healthy(3))
	back := time.Since(from)
	d.k.await(20)
	_, last := d.k.ledger.Reign(d.reign)
	late := "still is it"
	if uint64(b.Timeline) != d.reign {
		late = fmt.Sprintf("acknowledged its last write %v after the cut", last.Sub(d.cut).Round(time.Millisecond))
	}
	d.t.Logf("FIGURES %s: write gap %v, the primary %s, %d new epochs, all well %v after the healing",
		what, d.k.ledger.Gap(d.began).Round(time.Millisecond), late, b.Epoch-d.epoch, back.Round(time.Millisecond))
}

// audit holds what clients were told against what is there. The rows that may be lost
// are those which a primary acknowledged while nobody heard it.
func (d *divided) audit() {
	d.t.Helper()
	allowed := math.MaxInt
	if d.semisync {
		allowed = 0
	}
	for _, id := range d.k.audit(allowed).Lost {
		d.mayBeLost(id)
	}
}

// mayBeLost fails the test if a row that is lost was not acknowledged within the
// last lease of the primary before the fault.
func (d *divided) mayBeLost(id int64) {
	d.t.Helper()
	at, reign := d.k.ledger.Answer(id)
	if reign != d.reign || at.Before(d.began.Add(-onItsWay)) || at.After(d.cut.Add(d.lease()+lateness)) {
		d.t.Errorf("row %d of timeline %d is lost, acknowledged %v after the cut; only those of timeline %d may be, from %v before to %v after",
			id, reign, at.Sub(d.cut), d.reign, onItsWay, d.lease())
	}
}

// silentAfterLease fails the test if the primary before the fault acknowledged
// anything after its lease, or after its successor had begun.
func (d *divided) silentAfterLease() {
	d.t.Helper()
	_, last := d.k.ledger.Reign(d.reign)
	first, _ := d.k.ledger.Reign(d.reign + 1)
	if late := last.Sub(d.cut); late > d.lease()+lateness {
		d.t.Errorf("the old primary acknowledged a write %v after the cut, and its lease is %v", late, d.lease())
	}
	if !last.Before(first) {
		d.t.Errorf("the old primary acknowledged a write %v after the new one's first", last.Sub(first))
	}
}

// stays fails the test if there has been a failover since the fault.
func (d *divided) stays() {
	d.t.Helper()
	b := awaitBulletin(d.t, d.c, "there is a primary", companions.NewPrimary(""))
	if b.Primary != d.primary.Name || b.Epoch != d.epoch {
		d.t.Errorf("%s is primary in epoch %d, want %s to stay it in epoch %d", b.Primary, b.Epoch, d.primary.Name, d.epoch)
	}
}

// outlive returns when a commit was acknowledged so long after the fault.
func (d *divided) outlive(long time.Duration) {
	d.t.Helper()
	await(d.t, "commits to go on", func() bool {
		_, last := d.k.ledger.Reign(d.reign)
		_, later := d.k.ledger.Reign(d.reign + 1)
		return max(last.Sub(d.cut), later.Sub(d.cut)) > long
	})
}
