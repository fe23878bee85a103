package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
)

// load loads what a command line, an environment and a file say. The file is not
// named if it is empty.
func load(t *testing.T, args string, environ []string, file string) (*Effective, error) {
	t.Helper()
	fs := flag.NewFlagSet("test", flag.ContinueOnError)
	l := Register(fs)
	if file != "" {
		name := filepath.Join(t.TempDir(), "helios.conf")
		if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args += " --config " + name
	}
	if err := fs.Parse(strings.Fields(args)); err != nil {
		return nil, err
	}
	return l.Load(environ)
}

// setting returns the setting of that name.
func (e *Effective) setting(t *testing.T, name string) Setting {
	t.Helper()
	for _, s := range e.Settings {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no setting %s", name)
	return Setting{}
}

func TestAFlagWinsOverTheEnvironmentOverTheFileOverTheDefault(t *testing.T) {
	const file = "name = 'n1'\npgdata = /tmp/x  # a comment\nlease '4s'\n"
	for name, tt := range map[string]struct {
		args    string
		environ []string
		file    string
		want    time.Duration
		from    string
		where   string
	}{
		"default":           {"--name n1 --pgdata x", nil, "", 2 * time.Second, FromDefault, ""},
		"file":              {"", nil, file, 4 * time.Second, FromFile, "helios.conf:3"},
		"environment":       {"", []string{"HELIOS_LEASE=5s"}, file, 5 * time.Second, FromEnvironment, "HELIOS_LEASE"},
		"empty environment": {"", []string{"HELIOS_LEASE="}, file, 4 * time.Second, FromFile, "helios.conf:3"},
		"flag":              {"--lease 6s", []string{"HELIOS_LEASE=5s"}, file, 6 * time.Second, FromFlag, "--lease"},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := load(t, tt.args, tt.environ, tt.file)
			if err != nil {
				t.Fatal(err)
			}
			got := e.setting(t, "lease")
			if e.Config.Settings.Lease != tt.want || got.From != tt.from || !strings.HasSuffix(got.Where, tt.where) {
				t.Errorf("lease is %v from %s at %q, want %v from %s at %q", e.Config.Settings.Lease, got.From, got.Where, tt.want, tt.from, tt.where)
			}
		})
	}
}

func TestEveryKeyCanBeWrittenInTheFileAsItIsPrinted(t *testing.T) {
	first, err := load(t, "--name n1 --pgdata /x/y --join h1:1,h2:2 --zone a'b --replication_mode semisync --k 2 --witness=off", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	var file strings.Builder
	for _, s := range first.Settings {
		file.WriteString(s.Line() + "\n")
	}
	second, err := load(t, "", nil, file.String())
	if err != nil {
		t.Fatalf("the file\n%s\nis refused: %v", file.String(), err)
	}
	for i, s := range second.Settings {
		if want := first.Settings[i]; s.Value != want.Value || s.From != FromFile {
			t.Errorf("%s is %q from %s, want %q from the file", s.Name, s.Value, s.From, want.Value)
		}
	}
}

func TestWhatFollowsFromTheRestIsFilledIn(t *testing.T) {
	for name, tt := range map[string]struct {
		args                       string
		state, advertise, postgres string
	}{
		"one machine":     {"--pgdata /x/n1/", "/x/n1.helios", "127.0.0.1:7101", "127.0.0.1:5432"},
		"three":           {"--pgdata /x/n1 --listen 0.0.0.0:7101 --advertise db1:7101 --insecure", "/x/n1.helios", "db1:7101", "db1:5432"},
		"all of it given": {"--pgdata /x --state /y --listen db1:1 --insecure --advertise db2:2 --postgres db3:3", "/y", "db2:2", "db3:3"},
		"a witness":       {"--witness --state /y", "/y", "127.0.0.1:7101", ""},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := load(t, "--name n1 "+tt.args, nil, "")
			if err != nil {
				t.Fatal(err)
			}
			if c := e.Config; c.State != tt.state || c.Advertise != tt.advertise || c.Postgres != tt.postgres {
				t.Errorf("state %q, advertise %q, postgres %q; want %q, %q, %q", c.State, c.Advertise, c.Postgres, tt.state, tt.advertise, tt.postgres)
			}
		})
	}
}

func TestWhatCannotBeIsRefusedWithItsKeyAndTheFix(t *testing.T) {
	for name, tt := range map[string]struct{ args, file, want string }{
		"no name":            {"--pgdata /x", "", "name: not given; call the node something that stays, such as --name n1"},
		"a name of ours":     {"--pgdata /x --name Helios", "", "name: helios is what the companion itself"},
		"name in SQL":        {"--pgdata /x --name a'b", "", `name: "a'b" cannot name a node`},
		"no data":            {"--name n1", "", "pgdata: not given"},
		"witness with data":  {"--name n1 --witness --pgdata /x", "", "pgdata: a witness has no PostgreSQL"},
		"witness, no state":  {"--name n1 --witness", "", "state: not given; a witness has no pgdata"},
		"state inside":       {"--name n1 --pgdata /x --state /x/helios", "", "state: is inside of pgdata"},
		"plain text":         {"--name n1 --pgdata /x --listen 10.0.0.1:7101", "", "tls: not given, and 10.0.0.1:7101 can be reached from other machines"},
		"both":               {"--name n1 --pgdata /x --tls /t --insecure", "", "insecure: contradicts tls"},
		"every address":      {"--name n1 --pgdata /x --listen :7101 --insecure", "", "advertise: not given, and :7101 is no address that others can use"},
		"advertised nowhere": {"--name n1 --pgdata /x --listen :7101 --advertise 0.0.0.0:7101 --insecure", "", "advertise: 0.0.0.0:7101 is no address"},
		"no port":            {"--name n1 --pgdata /x --listen localhost", "", `listen: "localhost" is not host:port`},
		"join":               {"--name n1 --pgdata /x --join h1", "", `join: "h1" is not host:port`},
		"port taken":         {"--name n1 --pgdata /x --postgres 127.0.0.1:7101", "", "postgres: is the companion's own address"},
		"short lease":        {"--name n1 --pgdata /x --lease 100ms --health_check_interval 20ms", "", "lease: is 100ms; must be 250ms or more"},
		"a wide network":     {"--name n1 --pgdata /x --network wan", "", "lease: is 2s; with network = wan it must be more than 6s, or a primary loses it whenever another companion comes to lead: raise lease, 12s is enough"},
		"slow checks":        {"--name n1 --pgdata /x --lease 2s --health_check_interval 1s", "", "lease: is 2s; must be at least 4 times health_check_interval (1s), or a hung PostgreSQL is noticed later than a silent machine: raise lease to 4s"},
		"no patience":        {"--name n1 --pgdata /x --hard_stop_grace 0", "", "hard_stop_grace: is 0; must be 100ms or more; fencing = relaxed is for a primary"},
		"k":                  {"--name n1 --pgdata /x --k 0", "", "k: is 0; must be 1 or more"},
		"min_replicas":       {"--name n1 --pgdata /x --min_replicas 2", "", "min_replicas: is 2; must be from 0 to k (1)"},
		"batch":              {"--name n1 --pgdata /x --wal_batch_size 2MB", "", "wal_batch_size: must be from 8kB to 1MB"},
		"seal_budget":        {"--name n1 --pgdata /x --seal_budget 0", "", "seal_budget: is 0s; must be 1ms or more"},
		"no unit":            {"--lease 2", "", `"2" is not a time; write it with a unit: 500ms, 2s, 1min`},
		"no size":            {"--wal_buffer_size 1Gb/s", "", `"1Gb/s" is not a size`},
		"no word":            {"--fencing sloppy", "", `"sloppy" is not one of strict, relaxed`},
		"no boolean":         {"--witness=perhaps", "", `"perhaps" is not on or off`},
		"value in the file":  {"", "name = n1\nlease = 2\n", `helios.conf:2: lease: "2" is not a time`},
		"misspelled":         {"", "namme = n1\n", `helios.conf:1: there is no key "namme"; did you mean name?`},
		"unknown":            {"", "shared_buffers = 1GB\n", `helios.conf:1: there is no key "shared_buffers"; helios config lists them`},
		"include":            {"", "include 'other.conf'\n", "line 1: include: other files are not read"},
		"no file":            {"--config /nowhere/helios.conf", "", "configuration file: open /nowhere/helios.conf"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := load(t, tt.args, nil, tt.file)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestWhatIsProbablyNotMeantIsAWarning(t *testing.T) {
	for name, tt := range map[string]struct {
		args    string
		environ []string
		want    string
	}{
		"nothing":                       {"", []string{"HELIOS_COMPANION=x", "HELIOS_TEST_TLS=1", "HOME=/"}, ""},
		"a variable":                    {"", []string{"HELIOS_LEESE=3s"}, "HELIOS_LEESE is not used; did you mean HELIOS_LEASE?"},
		"a cluster's setting":           {"--join h1:7101 --k 1", nil, "--k: k is a matter of the whole cluster, and is not used with join; helios settings set k=1 changes it"},
		"a lease too short":             {"--lease 900ms --network lan-fast", nil, "lease is 900ms: below 1s a machine that is merely busy may lose it"},
		"a lease short for the network": {"--network wan --lease 7s", nil, "lease is 7s: with network = wan a leader that is lost may take longer to be replaced, and commits wait meanwhile; 12s is enough"},
		"the cluster has its own lease": {"--network wan --join h1:7101", nil, "lease is 2s: with network = wan a leader that is lost may take longer to be replaced, and commits wait meanwhile; 12s is enough"},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := load(t, "--name n1 --pgdata /x "+tt.args, tt.environ, "")
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(e.Warnings, "\n"); got != tt.want {
				t.Errorf("warnings are %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAMemberIsWhatTheNodeSaysOfItself(t *testing.T) {
	e, err := load(t, "--name n1 --pgdata /x --zone z --priority 3 --nosync --nocandidate", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	want := failover.Member{Name: "n1", Companion: "127.0.0.1:7101", Postgres: "127.0.0.1:5432", Zone: "z", Priority: 3, NoCandidate: true, NoSync: true}
	if got := e.Config.Member(); got != want {
		t.Errorf("Member() = %+v, want %+v", got, want)
	}
}

func TestATokenIsOneWordThatNobodyElseReads(t *testing.T) {
	for name, tt := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"a token":   {"secret\n", 0o600, ""},
		"a group's": {"secret\n", 0o640, ""},
		"open":      {"secret\n", 0o644, "can be read by everybody; chmod 600 it"},
		"empty":     {"\n", 0o600, "does not hold one word"},
		"a text":    {"two words", 0o600, "does not hold one word"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(file, []byte(tt.content), tt.mode); err != nil {
				t.Fatal(err)
			}
			token, err := ReadToken(file)
			if tt.want == "" && (err != nil || token != "secret") || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("ReadToken = %q, %v, want secret or %q", token, err, tt.want)
			}
		})
	}
}
