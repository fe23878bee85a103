package integration_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgtest"
)

// book is what the programs of a soak were told about their writes and have
// read. An audit takes out what it has looked at, so that the book does not grow.
type book struct {
	next   atomic.Int64 // the last id that was handed out
	writes atomic.Int64 // acknowledged
	reads  atomic.Int64 // in sessions that have written
	audits int

	mu        sync.Mutex
	told      map[int64]told             // guarded by mu; by id
	last      time.Time                  // guarded by mu; when a write was acknowledged last
	gaps      map[string][]time.Duration // guarded by mu; by way of failing over
	errs      map[string]int             // guarded by mu; all errors by kind
	sample    map[string]error           // guarded by mu; the last error of each kind
	stale     []string                   // guarded by mu; reads that missed what their session had seen
	forgotten int64                      // guarded by mu; ids up to here were audited, and their rows deleted
}

// told is what a writer was told, and when.
type told struct {
	at  time.Time
	err error
}

func newBook() *book {
	return &book{told: map[int64]told{}, errs: map[string]int{}, sample: map[string]error{}, gaps: map[string][]time.Duration{}}
}

// wrote records what the writer of id was told.
func (b *book) wrote(id int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.told[id] = told{now, err}
	if err == nil {
		b.writes.Add(1)
		b.last = now
		return
	}
	b.failLocked("write: ", err)
}

// gaveUp records what an impatient writer of id was told.
func (b *book) gaveUp(id int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told[id] = told{time.Now(), err}
	b.failLocked("impatience: ", err)
}

// failed records an error of something else.
func (b *book) failed(what string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failLocked(what+": ", err)
}

func (b *book) failLocked(what string, err error) {
	b.errs[what+kind(err)]++
	b.sample[what+kind(err)] = err
}

// saw records what a session read that has seen id.
func (b *book) saw(what string, id int64, rows int, err error) {
	b.reads.Add(1)
	if err == nil && rows == 1 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.failLocked(what+": ", err)
		return
	}
	b.stale = append(b.stale, fmt.Sprintf("%s: id %d: %d rows", what, id, rows))
}

// awaitWrites returns when n more writes were acknowledged.
func (b *book) awaitWrites(t testing.TB, n int64) {
	t.Helper()
	want := b.writes.Load() + n
	await(t, "writes to go on", func() bool { return b.writes.Load() >= want })
}

// promoted notes how long it takes from now, when there is a new primary and all
// follow it, until a write is acknowledged.
func (b *book) promoted(t testing.TB, way string) {
	t.Helper()
	from := time.Now()
	await(t, "a write after a "+way, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.last.After(from)
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gaps[way] = append(b.gaps[way], b.last.Sub(from).Round(time.Millisecond))
}

// audit compares what was told before a time with what the primary holds, and
// forgets it.
func (b *book) audit(t testing.TB, primary *pgtest.Node, before time.Time) {
	t.Helper()
	b.audits++
	rows := idsOf(t, primary)
	var looked []int64
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, n := range rows {
		_, twin := rows[-id]
		_, fresh := b.told[id]
		switch {
		case n > 1:
			t.Errorf("id %d was inserted %d times", id, n)
		case id < 0 && !twin:
			t.Errorf("half a transaction: %d is there and %d is not", id, -id)
		case id > 0 && id <= b.forgotten && !fresh:
			t.Errorf("id %d is there again", id)
		}
	}
	for id, told := range b.told {
		if told.at.After(before) {
			continue
		}
		switch unknown := errors.Is(told.err, helios.ErrOutcomeUnknown) || errors.Is(told.err, helios.ErrWriteLost); {
		case told.err == nil && rows[id] == 0:
			t.Errorf("id %d was acknowledged and is lost", id)
		case told.err != nil && !unknown && rows[id] > 0:
			t.Errorf("id %d is there, and its writer was told %v", id, told.err)
		}
		looked = append(looked, id)
		delete(b.told, id)
	}
	b.forgetLocked(t, primary, looked)
}

// forgetLocked deletes rows that were looked at.
func (b *book) forgetLocked(t testing.TB, primary *pgtest.Node, ids []int64) {
	t.Helper()
	if len(ids) == 0 {
		return
	}
	pgtest.OK(t, primary.Exec(pgtest.Context(t), "DELETE FROM ledger WHERE abs(id) = ANY ($1)", ids))
	slices.Sort(ids)
	for id := b.forgotten + 1; ; id++ { // as far as there is no hole
		if _, found := slices.BinarySearch(ids, id); !found {
			b.forgotten = id - 1
			return
		}
	}
}

// idsOf returns how often each id is in the table of a node.
func idsOf(t testing.TB, n *pgtest.Node) map[int64]int {
	t.Helper()
	counts := map[int64]int{}
	conn, err := n.Connect(pgtest.Context(t))
	pgtest.OK(t, err)
	defer conn.Close(pgtest.Context(t))
	found, err := conn.Query(pgtest.Context(t), "SELECT id, count(*) FROM ledger GROUP BY id")
	pgtest.OK(t, err)
	defer found.Close()
	for found.Next() {
		var id int64
		var count int
		pgtest.OK(t, found.Scan(&id, &count))
		counts[id] = count
	}
	pgtest.OK(t, found.Err())
	return counts
}

// allowed are the errors that the table in ARCHITECTURE.md lets programs see
// while nodes crash and connections break.
var allowed = []string{
	"write: outcome unknown", "write: not committed", "write: session lost",
	"read: connection lost, sent true", // in the middle of the answer
	"read-only transaction: session lost", "read-only transaction: not committed",
	"impatience: outcome unknown", "impatience: context deadline exceeded", "impatience: context canceled", "impatience: no primary",
}

// report logs what happened, and fails the test for what must not have happened.
func (b *book) report(t testing.TB, life time.Duration, stats helios.Stats) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	t.Logf("FIGURES soak: %v, %d acknowledged writes, %d reads of sessions that had written, %d changes of the primary, %d audits",
		life, b.writes.Load(), b.reads.Load(), stats.PrimaryChanges-1, b.audits)
	t.Logf("FIGURES soak: writes went on after %v", b.gaps)
	t.Logf("FIGURES soak: errors: %s", listed(b.errs))
	t.Logf("FIGURES soak: %d stale reads; the driver sent %d statements again, found out %d lost answers, and told %d times of a lost write",
		len(b.stale), stats.Retries, stats.Resolved, stats.WritesLost)
	if len(b.stale) > 0 {
		t.Errorf("%d reads missed what their session had seen: %s", len(b.stale), strings.Join(b.stale[:min(5, len(b.stale))], "; "))
	}
	if most := (stats.PrimaryChanges - 1) * soakClients; stats.WritesLost > most {
		t.Errorf("sessions were told %d times that a write is lost, want %d times at most: once each time that the primary changed", stats.WritesLost, most)
	}
	for k, n := range b.errs {
		lost := errors.Is(b.sample[k], helios.ErrWriteLost) // a false alarm: the audits see all writes
		if !slices.Contains(allowed, k) && !lost {
			t.Errorf("%d × %s, the last one: %v", n, k, b.sample[k])
		}
	}
}
