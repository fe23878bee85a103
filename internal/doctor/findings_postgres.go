package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/topology"
)

// What is much of WAL for a slot that nobody uses.
const muchWAL = 1 << 30

// ourStandby is what synchronous_standby_names lists on every node.
const ourStandby = "helios"

func nodeNamed(name string) func(topology.Reported) bool {
	return func(n topology.Reported) bool { return n.Name == name }
}

// refusedLogin reports whether err is about who asks, and not about whom.
func refusedLogin(err error) bool {
	if refused, is := errors.AsType[*pgconn.PgError](err); is {
		return strings.HasPrefix(refused.Code, "28")
	}
	told, is := errors.AsType[*api.Error](err)
	return is && (told.Code == api.CodeUnauthorized || told.Code == api.CodeForbidden)
}

// credentials is about who is not let in.
func credentials(p *Picture) []Finding {
	var found []Finding
	if refusedLogin(p.Err) {
		found = append(found, wrongToken("", p.Err))
	}
	for _, c := range p.Companions {
		if refusedLogin(c.Err) {
			found = append(found, wrongToken(c.Member.Name, c.Err))
		}
	}
	for i := range p.Servers {
		s := &p.Servers[i]
		if !refusedLogin(s.Err) {
			continue
		}
		found = append(found, Finding{
			Code: "wrong_credentials", Severity: Problem, Node: s.Node,
			What: "PostgreSQL at " + s.Addr + " refuses the login: " + s.Err.Error(),
			Why:  "applications and companions that use the same password or certificate are refused as well",
			Fix:  "mend user and password in --dsn, PGPASSWORD or ~/.pgpass; or pg_hba.conf there, and SELECT pg_reload_conf()",
		})
	}
	return found
}

func wrongToken(node string, err error) Finding {
	return Finding{
		Code: "wrong_credentials", Severity: Problem, Node: node,
		What: "the companion refuses the token or certificate: " + err.Error(),
		Why:  "orders are refused as well",
		Fix:  "--token_file names the file that helios server has as token_file; helios cert show DIR looks at certificates",
	}
}

// servers is about each PostgreSQL, and about what all should have in common.
func servers(p *Picture) []Finding {
	var found []Finding
	ids := map[uint64][]string{}
	for i := range p.Servers {
		s := &p.Servers[i]
		switch {
		case s.Err != nil && (refusedLogin(s.Err) || p.isDown(s.Node)): // told elsewhere
		case s.Err != nil:
			found = append(found, Finding{
				Code: "unreachable_postgres", Severity: Problem, Node: s.Node,
				What: "PostgreSQL does not answer at " + s.Addr + ": " + s.Err.Error(),
				Why:  "neither do applications reach it",
				Fix:  "start helios server there; look at listen_addresses and the firewall",
			})
		default:
			found = append(found, settings(s)...)
			ids[s.SystemID] = append(ids[s.SystemID], s.Node)
		}
	}
	if len(ids) > 1 {
		found = append(found, Finding{
			Code: "two_systems", Severity: Problem,
			What: "the servers are not all of one cluster: " + systems(ids),
			Why:  "none of them can follow one of the others",
			Fix:  "helios reinit NODE makes those anew that do not belong; look at the addresses in --dsn",
		})
	}
	if c := p.Local.Control; c != nil && !c.CanRewind() {
		found = append(found, noRewind("", "the data in "+p.Local.PGData))
	}
	if p.Local.ControlErr != nil {
		found = append(found, Finding{
			Code: "pgdata", Severity: Problem,
			What: "the data directory cannot be read: " + p.Local.ControlErr.Error(),
			Why:  "a companion could not adopt or start it either",
			Fix:  "name the data directory, as the user who owns it; --pg_bin if the programs are elsewhere",
		})
	}
	return found
}

// isDown reports whether the companions know why a member's PostgreSQL does not answer.
func (p *Picture) isDown(node string) bool {
	if p.Overview == nil || p.Overview.Bulletin == nil || p.away(node) {
		return false
	}
	b := p.Overview.Bulletin
	at := slices.IndexFunc(b.Nodes, nodeNamed(node))
	return at >= 0 && (b.Nodes[at].State == "down" || astray(b, b.Nodes[at]))
}

func systems(ids map[uint64][]string) string {
	var parts []string
	for id, nodes := range ids {
		parts = append(parts, fmt.Sprintf("%s are of %d", strings.Join(nodes, ", "), id))
	}
	return strings.Join(parts, "; ")
}

// askedBySQL are what servers are asked for by SQL, so that it need not be told of this
// machine's once more.
var askedBySQL = []string{"wal_log_hints", "synchronous_standby_names", "max_wal_senders"}

// here is about the server of this machine, which was asked as its companion asks it.
func here(p *Picture) []Finding {
	var found []Finding
	for _, problem := range p.Local.Problems {
		told := slices.ContainsFunc(askedBySQL, func(name string) bool { return strings.Contains(problem.What, name) })
		if told && (p.Overview != nil && p.Servers != nil || strings.Contains(problem.What, askedBySQL[0])) {
			continue
		}
		why := "replication or failover will not work as it should"
		if problem.Fatal {
			why = "a companion cannot look after the server as it is"
		}
		found = append(found, Finding{
			Code: "local_server", Severity: Problem,
			What: "the server in " + p.Local.PGData + ": " + problem.What, Why: why, Fix: problem.Hint,
		})
	}
	return found
}

// settings is about parameters of one server.
func settings(s *Server) []Finding {
	var found []Finding
	if s.Settings["wal_log_hints"] == "off" && s.Settings["data_checksums"] == "off" {
		found = append(found, noRewind(s.Node, "it"))
	}
	if names := s.Settings["synchronous_standby_names"]; names != ourStandby {
		what := fmt.Sprintf("synchronous_standby_names is %q, and not %s", names, ourStandby)
		found = append(found, Finding{
			Code: "synchronous_standby_names", Severity: Problem, Node: s.Node, What: what,
			Why: "commits do not wait for the companion, so that a primary that was cut off acknowledges what will be lost",
			Fix: "the companion sets it when it takes the node over; what sets it to something else, such as ALTER SYSTEM or the command line, has to go",
		})
	}
	if n, err := strconv.Atoi(s.Settings["max_wal_senders"]); err == nil && n < 5 {
		found = append(found, Finding{
			Code: "max_wal_senders", Severity: Problem, Node: s.Node,
			What: fmt.Sprintf("max_wal_senders is %d", n),
			Why:  "its companion takes one, and clones and standbys that go past it more",
			Fix:  "ALTER SYSTEM SET max_wal_senders = 10, on standbys first, and restart",
		})
	}
	return found
}

func noRewind(node, subject string) Finding {
	return Finding{
		Code: "no_rewind", Severity: Problem, Node: node,
		What: subject + " has neither wal_log_hints nor checksums",
		Why:  "after a failover pg_rewind cannot take the old primary back, which then has to be cloned",
		Fix:  "ALTER SYSTEM SET wal_log_hints = on, and restart: replicas first, then helios switchover and the old primary",
	}
}

// slots is about slots that hold WAL which nobody comes for.
func slots(p *Picture) []Finding {
	var found []Finding
	for i := range p.Servers {
		for _, slot := range p.Servers[i].Slots {
			found = append(found, slotFinding(p.Servers[i].Node, slot, p.Servers[i].slotLimit())...)
		}
	}
	return found
}

// slotLimit returns how many bytes of WAL a slot may hold back; 0 if that is any number.
func (s *Server) slotLimit() int64 {
	n, err := strconv.ParseInt(s.Settings["max_slot_wal_keep_size"], 10, 64) // in MB
	if err != nil || n < 0 {
		return 0
	}
	return n << 20
}

// slotFinding is about one slot, which may hold back so many bytes.
func slotFinding(node string, s Slot, limit int64) []Finding {
	drop := fmt.Sprintf("on %s: SELECT pg_drop_replication_slot('%s')", node, s.Name)
	switch {
	case s.Status == "lost":
		return []Finding{{
			Code: "slot_full", Severity: Problem, Node: node,
			What: fmt.Sprintf("the WAL of slot %s is gone: it held back more than max_slot_wal_keep_size allows", s.Name),
			Why:  "who streams by it cannot go on, and has to be made anew",
			Fix:  drop + "; helios reinit NODE makes a replica anew",
		}}
	case s.Status == "unreserved":
		return []Finding{{
			Code: "slot_full", Severity: Problem, Node: node,
			What: fmt.Sprintf("the WAL of slot %s is about to go: it holds back %s, more than max_slot_wal_keep_size allows", s.Name, gigabytes(s.Held)),
			Why:  "the next checkpoint removes it, and who streams by the slot has to be made anew then",
			Fix:  fmt.Sprintf("start who uses it, and give it time: on %s: ALTER SYSTEM SET max_slot_wal_keep_size = '%dMB', and SELECT pg_reload_conf(); or, if nobody does, %s", node, 2*s.Held>>20, drop),
		}}
	case !s.Active && limit > 0 && s.Held > limit/2:
		return []Finding{{
			Code: "slot_inactive", Severity: Problem, Node: node,
			What: fmt.Sprintf("nobody streams by slot %s, and it holds back %s of WAL, of the %s that max_slot_wal_keep_size allows", s.Name, gigabytes(s.Held), gigabytes(limit)),
			Why:  "beyond that the WAL is removed, and who streams by it has to be made anew",
			Fix:  "start who uses it; or, if nobody does, " + drop,
		}}
	case !s.Active && s.Held > muchWAL:
		return []Finding{{
			Code: "slot_inactive", Severity: Problem, Node: node,
			What: fmt.Sprintf("nobody streams by slot %s, and it holds back %s of WAL", s.Name, gigabytes(s.Held)),
			Why:  "the WAL is kept for it until the disk is full, and then the primary stops",
			Fix:  "start who uses it; or, if nobody does, " + drop,
		}}
	}
	return nil
}

func gigabytes(n int64) string {
	if n < 10<<30 {
		return fmt.Sprintf("%d MB", n>>20)
	}
	return fmt.Sprintf("%d GB", n>>30)
}
