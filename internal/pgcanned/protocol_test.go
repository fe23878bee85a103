package pgcanned_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/heliosdb/helios/internal/pgcanned"
)

const readSQL = "SELECT id, name FROM users WHERE id = $1"

// dial makes a bare connection to a node.
func dial(tb testing.TB, c *pgcanned.Cluster, node string) net.Conn {
	tb.Helper()
	conn, err := c.Dial(tb.Context(), "tcp", node+":5432")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return conn
}

// connect has pgconn connect to a node.
func connect(tb testing.TB, c *pgcanned.Cluster, node string) *pgconn.PgConn {
	tb.Helper()
	cfg, err := pgconn.ParseConfig("postgres://app@" + node + "/shop?sslmode=disable")
	if err != nil {
		tb.Fatal(err)
	}
	cfg.DialFunc, cfg.LookupFunc = c.Dial, c.Lookup
	conn, err := pgconn.ConnectConfig(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close(context.WithoutCancel(tb.Context())) })
	return conn
}

// ask returns what the statements of a text answer, row by row, and the error.
func ask(tb testing.TB, conn *pgconn.PgConn, sql string) string {
	tb.Helper()
	results, err := conn.Exec(tb.Context(), sql).ReadAll()
	var told []string
	for _, r := range results {
		if r.Err != nil {
			continue
		}
		for _, row := range r.Rows {
			told = append(told, string(joined(row)))
		}
		told = append(told, r.CommandTag.String())
	}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		told = append(told, pg.Code)
	} else if err != nil {
		tb.Fatal(err)
	}
	return strings.Join(append(told, string(conn.TxStatus())), ";")
}

func joined(row [][]byte) []byte {
	var b []byte
	for i, v := range row {
		if i > 0 {
			b = append(b, ',')
		}
		if v == nil {
			v = []byte("NULL")
		}
		b = append(b, v...)
	}
	return b
}

func TestStatementsAreAnsweredAsByARealServer(t *testing.T) {
	c := pgcanned.NewCluster(2)
	primary, replica := connect(t, c, "n1"), connect(t, c, "n2")
	for _, tt := range []struct {
		on        *pgconn.PgConn
		sql, want string
	}{
		{primary, "SELECT id, name FROM users WHERE id = 7", "1,Ada Lovelace;SELECT 1;I"},
		{primary, "BEGIN; UPDATE users SET name = 'x'; COMMIT; SELECT pg_catalog.pg_current_wal_flush_lsn()", "BEGIN;UPDATE 1;COMMIT;0/1000100;SELECT 1;I"},
		{primary, "SELECT CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END, pg_last_wal_replay_lsn()", "00000001,NULL;SELECT 1;I"},
		{replica, "SELECT CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END, pg_last_wal_replay_lsn()", "NULL,0/1000100;SELECT 1;I"},
		{primary, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())", "000000010000000000000001;SELECT 1;I"},
		{primary, "SHOW transaction_read_only", "off;SHOW;I"},
		{replica, "show transaction_read_only;", "on;SHOW;I"},
		{primary, "-- ping", ";I"},
		{replica, "UPDATE users SET name = 'x'", "25006;I"},
		{replica, "BEGIN READ ONLY; /* no */ DELETE FROM users; SELECT id", "BEGIN;25006;E"},
		{replica, "SELECT id", "25P02;E"},
		{replica, "COMMIT", "ROLLBACK;I"},
		{primary, "SELECT now()", "42601;I"},
		{primary, "EXPLAIN SELECT 1", "42601;I"},
		{primary, "RESET ALL; CLOSE ALL; UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP", "RESET;CLOSE;UNLISTEN;;SELECT 1;DISCARD;I"},
	} {
		if got := ask(t, tt.on, tt.sql); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.sql, got, tt.want)
		}
	}
	const list = "SELECT id, name FROM users ORDER BY id LIMIT 100"
	if rows := strings.Count(ask(t, primary, list), pgcanned.Name); rows != 100 {
		t.Errorf("%s returns %d rows, want 100", list, rows)
	}
}

func TestAnUnknownExpressionIsNamed(t *testing.T) {
	conn := connect(t, pgcanned.NewCluster(1), "n1")
	_, err := conn.Prepare(t.Context(), "", "SELECT id, pg_catalog.version() FROM users", nil)
	if err == nil || !strings.Contains(err.Error(), "does not know the expression version()") {
		t.Errorf("Prepare = %v, want an error that names version()", err)
	}
}

func TestAPromotionIsReportedWithTheNextAnswer(t *testing.T) {
	c := pgcanned.NewCluster(2)
	conn := connect(t, c, "n2")
	c.Node(2).SetPrimary(true)
	if got := conn.ParameterStatus("in_hot_standby"); got != "on" {
		t.Errorf("in_hot_standby = %s before an answer, want on", got)
	}
	ask(t, conn, "-- ping")
	if got := conn.ParameterStatus("in_hot_standby"); got != "off" {
		t.Errorf("in_hot_standby = %s after the answer, want off", got)
	}
}

func TestMessagesMayComeInParts(t *testing.T) {
	conn := dial(t, pgcanned.NewCluster(1), "n1")
	fe := pgproto3.NewFrontend(conn, &byteByByte{conn})
	fe.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "app"}})
	fe.Send(&pgproto3.Parse{Name: "a", Query: readSQL})
	fe.Send(&pgproto3.Bind{PreparedStatement: "a", Parameters: [][]byte{nil}, ResultFormatCodes: []int16{1, 0}})
	fe.Send(&pgproto3.Describe{ObjectType: 'P'})
	fe.Send(&pgproto3.Execute{})
	fe.Send(&pgproto3.Sync{})
	if err := fe.Flush(); err != nil {
		t.Fatal(err)
	}
	for ready := 0; ready < 2; {
		msg, err := fe.Receive()
		if err != nil {
			t.Fatal(err)
		}
		switch m := msg.(type) {
		case *pgproto3.RowDescription:
			if len(m.Fields) != 2 || m.Fields[0].Format != 1 || m.Fields[1].Format != 0 || string(m.Fields[1].Name) != "name" {
				t.Errorf("described as %+v, want id in binary and name as text", m.Fields)
			}
		case *pgproto3.DataRow:
			if got := string(joined(m.Values)); got != "\x00\x00\x00\x01,Ada Lovelace" {
				t.Errorf("row %q, want 1 in binary and Ada Lovelace", got)
			}
		case *pgproto3.ReadyForQuery:
			ready++
		}
	}
}

// byteByByte writes every byte by itself.
type byteByByte struct{ net.Conn }

func (w *byteByByte) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := w.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

func TestAReadWithoutAnAnswerWaits(t *testing.T) {
	for name, tt := range map[string]struct {
		after time.Duration
		end   func(net.Conn)
		want  error
	}{
		"for its deadline":      {0, func(c net.Conn) { c.SetReadDeadline(time.Now().Add(time.Hour)) }, os.ErrDeadlineExceeded},
		"for another deadline":  {time.Minute, func(c net.Conn) { c.SetDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		"for the connection":    {time.Minute, func(c net.Conn) { c.Close() }, net.ErrClosed},
		"for the end of it all": {time.Minute, func(c net.Conn) { c.Write(encode(t, &pgproto3.CancelRequest{})) }, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				conn := dial(t, pgcanned.NewCluster(1), "n1")
				go func() {
					time.Sleep(tt.after)
					tt.end(conn)
				}()
				begun := time.Now()
				_, err := conn.Read(make([]byte, 1))
				want := tt.after
				if want == 0 {
					want = time.Hour
				}
				if took := time.Since(begun); !errors.Is(err, tt.want) || took != want {
					t.Errorf("Read = %v after %v, want %v after %v", err, took, tt.want, want)
				}
			})
		})
	}
}

func TestQuietKnowsWhatWaits(t *testing.T) {
	conn := dial(t, pgcanned.NewCluster(1), "n1")
	quiet := conn.(interface{ Quiet() bool }).Quiet
	if !quiet() {
		t.Error("a new connection is not quiet")
	}
	conn.Write(encode(t, &pgproto3.SSLRequest{}))
	if quiet() {
		t.Error("the connection is quiet while an answer waits")
	}
	answer := make([]byte, 8)
	if n, err := conn.Read(answer); err != nil || string(answer[:n]) != "N" || !quiet() {
		t.Errorf("Read = %q, %v, quiet %v; want N and then quiet", answer[:n], err, quiet())
	}
}
