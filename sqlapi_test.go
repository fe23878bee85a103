package helios

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/heliosdb/helios/internal/pgfake"
)

// echo makes nodes answer "SELECT echo …" with the arguments as text.
func (s *stage) echo() {
	s.HandleQuery(func(q pgfake.Query) (pgfake.Reply, bool) {
		if !strings.HasPrefix(q.SQL, "SELECT echo") {
			return pgfake.Reply{}, false
		}
		r := pgfake.Reply{Rows: [][]any{nil}}
		for i := range strings.Count(q.SQL, "$") {
			r.Columns = append(r.Columns, pgfake.Column{Name: fmt.Sprint("e", i+1), OID: pgtype.TextOID})
			r.ParamOIDs = append(r.ParamOIDs, pgtype.TextOID)
			if q.Describing {
				continue
			}
			if q.Args[i].Data == nil {
				r.Rows[0] = append(r.Rows[0], nil)
			} else {
				r.Rows[0] = append(r.Rows[0], string(q.Args[i].Data))
			}
		}
		return r, true
	})
}

// everyType is a row with a column of every type that database/sql has itself.
func everyType() pgfake.Reply {
	day := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	return pgfake.Reply{
		Columns: []pgfake.Column{
			{Name: "b", OID: pgtype.BoolOID},
			{Name: "i2", OID: pgtype.Int2OID},
			{Name: "i4", OID: pgtype.Int4OID},
			{Name: "i8", OID: pgtype.Int8OID},
			{Name: "f4", OID: pgtype.Float4OID},
			{Name: "f8", OID: pgtype.Float8OID},
			{Name: "t", OID: pgtype.TextOID},
			{Name: "y", OID: pgtype.ByteaOID},
			{Name: "d", OID: pgtype.DateOID},
			{Name: "tz", OID: pgtype.TimestamptzOID},
			{Name: "n", OID: pgtype.NumericOID},
			{Name: "v", OID: pgtype.VarcharOID},
			{Name: "x", OID: 99999},
		},
		Rows: [][]any{{
			true, int16(-2), int32(-4), int64(math.MinInt64), float32(1.5), 2.25, "täxt",
			[]byte{0, 1, 255},
			day,
			day.Add(time.Hour), "12.34", "v", "odd",
		}},
	}
}

func TestColumnsComeAsTheGoTypesOfTheirOwn(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.Handle("SELECT * FROM types", everyType())
		for range 2 {
			var (
				b      bool
				i2     int16
				i4     int
				i8     int64
				f4     float32
				f8     float64
				t, n   string
				y      []byte
				d, tz  time.Time
				v, x   string
				anyway [13]any
			)
			if err := s.db.QueryRow("SELECT * FROM types").Scan(&b, &i2, &i4, &i8, &f4, &f8, &t, &y, &d, &tz, &n, &v, &x); err != nil {
				s.Fatal(err)
			}
			got := fmt.Sprintln(b, i2, i4, i8, f4, f8, t, slices.Equal(y, []byte{0, 1, 255}), d.Format(time.DateOnly), tz.UTC().Format(time.RFC3339), n, v, x)
			if want := "true -2 -4 -9223372036854775808 1.5 2.25 täxt true 2026-11-23 2026-11-23T01:00:00Z 12.34 v odd\n"; got != want {
				s.Errorf("got  %s\nwant %s", got, want)
			}
			into := make([]any, len(anyway))
			for i := range anyway {
				into[i] = &anyway[i]
			}
			if err := s.db.QueryRow("SELECT * FROM types").Scan(into...); err != nil {
				s.Fatal(err)
			}
			var types []string
			for _, v := range anyway {
				types = append(types, fmt.Sprintf("%T", v))
			}
			want := []string{"bool", "int64", "int64", "int64", "float64", "float64", "string", "[]uint8", "time.Time", "time.Time", "string", "string", "string"}
			if !slices.Equal(types, want) {
				s.Errorf("an any gets %v, want %v", types, want)
			}
		}
	})
}

func TestTheTypesOfColumnsAreKnown(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.Handle("SELECT * FROM types", everyType())
		rows, err := s.db.Query("SELECT * FROM types")
		if err != nil {
			s.Fatal(err)
		}
		defer rows.Close()
		types, err := rows.ColumnTypes()
		if err != nil {
			s.Fatal(err)
		}
		want := []string{
			"b BOOL bool", "i2 INT2 int16", "i4 INT4 int32", "i8 INT8 int64", "f4 FLOAT4 float32", "f8 FLOAT8 float64",
			"t TEXT string", "y BYTEA []uint8", "d DATE time.Time", "tz TIMESTAMPTZ time.Time", "n NUMERIC float64", "v VARCHAR string", "x 99999 string",
		}
		for i, c := range types {
			if got := fmt.Sprintf("%s %s %v", c.Name(), c.DatabaseTypeName(), c.ScanType()); got != want[i] {
				s.Errorf("column %d is %s, want %s", i+1, got, want[i])
			}
		}
		if n, ok := types[6].Length(); !ok || n != math.MaxInt64 {
			s.Errorf("length of text = %d, %v", n, ok)
		}
		if _, ok := types[3].Length(); ok {
			s.Error("an int8 has a length")
		}
		if _, _, ok := types[10].DecimalSize(); !ok {
			s.Error("a numeric has no precision")
		}
	})
}

// Rows that have ended have given their connection back, and know their columns
// all the same: not what somebody else makes of the connection meanwhile.
func TestTheTypesOfColumnsAreThoseOfTheirOwnTime(t *testing.T) {
	play(t, 1, rare+"&pool_max_conns=1", func(s *stage) {
		empty := everyType()
		empty.Rows = nil
		s.Handle("SELECT * FROM types", empty)
		rows, err := s.db.Query("SELECT * FROM types")
		if err != nil {
			s.Fatal(err)
		}
		defer rows.Close()
		conn := s.session()
		defer conn.Close()
		err = conn.Raw(func(dc any) error {
			c, err := dc.(*Conn).PgxConn(s.Context())
			if err != nil {
				return err
			}
			c.TypeMap().RegisterType(&pgtype.Type{Name: "somebody's", OID: 99999, Codec: pgtype.TextCodec{}})
			return nil
		})
		if err != nil {
			s.Fatal(err)
		}
		types, err := rows.ColumnTypes()
		if err != nil {
			s.Fatal(err)
		}
		if got := types[len(types)-1].DatabaseTypeName(); got != "99999" {
			s.Errorf("the type is %s, want 99999", got)
		}
	})
}

func TestNULLIsScannedAsNothing(t *testing.T) {
	play(t, 1, rare, func(s *stage) {
		reply := everyType()
		reply.Rows = [][]any{make([]any, len(reply.Columns))}
		s.Handle("SELECT * FROM nulls", reply)
		var (
			b  sql.NullBool
			i2 sql.Null[int16]
			i4 *int
			i8 sql.NullInt64
			f4 *float32
			f8 sql.NullFloat64
			t  sql.NullString
			y  []byte
			d  sql.NullTime
			tz *time.Time
			n  *string
			v  any
			x  sql.RawBytes
		)
		rows, err := s.db.Query("SELECT * FROM nulls")
		if err != nil {
			s.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			if err := rows.Scan(&b, &i2, &i4, &i8, &f4, &f8, &t, &y, &d, &tz, &n, &v, &x); err != nil {
				s.Fatal(err)
			}
			if b.Valid || i2.Valid || i4 != nil || i8.Valid || f4 != nil || f8.Valid || t.Valid || y != nil || d.Valid || tz != nil || n != nil || v != nil || x != nil {
				s.Error("NULL became something")
			}
		}
		if err := rows.Err(); err != nil {
			s.Error(err)
		}
		if err := s.db.QueryRow("SELECT * FROM nulls").Scan(new(bool)); err == nil {
			s.Error("NULL was scanned into a bool")
		}
	})
}

// celsius has a text form of its own.
type celsius float64

func (c celsius) Value() (driver.Value, error) { return fmt.Sprintf("%g°", float64(c)), nil }

func TestArgumentsMayBeWhateverPgxTakes(t *testing.T) {
	play(t, 1, rare, func(s *stage) {
		s.echo()
		text := "now"
		for name, tt := range map[string]struct {
			arg  any
			want sql.NullString
		}{
			"a string":            {"täxt", sql.NullString{String: "täxt", Valid: true}},
			"an empty string":     {"", sql.NullString{Valid: true}},
			"nil":                 {nil, sql.NullString{}},
			"a driver.Valuer":     {celsius(21.5), sql.NullString{String: "21.5°", Valid: true}},
			"a valid sql.Null":    {sql.Null[string]{V: "v", Valid: true}, sql.NullString{String: "v", Valid: true}},
			"an invalid sql.Null": {sql.Null[string]{}, sql.NullString{}},
			"a NullString":        {sql.NullString{String: "n", Valid: true}, sql.NullString{String: "n", Valid: true}},
			"a pointer":           {&text, sql.NullString{String: "now", Valid: true}},
			"a nil pointer":       {(*string)(nil), sql.NullString{}},
			"a pgtype":            {pgtype.Text{String: "p", Valid: true}, sql.NullString{String: "p", Valid: true}},
			"bytes":               {[]byte("b"), sql.NullString{String: "b", Valid: true}},
		} {
			if got := one[sql.NullString](s, s.Context(), s.db, "SELECT echo($1)", tt.arg); got != tt.want {
				s.Errorf("%s: the server was sent %v, want %v", name, got, tt.want)
			}
		}
	})
}

func TestPgxsOptionsAreHonoured(t *testing.T) {
	play(t, 1, rare, func(s *stage) {
		s.echo()
		for _, mode := range []pgx.QueryExecMode{
			pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
			pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
		} {
			for range 2 {
				if got := one[string](s, s.Context(), s.db, "SELECT echo($1)", mode, "a"); got != "a" {
					s.Errorf("%v: got %q, want a", mode, got)
				}
			}
			s.exec(s.Context(), s.db, insert, mode)
		}
		if got := one[string](s, s.Context(), s.db, "SELECT echo(@name)", pgx.NamedArgs{"name": "b"}); got != "b" {
			s.Errorf("NamedArgs: got %q, want b", got)
		}
		if got := one[string](s, s.Context(), s.db, "SELECT echo(@name)", pgx.QueryExecModeExec, pgx.NamedArgs{"name": "c"}); got != "c" {
			s.Errorf("a mode and NamedArgs: got %q, want c", got)
		}
		s.Handle("SELECT * FROM types", everyType())
		row := make([]any, 13)
		into := make([]any, 13)
		for i := range row {
			into[i] = &row[i]
		}
		if err := s.db.QueryRow("SELECT * FROM types", pgx.QueryResultFormats{pgtype.TextFormatCode}).Scan(into...); err != nil {
			s.Errorf("text formats: %v", err)
		} else if row[3] != int64(math.MinInt64) || row[0] != true {
			s.Errorf("text formats: got %v", row)
		}
		if err := s.db.QueryRow("SELECT * FROM types", pgx.QueryResultFormatsByOID{pgtype.Int8OID: pgtype.BinaryFormatCode}).Scan(into...); err != nil {
			s.Errorf("formats by OID: %v", err)
		} else if row[3] != int64(math.MinInt64) || row[1] != int64(-2) {
			s.Errorf("formats by OID: got %v", row)
		}
		one[bool](s, s.Context(), s.db, "SELECT pg_is_in_recovery()")
	})
}

func TestASingleStatementNeverGoesByTheSimpleProtocol(t *testing.T) {
	for name, args := range map[string][]any{
		"without arguments": nil, "asked for": {pgx.QueryExecModeSimpleProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, 1, rare+"&default_query_exec_mode=simple_protocol", func(s *stage) {
				for _, text := range []string{insert, where, "CREATE TABLE u (v int)"} {
					s.exec(s.Context(), s.db, text, args...)
					before := s.Node(1).Counters()
					s.exec(s.Context(), s.db, text, args...)
					if after := s.Node(1).Counters(); after.Parses == before.Parses {
						s.Errorf("%s was not parsed: it went by the simple protocol", text)
					}
				}
			})
		})
	}
}

func TestSeveralStatementsHaveSeveralResults(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		rows, err := s.db.Query("SELECT 1 AS a; SELECT 2 AS b, 3 AS c; " + where)
		if err != nil {
			s.Fatal(err)
		}
		var got []string
		for {
			columns, err := rows.Columns()
			if err != nil {
				s.Fatal(err)
			}
			for rows.Next() {
				row := make([]any, len(columns))
				into := make([]any, len(columns))
				for i := range row {
					into[i] = &row[i]
				}
				if err := rows.Scan(into...); err != nil {
					s.Fatal(err)
				}
				got = append(got, fmt.Sprint(columns, row))
			}
			if !rows.NextResultSet() {
				break
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			s.Error(err)
		}
		if want := []string{"[a] [1]", "[b c] [2 3]", "[column1] [n2]"}; !slices.Equal(got, want) {
			s.Errorf("got %v, want %v", got, want)
		}
		if _, err := s.db.Exec("SELECT 1; SELECT $1::int", 1); err == nil || errors.As(err, new(*pgconn.PgError)) {
			s.Errorf("several statements with arguments = %v, want an error of the driver", err)
		}
		rows, err = s.db.Query("SELECT 1; SELECT 2")
		if err != nil {
			s.Fatal(err)
		}
		if err := rows.Close(); err != nil { // in the middle
			s.Errorf("Close() = %v", err)
		}
		s.Node(2).Inject("SELECT 5", 1, pgfake.Fail("22012", "division by zero"))
		rows, err = s.db.Query("SELECT 4; SELECT 5")
		if err == nil {
			for rows.Next() || rows.NextResultSet() {
			}
			err = rows.Err()
			rows.Close()
		}
		s.wantCode("the second statement", err, "22012")
	})
}

func TestAnErrorInALaterStatementIsTold(t *testing.T) {
	play(t, 1, rare, func(s *stage) {
		s.Node(1).Inject("UPDATE*", 0, pgfake.Fail("23505", "duplicate"))
		_, err := s.db.Exec(insert + "; UPDATE t SET v = 1")
		s.wantCode("Exec", err, "23505")
		s.exec(s.Context(), s.db, insert)
	})
}

func TestRowsMayBeClosedEarly(t *testing.T) {
	play(t, 2, rare+"&pool_max_conns=1", func(s *stage) {
		reply := pgfake.Reply{Columns: []pgfake.Column{{Name: "v", OID: pgtype.Int8OID}}}
		for i := range 1000 {
			reply.Rows = append(reply.Rows, []any{i})
		}
		s.Handle("SELECT v FROM many", reply)
		s.Handle(returning, reply)
		for range 3 {
			for _, text := range []string{"SELECT v FROM many", returning} {
				before := s.Node(1).Position().LSN
				rows, err := s.db.Query(text)
				if err != nil {
					s.Fatal(err)
				}
				if !rows.Next() {
					s.Error("no row")
				}
				if err := rows.Close(); err != nil {
					s.Errorf("Close() = %v", err)
				}
				if committed := s.Node(1).Position().LSN > before; committed != (text == returning) {
					s.Errorf("%s: committed = %v", text, committed)
				}
			}
		}
		for _, node := range s.Nodes() {
			if got := node.Counters().Opened; got > 1 {
				s.Errorf("%d connections to %s, want 1", got, node.Name)
			}
		}
	})
}

func TestASessionMayReadSeveralRowsAtOnceUnlessItIsPinned(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		conn := s.session()
		first, err := conn.QueryContext(s.Context(), where)
		if err != nil {
			s.Fatal(err)
		}
		second, err := conn.QueryContext(s.Context(), where)
		if err != nil {
			s.Fatalf("the second Query = %v", err)
		}
		for _, rows := range []*sql.Rows{first, second} {
			if !rows.Next() {
				s.Error("no row")
			}
		}
		if err := errors.Join(first.Close(), second.Close()); err != nil {
			s.Error(err)
		}
		s.exec(s.Context(), conn, "SET application_name = 'mine'")
		first, err = conn.QueryContext(s.Context(), where)
		if err != nil {
			s.Fatal(err)
		}
		if _, err := conn.ExecContext(s.Context(), insert); !errors.Is(err, errBusy) {
			s.Errorf("Exec while rows are open on a pinned session = %v, want %v", err, errBusy)
		}
		if err := first.Close(); err != nil {
			s.Error(err)
		}
		s.exec(s.Context(), conn, insert)
		s.finish(conn)
	})
}

func TestAStatementOutlivesItsSession(t *testing.T) {
	play(t, 2, "", func(s *stage) {
		conn := s.session()
		ofConn, err := conn.PrepareContext(s.Context(), where)
		if err != nil {
			s.Fatal(err)
		}
		if err := ofConn.QueryRow().Scan(new(string)); err != nil {
			s.Error(err)
		}
		stmt := s.prepare(insert)
		s.finish(conn)
		if _, err := stmt.Exec(); err != nil {
			s.Error(err)
		}
		tx, err := s.db.Begin()
		if err != nil {
			s.Fatal(err)
		}
		if _, err := tx.Stmt(stmt).Exec(); err != nil {
			s.Error(err)
		}
		if err := tx.Commit(); err != nil {
			s.Error(err)
		}
		s.Node(1).Kill()
		s.Promote(s.Node(2))
		time.Sleep(3 * time.Second)
		if _, err := stmt.Exec(); err != nil {
			s.Errorf("after a failover: %v", err)
		}
		s.wantExecuted(insert, "n1", "n1", "n2")
		if err := stmt.Close(); err != nil {
			s.Error(err)
		}
	})
}

func TestNoRowsAndRowsAffected(t *testing.T) {
	play(t, 1, rare, func(s *stage) {
		s.Handle("SELECT v FROM empty", pgfake.Reply{Columns: []pgfake.Column{{Name: "v", OID: pgtype.Int8OID}}})
		err := s.db.QueryRow("SELECT v FROM empty").Scan(new(int))
		s.wantError("QueryRow without a row", err, sql.ErrNoRows)
		for tag, want := range map[string]int64{"INSERT 0 3": 3, "UPDATE 12345": 12345, "DELETE 0": 0, "SELECT 2": 2, "CREATE TABLE": 0} {
			s.Handle("UPDATE counted*", pgfake.Reply{Tag: tag})
			res, err := s.db.Exec("UPDATE counted SET v = 1")
			if err != nil {
				s.Fatal(err)
			}
			if n, err := res.RowsAffected(); err != nil || n != want {
				s.Errorf("RowsAffected() after %q = %d, %v, want %d", tag, n, err, want)
			}
			if _, err := res.LastInsertId(); err == nil {
				s.Error("LastInsertId() knows something")
			}
		}
	})
}

func TestMistakesInArgumentsReachNobody(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.echo()
		for name, args := range map[string][]any{
			"too few": {}, "too many": {1, 2}, "not encodable": {make(chan int)}, "an empty Option": {Option{}},
		} {
			_, err := s.db.Exec("SELECT echo($1)", args...)
			if err == nil || errors.As(err, new(*pgconn.PgError)) {
				s.Errorf("%s: %v, want an error of the driver", name, err)
			}
		}
		if got := s.tried("SELECT echo($1)"); got != 0 {
			s.Errorf("%d statements were executed", got)
		}
		if got := one[string](s, s.Context(), s.db, "SELECT echo($1)", "a"); got != "a" {
			s.Errorf("got %q afterwards", got)
		}
		tx, err := s.db.Begin()
		if err != nil {
			s.Fatal(err)
		}
		if _, err := tx.Exec("SELECT echo($1)"); err == nil {
			s.Error("too few arguments in a transaction: no error")
		}
		s.exec(s.Context(), tx, insert)
		if err := tx.Commit(); err != nil {
			s.Errorf("Commit() = %v", err)
		}
		s.wantExecuted(insert, "n1")
	})
}

func TestOptionsOfOneCallDoNotReachTheNext(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		s.echo()
		conn := s.session()
		_, err := conn.ExecContext(s.Context(), where, OnPrimary, Option{})
		s.wantError("an empty Option", err, errEmptyOption)
		if got := s.node(s.Context(), conn); got != "n2" {
			s.Errorf("the next call went to %s, want n2", got)
		}
		s.finish(conn)
	})
}

func TestTransactionsSayWhatPostgreSQLHas(t *testing.T) {
	play(t, 1, rare, func(s *stage) {
		for _, tt := range []struct {
			opts sql.TxOptions
			want string
		}{
			{sql.TxOptions{}, "BEGIN"},
			{sql.TxOptions{Isolation: sql.LevelReadUncommitted}, "BEGIN ISOLATION LEVEL READ UNCOMMITTED"},
			{sql.TxOptions{Isolation: sql.LevelReadCommitted, ReadOnly: true}, "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY"},
			{sql.TxOptions{Isolation: sql.LevelSnapshot}, "BEGIN ISOLATION LEVEL REPEATABLE READ"},
			{sql.TxOptions{Isolation: sql.LevelRepeatableRead}, "BEGIN ISOLATION LEVEL REPEATABLE READ"},
			{sql.TxOptions{Isolation: sql.LevelSerializable}, "BEGIN ISOLATION LEVEL SERIALIZABLE"},
		} {
			s.ResetLog()
			tx, err := s.db.BeginTx(s.Context(), &tt.opts)
			if err != nil {
				s.Fatal(err)
			}
			s.node(s.Context(), tx)
			if err := tx.Commit(); err != nil {
				s.Error(err)
			}
			s.wantExecuted(tt.want, "n1")
		}
		for _, level := range []sql.IsolationLevel{sql.LevelLinearizable, sql.LevelWriteCommitted, 99} {
			if tx, err := s.db.BeginTx(s.Context(), &sql.TxOptions{Isolation: level}); err == nil {
				s.Errorf("isolation level %v was accepted; Rollback() = %v", level, tx.Rollback())
			}
		}
	})
}

func TestAWriteInAReadOnlyTransactionIsRefusedByTheServer(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		tx, err := s.db.BeginTx(s.Context(), &sql.TxOptions{ReadOnly: true})
		if err != nil {
			s.Fatal(err)
		}
		_, err = tx.Exec(insert)
		s.wantCode("Exec", err, codeReadOnly)
		if err := tx.Rollback(); err != nil {
			s.Error(err)
		}
		s.wantExecuted(insert)
		s.wantHealthy()
	})
}

func TestTheDriverIsFoundBehindTheDB(t *testing.T) {
	play(t, 1, rare, func(s *stage) {
		if got, err := ClusterOf(s.db); err != nil || got != s.cluster {
			s.Errorf("ClusterOf() = %p, %v, want %p", got, err, s.cluster)
		}
		if got := reflect.TypeOf(s.db.Driver()); got != reflect.TypeFor[Driver]() {
			s.Errorf("Driver() is a %v", got)
		}
	})
	for _, name := range []string{"helios", "postgres-helios"} {
		if !slices.Contains(sql.Drivers(), name) {
			t.Errorf("no driver is called %q", name)
		}
	}
}

func TestAnAfterConnectHookPreparesEverySession(t *testing.T) {
	hook := WithAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SET application_name = 'hooked'")
		return err
	})
	play(t, 1, rare+"&pool_max_conns=1", func(s *stage) {
		if got := one[string](s, s.Context(), s.db, "SHOW application_name"); got != "hooked" {
			s.Errorf("application_name = %q, want hooked", got)
		}
		conn := s.session()
		s.exec(s.Context(), conn, "SET application_name = 'mine'")
		s.finish(conn)
		if got := one[string](s, s.Context(), s.db, "SHOW application_name"); got != "hooked" {
			s.Errorf("after a reset application_name = %q, want hooked", got)
		}
	}, hook)
}

func TestNoticesReachTheirHandler(t *testing.T) {
	var told []string
	handler := WithOnNotice(func(_ *pgconn.PgConn, n *pgconn.Notice) { told = append(told, n.Message) })
	play(t, 1, rare, func(s *stage) {
		s.Node(1).Inject(insert, 1, pgfake.Fault{Notices: []pgfake.Error{{Severity: "NOTICE", Code: "00000", Message: "hello"}}})
		s.exec(s.Context(), s.db, insert)
		synctest.Wait()
		if !slices.Equal(told, []string{"hello"}) {
			s.Errorf("the handler was told %q, want hello", told)
		}
	}, handler)
}

func TestNothingIsSentForAClosedContext(t *testing.T) {
	play(t, 2, rare, func(s *stage) {
		ctx, cancel := context.WithCancel(s.Context())
		cancel()
		for _, text := range []string{where, insert} {
			_, err := s.db.ExecContext(ctx, text)
			s.wantError("Exec", err, context.Canceled)
		}
		if _, err := s.db.BeginTx(ctx, nil); !errors.Is(err, context.Canceled) {
			s.Errorf("BeginTx = %v", err)
		}
		if got := s.trips(); got != 0 {
			s.Errorf("%d round trips", got)
		}
	})
}
