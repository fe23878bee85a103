package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/wal/relay"
)

// What Config.Fencing may be.
const (
	// FencingStrict has commits wait while the companion is away.
	FencingStrict = "strict"
	// FencingRelaxed takes the gate off at an orderly end of the companion, so that
	// commits go on while it restarts, and puts it back at its start. Meanwhile
	// nothing holds back a primary that was left behind. Nor is a primary stopped that
	// hears of nobody, before it hears of another one.
	FencingRelaxed = "relaxed"
)

// A Config says which server an agent looks after, and how.
type Config struct {
	Name     string // of the member: what its standby is called at the primary
	DataDir  string // absolute
	StateDir string // what must not be forgotten; "" for DataDir + ".helios"

	Binaries  pgctl.Binaries
	Host      string // addresses that a server listens on which Found or CloneFrom makes; "" for 127.0.0.1
	Port      int    // of PostgreSQL; 0 leaves it what the server's configuration says
	SocketDir string // of PostgreSQL; "" leaves it what the configuration says, and is the data directory of a new server
	// Settings are those of all servers of the cluster besides what replication
	// needs, such as ssl = on.
	Settings map[string]string
	// HBA are lines that a server which Found makes gets at the end of pg_hba.conf:
	// who may come from other machines.
	HBA []string
	// Certificates is a directory with ca.crt, node.crt and node.key: a server that
	// Found or CloneFrom makes speaks TLS with them, and gets Role, who replicates and
	// rewinds. "" is for plain text.
	Certificates string
	Role         string
	Superuser    string // connects by the Unix socket without a password; "" for postgres

	Self      failover.Member
	Listener  net.Listener // where subscribers of the relay come in; nil for none
	RelayAddr string       // host:port of Listener for the local standby
	Relay     relay.Config // sizes, TLS and users; the agent sets the rest

	// PeerConn returns how another member's relay, or its PostgreSQL, is connected
	// to for replication.
	PeerConn func(m failover.Member, relay bool) (*pgconn.Config, error)
	// State returns what the log has come to, for whom else WAL can be had from and
	// which timelines were ever those of the cluster; nil if nobody knows.
	State func() *failover.State
	// Around asks all other companions that vote what they know. A primary without a
	// lease is stopped by what comes of it; nil never stops one.
	Around func(ctx context.Context) Around
	// Conninfo is what primary_conninfo has besides hosts, ports and the
	// application_name: the user, and what it takes to log in and to speak TLS.
	Conninfo string

	HealthInterval time.Duration // health_check_interval: how often PostgreSQL is asked
	HealthTimeout  time.Duration // health_check_timeout: how long it has to answer
	HardStopGrace  time.Duration // how long a primary without a lease goes on that does not hear the others; 0 for 3 s
	Fencing        string        // FencingStrict or FencingRelaxed

	strandedFor time.Duration // how long a standby asks in vain before it is made anew; 0 for 12 s

	Metrics Metrics // nil for nobody who counts
	Log     *slog.Logger
	Clock   func() time.Duration // nil for Boottime
}

// Metrics count what happens. *api.Metrics does.
type Metrics interface {
	// GateConfirmed is WAL that the gate has confirmed after it waited for d.
	GateConfirmed(d time.Duration)
	// Rejoined is a server that streams again after d, by method: follow, rewind or
	// reclone.
	Rejoined(method string, d time.Duration)
}

// uncounted is for nobody.
type uncounted struct{}

// GateConfirmed implements Metrics.
func (uncounted) GateConfirmed(time.Duration) {}

// Rejoined implements Metrics.
func (uncounted) Rejoined(string, time.Duration) {}

// suspiciousInterval is how soon PostgreSQL is asked again that has not answered.
const suspiciousInterval = 20 * time.Millisecond

func (c Config) withDefaults() Config {
	c.StateDir = cmp.Or(c.StateDir, filepath.Clean(c.DataDir)+".helios")
	c.Host = cmp.Or(c.Host, "127.0.0.1")
	c.Superuser = cmp.Or(c.Superuser, pgctl.Superuser)
	c.Conninfo = cmp.Or(c.Conninfo, "user="+c.Superuser)
	c.HealthInterval = cmp.Or(c.HealthInterval, time.Second)
	c.HealthTimeout = cmp.Or(c.HealthTimeout, time.Second)
	c.HardStopGrace = cmp.Or(c.HardStopGrace, 3*time.Second)
	c.Fencing = cmp.Or(c.Fencing, FencingStrict)
	c.strandedFor = cmp.Or(c.strandedFor, 12*time.Second)
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Metrics == nil {
		c.Metrics = uncounted{}
	}
	if c.Clock == nil {
		c.Clock = Boottime
	}
	return c
}

func (c Config) check() error {
	switch {
	case c.Name == "":
		return errors.New("agent: no name")
	case !filepath.IsAbs(c.DataDir):
		return fmt.Errorf("agent: data directory %q is not an absolute path", c.DataDir)
	case c.PeerConn == nil:
		return errors.New("agent: no way to connect to other members")
	case c.Fencing != FencingStrict && c.Fencing != FencingRelaxed:
		return fmt.Errorf("agent: fencing is %q, and must be strict or relaxed", c.Fencing)
	case c.HealthInterval < time.Millisecond || c.HealthTimeout < time.Millisecond || c.HardStopGrace < 0:
		return errors.New("agent: a time of the health check is negative, or shorter than a millisecond")
	}
	return nil
}

// gateName is what the relay is called at its source, and so the one synchronous
// standby of every primary.
const gateName = "helios"

// settings returns what every server of a cluster is run with. It is the same on
// all nodes, whatever they are at the moment: a promoted one starts gated.
func (c Config) settings() map[string]string {
	set := map[string]string{
		"max_wal_senders":              "32",
		"max_replication_slots":        "32",
		"wal_keep_size":                "1GB", // instead of slots: what a standby misses while it is away, and pg_rewind reads
		"wal_retrieve_retry_interval":  "500ms",
		"wal_receiver_timeout":         "10s",
		"wal_receiver_status_interval": "1s",
		"wal_sender_timeout":           "30s",
	}
	maps.Copy(set, c.Settings)
	maps.Copy(set, map[string]string{
		"hot_standby":               "on",
		"wal_log_hints":             "on",
		"recovery_target_timeline":  "latest",
		"synchronous_standby_names": gateName,
		fenceSetting:                "off",
	})
	return set
}
