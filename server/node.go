package server

import (
	"context"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/wal/relay"
)

// A Node is the PostgreSQL server beside a companion: *agent.Agent.
type Node interface {
	// Run looks after the server until ctx ends. The server outlives it.
	Run(ctx context.Context) error
	// Report is what the leader is told of the server now; each has a number.
	Report() failover.Report
	// Picture is the same for anybody else.
	Picture() failover.Report
	// Changed returns a channel that is closed when a report should be sent at once.
	Changed() <-chan struct{}
	// Assign says what the leader wants; sent is when the report it answers was sent, by
	// [Node.Clock].
	Assign(as failover.Assignment, sent time.Duration)
	// Clock reads the clock that leases are counted on.
	Clock() time.Duration

	Seal(ctx context.Context, e failover.Epoch) failover.SealAnswer
	Prepare(ctx context.Context) error
	Stop(ctx context.Context, e failover.Epoch) failover.Stopped
	Promote(ctx context.Context, p failover.Promote) failover.Promoted

	// Reinit makes the data directory of a replica anew, as a copy of the primary's. It
	// returns when that has begun.
	Reinit(ctx context.Context) error
	// HasData reports whether there is a data directory.
	HasData() bool
	// CloneFrom makes it a copy of a member's, and starts the server as its replica.
	CloneFrom(ctx context.Context, m failover.Member) error
	// Found makes the server the first of a cluster, or finds that it is one.
	Found(ctx context.Context) (failover.Found, error)
	// Relay is what streams its WAL; nil for a witness.
	Relay() *relay.Relay
	// LeaseRemaining is how long it may confirm commits.
	LeaseRemaining() time.Duration
}

// witness is the node of a companion that has no PostgreSQL.
type witness struct {
	start time.Time
}

// Run implements [Node].
func (w *witness) Run(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// Report implements [Node].
func (w *witness) Report() failover.Report { return failover.Report{Postgres: failover.ServerNone} }

// Picture implements [Node].
func (w *witness) Picture() failover.Report { return w.Report() }

// Changed implements [Node].
func (w *witness) Changed() <-chan struct{} { return nil }

// Assign implements [Node].
func (w *witness) Assign(failover.Assignment, time.Duration) {}

// Clock implements [Node].
func (w *witness) Clock() time.Duration { return time.Since(w.start) }

const errWitness = "a witness has no PostgreSQL"

// Seal implements [Node].
func (w *witness) Seal(_ context.Context, e failover.Epoch) failover.SealAnswer {
	return failover.SealAnswer{Epoch: e, Err: errWitness}
}

// Prepare implements [Node].
func (w *witness) Prepare(context.Context) error {
	return &api.Error{Code: codeWitness, Message: errWitness}
}

// Stop implements [Node].
func (w *witness) Stop(_ context.Context, e failover.Epoch) failover.Stopped {
	return failover.Stopped{Epoch: e, Err: errWitness}
}

// Promote implements [Node].
func (w *witness) Promote(_ context.Context, p failover.Promote) failover.Promoted {
	return failover.Promoted{Epoch: p.Epoch, Err: errWitness}
}

// HasData implements [Node].
func (w *witness) HasData() bool { return true }

// CloneFrom implements [Node].
func (w *witness) CloneFrom(context.Context, failover.Member) error { return nil }

// Reinit implements [Node].
func (w *witness) Reinit(context.Context) error {
	return &api.Error{Code: codeWitness, Message: errWitness}
}

// Found implements [Node].
func (w *witness) Found(context.Context) (failover.Found, error) {
	return failover.Found{}, &api.Error{Code: codeWitness, Message: errWitness, Hint: "start the first node of a cluster without --witness"}
}

// Relay implements [Node].
func (w *witness) Relay() *relay.Relay { return nil }

// LeaseRemaining implements [Node].
func (w *witness) LeaseRemaining() time.Duration { return 0 }
