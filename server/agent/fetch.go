package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/wal"
)

// awaitWAL waits until the standby has flushed all that the relay has, for a
// moment, and then everything that is wanted before its promotion: from whoever
// has it.
func (a *Agent) awaitWAL(ctx context.Context, p failover.Promote) error {
	return a.acting.do(ctx, func(conn *pgx.Conn) error {
		f, err := readFacts(ctx, conn)
		if err != nil {
			return err
		}
		if err := a.awaitFlush(ctx, conn, &f, promoteWait); err != nil {
			return err
		}
		for round := 0; !has(f, p.Until); round++ {
			if ctx.Err() != nil {
				return fmt.Errorf("agent: it has WAL up to %s, and %s was wanted: %w", f.position(), p.Until, context.Cause(ctx))
			}
			if len(p.Fetch) > 0 {
				m := p.Fetch[round%len(p.Fetch)]
				if err := a.fetchFrom(p.Epoch, m); err != nil {
					return err
				}
				a.log.InfoContext(ctx, "WAL is fetched before the promotion", "from", m.Name, "at", f.position(), "until", p.Until)
			}
			if err := a.awaitProgress(ctx, conn, &f, p.Until); err != nil {
				return err
			}
		}
		return nil
	})
}

// has reports whether a server with these facts has everything up to until. WAL
// of a newer timeline is of its past.
func has(f facts, until wal.Position) bool {
	return f.LSN >= until.LSN || f.Timeline > until.Timeline
}

// fetchFrom has the relay take WAL from what another member's relay holds.
func (a *Agent) fetchFrom(epoch failover.Epoch, m failover.Member) error {
	cfg, err := a.cfg.PeerConn(m, true)
	if err != nil {
		return fmt.Errorf("agent: how %s is connected to: %w", m.Name, err)
	}
	return a.setSource(epoch, "fetch from "+m.Name+" "+m.Companion, []*pgconn.Config{cfg})
}

// fetchPatience is how long one peer may send nothing before the next is asked.
const fetchPatience = 300 * time.Millisecond

// awaitProgress waits as long as WAL goes on coming, at most until there is all
// that is wanted.
func (a *Agent) awaitProgress(ctx context.Context, conn *pgx.Conn, f *facts, until wal.Position) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	by := a.clock() + fetchPatience
	for !has(*f, until) && a.clock() < by {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		flushed, _, err := received(ctx, conn)
		if err != nil {
			return err
		}
		if flushed > f.LSN {
			f.LSN, by = flushed, a.clock()+fetchPatience
		}
	}
	return nil
}
