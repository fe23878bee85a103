package pgfake_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/heliosdb/helios/internal/pgfake"
)

// raw is a client that sends hand-built segments.
type raw struct {
	tb   testing.TB
	fe   *pgproto3.Frontend
	conn net.Conn
}

func newRaw(tb testing.TB, n *pgfake.Node) *raw {
	tb.Helper()
	h, err := connect(tb, n).PgConn().Hijack()
	if err != nil {
		tb.Fatal(err)
	}
	return &raw{tb, h.Frontend, h.Conn}
}

// send puts messages in one flush and returns the answers in short, up to the
// last ReadyForQuery.
func (r *raw) send(messages ...pgproto3.FrontendMessage) string {
	r.tb.Helper()
	syncs := 0
	for _, m := range messages {
		switch m.(type) {
		case *pgproto3.Sync, *pgproto3.Query:
			syncs++
		}
		r.fe.Send(m)
	}
	if err := r.fe.Flush(); err != nil {
		r.tb.Fatal(err)
	}
	var answers []string
	for syncs > 0 {
		msg, err := r.fe.Receive()
		if err != nil {
			return strings.Join(append(answers, err.Error()), " ")
		}
		if _, ok := msg.(*pgproto3.ReadyForQuery); ok {
			syncs--
		}
		answers = append(answers, brief(msg))
	}
	return strings.Join(answers, " ")
}

// brief names a message by its type, with what matters of it.
func brief(msg pgproto3.BackendMessage) string {
	switch msg := msg.(type) {
	case *pgproto3.ReadyForQuery:
		return "Z" + string(msg.TxStatus)
	case *pgproto3.ErrorResponse:
		return "E" + msg.Code
	case *pgproto3.NoticeResponse:
		return "N" + msg.Code
	case *pgproto3.CommandComplete:
		return "C[" + string(msg.CommandTag) + "]"
	case *pgproto3.DataRow:
		return fmt.Sprintf("D%x", msg.Values)
	case *pgproto3.ParameterStatus:
		return "S[" + msg.Name + "=" + msg.Value + "]"
	case *pgproto3.ParameterDescription:
		return fmt.Sprintf("t%v", msg.ParameterOIDs)
	case *pgproto3.RowDescription:
		var fields []string
		for _, f := range msg.Fields {
			fields = append(fields, fmt.Sprintf("%s:%d/%d", f.Name, f.DataTypeOID, f.Format))
		}
		return "T[" + strings.Join(fields, " ") + "]"
	default:
		name := fmt.Sprintf("%T", msg)
		return map[string]string{
			"*pgproto3.ParseComplete": "1", "*pgproto3.BindComplete": "2", "*pgproto3.CloseComplete": "3",
			"*pgproto3.NoData": "n", "*pgproto3.EmptyQueryResponse": "I",
		}[name]
	}
}

func parse(name, sql string) *pgproto3.Parse { return &pgproto3.Parse{Name: name, Query: sql} }

func bind(name string, format int16, args ...string) *pgproto3.Bind {
	b := &pgproto3.Bind{PreparedStatement: name, ResultFormatCodes: []int16{format}}
	for _, a := range args {
		b.Parameters = append(b.Parameters, []byte(a))
	}
	return b
}

var (
	execute  = &pgproto3.Execute{}
	sync     = &pgproto3.Sync{}
	describe = &pgproto3.Describe{ObjectType: 'S', Name: "a"}
)

func query(sql string) *pgproto3.Query { return &pgproto3.Query{String: sql} }

func TestSegmentsAreAnsweredAsByTheRealServer(t *testing.T) {
	type segment struct {
		send []pgproto3.FrontendMessage
		want string
	}
	m := func(messages ...pgproto3.FrontendMessage) []pgproto3.FrontendMessage { return messages }
	for name, segments := range map[string][]segment{
		"statement names": {
			{m(parse("a", "SELECT 1"), parse("a", "SELECT 1"), parse("b", "SELECT 1"), sync), "1 E42P05 ZI"},
			{m(bind("b", 0), execute, sync), "E26000 ZI"},
			{m(bind("a", 1), execute, sync), "2 D[00000001] C[SELECT 1] ZI"},
			{m(parse("", "SELECT 1"), parse("", "SELECT 2"), bind("", 0), execute, sync), "1 1 2 D[32] C[SELECT 1] ZI"},
			{m(&pgproto3.Close{ObjectType: 'S', Name: "a"}, bind("a", 0), sync), "3 E26000 ZI"},
		},
		"DISCARD ALL forgets statements": {
			{m(parse("a", "SELECT 1"), sync), "1 ZI"},
			{m(query("DISCARD ALL")), "C[DISCARD ALL] ZI"},
			{m(bind("a", 0), sync), "E26000 ZI"},
		},
		"descriptions": {
			{m(parse("a", "SELECT $1::int8, pg_current_wal_flush_lsn() AS lsn"), describe, sync), "1 t[20] T[?column?:20/0 lsn:3220/0] ZI"},
			{m(bind("a", 1, "7"), &pgproto3.Describe{ObjectType: 'P'}, execute, sync), "2 T[?column?:20/1 lsn:3220/1] D[0000000000000007 0000000001000000] C[SELECT 1] ZI"},
			{m(&pgproto3.Close{ObjectType: 'S', Name: "a"}, parse("a", "UPDATE t SET x = $1"), describe, sync), "3 1 t[0] n ZI"},
			{m(parse("", ""), bind("", 0), execute, sync), "1 2 I ZI"},
		},
		"an error skips to the Sync and aborts the block": {
			{m(query("BEGIN")), "C[BEGIN] ZT"},
			{m(parse("", "SELECT * FROM x"), bind("", 0), execute, sync, parse("", "SELECT 1"), sync), "E42P01 ZE E25P02 ZE"},
			{m(query("SELECT 1")), "E25P02 ZE"},
			{m(query("COMMIT")), "C[ROLLBACK] ZI"},
			{m(query("COMMIT")), "N25P01 C[COMMIT] ZI"},
		},
		"savepoints": {
			{m(query("BEGIN; SAVEPOINT a; SELECT * FROM x")), "C[BEGIN] C[SAVEPOINT] E42P01 ZE"},
			{m(query("ROLLBACK TO SAVEPOINT a")), "C[ROLLBACK] ZT"},
			{m(query("RELEASE a"), query("ROLLBACK")), "C[RELEASE] ZT C[ROLLBACK] ZI"},
		},
		"settings": {
			{m(query("SET TIME ZONE 'Asia/Tokyo'")), "C[SET] S[TimeZone=Asia/Tokyo] ZI"},
			{m(query("BEGIN; SET LOCAL synchronous_commit TO off; SHOW synchronous_commit")), "C[BEGIN] C[SET] T[synchronous_commit:25/0] D[6f6666] C[SHOW] ZT"},
			{m(query("COMMIT; SELECT current_setting('synchronous_commit')")), "C[COMMIT] T[current_setting:25/0] D[6f6e] C[SELECT 1] ZI"},
			{m(query("RESET ALL")), "C[RESET] S[TimeZone=UTC] ZI"},
		},
		"a write with its commit": {
			{
				m(parse("", "BEGIN"), bind("", 0), execute, parse("", "INSERT INTO t VALUES (1)"), bind("", 0), execute,
					parse("", "COMMIT"), bind("", 0), execute, parse("", "SELECT pg_current_wal_flush_lsn()"), bind("", 1), execute, sync),
				"1 2 C[BEGIN] 1 2 C[INSERT 0 1] 1 2 C[COMMIT] 1 2 D[0000000001000100] C[SELECT 1] ZI",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
				r := newRaw(t, c.Node(1))
				for i, s := range segments {
					takes(t, latency, func() {
						if got := r.send(s.send...); got != s.want {
							t.Errorf("segment %d\n got %s\nwant %s", i, got, s.want)
						}
					})
				}
			})
		})
	}
}

func TestDriversOwnStatements(t *testing.T) {
	const (
		position = `SELECT pg_catalog.pg_is_in_recovery(), CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END`
		commit   = `SELECT pg_current_wal_flush_lsn(), pg_current_wal_insert_lsn(), current_setting('synchronous_commit'), pg_walfile_name(pg_current_wal_insert_lsn())`
		guard    = `SELECT 1/(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END >= $1)::int`
	)
	segment := func(sql string, args ...string) []pgproto3.FrontendMessage {
		return []pgproto3.FrontendMessage{parse("", sql), bind("", 1, args...), execute, sync}
	}
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		primary, replica := newRaw(t, c.Node(1)), newRaw(t, c.Node(2))
		c.Node(2).Replay(0x900000)
		for name, tt := range map[string]struct {
			on   *raw
			sql  []pgproto3.FrontendMessage
			want string
		}{
			"position of the primary":  {primary, segment(position), "1 2 D[00 0000000001000000] C[SELECT 1] ZI"},
			"position of a replica":    {replica, segment(position), "1 2 D[01 0000000000900000] C[SELECT 1] ZI"},
			"commit":                   {primary, segment(commit), "1 2 D[0000000001000000 0000000001000000 6f6e 303030303030303130303030303030303030303030303030] C[SELECT 1] ZI"},
			"commit on a replica":      {replica, segment(commit), "1 2 E55000 ZI"},
			"guard lets through":       {replica, segment(guard, "0/900000"), "1 2 D[00000001] C[SELECT 1] ZI"},
			"guard stops":              {replica, segment(guard, "0/900001"), "1 2 E22012 ZI"},
			"system identifier":        {replica, segment("SELECT system_identifier FROM pg_control_system()"), "1 2 D[6124fee993bc0001] C[SELECT 1] ZI"},
			"receiver of the primary":  {primary, segment("SELECT received_tli FROM pg_stat_wal_receiver"), "1 2 C[SELECT 0] ZI"},
			"receiver in a sub-select": {replica, segment("SELECT (SELECT received_tli FROM pg_stat_wal_receiver)"), "1 2 D[00000001] C[SELECT 1] ZI"},
			"write on a replica":       {replica, segment("DELETE FROM t"), "1 2 E25006 ZI"},
			"serializable there":       {replica, segment("BEGIN ISOLATION LEVEL SERIALIZABLE"), "1 2 E0A000 ZI"},
		} {
			if got := tt.on.send(tt.sql...); got != tt.want {
				t.Errorf("%s\n got %s\nwant %s", name, got, tt.want)
			}
		}
	})
}

func TestAsynchronousCommitLeavesTheFlushBehind(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		c.SyncCommit = "off"
		r := newRaw(t, c.Node(1))
		const lsns = "SELECT pg_current_wal_flush_lsn(), pg_current_wal_insert_lsn()"
		segment := []pgproto3.FrontendMessage{query("INSERT INTO t VALUES (1)"), parse("", lsns), bind("", 1), execute, sync}
		if got, want := r.send(segment...), "C[INSERT 0 1] ZI 1 2 D[0000000001000000 0000000001000100] C[SELECT 1] ZI"; got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
		c.Node(1).Flush()
		if got := c.Node(3).Position().LSN; got != 0x1000100 {
			t.Errorf("replica at %v after the flush", got)
		}
	})
}

func TestLogTellsWhatWasTried(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		r := newRaw(t, c.Node(2))
		r.send(query("/* to a replica */ BEGIN ;  INSERT   INTO t VALUES ('a  b; -- c')"), query("ROLLBACK"))
		want := []string{"BEGIN", "INSERT INTO t VALUES ('a  b; -- c')", "ROLLBACK"}
		if got := c.Node(2).Statements(); !slices.Equal(got, want) {
			t.Errorf("Statements() = %q, want %q", got, want)
		}
		if got := c.Log()[1]; got.Error != "25006" || got.Node != "n2" || got.Conn != 1 {
			t.Errorf("Log()[1] = %+v", got)
		}
		c.ResetLog()
		if got := c.Node(2).Counters(); got != (pgfake.Counters{Open: 1}) || len(c.Log()) != 0 {
			t.Errorf("after ResetLog: %+v", got)
		}
	})
}

func TestHandlersSeeTheMomentOfExecution(t *testing.T) {
	inBubble(t, func(t *testing.T, c *pgfake.Cluster) {
		c.HandleFunc(func(n *pgfake.Node, sql string) (pgfake.Reply, bool) {
			return pgfake.Row(n.Name, n.Position().LSN), sql == "SELECT freshness()"
		})
		c.HandleQuery(func(q pgfake.Query) (pgfake.Reply, bool) {
			if q.SQL != "SELECT echo($1)" {
				return pgfake.Reply{}, false
			}
			r := pgfake.Reply{Columns: []pgfake.Column{{Name: "echo", OID: 25}}}
			if !q.Describing {
				r.Rows = [][]any{{string(q.Args[0].Data)}}
			}
			return r, true
		})
		r := newRaw(t, c.Node(2))
		r.send(parse("a", "SELECT freshness()"), sync)
		c.Node(2).Replay(0x2000000)
		if got, want := r.send(bind("a", 1), execute, sync), "2 D[6e32 0000000002000000] C[SELECT 1] ZI"; got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
		if got, want := r.send(parse("", "SELECT echo($1)"), bind("", 0, "hi"), execute, sync), "1 2 D[6869] C[SELECT 1] ZI"; got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
		takes(t, time.Second+latency, func() { r.send(query("SELECT pg_sleep(1)")) })
	})
}
