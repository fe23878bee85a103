package helios

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/router"
)

// Config is what a DSN says. It comes from [ParseDSN] or starts as
// [DefaultConfig]; [Config.Check] finds what contradicts itself. It is a plain
// value: whoever keeps one for long keeps a [Config.Clone].
type Config struct {
	// Hosts are the nodes of the cluster, in the order of the DSN, each once.
	// ParseDSN finds them in the environment or in the service file if the DSN
	// names none, so it never returns an empty list.
	Hosts []Host
	// User, Password and Database are empty where the DSN does not say; what
	// PG* variables, the service file, the password file and the account of
	// this process say instead is in what [Config.ConnConfig] returns.
	User, Password, Database string
	// Params are libpq's, pgx's and PostgreSQL's own parameters, such as
	// sslmode, statement_cache_capacity or search_path. They are passed on as
	// they are.
	Params map[string]string

	Consistency        Consistency    // what reads must see
	LSN                LSNMode        // when the position of a write is learned
	Balance            router.Balance // how reads are spread over replicas
	Zone               string         // where this program runs; "" for nowhere in particular
	Zones              []string       // zone of each of Hosts, "" for none; nil if no host has one
	Weights            []int          // share of reads of each of Hosts; nil for 1 each
	MaxLag             time.Duration  // replicas further behind are skipped; 0 accepts any lag
	ReplicaFallback    Fallback       // who answers a read when no replica may
	FailoverWait       time.Duration  // how long a write that was not sent waits for a primary; 0 does not wait
	ProbeInterval      time.Duration  // time between two probes of a node while all is well
	ProbeTimeout       time.Duration  // after which a probe has failed
	PoolMaxConns       int            // most connections to one node
	PoolMinConns       int            // connections to one node kept open while idle
	MaxDials           int            // most connections to one node being opened at the same time
	SessionTimeout     time.Duration  // after its last use a named session is forgotten
	MinReplicas        int            // writes are refused while fewer replicas are healthy
	Retry              RetryMode      // whether what certainly had no effect is sent again
	Resolve            ResolveMode    // which writes can be looked into when their answer was lost
	TargetSessionAttrs SessionAttrs   // which nodes may be used at all

	// Companion names companion servers to listen to: host:port, or :port for that
	// port of each of Hosts, or auto for :7101.
	Companion []string
	// How companions are connected to, where that differs from the nodes' sslmode,
	// sslrootcert, sslcert and sslkey. With a root certificate alone the mode is
	// verify-full.
	CompanionSSLMode, CompanionSSLRootCert, CompanionSSLCert, CompanionSSLKey string
	CompanionTokenFile                                                        string // holds the token that companions ask for; "" for none
	// CompanionMembers says whether nodes are used that companions tell of and Hosts
	// do not name. They are connected to as Hosts are, password included: with a sslmode
	// that does not verify them, they are trusted as the companions are.
	CompanionMembers MembersMode
}

// Host is where one node listens.
type Host struct {
	Host string // name, IP address without brackets, or absolute directory of a Unix socket
	Port uint16 // never 0; part of the file name of a Unix socket
}

// String returns host:port, with brackets around IPv6 addresses, or the path of
// the Unix socket. It is the name of the node in views, errors and logs.
func (h Host) String() string {
	_, address := pgconn.NetworkAddress(h.Host, h.Port)
	return address
}

// isSocket reports whether h is a Unix socket.
func (h Host) isSocket() bool {
	network, _ := pgconn.NetworkAddress(h.Host, h.Port)
	return network == "unix"
}

// same reports whether h and o are one address written in two ways.
func (h Host) same(o Host) bool {
	if h.Port != o.Port || h.isSocket() != o.isSocket() {
		return false
	}
	if h.isSocket() {
		return path.Clean(h.Host) == path.Clean(o.Host)
	}
	a, b := net.ParseIP(h.Host), net.ParseIP(o.Host)
	return strings.EqualFold(h.Host, o.Host) || a != nil && a.Equal(b)
}

// DefaultConfig returns what an empty DSN means, except for Hosts: those come
// from the environment, and ParseDSN looks there.
func DefaultConfig() *Config {
	return &Config{
		Params:         map[string]string{},
		FailoverWait:   10 * time.Second,
		ProbeInterval:  time.Second,
		ProbeTimeout:   time.Second,
		PoolMaxConns:   16,
		MaxDials:       2,
		SessionTimeout: 10 * time.Minute,
	}
}

// keys declares the keys of a DSN that are ours, bound to the fields of c.
// Parsing, formatting and the table in the documentation come from here.
func (c *Config) keys() *flag.FlagSet {
	fs := flag.NewFlagSet("dsn", flag.ContinueOnError)
	fs.TextVar(&c.Consistency, "consistency", c.Consistency, "what reads must see: `eventual | bounded:200ms | session | strong`")
	fs.TextVar(&c.LSN, "lsn", c.LSN, "when the position of a write is learned: with it, with the session's next read, never: `eager | lazy | off`")
	fs.TextVar(&c.Balance, "balance", c.Balance, "how reads are spread over replicas: `round_robin | least_conns | latency | random`")
	fs.StringVar(&c.Zone, "zone", c.Zone, "where this program runs; replicas of the same zone are preferred")
	fs.Var((*nameList)(&c.Zones), "zones", "zone of each host, in the order of the hosts: `eu1a,eu1b,`")
	fs.Var((*weightList)(&c.Weights), "weights", "share of reads of each host, in the order of the hosts, 1 if not given: `1,1,2`")
	fs.DurationVar(&c.MaxLag, "max_lag", c.MaxLag, "skip replicas further behind than this; 0 accepts any lag")
	fs.TextVar(&c.ReplicaFallback, "replica_fallback", c.ReplicaFallback, "who answers a read when no replica may: `primary | error`")
	fs.DurationVar(&c.FailoverWait, "failover_wait", c.FailoverWait, "how long a write that was not sent waits for a primary; 0 does not wait")
	fs.DurationVar(&c.ProbeInterval, "probe_interval", c.ProbeInterval, "time between two probes of a node while all is well")
	fs.DurationVar(&c.ProbeTimeout, "probe_timeout", c.ProbeTimeout, "after which a probe has failed")
	fs.IntVar(&c.PoolMaxConns, "pool_max_conns", c.PoolMaxConns, "most connections to one node")
	fs.IntVar(&c.PoolMinConns, "pool_min_conns", c.PoolMinConns, "connections to one node kept open while idle")
	fs.IntVar(&c.MaxDials, "max_dials", c.MaxDials, "most connections to one node being opened at the same time")
	fs.DurationVar(&c.SessionTimeout, "session_timeout", c.SessionTimeout, "how long a named session is remembered after its last use")
	fs.IntVar(&c.MinReplicas, "min_replicas", c.MinReplicas, "refuse writes while fewer replicas than this are healthy and within max_lag")
	fs.TextVar(&c.Retry, "retry", c.Retry, "whether the driver sends again what certainly had no effect: `safe | off`")
	fs.TextVar(&c.Resolve, "resolve", c.Resolve, "which writes are looked into when the answer to their commit was lost: `transactions | all | off`")
	fs.TextVar(&c.TargetSessionAttrs, sessionAttrsKey, c.TargetSessionAttrs, "which nodes may be used, as in libpq: `any | read-write | read-only | primary | standby | prefer-standby`")
	fs.Var((*nameList)(&c.Companion), "companion", "companion servers to listen to, :port for one at each host, auto for :7101: `host:port,host:port`")
	fs.StringVar(&c.CompanionSSLMode, "companion_sslmode", c.CompanionSSLMode, "sslmode towards companions; that of the nodes if not given, and verify-full with companion_sslrootcert")
	fs.StringVar(&c.CompanionSSLRootCert, "companion_sslrootcert", c.CompanionSSLRootCert, "sslrootcert towards companions")
	fs.StringVar(&c.CompanionSSLCert, "companion_sslcert", c.CompanionSSLCert, "sslcert towards companions")
	fs.StringVar(&c.CompanionSSLKey, "companion_sslkey", c.CompanionSSLKey, "sslkey towards companions")
	fs.StringVar(&c.CompanionTokenFile, "companion_token_file", c.CompanionTokenFile, "file with the token that companions ask for; read with each connection to one")
	fs.TextVar(&c.CompanionMembers, "companion_members", c.CompanionMembers, "whether nodes that companions tell of are used although the DSN does not name them: `on | off`")
	return fs
}

// sessionAttrsKey is the one key that libpq knows too: the environment and the
// service file may give it another default than DefaultConfig.
const sessionAttrsKey = "target_session_attrs"

// A Key is a parameter of a DSN that helios itself understands.
type Key struct {
	Name    string // as written in a DSN
	Default string // as written in a DSN; "" for an empty list or name
	Values  string // what may be written, or an example; "" where Help suffices
	Help    string // one phrase for people
}

// Keys returns what helios itself understands in a DSN, by name. All other
// parameters are libpq's, pgx's or PostgreSQL's.
func Keys() []Key {
	var all []Key
	DefaultConfig().keys().VisitAll(func(f *flag.Flag) {
		all = append(all, describeFlag(f))
	})
	return all
}

// describeFlag takes the values in backquotes out of a flag's usage.
func describeFlag(f *flag.Flag) Key {
	k := Key{Name: f.Name, Default: f.DefValue, Help: f.Usage}
	if before, rest, ok := strings.Cut(f.Usage, ": `"); ok {
		k.Help, k.Values = before, strings.TrimSuffix(rest, "`")
	}
	return k
}

// GoString returns the text of String, so that %#v shows no password either.
func (c *Config) GoString() string { return c.String() }

// MarshalJSON returns the text of String as a JSON string: no password.
func (c *Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.String()) }

// Clone returns a copy that shares nothing with c.
func (c *Config) Clone() *Config {
	n := *c
	n.Hosts = slices.Clone(c.Hosts)
	n.Params = maps.Clone(c.Params)
	n.Zones = slices.Clone(c.Zones)
	n.Weights = slices.Clone(c.Weights)
	n.Companion = slices.Clone(c.Companion)
	return &n
}

// ZoneOf returns the zone of the i-th host, "" if none was given.
func (c *Config) ZoneOf(i int) string {
	if i >= len(c.Zones) {
		return ""
	}
	return c.Zones[i]
}

// WeightOf returns the share of reads of the i-th host, 1 if none was given.
func (c *Config) WeightOf(i int) int {
	if i >= len(c.Weights) {
		return 1
	}
	return c.Weights[i]
}

// primaryOnly reports whether target_session_attrs excludes replicas.
func (c *Config) primaryOnly() bool {
	return c.TargetSessionAttrs == TargetReadWrite || c.TargetSessionAttrs == TargetPrimary
}

// replicasOnly reports whether target_session_attrs excludes the primary.
func (c *Config) replicasOnly() bool {
	return c.TargetSessionAttrs == TargetReadOnly || c.TargetSessionAttrs == TargetStandby
}

// nameList is a list of names as a flag: separated by commas, nil if empty.
type nameList []string

// String implements [flag.Value].
func (l *nameList) String() string { return strings.Join(*l, ",") }

// Set implements [flag.Value].
func (l *nameList) Set(s string) error {
	*l = nil
	if s != "" {
		*l = strings.Split(s, ",")
	}
	return nil
}

// weightList is a list of whole numbers as a flag.
type weightList []int

// String implements [flag.Value].
func (l *weightList) String() string {
	texts := make([]string, len(*l))
	for i, w := range *l {
		texts[i] = strconv.Itoa(w)
	}
	return strings.Join(texts, ",")
}

// Set implements [flag.Value].
func (l *weightList) Set(s string) error {
	*l = nil
	if s == "" {
		return nil
	}
	for text := range strings.SplitSeq(s, ",") {
		w, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a list of whole numbers, such as 1,1,2", s)
		}
		*l = append(*l, w)
	}
	return nil
}
