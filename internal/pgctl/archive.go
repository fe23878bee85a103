package pgctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/heliosdb/helios/wal"
)

// archiveTail copies the segments of the log that hold something beyond the fork
// to a directory of its own, with a file that says what they are, and returns it.
// They are the only trace of what was committed there.
func (i *Instance) archiveTail(ctx context.Context, opt RejoinOptions, r Rejoined) (string, error) {
	root := opt.Archive
	if root == "" {
		if err := i.makeState(); err != nil {
			return "", err
		}
		root = filepath.Join(i.cfg.State, "diverged")
	}
	dir := filepath.Join(root, fmt.Sprintf("%s-%s", r.Was.Position.Timeline, strings.ReplaceAll(r.Fork.String(), "/", "-")))
	for _, d := range []string{root, dir} {
		if err := i.user.mkdir(d); err != nil {
			return "", err
		}
	}
	c, err := i.ControlData(ctx)
	if err != nil {
		return "", err
	}
	segments, err := i.segmentsBetween(r.Fork, r.Was.Position.LSN, c.SegmentSize)
	if err != nil {
		return "", err
	}
	for _, name := range segments {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if err := i.installFile(filepath.Join(i.cfg.Dir, "pg_wal", name), filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	err = i.user.writeFile(filepath.Join(dir, "README.txt"), i.explainTail(opt, r))
	return dir, errors.Join(err, syncDir(dir), syncDir(root))
}

// segmentsBetween returns the names of the files in pg_wal that may hold something
// between two positions, and of the histories that it takes to read them.
func (i *Instance) segmentsBetween(fork, end wal.LSN, size wal.SegmentSize) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(i.cfg.Dir, "pg_wal"))
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		_, begin, err := size.Parse(strings.TrimSuffix(e.Name(), ".partial"))
		if err == nil && size.End(begin) > fork && begin <= end || strings.HasSuffix(e.Name(), ".history") {
			found = append(found, e.Name())
		}
	}
	return found, nil
}

// explainTail is what the file beside an archived tail says.
func (i *Instance) explainTail(opt RejoinOptions, r Rejoined) string {
	return fmt.Sprintf(`What %s wrote and its cluster does not have.

Server:       %s, data directory %s
Cluster:      system identifier %d
Written:      timeline %s, from %s to %s
The cluster:  went on with timeline %s, without what is here
Kept:         %s, before the server was made a replica

The files are segments of the write-ahead log. To see what transactions wrote:

    pg_waldump --path=. --timeline=%s --start=%s --end=%s

Nothing reads this directory. Remove it when you do not need it any more.
`, i.cfg.Name, i.cfg.Name, i.cfg.Dir, r.Was.SystemID, r.Was.Position.Timeline, r.Fork, r.Was.Position.LSN,
		opt.Target, time.Now().UTC().Format(time.RFC3339), r.Was.Position.Timeline, r.Fork, r.Was.Position.LSN)
}
