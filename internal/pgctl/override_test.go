package pgctl

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestWhatWinsOverOurSettingsIsFoundAndRemoved(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	ok(t, i.Configure(map[string]string{"work_mem": "5MB"}))
	i.args = []string{"-c", "max_connections=33", "--synchronous-standby-names=someone"}
	ok(t, i.Start(ctx))
	run(ctx, t, i, "ALTER SYSTEM SET work_mem = '6MB'")
	run(ctx, t, i, "ALTER SYSTEM SET maintenance_work_mem = '7MB'")
	run(ctx, t, i, "ALTER SYSTEM SET primary_conninfo = 'host=it''s'")
	want := []Override{
		{"primary_conninfo", "host=it's", autoConf},
		{"synchronous_standby_names", "someone", commandLineName},
		{"work_mem", "6MB", autoConf},
	}
	if got, err := i.Overridden(); err != nil || !slices.Equal(got, want) {
		t.Errorf("Overridden = %v, %v; want %v", got, err, want)
	}
	removed := []Override{want[0], want[2]}
	if got, err := i.ClearOverrides(ctx); err != nil || !slices.Equal(got, removed) {
		t.Errorf("ClearOverrides of a running server = %v, %v; want %v", got, err, removed)
	}
	ok(t, i.Reload(ctx))
	for sql, want := range map[string]string{"SHOW work_mem": "5MB", "SHOW maintenance_work_mem": "7MB", "SHOW max_connections": "33"} {
		if got := ask(ctx, t, i, sql); got != want {
			t.Errorf("%s = %s, want %s", sql, got, want)
		}
	}
	run(ctx, t, i, "ALTER SYSTEM SET work_mem = '6MB'")
	ok(t, i.Stop(ctx, Fast))
	if got, err := i.ClearOverrides(ctx); err != nil || !slices.Equal(got, removed[1:]) {
		t.Errorf("ClearOverrides of a stopped server = %v, %v; want %v", got, err, removed[1:])
	}
	ok(t, i.Start(ctx))
	if got := ask(ctx, t, i, "SELECT current_setting('work_mem') || current_setting('maintenance_work_mem')"); got != "5MB7MB" {
		t.Errorf("settings = %s, want ours and what is not ours", got)
	}
}

func TestConfigurationOutsideOfTheDataDirectoryStaysThere(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	etc := filepath.Join(filepath.Dir(i.Dir()), "etc")
	ok(t, MakeDir(etc))
	for _, name := range []string{"postgresql.conf", "pg_hba.conf", "pg_ident.conf"} {
		ok(t, os.Rename(filepath.Join(i.Dir(), name), filepath.Join(etc, name)))
	}
	conf := filepath.Join(etc, "postgresql.conf")
	text, err := os.ReadFile(conf)
	ok(t, err)
	text = append(text, "\ndata_directory = '"+i.Dir()+"'\nhba_file = '"+etc+"/pg_hba.conf'\nident_file = '"+etc+"/pg_ident.conf'\n"...)
	ok(t, i.user.rewrite(conf, string(text)))
	ok(t, os.Chmod(conf, 0o644))
	for _, args := range [][]string{
		{"-D", i.Dir(), "-c", "config_file=" + conf},
		{"-D", etc},
	} {
		i.args = args
		ok(t, i.Start(ctx))
		second := adopted(ctx, t, i)
		ok(t, second.Configure(map[string]string{"work_mem": "5MB"}))
		ok(t, second.Reload(ctx))
		i.Release()
		ok(t, second.Stop(ctx, Fast))
		third := detachedFrom(t, second.cfg) // knows the command line from postmaster.opts
		ok(t, third.Start(ctx))
		if got, want := ask(ctx, t, third, "SHOW config_file")+" "+ask(ctx, t, third, "SHOW work_mem"), conf+" 5MB"; got != want {
			t.Errorf("%q: config_file and work_mem = %s, want %s", args, got, want)
		}
		ok(t, third.Stop(ctx, Fast))
	}
	if info, err := os.Stat(conf); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode of postgresql.conf = %v, %v; want it as it was", info.Mode(), err)
	}
}

func TestCommandLinesAreUnderstood(t *testing.T) {
	got := parseArgs([]string{"-D", "/data", "-p5433", "-c", "config_file=/etc/x", "--wal-level=logical", "-F", "-k", "/run", "-i"})
	if got.dir != "/data" || got.configFile() != "/etc/x" {
		t.Errorf("parseArgs = %+v", got)
	}
	for name, want := range map[string]string{"port": "5433", "wal_level": "logical", "fsync": "off", "unix_socket_directories": "/run"} {
		if got.set[name] != want {
			t.Errorf("%s = %q, want %q", name, got.set[name], want)
		}
	}
	if want := []string{"-p5433", "-c", "config_file=/etc/x", "--wal-level=logical", "-F", "-k", "/run", "-i"}; !slices.Equal(got.rest, want) {
		t.Errorf("rest = %q, want %q", got.rest, want)
	}
}

func TestOurLineStaysTheLastOne(t *testing.T) {
	ctx, i := waiting(t), newDetached(t, "n1")
	initialise(ctx, t, i)
	conf := filepath.Join(i.Dir(), "postgresql.conf")
	ok(t, i.Configure(map[string]string{"work_mem": "5MB"}))
	text, err := os.ReadFile(conf)
	ok(t, err)
	ok(t, i.user.rewrite(conf, string(text)+"include_if_exists '/elsewhere/pgctl.conf'\nwork_mem = '6MB'\n"))
	ok(t, i.Configure(nil))
	again, err := os.ReadFile(conf)
	ok(t, err)
	if got, want := string(again), string(text[:len(text)-len("\ninclude_if_exists 'pgctl.conf'\n")])+"\nwork_mem = '6MB'\n\ninclude_if_exists 'pgctl.conf'\n"; got != want {
		t.Errorf("postgresql.conf ends with %q, want %q", got[max(0, len(got)-200):], want[max(0, len(want)-200):])
	}
}
