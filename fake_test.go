package helios

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgfake"
	"github.com/heliosdb/helios/wal"
)

// A stage is a *sql.DB on a scripted cluster, in a bubble. A round trip takes
// trip, and nothing else takes time.
type stage struct {
	*testing.T
	*pgfake.Cluster
	db      *sql.DB
	cluster *Cluster
	hosts   []string // that the DSN names; all nodes if nil
}

const trip = 20 * time.Millisecond

// rare has the cluster probed so rarely that no probe gets into a count.
const rare = "probe_interval=1h"

// play opens a cluster of n nodes, of which the first is the primary, and has f
// play on it. In the end nothing of the *sql.DB may be left.
func play(t *testing.T, n int, params string, f func(s *stage), options ...ClusterOption) {
	t.Helper()
	playOn(t, "15.18", n, params, f, options...)
}

// playOn is play on nodes of a PostgreSQL version. Version 13 does not report
// its role.
func playOn(t *testing.T, version string, n int, params string, f func(s *stage), options ...ClusterOption) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{T: t, Cluster: pgfake.NewCluster(n)}
		s.Latency, s.Version = trip, version
		defer s.Cluster.Close()
		s.answerProbes()
		s.answerReads()
		s.open(params, options...)
		defer s.close()
		f(s)
	})
}

// open opens the *sql.DB and lets the cluster become known.
func (s *stage) open(params string, options ...ClusterOption) {
	s.Helper()
	hosts := s.hosts
	for _, node := range s.Nodes() {
		if s.hosts == nil {
			hosts = append(hosts, node.Name)
		}
	}
	cfg, err := ParseDSN("helios://app:hush@" + strings.Join(hosts, ",") + "/shop?sslmode=disable&" + params)
	if err != nil {
		s.Fatal(err)
	}
	options = append([]ClusterOption{
		WithDialFunc(s.Dial), WithLookupFunc(s.Lookup),
		WithLogger(slog.New(slog.NewTextHandler(s.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))),
	}, options...)
	connector, err := NewConnector(cfg, options...)
	if err != nil {
		s.Fatal(err)
	}
	s.cluster, s.db = connector.Cluster(), sql.OpenDB(connector)
	if _, err := connector.Connect(s.Context()); err != nil {
		s.Fatal(err)
	}
	time.Sleep(5 * trip)
	synctest.Wait()
	s.ResetLog()
}

// close closes the *sql.DB. Goroutines that it leaves fail the bubble.
func (s *stage) close() {
	s.Helper()
	if err := s.db.Close(); err != nil {
		s.Errorf("db.Close() = %v", err)
	}
	time.Sleep(trip) // the end of a stream takes as long as bytes do
	synctest.Wait()
	for _, node := range s.Nodes() {
		if open := node.Counters().Open; open != 0 && !node.Dark() {
			s.Errorf("%s has %d open connections after db.Close()", node.Name, open)
		}
	}
}

// answerProbes makes nodes answer the prober.
func (s *stage) answerProbes() {
	s.HandleFunc(func(n *pgfake.Node, sql string) (pgfake.Reply, bool) {
		if !isProbe(sql) {
			return pgfake.Reply{}, false
		}
		at := n.Position()
		timeline, flush, receive, replay, received := any(nil), any(nil), any(nil), any(nil), any(nil)
		if n.IsPrimary() {
			timeline, flush = fmt.Sprintf("%08X", uint32(at.Timeline)), at.LSN
			if begun, ok := s.History().Begin(at.Timeline); ok {
				replay = begun
			}
		} else {
			receive, replay, received = at.LSN, at.LSN, int(at.Timeline)
		}
		readOnly := "off"
		if n.ReadOnly() {
			readOnly = "on"
		}
		return pgfake.Row(!n.IsPrimary(), timeline, flush, receive, replay, received,
			wal.DefaultSegmentSize, "read committed", readOnly, "150018", n.StartedAt().UnixMicro(), false, "2000-01-01 00:00:00+00",
			int(s.SystemID), 0, "0/0", 1, "0/28"), true
	})
}

// isProbe reports whether sql is the prober's question.
func isProbe(sql string) bool {
	return strings.HasPrefix(sql, "SELECT pg_catalog.pg_is_in_recovery(), CASE WHEN NOT")
}

// visible is a read that shows how much of the WAL the node that answers it sees.
const visible = "SELECT lsn FROM seen"

// where is a read that shows which node answers it.
const where = "SELECT name FROM node"

// answerReads makes nodes answer visible and where.
func (s *stage) answerReads() {
	s.HandleFunc(func(n *pgfake.Node, sql string) (pgfake.Reply, bool) {
		switch sql {
		case visible:
			return pgfake.Row(int64(n.Position().LSN)), true
		case where:
			return pgfake.Row(n.Name), true
		default:
			return pgfake.Reply{}, false
		}
	})
}

// queryer is a *sql.DB, a *sql.Conn or a *sql.Tx.
type queryer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// exec executes a statement that must not fail.
func (s *stage) exec(ctx context.Context, q queryer, text string, args ...any) {
	s.Helper()
	if _, err := q.ExecContext(ctx, text, args...); err != nil {
		s.Fatalf("Exec(%s) = %v", text, err)
	}
}

// node returns the name of the node that answers a read.
func (s *stage) node(ctx context.Context, q queryer) string {
	s.Helper()
	return one[string](s, ctx, q, where)
}

// one returns the only value of a query that must not fail.
func one[V any](s *stage, ctx context.Context, q queryer, text string, args ...any) V {
	s.Helper()
	var v V
	if err := q.QueryRowContext(ctx, text, args...).Scan(&v); err != nil {
		s.Fatalf("QueryRow(%s) = %v", text, err)
	}
	return v
}

// session returns a sql.Conn that is closed before the stage is.
func (s *stage) session() *sql.Conn {
	s.Helper()
	conn, err := s.db.Conn(s.Context())
	if err != nil {
		s.Fatalf("db.Conn() = %v", err)
	}
	return conn
}

// costs checks how many round trips f makes, on all nodes together, and that
// each takes its time.
func (s *stage) costs(want int, what string, f func()) {
	s.Helper()
	before, begun := s.trips(), time.Now()
	f()
	took := time.Since(begun)
	synctest.Wait()
	if got := s.trips() - before; got != want || took != time.Duration(want)*trip {
		s.Errorf("%s: %d round trips in %v, want %d in %v; log:\n%s", what, got, took, want, time.Duration(want)*trip, s.told())
	}
}

// trips returns the round trips on all nodes.
func (s *stage) trips() int {
	n := 0
	for _, node := range s.Nodes() {
		n += node.Counters().RoundTrips
	}
	return n
}

// told returns the log, for people.
func (s *stage) told() string {
	var b strings.Builder
	for _, e := range s.Log() {
		if !isProbe(e.SQL) {
			b.WriteString(e.Node + ": " + e.SQL + " " + e.Error + "\n")
		}
	}
	return b.String()
}

// executed returns on which nodes a statement was executed, in order.
func (s *stage) executed(text string) []string {
	var nodes []string
	for _, e := range s.Log() {
		if e.SQL == text && e.Error == "" {
			nodes = append(nodes, e.Node)
		}
	}
	return nodes
}

// wantExecuted checks on which nodes a statement was executed.
func (s *stage) wantExecuted(text string, nodes ...string) {
	s.Helper()
	if got := s.executed(text); !slices.Equal(got, nodes) {
		s.Errorf("%s was executed on %v, want %v; log:\n%s", text, got, nodes, s.told())
	}
}

// wantError checks an error with errors.Is.
func (s *stage) wantError(what string, err, want error) {
	s.Helper()
	if !errors.Is(err, want) {
		s.Errorf("%s = %v, want %v", what, err, want)
	}
}

// wantCode checks that err is PostgreSQL's own, bare.
func (s *stage) wantCode(what string, err error, code string) {
	s.Helper()
	if pg, ok := err.(*pgconn.PgError); !ok || pg.Code != code { //nolint:errorlint // libraries assert the bare type
		s.Errorf("%s = %v (%T), want a bare *pgconn.PgError with SQLSTATE %s", what, err, err, code)
	}
}

// within checks how long f takes.
func (s *stage) within(want time.Duration, what string, f func()) {
	s.Helper()
	begun := time.Now()
	f()
	if took := time.Since(begun); took != want {
		s.Errorf("%s took %v, want %v", what, took, want)
	}
}
