package helios

import (
	"crypto/tls"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestAnEmptyDSNIsTheDefault(t *testing.T) {
	clearEnv(t)
	c, err := ParseDSN("")
	if err != nil || len(c.Hosts) != 1 {
		t.Fatalf("ParseDSN(\"\") = %+v, %v", c, err)
	}
	c.Hosts = nil
	if want := DefaultConfig(); !reflect.DeepEqual(c, want) {
		t.Errorf("ParseDSN(\"\")\n got %+v\nwant %+v", c, want)
	}
}

func TestTheEnvironmentSaysWhatTheDSNDoesNot(t *testing.T) {
	clearEnv(t)
	for name, value := range map[string]string{
		"PGHOST": "e1,e2", "PGPORT": "1,2", "PGUSER": "eve", "PGPASSWORD": "pw", "PGDATABASE": "edb",
		"PGSSLMODE": "disable", "PGAPPNAME": "env", "PGTARGETSESSIONATTRS": "standby",
	} {
		t.Setenv(name, value)
	}
	c, err := ParseDSN("")
	want := configOf(func(c *Config) { c.TargetSessionAttrs = TargetStandby }, Host{"e1", 1}, Host{"e2", 2})
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Fatalf("ParseDSN(\"\")\n got %+v, %v\nwant %+v", c, err, want)
	}
	checkIdentity(t, c)
	got := mustConnect(t, c, c.Hosts[1])
	if got.User != "eve" || got.Password != "pw" || got.Database != "edb" || got.RuntimeParams["application_name"] != "env" || got.TLSConfig != nil {
		t.Errorf("ConnConfig: %+v", got)
	}
	t.Run("the DSN goes first", func(t *testing.T) {
		c, err := ParseDSN("helios://u:p@h1:5/db?target_session_attrs=any&application_name=a")
		if err != nil || c.TargetSessionAttrs != TargetAny || !reflect.DeepEqual(c.Hosts, []Host{{"h1", 5}}) {
			t.Fatalf("got %+v, %v", c, err)
		}
		checkIdentity(t, c)
		got := mustConnect(t, c, c.Hosts[0])
		if got.User != "u" || got.Password != "p" || got.Database != "db" || got.RuntimeParams["application_name"] != "a" {
			t.Errorf("ConnConfig: %+v", got)
		}
	})
	t.Run("PGPORT is for the DSN's hosts too", func(t *testing.T) {
		c, err := ParseDSN("host=a,b")
		if want := []Host{{"a", 1}, {"b", 2}}; err != nil || !reflect.DeepEqual(c.Hosts, want) {
			t.Errorf("got %+v, %v, want %v", c, err, want)
		}
	})
	for _, attrs := range sessionAttrsNames {
		t.Setenv("PGTARGETSESSIONATTRS", attrs)
		if c, err := ParseDSN(""); err != nil || c.TargetSessionAttrs.String() != attrs {
			t.Errorf("PGTARGETSESSIONATTRS=%s: got %v, %v", attrs, c, err)
		}
	}
}

func TestAServiceMayNameTheCluster(t *testing.T) {
	clearEnv(t)
	t.Setenv("PGSERVICEFILE", writeFile(t, "service.conf", `[shop]
host=s1,s2
port=6432
user=sue
password=pw
dbname=sdb
target_session_attrs=primary
load_balance_hosts=random
[ours]
host=s1
balance=random
`))
	for _, dsn := range []string{"service=shop", "helios:///?service=shop"} {
		c, err := ParseDSN(dsn)
		want := configOf(func(c *Config) {
			c.Params["service"] = "shop"
			c.TargetSessionAttrs = TargetPrimary
		}, Host{"s1", 6432}, Host{"s2", 6432})
		if err != nil || !reflect.DeepEqual(c, want) {
			t.Fatalf("ParseDSN(%q)\n got %+v, %v\nwant %+v", dsn, c, err, want)
		}
		checkIdentity(t, c)
		got := mustConnect(t, c, c.Hosts[1])
		if got.Host != "s2" || got.Port != 6432 || got.User != "sue" || got.Password != "pw" || got.Database != "sdb" || len(got.RuntimeParams) != 0 {
			t.Errorf("ConnConfig: %+v", got)
		}
	}
	want := "helios: dsn: balance: belongs into the DSN, not into a service file"
	if _, err := ParseDSN("service=ours"); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestThePasswordFileIsReadForEachHost(t *testing.T) {
	clearEnv(t)
	t.Setenv("PGPASSFILE", writeFile(t, "pass", "h1:5432:*:app:one\nh2:*:db:app:two\nlocalhost:*:*:*:sock\n"))
	c, err := ParseDSN("helios://app@h1,h2,%2Ftmp/db")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"one", "two", "sock"} {
		if got := mustConnect(t, c, c.Hosts[i]); got.Password != want {
			t.Errorf("password of %s: got %q, want %q", c.Hosts[i], got.Password, want)
		}
	}
	c.Password = "dsn"
	if got := mustConnect(t, c, c.Hosts[0]); got.Password != "dsn" {
		t.Errorf("password of the DSN: got %q", got.Password)
	}
}

func TestTLSBelongsToOneHost(t *testing.T) {
	clearEnv(t)
	for name, tt := range map[string]struct {
		sslmode string
		tls     []bool // of the attempts in order
	}{
		"prefer is the default": {"", []bool{true, false}},
		"allow":                 {"allow", []bool{false, true}},
		"disable":               {"disable", []bool{false}},
		"verify-full":           {"verify-full", []bool{true}},
	} {
		t.Run(name, func(t *testing.T) {
			c := configOf(func(c *Config) {
				if tt.sslmode != "" {
					c.Params["sslmode"] = tt.sslmode
				}
			}, Host{"h1", 5432}, Host{"h2", 5433})
			got := mustConnect(t, c, c.Hosts[1])
			checkAttempt(t, got.Host, got.TLSConfig, tt.tls[0])
			if len(got.Fallbacks) != len(tt.tls)-1 {
				t.Fatalf("got %d fallbacks, want %d", len(got.Fallbacks), len(tt.tls)-1)
			}
			for i, f := range got.Fallbacks {
				checkAttempt(t, f.Host, f.TLSConfig, tt.tls[i+1])
			}
		})
	}
}

// checkAttempt expects an attempt at h2.
func checkAttempt(t *testing.T, host string, conf *tls.Config, wantTLS bool) {
	t.Helper()
	if host != "h2" || (conf != nil) != wantTLS || conf != nil && conf.ServerName != "h2" {
		t.Errorf("attempt at %s with TLS %+v, want h2, TLS %v", host, conf, wantTLS)
	}
}

func TestConnectingAsksTheServerNothing(t *testing.T) {
	clearEnv(t)
	t.Setenv("PGTARGETSESSIONATTRS", "primary")
	c, err := ParseDSN("host=h1 target_session_attrs=read-write statement_cache_capacity=7 default_query_exec_mode=exec search_path='a b' " +
		"options='-c geqo=off' zone=z connect_timeout=3")
	if err != nil {
		t.Fatal(err)
	}
	got := mustConnect(t, c, c.Hosts[0])
	if got.ValidateConnect != nil {
		t.Error("ConnConfig has a ValidateConnect")
	}
	if got.StatementCacheCapacity != 7 || got.DefaultQueryExecMode != pgx.QueryExecModeExec || got.ConnectTimeout != 3*time.Second {
		t.Errorf("ConnConfig lost a parameter of pgx: %+v", got)
	}
	if want := map[string]string{"search_path": "a b", "options": "-c geqo=off"}; !reflect.DeepEqual(got.RuntimeParams, want) {
		t.Errorf("RuntimeParams: got %v, want %v", got.RuntimeParams, want)
	}
}

// mustConnect returns c.ConnConfig(h).
func mustConnect(t *testing.T, c *Config, h Host) *pgx.ConnConfig {
	t.Helper()
	conf, err := c.ConnConfig(h)
	if err != nil {
		t.Fatalf("ConnConfig(%s): %v", h, err)
	}
	return conf
}

func TestTheClientKeyMayHaveAPassword(t *testing.T) {
	clearEnv(t)
	c := configOf(func(c *Config) { c.Params["sslpassword"] = "hunter2" }, Host{"h1", 5432})
	options := c.secrets()
	if got := options.GetSSLPassword(t.Context()); got != "hunter2" {
		t.Errorf("GetSSLPassword() = %q", got)
	}
	c.Params["sslkey"], c.Params["sslcert"] = "/nokey", "/nocert"
	_, err := c.ConnConfig(c.Hosts[0])
	want := "helios: node h1:5432: failed to configure TLS (unable to read sslkey: open /nokey: no such file or directory)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestTargetSessionAttrsExcludesNodes(t *testing.T) {
	for attrs, want := range map[SessionAttrs]struct{ primaryOnly, replicasOnly bool }{
		TargetAny:           {false, false},
		TargetReadWrite:     {true, false},
		TargetReadOnly:      {false, true},
		TargetPrimary:       {true, false},
		TargetStandby:       {false, true},
		TargetPreferStandby: {false, false},
	} {
		c := configOf(func(c *Config) { c.TargetSessionAttrs = attrs })
		if c.primaryOnly() != want.primaryOnly || c.replicasOnly() != want.replicasOnly {
			t.Errorf("%v: primaryOnly %v, replicasOnly %v, want %+v", attrs, c.primaryOnly(), c.replicasOnly(), want)
		}
	}
}

func TestHostsAreNamedAsTheyAreDialed(t *testing.T) {
	for want, h := range map[string]Host{
		"h1:5432":            {"h1", 5432},
		"[::1]:5433":         {"::1", 5433},
		"/tmp/.s.PGSQL.5432": {"/tmp", 5432},
	} {
		if got := h.String(); got != want {
			t.Errorf("%#v.String() = %s, want %s", h, got, want)
		}
	}
}

func TestACloneSharesNothing(t *testing.T) {
	c := configOf(func(c *Config) {
		c.Params["a.b"] = "1"
		c.Zones, c.Weights, c.Companion = []string{"z"}, []int{2}, []string{"h:1"}
	}, Host{"h1", 1})
	n := c.Clone()
	n.Hosts[0].Port, n.Params["a.b"], n.Zones[0], n.Weights[0], n.Companion[0] = 2, "2", "y", 3, "i:1"
	if c.Hosts[0].Port != 1 || c.Params["a.b"] != "1" || c.ZoneOf(0) != "z" || c.WeightOf(0) != 2 || c.Companion[0] != "h:1" {
		t.Errorf("a change of the clone changed %+v", c)
	}
	if c.ZoneOf(1) != "" || c.WeightOf(1) != 1 {
		t.Errorf("a host without declaration has zone %q, weight %d", c.ZoneOf(1), c.WeightOf(1))
	}
}

func TestCheckSeesWhatNoDSNCanSay(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no host":            {func(c *Config) { c.Hosts = nil }, "host: at least one is needed"},
		"too many hosts":     {func(c *Config) { c.Hosts = make([]Host, 257) }, "host: 257 hosts are more than 256"},
		"empty host":         {func(c *Config) { c.Hosts[0].Host = "" }, `host: "" is neither a name, an address nor an absolute directory`},
		"two hosts in one":   {func(c *Config) { c.Hosts[0].Host = "a,b" }, `host: "a,b" is neither a name, an address nor an absolute directory`},
		"no port":            {func(c *Config) { c.Hosts[0].Port = 0 }, "port: the port of h1 must be from 1 to 65535"},
		"zero byte":          {func(c *Config) { c.User = "a\x00b" }, "user: must not contain a zero byte"},
		"user in Params":     {func(c *Config) { c.Params["user"] = "a" }, "user: has a field of its own in Config"},
		"own key in Params":  {func(c *Config) { c.Params["lsn"] = "off" }, "lsn: has a field of its own in Config"},
		"unknown in Params":  {func(c *Config) { c.Params["zonk"] = "off" }, "zonk: unknown key; did you mean zone?"},
		"no such fallback":   {func(c *Config) { c.ReplicaFallback = 7 }, `replica_fallback: "" is not one of primary | error`},
		"no such balance":    {func(c *Config) { c.Balance = 77 }, "balance: "},
		"comma in zone":      {func(c *Config) { c.Zone = "a,b" }, `zone: "a,b" must not contain a comma`},
		"comma in zones":     {func(c *Config) { c.Zones = []string{"a,b"} }, `zone: "a,b" must not contain a comma`},
		"only an empty zone": {func(c *Config) { c.Zones = []string{""} }, "zones: leave it out instead of naming one empty zone"},
		"negative wait":      {func(c *Config) { c.FailoverWait = -1 }, "failover_wait: -1ns must be at least 0s"},
		"no session timeout": {func(c *Config) { c.SessionTimeout = 0 }, "session_timeout: 0s must be at least 1ms"},
	} {
		t.Run(name, func(t *testing.T) {
			c := configOf(tt.change, Host{"h1", 1})
			if err := c.Check(); err == nil || !strings.HasPrefix(err.Error(), "helios: config: "+tt.want) {
				t.Errorf("Check() = %v, want %s", err, tt.want)
			}
		})
	}
}

func TestValuesThatDoNotExistHaveNoName(t *testing.T) {
	if got := Fallback(9).String() + LSNMode(9).String() + RetryMode(9).String() + ResolveMode(9).String() + MembersMode(9).String() + SessionAttrs(9).String(); got != "" {
		t.Errorf("values that do not exist are written as %q", got)
	}
	if got := Bounded(-time.Second); got != Bounded(0) || got.String() != "bounded:0s" {
		t.Errorf("Bounded(-1s) = %v", got)
	}
}

func FuzzConfigRoundTrip(f *testing.F) {
	clearEnv(f)
	f.Add("app", `p@s:s/w?o#r%d '\&=+`, "shop", "h1", uint16(5432), "::1", "a b", "eu", int64(1000), 3, uint8(1))
	f.Add("", "", "", "/var/run", uint16(1), "/C:", "'", "", int64(0), 16, uint8(255))
	f.Add("", "", "", ":C/", uint16(1), "a%41", ",", "", int64(0), 35, uint8(0))
	f.Fuzz(func(t *testing.T, user, password, database, host string, port uint16, host2, param, zone string, d int64, n int, kind uint8) {
		c := configOf(func(c *Config) {
			c.User, c.Password, c.Database = user, password, database
			c.Params["search_path"], c.Params["app.x"], c.Params["sslpassword"] = param, zone, password
			c.Zone, c.Zones, c.Weights, c.Companion = zone, []string{zone, param}, []int{n, 1}, []string{"h:1"}
			c.Consistency = Consistency{kind: level(kind & 3)}
			if c.Consistency.kind == levelBounded {
				c.Consistency = Bounded(time.Duration(d))
			}
			c.Balance, c.LSN, c.Retry, c.Resolve = c.Balance+2, LSNMode(kind>>2&1), RetryMode(kind>>3&1), ResolveMode(kind%3)
			c.TargetSessionAttrs, c.ReplicaFallback = SessionAttrs(kind>>4&7), Fallback(kind>>7)
			c.MaxLag, c.FailoverWait, c.PoolMaxConns, c.MaxDials = time.Duration(d), time.Duration(d/2), n, n
		}, Host{host, port}, Host{host2, port})
		if c.Check() != nil {
			return
		}
		checkIdentity(t, c)
		if password != "" && len(password) > 30 && strings.Contains(c.String(), password) {
			t.Errorf("String() shows the password: %s", c)
		}
	})
}
