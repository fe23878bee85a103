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

// cancelAgain is after how long without an answer a server is asked again, and
// then after twice that, and so on until patience ends.
const cancelAgain = 100 * time.Millisecond

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
		if err := c.handOver(); err != nil {
			return err
		}
		if _, err := c.pg.Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
			return err
		}
		c.txStatus = 'I'
		if err := c.TakeBack(ctx); err != nil {
			return err
		}
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
	if err := c.handOver(); err != nil {
		return err
	}
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
	if err := c.cancelRunning(ctx); err != nil {
		return err
	}
	// The signal may have come after the statement's end. It is delivered
	// before the server reads on, so that an empty round trip absorbs it.
	c.NewCall()
	if err := c.Send(ctx); err != nil {
		return err
	}
	return c.Drain(ctx)
}

// cancelRunning sends cancel requests until what is owed has come. A server that
// has not read the statement yet, because the request overtook it on its own
// connection or the server is busy, forgets it: nobody would end the statement.
func (c *Conn) cancelRunning(ctx context.Context) error {
	for wait := cancelAgain; ; wait *= 2 {
		if err := c.pg.CancelRequest(ctx); err != nil {
			return fmt.Errorf("cancel request: %s", strings.ReplaceAll(err.Error(), "\n", " "))
		}
		err := c.drainFor(ctx, wait)
		if _, early := errors.AsType[*InterruptedError](err); !early || ctx.Err() != nil {
			return err
		}
	}
}

// drainFor is Drain for so long at most. After an *InterruptedError it may be
// called again.
func (c *Conn) drainFor(ctx context.Context, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	c.arm(ctx)
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
