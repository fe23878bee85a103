package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

const (
	minBackoff = 50 * time.Millisecond
	maxBackoff = time.Second
)

// errSourceChanged ends following a source because there is to be another.
var errSourceChanged = errors.New("relay: the source was changed")

// errNoSource means that there is none for now.
var errNoSource = errors.New("relay: no source is named")

// follow keeps the buffer filled until ctx ends. It returns an error only for
// what trying again cannot mend.
func (r *Relay) follow(ctx context.Context) error {
	backoff := minBackoff
	said := "" // in the log, since there was a source
	for ctx.Err() == nil {
		if s := r.salvaging.Swap(nil); s != nil {
			s.end, s.err = r.salvage(ctx)
			close(s.done)
		}
		began := time.Now()
		err := r.followOnce(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it ended because it had to
		case errors.Is(err, ErrClosed), errors.Is(err, errUnusable):
			return err
		case errors.Is(err, errSourceChanged):
			r.setSourceState(nil, err)
			continue
		case errors.Is(err, errNoSource):
			r.setSourceState(nil, err)
			select {
			case <-r.resume:
			case <-ctx.Done():
			}
			continue
		}
		said = r.lost(ctx, err, said)
		if time.Since(began) > maxBackoff {
			backoff = minBackoff
		}
		wait := time.NewTimer(backoff)
		select {
		case <-wait.C:
		case <-r.resume:
		case <-ctx.Done():
		}
		wait.Stop()
		backoff = min(backoff*2, maxBackoff)
	}
	return nil
}

// lost notes that there is no source, and why, and returns what was said of it:
// once, until the reason is another or there was a source in between.
func (r *Relay) lost(ctx context.Context, err error, said string) string {
	before := r.source.Load()
	if before.up {
		r.doubted[before.addr] = true // choose has made the map
		said = ""
	}
	r.log.Log(ctx, unlessSaid(slog.LevelWarn, err, said), "the source is lost", "from", before.addr, "error", err)
	r.setSourceState(nil, err)
	return err.Error()
}

// followOnce connects to the best source there is, and takes its WAL until it
// is lost.
func (r *Relay) followOnce(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	chosen, err := r.choose(ctx)
	if err != nil {
		return err
	}
	client := chosen.client
	defer client.Close() //nolint:errcheck // nothing is lost with it
	// Whoever ends this ends the read that it stands in.
	stop := context.AfterFunc(ctx, func() { client.Close() }) //nolint:errcheck // see above
	defer stop()
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	watching.Go(func() {
		select {
		case <-r.resume:
			cancel(errSourceChanged)
		case <-ctx.Done():
		}
	})
	watching.Go(func() { r.watchOthers(ctx, chosen, cancel) })
	at, t, err := r.adopt(ctx, chosen)
	if err != nil {
		return err
	}
	r.behindRelay.Store(chosen.isRelay())
	r.setSourceState(chosen.cfg, nil)
	r.log.InfoContext(ctx, "following", "from", addr(chosen.cfg), "timeline", t, "at", at, "relay", chosen.isRelay())
	err = r.stream(ctx, chosen, at, t)
	if errors.Is(err, errGone) {
		r.removed = r.buffer.Head()
	}
	if cause := context.Cause(ctx); cause != nil && parent.Err() == nil {
		return cause
	}
	return err
}

// adopt makes the source's branch of history the relay's, and returns where its
// stream is to begin, and on which timeline.
func (r *Relay) adopt(ctx context.Context, c *candidate) (wal.LSN, wal.Timeline, error) {
	bounded, cancel := context.WithTimeout(ctx, r.cfg.SourceTimeout)
	defer cancel()
	theirs, err := c.branch(bounded)
	if err != nil {
		return 0, 0, err
	}
	r.fetchHistories(bounded, c.client, theirs)
	ours := r.branch.Load()
	if ours == nil {
		return r.beginHere(ctx, theirs)
	}
	head := r.buffer.Head()
	fork := theirs.fork(ours)
	switch last, ok := theirs.span(ours.timeline()); {
	case r.forgets.Swap(false):
	case ok && theirs.timeline() == ours.timeline() && fork != noEnd:
		return 0, 0, fmt.Errorf("relay: it is on timeline %s with another history, forked at %s: a different branch of the same number", theirs.timeline(), fork)
	case ok && fork == last.end && r.removed == head && theirs.start() > head:
		r.log.WarnContext(ctx, "the source no longer has what follows: a gap is left, and whoever stands before it needs another source",
			"at", head, "next", theirs.start(), "timeline", theirs.timeline())
		theirs.generation = ours.generation
		return r.beginHere(ctx, theirs)
	case ok && fork == last.end:
		if head > fork {
			r.log.WarnContext(ctx, "what was relayed behind the fork is not part of the source's history, and is taken back",
				"fork", fork, "was", head, "timeline", theirs.timeline())
			if err := r.replicator.Advance(ours.timeline(), fork); err != nil {
				return 0, 0, err
			}
		}
		// The WAL goes on where it stands: the rest of our timeline first, and
		// be it nothing, so that its end and what follows are told in order.
		renewed := *ours
		renewed.identity = theirs.identity
		renewed.identity.Timeline = ours.timeline()
		renewed.files = theirs.files // ours are among them
		r.setBranch(&renewed)
		return min(head, fork), ours.timeline(), nil
	}
	r.log.WarnContext(ctx, "the source's history does not contain what was relayed: it begins anew", "timeline", theirs.timeline(), "was", ours.timeline(), "fork", fork)
	theirs.generation = ours.generation + 1
	r.disconnect(&replication.Error{Code: "57P01", Message: fmt.Sprintf("requested timeline %s is not in this server's history", ours.timeline())})
	return r.beginHere(ctx, theirs)
}

// merged returns the files of both.
func merged(a, b map[wal.Timeline][]byte) map[wal.Timeline][]byte {
	of := maps.Clone(a)
	maps.Copy(of, b)
	return of
}

// beginHere starts with an empty buffer: at what the spool has, else at the
// start of the segment that the source is writing, since that is where standbys
// begin.
func (r *Relay) beginHere(ctx context.Context, b *branch) (wal.LSN, wal.Timeline, error) {
	at, t, err := r.openSpool(ctx, b, b.start())
	if err != nil {
		return 0, 0, err
	}
	if err := r.buffer.Reset(at); err != nil {
		return 0, 0, err
	}
	begun := *b
	if t != b.timeline() {
		// The spool stands on an ancestor: its end comes with the stream.
		if err := begun.read(t, b.files[t]); err != nil {
			return 0, 0, err
		}
	}
	if err := r.replicator.Advance(t, at); err != nil {
		return 0, 0, err
	}
	r.replicator.marks.forget()
	if r.spool != nil {
		r.replicator.spool(r.spool.Flushed())
	}
	r.setBranch(&begun)
	return at, t, nil
}

// branch asks the source for its history.
func (c *candidate) branch(ctx context.Context) (*branch, error) {
	var file []byte
	if c.id.Timeline > 1 {
		var err error
		if file, err = c.client.History(ctx, c.id.Timeline); err != nil && !isUndefinedFile(err) {
			return nil, err
		}
	}
	return newBranch(c.id, file)
}

// isUndefinedFile reports whether the server said that it has no such history
// file: the first timeline of a cluster that was made by pg_resetwal or pg_upgrade
// has a number and no history.
func isUndefinedFile(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == "58P01"
}

// fetchHistories gets the history files of the branch's timelines that are not
// here: a standby on an old one asks for each up to the last.
func (r *Relay) fetchHistories(ctx context.Context, client *replication.Client, b *branch) {
	if have := r.branch.Load(); have != nil && !r.forgets.Load() {
		b.files = merged(have.files, b.files)
	}
	for _, s := range b.spans {
		if s.timeline <= 1 || b.files[s.timeline] != nil {
			continue
		}
		file, err := client.History(ctx, s.timeline)
		if err != nil {
			r.log.WarnContext(ctx, "the source lacks a timeline's history: standbys on older ones cannot follow", "timeline", s.timeline, "error", err)
			continue
		}
		b.files[s.timeline] = file
	}
}

// advance makes b the branch that the relay is on: its timeline goes on from at.
func (r *Relay) advance(b *branch, at wal.LSN) error {
	// The order is what keeps sessions right: what they find in the buffer after
	// the branch is set is the new timeline's, what they found before was not.
	if err := r.replicator.Advance(b.timeline(), at); err != nil {
		return err
	}
	r.setBranch(b)
	return nil
}

// stream takes WAL from at on timeline t, over all timelines that follow, until
// the source ends or is lost.
func (r *Relay) stream(ctx context.Context, c *candidate, at wal.LSN, t wal.Timeline) error {
	for {
		started, next, err := r.begin(ctx, c, at, t)
		if err != nil {
			return err
		}
		if started {
			if next, err = r.receive(ctx, c); err != nil {
				return gone(err)
			}
		}
		if next.Timeline == 0 {
			return errors.New("relay: it ended the stream without saying how it goes on")
		}
		if err := r.nextTimeline(ctx, c, t, next); err != nil {
			return err
		}
		at, t = next.LSN, next.Timeline
	}
}

// begin has the source begin to stream.
func (r *Relay) begin(ctx context.Context, c *candidate, at wal.LSN, t wal.Timeline) (bool, wal.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.SourceTimeout)
	defer cancel()
	return c.client.Start(ctx, "", at, t, c.options)
}

// nextTimeline follows the source from timeline t to the next.
func (r *Relay) nextTimeline(ctx context.Context, c *candidate, t wal.Timeline, next wal.Position) error {
	if next.Timeline <= t {
		return fmt.Errorf("relay: timeline %s is said to follow %s", next.Timeline, t)
	}
	bounded, cancel := context.WithTimeout(ctx, r.cfg.SourceTimeout)
	defer cancel()
	file, err := c.client.History(bounded, next.Timeline)
	if err != nil {
		return err
	}
	b := *r.branch.Load()
	if err := b.read(next.Timeline, file); err != nil {
		return err
	}
	if got := b.after(t); got != next {
		return fmt.Errorf("relay: timeline %s is said to end at %s, and the history of %s has %s", t, next, next.Timeline, got)
	}
	if head := r.buffer.Head(); head < next.LSN {
		return fmt.Errorf("relay: timeline %s is said to end at %s, and was received up to %s", t, next.LSN, head)
	}
	r.log.InfoContext(ctx, "the timeline ends", "timeline", t, "at", next.LSN, "next", next.Timeline)
	return r.advance(&b, next.LSN)
}
