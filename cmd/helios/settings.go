package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/server/api"
	"github.com/heliosdb/helios/server/config"
)

// settingsCommand is about what holds for a whole cluster.
func settingsCommand() command {
	return command{
		name:    "settings",
		args:    "COMMAND",
		summary: "show and change what holds for a whole cluster",
		about: `They are in the cluster's log: what flags and helios.conf say of them counts only when a
cluster is made. What each node has for itself is shown by helios config.`,
		parts: []command{settingsShowCommand(), settingsSetCommand()},
	}
}

// settingsShowCommand lists them.
func settingsShowCommand() command {
	return companionCommand(command{
		name:    "settings show",
		summary: "list the settings of a cluster",
		about:   "Those that are not as in a new cluster are marked.",
	}, func(_ *flag.FlagSet, c *companion) action {
		return show(c, func(ctx context.Context) (*api.Settings, error) { return c.client.Settings(ctx) }, func(w io.Writer, settings *api.Settings) error {
			return writeSettings(w, settingsOf(*settings))
		})
	})
}

// settingsOf returns what the cluster goes by.
func settingsOf(s api.Settings) failover.Settings {
	return failover.Settings{
		Mode: s.Mode, K: s.K, MinReplicas: s.MinReplicas, AutoFailover: s.AutoFailover,
		Lease: time.Duration(s.Lease), SealBudget: time.Duration(s.SealBudget),
		PromoteBudget: time.Duration(s.PromoteBudget), StopBudget: time.Duration(s.StopBudget), MaxLag: s.MaxLag,
	}
}

// writeSettings writes a line for each setting.
func writeSettings(w io.Writer, settings failover.Settings) error {
	t := newTable("SETTING", "VALUE", "NEW CLUSTER", "MEANING")
	for _, s := range config.SettingsOf(settings) {
		t.add(cell{text: s.Name}, cell{s.Value, boldIf(s.Value != s.Default)}, cell{s.Default, dimShade}, cell{text: s.Help})
	}
	return t.write(w)
}

// settingsSetCommand changes some.
func settingsSetCommand() command {
	return orderCommand(command{
		name:    "settings set",
		args:    "NAME=VALUE...",
		summary: "change settings of a cluster",
		about: `All of them at once, or none if one cannot be. Values are written as in helios.conf:

  helios settings set replication_mode=semisync k=1 lease=3s`,
	}, func(_ *flag.FlagSet, c *companion) order {
		return func(ctx context.Context, args []string) (*api.Done, error) {
			patch, err := settingsPatch(args)
			if err != nil {
				return nil, c.usage(err.Error())
			}
			return c.client.ChangeSettings(ctx, patch)
		}
	})
}

// settingsPatch reads name=value pairs.
func settingsPatch(args []string) (api.SettingsPatch, error) {
	var patch api.SettingsPatch
	if len(args) == 0 {
		return patch, fmt.Errorf("want NAME=VALUE, such as lease=3s")
	}
	parsed := failover.DefaultSettings()
	given := map[string]bool{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			return patch, fmt.Errorf("%q is not NAME=VALUE", arg)
		}
		if err := config.SetSetting(&parsed, name, value); err != nil {
			return patch, err
		}
		given[name] = true
	}
	return patchOf(parsed, given)
}

// patchOf returns a patch with those of settings that are given. The names of the keys are
// those of the fields in JSON.
func patchOf(settings failover.Settings, given map[string]bool) (api.SettingsPatch, error) {
	var patch api.SettingsPatch
	whole, err := json.Marshal(api.SettingsOf(settings))
	if err != nil {
		return patch, err
	}
	fields := map[string]json.RawMessage{}
	if err := json.Unmarshal(whole, &fields); err != nil {
		return patch, err
	}
	for name := range fields {
		if !given[name] {
			delete(fields, name)
		}
	}
	some, err := json.Marshal(fields)
	if err != nil {
		return patch, err
	}
	return patch, json.Unmarshal(some, &patch)
}
