package config

import (
	"flag"
	"log/slog"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/wal/relay"
)

// A Config is what one companion is told. It is a plain value: it comes from
// [Loader.Load], or starts as [Default], and is checked by [Config.Check].
type Config struct {
	Name      string   // of this node, for ever; also its id in the consensus and the application_name of its standby
	PGData    string   // data directory of the PostgreSQL beside the companion; "" for a witness
	State     string   // directory of what the companion has to remember
	Listen    string   // host:port: API, consensus and WAL relay
	Advertise string   // host:port by which other companions and drivers reach Listen
	Postgres  string   // host:port by which clients reach PostgreSQL; its port is what PostgreSQL is started on
	Join      []string // host:port of companions of the cluster to become a member of; none for a new cluster

	Witness     bool   // votes, and has no PostgreSQL
	Zone        string // where the node is; "" for nowhere in particular
	Priority    int    // among equals the highest is promoted
	NoCandidate bool   // is never promoted, unless by force
	NoSync      bool   // never counts for commits

	TLS           string  // directory with ca.crt, node.crt and node.key; "" for plain text
	TokenFile     string  // file with the token that orders need; "" for none
	ReadTokenFile string  // file with the token that questions need; "" lets everybody ask
	Insecure      bool    // plain text is accepted beyond this machine
	Network       Network // how far companions are apart

	PGBin         string        // directory of PostgreSQL's programs; "" to look for them
	Superuser     string        // of PostgreSQL, by whom the companion connects to its own server
	Fencing       Fencing       // what commits do while the companion itself is away
	HardStopGrace time.Duration // how long a primary without a lease goes on that does not hear most of the others

	HealthCheckInterval time.Duration // between two questions to PostgreSQL
	HealthCheckTimeout  time.Duration // after which one has failed
	LagMonitorInterval  time.Duration // between two reports of a replica
	LagThreshold        time.Duration // a replica that is older lags; 0 for never

	WALBufferSize     int64 // bytes of WAL that the relay keeps in memory
	WALBatchSize      int   // most bytes of WAL in one frame between two companions
	EnableCompression bool  // LZ4 between two companions

	Settings failover.Settings // of a new cluster

	LogLevel  slog.Level
	LogFormat LogFormat
}

// Fencing says what commits do while the companion itself is away.
type Fencing string

const (
	// FencingStrict lets commits wait: nobody is acknowledged what the cluster does
	// not know of.
	FencingStrict Fencing = "strict"
	// FencingRelaxed lets them go on while a companion restarts on purpose, and a primary
	// that is cut off is stopped only when it hears of another one.
	FencingRelaxed Fencing = "relaxed"
)

// A Network is how far companions are apart: how soon they replace one that leads and
// is not heard. Its values are profiles of [consensus.TimingsOf].
type Network string

// Networks.
const (
	NetworkLAN     Network = "lan"
	NetworkLANFast Network = "lan-fast" // quiet machines on one switch
	NetworkWAN     Network = "wan"
)

// A LogFormat is how a line of the log is written.
type LogFormat string

// Formats of a log.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Default returns what is used where nothing is said.
func Default() Config {
	wal := relay.DefaultConfig()
	return Config{
		Listen: "127.0.0.1:7101", Network: NetworkLAN,
		Superuser: "postgres", Fencing: FencingStrict, HardStopGrace: 3 * time.Second,
		HealthCheckInterval: 200 * time.Millisecond, HealthCheckTimeout: time.Second,
		LagMonitorInterval: 500 * time.Millisecond, LagThreshold: 5 * time.Second,
		WALBufferSize: wal.BufferSize, WALBatchSize: wal.BatchSize, EnableCompression: wal.Compression,
		Settings: failover.DefaultSettings(),
		LogLevel: slog.LevelInfo, LogFormat: LogText,
	}
}

// A Scope says whom a key is for.
type Scope string

const (
	// ScopeNode keys are each companion's own, and hold from its next start.
	ScopeNode Scope = "node"
	// ScopeCluster keys are what a new cluster begins with; later the cluster has
	// its own.
	ScopeCluster Scope = "cluster"
)

// key is one setting, bound to the field that has its value.
type key struct {
	name   string
	value  flag.Value
	help   string // one phrase
	values string // what may be written, or an example; "" where help suffices
	scope  Scope
}

// keys declares every key, bound to the fields of c, in the order in which people
// read them.
func (c *Config) keys() []key {
	return append(append(c.nodeKeys(), c.settingsKeys()...), c.tuningKeys()...)
}

// nodeKeys say who and where the node is.
func (c *Config) nodeKeys() []key {
	return []key{
		{"name", (*text)(&c.Name), "of this node, for ever; also the application_name of its standby", "n1", ScopeNode},
		{"pgdata", (*text)(&c.PGData), "data directory of the PostgreSQL beside the companion; an empty one is filled", "/var/lib/postgresql/n1", ScopeNode},
		{"state", (*text)(&c.State), "directory of what the companion remembers; beside pgdata, with .helios at its end, if not given", "/var/lib/postgresql/n1.helios", ScopeNode},
		{"listen", (*text)(&c.Listen), "address of the API, the consensus and the WAL relay", "host:port", ScopeNode},
		{"advertise", (*text)(&c.Advertise), "how others reach listen; the same if not given", "host:port", ScopeNode},
		{"postgres", (*text)(&c.Postgres), "how clients reach PostgreSQL, which is started on that port; advertise's host and 5432 if not given", "host:port", ScopeNode},
		{"join", (*list)(&c.Join), "companions of the cluster to become a member of; a new cluster is made if there is none", "host:port,host:port", ScopeNode},
		{"witness", (*boolean)(&c.Witness), "vote, and have no PostgreSQL", "", ScopeNode},
		{"zone", (*text)(&c.Zone), "where the node is; drivers prefer replicas of their own zone", "eu1a", ScopeNode},
		{"priority", (*integer)(&c.Priority), "among nodes that have the same WAL the highest is promoted", "", ScopeNode},
		{"nocandidate", (*boolean)(&c.NoCandidate), "never promote this node, unless by force", "", ScopeNode},
		{"nosync", (*boolean)(&c.NoSync), "never let commits wait for this node", "", ScopeNode},
		{"tls", (*text)(&c.TLS), "directory with ca.crt, node.crt and node.key, as helios cert makes them", "/etc/helios/tls", ScopeNode},
		{"token_file", (*text)(&c.TokenFile), "file with the token that orders through the API need", "/etc/helios/token", ScopeNode},
		{"read_token_file", (*text)(&c.ReadTokenFile), "file with the token that questions need; everybody may ask if not given", "/etc/helios/read_token", ScopeNode},
		{"insecure", (*boolean)(&c.Insecure), "take plain text from other machines, and ask nobody who they are: the network is trusted", "", ScopeNode},
		{"network", choice(&c.Network, NetworkLAN, NetworkLANFast, NetworkWAN), "how far companions are apart: how soon they replace a leader that is not heard", "lan | lan-fast | wan", ScopeNode},
		{"pg_bin", (*text)(&c.PGBin), "directory of PostgreSQL's programs; looked for if not given", "/usr/lib/postgresql/15/bin", ScopeNode},
		{"superuser", (*text)(&c.Superuser), "of PostgreSQL, as whom the companion connects to its own server", "", ScopeNode},
		{"fencing", choice(&c.Fencing, FencingStrict, FencingRelaxed), "whether commits wait while the companion itself restarts, and whether a primary that is cut off is stopped", "strict | relaxed", ScopeNode},
	}
}

// settingsKeys are those of the whole cluster.
func (c *Config) settingsKeys() []key {
	s := &c.Settings
	return []key{
		{"replication_mode", choice(&s.Mode, failover.Async, failover.Semisync), "what a commit waits for besides the primary's own disk: nothing, or k standbys", "async | semisync", ScopeCluster},
		{"k", (*integer)(&s.K), "semisync: how many standbys a commit waits for", "", ScopeCluster},
		{"min_replicas", (*integer)(&s.MinReplicas), "semisync: k may sink to this many while standbys are missing", "", ScopeCluster},
		{"auto_failover", (*boolean)(&s.AutoFailover), "fail over without being told", "", ScopeCluster},
		{"lease", (*duration)(&s.Lease), "how long a primary may confirm commits without hearing from the cluster: the time that a silent fault costs", "", ScopeCluster},
		{"max_failover_lag", SizeOf(&s.MaxLag), "async: WAL that an elected standby may be known to lack; 0 is any", "", ScopeCluster},
		{"seal_budget", (*duration)(&s.SealBudget), "how long the last standbys' answers are waited for before one is elected", "", ScopeCluster},
		{"promote_budget", (*duration)(&s.PromoteBudget), "how long a promotion may take before the next candidate has its turn", "", ScopeCluster},
		{"stop_budget", (*duration)(&s.StopBudget), "how long a switchover waits for the old primary to stop", "", ScopeCluster},
	}
}

// tuningKeys say how the node watches, moves WAL and logs.
func (c *Config) tuningKeys() []key {
	return []key{
		{"health_check_interval", (*duration)(&c.HealthCheckInterval), "time between two questions to PostgreSQL", "", ScopeNode},
		{"health_check_timeout", (*duration)(&c.HealthCheckTimeout), "after which one has failed", "", ScopeNode},
		{"hard_stop_grace", (*duration)(&c.HardStopGrace), "how long a primary goes on after its lease if so many companions are not heard that they may have elected another one; then PostgreSQL is stopped hard", "", ScopeNode},
		{"lag_monitor_interval", (*duration)(&c.LagMonitorInterval), "time between two reports of a replica", "", ScopeNode},
		{"lag_threshold", (*duration)(&c.LagThreshold), "a replica whose data is older lags: load balancers are told so; 0 is never", "", ScopeNode},
		{"wal_buffer_size", SizeOf(&c.WALBufferSize), "WAL that the relay keeps in memory; it is taken as it is needed", "", ScopeNode},
		{"wal_batch_size", SizeOf(&c.WALBatchSize), "most WAL in one frame between two companions", "", ScopeNode},
		{"enable_compression", (*boolean)(&c.EnableCompression), "LZ4 between two companions, where it pays", "", ScopeNode},
		{"log_level", (*level)(&c.LogLevel), "what is logged", "debug | info | warn | error", ScopeNode},
		{"log_format", choice(&c.LogFormat, LogText, LogJSON), "how it is written", "text | json", ScopeNode},
	}
}

// A Key describes one setting.
type Key struct {
	Name    string
	Default string // as written in the file; "" for none
	Values  string // what may be written, or an example; "" where Help suffices
	Help    string // one phrase for people
	Scope   Scope
}

// Keys returns all keys, in the order in which people read them.
func Keys() []Key {
	c := Default()
	var all []Key
	for _, k := range c.keys() {
		all = append(all, Key{Name: k.name, Default: k.value.String(), Values: k.values, Help: k.help, Scope: k.scope})
	}
	return all
}

// Member returns the node as the cluster knows it.
func (c *Config) Member() failover.Member {
	return failover.Member{
		Name: c.Name, Companion: c.Advertise, Postgres: c.Postgres, Zone: c.Zone, Priority: c.Priority,
		Witness: c.Witness, NoCandidate: c.NoCandidate, NoSync: c.NoSync,
	}
}
