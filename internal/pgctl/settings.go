package pgctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settingsFile holds what Configure was told. postgresql.conf includes it as
// its last line; what ALTER SYSTEM sets still comes after it.
const settingsFile = "pgctl.conf"

// Configure changes settings of postgresql.conf; those it does not name stay as
// they are. A running server reads them at [Instance.Reload], or at its next
// start where PostgreSQL demands one.
//
// Of a detached server what a process before this one was told stays as well,
// and what ALTER SYSTEM set wins over it.
func (i *Instance) Configure(settings map[string]string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	_, err := os.Stat(i.cfg.Dir)
	missing := errors.Is(err, fs.ErrNotExist)
	if !missing {
		if err := i.loadSettingsLocked(); err != nil {
			return i.failed(err)
		}
	}
	maps.Copy(i.settings, settings)
	if missing {
		return nil // Start writes them
	}
	return i.failed(i.writeSettingsLocked())
}

// Settings returns what Configure was told, and the Config.
func (i *Instance) Settings() (map[string]string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	err := i.loadSettingsLocked()
	return maps.Clone(i.settings), i.failed(err)
}

// loadSettingsLocked takes over what the same instance in another process has
// left. A file that a clone brought is another's.
func (i *Instance) loadSettingsLocked() error {
	if i.loaded || !i.cfg.Detached {
		return nil
	}
	content, err := os.ReadFile(filepath.Join(i.cfg.Dir, settingsFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	i.loaded = true
	body, mine := strings.CutPrefix(string(content), i.settingsTitle())
	if !mine {
		return nil
	}
	saved := parseConf(body)
	maps.Copy(saved, i.settings)
	i.settings = saved
	return nil
}

// settingsTitle is the first line of the settings file: whose it is.
func (i *Instance) settingsTitle() string {
	if !i.cfg.Detached {
		return "# Written anew at every start.\n"
	}
	return fmt.Sprintf("# Written anew at every start, for %q in %q.\n", i.cfg.Name, i.cfg.Dir)
}

// writeSettingsLocked writes all settings, and the line that includes them
// where a clone brought a postgresql.conf without it.
func (i *Instance) writeSettingsLocked() error {
	if err := i.loadSettingsLocked(); err != nil {
		return err
	}
	i.loaded = true
	var b strings.Builder
	b.WriteString(i.settingsTitle())
	for _, name := range slices.Sorted(maps.Keys(i.settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, quoteConf.Replace(i.settings[name]))
	}
	if err := i.user.writeFile(filepath.Join(i.cfg.Dir, settingsFile), b.String()); err != nil {
		return err
	}
	return i.includeSettingsLocked()
}

// includeSettingsLocked makes the settings file the last thing that
// postgresql.conf includes.
func (i *Instance) includeSettingsLocked() error {
	path, err := i.configFileLocked()
	if err != nil {
		return err
	}
	ours := settingsFile
	if inside, err := sameDir(filepath.Dir(path), i.cfg.Dir); err != nil || !inside {
		ours = filepath.Join(i.cfg.Dir, settingsFile)
	}
	conf, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	include := "include_if_exists '" + quoteConf.Replace(ours) + "'\n"
	if strings.HasSuffix(string(conf), "\n"+include) {
		return nil
	}
	// Where something was added behind the line, it moves; that of another server
	// was brought by a clone.
	var kept strings.Builder
	for line := range strings.Lines(string(conf)) {
		if !includesSettings(line) {
			kept.WriteString(line)
		}
	}
	text := strings.TrimRight(kept.String(), "\n") + "\n\n" + include
	if err := i.user.rewrite(path, text); err != nil {
		return fmt.Errorf("%w; let its last line be: %s", err, strings.TrimSpace(include))
	}
	return nil
}

// includesSettings reports whether a line of postgresql.conf includes the
// settings file of some server.
func includesSettings(line string) bool {
	file, ok := strings.CutPrefix(strings.TrimSpace(line), "include_if_exists '")
	return ok && filepath.Base(strings.TrimSuffix(file, "'")) == settingsFile
}

// quoteConf makes a value fit between the quotes of postgresql.conf, which
// knows backslash sequences (GUC_scanstr in guc-file.l).
var quoteConf = strings.NewReplacer("'", "''", `\`, `\\`)

// SetStandby makes the server a replica of the one that primaryConninfo names
// from its next start on. One that is a replica already follows the new one
// after [Instance.Reload].
func (i *Instance) SetStandby(primaryConninfo string) error {
	err := i.Configure(map[string]string{
		"primary_conninfo":         primaryConninfo,
		"recovery_target_timeline": "latest",
	})
	if err != nil {
		return err
	}
	return i.failed(i.user.writeFile(filepath.Join(i.cfg.Dir, "standby.signal"), ""))
}

// Reload makes a running server read its settings again and returns when the
// postmaster has done so; its processes follow within their next statement.
func (i *Instance) Reload(ctx context.Context) error {
	p, err := i.runningServer()
	if err != nil {
		return err
	}
	conn, err := i.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // the server may be stopping
	var before time.Time
	if err := conn.QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&before); err != nil {
		return i.failed(err)
	}
	if err := p.signal(syscall.SIGHUP); err != nil {
		return i.failed(err)
	}
	return i.poll(ctx, func() (loaded bool, err error) {
		err = conn.QueryRow(ctx, "SELECT pg_conf_load_time() > $1", before).Scan(&loaded)
		return loaded, err
	})
}

// poll asks every millisecond or two until done says yes, an error comes, the
// server ends or ctx does.
func (i *Instance) poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return i.failed(err)
		}
		select {
		case <-tick.C:
		case <-i.Done():
			return i.failed(errStopped)
		case <-ctx.Done():
			return i.failed(context.Cause(ctx))
		}
	}
}

// pollInterval is how often a server is asked whether it is where it should be.
// pg_ctl and pg_promote(wait => true) look every 100 ms.
const pollInterval = 1500 * time.Microsecond

// quoteConn quotes a value for a keyword/value connection string.
func quoteConn(value string) string {
	if value != "" && !strings.ContainsAny(value, ` '\`) {
		return value
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}
