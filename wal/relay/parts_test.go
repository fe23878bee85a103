package relay

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

func TestAPositionHasTheAgeOfTheFirstByteBehindIt(t *testing.T) {
	var m marks
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	if got := m.age(0, at(5)); got != 0 {
		t.Errorf("the age before anything has arrived is %v", got)
	}
	m.arrived(100, at(0))
	m.arrived(150, at(0)) // within the resolution
	m.arrived(200, at(10))
	m.arrived(300, at(20))
	for position, want := range map[wal.LSN]int{0: 30, 99: 30, 149: 30, 150: 20, 199: 20, 200: 10, 299: 10, 300: 0, 1000: 0} {
		if got := m.age(position, at(30)); got != time.Duration(want)*time.Millisecond {
			t.Errorf("the age of %d is %v, want %d ms", position, got, want)
		}
	}
	if got := m.age(0, start.Add(-time.Hour)); got != 0 {
		t.Errorf("when the clock has gone back the age is %v", got)
	}
	m.forget()
	if got := m.age(0, at(30)); got != 0 {
		t.Errorf("the age after all was forgotten is %v", got)
	}
}

func TestWhatWasTakenBackHasNoAge(t *testing.T) {
	start := time.Unix(1000, 0)
	for name, many := range map[string]int{"few": 10, "wrapped": markCount + 100} {
		var m marks
		for i := range many {
			m.arrived(wal.LSN(i+1)*100, start.Add(time.Duration(i)*10*time.Millisecond))
		}
		fork := wal.LSN(many-5)*100 + 50
		m.truncate(fork)
		now := start.Add(time.Duration(many) * 10 * time.Millisecond)
		if got := m.age(fork, now); got != 0 {
			t.Errorf("%s: the age at the fork is %v, want none", name, got)
		}
		if got, want := m.age(fork-1, now), 50*time.Millisecond; got != want {
			t.Errorf("%s: the byte before the fork is %v old, want %v", name, got, want)
		}
		// The new branch, slower than the old one was.
		m.arrived(fork+10, now)
		for position, want := range map[wal.LSN]int{fork - 200: 80, fork - 1: 60, fork: 10, fork + 9: 10, fork + 10: 0} {
			if got := m.age(position, now.Add(10*time.Millisecond)); got != time.Duration(want)*time.Millisecond {
				t.Errorf("%s: the age of fork%+d is %v, want %v", name, int64(position)-int64(fork), got, time.Duration(want)*time.Millisecond)
			}
		}
	}
}

func TestOnlySoManyArrivalsAreRemembered(t *testing.T) {
	var m marks
	start := time.Unix(1000, 0)
	const many = 3 * markCount
	for i := range many {
		m.arrived(wal.LSN(i+1), start.Add(time.Duration(i)*time.Millisecond))
	}
	now := start.Add(many * time.Millisecond)
	if got, want := m.age(0, now), markCount*time.Millisecond; got != want {
		t.Errorf("what is older than all that is remembered has age %v, want %v", got, want)
	}
	if got, want := m.age(many-10, now), 10*time.Millisecond; got != want {
		t.Errorf("the age of the tenth from the end is %v, want %v", got, want)
	}
	if len(m.ring) != markCount {
		t.Errorf("%d arrivals are remembered, want %d", len(m.ring), markCount)
	}
}

func FuzzPositions(f *testing.F) {
	f.Add(encodePositions(nil))
	f.Add(encodePositions([]position{{"s1", 3, Confirmation{30, 20, 10}}, {"", 0, Confirmation{}}}))
	f.Fuzz(func(t *testing.T, text []byte) {
		of, err := parsePositions(text)
		if err != nil {
			if !errors.Is(err, errPositions) {
				t.Fatalf("the error is %v", err)
			}
			return
		}
		if again := encodePositions(of); !slices.Equal(again, text) {
			t.Fatalf("% x is read as %v, which is written % x", text, of, again)
		}
	})
}

func TestAReportOfPositionsIsBounded(t *testing.T) {
	of := make([]position, maxPositions+7)
	for i := range of {
		of[i] = position{strings.Repeat("n", 300), 1, Confirmation{1, 2, 3}}
	}
	got, err := parsePositions(encodePositions(of))
	if err != nil || len(got) != maxPositions || len(got[0].name) != 255 {
		t.Errorf("a report of %d standbys is read as one of %d, %v; want %d", len(of), len(got), err, maxPositions)
	}
	for name, text := range map[string]string{
		"nothing": "", "half a count": "\x00", "too many": "\xff\xff", "no standby": "\x00\x01", "half a standby": "\x00\x01\x05abc",
		"more than was counted": "\x00\x00x",
	} {
		if _, err := parsePositions([]byte(text)); !errors.Is(err, errPositions) {
			t.Errorf("%s: %v, want %v", name, err, errPositions)
		}
	}
}

// branchOf returns the branch that a history file's lines tell of.
func branchOf(t *testing.T, now wal.Timeline, lines ...string) *branch {
	t.Helper()
	var file []byte
	if len(lines) > 0 {
		file = []byte(strings.Join(lines, "\n") + "\n")
	}
	b, err := newBranch(replication.Identity{System: "1", Timeline: now, SegmentSize: 1 << 20}, file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestABranchKnowsWhichTimelineWroteWhat(t *testing.T) {
	b := branchOf(t, 7, "# a comment", "", "1\t0/500000\tno recovery target specified", "3\t0/512345\tbefore 2000-01-01", "4\t0/512345\t", "5 0/900000 x")
	spans := []span{{1, 0, 0x500000}, {3, 0x500000, 0x512345}, {4, 0x512345, 0x512345}, {5, 0x512345, 0x900000}, {7, 0x900000, noEnd}}
	if !slices.Equal(b.spans, spans) {
		t.Fatalf("the spans are %v, want %v", b.spans, spans)
	}
	for i, s := range spans {
		if got, ok := b.span(s.timeline); !ok || got != s {
			t.Errorf("span(%s) = %v, %v; want %v", s.timeline, got, ok, s)
		}
		want := wal.Position{}
		if i+1 < len(spans) {
			want = wal.Position{Timeline: spans[i+1].timeline, LSN: s.end}
		}
		if got := b.after(s.timeline); got != want {
			t.Errorf("after(%s) = %v, want %v", s.timeline, got, want)
		}
	}
	for _, other := range []wal.Timeline{0, 2, 6, 8} {
		if _, ok := b.span(other); ok || b.after(other) != (wal.Position{}) {
			t.Errorf("timeline %s is taken for a part of the branch", other)
		}
	}
	for at, want := range map[wal.LSN]wal.Timeline{0: 1, 0x4fffff: 1, 0x500000: 3, 0x512344: 3, 0x512345: 5, 0x8fffff: 5, 0x900000: 7, noEnd - 1: 7} {
		if got := b.at(at); got != want {
			t.Errorf("at(%s) = %s, want %s", at, got, want)
		}
	}
	for at, want := range map[wal.LSN][]wal.Timeline{
		0x100000: {1}, 0x4fffff: {1},
		0x500000: {5, 4, 3}, 0x512344: {5, 4, 3}, // all of them began in this segment, and copied what was in it
		0x512345: {5}, 0x5fffff: {5}, 0x8fffff: {5}, 0x900000: {7},
	} {
		if got := b.owners(at); !slices.Equal(got, want) {
			t.Errorf("owners(%s) = %v, want %v", at, got, want)
		}
	}
	if b.timeline() != 7 || string(b.files[7]) == "" {
		t.Errorf("the branch is on timeline %s, with the history %q", b.timeline(), b.files[7])
	}
}

func TestTwoBranchesHaveOneHistoryUpToTheirFork(t *testing.T) {
	one := branchOf(t, 1)
	two := branchOf(t, 2, "1 0/500000 x")
	for name, tt := range map[string]struct {
		a, b *branch
		want wal.LSN
	}{
		"the same, of one timeline":      {one, branchOf(t, 1), noEnd},
		"the same, of two":               {two, branchOf(t, 2, "1 0/500000 another reason"), noEnd},
		"one goes on from the other":     {two, one, 0x500000},
		"two timelines later":            {branchOf(t, 3, "1 0/500000 x", "2 0/600000 x"), two, 0x600000},
		"two timelines later, the first": {branchOf(t, 3, "1 0/500000 x", "2 0/600000 x"), one, 0x500000},
		"of the same number, elsewhere":  {two, branchOf(t, 2, "1 0/400000 x"), 0x400000},
		"two from one place":             {two, branchOf(t, 3, "1 0/500000 x"), 0x500000},
		"one forks before the other":     {branchOf(t, 3, "1 0/500000 x", "2 0/600000 x"), branchOf(t, 4, "1 0/450000 x"), 0x450000},
		"the second timeline is another": {branchOf(t, 4, "1 0/500000 x", "2 0/600000 x"), branchOf(t, 4, "1 0/500000 x", "3 0/550000 x"), 0x500000},
		"the third begins elsewhere":     {branchOf(t, 3, "1 0/500000 x", "2 0/600000 x"), branchOf(t, 3, "1 0/500000 x", "2 0/580000 x"), 0x580000},
		"nothing in common":              {branchOf(t, 5), branchOf(t, 6), 0},
		"a history that lacks its past":  {branchOf(t, 2), two, 0},
	} {
		if got := tt.a.fork(tt.b); got != tt.want {
			t.Errorf("%s: the fork is at %s, want %s", name, got, tt.want)
		}
		if got := tt.b.fork(tt.a); got != tt.want {
			t.Errorf("%s, seen from the other: the fork is at %s, want %s", name, got, tt.want)
		}
	}
}

func TestABranchIsNotMadeOfAHistoryThatCannotBe(t *testing.T) {
	for name, file := range map[string]string{
		"of the future": "5 0/500000 x", "out of order": "2 0/500000 x\n1 0/600000 x", "garbage": "what is this",
	} {
		if b, err := newBranch(replication.Identity{Timeline: 3, SegmentSize: 1 << 20}, []byte(file)); err == nil {
			t.Errorf("%s: %+v, want an error", name, b.spans)
		}
	}
}

// The next timeline's history takes the place of the one before, in a branch of
// its own.
func TestReadingAHistoryLeavesOtherBranchesAlone(t *testing.T) {
	old := branchOf(t, 2, "1 0/500000 x")
	files := maps.Clone(old.files)
	next := *old
	if err := next.read(3, []byte("1 0/500000 x\n2 0/600000 x\n")); err != nil {
		t.Fatal(err)
	}
	if old.timeline() != 2 || len(old.spans) != 2 || len(old.files) != len(files) {
		t.Errorf("the branch before has become %+v", old)
	}
	if next.timeline() != 3 || len(next.spans) != 3 || len(next.files) != 2 {
		t.Errorf("the branch after it is %+v", next)
	}
}

func TestSlotsBelongToWhoUsesThem(t *testing.T) {
	s := newSlots()
	var saved []string
	s.load(map[string]wal.LSN{"old": 500}, func(of map[string]wal.LSN) error {
		saved = append(saved, fmt.Sprint(of))
		return nil
	})
	create := func(name string, at wal.LSN, temporary bool, session uint32, want bool) {
		t.Helper()
		if made, err := s.create(name, at, temporary, session); made != want || err != nil {
			t.Errorf("create(%s) = %v, %v; want %v", name, made, err, want)
		}
	}
	create("a", 700, false, 1, true)
	create("a", 900, false, 2, false)
	create("old", 900, false, 2, false)
	create("t", 100, true, 1, true)
	if want := []string{"map[a:0/2BC old:0/1F4]"}; !slices.Equal(saved, want) {
		t.Errorf("saved are %v, want %v: temporary slots are not", saved, want)
	}
	if got := s.oldest(); got != 100 {
		t.Errorf("the oldest is at %s, want that of t", got)
	}
	for _, tt := range []struct {
		name          string
		session, want uint32
	}{{"a", 1, 0}, {"a", 1, 0}, {"a", 2, 1}, {"t", 2, 1}, {"new", 2, 0}, {"new", 3, 2}} {
		if got := s.take(tt.name, tt.session); got != tt.want {
			t.Errorf("session %d takes %s: %d has it, want %d", tt.session, tt.name, got, tt.want)
		}
	}
	s.confirm("a", 800)
	s.confirm("a", 0)
	s.confirm("nobody", 900)
	if at, ok := s.read("a"); at != 800 || !ok {
		t.Errorf("a is at %s, %v; want 800", at, ok)
	}
	if _, owner, _ := s.drop("a", 2); owner != 1 {
		t.Errorf("a slot that session 1 uses was dropped")
	}
	s.leave(1)
	if _, ok := s.read("t"); ok {
		t.Error("a temporary slot outlived its session")
	}
	if found, owner, err := s.drop("a", 2); !found || owner != 0 || err != nil {
		t.Errorf("drop = %v, %d, %v", found, owner, err)
	}
	if found, _, _ := s.drop("a", 2); found {
		t.Error("it was dropped twice")
	}
	if got, want := fmt.Sprint(s.list()), "map[new:0/0 old:0/1F4]"; got != want {
		t.Errorf("what is left is %s, want %s", got, want)
	}
	if got := s.oldest(); got != 500 {
		t.Errorf("the oldest is at %s, want that of old: new has none yet", got)
	}
}

func TestASlotThatCouldNotBeSavedIsNotThere(t *testing.T) {
	s := newSlots()
	full := errors.New("no space left on device")
	s.load(nil, func(map[string]wal.LSN) error { return full })
	if made, err := s.create("a", 1, false, 1); made || !errors.Is(err, full) {
		t.Errorf("create = %v, %v; want %v", made, err, full)
	}
	if _, ok := s.read("a"); ok {
		t.Error("the slot is there, though the subscriber was told that it is not")
	}
}

// acknowledged registers subscribers and returns a function that has one
// confirm, and tells what the policy makes of it.
type ackTest struct {
	t *testing.T
	r *Replicator
}

func newAckTest(t *testing.T, policy string) ackTest {
	t.Helper()
	p, err := ParsePolicy(policy)
	if err != nil {
		t.Fatal(err)
	}
	b := newTestBuffer(t, MinBufferSize)
	fillBuffer(t, b, 1000, 9000, 0)
	return ackTest{t, NewReplicator(b, 1, p)}
}

// stream begins a session of a new subscriber that is sent all up to sent.
func (a ackTest) stream(name string, on wal.Timeline, sent wal.LSN) *Subscriber {
	s := a.r.Register(name, "")
	s.begin(on, 1000)
	s.Sent(sent, StateStreaming)
	return s
}

// confirm has s tell that it has everything up to at.
func (a ackTest) confirm(s *Subscriber, at wal.LSN) {
	s.Acknowledge(Confirmation{Write: at, Flush: at, Apply: at})
}

func (a ackTest) want(why string, flush wal.LSN) {
	a.t.Helper()
	if got := a.r.Confirmed().Flush; got != flush {
		a.t.Errorf("%s: %d is confirmed, want %d", why, got, flush)
	}
}

func TestAQuorumCountsEachNameOnce(t *testing.T) {
	a := newAckTest(t, "ANY 2 (s1, s2, s3)")
	first := a.stream("s1", 1, 9000)
	again := a.stream("s1", 1, 9000)
	other := a.stream("S1", 1, 9000)
	stranger := a.stream("s4", 1, 9000)
	for _, s := range []*Subscriber{first, again, other, stranger} {
		a.confirm(s, 8000)
	}
	a.want("one of the named in three sessions, and one who is not named", 0)
	s2 := a.stream("s2", 1, 9000)
	a.confirm(s2, 5000)
	a.want("two of the named", 5000)
	a.confirm(s2, 4000)
	a.want("one went back", 5000)
	a.r.Deregister(s2)
	a.want("one has gone", 5000)
	a.confirm(a.stream("s3", 1, 6000), 7000)
	a.want("one has told more than it was sent", 6000)
}

func TestAnOldTimelineDoesNotCount(t *testing.T) {
	a := newAckTest(t, "ANY 1 (*)")
	s := a.stream("s1", 1, 9000)
	a.confirm(s, 8000)
	a.want("on the timeline", 8000)
	if err := a.r.Advance(2, 7000); err != nil {
		t.Fatal(err)
	}
	a.want("after the switch nobody has confirmed anything", 0)
	if err := a.r.Buffer().Append(7000, walAt(7000, 5000, 1)); err != nil {
		t.Fatal(err)
	}
	a.confirm(s, 9000)
	a.want("a session on the timeline that was left", 0)
	s.end()
	a.confirm(s, 9000)
	a.want("between two sessions", 0)
	s.begin(2, 6000)
	a.want("a session has begun", 0)
	a.confirm(s, 9000)
	a.want("it was sent nothing yet, and has what lies before where it began", 6000)
	s.Sent(11_000, StateStreaming)
	a.want("what it told before it was sent more", 6000)
	a.confirm(s, 10_000)
	a.want("on the new timeline", 10_000)
}

func TestARelayCountsForItselfOnlyWhereItIsNamed(t *testing.T) {
	for policy, want := range map[string]wal.LSN{
		"ANY 1 (*)":          3000, // the standby behind it
		"ANY 2 (*)":          0,
		"ANY 1 (s1)":         3000,
		"ANY 1 (relay)":      5000,
		"ANY 2 (relay, s1)":  3000,
		"ANY 1 (other, s2)":  0,
		"ANY 2 (s1, s2, s3)": 0,
	} {
		a := newAckTest(t, policy)
		relay := a.stream("relay", 1, 9000)
		relay.tell([]position{{"s1", 1, Confirmation{3000, 3000, 3000}}, {"s2", 2, Confirmation{4000, 4000, 4000}}})
		a.confirm(relay, 5000)
		a.want(policy, want)
	}
}

func TestWhatARelayTellsIsNotMoreThanItWasSent(t *testing.T) {
	a := newAckTest(t, "ANY 1 (*)")
	relay := a.stream("relay", 1, 4000)
	tell := func(at wal.LSN) { relay.tell([]position{{"s1", 1, Confirmation{at, at, at}}}) }
	tell(8000)
	a.want("more than the relay was sent", 4000)
	direct := a.stream("s1", 1, 9000)
	a.confirm(direct, 3000)
	a.want("the same standby, connected here later", 4000)
	relay.tell(nil)
	if _, ok := a.r.Lag("s1"); !ok {
		t.Error("the standby that is connected here went with the report")
	}
	a.r.Deregister(relay)
	if got := a.r.positions(); len(got) != 1 || got[0].name != "s1" {
		t.Errorf("the subscribers are %v, want s1 alone", got)
	}
}

// A relay that comes back has all that there is, and is sent nothing until there
// is more. What stands behind it must be believed before that.
func TestConfirmationsAreBelievedWhenThereIsNothingToSend(t *testing.T) {
	a := newAckTest(t, "ANY 1 (s1)")
	relay := a.r.Register("relay", "")
	relay.begin(1, 10_000)
	relay.tell([]position{{"s1", 1, Confirmation{10_000, 10_000, 9000}}})
	a.want("it has everything", 10_000)
}

func TestWhatTheSpoolHasCountsOnItsTimeline(t *testing.T) {
	a := newAckTest(t, "receipt")
	a.r.spool(wal.Position{Timeline: 1, LSN: 8000})
	a.want("flushed", 8000)
	if err := a.r.Advance(2, 7000); err != nil {
		t.Fatal(err)
	}
	if err := a.r.Buffer().Append(7000, walAt(7000, 5000, 1)); err != nil {
		t.Fatal(err)
	}
	a.want("what was taken back", 7000)
	a.r.spool(wal.Position{Timeline: 1, LSN: 9000}) // it was on its way to the disk
	a.want("a flush of what was taken back", 7000)
	a.r.spool(wal.Position{Timeline: 2, LSN: 9000})
	a.want("on the new timeline", 9000)
	if got := a.r.Confirmed(); got.Write != 12_000 || got.Apply != 0 {
		t.Errorf("confirmed is %+v, want all as written and nothing as applied", got)
	}
}

// Whatever happens in whatever order, nothing is confirmed that fewer than k
// names have confirmed on the current timeline for WAL that they were sent.
func TestNothingIsConfirmedThatKHaveNot(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 21))
		a := newAckTest(t, "ANY 2 (*)")
		timeline := wal.Timeline(1)
		best := map[string]wal.LSN{} // what each name has truly confirmed on this timeline
		type one struct {
			s    *Subscriber
			on   wal.Timeline
			sent wal.LSN
		}
		var subs []*one
		for range 60 {
			switch x := rnd.IntN(10); {
			case x == 0 || len(subs) == 0:
				n := &one{on: timeline - wal.Timeline(rnd.IntN(int(timeline))), sent: 1000}
				n.s = a.r.Register(string(rune('a'+rnd.IntN(4))), "")
				n.s.begin(n.on, 1000)
				subs = append(subs, n)
			case x == 1:
				i := rnd.IntN(len(subs))
				a.r.Deregister(subs[i].s)
				subs = slices.Delete(subs, i, i+1)
			case x == 2 && rnd.IntN(3) == 0:
				timeline++
				if err := a.r.Advance(timeline, 10_000); err != nil {
					t.Fatal(err)
				}
				clear(best)
			case x < 6:
				n := subs[rnd.IntN(len(subs))]
				n.sent = max(n.sent, wal.LSN(1000+rnd.IntN(9000)))
				n.s.Sent(n.sent, StateStreaming)
			default:
				n := subs[rnd.IntN(len(subs))]
				at := wal.LSN(rnd.IntN(12_000))
				a.confirm(n.s, at)
				if at = min(at, n.sent); n.on == timeline {
					best[n.s.name] = max(best[n.s.name], at)
				}
			}
			got, have := a.r.Confirmed().Flush, 0
			for _, at := range best {
				if at >= got {
					have++
				}
			}
			if got != 0 && have < 2 {
				t.Fatalf("seed %d: %d is confirmed, and the names have %v", seed, got, best)
			}
		}
	}
}

func TestFeedbackIsTheOldestOfAll(t *testing.T) {
	a := newAckTest(t, "none")
	want := func(why string, xmin, catalog uint64) {
		t.Helper()
		if got := a.r.Feedback(); got.Xmin != xmin || got.CatalogXmin != catalog {
			t.Errorf("%s: the feedback is %d, %d; want %d, %d", why, got.Xmin, got.CatalogXmin, xmin, catalog)
		}
	}
	s1, s2 := a.stream("s1", 1, 9000), a.stream("s2", 1, 9000)
	want("nobody has sent any", 0, 0)
	s1.setFeedback(replication.Feedback{Xmin: 1<<32 | 5})
	s2.setFeedback(replication.Feedback{Xmin: 0xFFFF_FFF0, CatalogXmin: 7})
	want("the older is of the epoch before", 0xFFFF_FFF0, 7)
	s2.setFeedback(replication.Feedback{CatalogXmin: 9})
	want("one holds nothing back any more", 1<<32|5, 9)
	a.r.Deregister(s1)
	want("one has gone", 0, 9)
}
