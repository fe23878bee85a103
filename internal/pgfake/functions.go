package pgfake

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heliosdb/helios/wal"
)

// xid8OID is the type of a transaction id with its epoch.
const xid8OID = 5069

// voidOID is the type of a function that returns nothing.
const voidOID = 2278

// A function computes a value; there are at least three arguments, the missing
// ones being NULL.
type function func(e *env, args []value) (value, error)

// sources are what FROM may name; each says whether it has no row.
var sources = map[string]func(*env) bool{
	"pg_control_system":     never,
	"pg_control_checkpoint": never,
	"pg_control_recovery":   never,
	"pg_stat_wal_receiver":  func(e *env) bool { return e.node.primary },
}

func never(*env) bool { return false }

// functions are the functions and columns the model knows.
var functions = map[string]function{
	"pg_is_in_recovery":         always(pgtype.BoolOID, func(e *env) any { return !e.node.primary }),
	"pg_current_wal_lsn":        onPrimary(func(e *env) wal.LSN { return e.node.flush }),
	"pg_current_wal_flush_lsn":  onPrimary(func(e *env) wal.LSN { return e.node.flush }),
	"pg_current_wal_insert_lsn": onPrimary(func(e *env) wal.LSN { return e.node.insert }),
	"pg_last_wal_replay_lsn":    always(LSNOID, replayLSN),
	"pg_last_wal_receive_lsn":   always(LSNOID, receiveLSN),
	"pg_is_wal_replay_paused":   always(pgtype.BoolOID, func(*env) any { return false }),
	"pg_wal_lsn_diff":           lsnDiff,
	"pg_walfile_name":           walFileName,

	"pg_current_xact_id_if_assigned": always(xid8OID, xactID),
	"pg_current_xact_id":             always(xid8OID, func(*env) any { return uint64(0) }), // assigned afterwards
	"pg_xact_status":                 xactStatus,
	"pg_logical_emit_message":        onPrimary(func(e *env) wal.LSN { return e.node.insert }),
	"pg_postmaster_start_time":       always(pgtype.TimestamptzOID, func(e *env) any { return e.node.started }),

	"current_setting":               currentSetting,
	"set_config":                    setConfig,
	"version":                       always(pgtype.TextOID, func(e *env) any { return "PostgreSQL " + e.s.node.cluster.Version }),
	"current_database":              always(pgtype.NameOID, func(*env) any { return "postgres" }),
	"current_user":                  always(pgtype.NameOID, userName),
	"session_user":                  always(pgtype.NameOID, userName),
	"pg_backend_pid":                always(pgtype.Int4OID, func(e *env) any { return int64(e.s.pid()) }),
	"pg_last_xact_replay_timestamp": always(pgtype.TimestamptzOID, func(*env) any { return time.Now() }),
	"now":                           always(pgtype.TimestamptzOID, func(*env) any { return time.Now() }),
	"clock_timestamp":               always(pgtype.TimestamptzOID, func(*env) any { return time.Now() }),
	"left":                          left,
	"coalesce":                      coalesce,
	"pg_sleep":                      sleep,

	"pg_advisory_lock":       always(voidOID, func(*env) any { return "" }),
	"pg_advisory_xact_lock":  always(voidOID, func(*env) any { return "" }),
	"pg_try_advisory_lock":   always(pgtype.BoolOID, func(*env) any { return true }),
	"pg_advisory_unlock":     always(pgtype.BoolOID, func(*env) any { return true }),
	"pg_advisory_unlock_all": always(voidOID, func(*env) any { return "" }),

	"system_identifier": always(pgtype.Int8OID, func(e *env) any { return int64(e.s.node.cluster.SystemID) }),
	"timeline_id":       always(pgtype.Int4OID, timelineID),
	"received_tli":      always(pgtype.Int4OID, timelineID),
	"status":            always(pgtype.TextOID, func(*env) any { return "streaming" }),
	"flushed_lsn":       always(LSNOID, receiveLSN),
	"written_lsn":       always(LSNOID, receiveLSN),
	"latest_end_lsn":    always(LSNOID, receiveLSN),
}

// always makes a function of the node's state; described, it is NULL.
func always(oid uint32, f func(*env) any) function {
	return func(e *env, _ []value) (value, error) {
		if e.q.Describing {
			return value{nil, oid}, nil
		}
		return value{f(e), oid}, nil
	}
}

// onPrimary makes a function that fails during recovery.
func onPrimary(f func(*env) wal.LSN) function {
	return func(e *env, _ []value) (value, error) {
		switch {
		case e.q.Describing:
			return value{nil, LSNOID}, nil
		case !e.node.primary:
			return value{}, &Error{Code: "55000", Message: "recovery is in progress"}
		default:
			return value{f(e), LSNOID}, nil
		}
	}
}

// replayLSN is NULL on a primary that never was a replica.
func replayLSN(e *env) any {
	if e.node.primary && e.node.timeline == 1 {
		return nil
	}
	return e.node.replay
}

// xactID is NULL before the transaction has written.
func xactID(e *env) any {
	if xid := e.s.tx.xid.Load(); xid != 0 {
		return xid
	}
	return nil
}

func xactStatus(e *env, args []value) (value, error) {
	if e.q.Describing {
		return value{nil, pgtype.TextOID}, nil
	}
	xid, err := strconv.ParseUint(asText(args[0].v), 10, 64)
	if err != nil {
		return value{nil, pgtype.TextOID}, err
	}
	return value{e.s.node.xactStatus(xid), pgtype.TextOID}, nil
}

// receiveLSN is what the replica has but may not have replayed yet.
func receiveLSN(e *env) any {
	if e.node.primary {
		return nil
	}
	return e.s.node.received()
}

// received returns how far a replica has the WAL.
func (n *Node) received() wal.LSN {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	lsn := n.replay
	for _, p := range n.cluster.nodes {
		if p.primary && p.timeline == n.timeline {
			lsn = max(lsn, p.flush)
		}
	}
	return lsn
}

func timelineID(e *env) any { return int64(e.node.timeline) }

func userName(e *env) any { return e.s.settings.defaults["session_authorization"] }

func lsnDiff(_ *env, args []value) (value, error) {
	a, okA := asLSN(args[0].v)
	b, okB := asLSN(args[1].v)
	if !okA || !okB {
		return value{nil, pgtype.NumericOID}, nil
	}
	return value{int64(a - b), pgtype.NumericOID}, nil
}

// walFileName names the segment before an LSN at a segment's start
// (XLByteToPrevSeg in access/xlog_internal.h).
func walFileName(e *env, args []value) (value, error) {
	lsn, ok := asLSN(args[0].v)
	switch {
	case !ok:
		return value{nil, pgtype.TextOID}, nil
	case !e.node.primary:
		return value{}, &Error{Code: "55000", Message: "recovery is in progress"}
	}
	segment := uint64(lsn-1) / wal.DefaultSegmentSize
	const perID = 1 << 32 / wal.DefaultSegmentSize
	return value{fmt.Sprintf("%08X%08X%08X", uint32(e.node.timeline), segment/perID, segment%perID), pgtype.TextOID}, nil
}

func currentSetting(e *env, args []value) (value, error) {
	if e.q.Describing {
		return value{nil, pgtype.TextOID}, nil
	}
	name := asText(args[0].v)
	if v, ok := e.s.setting(name); ok {
		return value{v, pgtype.TextOID}, nil
	}
	if args[1].v == true {
		return value{nil, pgtype.TextOID}, nil
	}
	return value{}, &Error{Code: "42704", Message: `unrecognized configuration parameter "` + name + `"`}
}

func setConfig(e *env, args []value) (value, error) {
	if !e.q.Describing {
		e.s.set(asText(args[0].v), asText(args[1].v), args[2].v == true)
	}
	return value{args[1].v, pgtype.TextOID}, nil
}

func left(_ *env, args []value) (value, error) {
	n, ok := asInt(args[1].v)
	if args[0].v == nil || !ok {
		return value{nil, pgtype.TextOID}, nil
	}
	text := asText(args[0].v)
	return value{text[:min(max(int(n), 0), len(text))], pgtype.TextOID}, nil
}

func coalesce(_ *env, args []value) (value, error) {
	for _, a := range args {
		if a.v != nil {
			return a, nil
		}
	}
	return args[0], nil
}

// sleep takes fake time, and can be cancelled.
func sleep(e *env, args []value) (value, error) {
	result := value{"", voidOID}
	seconds, err := time.ParseDuration(strings.TrimSpace(asText(args[0].v)) + "s")
	if err == nil && !e.q.Describing {
		return result, e.s.pause(Fault{Delay: seconds})
	}
	return result, nil
}
