package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/internal/pgtest"
)

// lonelyScene is a cluster without companions: the demo promotes a replica itself.
type lonelyScene struct {
	demo    *demo
	cluster *pgtest.Cluster
}

func (s *lonelyScene) start(ctx context.Context) (err error) {
	s.demo.screen.say("starting a primary and two replicas in a temporary directory ...")
	s.cluster, err = pgtest.Start(ctx, pgtest.Options{Replicas: 2})
	return err
}

func (s *lonelyScene) open() (*sql.DB, error) { return sql.Open("helios", s.cluster.DSN()) }
func (s *lonelyScene) close() error           { return s.cluster.Close() }

func (s *lonelyScene) primary(ctx context.Context) (*pgx.Conn, error) {
	return s.cluster.Primary().Connect(ctx)
}

func (s *lonelyScene) ready(context.Context) error {
	s.demo.introduce(s.cluster.DSN(), s.cluster.Primary().Name+", the primary, crashes")
	return nil
}

func (s *lonelyScene) nodes() []demoNode {
	var nodes []demoNode
	for _, n := range s.cluster.Nodes {
		nodes = append(nodes, demoNode{n.Name, n.Addr()})
	}
	return nodes
}

// strike crashes the primary and makes the best replica take over, as an operator
// would.
func (s *lonelyScene) strike(ctx context.Context) error {
	d, old := s.demo, s.cluster.Primary()
	if err := s.crash(ctx, old); err != nil {
		return err
	}
	next, err := s.cluster.BestReplica(ctx)
	if err != nil {
		return err
	}
	d.result.oldReads, d.result.replicaReads = d.readsOn(old.Name), d.readsOn(next.Name)
	if err := s.cluster.Promote(ctx, next); err != nil {
		return err
	}
	promoted := time.Since(d.struck)
	d.screen.say("%s is promoted, %v after the crash", next.Name, promoted.Round(time.Millisecond))
	d.result.Failovers = 1
	d.result.Primaries = []string{old.Name, next.Name}
	d.result.PromotedMS = milliseconds(promoted)
	return s.cluster.Follow(ctx, next)
}

// lastSilence is how long the dying primary is silent.
const lastSilence = 10 * time.Millisecond

// crash kills the primary such that no replica misses a write that was
// acknowledged, and yet writes are under way: they are held back until the replicas
// have caught up, and then sent to a primary that does not answer any more.
func (s *lonelyScene) crash(ctx context.Context, primary *pgtest.Node) error {
	release := s.demo.load.hold()
	defer release()
	if err := s.cluster.WaitCaughtUp(ctx); err != nil {
		return fmt.Errorf("the replicas did not catch up: %w", err)
	}
	if err := s.cluster.Freeze(primary); err != nil {
		return err
	}
	release()
	if err := sleepUntil(ctx, time.Now().Add(lastSilence)); err != nil {
		return err
	}
	s.demo.screen.say("%s, the primary, crashes: SIGKILL to all its processes, with writes under way", primary.Name)
	s.demo.struck = time.Now()
	return s.cluster.Kill(primary)
}

// mend leaves the old primary dead: nothing here makes a replica of it.
func (s *lonelyScene) mend(context.Context) error     { return nil }
func (s *lonelyScene) conclude(context.Context) error { return nil }
