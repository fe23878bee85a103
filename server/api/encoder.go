package api

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heliosdb/helios/topology"
)

// freshFor is how old the ages in a line may be when it is told once more.
const freshFor = 100 * time.Millisecond

// A line is a bulletin as listeners get it. It is shared by them and does not change.
type line struct {
	of     *topology.Bulletin
	since  time.Time // when it was first seen here
	at     time.Time // when the ages in text were true
	text   []byte    // with a newline
	matter string    // all of it that is worth a line at once; lines that differ in positions only have the same
}

// An encoder encodes each bulletin once, whoever asks first. Its zero value is ready.
type encoder struct {
	newest atomic.Pointer[line]
	mu     sync.Mutex // held to replace newest
}

// encode returns the line of b. One that was encoded a while ago is encoded again, since
// the ages in it have grown.
func (e *encoder) encode(b *topology.Bulletin, now time.Time) *line {
	if l := e.newest.Load(); l.is(b) && now.Sub(l.at) < freshFor {
		return l
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.newest.Load()
	switch {
	case l.is(b) && now.Sub(l.at) < freshFor:
		return l
	case l.is(b):
		l = &line{of: b, since: l.since, at: now, text: textOf(grown(b, now.Sub(l.since))), matter: l.matter}
	default:
		l = &line{of: b, since: now, at: now, text: textOf(b), matter: string(textOf(withoutPositions(b)))}
	}
	e.newest.Store(l)
	return l
}

// age returns for how long b has been known here.
func (e *encoder) age(b *topology.Bulletin, now time.Time) time.Duration {
	l := e.newest.Load()
	if !l.is(b) {
		l = e.encode(b, now)
	}
	return now.Sub(l.since)
}

func (l *line) is(b *topology.Bulletin) bool { return l != nil && l.of == b }

// whole returns b with a list of nodes: a bulletin that has none is told with an empty list, and
// not with null.
func whole(b *topology.Bulletin) *topology.Bulletin {
	if b == nil || b.Nodes != nil {
		return b
	}
	whole := *b
	whole.Nodes = []topology.Reported{}
	return &whole
}

// textOf returns a bulletin as a line.
func textOf(b *topology.Bulletin) []byte {
	text, err := json.Marshal(whole(b))
	if err != nil {
		panic(fmt.Sprintf("api: a bulletin cannot be written as JSON: %v", err)) // it has nothing but numbers, texts and times
	}
	return append(text, '\n')
}

// grown returns b as it is so much later, if nothing was heard since.
func grown(b *topology.Bulletin, by time.Duration) *topology.Bulletin {
	later := *b
	later.Nodes = slices.Clone(b.Nodes)
	for i := range later.Nodes {
		later.Nodes[i].Age += by
	}
	return &later
}

// withoutPositions returns b without what changes all the time: positions, what follows
// from them, and the number of the bulletin.
func withoutPositions(b *topology.Bulletin) *topology.Bulletin {
	rest := *b
	rest.Seq = 0
	rest.Nodes = slices.Clone(b.Nodes)
	for i := range rest.Nodes {
		n := &rest.Nodes[i]
		n.CurrentLSN, n.ReceiveLSN, n.ReplayLSN, n.Lag, n.Behind, n.Age = 0, 0, 0, 0, 0, 0
	}
	return &rest
}
