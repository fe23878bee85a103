package watch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

// SQLSTATE of a function that the administrator has taken away from PUBLIC.
const insufficientPrivilege = "42501"

// probeSQL asks for everything in one row, see the columns in answer. Every
// function in it may be executed by everybody unless revoked (PostgreSQL 13 to
// 18); a permission is checked even in a branch of CASE that is not taken. The
// role is asked before what depends on it, because the node may be promoted
// between two calls; it cannot be demoted.
//
// pg_walfile_name tells a primary's timeline at once, the control file only
// after the checkpoint that follows a promotion. On a replica,
// pg_stat_wal_receiver hides everything but pid from users without
// pg_read_all_stats, and received_tli is trusted while streaming only: a
// receiver that was turned away shows what it had asked for. The control file
// holds two positions with their timelines, each proven, each possibly old.
const probeSQL = `SELECT pg_catalog.pg_is_in_recovery(),` +
	` CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8) END,` +
	` CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_flush_lsn() END,` +
	` pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn(),` +
	` (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming'),` +
	` pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')),` +
	` pg_catalog.current_setting('default_transaction_isolation'),` +
	` pg_catalog.current_setting('default_transaction_read_only'),` +
	` pg_catalog.current_setting('server_version_num'),` +
	` pg_catalog.round(extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint,` +
	` pg_catalog.has_function_privilege(pg_catalog.to_regprocedure('pg_catalog.pg_read_file(text,bigint,bigint,boolean)'), 'EXECUTE'),` +
	` pg_catalog.pg_last_xact_replay_timestamp()`

// controlSQL is the part of the probe that some administrators revoke.
const controlSQL = `,` +
	` s.system_identifier, r.min_recovery_end_timeline, r.min_recovery_end_lsn, c.timeline_id, c.checkpoint_lsn` +
	` FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_recovery() r, pg_catalog.pg_control_checkpoint() c`

// Columns of the probe's answer.
const (
	colRecovery = iota
	colTimeline
	colFlush
	colReceive
	colReplay
	colReceivedTimeline
	colSegmentSize
	colIsolation
	colReadOnly
	colVersion
	colStarted
	colMayReadFile
	colReplayedEnd
	columns // without the control file

	colSystem = iota - 1
	colRecoveryEndTimeline
	colRecoveryEnd
	colCheckpointTimeline
	colCheckpoint
	allColumns
)

// An asker asks one node over one connection. The connection's pgconn is used
// to authenticate only: its contexts may leave a goroutine behind for 15 s.
type asker struct {
	conn *pgconn.PgConn

	noControl   bool         // the control file is not for us
	sawRecovery bool         // the node was in recovery on this very connection
	historyOf   wal.Timeline // whose history file was read, or found missing
}

// ask sends the probe and reads its answer, until ctx ends.
func (a *asker) ask(ctx context.Context) (topology.Observation, error) {
	socket := a.conn.Conn()
	stop := context.AfterFunc(ctx, func() {
		socket.Close() //nolint:errcheck // it is closed to end a read or write
	})
	defer stop()

	sent := time.Now()
	row, err := a.probe()
	if err != nil {
		return topology.Observation{}, err
	}
	rtt := time.Since(sent)
	o, err := a.read(row)
	if err != nil {
		return topology.Observation{}, err
	}
	o.RTT = rtt
	if string(row[colMayReadFile]) == "t" {
		if err := a.readHistory(&o); err != nil {
			return topology.Observation{}, err
		}
	}
	return o, nil
}

// probe asks for the control file too, unless it turns out to be forbidden.
func (a *asker) probe() ([][]byte, error) {
	if !a.noControl {
		row, err := a.query(probeSQL+controlSQL, allColumns)
		var pg *pgconn.PgError
		if err == nil || !errors.As(err, &pg) || pg.Code != insufficientPrivilege {
			return row, err
		}
		a.noControl = true
	}
	return a.query(probeSQL, columns)
}

// query sends sql by the simple protocol, which a proxy in between understands
// as well, and returns the only row, which must have n columns.
func (a *asker) query(sql string, n int) ([][]byte, error) {
	fe := a.conn.Frontend()
	fe.Send(&pgproto3.Query{String: sql})
	if err := fe.Flush(); err != nil {
		return nil, err
	}
	var row [][]byte
	var failure error
	for {
		message, err := fe.Receive()
		if err != nil {
			return nil, errors.Join(failure, err)
		}
		switch m := message.(type) {
		case *pgproto3.DataRow:
			row = make([][]byte, len(m.Values)) // the message's buffer is used again
			for i, v := range m.Values {
				row[i] = append([]byte(nil), v...)
			}
		case *pgproto3.ErrorResponse:
			failure = pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			if failure == nil && len(row) != n {
				failure = fmt.Errorf("odd answer to a probe: %d columns, want %d", len(row), n)
			}
			return row, failure
		}
	}
}

// read turns a row into an observation.
func (a *asker) read(row [][]byte) (topology.Observation, error) {
	r := &reader{row: row}
	o := topology.Observation{
		ReadOnly: r.text(colReadOnly) == "on",
		Version:  int(r.number(colVersion)),
		Settings: topology.Settings{
			SegmentSize:     uint64(r.number(colSegmentSize)),
			SnapshotPerStmt: strings.HasPrefix(r.text(colIsolation), "read "),
		},
	}
	if started := r.number(colStarted); started != 0 {
		o.StartedAt = time.UnixMicro(started)
	}
	if !a.noControl {
		o.SystemID = uint64(r.number(colSystem))
	}
	replay := r.lsn(colReplay)
	if r.text(colRecovery) == "t" {
		a.sawRecovery = true
		o.Role = topology.RoleReplica
		o.ReplayLSN = replay
		o.Replayed = r.text(colReplayedEnd) != ""
		o.ReceiveLSN = max(r.lsn(colReceive), replay) // receive is stale after a restart
		o.Timeline, o.TimelineLSN = a.replicaTimeline(r, replay)
		return o, r.err
	}
	o.Role = topology.RolePrimary
	o.CurrentLSN = r.lsn(colFlush)
	o.Timeline = wal.Timeline(r.hex(colTimeline))
	if a.sawRecovery {
		// Connections outlive a promotion, and nothing else leads out of
		// recovery. On another connection the position may as well be the end
		// of a crash recovery, far beyond the switch.
		o.SwitchLSN = replay
	}
	return o, r.err
}

// replicaTimeline returns the highest timeline that the replica has proven to
// be on, and up to which position.
func (a *asker) replicaTimeline(r *reader, replay wal.LSN) (wal.Timeline, wal.LSN) {
	best := wal.Position{Timeline: wal.Timeline(r.number(colReceivedTimeline)), LSN: replay}
	if !a.noControl {
		for col := colRecoveryEndTimeline; col < allColumns; col += 2 {
			p := wal.Position{Timeline: wal.Timeline(r.number(col)), LSN: r.lsn(col + 1)}
			if p.Timeline > best.Timeline || p.Timeline == best.Timeline && p.LSN > best.LSN {
				best = p
			}
		}
	}
	if best.Timeline == 0 {
		return 0, 0
	}
	return best.Timeline, best.LSN
}

// readHistory adds the beginnings of all timelines up to the node's, once per
// connection and timeline.
func (a *asker) readHistory(o *topology.Observation) error {
	if o.Timeline <= 1 || o.Timeline == a.historyOf {
		return nil
	}
	sql := fmt.Sprintf("SELECT pg_catalog.pg_read_file('pg_wal/%08X.history', 0, 1048576, true)", uint32(o.Timeline))
	row, err := a.query(sql, 1)
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused): // not readable after all; the rest of the answer stands
		a.historyOf = o.Timeline
		return nil
	case err != nil:
		return err
	}
	a.historyOf = o.Timeline
	o.History, err = wal.ParseHistory(o.Timeline, row[0])
	return err
}

// close ends the session without waiting for the node.
func (a *asker) close() {
	socket := a.conn.Conn()
	if socket.SetDeadline(time.Now().Add(10*time.Millisecond)) == nil {
		a.conn.Frontend().Send(&pgproto3.Terminate{})
		a.conn.Frontend().Flush() //nolint:errcheck // the node learns it from the socket too
	}
	socket.Close() //nolint:errcheck // nothing is left to be sent or read
}

// A reader takes a row apart. NULL reads as zero. The first failure stays.
type reader struct {
	row [][]byte
	err error
}

func (r *reader) text(col int) string { return string(r.row[col]) }

func (r *reader) number(col int) int64 { return r.integer(col, 10) }

func (r *reader) hex(col int) int64 { return r.integer(col, 16) }

func (r *reader) integer(col, base int) int64 {
	if r.row[col] == nil {
		return 0
	}
	n, err := strconv.ParseInt(r.text(col), base, 64)
	r.note(col, err)
	return n
}

func (r *reader) lsn(col int) wal.LSN {
	if r.row[col] == nil {
		return 0
	}
	l, err := wal.ParseLSN(r.text(col))
	r.note(col, err)
	return l
}

func (r *reader) note(col int, err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("odd answer to a probe, column %d: %w", col, err)
	}
}

// brief returns err with its text on one line and without what pgx tells about
// user and database.
func brief(err error) error {
	var pg *pgconn.PgError
	var op *net.OpError
	text := strings.Join(strings.Fields(err.Error()), " ")
	switch {
	case errors.As(err, &pg):
		text = pg.Error()
	case errors.As(err, &op):
		text = op.Error()
	}
	return &failure{text, err}
}

// A failure is an error with a shorter text.
type failure struct {
	text string
	err  error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.err }
