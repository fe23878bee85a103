package api

import (
	_ "embed"
	"fmt"
	"net/http"
	"strconv"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/wal/relay"
)

//go:embed openapi.json
var openapiText []byte

// openapi answers with the description of the API.
func (h *Handler) openapi(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(openapiText)))
	if r.Method != http.MethodHead {
		w.Write(openapiText) //nolint:errcheck // who has gone away needs no answer
	}
	return nil
}

// cluster answers GET /v1/cluster.
func (h *Handler) cluster(w http.ResponseWriter, r *http.Request) error {
	s := h.cfg.Cluster.State()
	b, _ := h.cfg.Cluster.Bulletin()
	b = whole(b)
	name, addr := h.cfg.Cluster.Leader()
	answer(w, r, http.StatusOK, Overview{
		Companion: h.cfg.Cluster.Local().Node, Leader: Leader{Name: name, Address: addr},
		SystemID: s.SystemID, Epoch: s.Epoch, Phase: phaseOf(s), Primary: s.Primary,
		Timeline: s.Timeline, SwitchLSN: s.SwitchLSN, Paused: s.Paused, Settings: SettingsOf(settingsOf(s)),
		SyncSet: syncSetOf(s), Members: append([]failover.Member{}, s.Members...), Switchover: s.Switchover, Bulletin: b,
	})
	return nil
}

// phaseOf returns the phase; that of the zero State has no name.
func phaseOf(s *failover.State) failover.Phase {
	if s.Phase == "" {
		return failover.PhaseForming
	}
	return s.Phase
}

// settingsOf returns the settings, and before the log has any what a new cluster would have.
func settingsOf(s *failover.State) failover.Settings {
	if s.Settings == (failover.Settings{}) {
		return failover.DefaultSettings()
	}
	return s.Settings
}

// syncSetOf returns the sync set with a list that is never null.
func syncSetOf(s *failover.State) failover.SyncSet {
	set := s.SyncSet
	set.Members = append([]string{}, set.Members...)
	return set
}

// lag answers GET /v1/lag.
func (h *Handler) lag(w http.ResponseWriter, r *http.Request) error {
	lag := h.cfg.Cluster.Lag()
	if lag == nil {
		return &Error{Code: CodeNotYet, Message: "nothing was measured yet", Hint: "try again, or ask another companion"}
	}
	answer(w, r, http.StatusOK, lag)
	return nil
}

// history answers GET /v1/history.
func (h *Handler) history(w http.ResponseWriter, r *http.Request) error {
	list := h.cfg.Cluster.State().History
	if text := r.URL.Query().Get("limit"); text != "" {
		limit, err := strconv.Atoi(text)
		if err != nil || limit < 1 {
			return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("limit: %q is not a number of transitions", text)}
		}
		list = list[max(0, len(list)-limit):]
	}
	answer(w, r, http.StatusOK, historyOf(list))
	return nil
}

// wal answers GET /v1/wal.
func (h *Handler) wal(w http.ResponseWriter, r *http.Request) error {
	status, ok := h.cfg.Cluster.WAL()
	if !ok {
		return &Error{Code: CodeNoRelay, Message: "this companion has no WAL relay", Hint: "ask one that has a PostgreSQL beside it"}
	}
	status.Subscribers = append([]relay.SubscriberMetrics{}, status.Subscribers...) // an empty list is not null
	answer(w, r, http.StatusOK, status)
	return nil
}

// settings answers GET /v1/settings.
func (h *Handler) settings(w http.ResponseWriter, r *http.Request) error {
	answer(w, r, http.StatusOK, SettingsOf(settingsOf(h.cfg.Cluster.State())))
	return nil
}

// metrics answers GET /metrics.
func (h *Handler) metrics(w http.ResponseWriter, r *http.Request) error {
	h.scraped.ServeHTTP(w, r)
	return nil
}
