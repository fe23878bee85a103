package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/beat"
	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/internal/walfile"
	"github.com/heliosdb/helios/wal"
)

// A Relay follows one PostgreSQL server, or another relay, and is a walsender to
// any number of standbys and relays. Make one with New, then Run it. Its methods
// are safe for concurrent use.
type Relay struct {
	cfg        Config
	log        *slog.Logger
	replicator *Replicator
	buffer     *Buffer
	frames     *frameCache
	slots      *slots
	server     *replication.Server
	spool      *walfile.Spool // nil without one
	dirs       []*walfile.Dir // where older WAL lies on disk, best first; nil until branch is set
	backfills  chan struct{}  // holds one for each backfill that may run at once

	branch      atomic.Pointer[branch] // nil until the first source has told
	known       chan struct{}          // closed once branch is set
	source      atomic.Pointer[sourceState]
	sources     atomic.Pointer[[]*pgconn.Config]
	behindRelay atomic.Bool // the source is one
	forgets     atomic.Bool // what is relayed is not to be gone on with
	users       atomic.Pointer[map[string]replication.Verifier]
	resume      chan struct{} // holds one: the sources have changed, or there is something to salvage
	salvaging   atomic.Pointer[salvage]
	removed     wal.LSN         // follow's own; the source no longer has what comes there
	doubted     map[string]bool // follow's own; sources, by address, that may not answer
	serving     sync.WaitGroup  // every goroutine that Run and Serve start

	mu       sync.Mutex
	sessions map[*session]struct{}
	orphaned bool // subscribers are turned away
	closed   bool
	stranded map[string]stranded // by name
}

// sourceState is what is known of the source; immutable.
type sourceState struct {
	addr  string
	cfg   *pgconn.Config
	since time.Time
	up    bool
	err   error     // why it is not
	lost  time.Time // when one that had been there for steadyTime was lost last
}

// steadyTime is how long a source has to be there before it is taken for one. One
// that takes connections and ends them is of no use to anybody.
const steadyTime = time.Second

// missing returns for how long there has been no source.
func (s *sourceState) missing(now time.Time) time.Duration {
	if s.up && now.Sub(s.since) >= steadyTime {
		return 0
	}
	return now.Sub(s.lost)
}

// maxBackfills is how many subscribers are served from the source at once. Each
// takes a walsender there.
const maxBackfills = 2

// New checks the configuration and returns a relay that does nothing yet, but
// makes the directory of the spool, if there is to be one.
func New(cfg Config) (*Relay, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	buffer, err := NewBuffer(cfg.BufferSize)
	if err != nil {
		return nil, err
	}
	if cfg.WALDir != "" && !cfg.SourceLater {
		if _, err := os.ReadDir(cfg.WALDir); err != nil {
			return nil, fmt.Errorf("relay: directory of WAL: %w", err)
		}
	}
	if cfg.SpoolDir != "" { // better known now than when the source has answered
		if err := os.MkdirAll(cfg.SpoolDir, 0o700); err != nil {
			return nil, fmt.Errorf("relay: spool: %w", err)
		}
	}
	r := &Relay{
		cfg: cfg, log: cfg.Log, buffer: buffer, replicator: NewReplicator(buffer, 0, cfg.Acknowledge), slots: newSlots(),
		backfills: make(chan struct{}, maxBackfills), known: make(chan struct{}), resume: make(chan struct{}, 1),
		sessions: make(map[*session]struct{}),
	}
	r.replicator.gated = cfg.Gate != nil
	r.frames = newFrameCache(&r.replicator.compressed)
	r.server = r.newServer()
	if cfg.Acknowledge.Mode == ConfirmReceipt && cfg.SpoolDir == "" {
		r.log.Warn("receipt without a spool confirms no commit: PostgreSQL counts nobody who has never flushed")
	}
	r.sources.Store(&cfg.Source)
	r.users.Store(&cfg.Users)
	now := time.Now()
	r.source.Store(&sourceState{since: now, lost: now, err: errors.New("not connected yet")})
	return r, nil
}

// Replicator returns what the relay knows of its subscribers.
func (r *Relay) Replicator() *Replicator { return r.replicator }

// SetSource changes where WAL comes from. The stream is taken up at the new
// source where it stands; subscribers stay connected. Without any the relay
// leaves its source, takes no more WAL, and goes on to serve what it has.
func (r *Relay) SetSource(source []*pgconn.Config) error {
	if len(source) == 0 && !r.cfg.SourceLater {
		return errors.New("relay: no source: say where the WAL is to come from")
	}
	r.sources.Store(&source)
	r.followAgain()
	return nil
}

// followAgain has follow look at what it is to do.
func (r *Relay) followAgain() {
	select {
	case r.resume <- struct{}{}:
	default:
	}
}

// Forget gives up what is relayed: the relay begins anew with what its source has,
// even if that is another history, and disconnects its subscribers. It is for a
// branch that turned out to be nobody's, such as that of a promotion which failed
// and whose timeline's number another one has now.
func (r *Relay) Forget() {
	r.forgets.Store(true)
	r.followAgain()
}

// Release has Config.Gate asked again, and the source told.
func (r *Relay) Release() {
	r.replicator.released.Store(true)
	r.replicator.kickSource()
}

// Run follows the source and serves who connects to the listeners, until ctx
// ends. It returns then, with all its goroutines ended and the listeners closed,
// or when a listener fails. A source that cannot be reached is no reason to
// return: the relay tries again.
func (r *Relay) Run(ctx context.Context, listeners ...net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, l := range listeners {
		r.serving.Go(func() {
			if err := r.serve(ctx, l); err != nil {
				cancel(err)
			}
		})
	}
	r.serving.Go(func() { r.watchSource(ctx) })
	r.serving.Go(func() { r.keepSlot(ctx) })
	r.serving.Go(func() { r.saveSlots(ctx) })
	r.serving.Go(func() { r.fillSpool(ctx) })
	if err := r.follow(ctx); err != nil {
		cancel(err)
	}
	<-ctx.Done()
	for _, l := range listeners {
		l.Close() //nolint:errcheck // no more to be accepted
	}
	r.farewell()
	r.serving.Wait()
	r.buffer.Close()
	err := context.Cause(ctx)
	if err2 := r.closeSpool(); err2 != nil {
		r.log.ErrorContext(ctx, "what is on disk was not left as it should be", "error", err2)
		err = errors.Join(err, err2)
	}
	return err
}

// farewellWait is how long subscribers have at the end to flush what was
// received.
const farewellWait = 2 * time.Second

// farewell gives subscribers the time to take the last of the WAL, and
// disconnects them.
func (r *Relay) farewell() {
	deadline := time.NewTimer(farewellWait)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	waiting := true
	for waiting && !r.allFlushed() {
		select {
		case <-deadline.C:
			waiting = false
		case <-tick.C:
		}
	}
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.disconnect(errShutdown)
}

var errShutdown = &replication.Error{Code: "57P01", Message: "terminating connection due to administrator command"}

// allFlushed reports whether every subscriber that streams has flushed all that
// the relay holds.
func (r *Relay) allFlushed() bool {
	head := r.buffer.Head()
	r.replicator.mu.Lock()
	defer r.replicator.mu.Unlock()
	for _, s := range r.replicator.subs {
		if s.via == nil && !s.relay && *s.state.Load() == StateStreaming && s.confirmed.Flush < head {
			return false
		}
	}
	return true
}

// Status is what a relay tells of itself.
type Status struct {
	Source      string             `json:"source"` // host and port
	Connected   bool               `json:"connected"`
	Since       time.Time          `json:"since"`           // when that began
	Error       string             `json:"error,omitempty"` // why it is not connected
	System      string             `json:"system_identifier"`
	Acknowledge Policy             `json:"acknowledge"`
	Slots       map[string]wal.LSN `json:"slots"`
	Spool       *SpoolStatus       `json:"spool,omitempty"` // nil without one
	Metrics
}

// SpoolStatus is what a relay keeps on disk.
type SpoolStatus struct {
	Dir     string  `json:"dir"`
	Bytes   int64   `json:"bytes"`
	Oldest  wal.LSN `json:"oldest"`
	Flushed wal.LSN `json:"flushed"`
}

// Status returns the state of the relay as it is now.
func (r *Relay) Status() Status {
	src := r.source.Load()
	s := Status{
		Source: src.addr, Connected: src.up, Since: src.since, Acknowledge: r.cfg.Acknowledge,
		Slots: r.slots.list(), Metrics: r.replicator.Metrics(),
	}
	if src.err != nil {
		s.Error = src.err.Error()
	}
	if b := r.branch.Load(); b != nil {
		s.System = b.identity.System
		if r.spool != nil {
			kept := r.spool.Stats()
			s.Spool = &SpoolStatus{Dir: r.cfg.SpoolDir, Bytes: kept.Bytes, Oldest: kept.Oldest, Flushed: kept.Flushed}
		}
	}
	return s
}

// watchSource turns subscribers away while there has been no source for too
// long, and lets them in again.
func (r *Relay) watchSource(ctx context.Context) {
	every := min(time.Second, r.cfg.OrphanTimeout/4+time.Millisecond)
	tick := time.NewTimer(beat.Next(every))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			tick.Reset(beat.Next(every))
		}
		src := r.source.Load()
		orphaned := src.missing(time.Now()) > r.cfg.OrphanTimeout
		r.mu.Lock()
		changed := orphaned != r.orphaned
		r.orphaned = orphaned
		r.mu.Unlock()
		if changed && orphaned {
			r.log.WarnContext(ctx, "no source for too long: subscribers are turned away", "from", src.addr, "after", r.cfg.OrphanTimeout)
			r.disconnect(errOrphaned)
		}
	}
}

var errOrphaned = &replication.Error{
	Code: "57P03", Message: "the relay has lost its source",
	Hint: "List the primary behind the relay in primary_conninfo, and the standby goes there meanwhile.",
}

// disconnect ends every session with err.
func (r *Relay) disconnect(err *replication.Error) {
	r.mu.Lock()
	all := make([]*session, 0, len(r.sessions))
	for s := range r.sessions {
		all = append(all, s)
	}
	r.mu.Unlock()
	for _, s := range all {
		s.kill(err)
	}
}

// setSourceState publishes how the source is.
func (r *Relay) setSourceState(cfg *pgconn.Config, err error) {
	old, now := r.source.Load(), time.Now()
	next := &sourceState{addr: old.addr, cfg: old.cfg, since: now, up: err == nil, err: err, lost: old.lost}
	if old.missing(now) == 0 {
		next.lost = now
	}
	if cfg != nil {
		next.addr, next.cfg = addr(cfg), cfg
	}
	if !next.up && !old.up { // it has been down since then
		next.since = old.since
	}
	r.source.Store(next)
}

// setBranch publishes the branch of history that the buffer is on, and wakes the
// sessions to see it.
func (r *Relay) setBranch(b *branch) {
	first := r.branch.Swap(b) == nil
	if first {
		close(r.known)
	}
	r.buffer.wake()
}

// knownBranch waits for the first source to tell what is relayed.
func (r *Relay) knownBranch(ctx context.Context, most time.Duration) (*branch, error) {
	wait := time.NewTimer(most)
	defer wait.Stop()
	select {
	case <-r.known:
		return r.branch.Load(), nil
	case <-wait.C:
		return nil, fmt.Errorf("no source yet: %w", r.source.Load().err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Holds reports whether what was written at p is part of what is relayed, or will
// be: of the history of the timeline that it is on. It is false while there is none.
func (r *Relay) Holds(p wal.Position) bool {
	b := r.branch.Load()
	if b == nil {
		return false
	}
	s, ok := b.span(p.Timeline)
	return ok && p.LSN <= s.end
}

// closeSpool writes down what there is to keep.
func (r *Relay) closeSpool() error {
	var errs []error
	for _, dir := range r.dirs {
		errs = append(errs, dir.Close())
	}
	if r.spool != nil {
		errs = append(errs, r.slots.keep(), r.spool.Close())
	}
	return errors.Join(errs...)
}
