package pgfake

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
)

// normalise removes comments, the semicolon at the end and superfluous white
// space, so that tests and logs need not care how a text was laid out.
func normalise(sql string) string {
	texts := split(sql)
	if len(texts) == 0 {
		return ""
	}
	return strings.Join(texts, "; ")
}

// split cuts a text into its statements, each normalised; empty ones are left out.
func split(sql string) []string {
	var texts []string
	var b strings.Builder
	end := func() {
		if text := strings.TrimSpace(b.String()); text != "" {
			texts = append(texts, text)
		}
		b.Reset()
	}
	for len(sql) > 0 {
		n := lexeme(sql)
		switch part := sql[:n]; {
		case part == ";":
			end()
		case isBlank(part):
			if !strings.HasSuffix(b.String(), " ") {
				b.WriteByte(' ')
			}
		default:
			b.WriteString(part)
		}
		sql = sql[n:]
	}
	end()
	return texts
}

// isBlank reports whether part is white space or a comment.
func isBlank(part string) bool {
	return strings.HasPrefix(part, "--") || strings.HasPrefix(part, "/*") || strings.TrimSpace(part) == ""
}

// lexeme returns the length of the first comment, quoted text or character.
func lexeme(sql string) int {
	switch {
	case strings.HasPrefix(sql, "--"):
		return until(sql, 2, "\n")
	case strings.HasPrefix(sql, "/*"):
		return until(sql, 2, "*/")
	case sql[0] == '\'' || sql[0] == '"':
		return until(sql, 1, sql[:1])
	case sql[0] == '$':
		if tag := dollarQuote.FindString(sql); tag != "" {
			return until(sql, len(tag), tag)
		}
	}
	return 1
}

var dollarQuote = regexp.MustCompile(`^\$([A-Za-z_][A-Za-z_0-9]*)?\$`)

// until returns the position behind the next end after from, or the whole length.
func until(sql string, from int, end string) int {
	if i := strings.Index(sql[from:], end); i >= 0 {
		return from + i + len(end)
	}
	return len(sql)
}

// words returns the first n words of a statement in upper case.
func words(sql string, n int) []string {
	fields := strings.FieldsFunc(strings.ToUpper(sql), func(r rune) bool {
		return r == ' ' || r == '(' || r == ')' || r == '=' || r == ','
	})
	return fields[:min(n, len(fields))]
}

// verb returns the first word in upper case, "" for an empty statement.
func verb(sql string) string {
	if w := words(sql, 1); len(w) > 0 {
		return w[0]
	}
	return ""
}

var (
	writeVerbs = strings.Fields(`INSERT UPDATE DELETE MERGE TRUNCATE CREATE DROP ALTER GRANT REVOKE COMMENT VACUUM
		ANALYZE REINDEX CLUSTER REFRESH NOTIFY LISTEN REASSIGN IMPORT SECURITY CALL`)
	hidden = regexp.MustCompile(`(?i)\bFOR (NO KEY )?(UPDATE|SHARE|KEY SHARE)\b|` +
		`\b(nextval|setval|txid_current|pg_current_xact_id|pg_logical_emit_message|pg_notify)\s*\(|\bSELECT\b.* INTO \w|` +
		`^WITH\b.*\b(INSERT INTO|UPDATE \w+ SET|DELETE FROM|MERGE INTO)\b`)
)

// writes reports whether a statement would change something, as far as its
// text tells: such a statement fails on a replica with 25006.
func writes(sql string) bool {
	return slices.Contains(writeVerbs, verb(sql)) || hidden.MatchString(sql)
}

// growsWAL reports whether the commit of a writing statement leaves WAL behind.
func growsWAL(sql string) bool { return verb(sql) != "LISTEN" && verb(sql) != "NOTIFY" }

// tag returns the command tag of a statement with n rows.
func tag(sql string, n int) string {
	w := append(words(sql, 2), "", "")
	switch v := w[0]; v {
	case "SELECT", "VALUES", "TABLE", "WITH":
		return "SELECT " + strconv.Itoa(n)
	case "SHOW":
		return "SHOW"
	case "FETCH", "MOVE":
		return v + " " + strconv.Itoa(n)
	case "INSERT":
		return "INSERT 0 " + strconv.Itoa(max(n, 1))
	case "UPDATE", "DELETE", "MERGE":
		return v + " " + strconv.Itoa(max(n, 1))
	case "BEGIN", "SAVEPOINT", "RELEASE", "SET", "RESET", "LISTEN", "UNLISTEN", "NOTIFY", "PREPARE", "DEALLOCATE", "VACUUM", "CALL", "DO":
		return v
	case "CLOSE":
		return "CLOSE CURSOR"
	case "DECLARE":
		return "DECLARE CURSOR"
	case "TRUNCATE", "LOCK":
		return v + " TABLE"
	default:
		return strings.TrimSpace(v + " " + w[1])
	}
}

var (
	parameter = regexp.MustCompile(`\$(\d+)(::(?:pg_catalog\.)?(\w+))?`)
	castOIDs  = map[string]uint32{
		"int2": pgtype.Int2OID, "smallint": pgtype.Int2OID, "int": pgtype.Int4OID, "int4": pgtype.Int4OID,
		"integer": pgtype.Int4OID, "int8": pgtype.Int8OID, "bigint": pgtype.Int8OID, "text": pgtype.TextOID,
		"bool": pgtype.BoolOID, "boolean": pgtype.BoolOID, "float8": pgtype.Float8OID, "bytea": pgtype.ByteaOID,
		"timestamptz": pgtype.TimestamptzOID, "xid8": xid8OID, "pg_lsn": LSNOID, "oid": pgtype.OIDOID, "name": pgtype.NameOID,
	}
)

// parameters returns the parameter types of a statement: as its casts say, and
// 0 where there is none, so that clients choose by the Go type.
func parameters(sql string) []uint32 {
	var oids []uint32
	for _, m := range parameter.FindAllStringSubmatch(sql, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil || n < 1 || n > 65535 {
			continue
		}
		for len(oids) < n {
			oids = append(oids, 0)
		}
		if oid := castOIDs[strings.ToLower(m[3])]; oid != 0 {
			oids[n-1] = oid
		}
	}
	return oids
}
