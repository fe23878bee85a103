package helios

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ConnConfig returns how pgx connects to h, and to h only: its Fallbacks are
// the attempts that sslmode allow and prefer make at the same host. The server
// name for TLS and the entry of the password file are those of h; the service
// file and PG* variables say what c does not. target_session_attrs is not in
// it: the driver looks at the node's role itself, without a query for each
// connection. h need not be one of c.Hosts.
func (c *Config) ConnConfig(h Host) (*pgx.ConnConfig, error) {
	conf, err := c.connConfig(h)
	if err != nil {
		return nil, fmt.Errorf("helios: %w", err)
	}
	return conf, nil
}

// connConfig is ConnConfig without the prefix of its errors.
func (c *Config) connConfig(h Host) (*pgx.ConnConfig, error) {
	dsn := formatKeywords(slices.Concat(c.public(), []pair{
		{"host", h.Host},
		{"port", strconv.Itoa(int(h.Port))},
		{sessionAttrsKey, TargetAny.String()},
	}))
	conf, err := pgx.ParseConfigWithOptions(dsn, pgx.ParseConfigOptions{ParseConfigOptions: c.secrets()})
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", h, withoutDSN(err))
	}
	if err := refuseOwn(conf.RuntimeParams); err != nil {
		return nil, err
	}
	if c.Password != "" {
		conf.Password = c.Password
	}
	return conf, nil
}

// public returns what pgx parses of c: everything but hosts and secrets, since
// it quotes what it cannot parse.
func (c *Config) public() []pair {
	all := slices.DeleteFunc(c.passedOn(), func(s pair) bool { return s.key == "sslpassword" })
	if c.User != "" {
		all = append(all, pair{"user", c.User})
	}
	if c.Database != "" {
		all = append(all, pair{"dbname", c.Database})
	}
	return all
}

// secrets gives pgx the password of the client key when it asks for one.
func (c *Config) secrets() pgconn.ParseConfigOptions {
	password, ok := c.Params["sslpassword"]
	if !ok {
		return pgconn.ParseConfigOptions{}
	}
	return pgconn.ParseConfigOptions{GetSSLPassword: func(context.Context) string { return password }}
}

// discover sets what may come from the environment or a service file and must
// be known before the first connection: the hosts, and which of them to use.
func (c *Config) discover(s pairs) error {
	all := c.public()
	for _, key := range []string{"host", "port"} {
		if value, given := s[key]; given {
			all = append(all, pair{key, value})
		}
	}
	for _, key := range []string{"sslrootcert", "sslcert", "sslkey"} {
		all = append(all, pair{key, ""}) // read for each host, later
	}
	all = append(all, pair{"sslmode", "disable"}) // makes one entry a host
	conf, err := pgconn.ParseConfig(formatKeywords(all))
	if err != nil {
		return withoutDSN(err)
	}
	if err := refuseOwn(conf.RuntimeParams); err != nil {
		return err
	}
	c.Hosts = append(c.Hosts, Host{conf.Host, conf.Port})
	for _, f := range conf.Fallbacks {
		c.Hosts = append(c.Hosts, Host{f.Host, f.Port})
	}
	if _, given := s[sessionAttrsKey]; !given {
		c.TargetSessionAttrs = attrsOf(conf.ValidateConnect)
	}
	return nil
}

// validators are how pgx tells the values of target_session_attrs apart.
var validators = map[SessionAttrs]pgconn.ValidateConnectFunc{
	TargetReadWrite:     pgconn.ValidateConnectTargetSessionAttrsReadWrite,
	TargetReadOnly:      pgconn.ValidateConnectTargetSessionAttrsReadOnly,
	TargetPrimary:       pgconn.ValidateConnectTargetSessionAttrsPrimary,
	TargetStandby:       pgconn.ValidateConnectTargetSessionAttrsStandby,
	TargetPreferStandby: pgconn.ValidateConnectTargetSessionAttrsPreferStandby,
}

// attrsOf returns the target_session_attrs that pgx found in the environment or
// a service file. It keeps no more of it than the check it would make.
func attrsOf(check pgconn.ValidateConnectFunc) SessionAttrs {
	for attrs, f := range validators {
		if reflect.ValueOf(f).Pointer() == reflect.ValueOf(check).Pointer() {
			return attrs
		}
	}
	return TargetAny
}

// refuseOwn refuses keys of ours that came from a service file: pgx would send
// them to the server. libpq's load_balance_hosts is no server's either, and a
// service file shared with libpq may well have it.
func refuseOwn(params map[string]string) error {
	delete(params, "load_balance_hosts")
	own := DefaultConfig().keys()
	for key := range params {
		if own.Lookup(key) != nil {
			return keyError(key, "belongs into the DSN, not into a service file")
		}
	}
	return nil
}

// withoutDSN cuts the connection string off pgx's error: it is ours, not the
// one that the user wrote.
func withoutDSN(err error) error {
	parse, ok := errors.AsType[*pgconn.ParseConfigError](err)
	if !ok {
		return err
	}
	return errors.New(strings.TrimPrefix(parse.Error(), fmt.Sprintf("cannot parse `%s`: ", parse.ConnString)))
}
