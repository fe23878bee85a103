package helios

import (
	"sync"
	"time"

	"github.com/heliosdb/helios/router"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

// proofs guards what is believed of a replica's position without asking it with
// the read: Backend.Replay. After a restart, or a crash of one of its processes, a
// standby may show an older state than before. That ends all connections, so each
// new one voids what was proved before. What companions tell may have been under
// way for a while: it counts only if they speak of the run that a probe has seen
// since, and nothing that is so late is still under way.
type proofs struct {
	load *router.Backend

	mu     sync.Mutex
	dialed time.Time // guarded by mu; when a connection was made last
	run    time.Time // guarded by mu; the start of the server that a probe has seen since; zero if none has
}

// void notes that a connection was made at now.
func (p *proofs) void(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialed, p.run = now, time.Time{}
	p.load.ResetReplay(0)
}

// turned notes that the replica follows another timeline.
func (p *proofs) turned() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.load.ResetReplay(0)
}

// probed notes what a probe has found: lsn is 0 where it proves nothing.
func (p *proofs) probed(o *topology.Observation, lsn wal.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !o.At.Add(-o.RTT).After(p.dialed) || !o.Replayed {
		return // the server may have been started anew in between, or has only just been
	}
	p.run = o.StartedAt
	p.load.SawReplay(lsn)
}

// lateNews is more than a node's word is on its way to a driver: a companion asks
// its server a few times a second and reports what it hears, and each stream in
// between ends when it is silent for longer than 3 s.
const lateNews = 8 * time.Second

// told notes what companions say that the server which was started then had
// replayed at at.
func (p *proofs) told(at, startedAt time.Time, lsn wal.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.run.IsZero() && p.run.Equal(startedAt) && at.After(p.dialed.Add(lateNews)) {
		p.load.SawReplay(lsn)
	}
}
