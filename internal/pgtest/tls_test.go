package pgtest

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// everybodyEncrypted asks a server whether all that came by TCP came by TLS.
const everybodyEncrypted = `SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE client_port > 0`

func TestNobodyGetsInWithoutTLSAndAPassword(t *testing.T) {
	ctx, c := Context(t), New(t, Options{Replicas: 2, TLS: true, Proxied: true})
	OK(t, c.CreateUser(ctx, "app", ""))
	OK(t, c.WaitCaughtUp(ctx))
	for _, n := range c.Nodes {
		if !value[bool](ctx, t, n, everybodyEncrypted) {
			t.Errorf("%s has connections that are not encrypted", n.Name)
		}
		app := strings.Replace(n.DSN(), "//postgres:", "//app:", 1)
		conn, err := pgconn.Connect(ctx, app)
		OK(t, err)
		OK(t, conn.Close(ctx))
		for what, dsn := range map[string]string{
			"pg_hba.conf rejects connection": n.DSN("sslmode=disable", "channel_binding=disable"),
			"password authentication failed": strings.Replace(n.DSN(), c.TLS().Password, "guessed", 1),
		} {
			if _, err := pgconn.Connect(ctx, dsn); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("Connect to %s = %v, want %s", n.Name, err, what)
			}
		}
	}
}

func TestServersThatSpeakTLSAreMovedLikeOthers(t *testing.T) {
	ctx, c := Context(t), New(t, Options{Replicas: 2, TLS: true})
	old := c.Primary()
	_, err := c.Failover(ctx)
	OK(t, err)
	OK(t, c.Start(ctx, old))
	OK(t, old.Exec(ctx, "CREATE TABLE lost(x int)"))
	OK(t, c.Rejoin(ctx, old))
	OK(t, c.WaitCaughtUp(ctx))
	if !value[bool](ctx, t, c.Primary(), everybodyEncrypted) {
		t.Error("replication is not encrypted")
	}
}

func TestTLSIsAskedForByTheEnvironment(t *testing.T) {
	t.Setenv("HELIOS_TEST_TLS", "1")
	if c := New(t, Options{}); c.TLS() == nil || !strings.Contains(c.DSN(), "channel_binding=require") {
		t.Errorf("DSN() = %s, want one that demands TLS", c.DSN())
	}
	t.Setenv("HELIOS_TEST_TLS", "perhaps")
	if _, err := Start(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "HELIOS_TEST_TLS=perhaps") {
		t.Errorf("Start with HELIOS_TEST_TLS=perhaps = %v, want a complaint", err)
	}
}
