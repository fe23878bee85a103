package integration_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/histcheck"
	"github.com/heliosdb/helios/internal/pgtest"
)

// A regulars' table has numbered values that clients read and write without end.
type regulars struct {
	t       *testing.T
	db      *sql.DB
	running sync.WaitGroup
	done    atomic.Int64 // operations
	lost    atomic.Int64 // that sessions were told of
}

// meetRegulars makes the table, and starts so many clients that live until ctx ends.
func meetRegulars(ctx context.Context, k *clerk, clients int, live func(ctx context.Context, r *regulars, me int)) *regulars {
	k.t.Helper()
	r := &regulars{t: k.t.(*testing.T), db: k.db}
	exec(r.t, pgtest.Context(k.t), k.db, "CREATE TABLE registers (k int PRIMARY KEY, v bigint NOT NULL)")
	exec(r.t, pgtest.Context(k.t), k.db, "INSERT INTO registers SELECT n, 0 FROM generate_series(0, 9) n")
	for me := range clients {
		r.running.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for ctx.Err() == nil {
				live(ctx, r, me)
				<-tick.C
			}
		})
	}
	return r
}

// await returns when n more operations were done.
func (r *regulars) await(n int64) {
	r.t.Helper()
	want := r.done.Load() + n
	await(r.t, fmt.Sprintf("%d more operations", n), func() bool { return r.done.Load() >= want })
}

// budget bounds one operation.
func budget(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}

// Where commits wait for a standby, registers behave as one copy through every kind of
// failover.
func TestRegistersAreLinearizableThroughFailovers(t *testing.T) {
	c := startCompanions(t, companions.Options{Nodes: 3, Flags: []string{"--replication_mode=semisync", "--k=1"}})
	k := employ(t, c, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	history := histcheck.NewRegisters()
	var values atomic.Int64
	r := meetRegulars(ctx, k, 4, func(ctx context.Context, r *regulars, me int) {
		ctx, cancel := budget(helios.WithConsistency(ctx, helios.Strong))
		defer cancel()
		register := rand.IntN(3)
		if rand.IntN(2) == 0 {
			op := history.Read(me, register)
			var v int64
			if err := r.db.QueryRowContext(ctx, "SELECT v FROM registers WHERE k = $1", register).Scan(&v); err != nil {
				r.t.Errorf("read: %v", err)
				return
			}
			op.Done(v)
		} else {
			v := values.Add(1)
			op := history.Write(me, register, v)
			_, err := r.db.ExecContext(ctx, "UPDATE registers SET v = $2 WHERE k = $1", register, v)
			switch {
			case errors.Is(err, helios.ErrOutcomeUnknown):
				op.Unknown()
				return
			case err != nil:
				op.Unknown()
				r.t.Errorf("write: %v", err)
				return
			}
			op.Done(v)
		}
		r.done.Add(1)
	})
	goThroughFailovers(t, c, k, r)
	stop()
	r.running.Wait()
	t.Logf("FIGURES %d operations", r.done.Load())
	if err := history.Check(time.Minute, filepath.Join(t.ArtifactDir(), "registers.html")); err != nil {
		t.Error(err)
	}
	k.audit(0)
}

// goThroughFailovers has a primary crash, another freeze, and a third hand over.
func goThroughFailovers(t *testing.T, c *companions.Cluster, k *clerk, r *regulars) {
	t.Helper()
	r.await(100)
	failOverOnce(t, c, k, machineCrashes)
	r.await(100)
	failOverOnce(t, c, k, machineFreezes)
	r.await(100)
	switchOnce(t, c, k, standbyOf(t, c))
	r.await(100)
}

// Sessions read what they have written and what they have read before, such as a write
// whose outcome is unknown, or are told that it is lost.
func TestSessionsKeepTheirWordThroughFailovers(t *testing.T) {
	c := startCompanions(t, companions.Options{Nodes: 3})
	k := employ(t, c, 1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	type visitor struct {
		session    *helios.Session
		comes      sync.Once
		least, max int64 // what was acknowledged or read last, and tried
	}
	visitors := make([]visitor, 6)
	for i := range visitors {
		visitors[i].session = helios.NewSession()
	}
	cluster, err := helios.ClusterOf(k.db)
	pgtest.OK(t, err)
	r := meetRegulars(ctx, k, len(visitors), func(ctx context.Context, r *regulars, me int) {
		v := &visitors[me]
		v.comes.Do(func() { v.session.Advance(cluster.Token()) }) // the table is there
		ctx, cancel := budget(helios.WithSession(ctx, v.session))
		defer cancel()
		if rand.IntN(3) == 0 {
			v.max++
			_, err := r.db.ExecContext(ctx, "UPDATE registers SET v = $2 WHERE k = $1", me, v.max)
			switch {
			case errors.Is(err, helios.ErrOutcomeUnknown):
			case err != nil:
				r.t.Errorf("write: %v", err)
			default:
				v.least = v.max
			}
		} else {
			var got int64
			err := r.db.QueryRowContext(ctx, "SELECT v FROM registers WHERE k = $1", me).Scan(&got)
			switch {
			case errors.Is(err, helios.ErrWriteLost):
				v.least = 0
				r.lost.Add(1)
			case err != nil:
				r.t.Errorf("read: %v", err)
			case got < v.least || got > v.max:
				r.t.Errorf("session %d reads %d, and has seen %d; it has tried to write up to %d", me, got, v.least, v.max)
			default:
				v.least = got
			}
		}
		r.done.Add(1)
	})
	goThroughFailovers(t, c, k, r)
	stop()
	r.running.Wait()
	t.Logf("FIGURES %d operations, %d sessions were told of lost writes", r.done.Load(), r.lost.Load())
	k.audit(2 * inFlight(1))
}
