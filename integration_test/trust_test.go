package integration_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
)

// Whom the driver cannot trust as the DSN demands it does not talk to, and who
// asks hears why, at once, and nothing of the password.
func TestAServerThatCannotBeTrustedIsRefused(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 1, TLS: true})
	stranger, err := pgtest.NewAuthority()
	pgtest.OK(t, err)
	strangers := filepath.Join(t.TempDir(), "stranger.crt")
	pgtest.OK(t, os.WriteFile(strangers, stranger.PEM(), 0o600))
	for name, tt := range map[string]struct{ dsn, want string }{
		"certificate of another authority": {c.DSN("sslrootcert=" + strangers), "certificate signed by unknown authority"},
		"certificate for another host":     {strings.ReplaceAll(c.DSN(), "127.0.0.1", "localhost"), "wanted to match localhost"},
		"server that insists on TLS":       {c.DSN("sslmode=disable", "channel_binding=disable"), "pg_hba.conf rejects connection"},
		"wrong password":                   {strings.ReplaceAll(c.DSN(), c.TLS().Password, "guessed"), "password authentication failed"},
	} {
		t.Run(name, func(t *testing.T) {
			turnsAway(t, c, tt.dsn, tt.want)
		})
	}
}

// Channel binding is for servers that ask for a password by SCRAM, over TLS.
// What else they ask for is not sent, and who asks for nothing is not believed.
func TestAServerThatBindsNoChannelIsRefused(t *testing.T) {
	if os.Getenv("HELIOS_TEST_POSTGRES") == "docker" {
		t.Skip("servers in containers do not see the pg_hba.conf of this story")
	}
	dir, err := pgctl.MakeTempDir("helios-hba-")
	pgtest.OK(t, err)
	t.Cleanup(func() { pgtest.OK(t, os.RemoveAll(dir)) })
	hba := filepath.Join(dir, "hba.conf")
	pgtest.OK(t, pgctl.WriteFile(hba, `local   all,replication all               trust
hostssl all             believed      all trust
hostssl all             spelled       all password
hostssl all,replication postgres      all scram-sha-256
host    all             plain         all scram-sha-256
`))
	c := pgtest.New(t, pgtest.Options{Replicas: 1, TLS: true, Settings: map[string]string{"hba_file": hba}})
	ctx := pgtest.Context(t)
	for _, user := range []string{"believed", "spelled", "plain"} {
		pgtest.OK(t, c.CreateUser(ctx, user, ""))
	}
	pgtest.OK(t, c.WaitCaughtUp(ctx))
	for _, user := range []string{"believed", "spelled"} {
		t.Run(user, func(t *testing.T) {
			turnsAway(t, c, c.DSNAs(user), "channel binding required")
			db := openAs(t, c, user, "channel_binding=prefer")
			if got := value[string](t, ctx, db, "SELECT current_user::text"); got != user {
				t.Errorf("without channel binding one is %s, want %s", got, user)
			}
		})
	}
	t.Run("without TLS", func(t *testing.T) {
		turnsAway(t, c, c.DSNAs("plain", "sslmode=disable"), "channel binding required")
		exec(t, ctx, openAs(t, c, "plain", "sslmode=disable", "channel_binding=prefer"), "SELECT 1")
	})
}

// turnsAway sees that nobody gets in by dsn, and is told what is wanted.
func turnsAway(t *testing.T, c *pgtest.Cluster, dsn, want string) {
	t.Helper()
	db := openDSN(t, dsn+"&failover_wait=30s")
	ctx := pgtest.Context(t)
	_, port, err := net.SplitHostPort(c.Nodes[0].Addr())
	pgtest.OK(t, err)
	begun := time.Now()
	_, write := db.ExecContext(ctx, "CREATE TABLE t (n int)")
	for what, err := range map[string]error{
		"a write": write,
		"a read":  db.QueryRowContext(ctx, "SELECT 1").Scan(new(int)),
		"a ping":  db.PingContext(ctx),
	} {
		switch {
		case err == nil:
			t.Fatalf("%s succeeded, want %s", what, want)
		case !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), ":"+port) || strings.Contains(err.Error(), "\n"):
			t.Errorf("%s = %v, want one line with %s and the node", what, err, want)
		case strings.Contains(err.Error(), c.TLS().Password):
			t.Errorf("%s tells the password: %v", what, err)
		}
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("to be told took %v", took)
	}
}

// Somebody in between has a certificate that the client trusts, and hands on
// what both sides say: passwords are safe from that, statements are not. With
// channel_binding=require there are none.
func TestAManInTheMiddleWithAGoodCertificateIsFoundOut(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{TLS: true})
	middle := startMiddle(t, c)
	dsn := func(params ...string) string {
		return strings.ReplaceAll(c.DSN(params...), c.Primary().Addr(), middle.Addr().String())
	}
	deceived := openDSN(t, dsn("channel_binding=disable"))
	if !value[bool](t, pgtest.Context(t), deceived, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") {
		t.Error("the man in the middle does not speak TLS to the server: nothing was tried")
	}
	for _, params := range []string{"channel_binding=require", "channel_binding=prefer"} {
		db := openDSN(t, dsn(params))
		err := db.PingContext(pgtest.Context(t))
		if err == nil || !strings.Contains(err.Error(), "channel binding check failed") || strings.Contains(err.Error(), c.TLS().Password) {
			t.Errorf("%s: Ping = %v, want that channel binding failed", params, err)
		}
	}
}

// startMiddle listens for clients of the cluster's primary, until the test ends,
// and speaks TLS to both.
func startMiddle(t *testing.T, c *pgtest.Cluster) net.Listener {
	t.Helper()
	certificate, key, err := c.TLS().Authority.Issue("127.0.0.1")
	pgtest.OK(t, err)
	pair, err := tls.X509KeyPair(certificate, key)
	pgtest.OK(t, err)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	pgtest.OK(t, err)
	ctx, stop := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { between(ctx, client, c.Primary().Addr(), pair) })
		}
	})
	t.Cleanup(func() {
		stop()
		l.Close()
		serving.Wait()
	})
	return l
}

// between hands on what client and server say, in TLS with each of them, until
// one of them has nothing more to say or ctx ends.
func between(ctx context.Context, client net.Conn, addr string, pair tls.Certificate) {
	defer client.Close()
	server, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer server.Close()
	defer context.AfterFunc(ctx, func() { client.Close(); server.Close() })()
	if _, err := io.CopyN(server, client, int64(len(requestTLS))); err != nil {
		return
	}
	if _, err := io.CopyN(client, server, 1); err != nil { // what the server says to that
		return
	}
	front := tls.Server(client, &tls.Config{Certificates: []tls.Certificate{pair}})
	back := tls.Client(server, &tls.Config{InsecureSkipVerify: true})
	var both sync.WaitGroup
	both.Go(func() { io.Copy(back, front); server.Close() })
	both.Go(func() { io.Copy(front, back); client.Close() })
	both.Wait()
}
