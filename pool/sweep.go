package pool

import "time"

// Bounds of the time between two sweeps.
const (
	shortestSweep = 10 * time.Millisecond
	longestSweep  = 30 * time.Second
	refillSweep   = time.Second // while MinConns are wanted
)

// armLocked sees to it that a sweep comes, if there is anything to sweep: no
// goroutine and no clock on the query path are needed for connections to age.
func (p *Pool) armLocked() {
	ages := p.taken > 0 && (p.cfg.MaxIdle > 0 || p.cfg.MaxLifetime > 0)
	if p.closed || p.timer != nil || !ages && !p.warm {
		return
	}
	p.timer = time.AfterFunc(p.sweepEvery(), p.startSweep)
}

// sweepEvery returns the time between two sweeps: a quarter of what they guard.
func (p *Pool) sweepEvery() time.Duration {
	d := longestSweep
	if p.cfg.MaxIdle > 0 {
		d = min(d, p.cfg.MaxIdle/4)
	}
	if p.cfg.MaxLifetime > 0 {
		d = min(d, p.cfg.MaxLifetime/20)
	}
	if p.cfg.MinConns > 0 {
		d = min(d, refillSweep)
	}
	return max(d, shortestSweep)
}

// startSweep is where the timer leads.
func (p *Pool) startSweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = nil
	if !p.closed {
		p.running.Go(p.sweep)
	}
}

// sweep closes what is too old or has been idle for too long, and fills up to
// MinConns.
func (p *Pool) sweep() {
	now := time.Now()
	for i := range p.slots[:p.used.Load()] {
		if c := p.expire(&p.slots[i], now); c != nil {
			p.Discard(c)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialLocked()
	p.armLocked()
}

// expire returns the slot's connection, taken, if its time has come. One that is
// lent is closed when it comes back.
func (p *Pool) expire(s *slot, now time.Time) *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.conn.Load() == nil {
		return nil
	}
	old := !s.expires.IsZero() && !now.Before(s.expires)
	unused := p.unusedLocked(s, now)
	if old {
		s.retired.Store(true)
	}
	if (old || unused) && s.take() {
		return s.conn.Load()
	}
	return nil
}

// unusedLocked reports whether the slot has been idle for MaxIdle and can be
// spared. A use shows in the slot's word, so that sessions need no clock.
func (p *Pool) unusedLocked(s *slot, now time.Time) bool {
	word := s.word.Load()
	if word != s.seenWord || word&stateMask != idle {
		s.seenWord, s.seenAt = word, now
		return false
	}
	if p.cfg.MaxIdle <= 0 || p.warm && p.taken <= p.cfg.MinConns {
		return false
	}
	return now.Sub(s.seenAt) >= p.cfg.MaxIdle
}
