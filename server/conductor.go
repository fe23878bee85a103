package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/failover/consensus"
	"github.com/heliosdb/helios/server/api"
)

// A Log is what all companions agree on: *consensus.Node.
type Log interface {
	Propose(ctx context.Context, c failover.Command) error
	Verify(ctx context.Context) error
	State() *failover.State
	Watch() (*failover.State, <-chan struct{})
	Leader() (name, addr string)
	Term() uint64
	Leadership() <-chan bool
	Transfer(ctx context.Context, to string) error
}

// callBudget bounds calls whose end nobody waits for.
const callBudget = 2 * time.Second

// A conductor has the engine decide, and does what it says.
type conductor struct {
	self    string
	log     Log
	local   Node
	callers *callers
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	logger  *slog.Logger
	tell    func(s *failover.State, warnings []string, in failover.Input) // is told of everything the engine was told, by one goroutine

	inputs  chan failover.Input
	deposed chan struct{}  // holds one: this companion leads no longer
	doing   sync.WaitGroup // every action under way

	mu      sync.Mutex
	leading bool                                   // guarded by mu
	waiting map[reportKey]chan failover.Assignment // guarded by mu: reports that were not answered yet
	warned  map[string]time.Time                   // guarded by mu: what was said last, and when
}

// A reportKey names one report.
type reportKey struct {
	node     string
	run, seq uint64
}

// run feeds the engine until ctx ends.
func (c *conductor) run(ctx context.Context) error {
	defer c.doing.Wait()
	engine := failover.New(c.self)
	state, changed := c.log.Watch()
	var lead leadership
	defer lead.end()
	parks := &parks{c: c}
	defer parks.close()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var in failover.Input
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case leads := <-c.log.Leadership():
			lead.end()
			c.leads(leads)
			parks.close()
			if !leads {
				select {
				case c.deposed <- struct{}{}:
				default:
				}
				in = failover.Follows{}
				break
			}
			lead.ctx, lead.stop = context.WithCancel(ctx) //nolint:fatcontext // the one before has ended
			state, changed = c.log.Watch()
			in = failover.Leads{Term: c.log.Term(), State: state}
		case <-changed:
			state, changed = c.log.Watch()
			in = failover.Applied{State: state}
		case in = <-c.inputs:
		case <-timer.C:
			in = failover.Tick{}
		}
		now := time.Now()
		actions := engine.Step(now, in)
		if lead.lasts() {
			parks.reconcile(lead.ctx, state)
			for _, a := range actions {
				c.perform(lead.ctx, a)
			}
		}
		if heard, ok := in.(failover.Heard); ok {
			c.unanswered(heard.Report)
		}
		c.tell(state, engine.Warnings(), in)
		timer.Reset(until(engine.Next(), now))
	}
}

// A leadership is what actions live by.
type leadership struct {
	ctx  context.Context //nolint:containedctx // a lifetime, not a call; nil before the first one
	stop context.CancelFunc
}

func (l *leadership) end() {
	if l.stop != nil {
		l.stop()
	}
}

func (l *leadership) lasts() bool { return l.ctx != nil && l.ctx.Err() == nil }

// until is how long to wait for at; an hour if it is never.
func until(at, now time.Time) time.Duration {
	if at.IsZero() {
		return time.Hour
	}
	return max(0, at.Sub(now))
}

// leads notes whether this companion leads. Who waits for an answer of a
// leader that is none any more is turned away.
func (c *conductor) leads(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leading = yes
	if !yes {
		for key, answer := range c.waiting {
			close(answer)
			delete(c.waiting, key)
		}
	}
}

// isLeading reports whether this companion leads the log.
func (c *conductor) isLeading() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leading
}

// give hands the engine an input.
func (c *conductor) give(ctx context.Context, in failover.Input) {
	select {
	case c.inputs <- in:
	case <-ctx.Done():
	}
}

// report hands the engine a node's report, and returns its assignment. A lease is
// at stake: that this companion leads is verified after the report has come.
func (c *conductor) report(ctx context.Context, r failover.Report) (failover.Assignment, error) {
	if !c.isLeading() {
		return failover.Assignment{}, c.notLeader()
	}
	if r.WantsLease {
		if err := c.log.Verify(ctx); err != nil {
			return failover.Assignment{}, c.notLeader()
		}
	}
	key := reportKey{r.Node, r.Run, r.Seq}
	answer := make(chan failover.Assignment, 1)
	c.mu.Lock()
	c.waiting[key] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, key)
		c.mu.Unlock()
	}()
	c.give(ctx, failover.Heard{Report: r})
	select {
	case as, ok := <-answer:
		if !ok {
			return as, c.notLeader()
		}
		return as, nil
	case <-ctx.Done():
		return failover.Assignment{}, context.Cause(ctx)
	}
}

// unanswered turns away a report that the engine had no assignment for.
func (c *conductor) unanswered(r failover.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := reportKey{r.Node, r.Run, r.Seq}
	if answer := c.waiting[key]; answer != nil && len(answer) == 0 {
		close(answer)
		delete(c.waiting, key)
	}
}

// notLeader is the error of a call that only the leader can do.
func (c *conductor) notLeader() error {
	name, addr := c.log.Leader()
	if name == "" || name == c.self {
		return &api.Error{Code: api.CodeNotLeader, Message: "there is no leader at the moment", Hint: "more than half of the voters must be up and see each other"}
	}
	return &api.Error{Code: api.CodeNotLeader, Message: "the leader is " + name, Leader: addr}
}

// perform begins an action.
func (c *conductor) perform(ctx context.Context, a failover.Action) {
	c.narrate(ctx, a)
	switch a := a.(type) {
	case failover.Propose:
		c.doing.Go(func() { c.propose(ctx, a.Command) })
	case failover.Assign:
		c.assign(ctx, a.Assignment)
	case failover.Probe:
		c.doing.Go(func() { c.give(ctx, c.probe(ctx, a)) })
	case failover.Seal:
		c.doing.Go(func() { c.give(ctx, c.seal(ctx, a)) })
	case failover.Prepare:
		c.doing.Go(func() { c.give(ctx, c.prepare(ctx, a)) })
	case failover.Stop:
		c.doing.Go(func() { c.give(ctx, c.stop(ctx, a)) })
	case failover.Promote:
		c.doing.Go(func() { c.give(ctx, c.promote(ctx, a)) })
	case failover.Transfer:
		c.doing.Go(func() { c.transfer(ctx, a.To) })
	case failover.Warn:
		c.warn(ctx, a.Text)
	default:
		panic(fmt.Sprintf("server: action %T", a))
	}
}

// propose commits a command. Where it cannot be known whether it was, it is
// proposed again: what a command says is good for one epoch, so that it counts once.
func (c *conductor) propose(ctx context.Context, cmd failover.Command) {
	cmd.At = time.Now()
	for ctx.Err() == nil {
		err := c.log.Propose(ctx, cmd)
		if err == nil {
			return
		}
		if why, ok := errors.AsType[*consensus.RefusedError](err); ok {
			c.give(ctx, failover.Refused{Command: cmd, Err: why.Error()})
			return
		}
		c.logger.DebugContext(ctx, "a command was not committed yet", "error", err)
		pause(ctx, 20*time.Millisecond)
	}
}

// assign answers the report that the assignment belongs to, or sends it unasked.
func (c *conductor) assign(ctx context.Context, as failover.Assignment) {
	c.mu.Lock()
	key := reportKey{as.Node, as.Run, as.Seq}
	answer := c.waiting[key]
	delete(c.waiting, key)
	c.mu.Unlock()
	if answer != nil {
		answer <- as
		return
	}
	if as.Node == c.self {
		c.local.Assign(as, 0)
		return
	}
	as.Lease = 0 // counted from a request, and there is none
	c.doing.Go(func() {
		if err := c.ask(ctx, callBudget, as.Node, pathAssign, as, &empty{}); err != nil && ctx.Err() == nil {
			c.logger.DebugContext(ctx, "an assignment did not arrive", "node", as.Node, "error", err)
		}
	})
}

// ask calls the companion of a member.
func (c *conductor) ask(ctx context.Context, budget time.Duration, node, path string, in, out any) error {
	m, ok := c.log.State().Member(node)
	if !ok {
		return fmt.Errorf("%s is no member", node)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, budget, fmt.Errorf("no answer within %v", budget))
	defer cancel()
	return c.callers.call(ctx, m.Companion, path, in, out)
}

func (c *conductor) probe(ctx context.Context, p failover.Probe) failover.Observed {
	m, _ := c.log.State().Member(p.Node)
	call := observeCall{Node: p.Node, Round: p.Round, Companion: m.Companion, Postgres: m.Postgres}
	if p.By == c.self {
		return observe(ctx, c.dial, c.self, call)
	}
	var seen failover.Observed
	if err := c.ask(ctx, dialBudget+100*time.Millisecond, p.By, pathObserve, call, &seen); err != nil {
		return failover.Observed{Node: p.Node, Round: p.Round, By: p.By, Companion: failover.DialledSilent, Postgres: failover.DialledSilent}
	}
	return seen
}

// dialBudget is how long a port may take to answer before it counts as silent.
const dialBudget = 200 * time.Millisecond

// observe dials both ports of a node.
func observe(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), by string, call observeCall) failover.Observed {
	seen := failover.Observed{Node: call.Node, Round: call.Round, By: by}
	var both sync.WaitGroup
	both.Go(func() { seen.Companion = dialled(ctx, dial, call.Companion) })
	both.Go(func() { seen.Postgres = dialled(ctx, dial, call.Postgres) })
	both.Wait()
	return seen
}

func dialled(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), addr string) failover.Dialled {
	if addr == "" {
		return failover.DialledRefused
	}
	ctx, cancel := context.WithTimeout(ctx, dialBudget)
	defer cancel()
	conn, err := dial(ctx, "tcp", addr)
	switch {
	case err == nil:
		conn.Close() //nolint:errcheck // it was only to be opened
		return failover.DialledOpen
	case errors.Is(err, syscall.ECONNREFUSED):
		return failover.DialledRefused
	}
	return failover.DialledSilent
}

// carry has the companion of a node do something, or does it here. It returns what
// came of it, or why nothing did.
func carry[Out any](ctx context.Context, c *conductor, budget time.Duration, node, path string, in any, here func(context.Context) Out) (out Out, err error) {
	if node == c.self {
		ctx, cancel := context.WithTimeoutCause(ctx, budget, fmt.Errorf("not done within %v", budget))
		defer cancel()
		return here(ctx), nil
	}
	err = c.ask(ctx, budget, node, path, in, &out)
	return out, err
}

func (c *conductor) seal(ctx context.Context, a failover.Seal) failover.SealAnswer {
	answer, err := carry(ctx, c, callBudget, a.Node, pathSeal, epochCall{a.Epoch}, func(ctx context.Context) failover.SealAnswer {
		return c.local.Seal(ctx, a.Epoch)
	})
	if err != nil {
		answer.Err = err.Error()
	}
	answer.Epoch, answer.Node = a.Epoch, a.Node
	return answer
}

func (c *conductor) prepare(ctx context.Context, a failover.Prepare) failover.Prepared {
	budget := c.log.State().Settings.PromoteBudget + callBudget
	done := failover.Prepared{Epoch: a.Epoch}
	var failed error
	_, err := carry(ctx, c, budget, a.Node, pathPrepare, epochCall{a.Epoch}, func(ctx context.Context) empty {
		failed = c.local.Prepare(ctx)
		return empty{}
	})
	if err = errors.Join(err, failed); err != nil {
		done.Err = err.Error()
	}
	return done
}

func (c *conductor) stop(ctx context.Context, a failover.Stop) failover.Stopped {
	budget := c.log.State().Settings.StopBudget + callBudget
	done, err := carry(ctx, c, budget, a.Node, pathStop, epochCall{a.Epoch}, func(ctx context.Context) failover.Stopped {
		return c.local.Stop(ctx, a.Epoch)
	})
	if err != nil {
		done.Err = err.Error()
	}
	done.Epoch = a.Epoch
	return done
}

func (c *conductor) promote(ctx context.Context, a failover.Promote) failover.Promoted {
	budget := c.log.State().Settings.PromoteBudget + callBudget
	done, err := carry(ctx, c, budget, a.Node, pathPromote, a, func(ctx context.Context) failover.Promoted {
		return c.local.Promote(ctx, a)
	})
	if err != nil {
		done.Err = err.Error()
	}
	done.Epoch = a.Epoch
	return done
}

func (c *conductor) transfer(ctx context.Context, to string) {
	if err := c.log.Transfer(ctx, to); err != nil && ctx.Err() == nil {
		c.logger.WarnContext(ctx, "the leadership could not be moved off the primary's node", "to", to, "error", err)
	}
}

// warnAgain is how often the same warning is repeated.
const warnAgain = time.Minute

func (c *conductor) warn(ctx context.Context, text string) {
	c.mu.Lock()
	last, said := c.warned[text]
	again := !said || time.Since(last) >= warnAgain
	if again {
		c.warned[text] = time.Now()
	}
	c.mu.Unlock()
	if again {
		c.logger.WarnContext(ctx, "look at the cluster", "because", text)
	}
}

// parks keeps a connection open to every other companion, so that the end of one
// is noticed when it happens. It is used by the conductor's goroutine alone.
type parks struct {
	c       *conductor
	stops   map[string]context.CancelFunc
	running sync.WaitGroup
}

// reconcile parks at every member, and leaves those that are none any more.
func (p *parks) reconcile(ctx context.Context, s *failover.State) {
	if p.stops == nil {
		p.stops = make(map[string]context.CancelFunc)
	}
	for node, stop := range p.stops {
		if _, ok := s.Member(node); !ok {
			stop()
			delete(p.stops, node)
		}
	}
	for _, m := range s.Members {
		if _, ok := p.stops[m.Name]; ok || m.Name == p.c.self {
			continue
		}
		parking, stop := context.WithCancel(ctx)
		p.stops[m.Name] = stop
		p.running.Go(func() { p.park(parking, m.Name) })
	}
}

// park stays connected to a companion, and says so when a connection ends.
func (p *parks) park(ctx context.Context, node string) {
	for ctx.Err() == nil {
		m, _ := p.c.log.State().Member(node)
		err := p.c.callers.park(ctx, m.Companion)
		if ctx.Err() != nil {
			return
		}
		p.c.logger.DebugContext(ctx, "the connection to a companion ended", "node", node, "error", err)
		p.c.give(ctx, failover.Lost{Node: node})
		pause(ctx, 250*time.Millisecond)
	}
}

// close leaves all.
func (p *parks) close() {
	for _, stop := range p.stops {
		stop()
	}
	p.stops = nil
	p.running.Wait()
}
