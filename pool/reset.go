package pool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// resetSession undoes what a session can leave behind, and keeps prepared
// statements: what DISCARD ALL does (discard.c) without DEALLOCATE ALL and
// DISCARD PLANS, and without its ban on transaction blocks.
const resetSession = `RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *;` +
	` SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES`

// patience is how long a server may take to answer what is owed once it was
// asked to cancel it.
const patience = 2 * time.Second

// Restore makes the connection fit for another session: it cancels what is
// still running, takes the answers that are owed, ends an open transaction and
// resets what the session touched. When it fails, the connection is of no use.
// afterConnect, which may be nil, prepares a session that was reset.
func (c *Conn) Restore(ctx context.Context, afterConnect func(context.Context, *pgx.Conn) error) error {
	if err := c.Settle(ctx); err != nil {
		return err
	}
	if c.pg.IsBusy() || c.pg.IsClosed() {
		return errors.New("the connection was left busy by its last user")
	}
	if err := c.TakeBack(ctx); err != nil {
		return err
	}
	if err := c.rollback(ctx); err != nil {
		return err
	}
	if !c.dirty {
		return nil
	}
	if err := c.resetState(ctx); err != nil {
		return err
	}
	if err := c.prepareSession(ctx, afterConnect); err != nil {
		return err
	}
	c.dirty, c.deallocates = false, false
	return nil
}

// rollback ends an open transaction, whichever way it was begun.
func (c *Conn) rollback(ctx context.Context) error {
	if c.pg.TxStatus() != 'I' { // begun through Pgx: ended there, so that pgx knows
		if _, err := c.pg.Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
			return err
		}
		c.txStatus = 'I'
	}
	if c.txStatus == 'I' {
		return nil
	}
	c.NewCall().End = HelperRollback
	return c.run(ctx)
}

// resetState undoes what the session touched.
func (c *Conn) resetState(ctx context.Context) error {
	c.NewCall().Text = resetSession
	if err := c.run(ctx); err != nil {
		return err
	}
	if !c.deallocates {
		return nil
	}
	c.ForgetAll()
	*c.TypeMap() = *pgtype.NewMap() // which the session may have changed through Pgx
	return c.pgx.DeallocateAll(ctx) // pgx forgets its own as well
}

// Settle takes the answers that are owed after an interrupted call, and cancels
// the statement first. It returns nil at once if nothing is owed.
func (c *Conn) Settle(ctx context.Context) error {
	if c.owed == 0 {
		return nil
	}
	if c.broken.Load() {
		return errors.New("the connection is closed")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience,
		fmt.Errorf("the server did not answer a cancel request within %v", patience))
	defer cancel()
	c.socket.SetDeadline(time.Now().Add(patience)) //nolint:errcheck // a closed socket fails at its next use
	defer c.socket.SetDeadline(time.Time{})        //nolint:errcheck // likewise
	if err := c.pg.CancelRequest(ctx); err != nil {
		return fmt.Errorf("cancel request: %s", strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if err := c.Drain(ctx); err != nil {
		return err
	}
	// The signal may have come after the statement's end. It is delivered
	// before the server reads on, so that an empty round trip absorbs it.
	c.sendSync(c.NewCall())
	if err := c.fe.Flush(); err != nil {
		return err
	}
	return c.Drain(ctx)
}

// run sends the call and reads it to its end; an error of the server is an
// error here.
func (c *Conn) run(ctx context.Context) error {
	if err := c.Send(ctx); err != nil {
		return err
	}
	if err := c.Drain(ctx); err != nil {
		return err
	}
	if err := c.call.Err; err != nil {
		return err
	}
	return nil
}
