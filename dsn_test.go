package helios

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/heliosdb/helios/router"
)

// clearEnv takes everything out of the environment that says where to connect.
func clearEnv(tb testing.TB) {
	tb.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "PG") {
			tb.Setenv(name, "") // restores it afterwards
			if err := os.Unsetenv(name); err != nil {
				tb.Fatal(err)
			}
		}
	}
	tb.Setenv("HOME", tb.TempDir())
}

// configOf returns DefaultConfig with hosts and changes.
func configOf(change func(*Config), hosts ...Host) *Config {
	c := DefaultConfig()
	c.Hosts = hosts
	if change != nil {
		change(c)
	}
	return c
}

func TestBothFormsFollowLibpq(t *testing.T) {
	clearEnv(t)
	h1, h2 := Host{"h1", 5432}, Host{"h2", 5432}
	shop := func(c *Config) { c.User, c.Password, c.Database = "app", "p@ss", "shop" }
	spaced := func(c *Config) { c.Password = `a b'c\` }
	socket := Host{"/var/run/postgresql", 5432}
	for name, tt := range map[string]struct {
		dsn  string
		want *Config
	}{
		"url":                        {"helios://app:p%40ss@h1/shop", configOf(shop, h1)},
		"url, postgres":              {"postgres://app:p%40ss@h1/shop", configOf(shop, h1)},
		"url, postgresql":            {"postgresql://app:p%40ss@h1/shop", configOf(shop, h1)},
		"url, name of ent's driver":  {"postgres-helios://app:p%40ss@h1/shop", configOf(shop, h1)},
		"url, several hosts":         {"helios://h1:5432,h2,[::1]:5433", configOf(nil, h1, h2, Host{"::1", 5433})},
		"url, IPv6 with zone":        {"helios://[fe80::1%25eth0]", configOf(nil, Host{"fe80::1%eth0", 5432})},
		"url, no path but a query":   {"helios://h1?dbname=shop&user=app&password=p%40ss", configOf(shop, h1)},
		"url, query beats path":      {"helios://h1/other?database=shop&user=app&password=p@ss", configOf(shop, h1)},
		"url, plus is no space":      {"helios://h1/a+b", configOf(func(c *Config) { c.Database = "a+b" }, h1)},
		"url, unescaped ? in secret": {"helios://app:p?ss@h1", configOf(func(c *Config) { c.User, c.Password = "app", "p?ss" }, h1)},
		"url, colon in secret":       {"helios://:a:b@h1", configOf(func(c *Config) { c.Password = "a:b" }, h1)},
		"url, socket in query":       {"helios:///shop?host=/tmp&user=app&password=p%40ss", configOf(shop, Host{"/tmp", 5432})},
		"url, socket as host":        {"helios://%2Fvar%2Frun%2Fpostgresql:5432/", configOf(nil, socket)},
		"url, one port for all":      {"helios:///?host=h1,h2&port=6432", configOf(nil, Host{"h1", 6432}, Host{"h2", 6432})},
		"url, ssl=true": {"helios://h1?ssl=true", configOf(func(c *Config) {
			c.Params["sslmode"] = "require"
		}, h1)},
		"keywords":                      {"host=h1 user=app password=p@ss dbname=shop", configOf(shop, h1)},
		"keywords, spaces and quotes":   {" host = 'h1'\tpassword = 'a b\\'c\\\\' ", configOf(spaced, h1)},
		"keywords, backslash unquoted":  {`host=h1 password=a\ b\'c\\`, configOf(spaced, h1)},
		"keywords, quote ends a value":  {`host='h1'user='app'password='p@ss'dbname='shop'`, configOf(shop, h1)},
		"keywords, last one wins":       {"host=h9 host=h1", configOf(nil, h1)},
		"keywords, backslash at end":    {`host=h1\`, configOf(nil, h1)},
		"keywords, empty user":          {"host=h1 user=''", configOf(nil, h1)},
		"keywords, ports":               {"host=h1,h2 port=5433,", configOf(nil, Host{"h1", 5433}, h2)},
		"keywords, one port for all":    {"host=h1,h2 port=1", configOf(nil, Host{"h1", 1}, Host{"h2", 1})},
		"keywords, IPv6":                {"host=::1,h1", configOf(nil, Host{"::1", 5432}, h1)},
		"keywords, a URL as a value":    {"host=h1 application_name=a://b", configOf(func(c *Config) { c.Params["application_name"] = "a://b" }, h1)},
		"keywords, socket":              {"host=/var/run/postgresql", configOf(nil, socket)},
		"server parameter":              {"helios://h1?search_path=a,b", configOf(func(c *Config) { c.Params["search_path"] = "a,b" }, h1)},
		"server parameter in camelcase": {"helios://h1?TimeZone=UTC", configOf(func(c *Config) { c.Params["TimeZone"] = "UTC" }, h1)},
		"custom parameter":              {"helios://h1?app.tenant=7", configOf(func(c *Config) { c.Params["app.tenant"] = "7" }, h1)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseDSN(tt.dsn)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("ParseDSN(%q)\n got %+v, %v\nwant %+v", tt.dsn, got, err, tt.want)
			}
			checkIdentity(t, got)
		})
	}
}

// checkIdentity writes c in both forms and expects to read c again.
func checkIdentity(t *testing.T, c *Config) {
	t.Helper()
	var hosts, ports []string
	for _, h := range c.Hosts {
		hosts, ports = append(hosts, h.Host), append(ports, strconv.Itoa(int(h.Port)))
	}
	keywords := formatKeywords(append(c.declared(),
		pair{"host", strings.Join(hosts, ",")}, pair{"port", strings.Join(ports, ",")},
		pair{"user", c.User}, pair{"password", c.Password}, pair{"dbname", c.Database}, pair{sessionAttrsKey, c.TargetSessionAttrs.String()}))
	for _, dsn := range []string{c.DSN(), keywords} {
		again, err := ParseDSN(dsn)
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("ParseDSN(%q)\n got %+v, %v\nwant %+v", dsn, again, err, c)
		}
	}
}

func TestEveryKeySetsItsField(t *testing.T) {
	clearEnv(t)
	rows := map[string]struct {
		value string
		set   func(*Config)
	}{
		"consistency":      {"bounded:200ms", func(c *Config) { c.Consistency = Bounded(200 * time.Millisecond) }},
		"lsn":              {"lazy", func(c *Config) { c.LSN = LSNLazy }},
		"balance":          {"latency", func(c *Config) { c.Balance = router.Latency }},
		"zone":             {"eu1a", func(c *Config) { c.Zone = "eu1a" }},
		"zones":            {"eu1a,", func(c *Config) { c.Zones = []string{"eu1a", ""} }},
		"weights":          {"1,3", func(c *Config) { c.Weights = []int{1, 3} }},
		"max_lag":          {"1.5s", func(c *Config) { c.MaxLag = 1500 * time.Millisecond }},
		"replica_fallback": {"error", func(c *Config) { c.ReplicaFallback = FallbackError }},
		"failover_wait":    {"0", func(c *Config) { c.FailoverWait = 0 }},
		"probe_interval":   {"250ms", func(c *Config) { c.ProbeInterval = 250 * time.Millisecond }},
		"probe_timeout":    {"300ms", func(c *Config) { c.ProbeTimeout = 300 * time.Millisecond }},
		"pool_max_conns":   {"40", func(c *Config) { c.PoolMaxConns = 40 }},
		"pool_min_conns":   {"4", func(c *Config) { c.PoolMinConns = 4 }},
		"max_dials":        {"5", func(c *Config) { c.MaxDials = 5 }},
		"session_timeout":  {"1h", func(c *Config) { c.SessionTimeout = time.Hour }},
		"min_replicas":     {"1", func(c *Config) { c.MinReplicas = 1 }},
		"retry":            {"off", func(c *Config) { c.Retry = RetryOff }},
		"resolve":          {"all", func(c *Config) { c.Resolve = ResolveAll }},
		"target_session_attrs": {"prefer-standby", func(c *Config) {
			c.TargetSessionAttrs = TargetPreferStandby
		}},
		"companion":             {"h1:7777,[::1]:7777", func(c *Config) { c.Companion = []string{"h1:7777", "[::1]:7777"} }},
		"companion_sslmode":     {"verify-ca", func(c *Config) { c.CompanionSSLMode = "verify-ca" }},
		"companion_sslrootcert": {"ca.crt", func(c *Config) { c.CompanionSSLRootCert = "ca.crt" }},
		"companion_sslcert":     {"app.crt", func(c *Config) { c.CompanionSSLCert = "app.crt" }},
		"companion_sslkey":      {"app.key", func(c *Config) { c.CompanionSSLKey = "app.key" }},
		"companion_members":     {"off", func(c *Config) { c.CompanionMembers = MembersOff }},
		"companion_token_file":  {"/run/secrets/helios", func(c *Config) { c.CompanionTokenFile = "/run/secrets/helios" }},
	}
	for _, key := range Keys() {
		row, ok := rows[key.Name]
		if !ok {
			t.Errorf("key %s is not tested", key.Name)
			continue
		}
		want := configOf(row.set, Host{"h1", 5432}, Host{"h2", 5432})
		got, err := ParseDSN("helios://h1,h2?" + key.Name + "=" + row.value)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseDSN(%s=%s)\n got %+v, %v\nwant %+v", key.Name, row.value, got, err, want)
			continue
		}
		if text := got.keys().Lookup(key.Name).Value.String(); text == key.Default {
			t.Errorf("%s=%s is the default: the row shows nothing", key.Name, row.value)
		}
		checkIdentity(t, got)
	}
}

func TestEveryNamedValueIsReadAndWritten(t *testing.T) {
	clearEnv(t)
	for key, values := range map[string]string{
		"consistency":      "eventual|bounded:0s|bounded:1m0s|session|strong",
		"lsn":              "eager|lazy",
		"balance":          "round_robin|least_conns|latency|random",
		"replica_fallback": "primary|error",
		"retry":            "safe|off",
		"resolve":          "transactions|all|off",
		sessionAttrsKey:    "any|read-write|read-only|primary|standby|prefer-standby",
	} {
		for value := range strings.SplitSeq(values, "|") {
			c, err := ParseDSN("host=h1 " + key + "=" + value)
			if err != nil {
				t.Errorf("ParseDSN(%s=%s): %v", key, value, err)
				continue
			}
			if got := c.keys().Lookup(key).Value.String(); got != value {
				t.Errorf("%s=%s is written as %q", key, value, got)
			}
			checkIdentity(t, c)
		}
	}
}

func TestLoadBalanceHostsBecomesABalance(t *testing.T) {
	clearEnv(t)
	for dsn, want := range map[string]router.Balance{
		"host=h1 load_balance_hosts=random":                 router.Random,
		"host=h1 load_balance_hosts=disable":                router.LeastConns,
		"host=h1 load_balance_hosts=random balance=latency": router.Latency,
	} {
		if c, err := ParseDSN(dsn); err != nil || c.Balance != want {
			t.Errorf("ParseDSN(%q).Balance = %v, %v, want %v", dsn, c.Balance, err, want)
		}
	}
}

func TestErrorsNameTheKeyAndWhatIsAllowed(t *testing.T) {
	clearEnv(t)
	for dsn, want := range map[string]string{
		// the form
		"shop":                            "expected key=value, such as host=h1,h2 dbname=shop, or a URL helios://h1,h2/shop",
		"mysql://h1":                      "a URL starts with one of helios://, postgres-helios://, postgresql://, postgres",
		"host=h1 password=two words":      `expected key=value after the value of "password"; a value with spaces goes between single quotes`,
		"host=h1 password='open":          "password: the value has no closing quote",
		"helios://[::1":                   "host: an IPv6 address is written [::1] or [::1]:5432",
		"helios://[::1]x":                 "host: an IPv6 address is written [::1] or [::1]:5432",
		"helios://u:p%4@h1":               "password: two hexadecimal digits must follow %; write % itself as %25",
		"helios://u:p w@h1":               "password: write a space as %20",
		"helios://h1?lsn":                 `expected key=value after "?"; write & in a value as %26 and % as %25`,
		"helios://h1?lsn=lazy&b":          `expected key=value after "lsn"; write & in a value as %26 and % as %25`,
		"helios://h1?options=-c a=b":      "options: write = in the value as %3D",
		"helios://u:p@ss@h1":              errMislaid.Error(),
		"helios://u:pa/ss@h1":             errMislaid.Error(),
		"helios://u:p%00@h1":              "password: must not contain a zero byte",
		"helios://h1:99999":               "port: number 1 in the list is not a port from 1 to 65535",
		"host=h1,h2 port=1,x":             "port: number 2 in the list is not a port from 1 to 65535",
		"host=h1,h2 port=1,2,3":           "could not match 3 port numbers to 2 hosts",
		"helios://h1,h2,H1":               "host: H1:5432 is named twice",
		"host=/tmp,/tmp/":                 "host: /tmp/.s.PGSQL.5432 is named twice",
		"helios://[::1],[0:0::1]":         "host: [0:0::1]:5432 is named twice",
		"host=h1 service=none":            "failed to read service (failed to read service file: /nowhere)",
		"helios://h1?sslrootcert=/nofile": "node h1:5432: failed to configure TLS (unable to read CA file: open /nofile: no such file or directory)",
		// unknown keys
		"host=h1 consistancy=strong":   "consistancy: unknown key; did you mean consistency?",
		"host=h1 Zone=a":               "Zone: unknown key; did you mean zone or zones?",
		"host=h1 sslmod=require":       "sslmod: unknown key; did you mean sslmode?",
		"host=h1 serch_path=a":         "serch_path: unknown key; did you mean search_path?",
		"host=h1 xyzzy=a":              "xyzzy: unknown key",
		"host=h1 keepalives=1":         "keepalives: pgx does not implement this parameter of libpq; leave it out",
		"host=h1 .a=1":                 ".a: unknown key",
		"host=h1 a.1b=1":               "a.1b: unknown key",
		"host=h1 pool_max_conn=4":      "pool_max_conn: unknown key; did you mean pool_max_conns?",
		"host=h1 statement_timeouts=4": "statement_timeouts: unknown key; did you mean statement_timeout?",
		// values
		"host=h1 consistency=bounded":       `consistency: "bounded" is not one of eventual | bounded:200ms | session | strong`,
		"host=h1 consistency=bounded:200":   `consistency: "bounded:200": after "bounded:" comes a duration with its unit (ms, s, m or h), such as 200ms`,
		"host=h1 consistency=bounded:-1s":   `consistency: "bounded:-1s": after "bounded:" comes a duration with its unit (ms, s, m or h), such as 200ms`,
		"host=h1 lsn=maybe":                 `lsn: "maybe" is not one of eager | lazy | off`,
		"host=h1 max_lag=5":                 `max_lag: "5" is not a duration with its unit (ms, s, m or h), such as 200ms`,
		"host=h1 max_lag=-5s":               "max_lag: -5s must be at least 0s",
		"host=h1 probe_interval=0":          "probe_interval: 0s must be at least 1ms",
		"host=h1 pool_max_conns=many":       `pool_max_conns: "many" is not a whole number`,
		"host=h1 pool_max_conns=0":          "pool_max_conns: 0 is not from 1 to 262143",
		"host=h1 min_replicas=-1":           "min_replicas: -1 is not from 0 to 262143",
		"host=h1 weights=a":                 `weights: "a" is not a list of whole numbers, such as 1,1,2`,
		"host=h1 weights=0":                 "weights: 0 is not from 1 to 1000",
		"host=h1 companion=h1":              `companion: "h1" is neither host:port, nor :port for that port of each host, nor auto`,
		"host=h1 companion=h1:0":            `companion: "h1:0" is neither host:port, nor :port for that port of each host, nor auto`,
		"host=h1 companion=h1:1,h1:1":       "companion: h1:1 is named twice",
		"host=h1 companion_sslmode=on":      `companion_sslmode: "on" is not one of disable | allow | prefer | require | verify-ca | verify-full`,
		"host=h1 load_balance_hosts=yes":    `load_balance_hosts: "yes" is not one of disable | random`,
		"host=h1 sslmode=on":                `sslmode: "on" is not one of disable | allow | prefer | require | verify-ca | verify-full`,
		"host=h1 connect_timeout=3s":        `connect_timeout: "3s" is not a whole number`,
		"host=h1 target_session_attrs=rw":   `target_session_attrs: "rw" is not one of any | read-write | read-only | primary | standby | prefer-standby`,
		"host=h1 default_query_exec_mode=x": `default_query_exec_mode: "x" is not one of cache_statement | cache_describe | describe_exec | exec | simple_protocol`,
		"host=h1 require_auth=nonsense":     `invalid require_auth (invalid require_auth method: "nonsense")`,
		// contradictions
		"host=h1 lsn=off": "lsn: off contradicts consistency=session, which needs the position of writes; use eager or lazy, or another consistency",
		"host=h1 pool_max_conns=2 pool_min_conns=3":                 "pool_min_conns: 3 is more than pool_max_conns=2",
		"host=h1,h2 zones=a":                                        "zones: 1 zones for 2 hosts; give one for each host, empty for none",
		"host=h1,h2 weights=1,2,3":                                  "weights: 3 weights for 2 hosts; give one for each host",
		"host=h1,h2 min_replicas=2":                                 "min_replicas: 2 replicas and a primary are more than the 2 hosts: no write would be accepted",
		"host=h1 consistency=strong target_session_attrs=standby":   "consistency: strong reads from the primary, which target_session_attrs=standby excludes",
		"host=h1 consistency=strong target_session_attrs=read-only": "consistency: strong reads from the primary, which target_session_attrs=read-only excludes",
	} {
		t.Setenv("PGSERVICEFILE", "/nowhere")
		c, err := ParseDSN(dsn)
		if err == nil || !strings.HasPrefix(err.Error(), "helios: dsn: "+want) {
			t.Errorf("ParseDSN(%q)\n got %v, %v\nwant %v", dsn, c, err, want)
		}
		key, _, named := strings.Cut(want, ": ")
		if blamed, ok := errors.AsType[*KeyError](err); ok && (!named || blamed.Key != key) {
			t.Errorf("ParseDSN(%q) blames %q, want %q", dsn, blamed.Key, key)
		}
	}
}

func TestContradictionsThatAreNone(t *testing.T) {
	clearEnv(t)
	for _, dsn := range []string{
		"host=h1 lsn=off consistency=eventual",
		"host=h1 lsn=off consistency=bounded:1s",
		"host=h1 lsn=off consistency=strong",
		"host=h1 consistency=strong replica_fallback=error",
		"host=h1 target_session_attrs=primary replica_fallback=error",
		"host=h1 min_replicas=2 companion=h1:7777",
		"host=h1 probe_interval=10ms probe_timeout=1s",
	} {
		if _, err := ParseDSN(dsn); err != nil {
			t.Errorf("ParseDSN(%q): %v", dsn, err)
		}
	}
}

// withSecret are ways to write a DSN around the password "hunter2".
var withSecret = []string{
	"helios://u:hunter2@", "helios://h1/?password=hunter2&", "helios://h1/?sslpassword=hunter2&",
	"password=hunter2 ", "password='hunter2' ", "sslpassword=hunter2 ", "host=h1 password='hunter2",
}

func TestNoErrorAndNoLogShowsAPassword(t *testing.T) {
	clearEnv(t)
	for _, before := range withSecret {
		for _, after := range []string{
			"", "h1", "h1:port", "h1/db?x=y", "%zz", "h1@h2", "[h1", "nonsense", "host='", "host=h1", "lsn=never", "port=x",
			"sslmode=1", "sslrootcert=/nofile", "service=none", "connect_timeout=x", "h1,h1",
		} {
			checkSecret(t, before+after)
		}
	}
	for _, dsn := range []string{
		"helios://u:hunter2", "helios://u:1:hunter2@h1:x", "helios://u:a/hunter2@h1", "helios://u:a@hunter2@h1",
		"helios://u:a/b?hunter2=c@h1", "password=a hunter2", "helios://u:a?hunter2@h1",
	} {
		checkSecret(t, dsn)
	}
}

// checkSecret expects "hunter2" neither in the error nor in String.
func checkSecret(t *testing.T, dsn string) {
	t.Helper()
	c, err := ParseDSN(dsn)
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("ParseDSN(%q): %v", dsn, err)
	}
	if err == nil && strings.Contains(c.String(), "hunter2") {
		t.Errorf("ParseDSN(%q).String() = %s", dsn, c)
	}
}

func TestStringIsForPeople(t *testing.T) {
	clearEnv(t)
	dsn := "host=h1,/tmp user=app password=a sslpassword=b app.secret=c password_encryption=md5 balance=random consistency=session"
	c, err := ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	want := "helios://app:xxxxx@h1:5432,%2Ftmp:5432/?balance=random&app.secret=xxxxx&password_encryption=md5&sslpassword=xxxxx"
	if got := c.String(); got != want {
		t.Errorf("String()\n got %s\nwant %s", got, want)
	}
	if got := fmt.Sprint(c.LogValue()); got != want {
		t.Errorf("LogValue()\n got %s\nwant %s", got, want)
	}
	if c.Params["sslpassword"] != "b" || c.Password != "a" {
		t.Errorf("String() changed the Config: %+v", c)
	}
}

func TestKeysAreDescribed(t *testing.T) {
	for _, key := range Keys() {
		if key.Help == "" || strings.ContainsAny(key.Help, "`") || strings.Contains(key.Values, "`") {
			t.Errorf("Keys() has %+v", key)
		}
		if values := strings.Split(key.Values, " | "); len(values) > 1 && !slices.Contains(values, key.Default) {
			t.Errorf("the default of %+v is not among its values", key)
		}
	}
	if !slices.IsSortedFunc(Keys(), func(a, b Key) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("Keys() are not sorted")
	}
}

// writeFile makes a file of the test's own.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func FuzzParseDSN(f *testing.F) {
	clearEnv(f)
	for _, seed := range []string{
		"", "helios://u:p%40ss@h1:5432,h2,[::1]:5433/db?consistency=bounded:200ms&sslmode=disable",
		`host=h1,h2 port=5432,5433 user=u password='a b\'c' dbname=db zones=a,b weights=1,2`,
		"helios:///?host=/tmp&app.x=1", "h1:x@h2/?lsn=lazy", "companion=h:1 max_lag=1ms retry=off balance=random",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		if strings.Contains(dsn, "/dev/") || strings.Contains(dsn, "hunter2") {
			t.Skip("a device would be read, or the secret is in the open")
		}
		if c, err := ParseDSN(dsn); err == nil {
			checkIdentity(t, c)
			checkDefined(t, c)
		}
		for _, before := range withSecret {
			checkSecret(t, before+dsn)
		}
	})
}

// checkDefined expects Check to agree with ParseDSN, and a Clone to be equal.
func checkDefined(t *testing.T, c *Config) {
	t.Helper()
	if err := c.Check(); err != nil {
		t.Errorf("%s: %v", c.DSN(), err)
	}
	if !reflect.DeepEqual(c.Clone(), c) {
		t.Errorf("%s: Clone() = %+v", c.DSN(), c.Clone())
	}
	c.keys().VisitAll(func(f *flag.Flag) {
		if f.Value.String() != f.DefValue {
			t.Errorf("%s: %s is %q and declared with %q", c.DSN(), f.Name, f.Value, f.DefValue)
		}
	})
}
