package replication_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// serve runs a server for the time of a test, with a goroutine for each session,
// and returns where it listens.
func serve(t *testing.T, s *replication.Server, handle func(*replication.Session)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	pgtest.OK(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		listener.Close()
		running.Wait()
	})
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				session, err := s.Accept(ctx, conn)
				if err != nil {
					return
				}
				stop := context.AfterFunc(ctx, func() { session.Close() })
				defer stop()
				defer session.Close()
				handle(session)
			})
		}
	})
	return listener.Addr().String()
}

// trusting is a server that lets everybody in.
func trusting() *replication.Server {
	return &replication.Server{
		Authenticate: func(replication.Startup) replication.Method { return replication.Trust },
		Parameters:   parameters,
	}
}

func parameters() map[string]string {
	return map[string]string{"server_version": "15.18 (Debian)", "integer_datetimes": "on", "in_hot_standby": "on"}
}

// A sender is a small walsender: it has some WAL on timeline 3, and after that
// timeline 5.
type sender struct {
	begin, end wal.LSN
	statuses   chan replication.Status
	commands   chan replication.Command
}

const senderWAL = 300_000

func newSender() *sender {
	const begin = wal.LSN(0x16_00000000)
	return &sender{begin: begin, end: begin + senderWAL, statuses: make(chan replication.Status, 10), commands: make(chan replication.Command, 100)}
}

// content returns the byte at a position.
func content(at wal.LSN) byte { return byte(at*2654435761>>7) ^ byte(at) }

func (s *sender) next() wal.Position { return wal.Position{Timeline: 5, LSN: s.end} }

// handle answers commands until the client goes.
func (s *sender) handle(session *replication.Session) {
	for {
		c, err := session.ReadCommand()
		if err != nil {
			return
		}
		s.commands <- c
		if err := s.answer(session, c); err != nil {
			return
		}
	}
}

func text(values ...string) [][]byte {
	row := make([][]byte, len(values))
	for i, v := range values {
		row[i] = []byte(v)
	}
	return row
}

func (s *sender) answer(session *replication.Session, c replication.Command) error {
	switch c := c.(type) {
	case replication.IdentifySystem:
		columns := []replication.Column{{Name: "systemid", OID: replication.TypeText}, {Name: "timeline", OID: replication.TypeInt4}, {Name: "xlogpos", OID: replication.TypeText}, {Name: "dbname", OID: replication.TypeText}}
		return session.Result("IDENTIFY_SYSTEM", columns, append(text("7", "3", s.end.String()), nil))
	case replication.Show:
		return session.Result("SHOW", []replication.Column{{Name: c.Name, OID: replication.TypeText}}, text("16MB"))
	case replication.DropSlot:
		return session.Complete("DROP_REPLICATION_SLOT")
	case replication.TimelineHistory:
		return session.Result("TIMELINE_HISTORY", []replication.Column{{Name: "filename", OID: replication.TypeText}, {Name: "content", OID: replication.TypeBytea}},
			text("00000003.history", strings.Repeat("1\t0/40F4C78\tno recovery target specified\n", 1000)))
	case replication.StartReplication:
		if c.At == s.end {
			return session.NextTimeline(s.next())
		}
		return s.stream(session, c.At)
	default:
		return session.Fail(&replication.Error{Code: "0A000", Message: "not here", Detail: "a detail", Hint: "a hint"})
	}
}

// stream sends all WAL, then waits until the client has ended the stream.
func (s *sender) stream(session *replication.Session, at wal.LSN) error {
	if err := session.StartCopy(); err != nil {
		return err
	}
	for _, size := range []int{1, 0, 100, 5000, 131072, senderWAL} {
		part := make([]byte, min(size, int(s.end-at)))
		for i := range part {
			part[i] = content(at + wal.LSN(i))
		}
		header := replication.AppendDataHeader(nil, at, s.end, time.Now(), len(part))
		keepalive := replication.AppendKeepalive(nil, s.end, time.Now(), true)
		if err := session.Write(header, part, keepalive); err != nil {
			return err
		}
		at += wal.LSN(len(part))
	}
	if err := session.SendCopyDone(); err != nil {
		return err
	}
	for {
		payload, err := session.ReadCopy()
		if errors.Is(err, replication.ErrCopyDone) {
			return session.EndCopy(s.next())
		}
		if err != nil {
			return err
		}
		if status, err := replication.ParseStatus(payload); err == nil {
			s.statuses <- status
		}
	}
}

// receiveAll reads what a sender has, and how it ends.
func receiveAll(t *testing.T, c *replication.Client, s *sender) replication.Event {
	t.Helper()
	got := receive(t, c, s.begin, s.end)
	for i, b := range got {
		if at := s.begin + wal.LSN(i); b != content(at) {
			t.Fatalf("byte at %s is %d, want %d", at, b, content(at))
		}
	}
	return awaitEnd(t, c)
}

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

func TestASessionKnowsItsClient(t *testing.T) {
	sessions := make(chan *replication.Session, 2)
	addr := serve(t, trusting(), func(s *replication.Session) {
		sessions <- s
		_, _ = s.ReadCommand()
	})
	var pids []uint32
	for range 2 {
		connectTo(t, "postgres://standby@"+addr+"/replication?sslmode=disable&application_name=n2&wal_sender_timeout=5s")
		s := <-sessions
		if s.User != "standby" || s.ApplicationName != "n2" || s.TLS || s.StartupParameters["wal_sender_timeout"] != "5s" || !strings.HasPrefix(s.RemoteAddr, "127.0.0.1:") {
			t.Errorf("session is %+v", s.Startup)
		}
		pids = append(pids, s.PID)
	}
	if pids[0] == pids[1] || pids[0] == 0 {
		t.Errorf("pids are %d", pids)
	}
}

// secured is a server with a certificate and one user with a password.
func secured(t *testing.T, authority *pgtest.Authority, method replication.Method) *replication.Server {
	t.Helper()
	certificate, key, err := authority.Issue("127.0.0.1", "localhost")
	pgtest.OK(t, err)
	pair, err := tls.X509KeyPair(certificate, key)
	pgtest.OK(t, err)
	verifier, err := replication.NewVerifier("sécret")
	pgtest.OK(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority.PEM())
	return &replication.Server{
		TLS:          &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool},
		Authenticate: func(replication.Startup) replication.Method { return method },
		Verifier: func(user string) (replication.Verifier, bool) {
			return verifier, user == "standby"
		},
		Parameters: parameters,
	}
}

// write puts files into a directory of the test.
func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	pgtest.OK(t, os.WriteFile(path, content, 0o600))
	return path
}

func authority(t *testing.T) (a *pgtest.Authority, caFile string) {
	t.Helper()
	a, err := pgtest.NewAuthority()
	pgtest.OK(t, err)
	return a, write(t, "ca.crt", a.PEM())
}

// try connects and asks who the server is.
func try(t *testing.T, dsn, password string) error {
	t.Helper()
	cfg, err := pgconn.ParseConfig(dsn)
	pgtest.OK(t, err)
	cfg.Password = password
	c, err := replication.Connect(pgtest.Context(t), cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Identify(pgtest.Context(t))
	return err
}

func TestAClientProvesByItsPasswordWhoItIs(t *testing.T) {
	a, ca := authority(t)
	addr := serve(t, secured(t, a, replication.Password), newSender().handle)
	verified := "?sslmode=verify-full&sslrootcert=" + ca
	for name, tt := range map[string]struct{ params, user, password, code string }{
		"channel binding":         {verified + "&channel_binding=require", "standby", "sécret", ""},
		"no channel binding":      {verified + "&channel_binding=disable", "standby", "sécret", ""},
		"TLS from the first byte": {verified + "&channel_binding=require&sslnegotiation=direct", "standby", "sécret", ""},
		"no TLS":                  {"?sslmode=disable", "standby", "sécret", ""},
		"wrong password":          {verified, "standby", "secret", "28P01"},
		"unknown user":            {verified, "nobody", "sécret", "28P01"},
	} {
		err := try(t, "postgres://"+tt.user+"@"+addr+"/replication"+tt.params, tt.password)
		pg, _ := errors.AsType[*pgconn.PgError](err)
		switch {
		case tt.code == "" && err == nil:
		case pg == nil || pg.Code != tt.code || pg.Severity != "FATAL" || pg.Message != fmt.Sprintf("password authentication failed for user %q", tt.user):
			t.Errorf("%s: got %v, want %q", name, err, tt.code)
		}
	}
}
