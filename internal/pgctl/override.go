package pgctl

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// autoConf is what ALTER SYSTEM writes, and pg_basebackup --write-recovery-conf:
// PostgreSQL reads it after everything that postgresql.conf includes.
const autoConf = "postgresql.auto.conf"

// An Override is a setting that wins over what Configure says.
type Override struct {
	Name, Value string
	By          string // postgresql.auto.conf, or "the command line"
}

// commandLineName is Override.By of what a server is started with.
const commandLineName = "the command line"

// companionSettings are those that a replica or a gated primary works by, so that
// nobody else may set them, whether or not they are in the settings yet.
var companionSettings = []string{
	"primary_conninfo", "primary_slot_name", "synchronous_standby_names", "recovery_target_timeline",
	"recovery_target", "recovery_target_lsn", "recovery_target_name", "recovery_target_time", "recovery_target_xid",
}

// Overridden returns what wins over our settings, or is set where we alone should,
// sorted by name. The entries of postgresql.auto.conf can be removed by
// [Instance.ClearOverrides]; those of a command line only by whoever starts the
// server with it.
func (i *Instance) Overridden() ([]Override, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.loadSettingsLocked(); err != nil {
		return nil, i.failed(err)
	}
	args, err := i.argsLocked()
	if err != nil {
		return nil, i.failed(err)
	}
	text, err := os.ReadFile(filepath.Join(i.cfg.Dir, autoConf))
	if err != nil && !gone(err) {
		return nil, i.failed(err)
	}
	found := i.winnersLocked(parseConf(string(text)), autoConf)
	found = append(found, i.winnersLocked(parseArgs(args).set, commandLineName)...)
	slices.SortStableFunc(found, func(a, b Override) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// winnersLocked returns those of set that contradict our settings.
func (i *Instance) winnersLocked(set map[string]string, by string) []Override {
	var found []Override
	for _, name := range slices.Sorted(maps.Keys(set)) {
		ours, mine := i.settings[name]
		if mine && ours != set[name] || !mine && slices.Contains(companionSettings, name) {
			found = append(found, Override{Name: name, Value: set[name], By: by})
		}
	}
	return found
}

// ClearOverrides removes from postgresql.auto.conf what [Instance.Overridden]
// finds there and returns it. A running server, which may be writing the file
// itself, is asked to; it uses our settings after [Instance.Reload].
func (i *Instance) ClearOverrides(ctx context.Context) ([]Override, error) {
	found, err := i.Overridden()
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(o Override) bool { return o.By != autoConf })
	if len(found) == 0 {
		return nil, nil
	}
	if i.Running() {
		return found, i.failed(i.resetSettings(ctx, found))
	}
	return found, i.failed(i.dropFromAutoConf(found))
}

// resetSettings has the server take entries out of postgresql.auto.conf.
func (i *Instance) resetSettings(ctx context.Context, entries []Override) error {
	conn, err := i.Connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // the server may be stopping
	for _, o := range entries {
		if _, err := conn.Exec(ctx, "ALTER SYSTEM RESET "+pgx.Identifier{o.Name}.Sanitize()); err != nil {
			return err
		}
	}
	return nil
}

// dropFromAutoConf takes entries out of the file of a server that does not run.
func (i *Instance) dropFromAutoConf(entries []Override) error {
	path := filepath.Join(i.cfg.Dir, autoConf)
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var kept strings.Builder
	for line := range strings.Lines(string(text)) {
		name, _, _ := parseConfLine(line)
		if !slices.ContainsFunc(entries, func(o Override) bool { return o.Name == name }) {
			kept.WriteString(line)
		}
	}
	return i.user.rewrite(path, kept.String())
}
