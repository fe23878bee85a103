package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/heliosdb/helios/failover/consensus"
)

// Bounds of what makes sense.
const (
	shortLease         = time.Second // below it is a warning
	checksPerLease     = 4           // a hung server is noticed within a lease
	heartbeatsPerLease = 4           // a lost leader is replaced within one
	electionsPerLease  = 2           // less, and it is not even where nothing else goes wrong
	smallestBuffer     = 1 << 20
	smallestBatch      = 8 << 10
	largestBatch       = 1 << 20
	largestPriority    = 1000
)

// nodeName is what may name a node: it stands in SQL, in addresses of the API and in
// names of files.
var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)

// derive fills in what follows from the rest, and makes paths absolute.
func (c *Config) derive() {
	if c.State == "" && c.PGData != "" {
		c.State = filepath.Clean(c.PGData) + ".helios"
	}
	for _, path := range []*string{&c.PGData, &c.State, &c.TLS, &c.TokenFile, &c.ReadTokenFile, &c.PGBin} {
		if absolute, err := filepath.Abs(*path); err == nil && *path != "" {
			*path = absolute
		}
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if c.Advertise == "" && err == nil && !everywhere(host) {
		c.Advertise = c.Listen
	}
	if host, _, err := net.SplitHostPort(c.Advertise); c.Postgres == "" && err == nil && !c.Witness {
		c.Postgres = net.JoinHostPort(host, "5432")
	}
}

// everywhere reports whether a listener at host can be reached at every address of the
// machine, so that host is none of them.
func everywhere(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// onlyHere reports whether nothing but this machine reaches host.
func onlyHere(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Check returns everything that cannot be, each with the key and what to do.
func (c *Config) Check() error {
	return errors.Join(c.checkNode(), c.checkAddresses(), c.checkTransport(), c.checkTuning(), c.Settings.Check(), c.checkOwnLease())
}

// checkNode is about who the node is.
func (c *Config) checkNode() error {
	switch {
	case c.Name == "":
		return errors.New("name: not given; call the node something that stays, such as --name n1")
	case !nodeName.MatchString(c.Name):
		return fmt.Errorf("name: %q cannot name a node; use letters, digits, dots, dashes and underscores", c.Name)
	case strings.EqualFold(c.Name, "helios"):
		return errors.New("name: helios is what the companion itself is called at PostgreSQL; choose another one")
	case c.Witness && c.PGData != "":
		return errors.New("pgdata: a witness has no PostgreSQL; leave out pgdata, or witness")
	case c.Witness && c.State == "":
		return errors.New("state: not given; a witness has no pgdata beside which it could remember, so name a directory with --state")
	case !c.Witness && c.PGData == "":
		return errors.New("pgdata: not given; name PostgreSQL's data directory, an empty one to have it made, or be a --witness")
	case c.Witness:
		return nil
	case c.State == c.PGData || strings.HasPrefix(c.State, c.PGData+string(filepath.Separator)):
		return errors.New("state: is inside of pgdata, which pg_rewind and clones write over; choose a directory beside it")
	case c.Superuser == "":
		return errors.New("superuser: is empty; name PostgreSQL's, such as postgres")
	case c.Priority < 0 || c.Priority > largestPriority:
		return fmt.Errorf("priority: is %d; must be from 0 to %d, and nocandidate is for nodes that are never promoted", c.Priority, largestPriority)
	}
	return nil
}

// checkAddresses is about where the node is.
func (c *Config) checkAddresses() error {
	if err := checkAddress("listen", c.Listen); err != nil {
		return err
	}
	if c.Advertise == "" {
		return fmt.Errorf("advertise: not given, and %s is no address that others can use; say how they reach this machine, such as --advertise db1:7101", c.Listen)
	}
	if err := checkAddress("advertise", c.Advertise); err != nil {
		return err
	}
	if err := checkAddress("postgres", c.Postgres); !c.Witness && err != nil {
		return err
	}
	for _, join := range c.Join {
		if err := checkAddress("join", join); err != nil {
			return err
		}
	}
	if host, _, err := net.SplitHostPort(c.Advertise); err != nil || everywhere(host) {
		return fmt.Errorf("advertise: %s is no address that others can use; say how they reach this machine", c.Advertise)
	}
	if !c.Witness && c.Postgres == c.Advertise {
		return errors.New("postgres: is the companion's own address; PostgreSQL needs a port of its own")
	}
	return nil
}

// checkAddress wants host:port.
func checkAddress(key, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%s: %q is not host:port", key, address)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%s: %q has no port between 1 and 65535", key, address)
	}
	return nil
}

// checkTransport is about who can listen in.
func (c *Config) checkTransport() error {
	host, _, _ := net.SplitHostPort(c.Listen) // whose error checkAddresses tells
	switch {
	case c.TLS != "" && c.Insecure:
		return errors.New("insecure: contradicts tls; leave out one of them")
	case c.TLS == "" && !c.Insecure && !onlyHere(host):
		return fmt.Errorf("tls: not given, and %s can be reached from other machines; make certificates with helios cert and name their directory with --tls, or say --insecure", c.Listen)
	}
	return nil
}

// checkTuning is about sizes and times of this node.
func (c *Config) checkTuning() error {
	for _, k := range []struct {
		name  string
		value time.Duration
	}{
		{"health_check_interval", c.HealthCheckInterval},
		{"health_check_timeout", c.HealthCheckTimeout},
		{"lag_monitor_interval", c.LagMonitorInterval},
	} {
		if k.value < 10*time.Millisecond {
			return fmt.Errorf("%s: is %s; must be 10ms or more", k.name, formatDuration(k.value))
		}
	}
	switch {
	case c.HardStopGrace < 100*time.Millisecond:
		return fmt.Errorf("hard_stop_grace: is %s; must be 100ms or more; fencing = relaxed is for a primary that is not stopped upon a suspicion", formatDuration(c.HardStopGrace))
	case c.LagThreshold < 0:
		return errors.New("lag_threshold: must not be negative")
	case c.WALBufferSize < smallestBuffer:
		return errors.New("wal_buffer_size: must be 1MB or more")
	case c.WALBatchSize < smallestBatch || c.WALBatchSize > largestBatch:
		return errors.New("wal_batch_size: must be from 8kB to 1MB")
	case int64(c.WALBatchSize) > c.WALBufferSize:
		return errors.New("wal_batch_size: is more than wal_buffer_size; lower it")
	}
	return nil
}

// checkOwnLease compares the lease that is configured with what the node does within it.
func (c *Config) checkOwnLease() error {
	if !c.founds() {
		return c.checkHealth(c.Settings.Lease)
	}
	return c.CheckLease(c.Settings.Lease)
}

// CheckLease says why a lease, that a cluster has or is to have, does not go with what this
// node is configured for; nil if it does.
func (c *Config) CheckLease(lease time.Duration) error {
	if err := c.checkHealth(lease); err != nil {
		return err
	}
	timings, err := consensus.TimingsOf(string(c.Network))
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if needed := electionsPerLease * timings.Election; lease <= needed {
		return fmt.Errorf("lease: is %s; with network = %s it must be more than %s, or a primary loses it whenever another companion comes to lead: raise lease, %s is enough",
			formatDuration(lease), c.Network, formatDuration(needed), formatDuration(heartbeatsPerLease*timings.Heartbeat))
	}
	return nil
}

// checkHealth compares a lease with how often PostgreSQL is looked after.
func (c *Config) checkHealth(lease time.Duration) error {
	if needed := checksPerLease * c.HealthCheckInterval; lease < needed {
		return fmt.Errorf("lease: is %s; must be at least %d times health_check_interval (%s), or a hung PostgreSQL is noticed later than a silent machine: raise lease to %s, or lower health_check_interval",
			formatDuration(lease), checksPerLease, formatDuration(c.HealthCheckInterval), formatDuration(needed))
	}
	return nil
}

// founds reports whether the lease is what the cluster will have: who joins one takes
// what that has.
func (c *Config) founds() bool { return len(c.Join) == 0 }
