package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// facts are what the server says of itself.
type facts struct {
	Recovery  bool
	Timeline  wal.Timeline // what it writes, or has received something of
	LSN       wal.LSN      // flushed: written by itself, or received
	Replay    wal.LSN      // of a standby
	SystemID  uint64
	StartedAt time.Time
	Receiver  bool   // a standby whose walreceiver streams
	Host      string // the walreceiver's upstream
	Port      int
	Paused    bool   // replay was paused by somebody
	Replaying bool   // a standby that may have more in its files than LSN says: see factsSQL
	Gate      string // synchronous_standby_names as it is in force, whatever files say
}

func (f facts) position() wal.Position { return wal.Position{Timeline: f.Timeline, LSN: f.LSN} }

// factsSQL asks in one statement. What a standby has received is NULL after its
// restart, so that what it has replayed counts as well. It stays NULL until all that was
// in pg_wal by then is replayed: only then a walreceiver is asked for (RequestXLogStreaming
// in walreceiverfuncs.c). Its timeline is that of what it receives; the control file's may be
// an older one.
const factsSQL = `
SELECT r.recovery,
       CASE WHEN r.recovery
            THEN greatest((SELECT received_tli FROM pg_stat_wal_receiver), (pg_control_checkpoint()).timeline_id, (pg_control_recovery()).min_recovery_end_timeline)
            ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END::bigint,
       CASE WHEN r.recovery THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_flush_lsn() END::text,
       CASE WHEN r.recovery THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_flush_lsn() END::text,
       (pg_control_system()).system_identifier::text,
       pg_postmaster_start_time(),
       coalesce((SELECT status = 'streaming' FROM pg_stat_wal_receiver), false),
       coalesce((SELECT sender_host FROM pg_stat_wal_receiver), ''),
       coalesce((SELECT sender_port FROM pg_stat_wal_receiver), 0),
       CASE WHEN r.recovery THEN pg_is_wal_replay_paused() ELSE false END,
       current_setting('synchronous_standby_names'),
       r.recovery AND pg_last_wal_receive_lsn() IS NULL
  FROM (SELECT pg_is_in_recovery() AS recovery) r`

// readFacts asks the server.
func readFacts(ctx context.Context, conn *pgx.Conn) (facts, error) {
	var f facts
	var timeline int64
	var lsn, replay, system string
	err := conn.QueryRow(ctx, factsSQL).Scan(&f.Recovery, &timeline, &lsn, &replay, &system, &f.StartedAt, &f.Receiver, &f.Host, &f.Port, &f.Paused, &f.Gate, &f.Replaying)
	if err != nil {
		return facts{}, err
	}
	f.Timeline = wal.Timeline(timeline) //nolint:gosec // 32 bits
	// What it receives says on which timeline it is.
	if f.Recovery && !f.Receiver {
		on, err := replayed(ctx, conn)
		if err != nil {
			return facts{}, err
		}
		f.Timeline = max(f.Timeline, on)
	}
	if f.LSN, err = wal.ParseLSN(lsn); err != nil {
		return facts{}, err
	}
	if f.Replay, err = wal.ParseLSN(replay); err != nil {
		return facts{}, err
	}
	var signed int64 // bigint has a sign, and the identifier uses all 64 bits
	if _, err := fmt.Sscan(system, &signed); err != nil {
		return facts{}, err
	}
	f.SystemID = uint64(signed) //nolint:gosec // its bits
	return f, nil
}

// replayed asks a standby that receives nothing for the timeline that it is on. Only a
// walsender knows: the control file has it from the next restartpoint on, and until then
// a standby that followed a switch looks as if it had gone past it.
func replayed(ctx context.Context, conn *pgx.Conn) (wal.Timeline, error) {
	c, err := replication.Connect(ctx, &conn.Config().Config)
	if err != nil {
		return 0, err
	}
	defer c.Close() //nolint:errcheck // it was only asked
	id, err := c.Identify(ctx)
	return id.Timeline, err
}

// received asks a standby what it has flushed, and what it has replayed.
func received(ctx context.Context, conn *pgx.Conn) (flushed, replayed wal.LSN, err error) {
	var f, r string
	err = conn.QueryRow(ctx, "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(), '0/0')::text, coalesce(pg_last_wal_replay_lsn(), '0/0')::text").Scan(&f, &r)
	if err != nil {
		return 0, 0, err
	}
	if flushed, err = wal.ParseLSN(f); err != nil {
		return 0, 0, err
	}
	replayed, err = wal.ParseLSN(r)
	return flushed, replayed, err
}
