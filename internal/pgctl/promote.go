package pgctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/wal"
)

// A Promotion is what became of a replica that was asked to be the primary.
type Promotion struct {
	Timeline  wal.Timeline
	SwitchLSN wal.LSN // where Timeline began; zero for timeline 1
	Already   bool    // it was a primary before it was asked

	Requested time.Duration // until the server had been asked
	Took      time.Duration // until it took writes, in all
}

// Promote makes a replica the primary of a new timeline and returns when it
// takes writes. A server that is a primary already is no error.
func (i *Instance) Promote(ctx context.Context) error {
	_, err := i.TakeOver(ctx, nil)
	return err
}

// TakeOver is Promote that says what came of it. It asks over a superuser's
// connection that is open already, if it is given one, which it leaves open. It
// does not wait for a checkpoint, as the server does not.
func (i *Instance) TakeOver(ctx context.Context, parked *pgx.Conn) (Promotion, error) {
	begin := time.Now()
	var p Promotion
	conn, err := i.requestPromotion(ctx, parked, &p)
	if err != nil {
		return p, err
	}
	if conn != parked {
		defer conn.Close(ctx) //nolint:errcheck // the server may be stopping
	}
	p.Requested = time.Since(begin)
	err = i.poll(ctx, func() (promoted bool, err error) {
		err = conn.QueryRow(ctx, "SELECT NOT pg_is_in_recovery()").Scan(&promoted)
		return promoted, err
	})
	p.Took = time.Since(begin)
	if err != nil {
		return p, err
	}
	return p, i.failed(i.describe(ctx, conn, &p))
}

// requestPromotion asks by SQL, and by pg_ctl if there is no answer, since all
// connections may be taken. It returns a connection to go on with.
func (i *Instance) requestPromotion(ctx context.Context, parked *pgx.Conn, p *Promotion) (*pgx.Conn, error) {
	if parked != nil && askPromotion(ctx, parked, p) == nil {
		return parked, nil
	}
	conn, err := i.Connect(ctx)
	if err == nil {
		if err = i.failed(askPromotion(ctx, conn, p)); err == nil {
			return conn, nil
		}
		_ = conn.Close(ctx) // err says more
	}
	if ctx.Err() != nil {
		return nil, err
	}
	if _, byTool := i.user.output(ctx, i.cfg.Binaries.Program("pg_ctl"), "promote", "--no-wait", "--pgdata", i.cfg.Dir); byTool != nil {
		return nil, errors.Join(err, i.failed(byTool))
	}
	return i.Connect(ctx)
}

func askPromotion(ctx context.Context, conn *pgx.Conn, p *Promotion) error {
	rows, err := conn.Query(ctx, "SELECT pg_promote(wait => false) WHERE pg_is_in_recovery()")
	if err != nil {
		return err
	}
	asked, err := pgx.CollectRows(rows, pgx.RowTo[bool])
	p.Already = len(asked) == 0
	return err
}

// describe fills in where the timeline that the server writes began. Until the
// first checkpoint, which nobody waits for, pg_control has the old one.
func (i *Instance) describe(ctx context.Context, conn *pgx.Conn, p *Promotion) error {
	var segment string
	if err := conn.QueryRow(ctx, "SELECT pg_walfile_name(pg_current_wal_lsn())").Scan(&segment); err != nil {
		return err
	}
	t, err := strconv.ParseUint(segment[:min(8, len(segment))], 16, 32)
	if err != nil {
		return fmt.Errorf("the name of a segment is %q: %w", segment, err)
	}
	p.Timeline = wal.Timeline(t)
	if p.Timeline == 1 {
		return nil
	}
	file, err := os.ReadFile(filepath.Join(i.cfg.Dir, "pg_wal", p.Timeline.HistoryFile()))
	if err != nil {
		return err
	}
	h, err := wal.ParseHistory(p.Timeline, file)
	p.SwitchLSN, _ = h.Begin(p.Timeline)
	return err
}
