package config

import (
	"testing"

	"github.com/heliosdb/helios/failover"
)

func TestASettingOfTheClusterIsWrittenAsInTheFile(t *testing.T) {
	for name, tt := range map[string]struct{ key, value, want string }{
		"a time":       {"lease", "3s", ""},
		"a word":       {"replication_mode", "semisync", ""},
		"a switch":     {"auto_failover", "off", ""},
		"a size":       {"max_failover_lag", "16MB", ""},
		"a bad value":  {"lease", "3", `lease: "3" is not a time; write it with a unit: 500ms, 2s, 1min`},
		"misspelled":   {"leese", "3s", `there is no setting "leese"; did you mean lease?`},
		"unknown":      {"shared_buffers", "3", `there is no setting "shared_buffers"; helios settings show lists them`},
		"a node's own": {"zone", "a", "zone: is each node's own; set it in its helios.conf, or as a flag, and restart its companion"},
	} {
		t.Run(name, func(t *testing.T) {
			s := failover.DefaultSettings()
			got := ""
			if err := SetSetting(&s, tt.key, tt.value); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Fatalf("SetSetting(%s, %s): %q, want %q", tt.key, tt.value, got, tt.want)
			}
			for _, setting := range SettingsOf(s) {
				if setting.Name == tt.key && tt.want == "" && setting.Value != tt.value {
					t.Errorf("%s is %q, want %q", tt.key, setting.Value, tt.value)
				}
			}
		})
	}
}
