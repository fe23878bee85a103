package pgfake

import (
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// commands are the statements a session answers by itself. Those that map to
// nil succeed and do nothing.
var commands = map[string]func(s *session, sql string) (Reply, error){
	"BEGIN": (*session).begin, "START": (*session).begin,
	"COMMIT": (*session).commit, "END": (*session).commit,
	"ROLLBACK": (*session).rollback, "ABORT": (*session).rollback,
	"SAVEPOINT": (*session).savepoint, "RELEASE": (*session).savepoint,
	"SET": (*session).setCommand, "RESET": (*session).resetCommand, "SHOW": (*session).show,
	"DISCARD": (*session).discard, "DEALLOCATE": (*session).deallocate,
	"LISTEN": nil, "UNLISTEN": nil, "NOTIFY": nil, "CLOSE": nil, "PREPARE": nil, "DECLARE": nil,
	"LOCK": nil, "CHECKPOINT": nil, "DO": nil, "CALL": nil, "EXPLAIN": nil,
}

// command does what a statement means to the session. ok says whether the
// statement is one of those that need no script.
func (s *session) command(sql string) (r Reply, ok bool, err error) {
	do, ok := commands[verb(sql)]
	if do != nil {
		r, err = do(s, sql)
	}
	return r, ok, err
}

// commandColumns returns the columns of a command, and whether it is one.
func commandColumns(sql string) ([]Column, bool) {
	_, ok := commands[verb(sql)]
	if name, isShow := strings.CutPrefix(strings.ToLower(sql), "show "); isShow {
		return []Column{{shown(name), pgtype.TextOID}}, true
	}
	return nil, ok
}

var assignment = regexp.MustCompile(`(?is)^SET\s+(?:(SESSION|LOCAL)\s+)?([\w.]+)\s*(?:=|\s+TO\s+)\s*(.+)$`)

// setCommand is SET in all its forms the model understands.
func (s *session) setCommand(sql string) (Reply, error) {
	done := Reply{Tag: "SET"}
	text := strings.ToUpper(sql)
	switch {
	case strings.HasPrefix(text, "SET TRANSACTION"):
		readOnly, err := s.mode(sql, s.tx.readOnly)
		s.tx.readOnly = readOnly
		return done, err
	case strings.HasPrefix(text, "SET SESSION CHARACTERISTICS"):
		if strings.Contains(text, "READ ") {
			s.set("default_transaction_read_only", onOff(strings.Contains(text, "READ ONLY")), false)
		}
		return done, nil
	case strings.HasPrefix(text, "SET TIME ZONE "):
		s.set("timezone", unquote(sql[len("SET TIME ZONE "):]), false)
		return done, nil
	}
	if m := assignment.FindStringSubmatch(sql); m != nil {
		s.set(m[2], unquote(m[3]), strings.EqualFold(m[1], "LOCAL"))
	}
	return done, nil
}

// unquote removes the quotes of a literal.
func unquote(text string) string {
	text = strings.TrimSpace(text)
	if len(text) >= 2 && text[0] == '\'' && text[len(text)-1] == '\'' {
		return strings.ReplaceAll(text[1:len(text)-1], "''", "'")
	}
	return text
}

func (s *session) resetCommand(sql string) (Reply, error) {
	s.reset(strings.TrimSpace(sql[len("RESET"):]))
	return Reply{Tag: "RESET"}, nil
}

// shown returns the parameter that SHOW names.
func shown(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	if name == "transaction isolation level" {
		return "transaction_isolation"
	}
	return name
}

func (s *session) show(sql string) (Reply, error) {
	name := shown(sql[len("SHOW"):])
	value, ok := s.setting(name)
	if !ok {
		return Reply{}, &Error{Code: "42704", Message: `unrecognized configuration parameter "` + name + `"`}
	}
	return Reply{Columns: []Column{{name, pgtype.TextOID}}, Rows: [][]any{{value}}}, nil
}

// discard is DISCARD ALL and its parts.
func (s *session) discard(sql string) (Reply, error) {
	w := words(sql, 2)
	if w[len(w)-1] != "ALL" {
		return Reply{}, nil
	}
	if s.tx.status != 'I' {
		return Reply{}, &Error{Code: "25001", Message: "DISCARD ALL cannot run inside a transaction block"}
	}
	s.reset("all")
	clear(s.prepared)
	return Reply{}, nil
}

// deallocate forgets prepared statements.
func (s *session) deallocate(sql string) (Reply, error) {
	fields := strings.Fields(sql)
	name := fields[len(fields)-1]
	switch {
	case strings.EqualFold(name, "all"):
		clear(s.prepared)
		return Reply{Tag: "DEALLOCATE ALL"}, nil
	case strings.HasPrefix(name, `"`):
		name = strings.Trim(name, `"`)
	default:
		name = strings.ToLower(name)
	}
	if s.prepared[name] == nil {
		return Reply{}, &Error{Code: "26000", Message: `prepared statement "` + name + `" does not exist`}
	}
	delete(s.prepared, name)
	return Reply{}, nil
}
