package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/beat"
	"github.com/heliosdb/helios/wal"
)

// slotEvery is how often the slot at the source is moved.
const slotEvery = 2 * time.Second

// keepSlot moves the slot at the source behind what the subscribers have
// flushed.
//
// The relay does not stream from the slot: a status update's flush position is
// the acknowledgement and the slot's position in one, and the two differ. The
// slot stays inactive, and is moved by pg_replication_slot_advance.
func (r *Relay) keepSlot(ctx context.Context) {
	if r.cfg.Slot == "" {
		return
	}
	tick := time.NewTimer(beat.Next(slotEvery))
	defer tick.Stop()
	k := &slotKeeper{r: r}
	defer k.leave()
	for {
		err := k.move(ctx)
		if err != nil && ctx.Err() == nil {
			r.log.WarnContext(ctx, "the slot at the source was not moved", "slot", r.cfg.Slot, "error", err)
			k.leave()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Reset(beat.Next(slotEvery))
		}
	}
}

type slotKeeper struct {
	r    *Relay
	cfg  *pgconn.Config // of conn
	conn *pgconn.PgConn
	at   wal.LSN // where the slot was left

	useless bool // the source has no slots, and that was said
	limited bool // the limit has been reached, and that was said
}

func (k *slotKeeper) leave() {
	if k.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		k.conn.Close(ctx) //nolint:errcheck // nothing is lost with it
		k.conn = nil
	}
}

// move makes the slot if it is missing, and moves it.
func (k *slotKeeper) move(ctx context.Context) error {
	src := k.r.source.Load()
	if !src.up {
		k.leave()
		return nil
	}
	if k.r.behindRelay.Load() { // which has no SQL: the relay at the primary is to have the slot
		if !k.useless {
			k.r.log.WarnContext(ctx, "the source is a relay, where there is no slot to move: let the relay next to the primary have one", "slot", k.r.cfg.Slot)
		}
		k.useless = true
		return nil
	}
	k.useless = false
	ctx, cancel := context.WithTimeout(ctx, k.r.cfg.SourceTimeout)
	defer cancel()
	if k.conn == nil || k.cfg != src.cfg {
		k.leave()
		if err := k.enter(ctx, src.cfg); err != nil {
			return err
		}
	}
	to := k.wanted(ctx)
	if to <= k.at {
		return nil
	}
	_, err := k.ask(ctx, "SELECT pg_replication_slot_advance($1::text::name, $2::text::pg_lsn)", k.r.cfg.Slot, to.String())
	if err == nil {
		k.at = to
	}
	return err
}

// wanted returns from where on somebody needs WAL, as far as SlotLimit allows it;
// where the slot is if nobody has said.
func (k *slotKeeper) wanted(ctx context.Context) wal.LSN {
	oldest := k.r.slots.oldest()
	if flushed, ok := k.r.replicator.Oldest(); ok && (oldest == 0 || flushed < oldest) {
		oldest = flushed
	}
	if oldest == 0 {
		oldest = k.at
	}
	head := k.r.buffer.Head()
	if limit := wal.LSN(k.r.cfg.SlotLimit); oldest < head && head-oldest > limit { //nolint:gosec // positive
		if !k.limited {
			k.r.log.WarnContext(ctx, "the slot at the source has reached its limit: WAL that is still wanted is let go",
				"slot", k.r.cfg.Slot, "wanted", oldest, "head", head, "limit", k.r.cfg.SlotLimit)
		}
		k.limited = true
		return head - limit
	}
	k.limited = false
	return oldest
}

func (k *slotKeeper) enter(ctx context.Context, cfg *pgconn.Config) error {
	own := cfg.Copy()
	delete(own.RuntimeParams, "replication")
	own.RuntimeParams["application_name"] = k.r.cfg.Name + "_slot"
	if own.Database == "" || own.Database == "replication" {
		own.Database = "postgres"
	}
	conn, err := pgconn.ConnectConfig(ctx, own)
	if err != nil {
		return err
	}
	k.conn, k.cfg, k.at = conn, cfg, 0
	value, err := k.ask(ctx, `SELECT coalesce(restart_lsn::text, '0/0') FROM pg_replication_slots WHERE slot_name = $1::text::name`, k.r.cfg.Slot)
	if err != nil {
		return err
	}
	if value == "" {
		value, err = k.ask(ctx, `SELECT lsn::text FROM pg_create_physical_replication_slot($1::text::name, true)`, k.r.cfg.Slot)
		if err != nil {
			return err
		}
	}
	k.at, err = wal.ParseLSN(value)
	return err
}

// ask runs a query of one column and returns its first row, "" if it has none.
func (k *slotKeeper) ask(ctx context.Context, sql string, args ...string) (string, error) {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	result := k.conn.ExecParams(ctx, sql, params, nil, nil, nil).Read()
	switch {
	case result.Err != nil:
		return "", result.Err
	case len(result.Rows) == 0:
		return "", nil
	case len(result.Rows[0]) != 1:
		return "", errors.New("relay: a query of one column returned " + fmt.Sprint(len(result.Rows[0])))
	}
	return string(result.Rows[0][0]), nil
}
