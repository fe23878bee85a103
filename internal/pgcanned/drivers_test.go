package pgcanned_test

import (
	"testing"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgcanned"
	"github.com/heliosdb/helios/internal/rivals"
)

// options has the drivers go to the cluster. It is probed at the start, and then
// no more: a probe costs what a statement costs.
func options(tb testing.TB, c *pgcanned.Cluster, params ...string) *rivals.Options {
	tb.Helper()
	cfg, err := helios.ParseDSN(c.DSN("helios", append([]string{"probe_interval=1h"}, params...)...))
	if err != nil {
		tb.Fatal(err)
	}
	return &rivals.Options{
		Config: cfg, Primary: cfg.Hosts[0], Conns: 32, Clients: 32, Rows: pgcanned.ID, Dial: c.Dial, Lookup: c.Lookup,
	}
}

func openHelios(tb testing.TB, c *pgcanned.Cluster, params ...string) *rivals.Driver {
	tb.Helper()
	return closing(tb)(options(tb, c, params...).Helios(nil))
}

func openStdlib(tb testing.TB, c *pgcanned.Cluster) *rivals.Driver {
	tb.Helper()
	return closing(tb)(options(tb, c).Stdlib())
}

func openPool(tb testing.TB, c *pgcanned.Cluster) *rivals.Driver {
	tb.Helper()
	return closing(tb)(options(tb, c).Pool(tb.Context()))
}

// closing has a driver that was opened closed in the end.
func closing(tb testing.TB) func(*rivals.Driver, error) *rivals.Driver {
	return func(d *rivals.Driver, err error) *rivals.Driver {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			if err := d.Close(); err != nil {
				tb.Error(err)
			}
		})
		return d
	}
}

func TestEveryDriverGetsItsAnswers(t *testing.T) {
	c := pgcanned.NewCluster(2)
	for _, d := range []*rivals.Driver{openHelios(t, c), openStdlib(t, c), openPool(t, c)} {
		t.Run(d.Name, func(t *testing.T) {
			for range 3 { // the first time a statement is prepared, then it is known
				for what, tt := range map[string]struct {
					do     rivals.Operation
					writes bool
				}{
					"Read": {d.Read, false}, "List": {d.List, false},
					"Write": {d.Write, true}, "Transaction": {d.Transaction, true},
				} {
					before := c.Position()
					if err := tt.do(t.Context(), 1); err != nil || c.Position() > before != tt.writes {
						t.Errorf("%s = %v, WAL from %v to %v; want no error, and more WAL: %v", what, err, before, c.Position(), tt.writes)
					}
				}
			}
		})
	}
}

func TestPgxNeverAsksTheReplica(t *testing.T) {
	c := pgcanned.NewCluster(2)
	for _, d := range []*rivals.Driver{openStdlib(t, c), openPool(t, c)} {
		if err := d.Read(t.Context(), 1); err != nil {
			t.Error(err)
		}
	}
	if n := c.Node(2).Dials(); n != 0 {
		t.Errorf("%d connections to the replica, want none", n)
	}
}

func TestHeliosReadsFromTheReplica(t *testing.T) {
	c := pgcanned.NewCluster(2)
	d := openHelios(t, c)
	must := func(do rivals.Operation) {
		t.Helper()
		if err := do(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		must(d.Read)
		must(d.Write)
	}
	if got := d.Cluster.Stats(); got.Reads["n2:5432"] != 10 || got.Writes["n1:5432"] != 10 || got.Behind != 0 {
		t.Errorf("Stats() = %+v, want 10 reads on n2, 10 writes on n1, none behind", got)
	}
	c.Node(2).HoldReplay(1)
	must(d.Write)
	must(d.Read)
	if got := d.Cluster.Stats(); got.Reads["n1:5432"] != 1 || got.Behind != 1 {
		t.Errorf("Stats() = %+v, want the read that n2 could not answer on n1", got)
	}
}
