package helios

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/heliosdb/helios/internal/spelling"
)

// fieldKeys are the keys that say where to connect and as whom. They have
// fields in Config and no default of ours.
var fieldKeys = []string{"host", "port", "user", "password", "dbname", "database"}

// anyText and wholeNumber stand in passedOnKeys for values that are not listed.
const (
	anyText     = ""
	wholeNumber = "a whole number"
)

// passedOnKeys are the parameters that pgx acts on, with their values.
var passedOnKeys = map[string]string{
	"channel_binding":            "disable | prefer | require",
	"connect_timeout":            wholeNumber, // seconds
	"default_query_exec_mode":    "cache_statement | cache_describe | describe_exec | exec | simple_protocol",
	"description_cache_capacity": wholeNumber,
	"krbspn":                     anyText,
	"krbsrvname":                 anyText,
	"max_protocol_version":       "3.0 | 3.2 | latest",
	"min_protocol_version":       "3.0 | 3.2 | latest",
	"options":                    anyText,
	"passfile":                   anyText,
	"require_auth":               anyText,
	"service":                    anyText,
	"servicefile":                anyText,
	"sslcert":                    anyText,
	"sslcertmode":                "disable | allow | require",
	"sslkey":                     anyText,
	"sslmode":                    "disable | allow | prefer | require | verify-ca | verify-full",
	"sslnegotiation":             "postgres | direct",
	"sslpassword":                anyText,
	"sslrootcert":                anyText,
	"sslsni":                     "0 | 1",
	"statement_cache_capacity":   wholeNumber,
}

// libpqOnlyKeys are parameters of libpq that pgx does not act on: it would send
// them to the server, which refuses the connection.
var libpqOnlyKeys = strings.Fields(`
	fallback_application_name gssdelegation gssencmode gsslib hostaddr
	keepalives keepalives_count keepalives_idle keepalives_interval
	oauth_client_id oauth_client_secret oauth_issuer oauth_scope replication
	requirepeer requiressl scram_client_key scram_server_key
	ssl_max_protocol_version ssl_min_protocol_version sslcompression sslcrl
	sslcrldir sslkeylogfile`)

// checkParam refuses a parameter that is to be passed on but that nobody knows,
// or whose value pgx would refuse. Values of server parameters are the server's
// business.
func checkParam(key, value string) error {
	values, known := passedOnKeys[key]
	switch {
	case known && values == wholeNumber:
		if n, err := strconv.ParseUint(value, 10, 31); err != nil || n > 1<<30 {
			return keyError(key, "%q is not a whole number", value)
		}
		return nil
	case known && values == anyText:
		return nil
	case known:
		return oneOf(key, value, values)
	case slices.Contains(libpqOnlyKeys, key):
		return keyError(key, "pgx does not implement this parameter of libpq; leave it out")
	case serverParams()[strings.ToLower(key)] || customParam(key):
		return nil
	}
	return unknownKey(key)
}

// oneOf refuses a value that is not among values, which are separated by " | ".
func oneOf(key, value, values string) error {
	if slices.Contains(strings.Split(values, " | "), value) {
		return nil
	}
	return keyError(key, "%q is not one of %s", value, values)
}

// customParam reports whether key can be the name of a parameter of an
// extension or application: PostgreSQL wants identifiers joined by dots.
func customParam(key string) bool {
	parts := strings.Split(key, ".")
	return len(parts) > 1 && !slices.ContainsFunc(parts, func(part string) bool {
		return part == "" || strings.Trim(strings.ToLower(part), "abcdefghijklmnopqrstuvwxyz0123456789_$") != "" ||
			strings.IndexByte("0123456789$", part[0]) >= 0
	})
}

// secret reports whether the value of key must not be shown.
func secret(key string) bool {
	key = strings.ToLower(key)
	return (strings.Contains(key, "password") || strings.Contains(key, "secret")) && !serverParams()[key]
}

// unknownKey names the nearest keys there are.
func unknownKey(key string) error {
	near := nearest(key, 3)
	if len(near) == 0 {
		return keyError(key, "unknown key")
	}
	return keyError(key, "unknown key; did you mean %s?", strings.Join(near, " or "))
}

// nearest returns up to n allowed keys that a slip of the finger turns into key,
// the nearest first and among equals ours first.
func nearest(key string, n int) []string {
	type match struct {
		name     string
		distance int
	}
	var found []match
	key = strings.ToLower(key)
	for _, name := range allowedKeys() {
		if d := spelling.Distance(key, strings.ToLower(name)); d <= max(1, min(len(key), len(name))/3) {
			found = append(found, match{name, d})
		}
	}
	slices.SortStableFunc(found, func(a, b match) int { return cmp.Compare(a.distance, b.distance) })
	var names []string
	for _, m := range found[:min(n, len(found))] {
		if m.distance <= found[0].distance+1 {
			names = append(names, m.name)
		}
	}
	return names
}

// allowedKeys are all keys a DSN may have, ours first.
func allowedKeys() []string {
	var all []string
	for _, k := range Keys() {
		all = append(all, k.Name)
	}
	all = append(append(all, fieldKeys...), "load_balance_hosts")
	all = append(all, slices.Sorted(maps.Keys(passedOnKeys))...)
	return append(all, slices.Sorted(maps.Keys(serverParams()))...)
}

// serverParams are the names of serverParamNames, in lower case: PostgreSQL
// does not care about theirs.
var serverParams = sync.OnceValue(func() map[string]bool {
	all := map[string]bool{}
	for name := range strings.FieldsSeq(serverParamNames) {
		all[strings.ToLower(name)] = true
	}
	return all
})
