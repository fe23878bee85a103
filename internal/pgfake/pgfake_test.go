package pgfake_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgfake"
	"github.com/heliosdb/helios/wal"
)

const latency = 20 * time.Millisecond

// inBubble runs a story against a cluster of three nodes in fake time.
func inBubble(t *testing.T, story func(t *testing.T, c *pgfake.Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := pgfake.NewCluster(3)
		c.Latency = latency
		story(t, c)
		if err := c.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
}

func config(tb testing.TB, n *pgfake.Node) *pgx.ConnConfig {
	tb.Helper()
	cfg, err := pgx.ParseConfig("postgres://app@" + n.Address() + "/shop?sslmode=disable")
	if err != nil {
		tb.Fatal(err)
	}
	cfg.DialFunc = n.Dial
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	return cfg
}

func connect(tb testing.TB, n *pgfake.Node) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.ConnectConfig(tb.Context(), config(tb, n))
	if err != nil {
		tb.Fatalf("connect to %s: %v", n.Name, err)
	}
	return conn
}

// takes fails the test unless f lasts exactly d.
func takes(tb testing.TB, d time.Duration, f func()) {
	tb.Helper()
	start := time.Now()
	f()
	if got := time.Since(start); got != d {
		tb.Errorf("took %v, want exactly %v", got, d)
	}
}

func code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

func TestPreparedQueryReturnsScriptedRows(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		c.Node(1).Handle("SELECT name, born FROM t WHERE id = $1", pgfake.Reply{
			Columns:   []pgfake.Column{{Name: "name", OID: 25}, {Name: "born", OID: 1184}},
			ParamOIDs: []uint32{20},
			Rows:      [][]any{{"ann", time.Unix(7, 0)}, {nil, nil}},
		})
		conn := connect(t, c.Node(1))
		for range 2 {
			rows, err := conn.Query(t.Context(), "SELECT name, born FROM t WHERE id = $1", 7)
			if err != nil {
				t.Fatal(err)
			}
			type person struct {
				Name *string
				Born *time.Time
			}
			got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[person])
			if err != nil || len(got) != 2 {
				t.Fatalf("got %v, %v; want two rows", got, err)
			}
			if *got[0].Name != "ann" || !got[0].Born.Equal(time.Unix(7, 0)) || got[1].Name != nil {
				t.Errorf("got %v", got)
			}
		}
		if got := c.Node(1).Counters(); got.RoundTrips != 3 || got.Parses != 1 {
			t.Errorf("counters = %+v, want 3 round trips and 1 Parse", got)
		}
	})
}

func TestErrorLeavesTheConnectionUsable(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(1))
		c.Node(1).Inject("INSERT*", 1, pgfake.Fail("23505", "duplicate key"))
		if _, err := conn.Exec(t.Context(), "INSERT INTO t VALUES ($1)", 1); code(err) != "23505" {
			t.Errorf("first insert: %v, want 23505", err)
		}
		if _, err := conn.Exec(t.Context(), "INSERT INTO t VALUES ($1)", 1); err != nil {
			t.Errorf("second insert: %v", err)
		}
		if _, err := conn.Exec(t.Context(), "SELECT * FROM nowhere"); code(err) != "42P01" {
			t.Errorf("unknown statement: %v, want 42P01", err)
		}
	})
}

func TestWriteOnReplicaFailsBeforeAnyEffect(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(2))
		for _, sql := range []string{"INSERT INTO t VALUES (1)", "SELECT * FROM t FOR UPDATE", "CREATE TABLE x (i int)"} {
			if _, err := conn.Exec(t.Context(), sql); code(err) != "25006" && code(err) != "42P01" {
				t.Errorf("%s: %v, want 25006", sql, err)
			}
		}
		if got, want := c.Node(1).Position().LSN, wal.LSN(0x1000000); got != want {
			t.Errorf("primary at %v, want %v", got, want)
		}
	})
}

func TestCommitInASegmentCostsOneRoundTrip(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(1))
		var results []*pgconn.Result
		batch := &pgconn.Batch{}
		for _, sql := range []string{"BEGIN", "UPDATE t SET x = 1", "SELECT pg_current_wal_flush_lsn()", "COMMIT", "SELECT pg_catalog.pg_current_wal_flush_lsn()"} {
			batch.ExecParams(sql, nil, nil, nil, nil)
		}
		takes(t, latency, func() {
			var err error
			if results, err = conn.PgConn().ExecBatch(t.Context(), batch).ReadAll(); err != nil {
				t.Fatal(err)
			}
		})
		if got := string(results[2].Rows[0][0]); got != "0/1000000" {
			t.Errorf("LSN before the commit %s, want 0/1000000", got)
		}
		if got := string(results[4].Rows[0][0]); got != "0/1000100" {
			t.Errorf("LSN after the commit %s, want 0/1000100", got)
		}
		if got := c.Node(1).Counters(); got.RoundTrips != 1 || got.Syncs != 1 || got.Statements != 5 {
			t.Errorf("counters = %+v", got)
		}
		if got := c.Node(2).Position().LSN; got != 0x1000100 {
			t.Errorf("replica at %v, want 0/1000100", got)
		}
	})
}

func TestTwoSyncsInOneFlushCostOneRoundTrip(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(1))
		takes(t, latency, func() {
			p := conn.PgConn().StartPipeline(t.Context())
			p.SendQueryParams("INSERT INTO t VALUES (1)", nil, nil, nil, nil)
			p.SendPipelineSync()
			p.SendQueryParams("SELECT pg_current_wal_flush_lsn()", nil, nil, nil, nil)
			if err := p.Sync(); err != nil {
				t.Fatal(err)
			}
			var lsn string
			for {
				r, err := p.GetResults()
				if err != nil {
					t.Fatal(err)
				}
				if rr, ok := r.(*pgconn.ResultReader); ok {
					if res := rr.Read(); len(res.Rows) == 1 {
						lsn = string(res.Rows[0][0])
					}
				}
				if r == nil {
					break
				}
			}
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
			if lsn != "0/1000100" {
				t.Errorf("LSN %s, want 0/1000100", lsn)
			}
		})
		if got := c.Node(1).Counters(); got.RoundTrips != 1 || got.Syncs != 2 {
			t.Errorf("counters = %+v, want 1 round trip, 2 Syncs", got)
		}
	})
}

func TestHangEndsExactlyAtTheDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(1))
		c.Node(1).Hang()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		takes(t, time.Second, func() {
			if _, err := conn.Exec(ctx, "SELECT 1"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Exec = %v, want deadline exceeded", err)
			}
		})
	})
}

func TestBlackHoleDeliversAfterHealing(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(1))
		c.Node(1).BlackHole()
		time.AfterFunc(time.Minute, c.Node(1).Heal)
		takes(t, time.Minute+latency/2, func() {
			if _, err := conn.Exec(t.Context(), "SELECT 1"); err != nil {
				t.Error(err)
			}
		})
		c.Node(1).BlackHole()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		takes(t, time.Second, func() {
			if _, err := c.Node(1).Dial(ctx, "tcp", ""); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Dial = %v, want deadline exceeded", err)
			}
		})
	})
}

func TestCancelInterruptsAHangingStatement(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(1))
		c.Node(1).Inject("SELECT 1", 1, pgfake.Fault{Hang: true})
		time.AfterFunc(time.Second, func() { _ = conn.PgConn().CancelRequest(context.Background()) })
		takes(t, time.Second+latency/2, func() {
			if err := conn.PgConn().Exec(t.Context(), "SELECT 1").Close(); code(err) != "57014" {
				t.Errorf("Exec = %v, want 57014", err)
			}
		})
		if err := conn.Ping(t.Context()); err != nil {
			t.Errorf("Ping after the cancel: %v", err)
		}
		if got := c.Node(1).Counters(); got.Cancels != 1 || got.Opened != 1 {
			t.Errorf("counters = %+v, want 1 cancel, 1 connection", got)
		}
	})
}

func TestKillCutsAndRefuses(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(1))
		c.Node(1).Inject("SELECT 1", 1, pgfake.Fault{Delay: time.Hour})
		time.AfterFunc(time.Second, c.Node(1).Kill)
		takes(t, time.Second, func() {
			if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
				t.Error("Exec succeeded on a killed node")
			}
		})
		if _, err := pgx.ConnectConfig(t.Context(), config(t, c.Node(1))); err == nil {
			t.Error("connected to a killed node")
		}
		synctest.Wait()
		if got := c.Node(1).Counters().Open; got != 0 {
			t.Errorf("%d connections open, want 0", got)
		}
		c.Node(1).Start()
		if err := connect(t, c.Node(1)).Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestPromotionIsToldWithTheNextResponse(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(2))
		status := func() string { return conn.PgConn().ParameterStatus("in_hot_standby") }
		if got := status(); got != "on" {
			t.Errorf("in_hot_standby = %q, want on", got)
		}
		c.Node(1).Kill()
		if got, want := c.Promote(c.Node(2)), wal.LSN(0x1000000); got != want {
			t.Errorf("Promote = %v, want %v", got, want)
		}
		if got := status(); got != "on" {
			t.Errorf("in_hot_standby = %q before any response", got)
		}
		var file string
		if err := conn.QueryRow(t.Context(), "SELECT pg_walfile_name(pg_current_wal_insert_lsn())").Scan(&file); err != nil {
			t.Fatal(err)
		}
		if status() != "off" || file != "000000020000000000000000" {
			t.Errorf("in_hot_standby = %q, WAL file %s", status(), file)
		}
		if _, err := conn.Exec(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
			t.Error(err)
		}
		if got, want := c.Node(3).Position(), (wal.Position{Timeline: 2, LSN: 0x1000100}); got != want {
			t.Errorf("n3 at %v, want %v", got, want)
		}
	})
}

func TestReplicaFollowsWithItsDelay(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		c.Node(2).FollowAfter(time.Second)
		c.Node(3).Replay(0x900000)
		if _, err := connect(t, c.Node(1)).Exec(t.Context(), "INSERT INTO t VALUES (1)"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second - latency)
		if got := c.Node(2).Position().LSN; got != 0x1000000 {
			t.Errorf("n2 too early at %v", got)
		}
		time.Sleep(latency)
		if got := c.Node(2).Position().LSN; got != 0x1000100 {
			t.Errorf("n2 at %v, want 0/1000100", got)
		}
		if got := c.Node(3).Position().LSN; got != 0x900000 {
			t.Errorf("n3 at %v, want 0/900000", got)
		}
	})
}
