package relay

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// A Batch is a stretch of WAL.
type Batch struct {
	At   wal.LSN // position of its first byte
	Data []byte
}

// A Replicator is a [Buffer] with subscribers, and knows how far each of them
// has come. It is safe for concurrent use, Replicate and Advance by one
// goroutine at a time.
type Replicator struct {
	buffer *Buffer
	policy Policy
	gated  bool // somebody else may confirm what has arrived, and what a subscriber has
	marks  marks

	mu       sync.Mutex
	timeline wal.Timeline
	subs     []*Subscriber
	serial   uint64
	reached  Confirmation // what the policy has confirmed on this timeline; it never goes back
	spooled  wal.LSN      // flushed by the relay's own disk
	feedback replication.Feedback
	tells    bool          // the source wants to hear of every subscriber
	kick     chan struct{} // holds one: what goes to the source has changed
	released atomic.Bool   // the source is to be told in any case

	compressed counter
}

// A counter adds up frames.
type counter struct{ frames, raw, sent, reused atomic.Int64 }

// NewReplicator returns one over b that stands on timeline t, 0 if that is not
// known yet.
func NewReplicator(b *Buffer, t wal.Timeline, p Policy) *Replicator {
	return &Replicator{buffer: b, timeline: t, policy: p, kick: make(chan struct{}, 1)}
}

// Buffer returns the WAL that the subscribers are served from.
func (r *Replicator) Buffer() *Buffer { return r.buffer }

// Replicate adds a batch, which must follow the one before.
func (r *Replicator) Replicate(batch Batch) error {
	if err := r.buffer.Append(batch.At, batch.Data); err != nil {
		return err
	}
	r.arrived(r.buffer.Head(), time.Now())
	return nil
}

// arrived notes that the buffer has WAL up to at.
func (r *Replicator) arrived(at wal.LSN, now time.Time) {
	r.marks.arrived(at, now)
	if r.gated || r.policy.Mode == ConfirmReceipt {
		r.kickSource()
	}
}

// Advance says that from at on the WAL is that of timeline t. Confirmations on
// the timeline before no longer count.
func (r *Replicator) Advance(t wal.Timeline, at wal.LSN) error {
	if err := r.buffer.Truncate(at); err != nil {
		return err
	}
	r.marks.truncate(at)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timeline != t {
		r.timeline = t
		r.reached = Confirmation{}
		r.spooled = min(r.spooled, at)
	}
	r.kickSource()
	return nil
}

// A Subscriber is somebody whom WAL is sent to, for as long as it is
// registered. Its methods are safe for concurrent use.
type Subscriber struct {
	r      *Replicator
	name   string
	serial uint64 // grows: of two with one name the later counts
	relay  bool   // another relay: it stands for those behind it; guarded by r.mu
	addr   string
	since  time.Time
	via    *Subscriber // the relay that tells of it; nil if it is connected here

	// guarded by r.mu
	timeline  wal.Timeline // of its session; 0 between two
	confirmed Confirmation // clamped to sent
	heard     time.Time
	feedback  replication.Feedback

	sent                 atomic.Uint64
	state                atomic.Pointer[string]
	bytes, raw, messages atomic.Int64
}

// Register adds a subscriber: a name, which need not be its alone, and where it
// comes from. A name that connects again takes the place of its earlier self.
func (r *Replicator) Register(name, addr string) *Subscriber {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.newSubscriberLocked(name, addr, nil)
	r.subs = append(r.subs, s)
	return s
}

func (r *Replicator) newSubscriberLocked(name, addr string, via *Subscriber) *Subscriber {
	r.serial++
	s := &Subscriber{r: r, name: name, addr: addr, serial: r.serial, since: time.Now(), via: via}
	s.state.Store(&states[0])
	return s
}

// Deregister removes s, and whom it spoke for. What it has confirmed stays
// confirmed.
func (r *Replicator) Deregister(s *Subscriber) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.subs = slices.DeleteFunc(r.subs, func(x *Subscriber) bool { return x == s || x.via == s })
	r.mergeFeedbackLocked()
}

// States of a subscriber, in PostgreSQL's words (pg_stat_replication.state).
const (
	StateStartup   = "startup"   // asks, and is sent nothing
	StateBackfill  = "catchup"   // is sent WAL older than the buffer
	StateStreaming = "streaming" // is sent WAL from memory
)

var states = [...]string{StateStartup, StateBackfill, StateStreaming}

// begin starts a session on timeline t: nothing is confirmed in it yet. What
// lies before at, where it begins, is what the subscriber has; if that is all
// there is, nothing will be sent that could have it believed.
func (s *Subscriber) begin(t wal.Timeline, at wal.LSN) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.timeline, s.confirmed = t, Confirmation{}
	s.sent.Store(uint64(at))
}

// end ends the session: its confirmations count no longer.
func (s *Subscriber) end() {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.timeline = 0
	s.state.Store(&states[0])
}

// Sent notes that the session is given the WAL up to to. It is told before it
// happens: what is acknowledged and was not sent is not believed.
func (s *Subscriber) Sent(to wal.LSN, state string) {
	for {
		old := s.sent.Load()
		if uint64(to) <= old || s.sent.CompareAndSwap(old, uint64(to)) {
			break
		}
	}
	if *s.state.Load() != state {
		for i := range states {
			if states[i] == state {
				s.state.Store(&states[i])
			}
		}
	}
}

// count adds up what was sent.
func (s *Subscriber) count(bytes, raw int) {
	s.bytes.Add(int64(bytes))
	s.raw.Add(int64(raw))
	s.messages.Add(1)
}

// applied returns what the subscriber has applied; 0 if it has not told.
func (s *Subscriber) applied() wal.LSN {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	return s.confirmed.Apply
}

// Acknowledge notes what the subscriber says it has, and returns what of that
// is believed.
func (s *Subscriber) Acknowledge(c Confirmation) Confirmation {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	s.heard = time.Now()
	s.confirmed = c.clamped(wal.LSN(s.sent.Load()))
	if s.confirmed.furthest(r.reached) != r.reached || r.tells || r.gated {
		r.settleLocked()
	}
	return s.confirmed
}

// Acknowledge notes a confirmation of the subscriber of that name: the latest to
// register if there are several.
func (r *Replicator) Acknowledge(name string, c Confirmation) error {
	s := r.find(name)
	if s == nil {
		return fmt.Errorf("relay: no subscriber %q is registered", name)
	}
	s.Acknowledge(c)
	return nil
}

func (r *Replicator) find(name string) *Subscriber {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range slices.Backward(r.subs) {
		if s.name == name {
			return s
		}
	}
	return nil
}

// settleLocked brings what the policy has confirmed up to date.
func (r *Replicator) settleLocked() {
	before := r.reached
	if r.policy.Mode == ConfirmQuorum {
		r.reached = before.furthest(quorum(r.policy.K, r.countingLocked(r.policy)))
	}
	if r.reached != before || r.tells || r.gated {
		r.kickSource()
	}
}

// Quorum returns what k of the named subscribers have, each position for itself:
// on the current timeline, those behind other relays too. It is zero if there are
// fewer.
func (r *Replicator) Quorum(k int, names []string) Confirmation {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(names) == 0 {
		return Confirmation{}
	}
	return quorum(k, r.countingLocked(Policy{K: k, Names: names})).clamped(r.buffer.Head())
}

// Position returns where the WAL that has arrived ends.
func (r *Replicator) Position() wal.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return wal.Position{Timeline: r.timeline, LSN: r.buffer.Head()}
}

// countingLocked returns the confirmations that a policy may count: on the
// current timeline, one for each name, that of its latest session. A relay stands
// for itself only where it is named: else those behind it would count twice.
func (r *Replicator) countingLocked(p Policy) []Confirmation {
	latest := make(map[string]*Subscriber, len(r.subs))
	for _, s := range r.subs {
		if s.timeline == 0 || s.timeline != r.timeline || !p.counts(s.name) || s.relay && len(p.Names) == 0 {
			continue
		}
		if old := latest[sameName(s.name)]; old == nil || old.serial < s.serial {
			latest[sameName(s.name)] = s
		}
	}
	of := make([]Confirmation, 0, len(latest))
	for _, s := range latest {
		of = append(of, s.confirmed)
	}
	return of
}

// kickSource has the source told of what has changed.
func (r *Replicator) kickSource() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// spool notes that the relay's own disk has the WAL up to at. That of another
// timeline counts for nothing: the disk may be behind a switch that has been
// made, with WAL that was taken back.
func (r *Replicator) spool(at wal.Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at.Timeline != r.timeline {
		return
	}
	r.spooled = at.LSN
	r.kickSource()
}

// Confirmed returns what the policy lets the source know.
func (r *Replicator) Confirmed() Confirmation {
	r.mu.Lock()
	defer r.mu.Unlock()
	head := r.buffer.Head()
	switch r.policy.Mode {
	case ConfirmReceipt:
		return Confirmation{Write: head, Flush: min(r.spooled, head)}
	case ConfirmQuorum:
		return r.reached.clamped(head)
	case ConfirmNothing:
	}
	return Confirmation{}
}

// Oldest returns the smallest flush position of the subscribers that have one,
// and false if there is none: the WAL from there on is still wanted.
func (r *Replicator) Oldest() (wal.LSN, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest, found := wal.LSN(0), false
	for _, s := range r.subs {
		if !s.relay && s.confirmed.Flush != 0 && (!found || s.confirmed.Flush < oldest) {
			oldest, found = s.confirmed.Flush, true
		}
	}
	return oldest, found
}

// setFeedback notes a standby's hot standby feedback.
func (s *Subscriber) setFeedback(f replication.Feedback) {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.feedback = f
	s.r.mergeFeedbackLocked()
}

// mergeFeedbackLocked finds the oldest transactions that anybody needs. Ids are
// full ones, epoch and all, so that the smaller is the older.
func (r *Replicator) mergeFeedbackLocked() {
	var merged replication.Feedback
	oldest := func(a, b uint64) uint64 {
		if a == 0 || b == 0 {
			return max(a, b)
		}
		return min(a, b)
	}
	for _, s := range r.subs {
		merged.Xmin = oldest(merged.Xmin, s.feedback.Xmin)
		merged.CatalogXmin = oldest(merged.CatalogXmin, s.feedback.CatalogXmin)
	}
	if merged != r.feedback {
		r.feedback = merged
		r.kickSource()
	}
}

// Feedback returns the hot standby feedback of all subscribers together.
func (r *Replicator) Feedback() replication.Feedback {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.feedback
}

// A Lag is how far a subscriber is behind what has arrived here.
type Lag struct {
	Behind uint64        `json:"behind"` // bytes not applied
	Write  time.Duration `json:"write"`  // since the first byte that is not yet written arrived
	Flush  time.Duration `json:"flush"`
	Apply  time.Duration `json:"apply"`
}

// Lag returns how far the subscriber of that name is behind, by what it told
// last. It is 0 for one that has everything; false means that nobody of that
// name is registered.
func (r *Replicator) Lag(name string) (Lag, bool) {
	s := r.find(name)
	if s == nil {
		return Lag{}, false
	}
	r.mu.Lock()
	c := s.confirmed
	r.mu.Unlock()
	return r.lagOf(c, time.Now()), true
}

func (r *Replicator) lagOf(c Confirmation, now time.Time) Lag {
	head := r.buffer.Head()
	return Lag{
		Behind: c.Apply.Behind(head),
		Write:  r.marks.age(c.Write, now), Flush: r.marks.age(c.Flush, now), Apply: r.marks.age(c.Apply, now),
	}
}

// Metrics are the figures of a [Replicator] since it was made.
type Metrics struct {
	Timeline        wal.Timeline        `json:"timeline"`
	Head            wal.LSN             `json:"head"`
	Tail            wal.LSN             `json:"tail"`
	Entries         int64               `json:"entries"`          // messages that arrived
	Bytes           int64               `json:"bytes"`            // bytes of WAL in them
	Memory          int64               `json:"memory"`           // bytes of memory that hold WAL
	Frames          int64               `json:"frames"`           // built once, for however many peers
	FramesReused    int64               `json:"frames_reused"`    // sent again without being built again
	FrameBytes      int64               `json:"frame_bytes"`      // WAL in them
	CompressedBytes int64               `json:"compressed_bytes"` // what they came to
	Ratio           float64             `json:"ratio"`            // FrameBytes / CompressedBytes; 1 if there were none
	Confirmed       Confirmation        `json:"confirmed"`        // what the source is told
	Subscribers     []SubscriberMetrics `json:"subscribers"`      // who streams or has streamed, by name
}

// SubscriberMetrics are the figures of one subscriber since it registered.
type SubscriberMetrics struct {
	Name      string       `json:"name"`
	Addr      string       `json:"addr"`
	Via       string       `json:"via,omitempty"` // the relay it is connected to, if not this one
	State     string       `json:"state"`
	Timeline  wal.Timeline `json:"timeline"`
	Sent      wal.LSN      `json:"sent"`
	Confirmed Confirmation `json:"confirmed"`
	Lag       Lag          `json:"lag"`
	Since     time.Time    `json:"since"`
	Heard     time.Time    `json:"heard"`    // when it last confirmed something
	Bytes     int64        `json:"bytes"`    // on the wire
	RawBytes  int64        `json:"wal"`      // WAL in them
	Messages  int64        `json:"messages"` // with WAL
}

// Metrics returns the figures as they are now.
func (r *Replicator) Metrics() Metrics {
	b := r.buffer.Stats()
	m := Metrics{
		Head: b.Head, Tail: b.Tail, Entries: b.Appends, Bytes: b.Bytes, Memory: b.Memory,
		Frames: r.compressed.frames.Load(), FramesReused: r.compressed.reused.Load(),
		FrameBytes: r.compressed.raw.Load(), CompressedBytes: r.compressed.sent.Load(), Ratio: 1,
		Confirmed: r.Confirmed(),
	}
	if m.CompressedBytes > 0 {
		m.Ratio = float64(m.FrameBytes) / float64(m.CompressedBytes)
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	m.Timeline = r.timeline
	for _, s := range r.subs {
		if s.timeline == 0 && s.sent.Load() == 0 { // it only asks
			continue
		}
		m.Subscribers = append(m.Subscribers, r.metricsOfLocked(s, now))
	}
	slices.SortFunc(m.Subscribers, func(a, b SubscriberMetrics) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Since.Compare(b.Since))
	})
	return m
}

func (r *Replicator) metricsOfLocked(s *Subscriber, now time.Time) SubscriberMetrics {
	m := SubscriberMetrics{
		Name: s.name, Addr: s.addr, State: *s.state.Load(), Timeline: s.timeline, Sent: wal.LSN(s.sent.Load()), Confirmed: s.confirmed,
		Lag: r.lagOf(s.confirmed, now), Since: s.since, Heard: s.heard,
		Bytes: s.bytes.Load(), RawBytes: s.raw.Load(), Messages: s.messages.Load(),
	}
	if s.via != nil {
		m.Via = s.via.name
	}
	return m
}
