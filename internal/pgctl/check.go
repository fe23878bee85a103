package pgctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A Problem is something about a server that is in the way of replication or
// failover, in words for its operator.
type Problem struct {
	What  string
	Hint  string // how to mend it
	Fatal bool   // the server cannot be looked after as it is
}

// CheckOptions say what a server is checked for.
type CheckOptions struct {
	// Nodes is how many servers the cluster has, or is to have.
	Nodes int
	// Gate is what synchronous_standby_names may be set to; it may be empty, too.
	Gate string
	// Replication is a connection string by which other nodes would replicate from
	// the server: it is tried. "" tries nothing.
	Replication string
	// Host is the address that the others reach the server at; "" is not checked.
	Host string
}

// Check looks for what is in the way of replication and failover on a running
// server, the worst first. An error means that it could not look further.
func (i *Instance) Check(ctx context.Context, opt CheckOptions) ([]Problem, error) {
	conn, err := i.Connect(ctx)
	if err != nil {
		if p, understood := i.explainRefusal(err); understood {
			return []Problem{p}, nil
		}
		return nil, err
	}
	defer conn.Close(ctx) //nolint:errcheck // the answers have come
	f, err := askFacts(ctx, conn)
	if err != nil {
		return nil, i.failed(err)
	}
	problems := f.problems(opt)
	if opt.Replication != "" {
		problems = append(problems, tryReplication(ctx, opt.Replication)...)
	}
	overrides, err := i.Overridden()
	for _, o := range overrides {
		problems = append(problems, o.problem())
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return rank(a) - rank(b) })
	return problems, i.failed(err)
}

func rank(p Problem) int {
	if p.Fatal {
		return 0
	}
	return 1
}

// explainRefusal says why the server does not let us in as its superuser.
func (i *Instance) explainRefusal(err error) (Problem, bool) {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return Problem{}, false
	}
	p := Problem{What: fmt.Sprintf("cannot connect as %s: %s", i.cfg.Superuser, refused.Message), Fatal: true}
	switch refused.Code {
	case "28000", "28P01":
		p.Hint = fmt.Sprintf("run the companion as the system user that pg_hba.conf lets in as %s (peer), or add, as the first line: local all %[1]s trust", i.cfg.Superuser)
	case "3D000":
		p.Hint = "create the database postgres: CREATE DATABASE postgres"
	case "53300":
		p.Hint = "raise superuser_reserved_connections, or max_connections, and restart"
	}
	return p, true
}

func (o Override) problem() Problem {
	hint := "ALTER SYSTEM RESET " + o.Name
	if o.By == commandLineName {
		hint = "start the server without it"
	}
	return Problem{What: fmt.Sprintf("%s = '%s' in %s wins over what the companion sets", o.Name, o.Value, o.By), Hint: hint, Fatal: o.By == commandLineName}
}

// tryReplication connects as a replica does.
func tryReplication(ctx context.Context, conninfo string) []Problem {
	cfg, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return []Problem{{What: "the connection for replication cannot be understood", Hint: err.Error(), Fatal: true}}
	}
	cfg.RuntimeParams["replication"] = "true"
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err == nil {
		_, err = conn.Exec(ctx, "IDENTIFY_SYSTEM").ReadAll()
		_ = conn.Close(ctx) // the answer has come
	}
	if err == nil {
		return nil
	}
	p := Problem{What: fmt.Sprintf("%s cannot replicate from %s:%d: %v", cfg.User, cfg.Host, cfg.Port, err), Fatal: true}
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		p.What = fmt.Sprintf("%s cannot replicate from %s:%d: %s", cfg.User, cfg.Host, cfg.Port, refused.Message)
		switch refused.Code {
		case "28000":
			p.Hint = fmt.Sprintf("add to pg_hba.conf, for the address of every node, and reload: host replication %s samenet scram-sha-256", cfg.User)
		case "28P01":
			p.Hint = "the password is wrong"
		case "42501":
			p.Hint = fmt.Sprintf("ALTER ROLE %s REPLICATION", pgx.Identifier{cfg.User}.Sanitize())
		case "53300":
			p.Hint = "raise max_wal_senders and restart"
		}
	}
	return []Problem{p}
}

// checkFacts is what a check looks at.
type checkFacts struct {
	version   int
	settings  map[string]string
	sources   map[string]string // file and line that a setting comes from
	user      string
	superuser bool
	missing   []string // statements that grant what a user who is no superuser lacks
	errors    []string // lines of the configuration that would not be taken
	pending   []string // settings that wait for a restart
	checksums bool
}

// neededFunctions are what pg_rewind calls on its source, and we on ourselves,
// with the first version that has them.
var neededFunctions = []string{
	"pg_promote(boolean, integer)", "pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)",
	"pg_read_binary_file(text)", "pg_read_binary_file(text, bigint, bigint, boolean)",
}

const factsQuery = `SELECT name, setting, coalesce(sourcefile || ' line ' || sourceline, source), pending_restart FROM pg_settings
	WHERE name IN ('wal_level', 'max_wal_senders', 'max_replication_slots', 'hot_standby', 'wal_log_hints', 'data_checksums',
		'fsync', 'full_page_writes', 'wal_keep_size', 'max_slot_wal_keep_size', 'listen_addresses', 'synchronous_standby_names',
		'synchronous_commit', 'wal_sender_timeout', 'recovery_min_apply_delay', 'server_version_num') OR pending_restart`

// badLinesQuery finds what would not be taken at a start. A setting that waits for
// one has the same error as one that is wrong.
const badLinesQuery = `SELECT format('%s line %s: %s: %s', f.sourcefile, f.sourceline, coalesce(f.name, '?'), f.error)
	FROM pg_file_settings f LEFT JOIN pg_settings s ON s.name = f.name
	WHERE f.error IS NOT NULL AND f.sourcefile IS NOT NULL AND NOT coalesce(s.pending_restart, false) ORDER BY f.seqno`

// askFacts gathers what a check looks at.
func askFacts(ctx context.Context, conn *pgx.Conn) (checkFacts, error) {
	f := checkFacts{settings: map[string]string{}, sources: map[string]string{}}
	rows, err := conn.Query(ctx, factsQuery)
	if err != nil {
		return f, err
	}
	var name, value, source string
	var pending bool
	_, err = pgx.ForEachRow(rows, []any{&name, &value, &source, &pending}, func() error {
		f.settings[name], f.sources[name] = value, source
		if pending {
			f.pending = append(f.pending, name)
		}
		return nil
	})
	if err != nil {
		return f, err
	}
	slices.Sort(f.pending)
	f.version, _ = strconv.Atoi(f.settings["server_version_num"])
	f.checksums = f.settings["data_checksums"] == "on"
	if err := conn.QueryRow(ctx, "SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user").Scan(&f.user, &f.superuser); err != nil {
		return f, err
	}
	if !f.superuser {
		f.missing, err = missingGrants(ctx, conn, f.user, f.version)
		return f, err
	}
	rows, err = conn.Query(ctx, badLinesQuery)
	if err == nil {
		f.errors, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	return f, err
}

// missingGrants returns the statements that give a user who is no superuser what
// the companion does.
func missingGrants(ctx context.Context, conn *pgx.Conn, user string, version int) ([]string, error) {
	name := pgx.Identifier{user}.Sanitize()
	var missing []string
	ask := func(grant, condition string, args ...any) error {
		var has bool
		if err := conn.QueryRow(ctx, "SELECT "+condition, args...).Scan(&has); err != nil {
			return err
		}
		if !has {
			missing = append(missing, grant)
		}
		return nil
	}
	err := ask("ALTER ROLE "+name+" REPLICATION", "rolreplication FROM pg_roles WHERE rolname = current_user")
	roles := []string{"pg_monitor"}
	if version >= 150000 {
		roles = append(roles, "pg_checkpoint")
	}
	for _, role := range roles {
		err = errors.Join(err, ask(fmt.Sprintf("GRANT %s TO %s", role, name), "pg_has_role($1, 'USAGE')", role))
	}
	for _, function := range neededFunctions {
		err = errors.Join(err, ask(fmt.Sprintf("GRANT EXECUTE ON FUNCTION %s TO %s", function, name), "has_function_privilege($1, 'EXECUTE')", "pg_catalog."+function))
	}
	if version < 150000 {
		missing = append(missing, fmt.Sprintf("ALTER ROLE %s SUPERUSER, since before PostgreSQL 15 nobody else may CHECKPOINT", name))
	}
	return missing, err
}

// problems judges what was found.
func (f checkFacts) problems(opt CheckOptions) []Problem {
	return slices.Concat(f.versionProblems(), f.replicationProblems(opt), f.safetyProblems(), f.reachProblems(opt), f.accessProblems())
}

func (f checkFacts) versionProblems() []Problem {
	if f.version >= 130000 {
		return nil
	}
	return []Problem{{What: fmt.Sprintf("PostgreSQL %d is too old", f.version/10000), Hint: "upgrade to 13 or newer", Fatal: true}}
}

func (f checkFacts) number(name string) int {
	n, _ := strconv.Atoi(f.settings[name])
	return n
}

// restart is the hint for a setting that takes a restart.
func restart(setting string) string { return "set " + setting + " in postgresql.conf and restart" }

func (f checkFacts) replicationProblems(opt CheckOptions) []Problem {
	var found []Problem
	add := func(bad, fatal bool, what, hint string) {
		if bad {
			found = append(found, Problem{what, hint, fatal})
		}
	}
	add(f.settings["wal_level"] == "minimal", true, "wal_level is minimal: nobody can replicate", restart("wal_level = replica"))
	// The relay, every other node for a while directly, and a clone with two.
	senders := opt.Nodes + 3
	add(f.number("max_wal_senders") < 2, true, "max_wal_senders is "+f.settings["max_wal_senders"]+": nobody can be cloned from here", restart(fmt.Sprintf("max_wal_senders = %d", max(10, senders))))
	add(f.number("max_wal_senders") >= 2 && f.number("max_wal_senders") < senders, false,
		fmt.Sprintf("max_wal_senders is %s, and a cluster of %d may need %d", f.settings["max_wal_senders"], opt.Nodes, senders), restart(fmt.Sprintf("max_wal_senders = %d", max(10, senders))))
	add(f.number("max_replication_slots") < max(2, opt.Nodes), false,
		fmt.Sprintf("max_replication_slots is %s: a clone and the relay need one each", f.settings["max_replication_slots"]), restart(fmt.Sprintf("max_replication_slots = %d", max(10, opt.Nodes+2))))
	add(f.settings["hot_standby"] == "off", true, "hot_standby is off: as a replica the server would take no connections, and nobody would see what it has", restart("hot_standby = on"))
	add(f.settings["wal_log_hints"] == "off" && !f.checksums, false,
		"neither wal_log_hints nor data checksums are on: pg_rewind cannot be used, so that after a failover an old primary with writes of its own is cloned anew", restart("wal_log_hints = on"))
	add(f.number("wal_keep_size") == 0 && f.number("max_slot_wal_keep_size") == 0, false,
		"wal_keep_size is 0: a replica that was away for some time, and pg_rewind, may find that the log they need is gone", "set wal_keep_size = '1GB' in postgresql.conf and reload")
	add(f.number("wal_sender_timeout") == 0, false, "wal_sender_timeout is 0: a dead replica is never noticed", "set wal_sender_timeout = '60s' in postgresql.conf and reload")
	add(f.number("recovery_min_apply_delay") > 0, false, "recovery_min_apply_delay is set: a promotion has to replay first what is delayed", "set recovery_min_apply_delay = 0 in postgresql.conf and reload")
	if names := f.settings["synchronous_standby_names"]; names != "" && names != opt.Gate {
		add(true, true, fmt.Sprintf("synchronous_standby_names is '%s' (%s): commits would wait for somebody else than the companion", names, f.sources["synchronous_standby_names"]),
			"remove it, and replicas of that name that the companion does not know")
	}
	return found
}

func (f checkFacts) safetyProblems() []Problem {
	var found []Problem
	if f.settings["fsync"] == "off" {
		found = append(found, Problem{What: "fsync is off: a crash of the machine may destroy the data, and what was confirmed is not kept", Hint: "set fsync = on in postgresql.conf and reload"})
	}
	if f.settings["full_page_writes"] == "off" {
		found = append(found, Problem{What: "full_page_writes is off: pg_rewind and a clone from a replica refuse such a source", Hint: "set full_page_writes = on in postgresql.conf and reload"})
	}
	if s := f.settings["synchronous_commit"]; s == "off" || s == "local" {
		found = append(found, Problem{What: fmt.Sprintf("synchronous_commit is %s (%s): commits do not wait for the companion, which so cannot withhold them", s, f.sources["synchronous_commit"]), Hint: "set synchronous_commit = on in postgresql.conf and reload"})
	}
	if len(f.pending) > 0 {
		found = append(found, Problem{What: "settings wait for a restart: " + strings.Join(f.pending, ", "), Hint: "restart the server"})
	}
	for _, e := range f.errors {
		found = append(found, Problem{What: "the server would not start again: " + e, Hint: "correct that line", Fatal: true})
	}
	return found
}

// reachProblems judges whether other machines can connect at all.
func (f checkFacts) reachProblems(opt CheckOptions) []Problem {
	if opt.Host == "" || isLoopback(opt.Host) {
		return nil
	}
	for address := range strings.SplitSeq(f.settings["listen_addresses"], ",") {
		address = strings.TrimSpace(address)
		if address != "" && !isLoopback(address) {
			return nil
		}
	}
	return []Problem{{
		What: fmt.Sprintf("listen_addresses is '%s': other machines cannot connect to %s", f.settings["listen_addresses"], opt.Host),
		Hint: restart("listen_addresses = '*'"), Fatal: true,
	}}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (f checkFacts) accessProblems() []Problem {
	if len(f.missing) == 0 {
		return nil
	}
	return []Problem{{
		What: fmt.Sprintf("the role %s is no superuser and lacks what the companion needs", f.user),
		Hint: "as a superuser: " + strings.Join(f.missing, "; "), Fatal: true,
	}}
}
