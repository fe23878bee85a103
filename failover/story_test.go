package failover

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/story"
	"github.com/heliosdb/helios/wal"
)

// TestStories plays testdata/*.txt, as package story does: what happens, and what the
// engine then does. What happens is one of
//
//	cluster n1 n2 n3 w1 …     a founded cluster of these, n1 is its primary; w… are witnesses;
//	                          key=value sets a setting: mode, k, min, lease, seal, promote, stop, maxlag, auto
//	empty n1 n2 …             the same before its first primary
//	leads n2                  the companion of n2 leads from now on, with a new engine
//	follows                   it does not any more
//	wait 1s                   time passes: ticks fall, and who is alive reports
//	alive n1 n2 …             these report by themselves from now on
//	silent n1 …               these do not any more
//	n1 primary|standby|down|hung|starting key=value …   a report, and what its next ones say
//	late n1 …                 the same report, as an old run or an old number would bring it: run=, seq=
//	lost n1 / observed n1 by n2 refused refused
//	sealed n2 1:5000 key=value / sealed n2 err why …    keys: epoch, replay, reign, relayed, or why it is no candidate
//	stopped 1:5000 / stopped err why / prepared / prepared err why
//	promoted 2 5000 / promoted err why
//	commit / refuse why       what becomes of what was proposed
//	auto commit / auto seal   from now on that happens by itself: the alive answer seals
//	found n1 / join n4 key=value / leave n4 / pause / resume / switchover [n2] / settings key=value
//	forced [n2] why …
func TestStories(t *testing.T) {
	story.Tell(t, func(t *testing.T, file string) {
		s := &stage{t: t, file: file}
		story.Play(t, file, func(lines []string) string {
			s.began, s.seen = s.now, nil
			for _, line := range lines {
				s.happen(line)
			}
			return strings.Join(s.seen, "")
		})
	})
}

// A stage is where a story is played: a log, one engine, and what the nodes say.
type stage struct {
	t          *testing.T
	file       string
	now, began time.Time
	seen       []string

	log      *State
	engine   *Engine
	term     uint64
	nodes    map[string]*actor
	proposed []Command
	round    map[string]uint64
	auto     map[string]bool
}

// An actor is a node that reports.
type actor struct {
	Report
	alive  bool
	due    time.Time
	fixed  bool // its epoch was told, and is not learned
	leased bool // the last answer had a lease
}

func (s *stage) must(line string, err error) {
	if err != nil {
		s.t.Fatalf("%s: %s: %v", s.file, line, err)
	}
}

func (s *stage) happen(line string) {
	words := strings.Fields(line)
	arg := func(i int) string { return strings.Join(words[min(i, len(words)):], " ") }
	switch words[0] {
	case "cluster", "empty":
		s.build(line, words[0] == "cluster", words[1:])
	case "leads":
		s.term++
		s.proposed = nil
		s.engine = New(words[1])
		s.step(Leads{Term: s.term, State: s.log})
	case "follows":
		s.step(Follows{})
	case "wait":
		d, err := time.ParseDuration(words[1])
		s.must(line, err)
		s.wait(d)
	case "alive", "silent":
		for _, name := range words[1:] {
			s.nodes[name].alive, s.nodes[name].due = words[0] == "alive", s.now
		}
	case "auto":
		s.auto[words[1]] = true
	case "lost":
		s.step(Lost{Node: words[1]})
	case "observed":
		s.step(Observed{Node: words[1], By: words[3], Round: s.round[words[1]], Companion: Dialled(words[4]), Postgres: Dialled(words[5])})
	case "sealed":
		s.seal(line, words[1:])
	case "forced":
		s.step(Forced{To: words[1], Reason: arg(2)})
	case "commit":
		s.commit(line)
	case "refuse":
		c := s.proposed[0]
		s.proposed = s.proposed[1:]
		s.step(Refused{Command: c, Err: arg(1)})
	default:
		if !s.answer(line, words, arg) && !s.command(line, words) {
			s.report(line, words)
		}
	}
}

// answer plays what an action came to.
func (s *stage) answer(line string, words []string, arg func(int) string) bool {
	failed := ""
	if len(words) > 1 && words[1] == "err" {
		failed = arg(2)
	}
	switch words[0] {
	case "stopped":
		in := Stopped{Epoch: s.log.Epoch, Err: failed}
		if failed == "" {
			in.Position = s.position(line, words[1])
		}
		s.step(in)
	case "prepared":
		s.step(Prepared{Epoch: s.log.Epoch, Err: failed})
	case "promoted":
		in := Promoted{Epoch: s.log.Epoch, Err: failed}
		if failed == "" {
			in.Timeline, in.SwitchLSN = wal.Timeline(s.number(line, words[1])), wal.LSN(s.number(line, words[2]))
		}
		s.step(in)
	default:
		return false
	}
	return true
}

// command plays a command that did not come from the engine.
func (s *stage) command(line string, words []string) bool {
	c := Command{}
	switch words[0] {
	case "found":
		c.Found = &Found{Node: words[1], SystemID: 7, Timeline: 1}
	case "join":
		m := s.member(words[1])
		if old, ok := s.log.Member(words[1]); ok {
			m = old
		}
		for _, word := range words[2:] {
			s.must(line, mark(&m, word))
		}
		c.Join = &m
		if s.nodes[m.Name] == nil {
			s.nodes[m.Name] = &actor{Report: Report{Node: m.Name, Run: 1}}
		}
	case "leave":
		c.Leave = words[1]
	case "pause", "resume":
		on := words[0] == "pause"
		c.Pause = &on
	case "switchover":
		c.Switchover = &Switchover{}
		if len(words) > 1 {
			c.Switchover.To = words[1]
		}
	case "settings":
		to := s.log.Settings
		for _, word := range words[1:] {
			s.must(line, setting(&to, word))
		}
		c.Settings = &to
	default:
		return false
	}
	s.proposed = append(s.proposed, c)
	s.commit(line)
	return true
}

// build founds a cluster.
func (s *stage) build(line string, founded bool, words []string) {
	*s = stage{
		t: s.t, file: s.file, now: time.Unix(0, 0), began: time.Unix(0, 0), log: &State{}, engine: New(""),
		nodes: map[string]*actor{}, round: map[string]uint64{}, auto: map[string]bool{},
	}
	settings := DefaultSettings()
	for _, word := range words {
		if strings.Contains(word, "=") {
			s.must(line, setting(&settings, word))
			continue
		}
		s.apply(line, Command{Join: new(s.member(word))})
		s.nodes[word] = &actor{Report: Report{Node: word, Run: 1, Postgres: ServerUp}}
		if strings.HasPrefix(word, "w") {
			s.nodes[word].Postgres = ServerNone
		}
	}
	s.apply(line, Command{Settings: &settings})
	if !founded {
		return
	}
	s.apply(line, Command{Found: &Found{Node: words[0], SystemID: 7, Timeline: 1}})
	s.apply(line, Command{Ready: &Ready{Epoch: 1, Timeline: 1}})
	if settings.Mode == Semisync {
		var set SyncSet
		for _, m := range s.log.Members {
			if m.Name != words[0] && m.CanSync() {
				set.Members = append(set.Members, m.Name)
			}
		}
		set.K = min(settings.K, len(set.Members))
		s.apply(line, Command{SyncSet: &set})
	}
	for name, a := range s.nodes {
		a.Epoch, a.Timeline = 1, 1
		a.LSN, a.ReplayLSN = 0x5000, 0x5000
		if a.Primary = name == words[0]; a.Primary {
			a.WantsLease = true
		} else {
			a.Streaming = a.Postgres == ServerUp
		}
	}
}

func (s *stage) member(name string) Member {
	m := Member{Name: name, Companion: name + ":7101", Postgres: name + ":5432"}
	if strings.HasPrefix(name, "w") {
		m.Witness, m.Postgres = true, ""
	}
	return m
}

// apply commits c, which no engine hears of.
func (s *stage) apply(line string, c Command) {
	next, err := s.log.Apply(c)
	s.must(line, err)
	s.must(line, next.Check())
	s.log = next
}

// commit commits the oldest command that was proposed.
func (s *stage) commit(line string) {
	if len(s.proposed) == 0 {
		s.t.Fatalf("%s: %s: nothing was proposed", s.file, line)
	}
	c := s.proposed[0]
	s.proposed = s.proposed[1:]
	next, err := s.log.Apply(c)
	if err != nil {
		s.say("refused: %v", err)
		s.step(Refused{Command: c, Err: err.Error()})
		return
	}
	s.must(line, next.Check())
	s.log = next
	s.step(Applied{State: s.log})
}

// wait lets time pass.
func (s *stage) wait(d time.Duration) {
	end := s.now.Add(d)
	for {
		at, who := end, ""
		for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
			if a := s.nodes[name]; a.alive && a.due.Before(at) {
				at, who = a.due, name
			}
		}
		next := s.engine.Next()
		if tick := !next.IsZero() && !next.After(at); tick {
			at, who = next, "tick"
		}
		if who == "" {
			s.now = end
			return
		}
		s.now = later(s.now, at)
		if who == "tick" {
			s.step(Tick{})
			if next := s.engine.Next(); !next.IsZero() && !next.After(s.now) {
				s.t.Fatalf("%s: the engine wants a tick at once, again", s.file)
			}
			continue
		}
		s.nodes[who].due = s.now.Add(500 * time.Millisecond)
		if s.nodes[who].Primary {
			s.nodes[who].due = s.now.Add(s.log.Settings.Lease / 5)
		}
		s.send(who, true)
	}
}

// report plays a report.
func (s *stage) report(line string, words []string) {
	late := words[0] == "late"
	if late {
		words = words[1:]
	}
	a := s.nodes[words[0]]
	if a == nil {
		s.t.Fatalf("%s: cannot play %q", s.file, line)
	}
	kept := *a
	if len(words) > 1 {
		s.must(line, a.become(words[1]))
		for _, word := range words[2:] {
			s.must(line, a.set(word))
		}
	}
	s.send(words[0], late)
	if late {
		*a = kept
	}
}

func (a *actor) become(what string) error {
	a.Primary, a.Streaming, a.WantsLease, a.Reason = false, false, false, ""
	switch a.Postgres = ServerUp; what {
	case "primary":
		a.Primary, a.WantsLease, a.GivesBack = true, true, false
	case "standby":
		a.Streaming, a.GivesBack = true, false
	case "down", "hung", "starting", "diverged", "none":
		a.Postgres = ServerState(what)
	default:
		return fmt.Errorf("cannot be %q", what)
	}
	return nil
}

// send has the engine hear what the node says. Its gate is what it was last assigned.
func (s *stage) send(name string, quiet bool) {
	a := s.nodes[name]
	if !quiet || a.alive {
		a.Seq++
	}
	if a.Primary {
		a.Confirmed = map[string]wal.LSN{}
		for _, o := range s.nodes {
			if o.Streaming && o.Timeline == a.Timeline {
				a.Confirmed[o.Node] = min(o.LSN, a.LSN)
			}
		}
		n := 0
		for _, m := range a.Gate.Set.Members {
			if a.Confirmed[m] >= a.Gate.Changed {
				n++
			}
		}
		a.Gate.Settled = n >= a.Gate.Set.K
	}
	s.step(Heard{Report: a.Report})
}

// seal plays the answer to a seal.
func (s *stage) seal(line string, words []string) {
	a := SealAnswer{Epoch: s.log.Epoch, Node: words[0]}
	if words[1] == "err" {
		a.Err = strings.Join(words[2:], " ")
		s.step(a)
		return
	}
	a.Sealed.Position = s.position(line, words[1])
	a.Sealed.ReplayLSN, a.Sealed.Reign = a.Sealed.Position.LSN, 1
	for _, word := range words[2:] {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "epoch":
			a.Epoch = Epoch(s.number(line, value))
		case "relayed":
			a.Sealed.Relayed = true
		case "reign":
			a.Sealed.Reign = Epoch(s.number(line, value))
		case "replay":
			a.Sealed.ReplayLSN = wal.LSN(s.number(line, value))
		default:
			a.Sealed.Err = word
		}
	}
	s.step(a)
}

// number reads decimal timelines and epochs; positions have at least three hex digits.
func (s *stage) number(line, text string) uint64 {
	base := 10
	if len(text) > 2 {
		base = 16
	}
	n, err := strconv.ParseUint(text, base, 64)
	s.must(line, err)
	return n
}

func (s *stage) position(line, text string) wal.Position {
	tli, lsn, _ := strings.Cut(text, ":")
	return wal.Position{Timeline: wal.Timeline(s.number(line, tli)), LSN: wal.LSN(s.number(line, lsn))}
}

// set sets the field of a report that a word such as lsn=5000 speaks of.
func (a *actor) set(word string) error {
	key, value, _ := strings.Cut(word, "=")
	number, notNumber := strconv.ParseUint(value, 10, 64)
	position, notLSN := wal.ParseLSN("0/" + value)
	switch key {
	case "lsn":
		a.LSN, a.ReplayLSN = position, position
		return notLSN
	case "replay":
		a.ReplayLSN = position
		return notLSN
	case "tli":
		a.Timeline = wal.Timeline(number)
		return notNumber
	case "epoch":
		a.Epoch, a.fixed = Epoch(number), true
		return notNumber
	case "term":
		a.Term = number
		return notNumber
	case "run":
		a.Run, a.Seq = number, 0
		return notNumber
	case "seq":
		a.Seq = number
		return notNumber
	case "why":
		a.Reason = value
	case "gives":
		a.GivesBack = true
	case "nolease":
		a.WantsLease = false
	case "cut":
		a.Streaming = false
	case "restarting":
		d, err := time.ParseDuration(value)
		a.Restarting = d
		return err
	default:
		return fmt.Errorf("%q is no key", key)
	}
	return nil
}

// setting sets what a word such as lease=1s speaks of.
func setting(t *Settings, word string) error {
	key, value, _ := strings.Cut(word, "=")
	d, notSpan := time.ParseDuration(value)
	n, notNumber := strconv.Atoi(value)
	switch key {
	case "mode":
		t.Mode = ReplicationMode(value)
		return nil
	case "auto":
		t.AutoFailover = value == "on"
		return nil
	case "k":
		t.K = n
	case "min":
		t.MinReplicas = n
	case "maxlag":
		t.MaxLag = uint64(n)
	case "lease":
		t.Lease, notNumber = d, notSpan
	case "seal":
		t.SealBudget, notNumber = d, notSpan
	case "promote":
		t.PromoteBudget, notNumber = d, notSpan
	case "stop":
		t.StopBudget, notNumber = d, notSpan
	default:
		return fmt.Errorf("%q is no setting", key)
	}
	return notNumber
}

// mark sets what a word such as zone=a says of a member.
func mark(m *Member, word string) error {
	key, value, _ := strings.Cut(word, "=")
	n, err := strconv.Atoi(value)
	switch key {
	case "priority":
		m.Priority = n
		return err
	case "zone":
		m.Zone = value
	case "maintenance":
		m.Maintenance = value != "off"
	case "nocandidate":
		m.NoCandidate = true
	case "nosync":
		m.NoSync = true
	case "nonvoter":
		m.NonVoter = true
	default:
		return fmt.Errorf("%q is no key of a member", key)
	}
	return nil
}

// step has the engine take a step, writes down what it does, and does of it what happens by
// itself.
func (s *stage) step(in Input) {
	var after []func()
	warned := s.engine.Warnings()
	quiet := false
	if h, ok := in.(Heard); ok {
		quiet = s.nodes[h.Report.Node].alive
	}
	for _, action := range s.engine.Step(s.now, in) {
		switch a := action.(type) {
		case Propose:
			s.say("propose %s", tell(a.Command))
			s.proposed = append(s.proposed, a.Command)
			if s.auto["commit"] {
				after = append(after, func() { s.commit("auto commit") })
			}
		case Assign:
			s.assigned(a.Assignment, quiet)
		case Probe:
			s.round[a.Node] = a.Round
			s.say("probe %s by %s", a.Node, a.By)
		case Seal:
			s.say("seal %s for epoch %d", a.Node, a.Epoch)
			if n := s.nodes[a.Node]; s.auto["seal"] && n.alive {
				after = append(after, func() {
					s.step(SealAnswer{Epoch: a.Epoch, Node: a.Node, Sealed: Sealed{Position: wal.Position{Timeline: n.Timeline, LSN: n.LSN}, ReplayLSN: n.ReplayLSN}})
				})
			}
		case Prepare:
			s.say("prepare %s", a.Node)
		case Stop:
			s.say("stop %s", a.Node)
		case Promote:
			what := fmt.Sprintf("promote %s in epoch %d", a.Node, a.Epoch)
			if len(a.Fetch) > 0 {
				var from []string
				for _, m := range a.Fetch {
					from = append(from, m.Name)
				}
				what += fmt.Sprintf(", once it has %s of %s", a.Until, strings.Join(from, " or "))
			}
			if a.Timeline > s.log.Timeline {
				what += fmt.Sprintf(", behind timeline %d", a.Timeline)
			}
			s.say("%s", what)
		case Transfer:
			s.say("lead: %s", a.To)
		case Warn:
			s.say("warn: %s", a.Text)
			if !slices.Contains(s.engine.Warnings(), a.Text) {
				s.say("and does not keep it among its warnings")
			}
		}
	}
	for _, text := range warned {
		if !slices.Contains(s.engine.Warnings(), text) {
			s.say("no more: %s", text)
		}
	}
	for _, f := range after {
		f()
	}
}

// say writes down what the engine did, and when if it was after a while.
func (s *stage) say(format string, args ...any) {
	at := ""
	if d := s.now.Sub(s.began); d > 0 {
		at = "+" + d.Round(100*time.Microsecond).String() + " "
	}
	s.seen = append(s.seen, at+fmt.Sprintf(format, args...)+"\n")
}

// assigned hands a node its assignment. Of answers to reports that come by themselves only
// those are written down that grant a lease where the last one did not, or the reverse.
func (s *stage) assigned(a Assignment, quiet bool) {
	n := s.nodes[a.Node]
	changed := n.Term != a.Term || n.leased != (a.Lease > 0)
	n.leased = a.Lease > 0
	n.Term, n.Number = a.Term, a.Number
	if !n.fixed {
		n.Epoch = a.Epoch
	}
	if a.Primary.Name == a.Node && !n.Gate.Set.Equal(a.Gate) {
		n.Gate.Set, n.Gate.Changed = a.Gate, n.LSN
	}
	if a.Run != 0 && quiet && (!changed || a.Primary.Name != a.Node) {
		return
	}
	what := fmt.Sprintf("epoch %d %s", a.Epoch, a.Phase)
	if a.Primary.Name != "" {
		what += ", primary " + a.Primary.Name
	}
	if a.Primary.Name == a.Node {
		what += fmt.Sprintf(", gate %d of %v", a.Gate.K, a.Gate.Members)
	}
	if a.Lease > 0 {
		what += fmt.Sprintf(", lease %v", a.Lease)
	}
	verb := "assign"
	if a.Run != 0 {
		verb = "answer"
	}
	s.say("%s %s: %s", verb, a.Node, what)
}

// tell describes a command on a line.
func tell(c Command) string {
	switch {
	case c.Fence != nil:
		f := c.Fence
		kind := ""
		if f.Planned {
			kind = " planned"
		}
		if f.Forced {
			kind = " forced"
		}
		return fmt.Sprintf("fence %d%s: %s", f.Epoch, kind, f.Reason)
	case c.Elect != nil:
		var by []string
		for _, a := range c.Elect.Sealed {
			by = append(by, fmt.Sprintf("%s at %s", a.Node, a.Position))
		}
		return fmt.Sprintf("elect %s in epoch %d: %s; of %s", c.Elect.Node, c.Elect.Epoch, c.Elect.Reason, cmp.Or(strings.Join(by, ", "), "nobody"))
	case c.Ready != nil:
		return fmt.Sprintf("ready in epoch %d on timeline %s from %s", c.Ready.Epoch, c.Ready.Timeline, c.Ready.SwitchLSN)
	case c.SyncSet != nil:
		return fmt.Sprintf("sync set %d of %v", c.SyncSet.K, c.SyncSet.Members)
	case c.Cancel != "":
		return "cancel: " + c.Cancel
	}
	return reflect.TypeOf(c).String()
}
