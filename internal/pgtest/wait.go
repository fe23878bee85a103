package pgtest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/heliosdb/helios/wal"
)

// pollInterval is how often a node is asked whether it is where it should be.
const pollInterval = 2 * time.Millisecond

// WaitCaughtUp returns when the given replicas, or all of them if none is given,
// stream from the primary and have applied what it had written at the call. A
// replica that is down or frozen makes it wait until ctx ends.
func (c *Cluster) WaitCaughtUp(ctx context.Context, replicas ...*Node) error {
	if len(replicas) == 0 {
		replicas = c.Replicas()
	}
	if len(replicas) == 0 {
		return nil
	}
	written, err := c.Primary().LSN(ctx)
	if err != nil {
		return err
	}
	if err := c.WaitStreaming(ctx, replicas...); err != nil {
		return err
	}
	waiting, ctx := errgroup.WithContext(ctx)
	for _, n := range replicas {
		waiting.Go(func() error { return n.WaitReplayed(ctx, written) })
	}
	return waiting.Wait()
}

// WaitStreaming returns when the given replicas, or all of them if none is
// given, are connected to the primary and past catching up.
func (c *Cluster) WaitStreaming(ctx context.Context, replicas ...*Node) error {
	if len(replicas) == 0 {
		replicas = c.Replicas()
	}
	names := make([]string, len(replicas))
	for i, n := range replicas {
		names[i] = n.Name
	}
	return c.Primary().Await(ctx, `SELECT count(DISTINCT application_name) = cardinality($1::text[])
		FROM pg_stat_replication WHERE state = 'streaming' AND application_name = ANY ($1)`, names)
}

// WaitReplayed returns when queries on the replica see everything up to lsn.
func (n *Node) WaitReplayed(ctx context.Context, lsn wal.LSN) error {
	return n.Await(ctx, "SELECT coalesce(pg_last_wal_replay_lsn() >= $1::text::pg_lsn, false)", lsn.String())
}

// Await asks a node a yes-or-no question until the answer is yes, past any
// proxy. The node has to be up.
func (n *Node) Await(ctx context.Context, question string, args ...any) error {
	conn, err := n.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // the query's own error tells more
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		yes, err := answer(ctx, conn, question, args)
		switch {
		case err != nil && ctx.Err() == nil:
			return n.failed(err)
		case yes:
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return n.failed(fmt.Errorf("%w while the answer was no: %s", context.Cause(ctx), question))
		}
	}
}

func answer(ctx context.Context, conn *pgx.Conn, question string, args []any) (yes bool, err error) {
	err = conn.QueryRow(ctx, question, args...).Scan(&yes)
	return yes, err
}

// LSN returns how far the node's WAL goes: on a primary what is flushed, on a
// replica what is received or applied, whichever is more.
func (n *Node) LSN(ctx context.Context) (lsn wal.LSN, err error) {
	text, err := Value[string](ctx, n, `SELECT (CASE WHEN pg_is_in_recovery()
		THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
		ELSE pg_current_wal_flush_lsn() END)::text`)
	if err != nil {
		return 0, err
	}
	lsn, err = wal.ParseLSN(text)
	return lsn, n.failed(err)
}

// ReplayLSN returns how far a replica's queries see. On a promoted node it is
// where its timeline began.
func (n *Node) ReplayLSN(ctx context.Context) (lsn wal.LSN, err error) {
	text, err := Value[string](ctx, n, "SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')::text")
	if err != nil {
		return 0, err
	}
	lsn, err = wal.ParseLSN(text)
	return lsn, n.failed(err)
}

// BestReplica returns the replica whose WAL goes furthest, the first of equals.
// Those that do not answer are passed over.
func (c *Cluster) BestReplica(ctx context.Context) (*Node, error) {
	var best *Node
	var furthest wal.LSN
	for _, n := range c.Replicas() {
		if !n.inRecovery(ctx) {
			continue
		}
		lsn, err := n.LSN(ctx)
		if err != nil {
			return nil, err
		}
		if best == nil || lsn > furthest {
			best, furthest = n, lsn
		}
	}
	if best == nil {
		return nil, errors.New("pgtest: no replica answers")
	}
	return best, nil
}
