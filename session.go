package helios

import (
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heliosdb/helios/topology"
	"github.com/heliosdb/helios/wal"
)

// Session is what read-your-writes and monotonic reads are promised to: the
// reads of a session see its earlier writes, and what its earlier reads have
// seen, on whichever node they run, also after a failover. What does not exist
// any more then is told with [ErrWriteLost]. Put a session into the context of
// a request with [WithSession] or [WithSessionID]; a context without one belongs
// to the session of the whole *sql.DB, which promises its writes only.
//
// Reads count that ask for the consistency session or strong and do not name
// their node, each once it has ended without an error: when its rows are closed,
// which QueryRow does with Scan. A session that has read on the primary reads
// there until a replica has what the primary had by then.
//
// The zero Session is ready for use. A Session is safe for concurrent use and
// must not be copied.
type Session struct {
	seen atomic.Pointer[seen]
	// writes counts the writes whose position is not known (lsn=lazy, a lost
	// answer, a connection lent through Raw), learned how many of them the
	// position covers by now. While they differ, reads go to the primary, and
	// learn there.
	writes, learned atomic.Uint64
	ackedAt         atomic.Uint64 // of writes, the last that the application was told has succeeded
	unsureAt        atomic.Uint64 // of writes, the last that may have been committed without waiting for its flush
	lent            atomic.Int64  // connections handed out through which somebody may be writing
}

// seen is the newest position of a session on one timeline.
type seen struct {
	systemID uint64
	timeline wal.Timeline
	lsn      atomic.Uint64 // only grows
	wrote    atomic.Uint64 // how much of it the session's own writes account for, as far as is known; only grows
	// before is the position on an older timeline that this one took over from;
	// zero once it was found to be part of this timeline's past.
	before      wal.Position
	wroteBefore wal.LSN // what wrote was then
}

// NewSession returns a session that has seen nothing.
func NewSession() *Session { return &Session{} }

// Token returns what the session has written and read, to be carried to another process.
// After a write whose position is not known yet it covers the writes before.
func (s *Session) Token() Token {
	cur := s.seen.Load()
	if cur == nil {
		return Token{}
	}
	return Token{SystemID: cur.systemID, Timeline: cur.timeline, LSN: wal.LSN(cur.lsn.Load())}
}

// Advance makes the session see at least t as well. Tokens merge: the greatest
// position on the newest timeline counts.
func (s *Session) Advance(t Token) { s.advance(t, uint64(t.LSN)) }

// advance makes the session see at least t, of which its own writes account for
// what is up to wrote.
func (s *Session) advance(t Token, wrote uint64) {
	if t.Timeline == 0 || t.LSN == 0 {
		return
	}
	for {
		cur := s.seen.Load()
		switch {
		case cur == nil || t.Timeline > cur.timeline || t.SystemID != cur.systemID:
			if s.seen.CompareAndSwap(cur, cur.succeeded(t, wrote)) {
				return
			}
		case t.Timeline < cur.timeline:
			return // what an older timeline held was judged when this one took over
		default:
			raise(&cur.lsn, uint64(t.LSN))
			raise(&cur.wrote, wrote)
			if s.seen.Load() == cur {
				return
			}
		}
	}
}

// wroteBlindly notes a write that succeeded and whose position is not known.
// relaxed means that it may have been committed with another synchronous_commit
// than the server's own.
func (s *Session) wroteBlindly(relaxed bool) { raise(&s.ackedAt, s.mayHaveWritten(relaxed)) }

// mayHaveWritten notes a write whose outcome is not known. It returns its number.
func (s *Session) mayHaveWritten(relaxed bool) uint64 {
	n := s.writes.Add(1)
	if relaxed {
		raise(&s.unsureAt, n)
	}
	return n
}

// sawBlindly notes a read of which nobody knows what it has seen: like a write
// that nobody has a right to, it is looked for where a primary answers.
func (s *Session) sawBlindly() { s.mayHaveWritten(true) }

// unsure reports whether a write to learn about may be beyond what is flushed.
func (s *Session) unsure() bool { return s.unsureAt.Load() > s.learned.Load() }

// blind returns the count of writes to learn about; false if there is nothing
// to learn.
func (s *Session) blind() (uint64, bool) {
	n := s.writes.Load()
	return n, n != s.learned.Load() || s.lent.Load() > 0
}

// mustLearn reports whether the writes to learn about include one that was
// acknowledged: then no read may do without. Those of unknown outcome are looked
// for where a primary answers, and are nobody's right.
func (s *Session) mustLearn() bool { return s.ackedAt.Load() > s.learned.Load() || s.lent.Load() > 0 }

// copied returns a session that has seen what s has seen, for questions that
// must not change s.
func (s *Session) copied() *Session {
	c := NewSession()
	c.seen.Store(s.seen.Load())
	c.writes.Store(s.writes.Load())
	c.ackedAt.Store(s.ackedAt.Load())
	c.learned.Store(s.learned.Load())
	c.lent.Store(s.lent.Load())
	return c
}

// takeBack notes that a connection that was handed out is back.
func (s *Session) takeBack() {
	s.wroteBlindly(true)
	s.lent.Add(-1)
}

// learn notes that the position covers the first n such writes.
func (s *Session) learn(n uint64) { raise(&s.learned, n) }

// succeeded returns what follows cur, which may be nil, on t's newer timeline.
func (cur *seen) succeeded(t Token, wrote uint64) *seen {
	next := &seen{systemID: t.SystemID, timeline: t.Timeline}
	next.lsn.Store(uint64(t.LSN))
	next.wrote.Store(wrote)
	if cur != nil && cur.systemID == t.SystemID {
		next.before, next.wroteBefore = wal.Position{Timeline: cur.timeline, LSN: wal.LSN(cur.lsn.Load())}, wal.LSN(cur.wrote.Load())
	}
	return next
}

// raise makes v at least n.
func raise(v *atomic.Uint64, n uint64) {
	for old := v.Load(); n > old; old = v.Load() {
		if v.CompareAndSwap(old, n) {
			return
		}
	}
}

// A lostPosition is one that a newer timeline does not have.
type lostPosition struct {
	at   wal.Position
	next wal.Switch // the beginning of the timeline that does not have it
	read bool       // the session's own writes are kept
}

// lossOf returns where what was seen at at was lost, if it was between its timeline
// and now. The session's own writes account for what is up to wrote.
func lossOf(history wal.History, at wal.Position, wrote wal.LSN, now wal.Timeline) lostPosition {
	kept := history.Holds(wal.Position{Timeline: at.Timeline, LSN: wrote}, now) == wal.Kept
	for _, s := range history {
		if s.Timeline > at.Timeline && s.Timeline <= now && at.LSN > s.LSN {
			return lostPosition{at, s, kept}
		}
	}
	return lostPosition{at: at, read: kept}
}

// error says what was lost and where.
func (l lostPosition) error() error {
	whose := "the session had written or read"
	if l.read {
		whose = "none of the session's own, but it had read"
	}
	return fmt.Errorf("%w: %s up to %s on timeline %s, and timeline %s goes on from %s",
		ErrWriteLost, whose, l.at.LSN, l.at.Timeline, l.next.Timeline, l.next.LSN)
}

// wants returns the position a read of the session must see in view, and what
// is known about what the session has seen. With wal.Lost the loss is reported this
// once: from now on the session asks for what the newest timeline kept of it.
func (s *Session) wants(view *topology.View) (wal.LSN, wal.Verdict, lostPosition) {
	cur := s.seen.Load()
	if cur == nil || cur.systemID != view.SystemID && cur.systemID != 0 && view.SystemID != 0 {
		return 0, wal.Kept, lostPosition{} // nothing seen of this cluster
	}
	at := wal.Position{Timeline: cur.timeline, LSN: wal.LSN(cur.lsn.Load())}
	if cur.timeline == view.Timeline && cur.before == (wal.Position{}) {
		return at.LSN, wal.Kept, lostPosition{}
	}
	if fork, gone := abandoned(view, cur.timeline); gone {
		kept := wal.Position{Timeline: view.Timeline, LSN: min(at.LSN, fork)}
		if verdict := s.forget(cur, kept); at.LSN > fork {
			next := wal.Switch{Timeline: view.Timeline, LSN: fork}
			return kept.LSN, verdict, lostPosition{at, next, wal.LSN(cur.wrote.Load()) <= fork}
		}
		return kept.LSN, wal.Kept, lostPosition{}
	}
	if cur.before != (wal.Position{}) && view.History.Holds(cur.before, cur.timeline) == wal.Lost {
		return at.LSN, s.forget(cur, at), lossOf(view.History, cur.before, cur.wroteBefore, cur.timeline)
	}
	verdict, wrote := view.History.Holds(at, view.Timeline), wal.LSN(cur.wrote.Load())
	if verdict != wal.Lost {
		return at.LSN, verdict, lostPosition{}
	}
	kept := wal.Position{Timeline: view.Timeline, LSN: at.LSN}
	for _, begin := range view.History {
		if begin.Timeline > at.Timeline {
			kept.LSN = min(kept.LSN, begin.LSN)
		}
	}
	return kept.LSN, s.forget(cur, kept), lossOf(view.History, at, wrote, view.Timeline)
}

// ahead reports whether the session has seen a timeline that view does not know
// of: another process has heard of a promotion earlier. Until this one has, no
// node it knows can be trusted to have what the session has seen.
func (s *Session) ahead(view *topology.View) bool {
	cur := s.seen.Load()
	if cur == nil || cur.timeline <= view.Timeline || cur.systemID != view.SystemID {
		return false
	}
	_, gone := abandoned(view, cur.timeline)
	return !gone
}

// abandoned reports whether t is a timeline that nobody goes on with, and up to where what is on
// it is on that of the cluster too.
func abandoned(view *topology.View, t wal.Timeline) (fork wal.LSN, gone bool) {
	if t <= view.Timeline {
		return 0, false
	}
	if _, gone = view.Abandoned.Begin(t); !gone {
		return 0, false
	}
	fork = view.Abandoned[0].LSN
	for _, s := range view.Abandoned {
		if s.Timeline <= t {
			fork = min(fork, s.LSN)
		}
	}
	return fork, true
}

// forget lets the session go on from at, and reports the loss unless somebody
// else has done so at the same moment.
func (s *Session) forget(cur *seen, at wal.Position) wal.Verdict {
	next := &seen{systemID: cur.systemID, timeline: at.Timeline}
	next.lsn.Store(uint64(at.LSN))
	next.wrote.Store(min(cur.wrote.Load(), uint64(at.LSN)))
	if s.seen.CompareAndSwap(cur, next) {
		if cur.timeline == next.timeline {
			raise(&next.lsn, cur.lsn.Load()) // what came in meanwhile
			raise(&next.wrote, cur.wrote.Load())
		}
		return wal.Lost
	}
	return wal.Kept
}

// named is the table of sessions that are known by an id. Entries live as long
// as they are used, and between one and two timeouts longer: two generations of
// maps are kept, and the older is dropped whole.
type named struct {
	seed    maphash.Seed
	timeout time.Duration
	shards  [64]shard
}

// shard is one part of the table.
type shard struct {
	mu      sync.Mutex
	young   map[string]*Session // guarded by mu
	old     map[string]*Session // guarded by mu
	rotated time.Time           // guarded by mu; when young was begun
}

// newNamed returns an empty table.
func newNamed(timeout time.Duration) *named {
	return &named{seed: maphash.MakeSeed(), timeout: timeout}
}

// get returns the session called id, a new one if it is not known.
func (n *named) get(id string, now time.Time) *Session {
	s := &n.shards[maphash.String(n.seed, id)%uint64(len(n.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rotateLocked(now, n.timeout)
	session := s.young[id]
	if session == nil {
		if session = s.old[id]; session == nil {
			session = NewSession()
		}
		s.young[id] = session
	}
	return session
}

// rotateLocked drops what has not been used for a timeout.
func (s *shard) rotateLocked(now time.Time, timeout time.Duration) {
	switch age := now.Sub(s.rotated); {
	case s.young == nil || age >= 2*timeout:
		s.young, s.old, s.rotated = map[string]*Session{}, nil, now
	case age >= timeout:
		s.young, s.old, s.rotated = map[string]*Session{}, s.young, now
	}
}

// len returns how many sessions are remembered.
func (n *named) len() int {
	total := 0
	for i := range n.shards {
		s := &n.shards[i]
		s.mu.Lock()
		total += len(s.young)
		for id := range s.old {
			if s.young[id] == nil {
				total++
			}
		}
		s.mu.Unlock()
	}
	return total
}
