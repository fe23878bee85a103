package replication_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/replication"
)

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

func TestWhoDoesNotComeForReplicationIsToldWhereToGo(t *testing.T) {
	addr := serve(t, trusting(), newSender().handle)
	for _, replication := range []string{"", "off", "database"} {
		cfg, err := pgconn.ParseConfig("postgres://standby@" + addr + "/x?sslmode=disable")
		pgtest.OK(t, err)
		if replication != "" {
			cfg.RuntimeParams["replication"] = replication
		}
		_, err = pgconn.ConnectConfig(pgtest.Context(t), cfg)
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Severity != "FATAL" || !strings.Contains(pg.Hint, "Connect to PostgreSQL itself") {
			t.Errorf("replication=%s: got %v", replication, err)
		}
	}
}

func TestWhoHasNoEntryIsNotLetIn(t *testing.T) {
	for name, s := range map[string]*replication.Server{
		"nobody decides": {},
		"rejected":       {Authenticate: func(replication.Startup) replication.Method { return replication.Reject }},
	} {
		addr := serve(t, s, newSender().handle)
		err := try(t, "postgres://standby@"+addr+"/x?sslmode=disable", "")
		want := `no entry for replication connection from host "127.0.0.1", user "standby", no encryption`
		if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "28000" || pg.Message != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
}

func TestACertificateProvesWhoAClientIs(t *testing.T) {
	a, ca := authority(t)
	server := secured(t, a, replication.Certificate)
	var shown atomic.Value
	server.Authenticate = func(s replication.Startup) replication.Method {
		shown.Store(s.Certificate)
		return replication.Certificate
	}
	addr := serve(t, server, newSender().handle)
	certificate, key, err := a.Issue("standby")
	pgtest.OK(t, err)
	verified := "?sslmode=verify-full&sslrootcert=" + ca
	own := verified + "&sslcert=" + write(t, "client.crt", certificate) + "&sslkey=" + write(t, "client.key", key)
	for name, tt := range map[string]struct {
		user, params string
		ok           bool
	}{
		"the user's":      {"standby", own, true},
		"somebody else's": {"postgres", own, false},
		"none":            {"standby", verified, false},
		"no TLS":          {"standby", "?sslmode=disable", false},
	} {
		err := try(t, "postgres://"+tt.user+"@"+addr+"/x"+tt.params, "")
		pg, _ := errors.AsType[*pgconn.PgError](err)
		if tt.ok && shown.Load() != tt.user {
			t.Errorf("%s: the certificate shown is %v's, want %s's", name, shown.Load(), tt.user)
		}
		if tt.ok != (err == nil) || !tt.ok && (pg == nil || pg.Code != "28000") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestARequestToCancelIsNoSession(t *testing.T) {
	ours, theirs := net.Pipe()
	go func() {
		message, err := (&pgproto3.CancelRequest{ProcessID: 1, SecretKey: make([]byte, 4)}).Encode(nil)
		if err == nil {
			theirs.Write(message)
		}
	}()
	if s, err := trusting().Accept(t.Context(), ours); !errors.Is(err, replication.ErrCancel) {
		t.Errorf("Accept() = %v, %v; want ErrCancel", s, err)
	}
	if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection after it: %v, want io.EOF", err)
	}
}

func TestAClientThatDoesNotLogInIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, _ := net.Pipe()
		began := time.Now()
		_, err := trusting().Accept(t.Context(), ours)
		if took := time.Since(began); err == nil || took != 10*time.Second {
			t.Errorf("Accept() = %v after %v, want an error after 10s", err, took)
		}
		why := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		ours, _ = net.Pipe()
		if _, err = trusting().Accept(ctx, ours); !errors.Is(err, why) {
			t.Errorf("Accept() = %v, want %v", err, why)
		}
	})
}

func TestNewerProtocolsAreNegotiated(t *testing.T) {
	addr := serve(t, trusting(), newSender().handle)
	for name, tt := range map[string]struct {
		version uint32
		option  string
		want    uint32 // 0: the client's version is taken
		key     int
	}{
		"3.0":           {3 << 16, "", 0, 4},
		"3.2":           {3<<16 | 2, "", 0, 32},
		"3.9999":        {3<<16 | 9999, "", 3<<16 | 2, 32},
		"3.0 and more":  {3 << 16, "_pq_.more", 3 << 16, 4},
		"3.99 and more": {3<<16 | 99, "_pq_.more", 3<<16 | 2, 32},
	} {
		_, frontend := dial(t, addr)
		startup := &pgproto3.StartupMessage{ProtocolVersion: tt.version, Parameters: map[string]string{"user": "standby", "replication": "on"}}
		if tt.option != "" {
			startup.Parameters[tt.option] = "1"
		}
		say(t, frontend, startup)
		if tt.want != 0 {
			m := await[*pgproto3.NegotiateProtocolVersion](t, frontend)
			if m.NewestMinorProtocol != tt.want || strings.Join(m.UnrecognizedOptions, " ") != tt.option {
				t.Errorf("%s: got %x %q", name, m.NewestMinorProtocol, m.UnrecognizedOptions)
			}
		}
		if key := await[*pgproto3.BackendKeyData](t, frontend); len(key.SecretKey) != tt.key {
			t.Errorf("%s: a key of %d bytes, want %d", name, len(key.SecretKey), tt.key)
		}
		await[*pgproto3.ReadyForQuery](t, frontend)
	}
	_, frontend := dial(t, addr)
	say(t, frontend, &pgproto3.StartupMessage{ProtocolVersion: 4 << 16, Parameters: map[string]string{"user": "standby"}})
	if e := await[*pgproto3.ErrorResponse](t, frontend); e.Code != "0A000" || e.Severity != "FATAL" {
		t.Errorf("4.0: got %+v", e)
	}
}

func TestAStartupThatIsNoneIsRefused(t *testing.T) {
	addr := serve(t, trusting(), newSender().handle)
	for name, packet := range map[string]string{
		"too short":        "\x00\x00\x00\x07\x00\x03\x00\x00",
		"too long":         "\x00\x01\x00\x00\x00\x03\x00\x00",
		"negative":         "\xff\xff\xff\xff\x00\x03\x00\x00",
		"no terminator":    "\x00\x00\x00\x0d\x00\x03\x00\x00user\x00",
		"no user":          "\x00\x00\x00\x09\x00\x03\x00\x00\x00",
		"more behind":      "\x00\x00\x00\x0a\x00\x03\x00\x00\x00x",
		"TLS asked twice":  "\x00\x00\x00\x08\x04\xd2\x16\x2f\x00\x00\x00\x08\x04\xd2\x16\x2f",
		"odd TLS request":  "\x00\x00\x00\x09\x04\xd2\x16\x2f\x00",
		"TLS at once":      "\x16\x03\x01\x02\x00\x01\x00\x01",
		"another protocol": "GET / HTTP/1.1\r\n\r\n",
	} {
		conn, _ := dial(t, addr)
		_, err := conn.Write([]byte(packet))
		pgtest.OK(t, err)
		answer, err := io.ReadAll(conn)
		answer = bytes.TrimLeft(answer, "N")
		if err != nil && !errors.Is(err, syscall.ECONNRESET) || len(answer) > 0 && answer[0] != 'E' {
			t.Errorf("%s: got %q, %v; want an error and the end", name, answer, err)
		}
	}
}
