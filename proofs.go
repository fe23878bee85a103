package helios

import (
	"sync"
	"time"

	"github.com/heliosdb/helios/router"
	"github.com/heliosdb/helios/wal"
)

// proofs guards what is believed of a replica's position without asking it with
// the read: Backend.Replay. A position holds for one run of the server. After a
// restart a standby may show an older state than before, and news of the time
// before may arrive at any moment after. Whoever uses the new run has made a
// connection to it, so each new connection voids all that was proved; and news
// from elsewhere count only for the run that a probe has seen since.
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

// probed notes what a probe has found that was sent at asked: lsn is 0 where it
// proves nothing.
func (p *proofs) probed(asked, startedAt time.Time, lsn wal.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !asked.After(p.dialed) {
		return // the server may have been started anew in between
	}
	p.run = startedAt
	p.load.SawReplay(lsn)
}

// told notes what companions say of the server that was started then.
func (p *proofs) told(startedAt time.Time, lsn wal.LSN) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.run.IsZero() && p.run.Equal(startedAt) {
		p.load.SawReplay(lsn)
	}
}
