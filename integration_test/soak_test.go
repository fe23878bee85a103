package integration_test

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// HELIOS_SOAK says for how long the cluster of the soak lives, such as 10m.
const shortSoak = 20 * time.Second

// soak is a cluster that lives for long, and the programs on it.
type soak struct {
	*pgtest.Cluster
	db     *sql.DB
	known  *helios.Cluster
	voters []*pgtest.Node // who may become the primary; the last node comes and goes
	book   *book
	gauges gauges
}

// A cluster lives for long: programs of all kinds are at work, the primary
// changes again and again by a crash, a hang and a planned change, a replica
// flaps, and one comes and goes by command. Nothing is lost, nothing is executed
// twice, no session reads what is older than what it has seen, and the driver
// does not grow.
func TestSoak(t *testing.T) {
	life := shortSoak
	if text := os.Getenv("HELIOS_SOAK"); text != "" {
		var err error
		life, err = time.ParseDuration(text)
		pgtest.OK(t, err)
	}
	s := startSoak(t)
	until, end := context.WithTimeout(t.Context(), life)
	defer end()
	var running sync.WaitGroup
	s.startClients(until, &running)
	running.Go(func() { s.flap(t, until) })
	running.Go(func() { s.comeAndGo(t, until) })
	running.Go(func() { s.gauges.run(until, life/30) })

	ways := []struct {
		name string
		do   func(testing.TB) *pgtest.Node
	}{{"crash", s.crash}, {"hang", s.hang}, {"fence", s.fence}}
	period := min(time.Minute, life/time.Duration(len(ways)+1))
	for turn := 0; s.lives(until, period); turn++ {
		way := ways[turn%len(ways)]
		s.book.audit(t, s.Primary(), time.Now().Add(-30*time.Second))
		old := way.do(t)
		s.book.promoted(t, way.name)
		s.heal(t, old)
	}
	running.Wait()
	for _, n := range s.Nodes {
		pgtest.OK(t, n.Proxy.Heal())
	}
	s.book.audit(t, s.Primary(), time.Now())
	s.book.report(t, life, s.known.Stats())
	s.gauges.flat(t, life >= settled)
	if t.Failed() {
		listNodes(t, s.known)
	}
}

// startSoak starts the cluster. Each primary waits for one of the others to have
// a commit: whatever is lost all the same, the driver has lost.
func startSoak(t *testing.T) *soak {
	t.Helper()
	c := pgtest.New(t, pgtest.Options{Replicas: 3, Proxied: true, Settings: map[string]string{
		"synchronous_standby_names": "ANY 1 (n1, n2, n3)",
		"max_connections":           "200",
	}})
	pgtest.OK(t, c.Primary().Exec(pgtest.Context(t), "CREATE TABLE ledger (id bigint, writer text)"))
	pgtest.OK(t, c.Primary().Exec(pgtest.Context(t), "CREATE INDEX ON ledger (id)"))
	commitsWait(t, c.Primary())
	db := open(t, c, "probe_interval=200ms", "probe_timeout=500ms", "failover_wait=40s")
	return &soak{Cluster: c, db: db, known: clusterOf(t, db), voters: c.Nodes[:3], book: newBook()}
}

// lives waits for a period, and reports whether the soak goes on for another one
// after it.
func (s *soak) lives(until context.Context, period time.Duration) bool {
	deadline, _ := until.Deadline()
	if time.Until(deadline) < period*3/2 {
		return false
	}
	select {
	case <-time.After(period / 2):
		return true
	case <-until.Done():
		return false
	}
}

// best returns the voter that has received the most and is not the primary.
func (s *soak) best(t testing.TB) *pgtest.Node {
	t.Helper()
	ctx := pgtest.Context(t)
	var best *pgtest.Node
	for _, n := range s.voters {
		if n == s.Primary() {
			continue
		}
		if best == nil {
			best = n
			continue
		}
		a, err := best.LSN(ctx)
		pgtest.OK(t, err)
		b, err := n.LSN(ctx)
		pgtest.OK(t, err)
		if b > a {
			best = n
		}
	}
	return best
}

// takeOver promotes the best voter and returns the old primary.
func (s *soak) takeOver(t testing.TB) *pgtest.Node {
	t.Helper()
	ctx := pgtest.Context(t)
	old, next := s.Primary(), s.best(t)
	pgtest.OK(t, s.Promote(ctx, next))
	pgtest.OK(t, s.Follow(ctx, next))
	return old
}

// crash ends the primary's machine.
func (s *soak) crash(t testing.TB) *pgtest.Node {
	t.Helper()
	pgtest.OK(t, s.Kill(s.Primary()))
	return s.takeOver(t)
}

// hang has the primary stand still, and go on when another one has taken over.
func (s *soak) hang(t testing.TB) *pgtest.Node {
	t.Helper()
	pgtest.OK(t, s.Freeze(s.Primary()))
	old := s.takeOver(t)
	s.book.awaitWrites(t, 20)
	pgtest.OK(t, s.Thaw(old))
	await(t, "the old primary to be refused", func() bool { return statusOf(s.known, old).State == "refused" })
	return old
}

// fence changes the primary as planned.
func (s *soak) fence(t testing.TB) *pgtest.Node {
	t.Helper()
	ctx := pgtest.Context(t)
	pgtest.OK(t, s.Fence(ctx, s.Primary()))
	pgtest.OK(t, s.Primary().Await(ctx, "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_xid IS NOT NULL)"))
	pgtest.OK(t, s.WaitCaughtUp(ctx))
	return s.takeOver(t)
}

// heal makes the old primary a replica, and any other node that has received what
// the new one has not, and returns when all replicas have caught up.
func (s *soak) heal(t testing.TB, old *pgtest.Node) {
	t.Helper()
	s.book.awaitWrites(t, 20)
	for _, n := range s.Replicas() {
		if n == old || s.strayed(t, n) {
			pgtest.OK(t, s.Rejoin(pgtest.Context(t), n))
		}
	}
	pgtest.OK(t, s.WaitCaughtUp(pgtest.Context(t)))
}

// strayed reports whether a replica has received more of the old primary's
// timeline than the new primary has kept: the best voter was the best when it was
// asked, and the last node is none. Such a replica never follows by itself.
func (s *soak) strayed(t testing.TB, n *pgtest.Node) (strayed bool) {
	t.Helper()
	ctx := pgtest.Context(t)
	pgtest.OK(t, s.Primary().Await(ctx, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = $1)", n.Name))
	fork, err := s.Primary().ReplayLSN(ctx)
	pgtest.OK(t, err)
	timeline, err := pgtest.Value[int](ctx, s.Primary(), "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int")
	pgtest.OK(t, err)
	conn := n.Conn(t)
	await(t, n.Name+" to follow, or to be past the fork", func() bool {
		var follows bool
		pgtest.OK(t, conn.QueryRow(ctx, `SELECT coalesce(max(received_tli), 0) = $1,
			greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) > $2::text::pg_lsn
			FROM pg_stat_wal_receiver`, timeline, fork.String()).Scan(&follows, &strayed))
		strayed = strayed && !follows
		return follows || strayed
	})
	return strayed
}

// flap disturbs the network of one replica after the other.
func (s *soak) flap(t testing.TB, until context.Context) {
	t.Helper()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		replicas := s.Replicas()
		proxy := replicas[rand.IntN(len(replicas))].Proxy
		switch rand.IntN(4) {
		case 0:
			proxy.Refuse()
			proxy.Cut()
		case 1:
			proxy.Reset()
		case 2:
			proxy.BlackHole()
		case 3:
			proxy.CutAfter(rand.Int64N(10_000))
		}
		for range 3 { // a third of the time something is wrong
			select {
			case <-tick.C:
				if err := proxy.Heal(); err != nil {
					t.Error(err)
				}
			case <-until.Done():
				return
			}
		}
	}
}

// comeAndGo takes the last node out of the cluster and back in.
func (s *soak) comeAndGo(t testing.TB, until context.Context) {
	t.Helper()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	name := s.Nodes[len(s.Nodes)-1].Addr()
	for out := false; ; out = !out {
		select {
		case <-tick.C:
		case <-until.Done():
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		move := s.known.RemoveReplica
		if out {
			move = s.known.AddReplica
		}
		err := move(ctx, name)
		cancel()
		if err != nil {
			t.Errorf("the last node comes and goes: %v", err)
		}
	}
}
