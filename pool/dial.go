package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A DialError says that no connection to a node could be made. Nothing of any
// statement was sent.
type DialError struct {
	Node string // as named in the topology
	Err  error
}

// Error returns the text, such as
// "helios: node db1:5432: cannot connect: connection refused".
func (e *DialError) Error() string {
	text := strings.Join(strings.Fields(e.Err.Error()), " ") // pgx's own has several lines
	if op, ok := errors.AsType[*net.OpError](e.Err); ok {
		text = op.Error()
	} else if refused, ok := errors.AsType[*pgconn.PgError](e.Err); ok {
		text = refused.Error()
	}
	return "helios: node " + e.Node + ": cannot connect: " + text
}

// Unwrap returns what Dial failed with.
func (e *DialError) Unwrap() error { return e.Err }

// errStillborn is a connection that ended before its first use.
var errStillborn = errors.New("the server ended the new connection at once")

// Warm opens connections in the background until there are MinConns, and keeps
// that many open until the next Fence. It returns at once.
func (p *Pool) Warm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.warm = p.cfg.MinConns > 0 && !p.closed
	p.dialLocked()
	p.armLocked()
}

// dialLocked starts as many dials as waiters, and MinConns, need and the limits
// allow. It is called whenever one of them has changed.
func (p *Pool) dialLocked() {
	if p.closed {
		return
	}
	need := p.line.length - (p.dialing - p.givenUp)
	if p.warm {
		need = max(need, p.cfg.MinConns-p.taken)
	}
	for range min(need, p.cfg.MaxDials-p.dialing, p.cfg.MaxConns-p.taken) {
		p.startLocked()
	}
}

// startLocked starts one dial. If it fails, those in line now share the error:
// had each of them a dial of its own, the timeouts of a silent node would add up.
func (p *Pool) startLocked() {
	d := dial{slot: p.reserveLocked(), epoch: p.epoch, last: p.line.arrivals}
	p.dialing++
	// The pool's own context: one waiter who gives up must not take the
	// connection from the others.
	ctx, cancel := context.WithCancelCause(context.Background())
	p.slots[d.slot].stop = cancel
	p.running.Go(func() {
		d.conn, d.err = p.connect(ctx)
		p.dialed(d)
	})
}

// dial is one attempt to make a connection.
type dial struct {
	slot  int
	epoch uint64 // of the pool when it began
	last  uint64 // number of the last waiter who had arrived by then
	conn  *Conn
	err   error
}

// connect makes one connection that works.
func (p *Pool) connect(ctx context.Context) (*Conn, error) {
	ctx, cancel := withTimeout(ctx, p.cfg.DialTimeout, "no connection")
	defer cancel()
	c, err := p.cfg.Dial(ctx)
	switch {
	case err == nil && c.Usable():
		return c, nil
	case err == nil:
		c.Close()
		err = errStillborn
	case ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)):
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return nil, &DialError{Node: p.cfg.Name, Err: err}
}

// dialed puts the outcome of a dial to use.
func (p *Pool) dialed(d dial) {
	if !p.settle(d) {
		d.conn.Close()
	}
}

// settle ends a dial: its connection goes to the one who has waited longest,
// its error to all who waited when it began. It reports false if the connection
// is not wanted any more.
func (p *Pool) settle(d dial) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.armLocked()
	s := &p.slots[d.slot]
	s.stop(nil)
	s.stop = nil
	p.dialing--
	if d.epoch != p.epoch { // who waited then was told by Fence
		p.givenUp--
		p.freeLocked(s, dialing)
		p.dialLocked()
		return d.err != nil
	}
	if d.err != nil {
		p.freeLocked(s, dialing)
		p.failLocked(d.last, d.err)
		if p.line.length > 0 { // MinConns are in no hurry: the next sweep sees to them
			p.dialLocked()
		}
		return true
	}
	p.placeLocked(s, d)
	p.dialLocked()
	return true
}

// failLocked answers everybody up to the waiter with number last with err.
func (p *Pool) failLocked(last uint64, err error) {
	p.counts.dialErrors++
	for p.line.length > 0 && p.line.head.number <= last {
		p.popLocked().fail(err)
	}
}

// placeLocked puts a new connection into its slot and to use.
func (p *Pool) placeLocked(s *slot, d dial) {
	now := time.Now()
	d.conn.slot, d.conn.epoch = int32(d.slot), d.epoch
	s.conn.Store(d.conn)
	s.expires = time.Time{}
	if life := p.cfg.MaxLifetime; life > 0 {
		s.expires = now.Add(life - rand.N(life/10+1)) // those made together do not end together
	}
	s.seenWord, s.seenAt = s.word.Load(), now
	p.counts.dialed++
	if w := p.popLocked(); w != nil {
		s.change(dialing, busy)
		s.word.Add(oneUse)
		w.give(d.conn)
		return
	}
	s.change(dialing, idle)
}
