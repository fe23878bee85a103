package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/heliosdb/helios/internal/companions"
	"github.com/heliosdb/helios/internal/doctor"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/server/client"
)

// A patient is a cluster that the doctor looks at.
type patient struct {
	*companions.Cluster
	t        testing.TB
	password string   // that the doctor asks PostgreSQL with
	secrets  []string // that no report tells

	skewed string // host:port of the companion whose clock is off
	from   int    // the question of a look from which on it is
	asked  int    // how often it was asked in this look
}

// patientRole is who the doctor is to PostgreSQL: no superuser, and not let in without a
// password.
const patientRole = "watchman"

// newPatient starts a cluster, and lets the doctor in.
func newPatient(t *testing.T) *patient {
	t.Helper()
	p := &patient{Cluster: startCompanions(t, companions.Options{Nodes: 3}), t: t, password: "open-sesame"}
	p.secrets = []string{p.password}
	primary := primaryOf(t, p.Cluster)
	p.exec(
		primary,
		"SET password_encryption = 'scram-sha-256'", // 13 would keep md5
		"CREATE ROLE "+patientRole+" LOGIN PASSWORD '"+p.password+"' IN ROLE pg_monitor",
	)
	for _, n := range p.Nodes {
		path := filepath.Join(n.Dir, "pg_hba.conf")
		rules, err := os.ReadFile(path)
		pgtest.OK(t, err)
		pgtest.OK(t, pgctl.WriteFile(path, "host all "+patientRole+" 127.0.0.1/32 scram-sha-256\n"+string(rules)))
		p.exec(n, "SELECT pg_reload_conf()")
	}
	p.awaitReplay(primary)
	return p
}

// exec runs statements on one node, each by itself.
func (p *patient) exec(n *companions.Node, statements ...string) {
	p.t.Helper()
	conn := connectTo(p.t, n)
	defer conn.Close(context.Background())
	for _, sql := range statements {
		if _, err := conn.Exec(pgtest.Context(p.t), sql); err != nil {
			p.t.Fatalf("%s: %s: %v", n.Name, sql, err)
		}
	}
}

// look returns what the doctor finds: the code, and the node that it is about.
func (p *patient) look() []string {
	p.t.Helper()
	r := doctor.Request{
		Options: client.Options{TLS: p.Nodes[0].TLS(), Timeout: 5 * time.Second, Dial: p.dial}, Timeout: 5 * time.Second,
		Secrets: []string{p.password},
		Connect: func(addr string) (*pgx.ConnConfig, error) {
			return pgx.ParseConfig(fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable", patientRole, p.password, addr))
		},
	}
	for _, n := range p.Nodes {
		r.Addrs = append(r.Addrs, n.Companion)
	}
	p.asked = 0
	findings := doctor.Look(pgtest.Context(p.t), r).Findings()
	text, err := json.Marshal(findings)
	pgtest.OK(p.t, err)
	for _, secret := range p.secrets {
		if bytes.Contains(text, []byte(secret)) {
			p.t.Errorf("the report tells the password: %s", text)
		}
	}
	codes := []string{}
	for i := range findings {
		codes = append(codes, strings.TrimSpace(findings[i].Code+" "+findings[i].Node))
	}
	slices.Sort(codes)
	return codes
}

// finds fails the test if the doctor does not find this and nothing else. A cluster takes a
// moment to notice what happened to it.
func (p *patient) finds(what string, want ...string) {
	p.t.Helper()
	began := time.Now()
	slices.Sort(want)
	var got []string
	await(p.t, fmt.Sprintf("the doctor to find %q of %s", want, what), func() bool {
		if now := p.look(); !slices.Equal(now, got) {
			got = now
			p.t.Logf("of %s the doctor finds %q", what, got)
		}
		return slices.Equal(got, want)
	})
	p.t.Logf("FIGURES %s: %v", what, time.Since(began))
}

// dial connects to companions. The clock of one may be off, as far as its answers tell.
func (p *patient) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := p.Dial(ctx, network, addr)
	if err != nil || addr != p.skewed {
		return conn, err
	}
	if p.asked++; p.asked < p.from {
		return conn, nil
	}
	return skewedConn{conn}, nil
}

// A skewedConn tells another time than the companion behind it: nothing but the machine's
// own clock changes what that says by itself.
type skewedConn struct{ net.Conn }

func (c skewedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	const header = "\r\nDate: "
	if at := bytes.Index(b[:n], []byte(header)); at >= 0 {
		date := b[at+len(header) : at+len(header)+len(http.TimeFormat)]
		if told, err := http.ParseTime(string(date)); err == nil {
			copy(date, told.Add(time.Hour).Format(http.TimeFormat))
		}
	}
	return n, err
}

// The doctor finds what was done to a cluster, and nothing once it was mended.
func TestTheDoctorFindsWhatIsWrong(t *testing.T) {
	p := newPatient(t)
	if got := p.look(); len(got) > 0 {
		t.Fatalf("of a healthy cluster the doctor finds %q", got)
	}
	primary := primaryOf(t, p.Cluster)
	others := slices.DeleteFunc(slices.Clone(p.Nodes), func(n *companions.Node) bool { return n == primary })
	p.wrongPassword()
	p.fullSlot(primary)
	p.fourthVoter()
	if others[0].TLS() == nil { // else its answers cannot be changed on their way
		p.clocks(others[0])
	}
	p.twoPrimaries(primary, others[0])
	p.noHints(others[1])
}

func (p *patient) wrongPassword() {
	right := p.password
	p.password = "open-barley"
	p.secrets = append(p.secrets, p.password)
	p.finds("a wrong password", "wrong_credentials n1", "wrong_credentials n2", "wrong_credentials n3")
	p.password = right
	p.finds("the right password")
}

func (p *patient) fullSlot(primary *companions.Node) {
	p.exec(primary, "CHECKPOINT", "SELECT pg_create_physical_replication_slot('forgotten', true)") // it begins at the checkpoint
	p.finds("a slot that holds nothing yet")
	const fill = "SELECT pg_switch_wal() FROM pg_logical_emit_message(false, 'helios', '')"
	p.exec(primary, "ALTER SYSTEM SET wal_keep_size = 0", "ALTER SYSTEM SET max_slot_wal_keep_size = '64MB'", "SELECT pg_reload_conf()", fill, fill, fill)
	p.finds("a slot that nobody uses and that is nearly full", "slot_inactive "+primary.Name)
	p.exec(primary, fill, fill)
	p.awaitReplay(primary) // or replicas would lack what the checkpoint removes
	p.exec(primary, "CHECKPOINT")
	p.finds("a slot that is full", "slot_full "+primary.Name)
	p.exec(primary, "SELECT pg_drop_replication_slot('forgotten')", "ALTER SYSTEM RESET wal_keep_size", "ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")
	p.finds("no slot")
}

// awaitReplay returns when the replicas have what the primary has.
func (p *patient) awaitReplay(primary *companions.Node) {
	p.t.Helper()
	read := func(n *companions.Node, query string) (lsn string) {
		conn := connectTo(p.t, n)
		defer conn.Close(context.Background())
		pgtest.OK(p.t, conn.QueryRow(pgtest.Context(p.t), query).Scan(&lsn))
		return lsn
	}
	end := read(primary, "SELECT pg_current_wal_lsn()::text")
	for _, n := range p.Nodes {
		if n != primary {
			await(p.t, n.Name+" to have replayed "+end, func() bool {
				return read(n, "SELECT (pg_last_wal_replay_lsn() >= '"+end+"')::text") == "true"
			})
		}
	}
}

func (p *patient) fourthVoter() {
	w, err := p.Add(p.t.Context(), "w", true)
	pgtest.OK(p.t, err)
	p.finds("a fourth voter", "even_voters")
	_, err = operator(p.t, p.Nodes[0]).Remove(pgtest.Context(p.t), w.Name)
	pgtest.OK(p.t, err)
	pgtest.OK(p.t, w.Kill())
	p.Nodes = slices.DeleteFunc(p.Nodes, func(n *companions.Node) bool { return n == w })
	p.finds("three voters")
}

func (p *patient) clocks(n *companions.Node) {
	p.skewed, p.from = n.Companion, 1
	p.finds("a clock that is off", "clock_off "+n.Name)
	p.from = 2
	p.finds("a clock that jumps", "clock_jump "+n.Name)
	p.skewed = ""
	p.finds("clocks that agree")
}

// twoPrimaries has somebody promote a replica whose companion is gone.
func (p *patient) twoPrimaries(primary, n *companions.Node) {
	pgtest.OK(p.t, n.KillCompanion())
	p.finds("a companion that is gone", "unreachable_companion "+n.Name)
	p.exec(n, "SELECT pg_promote()")
	p.finds("two primaries", "two_primaries "+n.Name, "unreachable_companion "+n.Name)
	pgtest.OK(p.t, n.Start())
	p.finds("one primary of two that were", "astray "+n.Name)
	_, err := operator(p.t, primary).Reinit(pgtest.Context(p.t), n.Name)
	pgtest.OK(p.t, err)
	p.finds("what was cloned anew")
	if now := primaryOf(p.t, p.Cluster); now != primary {
		p.t.Errorf("the primary is %s, and was %s before", now.Name, primary.Name)
	}
}

// noHints has somebody start a replica as pg_rewind could not take it back.
func (p *patient) noHints(n *companions.Node) {
	pgtest.OK(p.t, n.KillCompanion())
	i, err := pgctl.New(pgctl.Config{Dir: n.Dir, Detached: true, Settings: map[string]string{"wal_log_hints": "off"}})
	pgtest.OK(p.t, err)
	_, err = i.Adopt(pgtest.Context(p.t))
	pgtest.OK(p.t, err)
	pgtest.OK(p.t, i.Stop(pgtest.Context(p.t), pgctl.Fast))
	p.finds("a machine that is off", "unreachable_companion "+n.Name, "unreachable_postgres "+n.Name)
	pgtest.OK(p.t, i.Start(pgtest.Context(p.t)))
	i.Release()
	pgtest.OK(p.t, n.Start())
	var found []string
	if major < 18 { // since then initdb turns checksums on, which do as well
		found = append(found, "no_rewind "+n.Name)
	}
	p.finds("no wal_log_hints", found...)
	p.exec(n, "ALTER SYSTEM SET wal_log_hints = on")
	pgtest.OK(p.t, n.StopPostgres(pgtest.Context(p.t), pgctl.Fast)) // the companion starts it
	p.finds("wal_log_hints")
}
