package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
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

// follow keeps the buffer filled until ctx ends. It returns an error only for
// what trying again cannot mend.
func (r *Relay) follow(ctx context.Context) error {
	backoff := minBackoff
	for ctx.Err() == nil {
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
		}
		r.log.WarnContext(ctx, "the source is lost", "from", r.source.Load().addr, "error", err)
		r.setSourceState(nil, err)
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
	if isUndefinedFile(err) {
		r.removed = r.buffer.Head()
	}
	if cause := context.Cause(ctx); cause != nil && parent.Err() == nil {
		return cause
	}
	return err
}

const (
	// watchStandby is how often the other candidates are looked at while a standby
	// is followed. It may be one that stands behind this relay, and waits for
	// it in vain.
	watchStandby = 500 * time.Millisecond
	// watchPrimary is how often while a primary is: it may be one that was left
	// behind and does not know it.
	watchPrimary = 2 * time.Second
)

// watchOthers ends following the chosen source when another candidate is
// better: on a newer timeline, or the primary where the chosen is none.
func (r *Relay) watchOthers(ctx context.Context, chosen *candidate, cancel context.CancelCauseFunc) {
	sources := *r.sources.Load()
	if len(sources) < 2 {
		return
	}
	every := watchPrimary
	if chosen.id.InRecovery {
		every = watchStandby
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, cfg := range sources {
			if addr(cfg) == addr(chosen.cfg) || !r.isBetter(ctx, cfg, chosen) {
				continue
			}
			r.log.InfoContext(ctx, "another source is better", "from", addr(cfg), "was", addr(chosen.cfg))
			cancel(errSourceChanged)
			return
		}
	}
}

// isBetter reports whether the source answers, and should be followed in place
// of the chosen one.
func (r *Relay) isBetter(ctx context.Context, cfg *pgconn.Config, chosen *candidate) bool {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.SourceTimeout)
	defer cancel()
	c, err := r.ask(ctx, cfg)
	if err != nil {
		return false
	}
	c.client.Close() //nolint:errcheck // it was only asked
	now := r.branch.Load().timeline()
	return c.id.Timeline > now || c.id.Timeline == now && chosen.id.InRecovery && !c.id.InRecovery
}

// A candidate is a source that answers.
type candidate struct {
	cfg     *pgconn.Config
	client  *replication.Client
	id      replication.Identity
	rank    int // its place in the configuration
	options string
}

func (c *candidate) isRelay() bool { return c.options != "" }

// choose connects to all sources and returns the best: on the highest timeline,
// then the primary, then the first.
func (r *Relay) choose(ctx context.Context) (*candidate, error) {
	// What was changed until now is taken notice of here.
	select {
	case <-r.resume:
	default:
	}
	sources := *r.sources.Load()
	ctx, cancel := context.WithTimeout(ctx, r.cfg.SourceTimeout)
	defer cancel()
	found := make([]*candidate, len(sources))
	errs := make([]error, len(sources))
	var asking sync.WaitGroup
	for i, cfg := range sources {
		asking.Go(func() {
			found[i], errs[i] = r.ask(ctx, cfg)
			if errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", addr(cfg), errs[i])
				return
			}
			found[i].rank = i
		})
	}
	asking.Wait()
	found = slices.DeleteFunc(found, func(c *candidate) bool { return c == nil })
	if len(found) == 0 {
		return nil, errors.Join(errs...)
	}
	slices.SortFunc(found, func(a, b *candidate) int {
		standby := func(c *candidate) int {
			if c.id.InRecovery {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(b.id.Timeline, a.id.Timeline), cmp.Compare(standby(a), standby(b)), cmp.Compare(a.rank, b.rank))
	})
	for _, other := range found[1:] {
		other.client.Close() //nolint:errcheck // not wanted
	}
	return found[0], nil
}

// ask connects to one source, and refuses it if its WAL cannot follow what is
// here.
func (r *Relay) ask(ctx context.Context, cfg *pgconn.Config) (_ *candidate, err error) {
	cfg = cfg.Copy()
	client, id, err := r.dial(ctx, cfg, "")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			client.Close() //nolint:errcheck // see err
		}
	}()
	c := &candidate{cfg: cfg, client: client, id: id, options: frameOptions(id, r.cfg.Compression)}
	if have := r.branch.Load(); have != nil {
		switch {
		case id.Timeline < have.timeline():
			return nil, fmt.Errorf("relay: it is on timeline %s, and %s has been relayed: a primary that was left behind", id.Timeline, have.timeline())
		case id.SegmentSize != have.identity.SegmentSize:
			return nil, fmt.Errorf("relay: its WAL segments have %d bytes, and those that are relayed %d", id.SegmentSize, have.identity.SegmentSize)
		}
	}
	return c, nil
}

// dial connects to a source as the relay's name with suffix, and refuses it if it
// is of another cluster than what is relayed. The name is set in cfg, which is the
// caller's own.
func (r *Relay) dial(ctx context.Context, cfg *pgconn.Config, suffix string) (*replication.Client, replication.Identity, error) {
	cfg.RuntimeParams["application_name"] = r.cfg.Name + suffix
	client, err := replication.Connect(ctx, cfg)
	if err != nil {
		return nil, replication.Identity{}, err
	}
	id, err := client.Identify(ctx)
	if have := r.branch.Load(); err == nil && have != nil && id.System != have.identity.System {
		err = fmt.Errorf("relay: its system identifier is %s, and what is relayed is %s: another cluster", id.System, have.identity.System)
	}
	if err != nil {
		client.Close() //nolint:errcheck // see err
		return nil, replication.Identity{}, err
	}
	return client, id, nil
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

// isUndefinedFile reports whether the server said that it has no such file: the
// first timeline of a cluster that was made by pg_resetwal or pg_upgrade has a
// number and no history.
func isUndefinedFile(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == "58P01"
}

// fetchHistories gets the history files of the branch's timelines that are not
// here: a standby on an old one asks for each up to the last.
func (r *Relay) fetchHistories(ctx context.Context, client *replication.Client, b *branch) {
	if have := r.branch.Load(); have != nil {
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
				return err
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

// A receiver is one stream from the source into the buffer.
type receiver struct {
	r      *Relay
	c      *candidate
	frames frameReader
	reply  chan struct{} // holds one: the source wants an answer at once
	// heard is when the source last said anything, in nanoseconds.
	heard atomic.Int64
	asked int         // questions of the source without WAL between them
	first time.Time   // the first of these
	leave atomic.Bool // the source is shutting down
}

// receive takes one timeline's WAL until it ends, and returns the next.
func (r *Relay) receive(ctx context.Context, c *candidate) (wal.Position, error) {
	in := &receiver{r: r, c: c, reply: make(chan struct{}, 1)}
	in.heard.Store(time.Now().UnixNano())
	telling, stop := context.WithCancel(ctx)
	defer stop()
	r.replicator.report(c.isRelay())
	var answering sync.WaitGroup
	defer answering.Wait()
	defer stop()
	answering.Go(func() { in.answer(telling) })
	next, err := in.run()
	if in.leave.Load() && err != nil {
		return next, fmt.Errorf("relay: the source shuts down, and what it waits for is not confirmed: %w", err)
	}
	return next, err
}

// run reads events.
func (in *receiver) run() (wal.Position, error) {
	client := in.c.client
	for {
		e, err := client.Next()
		if err != nil {
			return wal.Position{}, err
		}
		now := time.Now()
		in.heard.Store(now.UnixNano())
		switch e.Kind {
		case replication.KindData:
			err = in.take(e.Start, e.Size, client, now)
		case kindFrame:
			err = in.takeFrame(e.Size, now)
		case replication.KindKeepalive:
			if e.Reply {
				in.question(now)
			}
		case replication.KindEnd:
			return e.Next, nil
		}
		if err != nil {
			return wal.Position{}, err
		}
	}
}

// take puts WAL that the source sends next into the buffer.
func (in *receiver) take(at wal.LSN, size int, from io.Reader, now time.Time) error {
	if size == 0 {
		return nil
	}
	err := in.r.buffer.AppendFrom(at, size, func(p []byte) error {
		_, err := io.ReadFull(from, p)
		in.heard.Store(time.Now().UnixNano()) // a message may take its time on a slow link
		return err
	})
	if err == nil {
		in.arrived(at+wal.LSN(size), now) //nolint:gosec // positive
	}
	return err
}

// arrived notes that there is WAL up to at. A source that goes on is not
// shutting down, however often it has asked.
func (in *receiver) arrived(at wal.LSN, now time.Time) {
	in.asked = 0
	in.leave.Store(false)
	in.r.replicator.arrived(at, now)
}

func (in *receiver) takeFrame(size int, now time.Time) error {
	f, err := in.frames.begin(in.c.client, size)
	if err != nil {
		return err
	}
	if t := in.r.branch.Load().timeline(); f.timeline != t {
		return fmt.Errorf("relay: a frame of timeline %s in the stream of %s", f.timeline, t)
	}
	if err := in.frames.appendTo(in.r.buffer, in.c.client, f); err != nil {
		return err
	}
	in.arrived(f.start+wal.LSN(f.length), now) //nolint:gosec // at most maxFrame
	return nil
}

// shutdownQuestions in a second, with no WAL between them, are what a walsender
// does that waits to be allowed to stop: it asks again as soon as it is
// answered (WalSndDone). In all other cases it asks once in half of
// wal_sender_timeout.
const shutdownQuestions = 3

// question is the source asking for an answer.
func (in *receiver) question(now time.Time) {
	if in.asked == 0 || now.Sub(in.first) > time.Second {
		in.asked, in.first = 0, now
	}
	in.asked++
	if in.asked >= shutdownQuestions {
		in.leave.Store(true)
	}
	select {
	case in.reply <- struct{}{}:
	default:
	}
}

// answer tells the source how far the relay is: at once when that changes or it
// asks, and each second.
func (in *receiver) answer(ctx context.Context) {
	tick := time.NewTicker(min(time.Second, in.r.cfg.SourceTimeout/3))
	defer tick.Stop()
	var told told
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-in.r.replicator.kick:
		case <-in.reply:
			asked = true
		case <-tick.C:
			if in.silentFor() > in.r.cfg.SourceTimeout {
				in.r.log.WarnContext(ctx, "the source is silent", "from", addr(in.c.cfg), "for", in.silentFor().Round(time.Millisecond))
				in.c.client.Close() //nolint:errcheck // ends the read
				return
			}
		}
		if in.leave.Load() && !in.farewell(ctx) {
			return
		}
		if err := in.tell(&told, asked); err != nil {
			in.c.client.Close() //nolint:errcheck // ends the read
			return
		}
	}
}

func (in *receiver) silentFor() time.Duration {
	return time.Duration(time.Now().UnixNano() - in.heard.Load())
}

// told is what the source knows.
type told struct {
	feedback  replication.Feedback
	positions []byte
}

// tell sends what there is to tell.
func (in *receiver) tell(old *told, asked bool) error {
	r, client := in.r, in.c.client
	c := r.replicator.Confirmed()
	if r.cfg.Gate != nil {
		c = r.cfg.Gate(c)
	}
	if in.c.isRelay() {
		now := encodePositions(r.replicator.positions())
		if !slices.Equal(now, old.positions) {
			if err := client.SendCopy(kindPositions, now); err != nil {
				return err
			}
			old.positions = now
		}
	}
	// An idle primary says nothing of itself for half a minute.
	ping := !asked && in.silentFor() > in.r.cfg.SourceTimeout/4
	status := replication.Status{Write: c.Write, Flush: c.Flush, Apply: c.Apply, SentAt: time.Now(), Reply: ping}
	if err := client.SendStatus(status); err != nil {
		return err
	}
	f := r.replicator.Feedback()
	if f != old.feedback {
		old.feedback = f
		f.SentAt = status.SentAt
		return client.SendFeedback(f)
	}
	return nil
}

// farewell lets the source wait for what the policy withholds, for a while, and
// reports whether it may wait longer. Its questions come as fast as they are
// answered: they are not.
func (in *receiver) farewell(ctx context.Context) bool {
	r := in.r
	head := r.buffer.Head()
	done := func() bool {
		c := r.replicator.Confirmed()
		if r.cfg.Gate != nil {
			c = r.cfg.Gate(c)
		}
		// What is not told as flushed counts as written (WalSndDone).
		return c.Flush == head || c.Flush == 0 && c.Write == head
	}
	if done() {
		return true
	}
	grace := r.cfg.ShutdownGrace
	if r.cfg.Acknowledge.Mode == ConfirmNothing {
		grace = 0 // nobody will ever confirm
	}
	wait := time.NewTimer(grace)
	defer wait.Stop()
	for !done() && in.leave.Load() {
		select {
		case <-ctx.Done():
			return false
		case <-r.replicator.kick:
			continue
		case <-wait.C:
		}
		if !in.leave.Load() {
			break
		}
		level := slog.LevelWarn
		if grace == 0 {
			level = slog.LevelInfo // it is the way it always goes
		}
		r.log.Log(ctx, level, "the source shuts down, and is not kept from it any longer", "from", addr(in.c.cfg), "unconfirmed", head)
		in.c.client.Close() //nolint:errcheck // ends the read
		return false
	}
	return true
}

// report says whether the source, which knows nothing yet, is to hear of every
// subscriber.
func (r *Replicator) report(all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tells = all
	r.kickSource()
}
