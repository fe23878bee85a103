package pgfake

import (
	"maps"
	"strings"
)

// settings are the configuration parameters of a session, in lower case.
type settings struct {
	defaults map[string]string // what RESET goes back to
	session  map[string]string
	local    map[string]string // SET LOCAL; until the block ends
	before   map[string]string // session as it was when the block began; nil outside
	reported map[string]string // as the client knows them
}

// A reportedParameter is sent to the client when it changes.
type reportedParameter struct{ name, value string }

func (t *settings) init(c *Cluster) {
	t.defaults = map[string]string{
		"server_version": c.Version, "server_encoding": "UTF8", "client_encoding": "UTF8",
		"application_name": "", "is_superuser": "on", "session_authorization": "postgres",
		"datestyle": "ISO, MDY", "intervalstyle": "postgres", "timezone": "UTC",
		"integer_datetimes": "on", "standard_conforming_strings": "on",
		"synchronous_commit": c.SyncCommit, "search_path": `"$user", public`,
		"statement_timeout": "0", "lock_timeout": "0", "transaction_isolation": "read committed",
		"wal_segment_size": "16MB", "wal_block_size": "8192", "extra_float_digits": "1",
		"synchronous_standby_names": "", "cluster_name": "", "server_version_num": "150018",
	}
	t.session, t.local = make(map[string]string), make(map[string]string)
	t.reported = make(map[string]string)
}

// option takes a parameter of the startup message, which becomes a default.
func (t *settings) option(name, value string) {
	switch name {
	case "user":
		t.defaults["session_authorization"] = value
	case "database", "options", "replication":
	default:
		t.defaults[strings.ToLower(name)] = value
	}
}

// begin remembers the values a rollback goes back to.
func (t *settings) begin() { t.before = maps.Clone(t.session) }

// end forgets SET LOCAL and, for a rollback, what the block has set.
func (t *settings) end(commit bool) {
	if !commit && t.before != nil {
		t.session = t.before
	}
	t.before = nil
	clear(t.local)
}

// setting returns the value a session sees, and whether there is such a
// parameter.
func (s *session) setting(name string) (string, bool) {
	name = strings.ToLower(name)
	st := s.node.state()
	switch name {
	case "in_hot_standby":
		return onOff(!st.primary), true
	case "transaction_read_only":
		return onOff(s.readOnly()), true
	}
	for _, values := range []map[string]string{s.settings.local, s.settings.session} {
		if value, ok := values[name]; ok {
			return value, true
		}
	}
	if name == "default_transaction_read_only" {
		if value, ok := s.settings.defaults[name]; ok {
			return value, true
		}
		return onOff(st.readOnly), true
	}
	value, ok := s.settings.defaults[name]
	return value, ok
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// set changes a parameter of the session, or of the block alone.
func (s *session) set(name, value string, local bool) {
	name = strings.ToLower(name)
	if strings.EqualFold(value, "default") {
		value = s.settings.defaults[name]
	}
	switch strings.ToLower(value) {
	case "true", "on":
		value = "on"
	case "false", "off":
		value = "off"
	}
	switch {
	case !local:
		s.settings.session[name] = value
		delete(s.settings.local, name)
	case s.tx.status == 'T':
		s.settings.local[name] = value
	}
}

// reset goes back to the defaults, of all parameters or of one.
func (s *session) reset(name string) {
	if strings.EqualFold(name, "all") {
		clear(s.settings.session)
		clear(s.settings.local)
		return
	}
	delete(s.settings.session, strings.ToLower(name))
	delete(s.settings.local, strings.ToLower(name))
}

// parameters returns what is reported to clients. PostgreSQL 13 says nothing of
// its role.
func (s *session) parameters() []reportedParameter {
	names := []string{
		"server_version", "server_encoding", "client_encoding", "application_name",
		"is_superuser", "session_authorization",
		"DateStyle", "IntervalStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings",
	}
	if !strings.HasPrefix(s.node.cluster.Version, "13.") {
		names = append(names, "default_transaction_read_only", "in_hot_standby")
	}
	list := make([]reportedParameter, len(names))
	for i, name := range names {
		value, _ := s.setting(name)
		list[i] = reportedParameter{name, value}
	}
	return list
}
