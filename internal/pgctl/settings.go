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
func (i *Instance) Configure(settings map[string]string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	maps.Copy(i.settings, settings)
	if _, err := os.Stat(i.cfg.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil // Start writes them
	}
	return i.failed(i.writeSettingsLocked())
}

// writeSettingsLocked writes all settings, and the line that includes them
// where a clone brought a postgresql.conf without it.
func (i *Instance) writeSettingsLocked() error {
	var b strings.Builder
	b.WriteString("# Written anew at every start.\n")
	for _, name := range slices.Sorted(maps.Keys(i.settings)) {
		fmt.Fprintf(&b, "%s = '%s'\n", name, quoteConf.Replace(i.settings[name]))
	}
	if err := i.user.writeFile(filepath.Join(i.cfg.Dir, settingsFile), b.String()); err != nil {
		return err
	}
	path := filepath.Join(i.cfg.Dir, "postgresql.conf")
	conf, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	include := "\ninclude_if_exists '" + settingsFile + "'\n"
	if strings.HasSuffix(string(conf), include) {
		return nil
	}
	return i.user.writeFile(path, string(conf)+include)
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
