package pgctl

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// healthy are settings without a problem.
func healthy() checkFacts {
	return checkFacts{version: 150000, superuser: true, sources: map[string]string{}, settings: map[string]string{
		"wal_level": "replica", "max_wal_senders": "10", "max_replication_slots": "10", "hot_standby": "on", "wal_log_hints": "on",
		"fsync": "on", "full_page_writes": "on", "wal_keep_size": "64", "listen_addresses": "*", "synchronous_standby_names": "",
		"synchronous_commit": "on", "wal_sender_timeout": "60000", "recovery_min_apply_delay": "0",
	}}
}

func TestEachSettingInTheWayIsNamedWithHowToMendIt(t *testing.T) {
	opt := CheckOptions{Nodes: 3, Gate: "helios", Host: "10.0.0.1"}
	if got := healthy().problems(opt); len(got) > 0 {
		t.Fatalf("problems of a healthy server = %+v", got)
	}
	for name, tt := range map[string]struct {
		set   map[string]string
		what  string // in Problem.What; "" wants none
		hint  string
		fatal bool
	}{
		"wal_level":           {map[string]string{"wal_level": "minimal"}, "wal_level is minimal", "wal_level = replica", true},
		"no senders":          {map[string]string{"max_wal_senders": "0"}, "max_wal_senders is 0", "max_wal_senders = 10", true},
		"few senders":         {map[string]string{"max_wal_senders": "5"}, "may need 6", "max_wal_senders = 10", false},
		"few slots":           {map[string]string{"max_replication_slots": "1"}, "max_replication_slots is 1", "max_replication_slots = 10", false},
		"hot_standby":         {map[string]string{"hot_standby": "off"}, "hot_standby is off", "hot_standby = on", true},
		"no hints":            {map[string]string{"wal_log_hints": "off"}, "pg_rewind cannot be used", "wal_log_hints = on", false},
		"nothing is kept":     {map[string]string{"wal_keep_size": "0"}, "wal_keep_size is 0", "wal_keep_size = '1GB'", false},
		"slots keep":          {map[string]string{"wal_keep_size": "0", "max_slot_wal_keep_size": "-1"}, "", "", false},
		"no sender timeout":   {map[string]string{"wal_sender_timeout": "0"}, "wal_sender_timeout is 0", "wal_sender_timeout = '60s'", false},
		"delayed replay":      {map[string]string{"recovery_min_apply_delay": "1000"}, "recovery_min_apply_delay is set", "recovery_min_apply_delay = 0", false},
		"a foreign standby":   {map[string]string{"synchronous_standby_names": "s1"}, "synchronous_standby_names is 's1'", "remove it", true},
		"our own gate":        {map[string]string{"synchronous_standby_names": "helios"}, "", "", false},
		"fsync":               {map[string]string{"fsync": "off"}, "fsync is off", "fsync = on", false},
		"full_page_writes":    {map[string]string{"full_page_writes": "off"}, "full_page_writes is off", "full_page_writes = on", false},
		"asynchronous":        {map[string]string{"synchronous_commit": "off"}, "synchronous_commit is off", "synchronous_commit = on", false},
		"local commits":       {map[string]string{"synchronous_commit": "local"}, "synchronous_commit is local", "synchronous_commit = on", false},
		"only this machine":   {map[string]string{"listen_addresses": "localhost, ::1"}, "other machines cannot connect", "listen_addresses = '*'", true},
		"no network":          {map[string]string{"listen_addresses": ""}, "other machines cannot connect", "listen_addresses = '*'", true},
		"another address too": {map[string]string{"listen_addresses": "localhost,10.0.0.1"}, "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			f := healthy()
			maps.Copy(f.settings, tt.set)
			got := f.problems(opt)
			if tt.what == "" {
				if len(got) > 0 {
					t.Errorf("problems = %+v, want none", got)
				}
				return
			}
			if len(got) != 1 || !strings.Contains(got[0].What, tt.what) || !strings.Contains(got[0].Hint, tt.hint) || got[0].Fatal != tt.fatal {
				t.Errorf("problems = %+v, want %q, %q, fatal %v", got, tt.what, tt.hint, tt.fatal)
			}
		})
	}
}

func TestARealServerIsChecked(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Configure(map[string]string{"wal_log_hints": "off", "max_wal_senders": "4"}))
	ok(t, i.Start(ctx))
	run(ctx, t, i, "ALTER SYSTEM SET primary_conninfo = 'host=nowhere'")
	run(ctx, t, i, "ALTER SYSTEM SET max_connections = 77")
	run(ctx, t, i, "CREATE ROLE nobody LOGIN")
	run(ctx, t, i, "SELECT pg_reload_conf()")
	await(ctx, t, i, "SELECT count(*)::text FROM pg_settings WHERE pending_restart", "1")
	opt := CheckOptions{Nodes: 3, Gate: "helios", Replication: i.ConnString(), Host: "10.0.0.1"}
	wantProblems(t, i, opt, "max_wal_senders is 4", "fsync is off", "primary_conninfo = 'host=nowhere' in postgresql.auto.conf",
		"wait for a restart: max_connections", "listen_addresses is 'localhost'", checksumsOr(i, "neither wal_log_hints"))

	opt.Replication = strings.Replace(i.ConnString(), "user=postgres", "user=nobody", 1)
	wantProblems(t, i, opt, "nobody cannot replicate")

	ok(t, WriteFile(filepath.Join(i.Dir(), "pg_hba.conf"), "local all all trust\n"))
	ok(t, i.user.rewrite(filepath.Join(i.Dir(), "postgresql.conf"), "work_mem = 'much'\n"))
	run(ctx, t, i, "SELECT pg_reload_conf()")
	opt.Replication = i.ConnString()
	wantProblems(t, i, opt, "no pg_hba.conf entry for replication", "postgresql.conf line 1: work_mem: setting could not")
}

// checksumsOr returns text for a server that initdb gave no checksums to, as it
// did before PostgreSQL 18.
func checksumsOr(i *Instance, text string) string {
	if i.Binaries().Major() >= 18 {
		return ""
	}
	return text
}

// wantProblems checks a server and looks for what is said of it.
func wantProblems(t testing.TB, i *Instance, opt CheckOptions, want ...string) {
	t.Helper()
	got, err := i.Check(waiting(t), opt)
	ok(t, err)
	for _, text := range want {
		if !slices.ContainsFunc(got, func(p Problem) bool { return strings.Contains(p.What, text) && p.Hint != "" }) {
			t.Errorf("Check = %+v, want a problem with a hint that says %q", got, text)
		}
	}
	if !slices.IsSortedFunc(got, func(a, b Problem) int { return rank(a) - rank(b) }) {
		t.Errorf("Check = %+v, want the fatal ones first", got)
	}
}

func TestWhatARoleLacksIsListedAsStatements(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Start(ctx))
	run(ctx, t, i, "CREATE ROLE watcher LOGIN")
	cfg := i.cfg
	cfg.Superuser = "watcher"
	as := detachedFrom(t, cfg)
	found, err := as.Adopt(ctx)
	if !found || err != nil {
		t.Fatalf("Adopt = %v, %v", found, err)
	}
	wantProblems(t, as, CheckOptions{Nodes: 3}, "watcher is no superuser")
	got, err := as.Check(ctx, CheckOptions{Nodes: 3})
	ok(t, err)
	statements := strings.Split(strings.TrimPrefix(got[0].Hint, "as a superuser: "), "; ")
	for _, statement := range statements {
		run(ctx, t, i, strings.Split(statement, ", since")[0])
	}
	after, err := as.Check(ctx, CheckOptions{Nodes: 3})
	ok(t, err)
	if slices.ContainsFunc(after, func(p Problem) bool { return strings.Contains(p.What, "watcher") }) {
		t.Errorf("Check after %q = %+v", statements, after)
	}
	cfg.Superuser = "stranger"
	stranger := detachedFrom(t, cfg)
	wantProblems(t, stranger, CheckOptions{}, `role "stranger" does not exist`)
}
