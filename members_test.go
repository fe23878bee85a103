package helios

import (
	"database/sql"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/topology"
)

// assemble plays f on n nodes and as many companions, which tell of all of them
// from the start. The DSN names the first hosts of them.
func assemble(t *testing.T, n, hosts int, params string, f func(c *council)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := convene(t, n)
		defer c.end()
		for _, node := range c.Nodes()[:hosts] {
			c.hosts = append(c.hosts, node.Name)
		}
		c.say(1, "ready", 1)
		c.open(params+"&companion="+c.list(), WithDialFunc(c.dial))
		defer c.close()
		c.tell()
		c.ResetLog()
		f(c)
	})
}

// tell has the companions say what the nodes are, altered, and lets the driver act
// on it.
func (c *council) tell(alter ...func(*topology.Bulletin)) {
	primary := slices.Index(c.Nodes(), c.Primary()) + 1
	epoch := uint64(len(c.History()) + 1)
	for range 2 {
		c.say(epoch, "ready", primary, alter...)
		time.Sleep(3 * trip)
		synctest.Wait()
	}
}

// without leaves a member out.
func without(number int) func(*topology.Bulletin) {
	return func(b *topology.Bulletin) { b.Nodes = slices.Delete(b.Nodes, number-1, number) }
}

// wantNodes checks which nodes the cluster consists of.
func (c *council) wantNodes(when string, want ...string) {
	c.Helper()
	var got []string
	for _, n := range c.cluster.Status().Nodes {
		got = append(got, n.Name)
	}
	if !slices.Equal(got, want) {
		c.Errorf("%s the nodes are %v, want %v", when, got, want)
	}
}

func TestANodeThatCompanionsTellOfIsUsed(t *testing.T) {
	assemble(t, 3, 2, rare, func(c *council) {
		c.wantNodes("at first", "n1:5432", "n2:5432", "10.0.0.3:5432")
		answers := map[string]bool{}
		for range 50 {
			answers[c.node(c.Context(), c.db)] = true
		}
		if !answers["n3"] {
			t.Errorf("%v answered reads, want n3 among them", answers)
		}
		c.Node(1).Kill()
		c.Promote(c.Node(3))
		c.say(2, "ready", 3)
		begun := time.Now()
		c.exec(c.Context(), c.db, insert)
		if took := time.Since(begun); took > 5*trip { // it may need a connection, and prepares itself
			t.Errorf("the first write after the failover took %v", took)
		}
		c.wantExecuted(insert, "n3")
	})
}

func TestANodeIsToldOfWhileTheDriverRuns(t *testing.T) {
	assemble(t, 3, 1, rare, func(c *council) {
		c.tell(without(3))
		c.wantNodes("without n3", "n1:5432", "10.0.0.2:5432")
		c.tell(func(b *topology.Bulletin) { b.Nodes[2].State = "starting" })
		c.wantNodes("while n3 is started", "n1:5432", "10.0.0.2:5432")
		c.tell()
		c.wantNodes("with n3", "n1:5432", "10.0.0.2:5432", "10.0.0.3:5432")
	})
}

// What runs on a node that has left may end.
func TestANodeThatCompanionsTellOfNoMoreIsDrained(t *testing.T) {
	assemble(t, 3, 2, rare, func(c *council) {
		tx, err := c.db.BeginTx(Replica(c.Context()), &sql.TxOptions{ReadOnly: true})
		for err == nil && c.node(c.Context(), tx) != "n3" {
			if err = tx.Rollback(); err == nil {
				tx, err = c.db.BeginTx(Replica(c.Context()), &sql.TxOptions{ReadOnly: true})
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		c.tell(without(3))
		c.wantNodes("without n3", "n1:5432", "n2:5432")
		for range 20 {
			if got := c.node(c.Context(), c.db); got == "n3" {
				t.Fatal("a read went to n3, which has left")
			}
		}
		if got := c.node(c.Context(), tx); got != "n3" {
			t.Errorf("the transaction goes on at %s, want n3", got)
		}
		if err := tx.Commit(); err != nil {
			t.Errorf("Commit() = %v", err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := c.Node(3).Counters().Open; got != 0 {
			t.Errorf("%d connections to n3 are open, want none", got)
		}
		c.tell()
		c.wantNodes("when n3 is back", "n1:5432", "n2:5432", "10.0.0.3:5432")
	})
}

func TestANodeStaysForWhoNamedIt(t *testing.T) {
	assemble(t, 3, 2, rare, func(c *council) {
		if err := c.cluster.AddReplica(c.Context(), "10.0.0.3:5432"); err != nil {
			t.Errorf("AddReplica() of a node that was told of = %v", err)
		}
		c.tell(func(b *topology.Bulletin) { b.Nodes = b.Nodes[:1] })
		c.wantNodes("without n2 and n3", "n1:5432", "n2:5432", "10.0.0.3:5432")
		for _, name := range []string{"10.0.0.3:5432", "n2"} {
			if err := c.cluster.RemoveReplica(c.Context(), name); err != nil {
				t.Errorf("RemoveReplica(%s) = %v", name, err)
			}
		}
		c.wantNodes("after both were removed", "n1:5432")
	})
	assemble(t, 3, 2, rare, func(c *council) {
		for _, name := range []string{"10.0.0.3:5432", "n2"} {
			if err := c.cluster.RemoveReplica(c.Context(), name); err != nil {
				t.Errorf("RemoveReplica(%s) = %v", name, err)
			}
		}
		c.tell()
		c.wantNodes("after both were removed by hand", "n1:5432")
	})
}

// A server has a name in the DSN and another one for its companion. Two pools to it
// would be one too many.
func TestANodeUnderAnotherNameIsNoNewOne(t *testing.T) {
	assemble(t, 3, 3, "lsn=eager", func(c *council) {
		c.wantNodes("at first", "n1:5432", "n2:5432", "n3:5432")
		c.Node(3).Kill()
		c.tell(func(b *topology.Bulletin) { b.Nodes[2].State = "down" })
		c.Node(3).Start()
		for range 10 { // they know of the new run before a probe has seen it
			c.tell()
		}
		c.wantNodes("after a restart", "n1:5432", "n2:5432", "n3:5432")
	})
	synctest.Test(t, func(t *testing.T) {
		c := convene(t, 2)
		defer c.end()
		c.Node(2).Kill()
		c.say(1, "ready", 1)
		c.open("lsn=eager&companion="+c.list(), WithDialFunc(c.dial))
		defer c.close()
		c.Node(2).Start()
		time.Sleep(time.Second)
		c.tell()
		c.wantNodes("after n2 was started later than the driver", "n1:5432", "n2:5432")
	})
}

// Should it be taken for a new one all the same, it goes when that is found out.
func TestASecondNameIsGivenUp(t *testing.T) {
	assemble(t, 2, 2, "probe_interval=1m", func(c *council) {
		c.cluster.members["member2"].node = ""
		c.cluster.admit(&topology.Reported{Name: "member2", Addr: "10.0.0.2:5432"})
		time.Sleep(3 * trip)
		synctest.Wait()
		c.wantNodes("with a second name", "n1:5432", "n2:5432", "10.0.0.2:5432")
		c.tell()
		c.wantNodes("when that is known", "n1:5432", "n2:5432")
	})
}

func TestNobodyIsBelievedWhoSpeaksOfSomethingElse(t *testing.T) {
	for name, tt := range map[string]struct {
		params string
		alter  func(*topology.Bulletin)
	}{
		"companion_members is off": {"companion_members=off", func(*topology.Bulletin) {}},
		"another cluster":          {"lsn=eager", func(b *topology.Bulletin) { b.SystemID = 1 }},
		"no cluster":               {"lsn=eager", func(b *topology.Bulletin) { b.SystemID = 0 }},
		"a witness":                {"lsn=eager", func(b *topology.Bulletin) { b.Nodes[2].Role = "witness" }},
		"a socket":                 {"lsn=eager", func(b *topology.Bulletin) { b.Nodes[2].Addr = "/tmp" }},
		"no port":                  {"lsn=eager", func(b *topology.Bulletin) { b.Nodes[2].Addr = "10.0.0.3" }},
		"no address":               {"lsn=eager", func(b *topology.Bulletin) { b.Nodes[2].Addr = "" }},
		"a DSN":                    {"lsn=eager", func(b *topology.Bulletin) { b.Nodes[2].Addr = "10.0.0.3:5432/?sslmode=disable" }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := convene(t, 3)
				defer c.end()
				c.hosts = []string{"n1", "n2"}
				c.say(1, "ready", 1, tt.alter)
				c.open(tt.params+"&companion="+c.list(), WithDialFunc(c.dial))
				defer c.close()
				c.tell(tt.alter)
				c.wantNodes("after that", "n1:5432", "n2:5432")
			})
		})
	}
}
