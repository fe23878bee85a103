package pgcanned

import (
	"encoding/binary"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heliosdb/helios/wal"
)

// Types that pgtype does not name.
const (
	lsnOID  = 3220
	xid8OID = 5069
	voidOID = 2278
)

// column is one column of an answer.
type column struct {
	name  string
	oid   uint32
	size  int16 // pg_type.typlen
	value value
}

// A value appends what it is on a node, in binary or as text. It reports false
// for NULL, and has then appended nothing.
type value func(dst []byte, n *Node, binary bool) ([]byte, bool)

// values are the expressions that the benchmarks and the drivers ask for, as
// they write them but for the schema.
var values = map[string]column{
	"id":   number(pgtype.Int4OID, ID),
	"name": text(pgtype.TextOID, Name),

	"pg_is_in_recovery()":         {oid: pgtype.BoolOID, size: 1, value: inRecovery},
	"pg_current_wal_flush_lsn()":  {oid: lsnOID, size: 8, value: visible},
	"pg_current_wal_insert_lsn()": {oid: lsnOID, size: 8, value: visible},
	"pg_last_wal_replay_lsn()":    {oid: lsnOID, size: 8, value: onReplica(visible)},
	"pg_last_wal_receive_lsn()":   {oid: lsnOID, size: 8, value: onReplica(visible)},
	"pg_advisory_unlock_all()":    text(voidOID, ""),

	"pg_current_xact_id_if_assigned()": number(xid8OID, 740),
	"pg_last_xact_replay_timestamp()":  number(pgtype.TimestamptzOID, 1_700_000_000_000_000),
	"pg_postmaster_start_time()":       number(pgtype.TimestamptzOID, 1_700_000_000_000_000),

	"pg_walfile_name(pg_current_wal_insert_lsn())":                                                   {oid: pgtype.TextOID, size: -1, value: walFile},
	"left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)":                                          {oid: pgtype.TextOID, size: -1, value: timeline},
	"(SELECT received_tli FROM pg_stat_wal_receiver WHERE status = 'streaming')":                     number(pgtype.Int4OID, int64(Timeline)),
	"pg_size_bytes(current_setting('wal_segment_size'))":                                             number(pgtype.Int8OID, wal.DefaultSegmentSize),
	"round(extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint":                        number(pgtype.Int8OID, 1_700_000_000_000_000),
	"has_function_privilege(to_regprocedure('pg_read_file(text,bigint,bigint,boolean)'), 'EXECUTE')": text(pgtype.BoolOID, "f"),
	"s.system_identifier":         number(pgtype.Int8OID, SystemID),
	"r.min_recovery_end_timeline": number(pgtype.Int4OID, 0),
	"r.min_recovery_end_lsn":      text(lsnOID, "0/0"),
	"c.timeline_id":               number(pgtype.Int4OID, int64(Timeline)),
	"c.checkpoint_lsn":            text(lsnOID, "0/28"),

	"current_setting('server_version_num')":            text(pgtype.TextOID, "150018"),
	"current_setting('synchronous_commit')":            text(pgtype.TextOID, "on"),
	"current_setting('default_transaction_isolation')": text(pgtype.TextOID, "read committed"),
	"current_setting('default_transaction_read_only')": text(pgtype.TextOID, "off"),
	"current_setting('transaction_read_only')":         {oid: pgtype.TextOID, size: -1, value: recoveryOnOff},
	"current_setting('transaction_isolation')":         text(pgtype.TextOID, "read committed"),
}

// byRole is what the drivers ask where the primary and a replica differ.
var byRole = regexp.MustCompile(`^CASE WHEN (NOT )?pg_is_in_recovery\(\) THEN (.*?)(?: ELSE (.*))? END$`)

// columnOf returns what an expression stands for; false if that is not known.
func columnOf(expression string) (column, bool) {
	m := byRole.FindStringSubmatch(expression)
	if m == nil {
		c, ok := values[expression]
		c.name, _, _ = strings.Cut(expression, "(")
		return c, ok
	}
	c, ok := columnOf(m[2])
	otherwise, known := value(null), true
	if m[3] != "" {
		var e column
		e, known = columnOf(m[3])
		otherwise = e.value
	}
	onReplica, onPrimary := c.value, otherwise
	if m[1] != "" {
		onReplica, onPrimary = onPrimary, onReplica
	}
	c.name = "case"
	c.value = func(dst []byte, n *Node, binary bool) ([]byte, bool) {
		if n.primary.Load() {
			return onPrimary(dst, n, binary)
		}
		return onReplica(dst, n, binary)
	}
	return c, ok && known
}

// null is no value.
func null(dst []byte, _ *Node, _ bool) ([]byte, bool) { return dst, false }

// onReplica makes a value NULL on the primary.
func onReplica(v value) value {
	return func(dst []byte, n *Node, binary bool) ([]byte, bool) {
		if n.primary.Load() {
			return dst, false
		}
		return v(dst, n, binary)
	}
}

// text is a value that is written in one way.
func text(oid uint32, t string) column {
	return column{oid: oid, size: -1, value: func(dst []byte, _ *Node, _ bool) ([]byte, bool) {
		return append(dst, t...), true
	}}
}

// number is an integer that is always the same.
func number(oid uint32, v int64) column {
	c := column{oid: oid, size: 8}
	asText, asBinary := strconv.FormatInt(v, 10), binary.BigEndian.AppendUint64(nil, uint64(v))
	if oid == pgtype.Int4OID {
		c.size, asBinary = 4, asBinary[4:]
	}
	c.value = func(dst []byte, _ *Node, binary bool) ([]byte, bool) {
		if binary {
			return append(dst, asBinary...), true
		}
		return append(dst, asText...), true
	}
	return c
}

// visible is how much of the WAL a query on the node sees.
func visible(dst []byte, n *Node, asBinary bool) ([]byte, bool) {
	lsn := n.visible()
	if asBinary {
		return binary.BigEndian.AppendUint64(dst, uint64(lsn)), true
	}
	return append(dst, lsn.String()...), true
}

func inRecovery(dst []byte, n *Node, binary bool) ([]byte, bool) {
	replica := !n.primary.Load()
	switch {
	case binary && replica:
		return append(dst, 1), true
	case binary:
		return append(dst, 0), true
	case replica:
		return append(dst, 't'), true
	default:
		return append(dst, 'f'), true
	}
}

func recoveryOnOff(dst []byte, n *Node, _ bool) ([]byte, bool) {
	return append(dst, onOff(!n.primary.Load())...), true
}

// timeline is the first part of a WAL file's name.
func timeline(dst []byte, _ *Node, _ bool) ([]byte, bool) {
	return appendHex(dst, uint32(Timeline)), true
}

// walFile is the name of the WAL segment that is being written.
func walFile(dst []byte, n *Node, _ bool) ([]byte, bool) {
	at := uint64(n.cluster.Position() - 1)
	const perID = 1 << 32 / wal.DefaultSegmentSize
	segment := at / wal.DefaultSegmentSize
	dst = appendHex(dst, uint32(Timeline))
	return appendHex(appendHex(dst, uint32(segment/perID)), uint32(segment%perID)), true
}

// appendHex appends eight digits in capitals.
func appendHex(dst []byte, v uint32) []byte {
	for shift := 28; shift >= 0; shift -= 4 {
		dst = append(dst, "0123456789ABCDEF"[v>>shift&15])
	}
	return dst
}
