package agent

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/wal"
)

// watchEnd notices the end of the postmaster.
func (a *Agent) watchEnd(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.started:
		}
		select {
		case <-a.pg.Done():
			a.ended(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// begun notes that there is a server: one was started or adopted.
func (a *Agent) begun() {
	a.mu.Lock()
	a.state, a.reason, a.known, a.diverged, a.withdrawn = failover.ServerStarting, "", false, false, false
	a.mu.Unlock()
	poke(a.started)
	poke(a.look)
}

// ended notes that the server has ended. Nothing will be confirmed any more, and
// the leader need not wait for the end of the lease.
func (a *Agent) ended(ctx context.Context) {
	if a.pg.Running() {
		return // another one has begun meanwhile
	}
	now := a.clock()
	a.lease.GiveBack(now)
	a.mu.Lock()
	if a.state != failover.ServerHung && !a.withdrawn {
		a.reason = "the postmaster has ended"
	}
	// One that has withdrawn wants its lease again: nobody need take over.
	a.state, a.known, a.back = failover.ServerDown, false, !a.withdrawn
	a.downSince, a.downSeq, a.alone = now, a.requests.seq, ""
	a.tellLocked()
	a.mu.Unlock()
	a.probing.drop()
	a.acting.drop()
	a.log.WarnContext(ctx, "the server has ended")
}

// watchHealth asks the server again and again.
func (a *Agent) watchHealth(ctx context.Context) {
	var s suspicion
	var g grace
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-a.look:
		}
		wait := a.cfg.HealthInterval
		if a.pg.Running() {
			answered := a.probe(ctx)
			over := g.over(a.hasAnswered(), a.clock())
			switch {
			case s.after(answered, a.relay.Replicator().Position()) && over:
				a.hung(ctx)
			case !answered:
				wait = min(wait, suspiciousInterval)
			}
		} else {
			s, g = suspicion{}, grace{}
		}
		next.Reset(wait)
	}
}

// startGrace is how long a server that was started may take until there is an
// answer of any kind: on a busy machine it is some time until it listens.
const startGrace = 10 * time.Second

// A grace is the patience with a server that has not answered since it began.
type grace struct {
	since    time.Duration // when it was looked at first
	running  bool          // since is set
	answered bool
}

// over reports whether there is none left at now: it has answered, or had long
// enough.
func (g *grace) over(answered bool, now time.Duration) bool {
	if !g.running || g.answered && !answered { // another one has begun
		g.since, g.running = now, true
	}
	g.answered = answered
	return answered || now-g.since >= startGrace
}

// hasAnswered reports whether the server has answered since it began.
func (a *Agent) hasAnswered() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known
}

// suspicion grows while a server does not answer.
type suspicion struct {
	silent int          // how often it did not
	at     wal.Position // where its WAL was when that began
}

// hungAfter is how often a server has to be silent, on a connection that is open
// and on a new one.
const hungAfter = 2

// after counts an answer, or that there was none, and reports whether the server
// is hung. One that goes on writing WAL is not, however slow.
func (s *suspicion) after(answered bool, at wal.Position) bool {
	if answered || s.silent > 0 && at != s.at {
		*s = suspicion{at: at}
		return false
	}
	if s.silent == 0 {
		s.at = at
	}
	s.silent++
	return s.silent >= hungAfter
}

// errSilent is why a probe is given up.
var errSilent = errors.New("no answer within health_check_timeout")

// probe asks the server over the connection that is open and, if there is no
// answer for half of the time, by a new one too. It reports whether there was
// any sign of life.
func (a *Agent) probe(parent context.Context) bool {
	ctx, cancel := context.WithTimeoutCause(parent, a.cfg.HealthTimeout, errSilent)
	defer cancel()
	asked := make(chan error, 1)
	a.running.Go(func() { asked <- a.ask(ctx) })
	doubt := time.NewTimer(a.cfg.HealthTimeout / 2)
	defer doubt.Stop()
	select {
	case err := <-asked:
		if err == nil {
			a.acting.warm(ctx) // what is done in a hurry needs no new backend
		}
		if lives(err) {
			return true
		}
	case <-doubt.C:
	}
	if parent.Err() != nil {
		return true
	}
	fresh, cancel := context.WithTimeoutCause(parent, a.cfg.HealthTimeout, errSilent)
	defer cancel()
	conn, err := a.pg.Connect(fresh)
	if err == nil {
		err = conn.Close(fresh)
	}
	if lives(err) {
		return true
	}
	return !a.pg.Running() // its end is a sign as well, and noticed elsewhere
}

// lives reports whether what became of a question is no silence: an answer, and
// be it an error, or that nobody listens, as at the beginning of a start. Who does
// not take connections any more has a full backlog (EAGAIN, of a Unix socket).
func lives(err error) bool {
	return !pgconn.Timeout(err) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, errSilent) && !errors.Is(err, syscall.EAGAIN)
}

// ask asks the server what it is.
func (a *Agent) ask(ctx context.Context) error {
	var f facts
	err := a.probing.do(ctx, func(conn *pgx.Conn) (err error) {
		f, err = readFacts(ctx, conn)
		return err
	})
	if err == nil {
		a.note(f)
	}
	return err
}

// note keeps what the server has said of itself.
func (a *Agent) note(f facts) {
	a.mu.Lock()
	defer a.mu.Unlock()
	state := failover.ServerUp
	if a.diverged && f.Recovery {
		state = failover.ServerDiverged
	}
	news := !a.known || a.state != state ||
		f.Recovery != a.facts.Recovery || f.Timeline != a.facts.Timeline || f.Receiver != a.facts.Receiver ||
		f.Host != a.facts.Host || f.Port != a.facts.Port
	if state == failover.ServerUp {
		a.reason, a.back = "", false
	}
	a.state, a.facts, a.known = state, f, true
	if news {
		a.tellLocked()
	}
}

// hung gives up a server that does not answer: the lease at once, and then the
// server itself, so that it cannot come back and go on where it stood.
func (a *Agent) hung(ctx context.Context) {
	a.lease.GiveBack(a.clock())
	a.mu.Lock()
	if a.state != failover.ServerHung {
		a.state, a.reason, a.back = failover.ServerHung, "it does not answer, neither on an open connection nor on a new one", true
		a.tellLocked()
	}
	a.mu.Unlock()
	a.log.ErrorContext(ctx, "the server is hung, and is stopped hard")
	if err := a.pg.HardStop(ctx, hungGrace); err != nil {
		a.log.ErrorContext(ctx, "a hung server was not stopped", "error", err)
	}
}

// hungGrace is how long a hung server has for an immediate shutdown.
const hungGrace = 200 * time.Millisecond
