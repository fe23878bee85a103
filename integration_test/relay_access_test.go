package integration_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal/relay"
)

// A standby logs in to a relay with a user and a password, as to a server: the
// wrong one is refused in PostgreSQL's words, and nobody writes either down.
func TestAStandbyLogsInWithAPassword(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := storyContext(t)
	primary, n2 := c.Primary(), c.Nodes[1]
	const right, wrong = `it's a "secret"`, "not-the-secret"
	var log logText
	r := startRelay(t, primary.Server().Conninfo(""), func(cfg *relay.Config) {
		v, err := replication.NewVerifier(right)
		pgtest.OK(t, err)
		cfg.Users = map[string]replication.Verifier{"replicator": v}
		cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	dir, err := pgctl.MakeTempDir("helios-")
	pgtest.OK(t, err)
	defer os.RemoveAll(dir)
	passfile := filepath.Join(dir, "passfile")
	logIn := func(password string) {
		t.Helper()
		pgtest.OK(t, pgctl.WriteFile(passfile, fmt.Sprintf("127.0.0.1:%d:replication:replicator:%s\n", r.port, password)))
		streamFrom(ctx, t, n2, fmt.Sprintf("host=127.0.0.1 port=%d user=replicator sslmode=disable application_name=n2 passfile=%s", r.port, passfile))
	}
	logIn(wrong)
	await(t, "the standby is refused", func() bool {
		text, err := n2.Server().Log()
		pgtest.OK(t, err)
		return strings.Contains(text, `FATAL:  password authentication failed for user "replicator"`)
	})
	logIn(right)
	pgtest.OK(t, primary.Exec(ctx, "CREATE TABLE t AS SELECT generate_series(1, 1000) n"))
	awaitSame(ctx, t, primary, n2)

	for user, password := range map[string]string{"replicator": wrong, "nobody": right, "postgres": ""} {
		code := "28P01"
		wantRefusal(ctx, t, fmt.Sprintf("host=127.0.0.1 port=%d user=%s password='%s' sslmode=disable", r.port, user, strings.ReplaceAll(password, "'", `\'`)),
			code, fmt.Sprintf("password authentication failed for user %q", user))
	}
	for _, secret := range []string{right, wrong, "SCRAM-SHA-256$"} {
		if text := log.String(); strings.Contains(text, secret) {
			t.Errorf("the relay's log holds %q:\n%s", secret, text)
		}
	}
}

// logText is a log that is kept.
type logText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wantRefusal connects as a walreceiver does, which must fail.
func wantRefusal(ctx context.Context, t testing.TB, conninfo, code, message string) {
	t.Helper()
	cfg, err := pgconn.ParseConfig(conninfo)
	pgtest.OK(t, err)
	client, err := replication.Connect(ctx, cfg)
	if err == nil {
		client.Close()
	}
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Code != code || pgErr.Message != message {
		t.Errorf("connecting as %s = %v, want %s %q", cfg.User, err, code, message)
	}
	if err != nil && cfg.Password != "" && strings.Contains(err.Error(), cfg.Password) {
		t.Errorf("the error holds the password: %v", err)
	}
}

// Two relays prove to each other who they are by certificates, and a relay that
// has none, or another's, is refused.
func TestRelaysKnowEachOtherByCertificates(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1})
	ctx := storyContext(t)
	primary, n2 := c.Primary(), c.Nodes[1]
	ours, theirs := newPapers(t), newPapers(t)
	near := startRelay(t, primary.Server().Conninfo(""), func(cfg *relay.Config) {
		cfg.TLS, cfg.RequireTLS = ours.server(t), true
	})
	source := func(user string, papers papers, certificate string) string {
		return fmt.Sprintf("host=127.0.0.1 port=%d user=%s sslmode=verify-full sslrootcert=%s %s", near.port, user, ours.ca, papers.client(t, certificate))
	}
	far := startRelay(t, source("far", ours, "far"))
	streamFrom(ctx, t, n2, far.conninfo("n2"))
	pgtest.OK(t, primary.Exec(ctx, "CREATE TABLE t AS SELECT generate_series(1, 1000) n"))
	awaitSame(ctx, t, primary, n2)

	wantRefusal(ctx, t, source("other", ours, "far"), "28000", `certificate authentication failed for user "other"`)
	wantRefusal(ctx, t, near.conninfo(""), "28000", `no entry for replication connection from host "127.0.0.1", user "postgres", no encryption`)
	for name, conninfo := range map[string]string{
		"a certificate of another authority": source("far", theirs, "far"),
		"a server that is not the one meant": strings.Replace(source("far", ours, "far"), ours.ca, theirs.ca, 1),
	} {
		cfg, err := pgconn.ParseConfig(conninfo)
		pgtest.OK(t, err)
		if client, err := replication.Connect(ctx, cfg); err == nil {
			client.Close()
			t.Errorf("%s was taken", name)
		}
	}
}

// papers are an authority's, on disk.
type papers struct {
	authority *pgtest.Authority
	dir, ca   string
}

func newPapers(t testing.TB) papers {
	t.Helper()
	authority, err := pgtest.NewAuthority()
	pgtest.OK(t, err)
	p := papers{authority: authority, dir: t.TempDir()}
	p.ca = p.write(t, "ca.crt", authority.PEM())
	return p
}

func (p papers) write(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(p.dir, name)
	pgtest.OK(t, os.WriteFile(path, content, 0o600))
	return path
}

// client returns what a connection string says of a certificate for a user.
func (p papers) client(t testing.TB, user string) string {
	t.Helper()
	certificate, key, err := p.authority.Issue(user)
	pgtest.OK(t, err)
	return fmt.Sprintf("sslcert=%s sslkey=%s", p.write(t, user+".crt", certificate), p.write(t, user+".key", key))
}

// server returns how a relay at 127.0.0.1 speaks TLS, with clients that show a
// certificate.
func (p papers) server(t testing.TB) *tls.Config {
	t.Helper()
	certificate, key, err := p.authority.Issue("127.0.0.1")
	pgtest.OK(t, err)
	pair, err := tls.X509KeyPair(certificate, key)
	pgtest.OK(t, err)
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(p.authority.PEM())
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS12}
}

// Without users a relay trusts this machine, and nobody else.
func TestWhoComesFromAfarIsNotTrusted(t *testing.T) {
	w := startWellspring(t)
	cfg := relay.DefaultConfig()
	var err error
	cfg.Source, err = relay.ParseSource(w.conninfo())
	pgtest.OK(t, err)
	r, err := relay.New(cfg)
	pgtest.OK(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	pgtest.OK(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx, farListener{l}) })
	defer running.Wait()
	defer cancel()
	wantRefusal(ctx, t, conninfoTo(t, l.Addr().String()), "28000",
		`no entry for replication connection from host "192.0.2.7", user "postgres", no encryption`)
}

// farListener says of everybody that he comes from another machine.
type farListener struct{ net.Listener }

func (l farListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return farConn{conn}, err
}

type farConn struct{ net.Conn }

func (farConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 5432} }

// A relay is no server for queries, and says so to those who try.
func TestARelayRefusesQueries(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{})
	ctx := storyContext(t)
	r := startRelay(t, c.Primary().Server().Conninfo(""))
	for replication, want := range map[string]string{
		"1":        "ERROR:  cannot execute SQL commands in WAL sender for physical replication",
		"database": "FATAL:  only connections for physical replication are accepted",
		"0":        "FATAL:  only connections for physical replication are accepted",
	} {
		out, err := tool(ctx, t, "psql", "-X", "-d", r.conninfo("psql")+" dbname=postgres replication="+replication, "-c", "SELECT 1").CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("psql with replication=%s: %v\n%swant %s", replication, err, out, want)
		}
	}
}
