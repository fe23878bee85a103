package pgctl

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/heliosdb/helios/wal"
)

// putAside moves what timelines left in pg_wal that are not on the path to the target. A
// promotion that a crash cuts short leaves a copy of a segment and a history, which end
// where the copy did. A replica takes them for those of the timeline of that number which the
// cluster has since begun elsewhere: it cannot follow that one then, or does not find its own
// checkpoint (findNewestTimeLine in timeline.c, XLogFileReadAnyTLI in xlogrecovery.c).
func (i *Instance) putAside(opt RejoinOptions, was LocalData) error {
	strange, err := i.strange(opt, was)
	if err != nil || len(strange) == 0 {
		return err
	}
	if err := i.makeState(); err != nil {
		return err
	}
	root := filepath.Join(i.cfg.State, "aside")
	dir := filepath.Join(root, time.Now().UTC().Format("20060102T150405.000"))
	for _, d := range []string{root, dir} {
		if err := i.user.mkdir(d); err != nil {
			return err
		}
	}
	pgWAL := filepath.Join(i.cfg.Dir, "pg_wal")
	for _, name := range strange {
		if err := i.installFile(filepath.Join(pgWAL, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := errors.Join(syncDir(dir), syncDir(root)); err != nil {
		return err
	}
	for _, name := range strange { // histories last: by them the segments are known
		if err := os.Remove(filepath.Join(pgWAL, name)); err != nil {
			return err
		}
	}
	return syncDir(pgWAL)
}

// strange returns the names of the segments, and then of the histories, in pg_wal that are of no
// timeline on the path to the target: of another number, or begun elsewhere. A segment that is
// newer than all that the server has is one too if there is no history of its timeline: that
// comes before any WAL, but not before the copy that a promotion makes.
func (i *Instance) strange(opt RejoinOptions, was LocalData) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(i.cfg.Dir, "pg_wal"))
	if err != nil {
		return nil, err
	}
	path := branches(opt.Target, opt.History)
	first := path[0].timeline // or one before it: what came before the first promotion
	if len(path) > 1 {
		first = path[1].timeline - 1
	}
	ours := map[wal.Timeline]bool{}
	for _, b := range path {
		ours[b.timeline] = true
	}
	told := map[wal.Timeline]bool{}
	var segments, histories []string
	for _, e := range entries {
		t, ok := timelineOfHistory(e.Name())
		if !ok || t <= first {
			continue
		}
		told[t] = true
		h, err := i.readHistory(t)
		if _, unread := errors.AsType[*fs.PathError](err); unread {
			return nil, err
		}
		if !ours[t] || err != nil || !leads(branches(t, h), path) {
			ours[t] = false
			histories = append(histories, e.Name())
		}
	}
	for _, e := range entries {
		n, err := strconv.ParseUint(e.Name()[:min(8, len(e.Name()))], 16, 32)
		t := wal.Timeline(n)
		if len(e.Name()) >= 24 && err == nil && t > first && (!ours[t] || t > was.Position.Timeline && !told[t]) {
			segments = append(segments, e.Name())
		}
	}
	return append(segments, histories...), nil
}

// leads reports whether all branches of mine are the first of path.
func leads(mine, path []branch) bool {
	return len(mine) <= len(path) && slices.EqualFunc(mine, path[:len(mine)], func(a, b branch) bool {
		return a.timeline == b.timeline && a.begin == b.begin
	})
}
