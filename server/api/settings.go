package api

import (
	"fmt"
	"time"

	"github.com/heliosdb/helios/failover"
)

// A Duration is a time.Duration whose text is that of Go and PostgreSQL: 2s, 150ms.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration: write 2s or 150ms", text)
	}
	*d = Duration(v)
	return nil
}

// Settings are the failover.Settings of a cluster as operators see them.
type Settings struct {
	Mode          failover.ReplicationMode `json:"replication_mode"`
	K             int                      `json:"k"`
	MinReplicas   int                      `json:"min_replicas"`
	AutoFailover  bool                     `json:"auto_failover"`
	Lease         Duration                 `json:"lease"`
	SealBudget    Duration                 `json:"seal_budget"`
	PromoteBudget Duration                 `json:"promote_budget"`
	StopBudget    Duration                 `json:"stop_budget"`
	MaxLag        uint64                   `json:"max_failover_lag"` // bytes; 0: any
}

// SettingsOf returns what operators see of s.
func SettingsOf(s failover.Settings) Settings {
	return Settings{
		Mode: s.Mode, K: s.K, MinReplicas: s.MinReplicas, AutoFailover: s.AutoFailover,
		Lease: Duration(s.Lease), SealBudget: Duration(s.SealBudget), PromoteBudget: Duration(s.PromoteBudget),
		StopBudget: Duration(s.StopBudget), MaxLag: s.MaxLag,
	}
}

// A SettingsPatch changes some settings: those that are not nil.
type SettingsPatch struct {
	Mode          *failover.ReplicationMode `json:"replication_mode,omitempty"`
	K             *int                      `json:"k,omitempty"`
	MinReplicas   *int                      `json:"min_replicas,omitempty"`
	AutoFailover  *bool                     `json:"auto_failover,omitempty"`
	Lease         *Duration                 `json:"lease,omitempty"`
	SealBudget    *Duration                 `json:"seal_budget,omitempty"`
	PromoteBudget *Duration                 `json:"promote_budget,omitempty"`
	StopBudget    *Duration                 `json:"stop_budget,omitempty"`
	MaxLag        *uint64                   `json:"max_failover_lag,omitempty"`
}

// Apply returns s changed by the patch. The error is an *Error if the result makes no
// sense whatever the cluster is.
func (p SettingsPatch) Apply(s failover.Settings) (failover.Settings, error) {
	set(&s.Mode, p.Mode)
	set(&s.K, p.K)
	set(&s.MinReplicas, p.MinReplicas)
	set(&s.AutoFailover, p.AutoFailover)
	set(&s.Lease, (*time.Duration)(p.Lease))
	set(&s.SealBudget, (*time.Duration)(p.SealBudget))
	set(&s.PromoteBudget, (*time.Duration)(p.PromoteBudget))
	set(&s.StopBudget, (*time.Duration)(p.StopBudget))
	set(&s.MaxLag, p.MaxLag)
	if err := s.Check(); err != nil {
		return s, &Error{Code: CodeBadRequest, Message: err.Error()}
	}
	return s, nil
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}
