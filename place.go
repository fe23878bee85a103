package helios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/heliosdb/helios/router"
	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

// place is where a statement goes and why: the outcome of decide, which is the
// one function that chooses a node.
type place struct {
	node    *node
	replica bool    // node was chosen as one of the replicas
	check   bool    // the node must prove in front of the read that it has replayed want
	want    wal.LSN // position the read must see; 0 for any
	learn   uint64  // how many writes of unknown position the read on the primary learns about; 0 for none
	relaxed bool    // those writes may have been committed without waiting for their flush
	reason  string  // for people
}

// tries is what earlier attempts at the same statement have found out.
type tries struct {
	tried     []*node // replicas that failed or were behind
	behind    int     // replicas that had not replayed enough
	toPrimary bool    // a replica refused the statement, or cannot answer it
	repeated  int     // times the statement was sent again to the node it came from
	unfenced  int     // refusals as read-only by a primary that took writes when it was asked
	attempts  int
	resent    int       // times it was sent again after it had been sent
	stalls    int       // waits in a row because the node took no connection
	deadline  time.Time // when waiting for a node ends; zero until somebody waits
	last      error     // what the last attempt failed with
}

// maxBehind is how many replicas are asked for a position before the read goes
// to the primary.
const maxBehind = 2

// errStillBehind says that replicas answer but none has replayed enough yet.
var errStillBehind = errors.New("no replica has replayed what the session has seen")

// errBlind says that the session wrote, and that nobody knows how far.
var errBlind = errors.New("the position of the session's last write is not known yet")

// Why no replica may answer a read. They are made once: a read that goes on to
// the primary shall not pay for words that nobody hears.
var (
	errNobody      = unsent("", fmt.Errorf("%w that is up, or that suits", ErrNoReplica))
	errAllBehind   = unsent("", fmt.Errorf("%w: %w", ErrNoReplica, errStillBehind))
	errOffTimeline = unsent("", fmt.Errorf("%w that is known to be on the primary's timeline", ErrNoReplica))
	errNoBeginning = unsent("", fmt.Errorf("%w: where the newest timeline began is not known", ErrNoReplica))
	errNoPosition  = unsent("", fmt.Errorf("%w: %w", ErrNoReplica, errBlind))
	errNoBound     = unsent("", fmt.Errorf("%w: where the primary stood that long ago is not known", ErrNoReplica))
)

// whyPrimary returns what such an error says, as a reason for the primary.
func whyPrimary(err error) string {
	switch {
	case errors.Is(err, errStillBehind):
		return errStillBehind.Error()
	case errors.Is(err, errBlind):
		return errBlind.Error()
	default:
		return "no replica may answer it"
	}
}

// errHeld says that a write has to wait although a node would take it.
var errHeld = errors.New("companions have writes wait for a change of the primary")

// errAhead says that even the primary this process knows may lack what the
// session has seen.
var errAhead = errors.New("the session has seen a newer timeline than any node has shown yet")

// decide says where q goes by what is known at this moment: hint, then class of
// the statement, then the consistency that is wanted, then the candidates, then
// the balancer. Transactions and pinned sessions never come here: they have
// their connection.
//
// An error that wraps ErrNoPrimary, ErrNoReplica or ErrSplitBrain may go away by
// waiting.
func (c *Cluster) decide(r *routes, q *query, t *tries) (place, error) {
	if q.wish.node != "" {
		return c.decideNode(r, q.wish.node)
	}
	if q.level.kind != levelEventual && q.session.ahead(r.view) {
		return place{}, unsent("", fmt.Errorf("%w: the session has seen a newer timeline than %s", ErrNoPrimary, r.view.Timeline))
	}
	if q.counts { // on the primary as well: it may be another one
		if _, verdict, err := c.want(r, q); verdict == wal.Lost {
			return place{}, err
		}
	}
	why, primary := c.needsPrimary(q, t)
	if !primary {
		p, err := c.decideReplica(r, q, t)
		if err == nil || errors.Is(err, ErrWriteLost) || errors.Is(err, errAhead) {
			return p, err
		}
		if c.config.replicasOnly() || c.config.ReplicaFallback == FallbackError {
			return place{}, err
		}
		why = whyPrimary(err)
	}
	return c.decidePrimary(r, q, why)
}

// needsPrimary says whether only the primary will do for q, and why.
func (c *Cluster) needsPrimary(q *query, t *tries) (string, bool) {
	switch {
	case c.config.replicasOnly():
		return "", false
	case c.config.primaryOnly():
		return "target_session_attrs asks for a server that takes writes", true
	case t.toPrimary:
		return "a replica could not answer it", true
	case q.hint() == router.HintPrimary:
		return "hint", true
	case q.readOnlyTx:
		return "consistency strong", q.level.kind == levelStrong
	case q.writingTx:
		return "a transaction that may write", true
	case q.hint() == router.HintReplica && q.stmt.Class <= router.Write:
		return "", false
	case q.stmt.Class != router.Read:
		return q.stmt.Reason, true
	case q.learned:
		return "a replica has refused this text before", true
	case q.level.kind == levelStrong:
		return "consistency strong", true
	default:
		return "", false
	}
}

// decideNode sends a statement to the node its caller has named.
func (c *Cluster) decideNode(r *routes, name string) (place, error) {
	n := r.byName[name]
	if n == nil {
		return place{}, unsent("", fmt.Errorf("no node is called %q: %s", name, r.describe()))
	}
	v := nodeIn(r.view, n.name)
	if v != nil && v.State == topology.StateRefused {
		return place{}, unsent(n.name, errors.New(v.Reason))
	}
	return place{node: n, reason: "the caller named this node"}, nil
}

// decidePrimary sends a statement to the primary.
func (c *Cluster) decidePrimary(r *routes, q *query, why string) (place, error) {
	switch {
	case r.view.Split:
		return place{}, unsent("", fmt.Errorf("%w: stop one, make it a standby, or take it out with Cluster.RemoveReplica: %s", ErrSplitBrain, r.describe()))
	case r.primary == nil && r.fenced != nil && !q.begins(r.view.Told.Hold) && q.level.kind != levelStrong:
		return place{node: r.fenced, reason: why + "; it takes no writes"}, nil
	case r.primary == nil && r.view.Told.Hold:
		return place{}, unsent("", fmt.Errorf("%w: %w, in epoch %d: %s", ErrNoPrimary, errHeld, r.view.Told.Epoch, r.describe()))
	case r.primary == nil:
		return place{}, unsent("", fmt.Errorf("%w: %s", ErrNoPrimary, r.describe()))
	case q.writes() && c.config.MinReplicas > 0:
		if n := c.healthy(r); n < c.config.MinReplicas {
			return place{}, unsent("", fmt.Errorf("%w: %d healthy where min_replicas asks for %d", ErrNoReplica, n, c.config.MinReplicas))
		}
	}
	p := place{node: r.primary, reason: why}
	if !q.writes() {
		if n, blind := q.session.blind(); blind {
			p.learn, p.relaxed = n, q.session.unsure()
		}
	}
	return p, nil
}

// healthy returns how many replicas are up and within max_lag.
func (c *Cluster) healthy(r *routes) int {
	if c.config.MaxLag == 0 {
		return len(r.replicas)
	}
	n := 0
	for _, load := range r.loads {
		if lag, known := load.Lag(); known && lag <= c.config.MaxLag {
			n++
		}
	}
	return n
}

// decideReplica chooses a replica for a read.
func (c *Cluster) decideReplica(r *routes, q *query, t *tries) (place, error) {
	switch q.level.kind {
	case levelEventual:
		return c.pick(r, r.replicas, r.loads, place{reason: "read"}, q, t)
	case levelBounded:
		lsn, known := c.board.PrimaryAt(c.now().Add(-q.level.bound))
		if !known {
			return place{}, errNoBound
		}
		return c.pickFresh(r, place{want: lsn, reason: "bounded read"}, q, t)
	case levelSession, levelStrong:
	}
	if _, blind := q.session.blind(); blind && (r.primary != nil || r.fenced != nil || q.session.mustLearn()) {
		return place{}, errNoPosition
	}
	if q.session.ahead(r.view) {
		c.prober.Kick("")
		return place{}, unsent("", fmt.Errorf("%w: %w", ErrNoPrimary, errAhead))
	}
	lsn, verdict, err := c.want(r, q)
	switch verdict {
	case wal.Lost:
		return place{}, err
	case wal.Undecided:
		return place{}, errNoBeginning
	case wal.Kept:
	}
	return c.pickFresh(r, place{want: lsn, reason: "session read"}, q, t)
}

// want returns the position that q must see, and an error if what its session has
// seen is lost.
func (c *Cluster) want(r *routes, q *query) (wal.LSN, wal.Verdict, error) {
	lsn, verdict, lost := q.session.wants(r.view)
	if verdict != wal.Lost {
		return lsn, verdict, nil
	}
	c.counts.writesLost.Add(1)
	return lsn, verdict, unsent("", lost.error())
}

// pickFresh chooses a replica that sees p.want: one that is known to, else one
// that is made to prove it.
func (c *Cluster) pickFresh(r *routes, p place, q *query, t *tries) (place, error) {
	if p.want == 0 && q.counts && len(r.current) > 0 { // what others show is on nobody knows which timeline
		return c.pick(r, r.current, r.currents, p, q, t)
	}
	if p.want == 0 {
		return c.pick(r, r.replicas, r.loads, p, q, t)
	}
	if found, err := c.pick(r, r.current, r.currents, p, q, t); err == nil {
		return found, nil
	}
	if len(r.current) == 0 {
		return place{}, errOffTimeline
	}
	if t.behind < maxBehind {
		p.check = true
		if found, err := c.pick(r, r.current, r.currents, p, q, t); err == nil {
			return found, nil
		}
	}
	return place{}, errAllBehind
}

// pick has the balancer choose among candidates.
func (c *Cluster) pick(r *routes, nodes []*node, loads []*router.Backend, p place, q *query, t *tries) (place, error) {
	need := router.Need{Zone: c.config.Zone, MaxLag: c.config.MaxLag, Now: c.rampClock(), MaxWeight: r.heaviest}
	if len(t.tried) > 0 || p.check {
		c.exclude(nodes, &need, p, t)
	}
	if !p.check {
		need.Replayed = p.want
	}
	i := c.config.Balance.Pick(loads, &need, q.seed)
	if i < 0 {
		return place{}, errNobody
	}
	p.node, p.replica = nodes[i], true
	return p, nil
}

// exclude rules out nodes that this statement has tried, and such as have just
// failed the proof that it asks for.
func (c *Cluster) exclude(nodes []*node, need *router.Need, p place, t *tries) {
	now := int64(0) // the clock is not read for nothing
	for i, n := range nodes {
		spared := int64(0)
		if p.check {
			spared = n.spared.Load()
		}
		if spared != 0 && now == 0 {
			now = c.now().UnixNano()
		}
		if spared > now || slices.Contains(t.tried, n) {
			need.Tried.Add(i)
		}
	}
}

// readClockUntil has the balancer look at the time until then.
func (c *Cluster) readClockUntil(until int64) {
	for old := c.rampUntil.Load(); old < until; old = c.rampUntil.Load() {
		if c.rampUntil.CompareAndSwap(old, until) {
			return
		}
	}
}

// rampClock returns the time for the balancer: 0, at which nobody is in its slow
// start or held off, unless a node has come back, or had no room, not long ago.
func (c *Cluster) rampClock() int64 {
	until := c.rampUntil.Load()
	if until == 0 {
		return 0
	}
	now := c.now().UnixNano()
	if now > until {
		c.rampUntil.CompareAndSwap(until, 0)
	}
	return now
}

// describe says in one line what the nodes are, for an error.
func (r *routes) describe() string {
	texts := make([]string, len(r.view.Nodes))
	for i := range r.view.Nodes {
		v := &r.view.Nodes[i]
		texts[i] = v.Name + " is " + v.State.String()
		switch n := r.byName[v.Name]; {
		case v.Reason != "":
			texts[i] += " (" + v.Reason + ")"
		case v.State == topology.StateUp:
			texts[i] += " (" + v.Role.String() + ")"
		case n != nil && n.refusal.Load() != nil: // it has no connection left for the prober
			texts[i] += " (" + n.refusal.Load().Error() + ")"
		}
	}
	return strings.Join(texts, "; ")
}

// locate decides where q goes, and waits while there is no node for it, until
// one appears, failover_wait has passed or ctx ends.
func (c *Cluster) locate(ctx context.Context, q *query, t *tries) (place, error) {
	for {
		r := c.routes.Load()
		if !r.view.Settled && c.now().Before(c.known) { // a node not heard of may be the newer primary
			if err := c.waitKnown(ctx, r.replaced); err != nil {
				return place{}, err
			}
			continue
		}
		p, err := c.decide(r, q, t)
		if err == nil {
			return p, nil
		}
		if errors.Is(err, errBlind) && c.learnPosition(ctx, q.session) == nil {
			continue // the read may not use the primary, and need not
		}
		if !c.worthWaiting(err) {
			return place{}, explained(err, r)
		}
		if away := c.turnedAway(r); away != nil {
			return place{}, away
		}
		if err := c.wait(ctx, t, r.replaced, err); err != nil {
			return place{}, explained(err, r)
		}
		t.behind, t.tried = 0, t.tried[:0]
	}
}

// explained adds what the nodes are to an error that says no replica suits.
func explained(err error, r *routes) error {
	if !errors.Is(err, errNobody) && !errors.Is(err, errOffTimeline) {
		return err
	}
	return fmt.Errorf("%w: %s", err, r.describe())
}

// learnPosition asks the primary for a position that covers the writes of the
// session whose own is not known.
func (c *Cluster) learnPosition(ctx context.Context, session *Session) error {
	n := c.routes.Load().primary
	count, _ := session.blind()
	if n == nil || count == session.learned.Load() {
		return errBlind // or somebody is still writing through a connection that was lent
	}
	conn, err := n.pool.Acquire(ctx, nil)
	if err != nil {
		return err
	}
	asked := c.now()
	guard := c.guard(n, conn)
	call := conn.NewCall()
	call.SegmentSize = c.routes.Load().view.Settings.SegmentSize
	call.Committed, call.Relaxed = true, session.unsure()
	if err = conn.Send(ctx); err == nil {
		err = conn.Drain(ctx)
	}
	guard.end()
	n.giveBack(conn, nil)
	if err != nil || call.CommitLSN == 0 {
		return errBlind
	}
	return c.committed(n, session, call, count, asked)
}

// waitKnown waits until something has changed or the cluster counts as known.
// It has no part in failover_wait: probe_timeout bounds it.
func (c *Cluster) waitKnown(ctx context.Context, changed <-chan struct{}) error {
	timer := time.NewTimer(c.known.Sub(c.now()))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return interrupted(ctx, unsent("", fmt.Errorf("%w: not every node has been heard of yet", ErrNoPrimary)))
	case <-c.ended.Done():
		return unsent("", ErrClosed)
	}
	return nil
}

// worthWaiting reports whether err of decide may go away within failover_wait.
// A read that may not use the primary waits for a replica to catch up, but not
// for one to come.
func (c *Cluster) worthWaiting(err error) bool {
	if errors.Is(err, ErrNoReplica) && c.config.ReplicaFallback == FallbackError {
		return errors.Is(err, errStillBehind)
	}
	return errors.Is(err, ErrNoPrimary) || errors.Is(err, ErrNoReplica) || errors.Is(err, ErrSplitBrain)
}

// Waiting for a node polls as well: a replica that catches up, or a connection
// that is taken again, changes no view.
const waitPoll = 5 * time.Millisecond

// wait lets a moment pass. It returns why, when the wait has been long enough.
func (c *Cluster) wait(ctx context.Context, t *tries, changed <-chan struct{}, why error) error {
	now := time.Now()
	if t.deadline.IsZero() {
		t.deadline = now.Add(c.config.FailoverWait)
		c.counts.waits.Add(1)
		c.prober.Kick("") // what is missing may be there, and not known yet
	}
	if !now.Before(t.deadline) {
		if t.last != nil && !errors.Is(why, t.last) {
			return fmt.Errorf("%w (last attempt: %w)", why, t.last)
		}
		return why
	}
	pause := min(waitPoll<<min(t.stalls, 5), t.deadline.Sub(now)) // a node that is full is not pestered
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
		return interrupted(ctx, why)
	case <-c.ended.Done():
		return unsent("", ErrClosed)
	}
	return nil
}
