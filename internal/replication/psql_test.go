package replication_test

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/replication"
)

// programs returns where PostgreSQL's programs are.
func programs(t *testing.T) pgctl.Binaries {
	t.Helper()
	binaries, err := pgctl.FindBinaries()
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	pgtest.OK(t, err)
	return binaries
}

// psql runs psql against a server and returns what it prints.
func psql(t *testing.T, conninfo, password, command string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(pgtest.Context(t), programs(t).Program("psql"), "-XAtq", "-d", conninfo, "-c", command)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "PGCONNECT_TIMEOUT=20")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestPsqlTalksToASession(t *testing.T) {
	a, ca := authority(t)
	s := newSender()
	server := secured(t, a, replication.Password)
	const strange = "s\u00e9cret \u2460" // which libpq normalizes
	known := verifier(t, strange)
	server.Verifier = func(user string) (replication.Verifier, bool) { return known, user == "standby" }
	addr := serve(t, server, s.handle)
	_, port, err := net.SplitHostPort(addr)
	pgtest.OK(t, err)
	major := programs(t).Major()
	base := "host=localhost hostaddr=127.0.0.1 port=" + port + " replication=1 user=standby "
	verified := base + "sslmode=verify-full channel_binding=require sslrootcert=" + ca
	for name, tt := range map[string]struct{ conninfo, password, command, want string }{
		"identity":       {verified, strange, "IDENTIFY_SYSTEM", "7|3|16/493E0|"},
		"setting":        {verified, strange, "SHOW wal_segment_size", "16MB"},
		"no TLS":         {base + "sslmode=disable", strange, "IDENTIFY_SYSTEM", "7|3|16/493E0|"},
		"query":          {verified, strange, "SELECT 1", "ERROR:  not here\nDETAIL:  a detail\nHINT:  a hint"},
		"syntax":         {verified, strange, "SHOW", "ERROR:  syntax error"},
		"wrong password": {verified, "secret", "IDENTIFY_SYSTEM", `FATAL:  password authentication failed for user "standby"`},
		"unknown user":   {strings.Replace(verified, "standby", "nobody", 1), strange, "IDENTIFY_SYSTEM", `FATAL:  password authentication failed for user "nobody"`},
		"no replication": {strings.Replace(verified, "replication=1", "", 1), strange, "SELECT 1", "HINT:  This is a relay of write-ahead log."},
		"next timeline":  {verified, strange, "START_REPLICATION 16/493E0 TIMELINE 3", "5|16/493E0"},
	} {
		if name == "next timeline" && major < 15 {
			continue // psql shows the last result only, which has no rows
		}
		got, err := psql(t, tt.conninfo, tt.password, tt.command)
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: psql -c %q prints %q, %v; want %q", name, tt.command, got, err, tt.want)
		}
	}
}
