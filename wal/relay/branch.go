package relay

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// A span is the stretch of WAL that one timeline contributes to a branch of
// history.
type span struct {
	timeline   wal.Timeline
	begin, end wal.LSN // end is noEnd while the timeline goes on
}

const noEnd = ^wal.LSN(0)

// A branch is the history that a relay's WAL belongs to, and what its server
// tells of itself. It is immutable.
type branch struct {
	identity replication.Identity // of the source, when it was last connected to; Timeline is the branch's
	spans    []span               // oldest first; the last goes on
	files    map[wal.Timeline][]byte
	// generation grows when the relay's WAL is replaced by that of a branch
	// that does not continue it. Who was sent the old one must not be sent more.
	generation int
}

// newBranch returns the branch that a server on identity.Timeline stands on;
// file is that timeline's history, empty for the first.
func newBranch(identity replication.Identity, file []byte) (*branch, error) {
	b := &branch{identity: identity, files: map[wal.Timeline][]byte{}}
	if err := b.read(identity.Timeline, file); err != nil {
		return nil, err
	}
	return b, nil
}

// read makes b the branch of timeline t by that timeline's history file.
func (b *branch) read(t wal.Timeline, file []byte) error {
	history, err := wal.ParseHistory(t, file)
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	b.identity.Timeline = t
	b.spans = []span{{timeline: t, end: noEnd}}
	if len(history) > 0 {
		b.spans = []span{{timeline: firstTimeline(file), end: history[0].LSN}}
		for i, s := range history {
			end := noEnd
			if i+1 < len(history) {
				end = history[i+1].LSN
			}
			b.spans = append(b.spans, span{timeline: s.Timeline, begin: s.LSN, end: end})
		}
	}
	if len(file) > 0 {
		b.files = maps.Clone(b.files)
		b.files[t] = file
	}
	return nil
}

// firstTimeline returns the number in the first line of a history file that
// ParseHistory has understood.
func firstTimeline(file []byte) wal.Timeline {
	for line := range bytes.Lines(file) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		n, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			panic(fmt.Sprintf("relay: history begins with %q after ParseHistory took it", line))
		}
		return wal.Timeline(n)
	}
	return 0
}

// start returns where a relay begins that has nothing: at the segment that the
// source is writing, since that is where standbys begin.
func (b *branch) start() wal.LSN {
	return max(b.identity.Flush&^wal.LSN(b.identity.SegmentSize-1), wal.LSN(b.identity.SegmentSize))
}

// timeline returns the one that goes on.
func (b *branch) timeline() wal.Timeline { return b.identity.Timeline }

// span returns what timeline t contributed, and false if it is not part of the
// branch.
func (b *branch) span(t wal.Timeline) (span, bool) {
	for _, s := range b.spans {
		if s.timeline == t {
			return s, true
		}
	}
	return span{}, false
}

// after returns where the branch went from timeline t on: the next timeline and
// where it began. It is zero for the one that goes on.
func (b *branch) after(t wal.Timeline) wal.Position {
	for i, s := range b.spans[:len(b.spans)-1] {
		if s.timeline == t {
			return wal.Position{Timeline: b.spans[i+1].timeline, LSN: s.end}
		}
	}
	return wal.Position{}
}

// owners returns the timelines whose files can hold the byte at at, newest
// first.
func (b *branch) owners(at wal.LSN) []wal.Timeline {
	var of []wal.Timeline
	for _, s := range slices.Backward(b.spans) {
		// A timeline's first segment begins with a copy of what came before.
		if s.begin&^wal.LSN(b.identity.SegmentSize-1) <= at {
			of = append(of, s.timeline)
		}
		if s.begin <= at {
			break
		}
	}
	return of
}

// fork returns up to where two branches have the same history.
func (b *branch) fork(o *branch) wal.LSN {
	common := wal.LSN(0)
	for i := range min(len(b.spans), len(o.spans)) {
		x, y := b.spans[i], o.spans[i]
		if x.timeline != y.timeline || x.begin != y.begin {
			break
		}
		common = min(x.end, y.end)
	}
	return common
}
