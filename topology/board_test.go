package topology

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/wal"
)

var birth = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// primaryAt and replicaAt are answers of timeline 1 that came ms after birth.
func primaryAt(node string, ms int, lsn wal.LSN) Observation {
	at := birth.Add(time.Duration(ms) * time.Millisecond)
	return Observation{Node: node, At: at, Role: RolePrimary, SystemID: 7, Timeline: 1, CurrentLSN: lsn}
}

func replicaAt(node string, ms int, lsn wal.LSN) Observation {
	at := birth.Add(time.Duration(ms) * time.Millisecond)
	return Observation{Node: node, At: at, Role: RoleReplica, SystemID: 7, Timeline: 1, ReplayLSN: lsn}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestANewBoardKnowsOnlyWhatWasDeclared(t *testing.T) {
	b := NewBoard(Node{Name: "db1", Zone: "a", Weight: 3, Role: RolePrimary}, Node{Name: "db2"}, Node{Name: "db1"})
	v := b.Peek()
	want := []Node{{Name: "db1", Zone: "a", Weight: 3, Lag: -1}, {Name: "db2", Weight: 1, Lag: -1}}
	if len(v.Nodes) != 2 || !sameNode(v.Nodes[0], want[0]) || !sameNode(v.Nodes[1], want[1]) {
		t.Errorf("Nodes = %+v, want %+v", v.Nodes, want)
	}
	if v.Primary != -1 || v.LastPrimary != -1 || v.Settled || v.Version != 1 {
		t.Errorf("got %+v, want version 1, no primary, not settled", v)
	}
}

func TestOnlyWhatMattersWakesThoseWhoWait(t *testing.T) {
	for name, tt := range map[string]struct {
		next Observation
		want bool
	}{
		"positions move":     {primaryAt("db1", 20, 900), false},
		"a replica moves":    {replicaAt("db2", 20, 900), false},
		"a node turns":       {replicaAt("db1", 20, 100), true},
		"a node falls":       {Observation{Node: "db2", At: birth.Add(20 * time.Millisecond), Err: fmt.Errorf("broken")}, true},
		"older than known":   {replicaAt("db1", 5, 100), false},
		"a node not on it":   {replicaAt("db9", 20, 100), false},
		"a higher timeline":  {Observation{Node: "db2", At: birth.Add(20 * time.Millisecond), Role: RoleReplica, SystemID: 7, Timeline: 2}, true},
		"primary read-only":  {Observation{Node: "db1", At: birth.Add(20 * time.Millisecond), Role: RolePrimary, ReadOnly: true}, true},
		"the settings alter": {Observation{Node: "db1", At: birth.Add(20 * time.Millisecond), Role: RolePrimary, Settings: Settings{SegmentSize: 1 << 20}}, true},
	} {
		b := NewBoard(Node{Name: "db1"}, Node{Name: "db2"})
		b.Observe(primaryAt("db1", 10, 100))
		b.Observe(replicaAt("db2", 10, 100))
		before, changed := b.Watch()
		b.Observe(tt.next)
		if got := isClosed(changed); got != tt.want {
			t.Errorf("%s: changed is closed: %v, want %v", name, got, tt.want)
		}
		if before.Primary != 0 || before.Nodes[0].CurrentLSN != 100 {
			t.Errorf("%s: the published view was altered: %+v", name, before)
		}
	}
}

func TestEachFailureOfADownNodeIsNoNews(t *testing.T) {
	b := NewBoard(Node{Name: "db1"})
	b.Observe(Observation{Node: "db1", At: birth, Err: fmt.Errorf("port 40001: refused")})
	changed := b.Changed()
	v := b.Observe(Observation{Node: "db1", At: birth.Add(1), Err: fmt.Errorf("port 40002: refused")})
	if isClosed(changed) {
		t.Error("waiters were woken")
	}
	if v.Nodes[0].Reason != "port 40002: refused" {
		t.Errorf("Reason = %q, want the newest", v.Nodes[0].Reason)
	}
}

func TestChangesAreToldInOrderAndWithoutALock(t *testing.T) {
	b := NewBoard(Node{Name: "db1"}, Node{Name: "db2"})
	var told []string
	b.OnChange(func(before, after *View) {
		told = append(told, fmt.Sprintf("%d to %d", before.Version, after.Version))
		if after.Primary == 0 {
			b.Doubt("db1", fmt.Errorf("broken")) // from within: comes after this one
			if got := b.Peek().Primary; got != -1 {
				t.Errorf("Peek().Primary = %d within the call, want -1", got)
			}
		}
		told = append(told, "done")
	})
	b.Observe(replicaAt("db2", 10, 90)) // version 2
	b.Observe(replicaAt("db2", 20, 91)) // version 3, of no matter
	b.Observe(primaryAt("db1", 20, 91)) // version 4, and 5 by the doubt
	if want := []string{"1 to 2", "done", "3 to 4", "done", "4 to 5", "done"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

func TestManyMayUseABoardAtOnce(t *testing.T) {
	b := NewBoard(Node{Name: "db0"}, Node{Name: "db1"}, Node{Name: "db2"})
	var last uint64 // calls do not overlap, so the race detector would tell
	b.OnChange(func(before, after *View) {
		if before.Version < last || after.Version <= before.Version {
			t.Errorf("told %d to %d after %d", before.Version, after.Version, last)
		}
		last = after.Version
	})
	var running sync.WaitGroup
	for i := range 4 {
		running.Go(func() {
			seen := uint64(0)
			for k := range 300 {
				node := fmt.Sprintf("db%d", (i+k)%3)
				b.Observe(primaryAt(node, k, wal.LSN(k)))
				b.Observe(replicaAt(node, k, wal.LSN(k)))
				b.SamplePrimary(birth.Add(time.Duration(k)), wal.LSN(k))
				b.PrimaryAt(birth)
				if k%50 == 0 {
					b.Doubt(node, fmt.Errorf("broken"))
					b.Add(Node{Name: fmt.Sprintf("extra%d", i)})
					b.Remove(fmt.Sprintf("extra%d", i))
				}
				if v := b.Peek(); v.Version < seen {
					t.Errorf("version %d after %d", v.Version, seen)
				} else {
					seen = v.Version
				}
			}
		})
	}
	running.Wait()
}

func TestNodesComeAndGo(t *testing.T) {
	b := NewBoard(Node{Name: "db1"}, Node{Name: "db2"})
	b.Observe(primaryAt("db2", 10, 100))
	if err := b.Add(Node{Name: "db2"}); err == nil {
		t.Error("Add(db2) twice gave no error")
	}
	if err := b.Add(Node{}); err == nil {
		t.Error("Add of a node without a name gave no error")
	}
	if err := b.Remove("db9"); err == nil {
		t.Error("Remove(db9) gave no error")
	}
	if err := b.Remove("db1"); err != nil {
		t.Fatal(err)
	}
	if v := b.Peek(); v.Primary != 0 || v.LastPrimary != 0 || v.Nodes[0].Name != "db2" {
		t.Errorf("after Remove(db1): %+v, want db2 as the primary at 0", v)
	}
	if err := b.Remove("db2"); err != nil {
		t.Fatal(err)
	}
	if v := b.Peek(); v.Primary != -1 || v.LastPrimary != -1 {
		t.Errorf("after Remove(db2): %+v, want no primary", v)
	}
}

func TestAPositionBoundsWhatWasAcknowledgedBeforeItWasAskedFor(t *testing.T) {
	b := NewBoard(Node{Name: "db1"})
	o := primaryAt("db1", 100, 500)
	o.RTT = 30 * time.Millisecond
	b.Observe(o)
	asked := birth.Add(70 * time.Millisecond)
	if lsn, ok := b.PrimaryAt(asked); lsn != 500 || !ok {
		t.Errorf("PrimaryAt(when it was asked) = %s, %v; want 0/1F4", lsn, ok)
	}
	if lsn, ok := b.PrimaryAt(asked.Add(1)); ok {
		t.Errorf("PrimaryAt(later) = %s, want false: the answer may be older", lsn)
	}
}

func TestWritesFeedThePrimarysPositionSparingly(t *testing.T) {
	b := NewBoard(Node{Name: "db1"})
	b.SamplePrimary(birth, 100)
	b.SamplePrimary(birth.Add(sampleEvery/2), 110)
	b.SamplePrimary(birth.Add(sampleEvery), 120)
	b.SamplePrimary(birth.Add(2*sampleEvery), 0)
	for since, want := range map[time.Duration]wal.LSN{0: 100, 1: 120, sampleEvery: 120, sampleEvery + 1: 0} {
		if got, _ := b.PrimaryAt(birth.Add(since)); got != want {
			t.Errorf("PrimaryAt(%v) = %s, want %s", since, got, want)
		}
	}
}

func TestAnotherClustersPositionsAreForgotten(t *testing.T) {
	b := NewBoard(Node{Name: "db1"}, Node{Name: "db2"}, Node{Name: "db3"})
	wrong := primaryAt("db1", 10, 9000)
	wrong.SystemID = 9
	b.Observe(wrong)
	b.Observe(replicaAt("db2", 20, 100))
	b.Observe(replicaAt("db3", 20, 100))
	if lsn, ok := b.PrimaryAt(birth); ok {
		t.Errorf("PrimaryAt = %s, want none", lsn)
	}
}

func TestADoubtLastsUntilAnAnswerToALaterQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBoard(Node{Name: "db1"})
		o := primaryAt("db1", 0, 100)
		o.At, o.RTT = time.Now(), 10*time.Millisecond
		b.Observe(o)
		time.Sleep(time.Millisecond)
		b.Doubt("db1", fmt.Errorf("broken"))
		for _, tt := range []struct {
			after time.Duration
			want  int
		}{{9 * time.Millisecond, -1}, {time.Millisecond, 0}} {
			time.Sleep(tt.after)
			o.At = time.Now()
			if v := b.Observe(o); v.Primary != tt.want {
				t.Errorf("Primary = %d at %v, want %d", v.Primary, o.At, tt.want)
			}
		}
	})
}

func TestPeekAndSamplingDoNotAllocate(t *testing.T) {
	b := NewBoard(Node{Name: "db1"})
	b.Observe(primaryAt("db1", 10, 100))
	if n := testing.AllocsPerRun(100, func() { b.Peek() }); n != 0 {
		t.Errorf("Peek allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() { b.SamplePrimary(birth, 100) }); n != 0 {
		t.Errorf("SamplePrimary allocates %v times", n)
	}
}

func TestRolesAndStatesHaveNames(t *testing.T) {
	for want, got := range map[string]fmt.Stringer{
		"primary": RolePrimary, "replica": RoleReplica, "unknown": RoleUnknown,
		"up": StateUp, "down": StateDown, "refused": StateRefused,
	} {
		if got.String() != want {
			t.Errorf("%d.String() = %q, want %q", got, got, want)
		}
	}
	if StateUnknown.String() != "unknown" {
		t.Error("StateUnknown has no name")
	}
}

func BenchmarkPeek(b *testing.B) {
	board := NewBoard(Node{Name: "db1"})
	for b.Loop() {
		board.Peek()
	}
}

func BenchmarkSamplePrimary(b *testing.B) {
	board := NewBoard(Node{Name: "db1"})
	for b.Loop() {
		board.SamplePrimary(time.Now(), 100)
	}
}

func BenchmarkObserve(b *testing.B) {
	for _, nodes := range []int{3, 100} {
		b.Run(fmt.Sprintf("nodes=%d", nodes), func(b *testing.B) {
			var declared []Node
			for i := range nodes {
				declared = append(declared, Node{Name: fmt.Sprint("db", i)})
			}
			board := NewBoard(declared...)
			o := primaryAt("db1", 0, 100)
			for b.Loop() {
				board.Observe(o)
			}
		})
	}
}
