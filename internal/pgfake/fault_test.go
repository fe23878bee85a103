package pgfake_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgfake"
	"github.com/heliosdb/helios/wal"
)

const insert = "INSERT INTO t VALUES (1)"

func TestFaultsEndAsTheRealServerDoes(t *testing.T) {
	for name, tt := range map[string]struct {
		fault    pgfake.Fault
		code     string        // of the error; "" for none or an I/O error
		broken   bool          // the connection is over
		executed bool          // the write is in the WAL
		notice   string        // SQLSTATE of a notice
		after    time.Duration // of thinking
	}{
		"error":            {pgfake.Fail("40001", ""), "40001", false, false, "", 0},
		"error at parse":   {pgfake.Fault{Err: &pgfake.Error{Code: "42601"}, AtParse: true}, "42601", false, false, "", 0},
		"fatal":            {pgfake.Fault{Err: &pgfake.Error{Severity: "FATAL", Code: "57P01"}}, "57P01", true, false, "", 0},
		"error at commit":  {pgfake.Fault{AtCommit: &pgfake.Error{Code: "23503"}}, "23503", false, false, "", 0},
		"cut":              {pgfake.Fault{Then: pgfake.Cut}, "", true, true, "", 0},
		"cut in the reply": {pgfake.Fault{CutAfter: 3}, "", true, true, "", 0},
		"notice":           {pgfake.Fault{Notices: []pgfake.Error{{Code: "01000"}}}, "", false, true, "01000", 0},
		"delay":            {pgfake.Fault{Delay: time.Second}, "", false, true, "", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
				cfg := config(t, c.Node(1))
				var notices []string
				cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Code) }
				cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
				conn, err := pgx.ConnectConfig(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				c.Node(1).Inject("INSERT*", 1, tt.fault)
				takes(t, latency+tt.after, func() { _, err = conn.Exec(t.Context(), insert) })
				if code(err) != tt.code || (err != nil) != (tt.code != "" || tt.broken) {
					t.Errorf("Exec = %v, want %q", err, tt.code)
				}
				synctest.Wait()
				if got := conn.IsClosed(); got != tt.broken {
					t.Errorf("IsClosed() = %v, want %v", got, tt.broken)
				}
				if got := c.Node(1).Position().LSN > 0x1000000; got && !tt.executed {
					t.Error("executed")
				}
				if got := slices.Contains(notices, tt.notice); tt.notice != "" && !got {
					t.Errorf("notices %v, want %s", notices, tt.notice)
				}
			})
		})
	}
}

func TestLostAnswerMeansExecuted(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(1))
		c.Node(1).Inject("INSERT*", 1, pgfake.Fault{Then: pgfake.Silent})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := conn.Exec(ctx, insert, pgx.QueryExecModeExec); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Exec = %v, want deadline exceeded", err)
		}
		if got := c.Node(1).Position().LSN; got != 0x1000100 {
			t.Errorf("primary at %v, want 0/1000100", got)
		}
	})
}

func TestInjectedFaultStandsUntilRemoved(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(1))
		remove := c.Node(1).Inject("~(?i)^select", 0, pgfake.Fail("53200", ""))
		for range 3 {
			if _, err := conn.Exec(t.Context(), "select 1"); code(err) != "53200" {
				t.Errorf("Exec = %v, want 53200", err)
			}
		}
		remove()
		if _, err := conn.Exec(t.Context(), "select 1"); err != nil {
			t.Error(err)
		}
	})
}

func TestCommitThatWaitsForAStandby(t *testing.T) {
	for name, tt := range map[string]struct {
		interrupt func(*pgfake.Node, *pgx.Conn)
		notice    string
		broken    bool
	}{
		"cancelled":  {func(_ *pgfake.Node, c *pgx.Conn) { _ = c.PgConn().CancelRequest(context.Background()) }, "01000", false},
		"terminated": {func(n *pgfake.Node, _ *pgx.Conn) { n.Terminate() }, "57P01", true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
				cfg := config(t, c.Node(1))
				var notice pgconn.Notice
				cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notice = *n }
				conn, err := pgx.ConnectConfig(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				c.Node(1).Inject("INSERT*", 1, pgfake.Fault{SyncWait: true})
				time.AfterFunc(time.Second, func() { tt.interrupt(c.Node(1), conn) })
				_, err = conn.Exec(t.Context(), insert, pgx.QueryExecModeExec)
				if (err != nil) != tt.broken || notice.Code != tt.notice {
					t.Errorf("Exec = %v with notice %q, want notice %s", err, notice.Code, tt.notice)
				}
				if got := c.Node(1).Position().LSN; got != 0x1000100 {
					t.Errorf("primary at %v, want 0/1000100", got)
				}
			})
		})
	}
}

func TestIdleConnectionHearsTheShutdown(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		pg := connect(t, c.Node(1)).PgConn()
		c.Node(1).Shutdown()
		time.Sleep(latency)
		if conn, ok := pg.Conn().(*pgfake.Conn); !ok || conn.Quiet() {
			t.Error("an idle connection hears nothing")
		}
		if _, err := pg.Exec(t.Context(), "SELECT 1").ReadAll(); code(err) != "57P01" {
			t.Errorf("Exec = %v, want 57P01", err)
		}
		if _, err := c.Dial(t.Context(), "tcp", "n1:5432"); err == nil {
			t.Error("dialed a node that was shut down")
		}
	})
}

func TestStartupIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		n := c.Node(1)
		n.RefuseStartup(&pgfake.Error{Code: "57P03", Message: "the database system is starting up"})
		if _, err := pgx.ConnectConfig(t.Context(), config(t, n)); code(err) != "57P03" {
			t.Errorf("connect = %v, want 57P03", err)
		}
		n.RefuseStartup(nil)
		n.SetMaxConnections(1)
		connect(t, n)
		if _, err := pgx.ConnectConfig(t.Context(), config(t, n)); code(err) != "53300" {
			t.Errorf("connect = %v, want 53300", err)
		}
	})
}

func TestConnectingCostsDialLatency(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		c.DialLatency = 3 * latency
		takes(t, 3*latency, func() { connect(t, c.Node(1)) })
		ctx, cancel := context.WithTimeout(t.Context(), latency)
		defer cancel()
		takes(t, latency, func() {
			if _, err := c.Node(1).Dial(ctx, "tcp", ""); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Dial = %v, want deadline exceeded", err)
			}
		})
	})
}

func TestSoftFenceRefusesWritesAndSaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(1))
		c.Node(1).SetReadOnly(true)
		if _, err := conn.Exec(t.Context(), insert, pgx.QueryExecModeExec); code(err) != "25006" {
			t.Errorf("Exec = %v, want 25006", err)
		}
		if got := conn.PgConn().ParameterStatus("default_transaction_read_only"); got != "on" {
			t.Errorf("default_transaction_read_only = %q, want on", got)
		}
	})
}

func TestOldPrimaryKeepsItsOwnTimeline(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		old, n2 := c.Node(1), c.Node(2)
		conn := connect(t, old)
		c.Promote(n2)
		if _, err := conn.Exec(t.Context(), insert); err != nil {
			t.Errorf("the old primary refuses a write: %v", err)
		}
		if got, want := old.Position(), (wal.Position{Timeline: 1, LSN: 0x1000100}); got != want {
			t.Errorf("old primary at %v, want %v", got, want)
		}
		if got := c.Primary(); got != n2 {
			t.Errorf("Primary() = %s, want n2", got.Name)
		}
		old.Follow(n2)
		if got, want := old.Position(), n2.Position(); got != want || old.IsPrimary() {
			t.Errorf("rejoined at %v, want %v", got, want)
		}
	})
}

func TestNobodyHearsOfAPowerLoss(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(1))
		c.Node(1).BlackHole()
		c.Node(1).Kill()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		takes(t, time.Hour, func() {
			if _, err := conn.Exec(ctx, "SELECT 1"); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Exec = %v, want deadline exceeded", err)
			}
		})
	})
}

func TestTerminatedWhileItHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(1))
		c.Node(1).Inject("INSERT*", 1, pgfake.Fault{Hang: true})
		time.AfterFunc(time.Second, c.Node(1).Terminate)
		takes(t, time.Second+latency/2, func() {
			if _, err := conn.Exec(t.Context(), insert, pgx.QueryExecModeExec); code(err) != "57P01" {
				t.Errorf("Exec = %v, want 57P01", err)
			}
		})
		if got := c.Node(1).Position().LSN; got != 0x1000000 {
			t.Errorf("primary at %v: the insert was executed", got)
		}
	})
}

func TestResumedNodeAnswersWhatWaited(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		conn := connect(t, c.Node(1))
		c.Node(1).Hang()
		time.AfterFunc(time.Second, c.Node(1).Resume)
		takes(t, time.Second+latency/2, func() {
			if err := conn.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	})
}
