package pgctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/heliosdb/helios/internal/walfile"
	"github.com/heliosdb/helios/wal"
)

// WALEnd returns where the log of a server that does not run ends: behind the
// last record that is whole, from the latest checkpoint on. A record that a
// crash has torn, and all that stands behind it, counts for nothing; recovery
// will not see it either.
//
// The log of a server that was a primary ends on the timeline of its checkpoint,
// whatever histories of newer timelines are there: what it wrote may be in its
// files. That of a replica goes on along a newer timeline, if it has received
// some of it and has replayed nothing that is not in that one's past.
func (i *Instance) WALEnd(ctx context.Context) (wal.Position, error) {
	if i.Running() {
		return wal.Position{}, i.failed(errRunning)
	}
	c, err := i.ControlData(ctx)
	if err != nil {
		return wal.Position{}, err
	}
	end, err := i.walEnd(ctx, c)
	return end, i.failed(err)
}

func (i *Instance) walEnd(ctx context.Context, c ControlData) (wal.Position, error) {
	dir := walfile.OpenDir(filepath.Join(i.cfg.Dir, "pg_wal"), int64(c.SegmentSize), c.SystemID)
	defer dir.Close() //nolint:errcheck // only read
	timelines, err := i.timelinesAhead(c)
	if err != nil {
		return wal.Position{}, err
	}
	for _, t := range timelines {
		h, err := historyOf(dir, t)
		if err != nil {
			return wal.Position{}, err
		}
		if t != c.Reached() && !c.follows(h, t) {
			continue
		}
		end, err := scanLog(ctx, dir, c, h, t)
		if err != nil {
			return wal.Position{}, err
		}
		// A replica that has only the history of t is still where t's parent ends.
		if begin, _ := h.Begin(t); t == c.Reached() || end.LSN > begin {
			return end, c.checkEnd(end)
		}
	}
	return wal.Position{}, fmt.Errorf("no log of timeline %s", c.Reached())
}

// follows reports whether nothing that the files of a replica hold is missing
// from the past of timeline t.
func (c ControlData) follows(h wal.History, t wal.Timeline) bool {
	return h.Ancestor(c.Reached(), t) &&
		h.Holds(wal.Position{Timeline: c.Timeline, LSN: c.Checkpoint}, t) == wal.Kept &&
		h.Holds(c.MinRecovery, t) == wal.Kept
}

// checkEnd returns an error if the log ends before the place where the files are
// known to be, which means that some of it was lost.
func (c ControlData) checkEnd(end wal.Position) error {
	if end.LSN < c.Checkpoint || end.LSN < c.MinRecovery.LSN {
		return fmt.Errorf("the log ends at %s, before the checkpoint at %s or the end of recovery at %s: segments are missing in pg_wal, or damaged",
			end, c.Checkpoint, c.MinRecovery.LSN)
	}
	return nil
}

// timelinesAhead returns the timelines that the log may end on, newest first: of
// a replica all that there are histories of in pg_wal, down to the one that it
// had surely reached.
func (i *Instance) timelinesAhead(c ControlData) ([]wal.Timeline, error) {
	found := []wal.Timeline{c.Reached()}
	if !c.State.Replica() {
		return found, nil
	}
	entries, err := os.ReadDir(filepath.Join(i.cfg.Dir, "pg_wal"))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if t, ok := timelineOfHistory(e.Name()); ok && t > c.Reached() {
			found = append(found, t)
		}
	}
	slices.Sort(found)
	slices.Reverse(found)
	return found, nil
}

// timelineOfHistory returns whose history a file in pg_wal is by its name, and false if it
// is none.
func timelineOfHistory(name string) (wal.Timeline, bool) {
	number, ok := strings.CutSuffix(name, ".history")
	t, err := strconv.ParseUint(number, 16, 32)
	return wal.Timeline(t), ok && err == nil
}

// historyOf returns the history of a timeline from its file in dir; an empty one
// of timeline 1, and of one whose file is missing since the server began on it.
func historyOf(dir *walfile.Dir, t wal.Timeline) (wal.History, error) {
	file, err := dir.History(t)
	if errors.Is(err, walfile.ErrNotKept) || errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return wal.ParseHistory(t, file)
}

// scanChunk is how much of the log is read at once.
const scanChunk = 1 << 20

// scanLog follows the log from the latest checkpoint along the past of timeline t
// and returns where its last whole record ends.
func scanLog(ctx context.Context, dir *walfile.Dir, c ControlData, h wal.History, t wal.Timeline) (wal.Position, error) {
	d := wal.NewDecoder(c.Redo.PageStart())
	chunk := make([]byte, scanChunk)
	var end wal.Position
	for at := c.Redo.PageStart(); ; {
		if ctx.Err() != nil {
			return end, context.Cause(ctx)
		}
		n, err := dir.ReadAt(chunk[:room(h, t, at)], at, walfile.TimelinesAt(h, t, at, int64(c.SegmentSize))...)
		if n == 0 || err != nil {
			return end, endOfFiles(err)
		}
		d.Feed(chunk[:n])
		for r := d.Next(); r != nil; r = d.Next() {
			if r.LSN >= c.Redo {
				end = wal.Position{Timeline: writerOf(h, t, r.LSN), LSN: r.End}
			}
		}
		if _, unknown := errors.AsType[*wal.VersionError](d.Err()); unknown {
			return end, d.Err()
		}
		if d.Err() != nil {
			return end, nil //nolint:nilerr // a torn record is where the log ends
		}
		at += wal.LSN(n)
	}
}

// endOfFiles returns nil for an error that means that there is no more log.
func endOfFiles(err error) error {
	if walfile.IsEnd(err) {
		return nil
	}
	return err
}

// room returns how much may be read at a position before another timeline begins.
func room(h wal.History, t wal.Timeline, at wal.LSN) int {
	for _, s := range h {
		if s.Timeline <= t && s.LSN > at {
			return int(min(scanChunk, s.LSN-at))
		}
	}
	return scanChunk
}

// writerOf returns the timeline that wrote a position of the past of t.
func writerOf(h wal.History, t wal.Timeline, at wal.LSN) wal.Timeline {
	for _, s := range slices.Backward(h) {
		if s.Timeline <= t && s.LSN <= at {
			return s.Timeline
		}
	}
	if len(h) > 0 {
		return max(1, h[0].Timeline-1)
	}
	return t
}
