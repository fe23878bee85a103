package doctor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/certs"
	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/server/client"
	"github.com/heliosdb/helios/topology"
)

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// well is a picture of three nodes of which n1 is the primary, with nothing wrong.
func well() *Picture {
	o := &api.Overview{
		Companion: "n1", Leader: api.Leader{Name: "n2"}, Epoch: 4, Phase: failover.PhaseReady, Primary: "n1",
		Settings: api.SettingsOf(failover.DefaultSettings()), Bulletin: &topology.Bulletin{Phase: "ready", Primary: "n1", Timeline: 3},
	}
	p := &Picture{Now: noon, Addrs: []string{"n1:7101"}, Overview: o}
	for _, name := range []string{"n1", "n2", "n3"} {
		m := failover.Member{Name: name, Companion: name + ":7101", Postgres: name + ":5432"}
		role := "replica"
		if name == "n1" {
			role = "primary"
		}
		o.Members = append(o.Members, m)
		o.Bulletin.Nodes = append(o.Bulletin.Nodes, topology.Reported{Name: name, Role: role, State: "up", Streaming: role == "replica"})
		p.Companions = append(p.Companions, Companion{Member: m, Sight: sight(role, 0, 0), Later: sight(role, time.Second, 0)})
		p.Servers = append(p.Servers, Server{
			Node: name, Addr: m.Postgres, Member: true, InRecovery: role == "replica", SystemID: 7301,
			Settings: map[string]string{"wal_log_hints": "on", "data_checksums": "off", "synchronous_standby_names": "helios", "max_wal_senders": "10"},
			Slots:    []Slot{{Name: "helios_n2", Active: true, Status: "reserved", Held: 16 << 20}, {Name: "spare", Status: "reserved", Held: 16 << 20}},
		})
	}
	p.Local = Local{
		PGData: "/data", Control: &pgctl.ControlData{WALLogHints: true},
		Disks: []Disk{{"PostgreSQL", "/data", 50 << 30, 100 << 30}, {"the companion", "/data.helios", 50 << 30, 100 << 30}},
		Certs: []certs.Info{{File: "node.crt", NotAfter: noon.Add(100 * 24 * time.Hour)}},
	}
	return p
}

// sight is of a node in a role, seen so long after noon, whose clock is ahead.
func sight(role string, after, ahead time.Duration) *client.Sight {
	at := noon.Add(after)
	return &client.Sight{Health: api.Health{Role: role}, Sent: at, Received: at.Add(20 * time.Millisecond), Date: at.Add(ahead).Truncate(time.Second)}
}

func refusedPassword() error {
	return fmt.Errorf("failed to connect: %w", &pgconn.PgError{Code: "28P01", Message: "password authentication failed"})
}

func TestAHealthyClusterHasNoFindings(t *testing.T) {
	if found := well().Findings(); len(found) > 0 {
		t.Errorf("Findings = %+v, want none", found)
	}
}

func TestEachFaultIsFoundAndToldWithItsRemedy(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(p *Picture)
		code  string
		node  string
		what  string // part of it
		fix   string // part of it
	}{
		"no companion": {
			func(p *Picture) {
				*p = Picture{Now: noon, Addrs: []string{"h:7101"}, Err: errors.New("connection refused")}
			},
			"no_companion", "", "no companion answers at h:7101: connection refused", "helios server",
		},
		"no companion of several": {
			func(p *Picture) {
				*p = Picture{Now: noon, Addrs: []string{"h:7101", "i:7101"}, Err: fmt.Errorf("%w: h:7101: refused; i:7101: refused", client.ErrAway)}
			},
			"no_companion", "", "no companion answers at h:7101: refused; i:7101: refused", "helios server",
		},
		"a companion that is away": {
			func(p *Picture) {
				p.Companions[2] = Companion{Member: p.Companions[2].Member, Err: fmt.Errorf("%w: n3:7101: no answer within 5s", client.ErrAway)}
			},
			"unreachable_companion", "n3", "does not answer at n3:7101: no answer within 5s", "systemctl status helios",
		},
		"wrong token": {
			func(p *Picture) { p.Companions[1].Err = &api.Error{Code: api.CodeUnauthorized, Message: "wrong token"} },
			"wrong_credentials", "n2", "refuses the token or certificate: wrong token", "--token_file",
		},
		"wrong password": {
			func(p *Picture) { p.Servers[1].Err = refusedPassword() },
			"wrong_credentials", "n2", "PostgreSQL at n2:5432 refuses the login: failed to connect: ", "pg_hba.conf",
		},
		"PostgreSQL that does not answer": {
			func(p *Picture) { p.Servers[1].Err = errors.New("failed to connect:\n\tn2:5432: no answer within 5s") },
			"unreachable_postgres", "n2", "PostgreSQL does not answer at n2:5432: failed to connect: n2:5432: no answer", "listen_addresses",
		},
		"no wal_log_hints": {
			func(p *Picture) { p.Servers[1].Settings["wal_log_hints"] = "off" },
			"no_rewind", "n2", "it has neither wal_log_hints nor checksums", "wal_log_hints = on",
		},
		"no wal_log_hints in the control file": {
			func(p *Picture) { p.Local.Control.WALLogHints = false },
			"no_rewind", "", "the data in /data has neither", "wal_log_hints = on",
		},
		"a data directory that is none": {
			func(p *Picture) { p.Local.Control, p.Local.ControlErr = nil, errors.New("no such file") },
			"pgdata", "", "cannot be read: no such file", "--pg_bin",
		},
		"what this machine's server lacks": {
			func(p *Picture) {
				p.Local.Problems = []pgctl.Problem{{What: "settings wait for a restart: wal_level", Hint: "restart the server"}}
			},
			"local_server", "", "the server in /data: settings wait for a restart: wal_level", "restart the server",
		},
		"a foreign synchronous_standby_names": {
			func(p *Picture) { p.Servers[0].Settings["synchronous_standby_names"] = "*" },
			"synchronous_standby_names", "n1", `synchronous_standby_names is "*", and not helios`, "ALTER SYSTEM",
		},
		"few WAL senders": {
			func(p *Picture) { p.Servers[0].Settings["max_wal_senders"] = "2" },
			"max_wal_senders", "n1", "max_wal_senders is 2", "max_wal_senders = 10",
		},
		"a server of another cluster": {
			func(p *Picture) { p.Servers[2].SystemID = 1 },
			"two_systems", "", "n3 are of 1", "helios reinit",
		},
		"a slot that is full": {
			func(p *Picture) { p.Servers[0].Slots[1] = Slot{Name: "old", Status: "lost"} },
			"slot_full", "n1", "the WAL of slot old is gone", "pg_drop_replication_slot('old')",
		},
		"a slot that will be full": {
			func(p *Picture) { p.Servers[0].Slots[1] = Slot{Name: "old", Status: "unreserved", Held: 20 << 30} },
			"slot_full", "n1", "the WAL of slot old is about to go: it holds back 20 GB", "max_slot_wal_keep_size = '40960MB', and SELECT pg_reload_conf(); or, if nobody does, on n1: SELECT pg_drop_replication_slot('old')",
		},
		"a slot that nobody uses": {
			func(p *Picture) { p.Servers[0].Slots[1] = Slot{Name: "old", Status: "extended", Held: 2 << 30} },
			"slot_inactive", "n1", "nobody streams by slot old, and it holds back 2048 MB of WAL", "pg_drop_replication_slot('old')",
		},
		"a slot that nobody uses and that will be full": {
			func(p *Picture) {
				p.Servers[0].Settings["max_slot_wal_keep_size"] = "100"
				p.Servers[0].Slots[1] = Slot{Name: "old", Status: "reserved", Held: 60 << 20}
			},
			"slot_inactive", "n1", "nobody streams by slot old, and it holds back 60 MB of WAL, of the 100 MB that", "pg_drop_replication_slot('old')",
		},
		"two primaries by their companions": {
			func(p *Picture) { p.Companions[2].Sight = sight("primary", 0, 0) },
			"two_primaries", "n3", "n1 and n3 are both primaries", "start helios server on n3",
		},
		"two primaries by SQL": {
			func(p *Picture) { p.Servers[1].InRecovery = false },
			"two_primaries", "n2", "n1 and n2 are both primaries", "start helios server on n2",
		},
		"two primaries and no companion": {
			func(p *Picture) { p.Servers[1].InRecovery, p.Overview, p.Companions = false, nil, nil },
			"two_primaries", "", "n1 and n2 are both primaries", "stop all but the one",
		},
		"an even number of voters": {
			func(p *Picture) { p.Overview.Members[2].NonVoter = true },
			"even_voters", "", "2 companions vote, an even number", "helios replicas add --witness NAME",
		},
		"an even number of voters, and a witness among them": {
			func(p *Picture) {
				p.Overview.Members = append(p.Overview.Members, failover.Member{Name: "w", Witness: true})
				p.Overview.Bulletin.Nodes = append(p.Overview.Bulletin.Nodes, topology.Reported{Name: "w", Role: "witness", State: "up"})
			},
			"even_voters", "", "4 companions vote, an even number", "helios replicas remove w; or add another voter",
		},
		"one voter": {
			func(p *Picture) { p.Overview.Members[1].NonVoter, p.Overview.Members[2].NonVoter = true, true },
			"one_voter", "", "one companion votes", "helios replicas add NAME",
		},
		"no quorum": {
			func(p *Picture) {
				p.Overview.Leader.Name = ""
				for _, i := range []int{0, 2} {
					p.Companions[i].Err, p.Companions[i].Sight = errors.New("refused"), nil
				}
			},
			"no_quorum", "", "2 of 3 votes are needed", "start the companions of n1, n3; if they are gone for good, helios help failover",
		},
		"no quorum though all are there": {
			func(p *Picture) { p.Overview.Leader.Name = "" },
			"no_quorum", "", "2 of 3 votes are needed", "whether they reach each other: n1:7101, n2:7101, n3:7101",
		},
		"a companion that was started alone": {
			func(p *Picture) {
				p.Overview = &api.Overview{Companion: "n3", Bulletin: &topology.Bulletin{}}
				p.Companions = nil
			},
			"no_quorum", "n3", "was just started, and hears from no other", "start the other companions",
		},
		"a companion that was taken out": {
			func(p *Picture) { p.Overview.Companion, p.Overview.Leader.Name = "n4", "" },
			"no_member", "n4", "is no member of the cluster: what it tells is old", "on n4 stop helios server, and then PostgreSQL",
		},
		"a member that was never heard of": {
			func(p *Picture) { p.Overview.Bulletin.Nodes = p.Overview.Bulletin.Nodes[:2] },
			"never_heard", "n3", "the leader has not heard of it", "helios replicas remove n3",
		},
		"a member that is not heard of any more": {
			func(p *Picture) { p.Overview.Bulletin.Nodes[2].State = "unknown" },
			"never_heard", "n3", "the leader has not heard of it", "helios replicas remove n3",
		},
		"a PostgreSQL that is down": {
			func(p *Picture) {
				p.Overview.Bulletin.Nodes[1].State, p.Overview.Bulletin.Nodes[1].Reason = "down", "it exited"
			},
			"postgres_down", "n2", "its PostgreSQL is down: it exited", "journalctl",
		},
		"a replica that somebody has promoted": {
			func(p *Picture) {
				n := &p.Overview.Bulletin.Nodes[1]
				n.Role, n.State, n.Timeline = "primary", "down", 4
				p.Servers[1].Err = errors.New("connection refused")
			},
			"astray", "n2", "on timeline 4, and the cluster is only on 3", "helios reinit n2",
		},
		"a replica that diverged": {
			func(p *Picture) { p.Overview.Bulletin.Nodes[1].State = "diverged" },
			"diverged", "n2", "of another history", "helios reinit n2",
		},
		"a replica that receives nothing": {
			func(p *Picture) {
				p.Overview.Bulletin.Nodes[1].Streaming, p.Overview.Bulletin.Nodes[1].Reason = false, "no pg_hba.conf entry"
			},
			"not_streaming", "n2", "it does not receive WAL: no pg_hba.conf entry", "pg_hba.conf of the primary",
		},
		"commits that wait for more than there are": {
			func(p *Picture) { p.Overview.Settings.Mode, p.Overview.Settings.K = failover.Semisync, 3 },
			"too_few_standbys", "", "commits are to wait for 3 standbys, and 2 may be waited for", "helios settings set k=2",
		},
		"a clock that is off": {
			func(p *Picture) {
				p.Companions[2].Sight, p.Companions[2].Later = sight("replica", 0, -5*time.Second), nil
			},
			"clock_off", "n3", "its clock is -4.5s off the others'", "chronyc tracking",
		},
		"a clock that jumped": {
			func(p *Picture) { p.Companions[2].Later = sight("replica", time.Second, 10*time.Second) },
			"clock_jump", "n3", "its clock jumped by 10s while it was looked at", "suspend",
		},
		"our clock jumped": {
			func(p *Picture) { p.Local.Jumped = -3 * time.Second },
			"clock_jump", "", "this machine's clock jumped by -3s", "suspend",
		},
		"a full disk": {
			func(p *Picture) { p.Local.Disks[0].Free = 100 << 20 },
			"disk_space", "", "100 MB of 100 GB are free for PostgreSQL, /data", "make room",
		},
		"a large disk that is nearly full": {
			func(p *Picture) { p.Local.Disks[1] = Disk{"the companion", "/s", 40 << 30, 1000 << 30} },
			"disk_space", "", "40 GB of 1000 GB are free for the companion, /s", "make room",
		},
		"a certificate that expires": {
			func(p *Picture) { p.Local.Certs[0].NotAfter = noon.Add(5 * 24 * time.Hour) },
			"certificate", "", "node.crt expires in 5 days", "helios cert renew",
		},
		"a certificate of no use": {
			func(p *Picture) { p.Local.Certs[0].Problem = "has expired" },
			"certificate", "", "node.crt: has expired", "helios cert renew",
		},
		"a pause": {
			func(p *Picture) { p.Overview.Paused = true },
			"paused", "", "the cluster is paused", "helios resume",
		},
		"no automatic failover": {
			func(p *Picture) { p.Overview.Settings.AutoFailover = false },
			"no_auto_failover", "", "failover is not automatic", "auto_failover=on",
		},
		"maintenance": {
			func(p *Picture) { p.Overview.Members[1].Maintenance = true },
			"maintenance", "n2", "it is in maintenance", "helios maintenance off n2",
		},
		"PostgreSQL was not asked": {
			func(p *Picture) { p.Servers = nil },
			"not_asked", "", "PostgreSQL itself was not asked", "helios doctor --dsn helios://postgres@n1:5432,n2:5432,n3:5432/postgres",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := well()
			tt.spoil(p)
			for _, f := range p.Findings() {
				if f.Why == "" || f.Fix == "" {
					t.Errorf("%+v has not both a reason and a remedy", f)
				}
				if f.Code == tt.code {
					if f.Node != tt.node || !strings.Contains(f.What, tt.what) || !strings.Contains(f.Fix, tt.fix) {
						t.Errorf("found %+v, want %q of %q, with %q", f, tt.what, tt.node, tt.fix)
					}
					return
				}
			}
			t.Errorf("Findings = %+v, want %s among them", p.Findings(), tt.code)
		})
	}
}

func TestOneFaultIsOneFinding(t *testing.T) {
	p := well()
	p.Servers[1].Err = refusedPassword()
	p.Companions[0].Sight = sight("primary", 0, 900*time.Millisecond) // truncated seconds are no fault
	found := p.Findings()
	if len(found) != 1 {
		t.Errorf("Findings = %+v, want one", found)
	}

	p = well()
	p.Companions[2].Err, p.Companions[2].Sight, p.Overview.Bulletin.Nodes[2].State = errors.New("refused"), nil, "unknown"
	if found := p.Findings(); len(found) != 1 {
		t.Errorf("Findings = %+v, want one", found)
	}
}

func TestAClockThatOnlyWeDisagreeWithIsOurs(t *testing.T) {
	p := well()
	for i := range p.Companions {
		p.Companions[i].Sight, p.Companions[i].Later = sight("replica", 0, time.Hour), nil
	}
	p.Companions[0].Sight.Role = "primary"
	for _, f := range p.Findings() {
		if f.Node != "" {
			t.Errorf("found %+v though all companions agree", f)
		}
	}
}

func TestAServerIsRecognizedByWhenItStarted(t *testing.T) {
	p := well()
	for i := range p.Overview.Bulletin.Nodes {
		p.Overview.Bulletin.Nodes[i].StartedAt = noon.Add(time.Duration(i) * time.Minute)
		p.Servers[i].StartedAt = noon.Add(time.Duration(i)*time.Minute + 500*time.Millisecond)
	}
	p.Servers[0].Err = errors.New("unreachable by that name") // n1 answers only at 10.0.0.1
	p.Servers = append(p.Servers,
		Server{Node: "10.0.0.1:5432", Addr: "10.0.0.1:5432", StartedAt: noon, SystemID: 7301, Settings: p.Servers[0].Settings},
		Server{Node: "10.0.0.2:5432", Addr: "10.0.0.2:5432", StartedAt: noon.Add(time.Minute), InRecovery: true})
	p.recognize()
	var names []string
	for _, s := range p.Servers {
		names = append(names, s.Node+"@"+s.Addr)
	}
	if got, want := strings.Join(names, " "), "n2@n2:5432 n3@n3:5432 n1@10.0.0.1:5432"; got != want {
		t.Errorf("the servers are %s, want %s", got, want)
	}
	if found := p.Findings(); len(found) > 0 {
		t.Errorf("Findings = %+v, want none", found)
	}
}

func TestASecretIsNotTold(t *testing.T) {
	p := well()
	p.secrets = []string{"", "sesame"}
	p.Servers[1].Err = errors.New("cannot parse `password=sesame`")
	for _, f := range p.Findings() {
		if want := "cannot parse `password=…`"; !strings.HasSuffix(f.What, want) {
			t.Errorf("found %q, want %q at its end", f.What, want)
		}
	}
}
