package walfile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/heliosdb/helios/wal"
)

// model is a spool and what it should hold. Whatever is done to it, what it
// holds is the log's up to the position, and what was flushed is there.
type model struct {
	t       testing.TB
	rng     *rand.Rand
	spool   *Spool
	log     *fakeLog // ends where the spool ends
	flushed wal.LSN  // what Sync has promised
	story   []string // what was done, for the report of a failure

	path    string
	durable map[string]int // how much of each file a crash leaves
	inject  func(operation, string) error
}

func (m *model) say(format string, args ...any) {
	m.story = append(m.story, fmt.Sprintf(format, args...))
}

// step does one random thing. It returns what the log is if that succeeds, and
// what is promised then.
func (m *model) step() (do func() error, after *fakeLog, promised wal.LSN) {
	after, end := m.log.clone(), m.log.end()
	oldest := max(m.spool.oldest(), m.beginOfTimeline())
	switch pick := m.rng.IntN(20); {
	case pick < 11:
		p := after.grow(1 + m.rng.IntN(1+m.rng.IntN(400_000)))
		m.say("write %d at %s", len(p), end)
		return func() error { return m.spool.Write(end, p) }, after, m.flushed
	case pick < 15:
		m.say("sync at %s", end)
		return m.sync, after, end
	case pick < 16:
		at := after.place(oldest, end)
		after.cut(at)
		m.say("truncate at %s", at)
		return func() error { return m.spool.Truncate(at) }, after, at
	case pick < 18:
		at := end
		if m.rng.IntN(2) == 0 {
			at = after.place(oldest, end)
		}
		next := after.timeline + 1 + wal.Timeline(m.rng.IntN(2))
		history := after.promote(next, at)
		m.say("switch to %s at %s", next, at)
		return func() error { return m.spool.SwitchTimeline(next, at, history) }, after, at
	case pick < 19:
		floor := wal.LSN(m.rng.Uint64N(uint64(end)))
		m.say("floor %s", floor)
		return func() error { m.spool.SetFloor(floor); return nil }, after, m.flushed
	default:
		at := end - end%wal.LSN(testSize) + wal.LSN(testSize)*wal.LSN(m.rng.IntN(2))
		next := newFakeLog(m.rng, at, after.timeline+1)
		m.say("reset to %s of %s", at, next.timeline)
		return func() error { return m.spool.Reset(at, next.timeline) }, next, at
	}
}

func (m *model) sync() error {
	_, err := m.spool.Sync()
	return err
}

func (m *model) beginOfTimeline() wal.LSN {
	begin, _ := m.log.history(m.t).Begin(m.log.timeline)
	return begin
}

// settle finds out which of two logs the spool has after something that may or
// may not have been done, and holds it to that. What is promised is flushed if
// it was not done, and promised if it was.
func (m *model) settle(before, after *fakeLog, flushed, promised wal.LSN) {
	m.t.Helper()
	pos := m.spool.Position()
	for _, l := range []*fakeLog{before, after} {
		if l.timeline != pos.Timeline || pos.LSN < min(l.start, flushed, promised) || pos.LSN > l.end() {
			continue
		}
		if pos.LSN < min(flushed, promised) {
			m.t.Fatalf("the spool ends at %s after %s was flushed", pos, flushed)
		}
		m.log, m.flushed = l.clone(), min(flushed, pos.LSN)
		m.log.cut(pos.LSN)
		m.check()
		return
	}
	m.t.Fatalf("the spool ends at %s, want %s:%s or %s:%s", pos, before.timeline, before.end(), after.timeline, after.end())
}

// check compares what the spool shows with the log.
func (m *model) check() {
	m.t.Helper()
	wantPosition(m.t, m.spool, m.log.timeline, m.log.end())
	if got := m.spool.Flushed(); got.LSN < m.flushed || got.LSN > m.log.end() {
		m.t.Fatalf("Flushed() = %s, want from %s to %s", got, m.flushed, m.log.end())
	}
	st := m.spool.Stats()
	if st.Lost != 0 || st.Stuck != nil && m.inject == nil {
		m.t.Fatalf("Stats() = %+v, want nothing lost", st)
	}
	oldest := m.spool.oldest()
	if m.spool.cfg.Keep > 1<<30 && oldest != m.log.start {
		m.t.Fatalf("the spool begins at %s, want %s", oldest, m.log.start)
	}
	m.log.wantRead(m.t, m.spool.Dir(), oldest, m.log.end())
	before := m.log.first
	for _, s := range m.log.history(m.t) {
		wantNotKept(m.t, m.spool.Dir(), s.LSN, before) // it ended there
		before = s.Timeline
	}
	wantNotKept(m.t, m.spool.Dir(), m.log.end(), m.log.timeline)
	if got, found, err := m.spool.Dir().Oldest(m.log.timeline); err != nil || found && got != oldest {
		m.t.Fatalf("Oldest(%s) = %s, %v, %v; want %s", m.log.timeline, got, found, err, oldest)
	}
	m.checkWhole()
}

// checkWhole looks at the files as a restore_command would: one with a final
// name is whole.
func (m *model) checkWhole() {
	m.t.Helper()
	files, err := m.spool.dir.segments()
	ok(m.t, err)
	for _, f := range files {
		info, err := os.Stat(m.spool.disk.file(f.name(testSize)))
		ok(m.t, err)
		if !f.partial && info.Size() != testSize {
			m.t.Fatalf("%s has %d bytes, want %d", f.name(testSize), info.Size(), testSize)
		}
	}
}

var errPower = errors.New("the power is off")

// crash does something while the power fails, and opens what is left: files
// that were not flushed have lost some of their ends, or hold noise there.
func (m *model) crash(do func() error, after *fakeLog, promised wal.LSN) {
	m.t.Helper()
	left := m.rng.IntN(12)
	m.inject = func(operation, string) error {
		if left--; left < 0 {
			return errPower
		}
		return nil
	}
	err := do()
	m.say("  power off: %v", err)
	before, low := m.log, m.flushed
	if err == nil {
		before, low = after, promised
	}
	path := m.remains()
	m.spool.Close()
	m.inject = nil
	m.path = path
	m.spool, err = openSpool(&disk{path: path, fault: m.watch}, m.spool.cfg)
	ok(m.t, err)
	m.settle(before, after, low, promised)
	m.say("  open at %s", m.spool.Position())
}

// remains copies the directory as a crash would leave it.
func (m *model) remains() string {
	m.t.Helper()
	from, to := m.spool.disk.path, m.t.(*testing.T).TempDir()
	known, err := os.ReadFile(filepath.Join(from, controlName))
	ok(m.t, err)
	newest, _ := newestControl(known)
	if newest.Sequence != m.spool.control.Sequence && m.rng.IntN(2) == 0 {
		// What was written and not flushed need not be there.
		clear(known[newest.Sequence%controlSlots*controlSlot:][:m.rng.IntN(controlSize)+1])
	}
	entries, err := os.ReadDir(from)
	ok(m.t, err)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(from, e.Name()))
		ok(m.t, err)
		if _, isSegment := parseSegmentName(e.Name(), testSize); isSegment {
			content = m.tear(content, m.durable[e.Name()])
		}
		writeFile(m.t, filepath.Join(to, e.Name()), content)
	}
	writeFile(m.t, filepath.Join(to, controlName), known)
	return to
}

// watch is told of every change of the directory, and lets inject make it fail.
func (m *model) watch(op operation, name string) error {
	if m.inject != nil {
		if err := m.inject(op, name); err != nil {
			return err
		}
	}
	switch op {
	case opCreate:
		m.durable[name] = 0
	case opSync:
		if info, err := os.Stat(filepath.Join(m.path, name)); err == nil {
			m.durable[name] = int(info.Size())
		}
	case opRename:
		to, isTemporary := strings.CutSuffix(name, temporarySuffix)
		if !isTemporary {
			whole, isPartial := strings.CutSuffix(name, partialSuffix)
			if to = whole; !isPartial {
				to = name + partialSuffix
			}
		}
		m.durable[to] = m.durable[name]
	}
	return nil
}

// tear cuts a file somewhere beyond what is safe, or spoils it there.
func (m *model) tear(content []byte, safe int) []byte {
	if safe >= len(content) {
		return content
	}
	at := safe + m.rng.IntN(len(content)-safe+1)
	if m.rng.IntN(2) == 0 {
		return content[:at]
	}
	clear(content[at:])
	return content
}

// stumble does something while one change of the directory fails.
func (m *model) stumble(do func() error, after *fakeLog, promised wal.LSN) {
	m.t.Helper()
	left := m.rng.IntN(8)
	m.inject = func(op operation, _ string) error {
		if left--; left == 0 && op != opRemove {
			return syscall.ENOSPC
		}
		return nil
	}
	err := do()
	m.inject = nil
	m.say("  failed: %v", err)
	if err != nil && !errors.Is(err, syscall.ENOSPC) {
		m.t.Fatalf("error = %v, want none or %v", err, syscall.ENOSPC)
	}
	before, low := m.log, m.flushed
	if err == nil {
		before, low = after, promised
	}
	m.settle(before, after, low, promised)
}

func TestASpoolHoldsWhatWasFlushedWhateverHappens(t *testing.T) {
	seeds, steps := 10, 60
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rng := testRand(uint64(seed))
			keep := []int64{1 << 40, 3 * testSize, 1}[rng.IntN(3)]
			m := &model{t: t, rng: rng, path: t.TempDir(), log: newFakeLog(rng, third, 1), flushed: third, durable: map[string]int{}}
			var err error
			m.spool, err = openSpool(&disk{path: m.path, fault: m.watch}, SpoolConfig{
				SegmentSize: testSize, System: testSystem, Keep: keep, MaxKeep: 5 * testSize,
			})
			ok(t, err)
			ok(t, m.spool.Reset(third, 1))
			defer func() {
				if t.Failed() {
					t.Logf("what was done:\n%s", strings.Join(m.story, "\n"))
				}
				m.spool.Close()
			}()
			for range steps {
				do, after, promised := m.step()
				switch m.rng.IntN(6) {
				case 0:
					m.crash(do, after, promised)
				case 1:
					m.stumble(do, after, promised)
				default:
					if err := do(); err != nil {
						t.Fatalf("error = %v, want none", err)
					}
					m.log, m.flushed = after, promised
					m.check()
				}
			}
		})
	}
}
