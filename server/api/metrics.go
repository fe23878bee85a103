package api

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/heliosdb/helios/failover"
)

// Metrics are what a companion counts as it happens. The rest of /metrics is read from the
// [Cluster] when somebody asks. They are safe for concurrent use.
type Metrics struct {
	gate   prometheus.Histogram
	rejoin *prometheus.HistogramVec
	orders *prometheus.CounterVec
}

// NewMetrics returns metrics that have counted nothing.
func NewMetrics() *Metrics {
	return &Metrics{
		gate: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "helios_gate_ack_seconds", Help: "How long WAL waited at this node's commit gate until it was confirmed.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16), // to 3.3 s
		}),
		rejoin: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "helios_rejoin_seconds", Help: "How long this node took to stream again, by how it was brought back.",
			Buckets: prometheus.ExponentialBuckets(0.1, 2, 16), // to 55 minutes
		}, []string{"method"}),
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helios_orders_total", Help: "Orders given through this companion, by what came of them.",
		}, []string{"order", "outcome"}),
	}
}

// GateConfirmed counts WAL that the commit gate has confirmed after it waited for d.
func (m *Metrics) GateConfirmed(d time.Duration) { m.gate.Observe(d.Seconds()) }

// Rejoined counts a node that streams again after d; method is one word: follow, rewind or
// reclone.
func (m *Metrics) Rejoined(method string, d time.Duration) {
	m.rejoin.WithLabelValues(method).Observe(d.Seconds())
}

// metricsHandler returns what serves /metrics, from a registry of its own.
func (h *Handler) metricsHandler() http.Handler {
	registry := prometheus.NewRegistry()
	node := prometheus.WrapRegistererWith(prometheus.Labels{"node": h.cfg.Cluster.Local().Node}, registry)
	m := h.cfg.Metrics
	node.MustRegister(m.gate, m.rejoin, m.orders, newTransitions(h.cfg.Cluster, time.Now()), gauges{h})
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// transitions counts those that end while the companion runs, as the log has them.
type transitions struct {
	cluster Cluster
	started time.Time
	seconds *prometheus.HistogramVec
	ended   *prometheus.CounterVec

	mu      sync.Mutex
	counted failover.Epoch // the newest that was looked at
}

func newTransitions(c Cluster, now time.Time) *transitions {
	t := &transitions{
		cluster: c, started: now,
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "helios_failover_seconds", Help: "Where the time of failovers and switchovers went.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16), // to 33 s
		}, []string{"phase"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "helios_failovers_total", Help: "Changes of the primary: reason is failure, planned or forced; outcome is done or aborted.",
		}, []string{"reason", "outcome"}),
	}
	for _, reason := range []string{"failure", "planned", "forced"} {
		for _, outcome := range []string{"done", "aborted"} {
			t.ended.WithLabelValues(reason, outcome) // a series that begins with its first event hides it from rate()
		}
	}
	return t
}

// Describe implements prometheus.Collector.
func (t *transitions) Describe(to chan<- *prometheus.Desc) {
	t.seconds.Describe(to)
	t.ended.Describe(to)
}

// Collect implements prometheus.Collector.
func (t *transitions) Collect(to chan<- prometheus.Metric) {
	t.count(t.cluster.State())
	t.seconds.Collect(to)
	t.ended.Collect(to)
}

// count counts what has ended since the last time. What the log had before the companion
// started is read again at a start, and is not counted again.
func (t *transitions) count(s *failover.State) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range s.History {
		switch {
		case h.Epoch <= t.counted:
			continue
		case h.Epoch == s.Epoch && s.Phase != failover.PhaseReady && h.Aborted == "":
			return // under way
		}
		t.counted = h.Epoch
		if h.From == "" || h.At.Before(t.started) { // the first primary replaces nobody
			continue
		}
		t.ended.WithLabelValues(reasonOf(h), outcomeOf(h)).Inc()
		if h.Aborted == "" {
			t.observe(h.Timing)
		}
	}
}

func (t *transitions) observe(spent failover.Timing) {
	for phase, d := range map[string]time.Duration{
		"detect": spent.Detect, "fence": spent.Fence, "seal": spent.Seal, "elect": spent.Elect, "promote": spent.Promote,
	} {
		t.seconds.WithLabelValues(phase).Observe(d.Seconds())
	}
}

func reasonOf(h failover.Transition) string {
	switch {
	case h.Forced:
		return "forced"
	case h.Planned:
		return "planned"
	default:
		return "failure"
	}
}

func outcomeOf(h failover.Transition) string {
	if h.Aborted != "" {
		return "aborted"
	}
	return "done"
}
