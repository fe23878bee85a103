package pgctl

import (
	"context"
	"errors"
)

// Promote makes a replica the primary of a new timeline and returns when it
// takes writes. A server that is a primary already is no error.
func (i *Instance) Promote(ctx context.Context) error {
	if err := i.requestPromotion(ctx); err != nil {
		return err
	}
	conn, err := i.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // the server may be stopping
	return i.poll(ctx, func() (promoted bool, err error) {
		err = conn.QueryRow(ctx, "SELECT NOT pg_is_in_recovery()").Scan(&promoted)
		return promoted, err
	})
}

// requestPromotion asks by SQL, and by pg_ctl if there is no answer, since all
// connections may be taken.
func (i *Instance) requestPromotion(ctx context.Context) error {
	err := i.promoteBySQL(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	_, byTool := i.user.output(ctx, i.cfg.Binaries.Program("pg_ctl"), "promote", "--no-wait", "--pgdata", i.cfg.Dir)
	if byTool != nil {
		return errors.Join(err, i.failed(byTool))
	}
	return nil
}

func (i *Instance) promoteBySQL(ctx context.Context) error {
	conn, err := i.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // the server may be stopping
	_, err = conn.Exec(ctx, "SELECT pg_promote(wait => false) WHERE pg_is_in_recovery()")
	return i.failed(err)
}
