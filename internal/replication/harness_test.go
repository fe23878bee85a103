package replication_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

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

// write puts a file into a directory of the test.
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

// dial opens a plain connection that a test speaks the protocol on by itself.
func dial(t *testing.T, addr string) (net.Conn, *pgproto3.Frontend) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	pgtest.OK(t, err)
	t.Cleanup(func() { conn.Close() })
	pgtest.OK(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return conn, pgproto3.NewFrontend(conn, conn)
}

// dialed is dial and a login.
func dialed(t *testing.T, addr string) (net.Conn, *pgproto3.Frontend) {
	t.Helper()
	conn, frontend := dial(t, addr)
	say(t, frontend, &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "standby", "replication": "true"}})
	await[*pgproto3.ReadyForQuery](t, frontend)
	return conn, frontend
}

func say(t *testing.T, f *pgproto3.Frontend, messages ...pgproto3.FrontendMessage) {
	t.Helper()
	for _, m := range messages {
		f.Send(m)
	}
	pgtest.OK(t, f.Flush())
}

// await returns the next message of a type.
func await[M pgproto3.BackendMessage](t *testing.T, f *pgproto3.Frontend) M {
	t.Helper()
	for {
		m, err := f.Receive()
		pgtest.OK(t, err)
		if wanted, ok := m.(M); ok {
			return wanted
		}
	}
}
