package config

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/spelling"
)

// SetSetting sets the setting of a whole cluster that is called name, written as in the
// file.
func SetSetting(s *failover.Settings, name, value string) error {
	c := Config{Settings: *s}
	keys := c.settingsKeys()
	at := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
	if at < 0 {
		return notASetting(name, keys)
	}
	if err := keys[at].value.Set(value); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	*s = c.Settings
	return nil
}

// notASetting says that a cluster has no setting of that name, and what may have been
// meant.
func notASetting(name string, keys []key) error {
	if slices.Contains(names(), name) {
		return fmt.Errorf("%s: is each node's own; set it in its helios.conf, or as a flag, and restart its companion", name)
	}
	near := slices.MinFunc(keys, func(a, b key) int {
		return cmp.Compare(spelling.Distance(name, a.name), spelling.Distance(name, b.name))
	})
	if spelling.Distance(name, near.name) <= max(1, min(len(name), len(near.name))/2) {
		return fmt.Errorf("there is no setting %q; did you mean %s?", name, near.name)
	}
	return fmt.Errorf("there is no setting %q; helios settings show lists them", name)
}

// SettingsOf describes the settings of a whole cluster.
func SettingsOf(s failover.Settings) []Setting {
	c, usual := Config{Settings: s}, Default()
	defaults := usual.settingsKeys()
	var all []Setting
	for i, k := range c.settingsKeys() {
		all = append(all, Setting{Name: k.name, Value: k.value.String(), Default: defaults[i].value.String(), Scope: k.scope, Help: k.help})
	}
	return all
}
