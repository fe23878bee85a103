package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgcanned"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/rivals"
)

// arena is where a benchmark takes place: a cluster with the table on it.
type arena struct {
	base   rivals.Options
	server string // which one, for the report

	seen        *helios.Session                        // whose reads are checked
	sessionRead func(*rivals.Driver) rivals.Operation  // a read of that session
	advance     func(ctx context.Context, i int) error // makes the session want what no replica has proved yet; nil if sessionRead does

	db       *sql.DB // for what is not measured; nil in memory
	cluster  *helios.Cluster
	local    *pgtest.Cluster // started for it; nil if it was there
	replicas []string
	made     bool  // the schema is there, and ours
	remains  error // why it may still be there
}

// options returns how drivers are opened for so many clients.
func (a *arena) options(clients int) *rivals.Options {
	o := a.base
	o.Clients = clients
	return &o
}

// cannedArena is a primary and a replica in memory.
func cannedArena(conns int) (*arena, error) {
	c := pgcanned.NewCluster(2)
	// Probed at the start, and then no more: a probe costs what a statement costs.
	cfg, err := helios.ParseDSN(c.DSN("helios", "probe_interval=1h"))
	if err != nil {
		return nil, err
	}
	seen := helios.NewSession()
	inSession := helios.WithSession(context.Background(), seen)
	return &arena{
		base:   rivals.Options{Config: cfg, Primary: cfg.Hosts[0], Conns: conns, Rows: 1, Dial: c.Dial, Lookup: c.Lookup},
		server: "a server in memory",
		seen:   seen,
		sessionRead: func(d *rivals.Driver) rivals.Operation {
			return func(_ context.Context, i int) error {
				seen.Advance(helios.Token{SystemID: pgcanned.SystemID, Timeline: pgcanned.Timeline, LSN: c.Grow()})
				return d.Read(inSession, i)
			}
		},
	}, nil
}

// localArena is a primary and a replica on this machine, which end with it.
func localArena(ctx context.Context, conns int, says io.Writer) (*arena, error) {
	const drivers, spare = 4, 20
	fmt.Fprintln(says, "bench: starts a primary and a replica in a temporary directory")
	cluster, err := pgtest.Start(ctx, pgtest.Options{
		Replicas: 1, Settings: map[string]string{"max_connections": strconv.Itoa(drivers*conns + spare)},
	})
	if err != nil {
		return nil, err
	}
	cfg, err := helios.ParseDSN(cluster.DSN())
	if err != nil {
		return nil, errors.Join(err, cluster.Close())
	}
	a, err := realArena(ctx, cfg, conns, says)
	if err != nil {
		return a, errors.Join(err, cluster.Close())
	}
	a.local = cluster
	return a, nil
}

// What is made on a real cluster.
const (
	schema    = rivals.Schema
	benchRows = 1000
)

// Bounds of what is not measured.
const (
	setUpTimeout   = time.Minute
	cleanUpTimeout = 30 * time.Second
)

// errSchemaExists says that somebody else may be measuring.
var errSchemaExists = errors.New("the schema " + schema + " is there already: somebody is measuring, or a run was killed")

// realArena makes the table on the cluster of cfg and waits until every replica
// has it.
func realArena(ctx context.Context, cfg *helios.Config, conns int, says io.Writer) (a *arena, err error) {
	own := cfg.Clone() // of what is not measured
	own.Consistency, own.LSN, own.TargetSessionAttrs = helios.PerSession, helios.LSNEager, helios.TargetAny
	connector, err := helios.NewConnector(own)
	if err != nil {
		return nil, err
	}
	a = &arena{
		base: rivals.Options{Config: cfg, Conns: conns, Rows: benchRows},
		seen: helios.NewSession(), db: sql.OpenDB(connector), cluster: connector.Cluster(),
	}
	a.sessionRead = func(d *rivals.Driver) rivals.Operation {
		return func(ctx context.Context, i int) error { return d.Read(helios.WithSession(ctx, a.seen), i) }
	}
	a.advance = a.writeAndSpread
	limited, cancel := context.WithTimeoutCause(ctx, setUpTimeout, fmt.Errorf("the cluster was not ready within %v", setUpTimeout))
	defer cancel()
	if err := a.setUp(limited, says); err != nil {
		if cause := context.Cause(limited); cause != nil {
			err = cause
		}
		return a, errors.Join(err, a.close(ctx))
	}
	return a, nil
}

// setUp looks at the cluster and makes the table.
func (a *arena) setUp(ctx context.Context, says io.Writer) error {
	if err := a.look(ctx); err != nil {
		return err
	}
	fmt.Fprintf(says, "bench: makes the schema %s with a table of %d rows on %s; drops it at the end\n", schema, benchRows, a.base.Primary)
	if err := a.makeSchema(ctx); err != nil {
		return err
	}
	if _, err := a.db.ExecContext(ctx, rivals.CreateSQL); err != nil {
		return err
	}
	if _, err := a.db.ExecContext(ctx, rivals.FillSQL, benchRows); err != nil {
		return err
	}
	if _, err := a.db.ExecContext(ctx, "VACUUM ANALYZE "+schema+".users"); err != nil {
		return err
	}
	return a.spread(ctx)
}

// look finds out who is the primary.
func (a *arena) look(ctx context.Context) error {
	// It waits until every node has answered or failed.
	_, err := a.cluster.ReplicaForRead(ctx, a.base.Config.Balance)
	if err != nil && !errors.Is(err, helios.ErrNoReplica) {
		return err
	}
	status := a.cluster.Status()
	if status.Primary == "" {
		var reasons []string
		for _, n := range status.Nodes {
			reasons = append(reasons, strings.TrimSpace(n.Name+" is "+n.State+" "+n.Reason))
		}
		return fmt.Errorf("no node is a primary that takes writes: %s; helios ping says more", strings.Join(reasons, "; "))
	}
	for i := range status.Nodes {
		n := &status.Nodes[i]
		if n.Name == status.Primary {
			a.server = fmt.Sprintf("PostgreSQL %d.%d", n.Version/10000, n.Version%10000)
		} else if n.Healthy {
			a.replicas = append(a.replicas, n.Name)
		}
	}
	a.server += ", " + count(len(a.replicas), "replica")
	i := slices.IndexFunc(a.base.Config.Hosts, func(h helios.Host) bool { return h.String() == status.Primary })
	if i < 0 {
		return fmt.Errorf("the primary %s is not in the DSN", status.Primary)
	}
	a.base.Primary = a.base.Config.Hosts[i]
	return nil
}

// makeSchema makes the schema, and refuses one that is there.
func (a *arena) makeSchema(ctx context.Context) error {
	var there bool
	const ask = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)"
	if err := a.db.QueryRowContext(helios.Primary(ctx), ask, schema).Scan(&there); err != nil {
		return err
	}
	if there {
		return errSchemaExists
	}
	_, err := a.db.ExecContext(ctx, "CREATE SCHEMA "+schema)
	// Where the outcome is not known, it is ours if it is there at all.
	a.made = err == nil || errors.Is(err, helios.ErrOutcomeUnknown)
	return err
}

// spreadPoll is how often a replica is asked whether it is there yet.
const spreadPoll = time.Millisecond

// spread waits until every replica has replayed what this handle has written.
func (a *arena) spread(ctx context.Context) error {
	token := a.cluster.Token()
	for _, name := range a.replicas {
		for there := false; !there; {
			row := a.db.QueryRowContext(helios.Node(ctx, name), "SELECT pg_catalog.pg_last_wal_replay_lsn() >= $1::text::pg_lsn", token.LSN.String())
			if err := row.Scan(&there); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if there {
				break
			}
			if err := sleepUntil(ctx, time.Now().Add(spreadPoll)); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeAndSpread writes something, and makes the session see it when every
// replica can.
func (a *arena) writeAndSpread(ctx context.Context, i int) error {
	if _, err := a.db.ExecContext(ctx, rivals.TouchSQL, 1+i%benchRows); err != nil {
		return err
	}
	if err := a.spread(ctx); err != nil {
		return err
	}
	a.seen.Advance(a.cluster.Token())
	return nil
}

// close drops what was made, even if ctx has ended.
func (a *arena) close(ctx context.Context) error {
	if a.db == nil {
		return nil
	}
	if a.made {
		a.remains = a.drop(context.WithoutCancel(ctx))
		a.made = a.remains != nil
	}
	err := errors.Join(a.remains, a.db.Close())
	if a.local != nil {
		a.remains = a.local.Close() // the schema went with it
		err = a.remains
	}
	return err
}

// drop drops the schema.
func (a *arena) drop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanUpTimeout)
	defer cancel()
	if _, err := a.db.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+schema+" CASCADE"); err != nil {
		return fmt.Errorf("the schema %s may be left behind: %w", schema, err)
	}
	return nil
}
