package api

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/topology"
)

// A figure is one metric that is read when somebody asks.
type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) figure {
	return figure{desc: prometheus.NewDesc(name, help, labels, nil), kind: prometheus.GaugeValue}
}

func count(name, help string) figure {
	f := gauge(name, help)
	f.kind = prometheus.CounterValue
	return f
}

// Figures of the cluster, as this companion sees it.
var (
	epochFigure     = gauge("helios_epoch", "The newest reign of a primary that is known here.")
	phaseFigure     = gauge("helios_phase", "1 for the phase that the newest epoch is in.", "phase")
	timelineFigure  = gauge("helios_timeline", "The timeline of the last epoch that was ready.")
	fenceFigure     = count("helios_fence_total", "Epochs that were closed since the cluster began.")
	pausedFigure    = gauge("helios_paused", "1 while nothing is done without an operator.")
	membersFigure   = gauge("helios_members", "Members of the cluster.")
	syncFigure      = gauge("helios_sync_members", "Standbys whose flushes count for commits.")
	syncKFigure     = gauge("helios_sync_k", "How many of them a commit waits for.")
	sealedFigure    = gauge("helios_sealed_lsn", "How far standbys were at the last change of the primary, in bytes.", "member")
	primaryFigure   = gauge("helios_is_primary", "1 if this node takes writes.")
	leaderFigure    = gauge("helios_is_leader", "1 if this companion leads the log.")
	hasLeaderFigure = gauge("helios_has_leader", "1 if somebody leads the log, as far as is known here.")
	upFigure        = gauge("helios_postgres_up", "1 if the PostgreSQL of this node answers.")
	streamingFigure = gauge("helios_streaming", "1 if this node receives WAL of the primary.")
	leaseFigure     = gauge("helios_lease_remaining_seconds", "For how long this node may still confirm commits.")
	listenersFigure = gauge("helios_watch_listeners", "Who listens to this companion's watch stream.")

	termFigure      = gauge("helios_raft_term", "Term of the consensus.")
	committedFigure = gauge("helios_raft_commit_index", "Index of the last entry that is known here to be committed.")
	appliedFigure   = gauge("helios_raft_applied_index", "Index of the last entry that was applied here.")
	contactFigure   = gauge("helios_raft_last_contact_seconds", "Time since the leader was heard; 0 at the leader.")

	memberUpFigure     = gauge("helios_member_up", "1 if the PostgreSQL of that member answers, by the newest bulletin.", "member")
	memberLagFigure    = gauge("helios_member_lag_seconds", "Age of what queries at that replica see, by the newest bulletin.", "member")
	memberBehindFigure = gauge("helios_member_behind_bytes", "WAL that that replica has not replayed, by the newest bulletin.", "member")

	walConnectedFigure  = gauge("helios_wal_connected", "1 if the relay is connected to its source.")
	walHeadFigure       = gauge("helios_wal_head_lsn", "Where the WAL ends that the relay has.")
	walBytesFigure      = count("helios_wal_received_bytes_total", "WAL that the relay has received.")
	walMemoryFigure     = gauge("helios_wal_memory_bytes", "Memory that holds WAL.")
	walFramedFigure     = count("helios_wal_framed_bytes_total", "WAL that was compressed for other relays.")
	walCompressedFigure = count("helios_wal_compressed_bytes_total", "What it was compressed to.")
	walListenersFigure  = gauge("helios_wal_subscribers", "Who streams from the relay, or has streamed.")
)

// gauges reads figures from the cluster.
type gauges struct{ *Handler }

// Describe implements prometheus.Collector. It describes nothing: what there is depends on
// the members and on whether this node has a relay.
func (g gauges) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (g gauges) Collect(to chan<- prometheus.Metric) {
	put := func(f figure, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
	}
	g.state(put)
	g.node(put)
	g.bulletin(put)
	g.relay(put)
}

type put func(f figure, value float64, labels ...string)

func (g gauges) state(put put) {
	s := g.cfg.Cluster.State()
	put(epochFigure, float64(s.Epoch))
	for _, phase := range []failover.Phase{failover.PhaseForming, failover.PhaseFenced, failover.PhaseElected, failover.PhaseReady} {
		put(phaseFigure, truth(phaseOf(s) == phase), string(phase))
	}
	put(timelineFigure, float64(s.Timeline))
	put(fenceFigure, float64(max(s.Epoch, 1)-1)) // the first epoch closes none
	put(pausedFigure, truth(s.Paused))
	put(membersFigure, float64(len(s.Members)))
	put(syncFigure, float64(len(s.SyncSet.Members)))
	put(syncKFigure, float64(s.SyncSet.K))
	for _, last := range slices.Backward(s.History) {
		if len(last.Sealed) == 0 {
			continue
		}
		for _, sealed := range last.Sealed {
			put(sealedFigure, float64(sealed.Position.LSN), sealed.Node)
		}
		return
	}
}

func (g gauges) node(put put) {
	c := g.cfg.Cluster
	local := c.Local()
	leader, _ := c.Leader()
	sight := sight{state: c.State(), local: local, lease: c.LeaseRemaining()}
	put(primaryFigure, truth(sight.notPrimary() == ""))
	put(leaderFigure, truth(leader == local.Node))
	put(hasLeaderFigure, truth(leader != ""))
	put(upFigure, truth(local.Postgres == failover.ServerUp))
	put(streamingFigure, truth(local.Streaming))
	put(leaseFigure, max(0, sight.lease.Seconds()))
	put(listenersFigure, float64(g.listeners.now.Load()))

	log := c.Consensus()
	put(termFigure, float64(log.Term))
	put(committedFigure, float64(log.Committed))
	put(appliedFigure, float64(log.Applied))
	put(contactFigure, log.LastContact.Seconds())
}

func (g gauges) bulletin(put put) {
	b, _ := g.cfg.Cluster.Bulletin()
	if b == nil {
		return
	}
	for _, n := range b.Nodes {
		put(memberUpFigure, truth(n.State == string(failover.ServerUp)), n.Name)
		if n.Role == "replica" {
			g.replica(put, n)
		}
	}
}

func (g gauges) replica(put put, n topology.Reported) {
	if n.Lag >= 0 {
		put(memberLagFigure, n.Lag.Seconds(), n.Name)
		put(memberBehindFigure, float64(n.Behind), n.Name)
	}
}

func (g gauges) relay(put put) {
	w, ok := g.cfg.Cluster.WAL()
	if !ok {
		return
	}
	put(walConnectedFigure, truth(w.Connected))
	put(walHeadFigure, float64(w.Head))
	put(walBytesFigure, float64(w.Bytes))
	put(walMemoryFigure, float64(w.Memory))
	put(walFramedFigure, float64(w.FrameBytes))
	put(walCompressedFigure, float64(w.CompressedBytes))
	put(walListenersFigure, float64(len(w.Subscribers)))
}

func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
