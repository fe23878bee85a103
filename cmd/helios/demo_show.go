package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"
)

// figures are what a demo counts while it runs.
type figures struct {
	Reads       uint64            `json:"reads"`         // answered and checked
	ReadsByNode map[string]uint64 `json:"reads_by_node"` // by the driver's own count
	Writes      uint64            `json:"writes"`        // acknowledged
	Stale       uint64            `json:"stale_reads"`
	Errors      uint64            `json:"errors"`
	Unknown     uint64            `json:"outcome_unknown"` // writes that were under way at the fault
}

// summary is what a demo found. The times of a failover's steps are those that the
// companions tell; without companions they are 0.
type summary struct {
	figures

	Failovers  uint64  `json:"failovers"`         // primaries after the first one
	Lost       uint64  `json:"lost_writes"`       // acknowledged, and not on the last primary
	Told       uint64  `json:"told_lost"`         // times that the driver told a session that one may be
	DualAcks   uint64  `json:"dual_primary_acks"` // by an old primary after a new one had begun
	GapMS      float64 `json:"write_gap_ms"`      // longest time between two acknowledged writes
	DetectMS   float64 `json:"detect_ms"`         // from the old primary's last sign of life to the decision
	FenceMS    float64 `json:"fence_ms"`
	SealMS     float64 `json:"seal_ms"`
	ElectMS    float64 `json:"elect_ms"`
	PromoteMS  float64 `json:"promote_ms"`  // from the election until the new primary took writes
	PromotedMS float64 `json:"promoted_ms"` // from the fault until a client's write on the new primary was acknowledged
	RejoinMS   float64 `json:"rejoin_ms"`   // from the repair until the old primary was a replica

	OutsideAcks uint64 `json:"outside_acks"` // acknowledged to the client that knows nothing of helios
	OutsideLost uint64 `json:"outside_lost_writes"`

	ReadsOnPrimary uint64   `json:"reads_on_primary"` // of reads_by_node
	Retries        uint64   `json:"retries"`          // statements that the driver sent again by itself
	Primaries      []string `json:"primaries"`        // first and last
	DurationMS     float64  `json:"duration_ms"`
	FirstErrors    []string `json:"first_errors,omitempty"`

	mayLose      bool   // the last writes before the fault
	lostEarly    uint64 // those that not even then may be lost
	oldReads     uint64 // that the old primary had answered when it failed
	replicaReads uint64 // that the new primary had answered before it became one
}

// verdict returns which promises were broken; nil if all were kept.
func (s *summary) verdict() error {
	lost := s.Lost + s.OutsideLost
	if s.mayLose {
		lost = s.lostEarly
	}
	if s.Stale+lost+s.DualAcks+s.Errors == 0 {
		return nil
	}
	return fmt.Errorf("%d stale reads, %d lost writes, %d acknowledged by two primaries, %d errors; there should be none",
		s.Stale, lost, s.DualAcks, s.Errors)
}

// write puts down the summary for people or for programs.
func (s *summary) write(w io.Writer, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(s)
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "\nreads\t%d\t%s; %d of them by the primary\n", s.Reads, byNode(s.ReadsByNode), s.ReadsOnPrimary)
	fmt.Fprintf(table, "writes\t%d\tacknowledged\n", s.Writes)
	fmt.Fprintf(table, "stale reads\t%d\tsessions that missed a write of their own\n", s.Stale)
	fmt.Fprintf(table, "lost writes\t%d\tacknowledged, and missing on %s\n", s.Lost, s.Primaries[1])
	if s.OutsideAcks > 0 {
		fmt.Fprintf(table, "dual acks\t%d\tby the old primary after the new one had begun\n", s.DualAcks)
		fmt.Fprintf(table, "outsider\t%d\tacknowledged past the driver, straight by %s; %d of them lost\n", s.OutsideAcks, s.Primaries[0], s.OutsideLost)
	}
	fmt.Fprintf(table, "errors\t%d\t%s\n", s.Errors, strings.Join(s.FirstErrors, "; "))
	fmt.Fprintf(table, "unknown\t%d\tunder way at the fault: looked for, and written again if missing\n", s.Unknown)
	fmt.Fprintf(table, "write gap\t%.0f ms\tlongest time without an acknowledged write; %s took writes after %.0f ms\n", s.GapMS, s.Primaries[1], s.PromotedMS)
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, s.moral())
	return err
}

// moral says what the run shows, and what not.
func (s *summary) moral() string {
	switch {
	case s.OutsideAcks == 0:
		return "\nThe replicas had received every acknowledged write when the primary crashed. An\nasynchronous replica that lags would have lost the last ones, with any driver.\n"
	case s.mayLose:
		return fmt.Sprintf("\nCommits were asynchronous: the last ones before a fault may be lost, and whoever\nwrote them is told: %d times here. With --semisync none may be.\n", s.Told)
	case s.Told > s.Lost:
		return fmt.Sprintf("\nThe driver told %d times of a loss that may have been (ErrWriteLost): it knows only\nup to where a write was in the log at most.\n", s.Told)
	}
	return ""
}

// byNode writes counts such as "n1 5, n2 7".
func byNode(counts map[string]uint64) string {
	parts := make([]string, 0, len(counts))
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(parts, ", ")
}

// line writes the figures on one line that fits 80 columns, after that much time.
func (f *figures) line(after time.Duration) string {
	return fmt.Sprintf("%5.1fs  reads %s  writes %d  stale %d  errors %d",
		after.Seconds(), byNode(f.ReadsByNode), f.Writes, f.Stale, f.Errors)
}

// screen shows what happens: lines that stay, and below them one that changes.
// Where nothing can be overwritten, the figures are shown each second.
type screen struct {
	silent bool
	live   bool // a line can be overwritten
	every  time.Duration
	broken func() // called if out takes nothing more; may be nil

	mu  sync.Mutex
	out io.Writer // guarded by mu

	ending  chan struct{} // closed by finish; nil unless figures are shown
	running sync.WaitGroup
}

// newScreen returns a screen that writes to out, or nothing if silent.
func newScreen(out io.Writer, silent bool) *screen {
	s := &screen{out: out, silent: silent, every: time.Second}
	if file, ok := out.(*os.File); ok && isTerminal(file) {
		s.live, s.every = true, 200*time.Millisecond
	}
	return s
}

// isTerminal reports whether a line written to file can be overwritten.
func isTerminal(file *os.File) bool {
	info, err := file.Stat()
	term := os.Getenv("TERM")
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && term != "" && term != "dumb"
}

// eraseLine goes to the start of the line and empties it.
const eraseLine = "\r\x1b[K"

// say writes a line that stays.
func (s *screen) say(format string, args ...any) { s.write(fmt.Sprintf(format, args...) + "\n") }

// write puts text where the changing line is.
func (s *screen) write(text string) {
	if s.silent {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live {
		text = eraseLine + text
	}
	if _, err := fmt.Fprint(s.out, text); err != nil && s.broken != nil {
		s.broken()
	}
}

// begin shows the figures from now on until finish.
func (s *screen) begin(current func() figures) {
	s.ending = make(chan struct{})
	s.running.Go(func() { s.refresh(current, time.Now()) })
}

// refresh shows the figures again and again.
func (s *screen) refresh(current func() figures, began time.Time) {
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.ending:
			return
		}
		f := current()
		line := f.line(time.Since(began))
		if !s.live {
			line += "\n"
		}
		s.write(line)
	}
}

// finish ends what begin began and leaves an empty line. It may be called more
// than once.
func (s *screen) finish() {
	if s.ending == nil {
		return
	}
	close(s.ending)
	s.running.Wait()
	s.ending = nil
	if s.live {
		s.write("")
	}
}
