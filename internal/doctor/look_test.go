package doctor

import (
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/apifake"
	"github.com/heliosdb/helios/internal/certs"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/server/client"
)

// codes are those of the findings, in their order.
func codes(p *Picture) []string {
	var all []string
	for _, f := range p.Findings() {
		all = append(all, strings.TrimSuffix(f.Code+" "+f.Node, " "))
	}
	return all
}

// companions serves the API of each node of apifake's cluster, with its true address in the
// log, and returns the addresses.
func companions(t *testing.T) (addrs []string, clusters map[string]*apifake.Cluster) {
	t.Helper()
	clusters = map[string]*apifake.Cluster{}
	for _, name := range []string{"n1", "n2", "n3"} {
		c := apifake.New(name)
		handler := api.New(api.Config{Cluster: c})
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		clusters[name] = c
		addrs = append(addrs, strings.TrimPrefix(server.URL, "http://"))
	}
	for _, c := range clusters {
		c.SetState(func(s *failover.State) {
			for i := range s.Members {
				s.Members[i].Companion = addrs[i]
			}
		})
	}
	return addrs, clusters
}

func request(addrs ...string) Request {
	return Request{Addrs: addrs, Timeout: 5 * time.Second, Options: client.Options{Timeout: 5 * time.Second}}
}

func TestEveryCompanionIsAskedByItself(t *testing.T) {
	addrs, clusters := companions(t)
	if got, want := codes(Look(t.Context(), request(addrs[0]))), []string{"not_asked"}; !slices.Equal(got, want) {
		t.Errorf("of a healthy cluster %q is found, want %q", got, want)
	}
	clusters["n3"].Change(func(f *apifake.Facts) { f.Local.Primary = true })
	clusters["n1"].SetState(func(s *failover.State) { s.Members[0].Companion = "127.0.0.1:1" })
	got := codes(Look(t.Context(), request(addrs[0])))
	if want := []string{"unreachable_companion n1", "two_primaries n3", "not_asked"}; !slices.Equal(got, want) {
		t.Errorf("with two primaries, and one companion away, %q is found, want %q", got, want)
	}
}

func TestWhatIsOnThisMachineIsLookedAt(t *testing.T) {
	dir := t.TempDir()
	r := certs.Request{Dir: filepath.Join(dir, "ca"), Name: "n1", Hosts: []string{"n1"}, Days: 3, Now: time.Now()}
	if err := certs.Init(r); err != nil {
		t.Fatal(err)
	}
	home, err := certs.Node(r)
	if err != nil {
		t.Fatal(err)
	}
	look := request("127.0.0.1:1")
	look.PGData, look.State, look.Certs = dir, filepath.Join(dir, "not/yet/there"), home
	p := Look(t.Context(), look)
	got := codes(p)
	if want := []string{"no_companion", "pgdata", "certificate", "certificate"}; !slices.Equal(without(got, "disk_space"), want) {
		t.Errorf("found %q, want %q", got, want)
	}
	if len(p.Local.Disks) != 2 || p.Local.Disks[0].Total == 0 || p.Local.Disks[0].Dir != dir {
		t.Errorf("the disks are %+v, want those of %s and of what is not there yet", p.Local.Disks, dir)
	}
}

// without drops what the machine that tests may have.
func without(codes []string, code string) []string {
	return slices.DeleteFunc(slices.Clone(codes), func(c string) bool { return c == code })
}

func TestAServerIsAskedBySQL(t *testing.T) {
	n := pgtest.New(t, pgtest.Options{Settings: map[string]string{
		"wal_log_hints": "off", "max_slot_wal_keep_size": "1MB", "max_wal_senders": "3", "wal_keep_size": "0",
	}}).Primary()
	for _, sql := range []string{
		"SELECT pg_create_physical_replication_slot('full', true)", "SELECT pg_create_physical_replication_slot('idle', true)",
		"SELECT pg_switch_wal()", "CREATE TABLE t()", "SELECT pg_switch_wal()", "CREATE TABLE u()", "SELECT pg_switch_wal()", "CHECKPOINT",
	} {
		if err := n.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	look := request("127.0.0.1:1")
	look.Servers = []string{n.Addr()}
	look.Connect = func(string) (*pgx.ConnConfig, error) { return pgx.ParseConfig(n.DSN()) }
	if server, ok := n.Server().(*pgtest.LocalServer); ok {
		look.PGData = server.Dir()
	}
	p := Look(t.Context(), look)
	got := without(codes(p), "disk_space")
	at := " " + n.Addr()
	want := []string{"no_companion", "no_rewind" + at, "synchronous_standby_names" + at, "max_wal_senders" + at}
	if look.PGData != "" { // of the control file; max_wal_senders and fsync
		want = append(want, "no_rewind", "local_server", "local_server")
	}
	want = append(want, "slot_full"+at, "slot_full"+at)
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q; the server: %+v", got, want, p.Servers)
	}

	look.Connect = func(string) (*pgx.ConnConfig, error) {
		conf, err := pgx.ParseConfig(n.DSN())
		if err == nil {
			conf.User = "nobody_of_that_name"
		}
		return conf, err
	}
	look.PGData = ""
	if got, want := codes(Look(t.Context(), look)), []string{"no_companion", "wrong_credentials" + at}; !slices.Equal(got, want) {
		t.Errorf("of a user that there is not %q is found, want %q", got, want)
	}
}
