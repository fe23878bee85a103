package agent

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/internal/beat"
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
	a.state, a.reason, a.known, a.diverged, a.withdrawn = failover.ServerStarting, "", false, false, ""
	a.salvaged = wal.Position{}
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
	a.downSince, a.downSeq, a.salvaged = now, a.requests.seq, wal.Position{}
	a.mu.Unlock()
	a.salvage(ctx)
	if a.pg.Running() {
		return // another one has begun
	}
	a.lease.GiveBack(a.clock()) // if it was granted once more meanwhile
	a.mu.Lock()
	switch {
	case a.withdrawn != "":
		a.reason = a.withdrawn // it may have answered a question since
	case a.state != failover.ServerHung:
		a.reason = "the postmaster has ended"
	}
	// One that has withdrawn wants its lease again: nobody need take over.
	a.state, a.known, a.back = failover.ServerDown, false, a.withdrawn == ""
	a.downSeq, a.alone = a.requests.seq, ""
	a.tellLocked()
	a.mu.Unlock()
	a.probing.drop()
	a.acting.drop()
	a.log.WarnContext(ctx, "the server has ended")
}

// salvageBudget bounds how long it takes until the relay has what a server that crashed has
// not sent. The leader hears only then that it has.
const salvageBudget = 500 * time.Millisecond

// salvage has the relay take what a primary had written when it crashed, so that the standbys
// have it, or can fetch it: of what was acknowledged nothing is lost then, even where commits
// wait for nobody. Once the epoch is sealed nothing more is taken.
func (a *Agent) salvage(ctx context.Context) {
	a.source.Lock()
	defer a.source.Unlock()
	if a.sourced != a.localSource() || failover.Epoch(a.follows.Load()) < a.promises.get().newest() {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, salvageBudget, fmt.Errorf("not done within %v", salvageBudget))
	defer cancel()
	end, err := a.relay.Salvage(ctx)
	if err != nil {
		a.log.WarnContext(ctx, "the standbys may lack the last of what the server wrote", "error", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.pg.Running() { // begun clears it
		a.salvaged = end
	}
}

// watchHealth asks the server again and again.
func (a *Agent) watchHealth(ctx context.Context) {
	s := suspicion{patience: hungAfter * a.cfg.HealthTimeout}
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
		hurry := false
		if a.pg.Running() {
			asked := a.clock()
			answered := a.probe(ctx)
			now := a.clock()
			over := g.over(a.hasAnswered(), now)
			switch {
			case s.after(answered, a.relay.Replicator().Position(), asked, now) && over:
				a.hung(ctx)
			case !answered:
				hurry = true
			}
		} else {
			s.silent, g = 0, grace{}
		}
		wait := beat.Next(a.cfg.HealthInterval)
		if hurry {
			wait = min(wait, suspiciousInterval)
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
	patience time.Duration // for how long it may not

	silent int           // how often it did not
	since  time.Duration // when it was asked the first of these questions
	at     wal.Position  // where its WAL was then
}

// hungAfter is for how many times health_check_timeout a server has to be silent, and
// how often at least. After each pause of the whole machine there is one question whose
// time has passed before anybody could answer it.
const hungAfter = 2

// after counts an answer to a question of this time, or that there was none, and
// reports whether the server is hung. One that goes on writing WAL is not, however slow.
func (s *suspicion) after(answered bool, at wal.Position, asked, now time.Duration) bool {
	switch {
	case answered:
		s.silent = 0
		return false
	case s.silent == 0:
		s.since, s.at = asked, at
	case at != s.at:
		s.silent = 0
		return false
	}
	s.silent++
	return s.silent >= hungAfter && now-s.since >= s.patience
}

// errSilent is why a probe is given up.
var errSilent = errors.New("no answer within health_check_timeout")

// probe asks the server over the connection that is open and, if there is no
// answer for half of health_check_timeout, by a new one too for the other half. It
// reports whether there was any sign of life.
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
	conn, err := a.pg.Connect(ctx)
	if err == nil {
		err = conn.Close(ctx)
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

// note keeps what the server has said of itself, unless it has ended meanwhile.
func (a *Agent) note(f facts) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.pg.Running() {
		return
	}
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
