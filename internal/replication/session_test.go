package replication_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/replication"
)

func TestWhatASessionSendsAClientReceives(t *testing.T) {
	s := newSender()
	addr := serve(t, trusting(), s.handle)
	c := connectTo(t, "postgres://standby@"+addr+"/replication?sslmode=disable")
	ctx := pgtest.Context(t)

	id := identify(t, c)
	want := replication.Identity{System: "7", Timeline: 3, Flush: s.end, SegmentSize: 16 << 20, Version: 150018, InRecovery: true, Parameters: parameters()}
	if fmt.Sprint(id) != fmt.Sprint(want) {
		t.Errorf("Identify() = %+v, want %+v", id, want)
	}
	file, err := c.History(ctx, 3)
	if err != nil || len(file) != 41_000 {
		t.Errorf("History() = %d bytes, %v", len(file), err)
	}
	pgtest.OK(t, c.DropSlot(ctx, "x"))
	pg, ok := errors.AsType[*pgconn.PgError](c.CreateSlot(ctx, "x", true, true))
	if !ok || pg.Code != "0A000" || pg.Detail != "a detail" || pg.Hint != "a hint" || pg.Severity != "ERROR" {
		t.Errorf("CreateSlot() = %+v", pg)
	}
	for range 2 {
		start(t, c, s.begin, 3)
		if end := receiveAll(t, c, s); end.Next != s.next() {
			t.Errorf("the stream ends with %+v, want %s", end, s.next())
		}
	}
	started, next, err := c.Start(ctx, "slot", s.end, 3, " (frames '1')")
	if err != nil || started || next != s.next() {
		t.Errorf("Start at the end = %v, %s, %v; want no stream but %s", started, next, err, s.next())
	}
	pgtest.OK(t, c.Close())
}

func TestOnlySimpleQueriesAreTaken(t *testing.T) {
	s := newSender()
	_, f := dialed(t, serve(t, trusting(), s.handle))
	wantError := func(what, code string) {
		t.Helper()
		if e := await[*pgproto3.ErrorResponse](t, f); e.Code != code || e.Severity != "ERROR" {
			t.Errorf("%s: got %+v, want %s", what, e, code)
		}
	}
	say(t, f, &pgproto3.Parse{Query: "SELECT 1"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Query{String: "IDENTIFY_SYSTEM"}, &pgproto3.Sync{})
	wantError("extended protocol", "08P01")
	await[*pgproto3.ReadyForQuery](t, f)
	say(t, f, &pgproto3.FunctionCall{})
	wantError("function call", "08P01")
	await[*pgproto3.ReadyForQuery](t, f)
	say(t, f, &pgproto3.CopyData{}, &pgproto3.CopyDone{}, &pgproto3.CopyFail{}, &pgproto3.Flush{}, &pgproto3.Query{String: " ; "})
	await[*pgproto3.EmptyQueryResponse](t, f)
	await[*pgproto3.ReadyForQuery](t, f)
	say(t, f, &pgproto3.Query{String: "SHOW"})
	wantError("syntax error", "42601")
	await[*pgproto3.ReadyForQuery](t, f)
	say(t, f, &pgproto3.Query{String: "SELECT '" + strings.Repeat("x", 100_000) + "'"})
	wantError("a query", "0A000")
	if c, ok := (<-s.commands).(replication.Unknown); !ok || len(c.Text) != 100_009 {
		t.Errorf("the first command is %T, want the query", c)
	}
}

func TestAMessageThatIsTooLongEndsTheSession(t *testing.T) {
	ended := make(chan error, 1)
	addr := serve(t, trusting(), func(s *replication.Session) {
		_, err := s.ReadCommand()
		ended <- err
	})
	conn, f := dialed(t, addr)
	_, err := conn.Write([]byte("Q\x7f\xff\xff\xff"))
	pgtest.OK(t, err)
	if e := await[*pgproto3.ErrorResponse](t, f); e.Code != "08P01" || e.Severity != "FATAL" {
		t.Errorf("got %+v", e)
	}
	if err := <-ended; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("ReadCommand() = %v, want an error that is not io.EOF", err)
	}
}

func TestAStreamEndsAsItsClientEndsIt(t *testing.T) {
	for name, tt := range map[string]struct {
		say  []pgproto3.FrontendMessage
		want error // nil: any that is none of these
	}{
		"done":          {[]pgproto3.FrontendMessage{&pgproto3.CopyDone{}}, replication.ErrCopyDone},
		"terminated":    {[]pgproto3.FrontendMessage{&pgproto3.Terminate{}}, io.EOF},
		"failed":        {[]pgproto3.FrontendMessage{&pgproto3.CopyFail{Message: "no"}}, nil},
		"out of place":  {[]pgproto3.FrontendMessage{&pgproto3.Query{String: "x"}}, nil},
		"empty message": {[]pgproto3.FrontendMessage{&pgproto3.CopyData{}}, nil},
	} {
		got := make(chan error, 1)
		addr := serve(t, trusting(), func(s *replication.Session) {
			if err := s.StartCopy(); err != nil {
				got <- err
				return
			}
			for {
				payload, err := s.ReadCopy()
				if err != nil {
					got <- err
					return
				}
				if len(payload) != 7000 && len(payload) != 3 || payload[0] != 'x' {
					t.Errorf("%s: a payload of %d bytes", name, len(payload))
				}
			}
		})
		_, f := dialed(t, addr)
		say(t, f, &pgproto3.CopyData{Data: []byte("xyz")}, &pgproto3.CopyData{Data: bytes.Repeat([]byte("x"), 7000)}, &pgproto3.CopyData{Data: []byte("xyz")})
		say(t, f, tt.say...)
		err := <-got
		if tt.want != nil && !errors.Is(err, tt.want) || tt.want == nil && (err == nil || errors.Is(err, io.EOF) || errors.Is(err, replication.ErrCopyDone)) {
			t.Errorf("%s: ReadCopy() = %v, want %v", name, err, tt.want)
		}
	}
}

func TestAReadThatTimesOutMayBeRepeated(t *testing.T) {
	timedOut, got := make(chan struct{}, 1), make(chan string, 1)
	addr := serve(t, trusting(), func(s *replication.Session) {
		pgtest.OK(t, s.StartCopy())
		for {
			pgtest.OK(t, s.SetReadDeadline(time.Now().Add(5*time.Millisecond)))
			payload, err := s.ReadCopy()
			if err == nil {
				got <- string(payload)
				return
			}
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("ReadCopy() = %v, want a timeout", err)
				return
			}
			select {
			case timedOut <- struct{}{}:
			default:
			}
		}
	})
	conn, _ := dialed(t, addr)
	for _, part := range []string{"d\x00", "\x00\x00\x07x", "y", "z"} {
		<-timedOut
		_, err := conn.Write([]byte(part))
		pgtest.OK(t, err)
	}
	if text := <-got; text != "xyz" {
		t.Errorf("ReadCopy() = %q, want xyz", text)
	}
}

func TestAWriteThatWasCutShortIsTheLast(t *testing.T) {
	failed := make(chan error, 2)
	addr := serve(t, trusting(), func(s *replication.Session) {
		message := replication.AppendCopy(nil, 'x', make([]byte, 1<<20))
		pgtest.OK(t, s.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
		var err error
		for err == nil {
			err = s.Write(message[:10], message[10:])
		}
		failed <- err
		pgtest.OK(t, s.SetWriteDeadline(time.Time{}))
		failed <- s.Write(message)
	})
	dialed(t, addr)
	for range 2 {
		if err := <-failed; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write() = %v, want a timeout", err)
		}
	}
}

func TestManyMayWriteAndNoMessageIsTorn(t *testing.T) {
	a, ca := authority(t)
	const writers, messages = 4, 200
	addr := serve(t, secured(t, a, replication.Trust), func(s *replication.Session) {
		if _, err := s.ReadCommand(); err != nil {
			return
		}
		pgtest.OK(t, s.StartCopy())
		var writing sync.WaitGroup
		for w := range writers {
			writing.Go(func() {
				for i := range messages {
					body := bytes.Repeat([]byte{byte(w)}, i*i%40_000)
					header := replication.AppendDataHeader(nil, 0, 0, time.Now(), len(body))
					pgtest.OK(t, s.Write(header, body[:len(body)/3], body[len(body)/3:]))
				}
			})
		}
		writing.Wait()
		pgtest.OK(t, s.SendCopyDone())
		_, _ = s.ReadCopy()
	})
	for _, params := range []string{"?sslmode=disable", "?sslmode=verify-full&sslrootcert=" + ca} {
		c := connectTo(t, "postgres://standby@"+addr+"/x"+params)
		start(t, c, 0, 0)
		for range writers * messages {
			e := next(t, c)
			body := make([]byte, e.Size)
			if n, err := c.Read(body); n != e.Size || err != nil && e.Size > 0 {
				t.Fatalf("Read() = %d, %v; want %d", n, err, e.Size)
			}
			if e.Kind != replication.KindData || len(body) > 0 && !bytes.Equal(body, bytes.Repeat(body[:1], len(body))) {
				t.Fatalf("a torn message: %+v", e)
			}
		}
		c.Close()
	}
}
