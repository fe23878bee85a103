package helios

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/heliosdb/helios/router"
)

// Check returns the first thing in c that is out of range or contradicts
// something else, as a [*KeyError] that says what is allowed. It looks at
// values only, not at files or the environment.
func (c *Config) Check() error {
	if err := c.check(); err != nil {
		return fmt.Errorf("helios: config: %w", err)
	}
	return nil
}

// check is Check without the prefix of its errors.
func (c *Config) check() error {
	return cmp.Or(
		c.checkHosts(),
		c.checkText(),
		c.checkParams(),
		c.checkOwn(),
		c.checkLists(),
		c.checkCompanions(),
		c.checkDurations(),
		c.checkNumbers(),
		c.checkConsistency(),
		c.checkReach(),
	)
}

func (c *Config) checkHosts() error {
	if len(c.Hosts) == 0 {
		return keyError("host", "at least one is needed")
	}
	if len(c.Hosts) > router.MaxBackends {
		return keyError("host", "%d hosts are more than %d", len(c.Hosts), router.MaxBackends)
	}
	for i, h := range c.Hosts {
		if h.Host == "" || strings.Contains(h.Host, ",") {
			return keyError("host", "%q is neither a name, an address nor an absolute directory", h.Host)
		}
		if h.Port == 0 {
			return keyError("port", "the port of %s must be from 1 to 65535", h.Host)
		}
		if slices.ContainsFunc(c.Hosts[:i], h.same) {
			return keyError("host", "%s is named twice", h)
		}
	}
	return nil
}

// checkText refuses zero bytes: the protocol cannot carry them.
func (c *Config) checkText() error {
	all := append(c.passedOn(), pair{"user", c.User}, pair{"password", c.Password}, pair{"database", c.Database})
	for _, h := range c.Hosts {
		all = append(all, pair{"host", h.Host})
	}
	for _, s := range all {
		if strings.Contains(s.value, "\x00") {
			return keyError(s.key, "must not contain a zero byte")
		}
	}
	return nil
}

func (c *Config) checkParams() error {
	own := c.Clone().keys()
	for _, key := range slices.Sorted(maps.Keys(c.Params)) {
		if own.Lookup(key) != nil || slices.Contains(fieldKeys, key) {
			return keyError(key, "has a field of its own in Config")
		}
		if err := checkParam(key, c.Params[key]); err != nil {
			return err
		}
	}
	return nil
}

// checkOwn refuses fields whose value has no text, such as Fallback(7).
func (c *Config) checkOwn() error {
	var first error
	c.Clone().keys().VisitAll(func(f *flag.Flag) {
		first = cmp.Or(first, setFlag(f, f.Value.String()))
	})
	return first
}

func (c *Config) checkLists() error {
	if err := c.checkZones(); err != nil {
		return err
	}
	if n := len(c.Weights); n > 0 && n != len(c.Hosts) {
		return keyError("weights", "%d weights for %d hosts; give one for each host", n, len(c.Hosts))
	}
	for _, w := range c.Weights {
		if w < 1 || w > 1000 {
			return keyError("weights", "%d is not from 1 to 1000", w)
		}
	}
	return nil
}

func (c *Config) checkZones() error {
	if n := len(c.Zones); n > 0 && n != len(c.Hosts) {
		return keyError("zones", "%d zones for %d hosts; give one for each host, empty for none", n, len(c.Hosts))
	}
	if len(c.Zones) == 1 && c.Zones[0] == "" {
		return keyError("zones", "leave it out instead of naming one empty zone")
	}
	for _, zone := range append(slices.Clone(c.Zones), c.Zone) {
		if strings.Contains(zone, ",") {
			return keyError("zone", "%q must not contain a comma", zone)
		}
	}
	return nil
}

func (c *Config) checkDurations() error {
	for _, d := range []struct {
		key        string
		value, min time.Duration
	}{
		{"max_lag", c.MaxLag, 0},
		{"failover_wait", c.FailoverWait, 0},
		{"probe_interval", c.ProbeInterval, time.Millisecond},
		{"probe_timeout", c.ProbeTimeout, time.Millisecond},
		{"session_timeout", c.SessionTimeout, time.Millisecond},
	} {
		if d.value < d.min {
			return keyError(d.key, "%v must be at least %v", d.value, d.min)
		}
	}
	return nil
}

// mostConns is the largest max_connections of a PostgreSQL server.
const mostConns = 262143

func (c *Config) checkNumbers() error {
	for _, n := range []struct {
		key             string
		value, min, max int
	}{
		{"pool_max_conns", c.PoolMaxConns, 1, mostConns},
		{"pool_min_conns", c.PoolMinConns, 0, mostConns},
		{"max_dials", c.MaxDials, 1, mostConns},
		{"min_replicas", c.MinReplicas, 0, mostConns},
	} {
		if n.value < n.min || n.value > n.max {
			return keyError(n.key, "%d is not from %d to %d", n.value, n.min, n.max)
		}
	}
	if c.PoolMinConns > c.PoolMaxConns {
		return keyError("pool_min_conns", "%d is more than pool_max_conns=%d", c.PoolMinConns, c.PoolMaxConns)
	}
	if c.MinReplicas >= len(c.Hosts) && len(c.Companion) == 0 {
		return keyError("min_replicas", "%d replicas and a primary are more than the %d hosts: no write would be accepted", c.MinReplicas, len(c.Hosts))
	}
	return nil
}

func (c *Config) checkConsistency() error {
	if c.Consistency == PerSession && c.LSN == LSNOff {
		return keyError("lsn", "off contradicts consistency=session, which needs the position of writes; use eager or lazy, or another consistency")
	}
	return nil
}

// checkReach refuses reads from a node that target_session_attrs excludes.
func (c *Config) checkReach() error {
	if c.replicasOnly() && c.Consistency == Strong {
		return keyError("consistency", "strong reads from the primary, which %s=%v excludes", sessionAttrsKey, c.TargetSessionAttrs)
	}
	return nil
}
