package helios

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ParseDSN reads a connection string, either a URL or keywords:
//
//	helios://app:secret@db1,db2:5433,[::1]/shop?consistency=strong
//	host=db1,db2 port=5432,5433 user=app password='a b' dbname=shop
//
// The rules of both forms are libpq's: one port for all hosts or one for each,
// Unix sockets as absolute directories (percent-encoded in a URL), the last of
// several equal keys wins. The schemes postgres, postgresql and postgres-helios
// mean the same as helios. What dsn does not say comes from PG* environment
// variables, the service file and the password file as with pgx.
//
// Parameters are those of [Keys], those that libpq and pgx share, and those of
// PostgreSQL that a client may set; a name with a dot is PostgreSQL's custom
// parameter. Other names are refused. libpq's load_balance_hosts=random means
// balance=random unless dsn has a balance; with disable reads are still
// balanced, over replicas only.
//
// Files named in dsn (certificates, service file) are read, nothing is sent.
// An error is a [*KeyError] if one key is to blame, and never holds a password.
func ParseDSN(dsn string) (*Config, error) {
	c, err := parseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("helios: dsn: %w", err)
	}
	return c, nil
}

// A KeyError says which key of a DSN, or which field of a Config, is wrong and
// what is allowed.
type KeyError struct {
	Key string // as written in a DSN
	Err error
}

// Error returns the key and what is wrong with it.
func (e *KeyError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap returns what is wrong with the key.
func (e *KeyError) Unwrap() error { return e.Err }

// keyError returns a KeyError with a text.
func keyError(key, format string, args ...any) error {
	return &KeyError{key, fmt.Errorf(format, args...)}
}

// errMislaid stands for any error in a URL whose parts are torn apart by a
// character of the password: to quote one of them would show the password.
var errMislaid = errors.New("an @ after the hosts hides what is wrong: write @ as %40, and in a user or password also / as %2F and : as %3A")

// parseDSN is ParseDSN without the prefix of its errors.
func parseDSN(dsn string) (*Config, error) {
	all, err := parseForm(dsn)
	if err != nil {
		return nil, err
	}
	c, err := all.config()
	if err != nil && mislaid(dsn) {
		return nil, errMislaid
	}
	return c, err
}

// parseForm takes dsn apart, whichever form it has.
func parseForm(dsn string) (pairs, error) {
	scheme, rest, isURL := cutScheme(dsn)
	if !isURL {
		return parseKeywords(dsn)
	}
	if !slices.Contains(schemes, scheme) {
		return nil, fmt.Errorf("a URL starts with one of %s://", strings.Join(schemes, "://, "))
	}
	all, err := parseURL(rest)
	if err != nil && mislaid(dsn) {
		return nil, errMislaid
	}
	return all, err
}

// mislaid reports whether an @ follows where user and password have ended, so
// that part of the password may stand in another place.
func mislaid(dsn string) bool {
	_, rest, isURL := cutScheme(dsn)
	if !isURL {
		return false
	}
	_, rest = cutBefore(rest, "@/")
	return strings.Contains(strings.TrimPrefix(rest, "@"), "@")
}

// config turns pairs into a checked Config.
func (s pairs) config() (*Config, error) {
	c := DefaultConfig()
	if err := s.fill(c); err != nil {
		return nil, err
	}
	if err := c.discover(s); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	for _, h := range c.Hosts {
		if _, err := c.connConfig(h); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// fill sets all of c but the hosts.
func (s pairs) fill(c *Config) error {
	own := c.keys()
	fields := map[string]*string{"user": &c.User, "password": &c.Password, "database": &c.Database}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		value := s[key]
		switch {
		case key == "host" || key == "port":
		case fields[key] != nil:
			*fields[key] = value
		case own.Lookup(key) != nil:
			if err := setFlag(own.Lookup(key), value); err != nil {
				return err
			}
		case key == "load_balance_hosts":
			if err := s.balanceHosts(own); err != nil {
				return err
			}
		default:
			if err := checkParam(key, value); err != nil {
				return err
			}
			c.Params[key] = value
		}
	}
	return s.checkPorts()
}

// balanceHosts translates libpq's load_balance_hosts.
func (s pairs) balanceHosts(own *flag.FlagSet) error {
	if err := oneOf("load_balance_hosts", s["load_balance_hosts"], "disable | random"); err != nil {
		return err
	}
	if _, given := s["balance"]; given || s["load_balance_hosts"] == "disable" {
		return nil
	}
	return setFlag(own.Lookup("balance"), "random")
}

// checkPorts refuses what is no list of ports, without quoting it: a password
// with a colon may have strayed there.
func (s pairs) checkPorts() error {
	for i, port := range strings.Split(s["port"], ",") {
		if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
			return keyError("port", "number %d in the list is not a port from 1 to 65535", i+1)
		}
	}
	return nil
}

const durationHint = "a duration with its unit (ms, s, m or h), such as 200ms"

// setFlag sets one of our keys; its error says what is allowed.
func setFlag(f *flag.Flag, value string) error {
	err := f.Value.Set(value)
	if err == nil {
		return nil
	}
	if getter, ok := f.Value.(flag.Getter); ok {
		switch getter.Get().(type) {
		case time.Duration:
			return keyError(f.Name, "%q is not %s", value, durationHint)
		case int:
			return keyError(f.Name, "%q is not a whole number", value)
		}
	}
	return &KeyError{f.Name, err}
}

// DSN returns c as a URL. For a c that Check accepts, ParseDSN(c.DSN()) equals
// c. It contains the password: for logs there is [Config.String].
func (c *Config) DSN() string {
	params := c.declared()
	if c.TargetSessionAttrs == TargetAny { // the environment may say otherwise
		params = append(params, pair{sessionAttrsKey, TargetAny.String()})
	}
	return formatURL(c, params)
}

// String returns c as a URL for people: passwords are replaced by xxxxx, and
// what is as in DefaultConfig is left out.
func (c *Config) String() string {
	public := c.Clone()
	if public.Password != "" {
		public.Password = masked
	}
	for key := range public.Params {
		if secret(key) {
			public.Params[key] = masked
		}
	}
	return formatURL(public, public.declared())
}

// LogValue implements [slog.LogValuer] with the text of String.
func (c *Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// masked stands for a password in what people read.
const masked = "xxxxx"

// declared returns the parameters of c that are not as in DefaultConfig: our
// own, then those passed on, each by name.
func (c *Config) declared() []pair {
	var all []pair
	usual := DefaultConfig().keys()
	c.keys().VisitAll(func(f *flag.Flag) {
		if f.DefValue != usual.Lookup(f.Name).DefValue {
			all = append(all, pair{f.Name, f.Value.String()})
		}
	})
	return append(all, c.passedOn()...)
}

// passedOn returns the parameters that are not ours, by name.
func (c *Config) passedOn() []pair {
	var all []pair
	for _, key := range slices.Sorted(maps.Keys(c.Params)) {
		all = append(all, pair{key, c.Params[key]})
	}
	return all
}
