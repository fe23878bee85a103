package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/replication"
)

const (
	// watchStandby is how often the other candidates are looked at while a standby
	// is followed, which may be one that stands behind this relay, and waits for
	// it in vain; or while there are some that are wanted more.
	watchStandby = 500 * time.Millisecond
	// watchPrimary is how often while a primary is: it may be one that was left
	// behind and does not know it.
	watchPrimary = 2 * time.Second
)

// watchOthers ends following the chosen source when another candidate is
// better: on a newer timeline, or the primary where the chosen is none, or a
// relay that is named before it: only a relay hears of the standbys behind this
// one.
func (r *Relay) watchOthers(ctx context.Context, chosen *candidate, cancel context.CancelCauseFunc) {
	sources := *r.sources.Load()
	appointed := r.cfg.SourceLater && chosen.rank == 0 && !chosen.id.InRecovery
	if len(sources) < 2 || appointed { // whoever names them later names others when there is another primary
		return
	}
	every := watchPrimary
	if chosen.id.InRecovery || chosen.rank > 0 {
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
		for rank, cfg := range sources {
			if addr(cfg) == addr(chosen.cfg) || !r.isBetter(ctx, cfg, rank, chosen) {
				continue
			}
			r.log.InfoContext(ctx, "another source is better", "from", addr(cfg), "was", addr(chosen.cfg))
			delete(r.doubted, addr(cfg)) // follow does not look at it meanwhile
			cancel(errSourceChanged)
			return
		}
	}
}

// isBetter reports whether the source answers, and should be followed in place
// of the chosen one.
func (r *Relay) isBetter(ctx context.Context, cfg *pgconn.Config, rank int, chosen *candidate) bool {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.SourceTimeout)
	defer cancel()
	c, err := r.ask(ctx, cfg)
	if err != nil {
		return false
	}
	c.client.Close() //nolint:errcheck // it was only asked
	now := r.branch.Load().timeline()
	wanted := c.isRelay() && !chosen.isRelay() && rank < chosen.rank
	switch {
	case c.id.Timeline != now:
		return c.id.Timeline > now
	case chosen.id.InRecovery:
		return !c.id.InRecovery || wanted
	default:
		return !c.id.InRecovery && wanted
	}
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

// chooseGrace is how long sources that may not answer at all are waited for when
// there is one that will do.
const chooseGrace = 200 * time.Millisecond

// An answer is what became of asking a source.
type answer struct {
	rank int
	c    *candidate // nil if there is err
	err  error
}

// choose connects to all sources and returns the best: on the highest timeline,
// then the primary, then the first. The source that has just been lost, and who
// did not answer the last time, is not waited for longer than chooseGrace once
// there is one on the timeline that is relayed: a host that is gone from the
// network would hold up every failover. If it comes late and is better,
// watchOthers finds it, and it is waited for then.
func (r *Relay) choose(parent context.Context) (*candidate, error) {
	// What was changed until now is taken notice of here.
	select {
	case <-r.resume:
	default:
	}
	sources := *r.sources.Load()
	if len(sources) == 0 {
		return nil, errNoSource
	}
	ctx, cancel := context.WithTimeout(parent, r.cfg.SourceTimeout)
	defer cancel()
	answers := make(chan answer, len(sources))
	var asking sync.WaitGroup
	for i, cfg := range sources {
		asking.Go(func() { answers <- r.asked(ctx, cfg, i) })
	}
	all := r.await(sources, answers)
	cancel()
	asking.Wait()
	close(answers)
	for late := range answers {
		all = append(all, late)
	}
	r.doubtAfter(sources, all)
	return best(all)
}

// asked asks one source.
func (r *Relay) asked(ctx context.Context, cfg *pgconn.Config, rank int) answer {
	c, err := r.ask(ctx, cfg)
	if err != nil {
		return answer{rank: rank, err: fmt.Errorf("%s: %w", addr(cfg), err)}
	}
	c.rank = rank
	return answer{rank: rank, c: c}
}

// await returns the answers that are worth waiting for.
func (r *Relay) await(sources []*pgconn.Config, answers <-chan answer) []answer {
	waiting := 0 // for sources that will answer
	for _, cfg := range sources {
		if !r.doubted[addr(cfg)] {
			waiting++
		}
	}
	var all []answer
	var grace <-chan time.Time
	found := false // one that will do
	for len(all) < len(sources) {
		if found && waiting == 0 && grace == nil {
			timer := time.NewTimer(chooseGrace)
			defer timer.Stop()
			grace = timer.C
		}
		select {
		case a := <-answers:
			all = append(all, a)
			if !r.doubted[addr(sources[a.rank])] {
				waiting--
			}
			have := r.branch.Load()
			found = found || a.c != nil && have != nil && a.c.id.Timeline >= have.timeline()
		case <-grace:
			return all
		}
	}
	return all
}

// doubtAfter notes who did not answer in time.
func (r *Relay) doubtAfter(sources []*pgconn.Config, all []answer) {
	r.doubted = make(map[string]bool)
	for _, a := range all {
		timeout, ok := errors.AsType[net.Error](a.err)
		late := ok && timeout.Timeout() || errors.Is(a.err, context.DeadlineExceeded) || errors.Is(a.err, context.Canceled)
		if late {
			r.doubted[addr(sources[a.rank])] = true
		}
	}
}

// best returns the best candidate and lets go of the others.
func best(all []answer) (*candidate, error) {
	var found []*candidate
	errs := make([]error, len(all))
	for _, a := range all {
		if a.c != nil {
			found = append(found, a.c)
		}
		errs[a.rank] = a.err
	}
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
	if have := r.branch.Load(); have != nil && !r.forgets.Load() {
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
	client, err := replication.Connect(ctx, impatiently(cfg))
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
