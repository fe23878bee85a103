package failover

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/heliosdb/helios/wal"
)

// logOf applies commands to an empty log.
func logOf(t *testing.T, commands ...Command) *State {
	t.Helper()
	s := &State{}
	for i, c := range commands {
		next, err := s.Apply(c)
		if err != nil {
			t.Fatalf("command %d, %s: %v", i, tell(c), err)
		}
		if err := next.Check(); err != nil {
			t.Fatalf("after command %d, %s: %v", i, tell(c), err)
		}
		s = next
	}
	return s
}

func join(name string) Command {
	m := Member{Name: name, Companion: name + ":7101", Postgres: name + ":5432"}
	if name[0] == 'w' {
		m.Witness, m.Postgres = true, ""
	}
	return Command{Join: &m}
}

// three is a cluster of three and a witness whose n1 is ready, where commits wait for one of two.
func three() []Command {
	semisync := DefaultSettings()
	semisync.Mode = Semisync
	return []Command{
		join("n1"),
		join("n2"),
		join("n3"),
		join("w1"),
		{Settings: &semisync},
		{Found: &Found{Node: "n1", SystemID: 7, Timeline: 1}},
		{Ready: &Ready{Epoch: 1, Timeline: 1}},
		{SyncSet: &SyncSet{Members: []string{"n2", "n3"}, K: 1}},
	}
}

func sealedAt(node string, t wal.Timeline, lsn wal.LSN) Sealed {
	return Sealed{Node: node, Position: wal.Position{Timeline: t, LSN: lsn}, ReplayLSN: lsn, Reign: 1}
}

func TestTheLogRefusesWhatBreaksItsRules(t *testing.T) {
	fence := func(e Epoch) Command { return Command{Fence: &Fence{Epoch: e, Reason: "n1 is silent"}} }
	both := []Sealed{sealedAt("n2", 1, 100), sealedAt("n3", 1, 90)}
	elect := func(e Epoch, node string, sealed ...Sealed) Command {
		return Command{Elect: &Elect{Epoch: e, Node: node, Sealed: sealed}}
	}
	with := func(c Command, change func(*Elect)) Command { change(c.Elect); return c }
	forced := Command{Fence: &Fence{Epoch: 2, Forced: true, To: "n3", Reason: "now"}}
	wish := Command{Switchover: &Switchover{To: "n2"}}
	planned := Command{Fence: &Fence{Epoch: 2, Planned: true, To: "n2", Reason: "switchover"}}
	until := wal.Position{Timeline: 1, LSN: 100}
	set := func(k int, members ...string) Command {
		return Command{SyncSet: &SyncSet{Members: members, K: k}}
	}
	for name, tt := range map[string]struct {
		before []Command
		c      Command
		want   string // in the error; "" if it is taken
	}{
		"a fence of the next epoch":                        {nil, fence(2), ""},
		"a fence of this epoch":                            {nil, fence(1), "fence of epoch 1"},
		"a fence that leaves one out":                      {nil, fence(3), "fence of epoch 3"},
		"a second fence":                                   {[]Command{fence(2)}, fence(3), ""},
		"the same fence twice":                             {[]Command{fence(2)}, fence(2), "fence of epoch 2"},
		"a planned fence without a wish":                   {nil, planned, "for a switchover"},
		"a planned fence":                                  {[]Command{wish}, planned, ""},
		"a planned and forced fence":                       {[]Command{wish}, Command{Fence: &Fence{Epoch: 2, Planned: true, Forced: true}}, "not both"},
		"a forced fence to a stranger":                     {nil, Command{Fence: &Fence{Epoch: 2, Forced: true, To: "n9"}}, "cannot fail over"},
		"a forced fence to a witness":                      {nil, Command{Fence: &Fence{Epoch: 2, Forced: true, To: "w1"}}, "cannot fail over"},
		"an election without a fence":                      {nil, elect(1, "n2", both...), "1 is ready"},
		"an election in another epoch":                     {[]Command{fence(2)}, elect(3, "n2", both...), "election in epoch 3"},
		"an election of who has the most":                  {[]Command{fence(2)}, elect(2, "n2", both...), ""},
		"a second election":                                {[]Command{fence(2), elect(2, "n2", both...)}, elect(2, "n3", both...), "2 is elected"},
		"an election of who has less":                      {[]Command{fence(2)}, elect(2, "n3", both...), "there is WAL up to"},
		"of who has less, and fetches the rest":            {[]Command{fence(2)}, with(elect(2, "n3", both...), func(e *Elect) { e.Until = until }), ""},
		"of who would fetch what nobody has":               {[]Command{fence(2)}, with(elect(2, "n3", both...), func(e *Elect) { e.Until.Timeline, e.Until.LSN = 1, 101 }), "there is WAL up to"},
		"an election of too few":                           {[]Command{fence(2)}, elect(2, "n2", both[0]), "2 of [n2 n3] have to be sealed"},
		"an election with one that has no data":            {[]Command{fence(2)}, elect(2, "n2", both[0], Sealed{Node: "n3"}), "have to be sealed"},
		"an election of a witness":                         {[]Command{fence(2)}, elect(2, "w1", both...), "no member with a PostgreSQL"},
		"an election of who was not sealed":                {[]Command{fence(2)}, elect(2, "n3", both[0]), "has not been sealed"},
		"an election of who cannot":                        {[]Command{fence(2)}, elect(2, "n2", Sealed{Node: "n2", Position: until, Err: "hangs"}, both[1]), "hangs"},
		"an election of the old primary, which has it all": {[]Command{fence(2)}, elect(2, "n1"), ""},
		"too few, but the old primary is among them":       {[]Command{fence(2)}, elect(2, "n2", sealedAt("n1", 1, 100), both[0]), ""},
		"too few, by force":                                {[]Command{forced}, elect(2, "n3", both[1]), ""},
		"less than others, by force":                       {[]Command{forced}, elect(2, "n3", both...), ""},
		"ready in another epoch":                           {[]Command{fence(2), elect(2, "n2", both...)}, Command{Ready: &Ready{Epoch: 1, Timeline: 2, SwitchLSN: 100}}, "ready in epoch 1"},
		"ready before anybody was elected":                 {[]Command{fence(2)}, Command{Ready: &Ready{Epoch: 2, Timeline: 2, SwitchLSN: 100}}, "2 is fenced"},
		"ready":                                            {[]Command{fence(2), elect(2, "n2", both...)}, Command{Ready: &Ready{Epoch: 2, Timeline: 2, SwitchLSN: 100}}, ""},
		"ready on the old timeline, which is not its own":  {[]Command{fence(2), elect(2, "n2", both...)}, Command{Ready: &Ready{Epoch: 2, Timeline: 1, SwitchLSN: 100}}, "of n1 is the last"},
		"the old primary ready on its own timeline":        {[]Command{fence(2), elect(2, "n1")}, Command{Ready: &Ready{Epoch: 2, Timeline: 1}}, ""},
		"ready without what was to be fetched": {
			[]Command{fence(2), with(elect(2, "n3", both...), func(e *Elect) { e.Until = until })},
			Command{Ready: &Ready{Epoch: 2, Timeline: 2, SwitchLSN: 99}},
			"was to be fetched",
		},
		"a sync set with the primary":            {nil, set(1, "n1", "n2"), "is the primary"},
		"a sync set with a witness":              {nil, set(1, "n2", "w1"), "no member with a PostgreSQL"},
		"a sync set with a stranger":             {nil, set(1, "n2", "n9"), "no member"},
		"a sync set out of order":                {nil, set(1, "n3", "n2"), "not in order"},
		"a sync set that nobody can satisfy":     {nil, set(2, "n2"), "cannot confirm"},
		"fewer than min_replicas":                {nil, set(0), "wait for 1 at least"},
		"a sync set while there is no primary":   {[]Command{fence(2)}, set(1, "n2"), "only under a primary"},
		"a sync set of another epoch":            {nil, Command{Epoch: 2, SyncSet: &SyncSet{Members: []string{"n2"}, K: 1}}, "meant for epoch 2"},
		"a smaller sync set":                     {nil, set(1, "n2"), ""},
		"the primary leaves":                     {nil, Command{Leave: "n1"}, "is the primary"},
		"one that confirms commits leaves":       {nil, Command{Leave: "n2"}, "leaves the sync set first"},
		"one that does not, leaves":              {[]Command{set(1, "n2")}, Command{Leave: "n3"}, ""},
		"a stranger leaves":                      {nil, Command{Leave: "n9"}, "no member"},
		"who is to take over leaves":             {[]Command{set(1, "n3"), wish}, Command{Leave: "n2"}, "about to be the primary"},
		"a second first primary":                 {nil, Command{Found: &Found{Node: "n2", SystemID: 7, Timeline: 1}}, "has had a primary"},
		"a witness with a PostgreSQL":            {nil, Command{Join: &Member{Name: "w2", Companion: "w2:1", Postgres: "w2:2", Witness: true}}, "has no PostgreSQL"},
		"the primary becomes a witness":          {nil, Command{Join: &Member{Name: "n1", Companion: "n1:7101", Witness: true}}, "holds data"},
		"an address that is taken":               {nil, Command{Join: &Member{Name: "n4", Companion: "n1:7101", Postgres: "n4:5432"}}, "an address of n1"},
		"a name that cannot be a standby's":      {nil, Command{Join: &Member{Name: "n 4", Companion: "n4:7101", Postgres: "n4:5432"}}, "blanks or quotes"},
		"a new address":                          {nil, Command{Join: &Member{Name: "n2", Companion: "n2:9", Postgres: "n2:10"}}, ""},
		"a switchover to the primary":            {nil, Command{Switchover: &Switchover{To: "n1"}}, "is the primary already"},
		"a switchover to a stranger":             {nil, Command{Switchover: &Switchover{To: "n9"}}, "no member"},
		"a second switchover":                    {[]Command{wish}, wish, "another switchover"},
		"a switchover while there is no primary": {[]Command{fence(2)}, wish, "no primary to take over from"},
		"a cancel of nothing":                    {nil, Command{Cancel: "why"}, "no switchover"},
		"a cancel":                               {[]Command{wish}, Command{Cancel: "why"}, ""},
		"a cancel after the fence":               {[]Command{wish, planned}, Command{Cancel: "why"}, "no switchover that could"},
		"nothing":                                {nil, Command{}, "0 things"},
		"two things":                             {nil, Command{Cancel: "a", Leave: "b"}, "2 things"},
		"settings without a mode":                {nil, Command{Settings: &Settings{}}, "replication_mode"},
	} {
		t.Run(name, func(t *testing.T) {
			s := logOf(t, append(three(), tt.before...)...)
			was, _ := json.Marshal(s)
			next, err := s.Apply(tt.c)
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("%s is refused: %v", tell(tt.c), err)
			case tt.want == "":
				if err := next.Check(); err != nil {
					t.Error(err)
				}
			case err == nil || !strings.Contains(err.Error(), tt.want):
				t.Errorf("%s: got %v, want an error with %q", tell(tt.c), err, tt.want)
			}
			if is, _ := json.Marshal(s); string(is) != string(was) {
				t.Errorf("Apply changed the state it was asked about:\n%s\n%s", was, is)
			}
		})
	}
}

func TestAStateSurvivesJSON(t *testing.T) {
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	s := logOf(t, append(
		three(),
		Command{At: at, Fence: &Fence{Epoch: 2, Reason: "n1 is silent", Detect: time.Second}},
		Command{At: at, Elect: &Elect{Epoch: 2, Node: "n2", Sealed: []Sealed{sealedAt("n2", 1, 100), sealedAt("n3", 1, 90)}, Timing: Timing{Seal: time.Millisecond}}},
		Command{At: at, Ready: &Ready{Epoch: 2, Timeline: 2, SwitchLSN: 100, Timing: Timing{Promote: 30 * time.Millisecond}}},
		Command{At: at, Switchover: &Switchover{To: "n1", At: at}},
	)...)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back State
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&back, s) {
		t.Errorf("%s came back as\n%+v, want\n%+v", text, back, s)
	}
	last := s.History[len(s.History)-1]
	if want := (Timing{Detect: time.Second, Seal: time.Millisecond, Promote: 30 * time.Millisecond}); last.Timing != want || last.To != "n2" || last.From != "n1" {
		t.Errorf("the history says %+v, want a timing of %+v", last, want)
	}
}

func TestAShorterLeaseIsForgottenOnlyByAnElection(t *testing.T) {
	lease := func(d time.Duration) Command {
		to := DefaultSettings()
		to.Mode, to.Lease = Semisync, d
		return Command{Settings: &to}
	}
	s := logOf(t, append(three(), lease(10*time.Second), lease(time.Second))...)
	if s.LongestLease != 10*time.Second {
		t.Errorf("the longest lease is %v, want 10s", s.LongestLease)
	}
	s = logOf(t, append(
		three(), lease(10*time.Second), lease(time.Second),
		Command{Fence: &Fence{Epoch: 2}},
		Command{Elect: &Elect{Epoch: 2, Node: "n2", Sealed: []Sealed{sealedAt("n2", 1, 100), sealedAt("n3", 1, 90)}}},
	)...)
	if s.LongestLease != time.Second {
		t.Errorf("after an election the longest lease is %v, want 1s", s.LongestLease)
	}
}

// Who never heard of the last timeline begins another one of its number. By force it may, and
// then that is the cluster's.
func TestATimelineBegunAgainByForceIsTheOneThatCounts(t *testing.T) {
	s := logOf(t, append(three(),
		Command{Fence: &Fence{Epoch: 2}},
		Command{Elect: &Elect{Epoch: 2, Node: "n2", Sealed: []Sealed{sealedAt("n2", 1, 100), sealedAt("n3", 1, 90)}}},
		Command{Ready: &Ready{Epoch: 2, Timeline: 2, SwitchLSN: 100}},
		Command{Fence: &Fence{Epoch: 3, Forced: true, To: "n3"}},
		Command{Elect: &Elect{Epoch: 3, Node: "n3", Sealed: []Sealed{sealedAt("n3", 1, 90)}}},
		Command{Ready: &Ready{Epoch: 3, Timeline: 2, SwitchLSN: 90}},
	)...)
	if s.Timeline != 2 || s.SwitchLSN != 90 || s.last().SwitchLSN != 90 {
		t.Errorf("timeline %s from %s, in its transition from %s; want 2 from 0/5A", s.Timeline, s.SwitchLSN, s.last().SwitchLSN)
	}
}

func TestTheHistoryIsBoundedAndKeepsTheLastReady(t *testing.T) {
	s := logOf(t, three()...)
	for range 3 * HistoryLimit {
		next, err := s.Apply(Command{Fence: &Fence{Epoch: s.Epoch + 1}})
		if err != nil {
			t.Fatal(err)
		}
		s = next
	}
	if len(s.History) != HistoryLimit || s.Ruler() != "n1" {
		t.Errorf("%d transitions, the last ready one of %q; want %d, n1", len(s.History), s.Ruler(), HistoryLimit)
	}
}

// What is so old that nobody remembers whether it was the cluster's counts as nobody's.
func TestWALOfAnEpochThatIsForgottenIsAstray(t *testing.T) {
	s := logOf(t, three()...)
	at := sealedAt("n2", 1, 100).Position
	for range HistoryLimit {
		if s.Astray(1, at) {
			t.Fatalf("WAL of epoch 1 is astray in epoch %d", s.Epoch)
		}
		epoch := s.Epoch + 1
		for _, c := range []Command{
			{Fence: &Fence{Epoch: epoch}},
			{Elect: &Elect{Epoch: epoch, Node: "n2", Sealed: []Sealed{sealedAt("n2", s.Timeline, 100), sealedAt("n3", s.Timeline, 100)}}},
			{Ready: &Ready{Epoch: epoch, Timeline: s.Timeline + 1, SwitchLSN: 100}},
		} {
			next, err := s.Apply(c)
			if err != nil {
				t.Fatal(err)
			}
			s = next
		}
	}
	if first := s.History[0].Epoch; !s.Astray(first-1, at) || s.Astray(first, at) {
		t.Errorf("epochs from %d on are remembered; WAL is astray of the one before: %v, of that: %v; want true, false", first, s.Astray(first-1, at), s.Astray(first, at))
	}
}

// TestWhatAGateConfirmsIsFound tries every pair of sets over a few nodes, and for each gate
// on the way every quorum of it against every election that the log would allow.
func TestWhatAGateConfirmsIsFound(t *testing.T) {
	names := []string{"n1", "n2", "n3", "n4"}
	var sets []SyncSet
	for mask := range 1 << len(names) {
		var members []string
		for i, n := range names {
			if mask>>i&1 == 1 {
				members = append(members, n)
			}
		}
		for k := range len(members) + 1 {
			if k > 0 || len(members) == 0 {
				sets = append(sets, SyncSet{Members: members, K: k})
			}
		}
	}
	for _, from := range sets {
		for _, to := range sets {
			for _, primary := range []string{"n1", "elsewhere"} {
				if to.Has(primary) {
					continue
				}
				gate := bridge(from, to, primary)
				if gate.Has(primary) {
					t.Fatalf("bridge(%v, %v, %s) = %v: the primary is in it", from, to, primary, gate)
				}
				for _, set := range []SyncSet{from, to} {
					if missed := escapes(gate, set, primary); missed != "" {
						t.Fatalf("bridge(%v, %v, %s) = %v: %s", from, to, primary, gate, missed)
					}
				}
			}
		}
	}
}

// escapes looks for a commit that gate confirms and that an election by set misses.
func escapes(gate, set SyncSet, primary string) string {
	if set.K == 0 || gate.K > len(gate.Members) {
		return ""
	}
	for q := range 1 << len(gate.Members) {
		have := map[string]bool{primary: true}
		for i, m := range gate.Members {
			if q>>i&1 == 1 {
				have[m] = true
			}
		}
		if len(have)-1 != gate.K {
			continue
		}
		for e := range 1 << len(set.Members) {
			sealed, found := 0, false
			for i, m := range set.Members {
				if e>>i&1 == 1 {
					sealed++
					found = found || have[m]
				}
			}
			if sealed == set.Need() && !found {
				return "a commit on some of them is missed by an election"
			}
		}
	}
	return ""
}

// TestCommandsInAnyOrderBreakNothing applies commands at random.
func TestCommandsInAnyOrderBreakNothing(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		s := logOf(t, three()...)
		for range 200 {
			c := randomCommand(rng, s)
			next, err := s.Apply(c)
			if err != nil {
				continue
			}
			if err := next.Check(); err != nil {
				t.Fatalf("seed %d: after %s: %v", seed, tell(c), err)
			}
			if next.Epoch < s.Epoch || next.Timeline < s.Timeline {
				t.Fatalf("seed %d: %s goes from epoch %d on timeline %s back to %d on %s", seed, tell(c), s.Epoch, s.Timeline, next.Epoch, next.Timeline)
			}
			s = next
		}
	}
}

func randomCommand(rng *rand.Rand, s *State) Command {
	name := func() string { return []string{"n1", "n2", "n3", "n4", "w1"}[rng.IntN(5)] }
	epoch := s.Epoch + Epoch(rng.IntN(3)) - 1
	at := func() wal.Position {
		return wal.Position{Timeline: s.Timeline + wal.Timeline(rng.IntN(2)), LSN: wal.LSN(rng.IntN(4) * 50)}
	}
	switch rng.IntN(10) {
	case 0:
		return join(name())
	case 1:
		return Command{Leave: name()}
	case 2:
		to := DefaultSettings()
		to.Mode = []ReplicationMode{Async, Semisync}[rng.IntN(2)]
		to.Lease = time.Duration(1+rng.IntN(5)) * time.Second
		return Command{Settings: &to}
	case 3:
		return Command{Switchover: &Switchover{To: name()}}
	case 4:
		return Command{Cancel: "no"}
	case 5:
		return Command{Fence: &Fence{Epoch: epoch, Planned: rng.IntN(2) == 0, Forced: rng.IntN(4) == 0, To: name()}}
	case 6, 7:
		e := Elect{Epoch: epoch, Node: name()}
		for _, m := range s.Members {
			e.Sealed = append(e.Sealed, Sealed{Node: m.Name, Position: at(), Reign: Epoch(rng.IntN(int(s.Epoch + 1)))})
		}
		if rng.IntN(2) == 0 {
			e.Until = s.furthest(e.Sealed).Position
		}
		return Command{Elect: &e}
	case 8:
		return Command{Ready: &Ready{Epoch: epoch, Timeline: s.Timeline + wal.Timeline(rng.IntN(3)), SwitchLSN: wal.LSN(rng.IntN(4) * 50)}}
	default:
		set := SyncSet{K: rng.IntN(3)}
		for _, m := range s.Members {
			if rng.IntN(2) == 0 {
				set.Members = append(set.Members, m.Name)
			}
		}
		return Command{SyncSet: &set}
	}
}
