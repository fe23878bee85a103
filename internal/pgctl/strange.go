package pgctl

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/heliosdb/helios/wal"
)

// putAside moves what timelines left in pg_wal that are not on the path to the target. A
// promotion that a crash cuts short leaves a history and a copy of a segment, which end
// where the copy did. A replica takes them for those of the timeline of that number which the
// cluster has since begun elsewhere: it cannot follow that one then, or does not find its own
// checkpoint (findNewestTimeLine in timeline.c, XLogFileReadAnyTLI in xlogrecovery.c).
func (i *Instance) putAside(opt RejoinOptions) error {
	strange, err := i.strange(branches(opt.Target, opt.History))
	if err != nil || len(strange) == 0 {
		return err
	}
	if err := i.makeState(); err != nil {
		return err
	}
	dir := filepath.Join(i.cfg.State, "aside")
	if err := i.user.mkdir(dir); err != nil {
		return err
	}
	pgWAL := filepath.Join(i.cfg.Dir, "pg_wal")
	for _, name := range strange {
		if err := i.installFile(filepath.Join(pgWAL, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	for _, name := range strange {
		if err := os.Remove(filepath.Join(pgWAL, name)); err != nil {
			return err
		}
	}
	return syncDir(pgWAL)
}

// strange returns the names of the histories and segments in pg_wal that are of no timeline
// on path: of another number, or begun elsewhere.
func (i *Instance) strange(path []branch) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(i.cfg.Dir, "pg_wal"))
	if err != nil {
		return nil, err
	}
	ours := map[wal.Timeline]bool{}
	for _, b := range path {
		ours[b.timeline] = true
	}
	if path[0].timeline > 1 { // what came before is not known
		for t := range path[0].timeline {
			ours[t] = true
		}
	}
	var found []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".history")
		n, err := strconv.ParseUint(name, 16, 32)
		if !ok || err != nil {
			continue
		}
		t := wal.Timeline(n)
		h, err := i.readHistory(t)
		if ours[t] && t > path[0].timeline && (err != nil || !leads(branches(t, h), path)) {
			ours[t] = false
		}
		if !ours[t] {
			found = append(found, e.Name())
		}
	}
	for _, e := range entries {
		n, err := strconv.ParseUint(e.Name()[:min(8, len(e.Name()))], 16, 32)
		if len(e.Name()) >= 24 && err == nil && !ours[wal.Timeline(n)] {
			found = append(found, e.Name())
		}
	}
	return found, nil
}

// leads reports whether all branches of mine are the first of path.
func leads(mine, path []branch) bool {
	return len(mine) <= len(path) && slices.EqualFunc(mine, path[:len(mine)], func(a, b branch) bool {
		return a.timeline == b.timeline && a.begin == b.begin
	})
}

