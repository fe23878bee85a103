package pgctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/heliosdb/helios/wal"
)

// LocalData is what a data directory holds, for the decision how its server
// becomes a replica of somebody.
type LocalData struct {
	Empty         bool // there is no data directory, or nothing in it
	SystemID      uint64
	Position      wal.Position // where the log ends
	History       wal.History  // of Position's timeline
	CleanShutdown bool
	CanRewind     bool // see [ControlData.CanRewind]
	Broken        bool // a rewind or a copy has begun and not ended: it must not be started
}

// LocalData reads what a server that does not run has. A copy that was complete
// when a crash came is put in its place first.
func (i *Instance) LocalData(ctx context.Context) (LocalData, error) {
	i.control.Lock()
	defer i.control.Unlock()
	d, err := i.localData(ctx)
	return d, i.failed(err)
}

// localData needs control held.
func (i *Instance) localData(ctx context.Context) (LocalData, error) {
	if i.Running() {
		return LocalData{}, errRunning
	}
	if err := i.AwaitTools(ctx); err != nil {
		return LocalData{}, err
	}
	if err := i.finishClone(); err != nil {
		return LocalData{}, err
	}
	if empty, err := isEmpty(i.cfg.Dir); err != nil || empty {
		return LocalData{Empty: empty}, err
	}
	c, err := i.ControlData(ctx)
	if err != nil {
		return LocalData{}, err
	}
	d := LocalData{SystemID: c.SystemID, CleanShutdown: c.State.Clean(), CanRewind: c.CanRewind(), Broken: i.isBroken()}
	if d.Position, err = i.walEnd(ctx, c); err != nil {
		return d, err
	}
	d.History, err = i.readHistory(d.Position.Timeline)
	return d, err
}

// readHistory returns the history of a timeline from the server's own files.
func (i *Instance) readHistory(t wal.Timeline) (wal.History, error) {
	file, err := os.ReadFile(filepath.Join(i.cfg.Dir, "pg_wal", t.HistoryFile()))
	if err != nil {
		if gone(err) {
			return nil, nil
		}
		return nil, err
	}
	return wal.ParseHistory(t, file)
}

// Fork returns where the log of d parts from that of timeline target, whose
// history is given, and whether d has gone beyond: what stands there is on no
// path to target. Two timelines of one number are the same only if they began
// at the same place, and so did all before them.
func (d LocalData) Fork(target wal.Timeline, history wal.History) (fork wal.LSN, diverged bool) {
	mine := d.History
	if len(mine) == 0 && d.Position.Timeline > 1 && history.Ancestor(d.Position.Timeline, target) {
		mine = history // its own file is missing
	}
	fork = meet(branches(d.Position.Timeline, mine), branches(target, history))
	return fork, d.Position.LSN > fork
}

// meet returns the end of what two paths share.
func meet(mine, theirs []branch) (fork wal.LSN) {
	for n := 0; n < min(len(mine), len(theirs)) && mine[n].timeline == theirs[n].timeline && mine[n].begin == theirs[n].begin; n++ {
		fork = min(mine[n].end, theirs[n].end)
		if mine[n].end != theirs[n].end {
			break
		}
	}
	return fork
}

// A branch is the part of a log that one timeline wrote.
type branch struct {
	timeline   wal.Timeline
	begin, end wal.LSN // end is the greatest LSN for the newest one
}

// branches returns the path to timeline t.
func branches(t wal.Timeline, h wal.History) []branch {
	path := []branch{{timeline: 1}}
	if len(h) == 0 {
		path[0].timeline = t // its history is not known, or it is the first
	}
	for _, s := range h {
		if s.Timeline > t {
			break
		}
		path[len(path)-1].end = s.LSN
		path = append(path, branch{timeline: s.Timeline, begin: s.LSN})
	}
	path[len(path)-1].end = ^wal.LSN(0)
	return path
}

// A Rung is a way to make a server a replica; each takes longer than the one
// before it.
type Rung string

// The rungs of [Instance.Rejoin].
const (
	Follow  Rung = "follow"  // start as a replica: nothing has diverged
	Rewind  Rung = "rewind"  // pg_rewind takes back what has diverged
	Reclone Rung = "reclone" // pg_basebackup
)

// RejoinOptions say whose replica a server is to become.
type RejoinOptions struct {
	// Source is the connection string of the primary of Target, for pg_rewind and
	// pg_basebackup: as a superuser, or one with what [Instance.Check] asks for.
	// It must have completed a checkpoint on Target: see [Instance.Rewind].
	Source string
	// Password is that of Source, which others would see in the command lines of
	// those tools.
	Password string
	// Primary becomes primary_conninfo.
	Primary string
	// Target is the timeline of the primary, and History its history.
	Target  wal.Timeline
	History wal.History
	// SystemID is the cluster's. A directory with another one is not touched.
	SystemID uint64
	// ReplaceForeign lets a copy take the place of such a directory, or of one that is
	// ahead of the cluster, and keeps it whole beside the copy.
	ReplaceForeign bool
	// Archive is the directory in which what has diverged is kept, outside of the
	// data directory; "" means diverged in Config.State.
	Archive string
	// From is the first rung that may be taken; "" means Follow. One that is not
	// possible is passed over.
	From Rung
	// To is the last one, if the others will not do; "" means Reclone.
	To Rung
	// DropOld removes what a clone has replaced, if what has diverged in it is kept
	// or nothing has. It stays otherwise, beside the data directory.
	DropOld bool
	// MaxRate bounds how fast pg_basebackup reads from Source, in kB/s; 0 does not.
	MaxRate int
}

// Rejoined says how a server became a replica.
type Rejoined struct {
	Rung     Rung
	Was      LocalData
	Fork     wal.LSN
	Diverged bool
	Archived string        // where the log beyond Fork is kept; "" if nothing is
	Kept     string        // the data directory that a clone replaced; "" if there was none, or it is removed
	Prepare  time.Duration // until the files were those of a replica
	Start    time.Duration // from then until it accepted connections
}

// Errors of Rejoin, to be told apart from those of the tools.
var (
	// ErrForeignCluster means that the data directory is of another cluster.
	ErrForeignCluster = errors.New("the data directory is of another cluster")
	// ErrRungs means that no rung that is allowed would do.
	ErrRungs = errors.New("cannot become a replica by the ways that are allowed")
	// ErrNoCheckpoint means that the source has not completed a checkpoint on the
	// target timeline, without which pg_rewind may leave a broken replica.
	ErrNoCheckpoint = errors.New("the source has not completed a checkpoint on its timeline")
	// ErrBroken means that a rewind has begun and not ended: only a new copy helps.
	ErrBroken = errors.New("the data directory is half rewound: it has to be cloned anew")

	errCannotRewind = errors.New("cannot rewind")
)

// Rejoin makes a server that does not run the replica of another and starts it:
// as it is if nothing has diverged, else by pg_rewind after the diverged part of
// its log is kept aside, else by a new copy. The data directory is replaced only
// when the copy is complete. Our settings stay, and so do the configuration
// files in the data directory, but for what is overridden in
// postgresql.auto.conf. What a promotion that came to nothing left in pg_wal is put
// aside, into Config.State.
//
// It may be called again after an error and after a crash, whatever it was doing.
// A start that fails climbs no higher: its reason is most often one that a copy
// would not mend.
func (i *Instance) Rejoin(ctx context.Context, opt RejoinOptions) (Rejoined, error) {
	begin := time.Now()
	done, err := i.becomeReplica(ctx, opt)
	done.Prepare = time.Since(begin)
	if err != nil {
		return done, i.failed(err)
	}
	if err := i.SetStandby(opt.Primary); err != nil {
		return done, err
	}
	if _, err := i.ClearOverrides(ctx); err != nil {
		return done, err
	}
	done.Prepare = time.Since(begin)
	err = i.Start(ctx)
	done.Start = time.Since(begin) - done.Prepare
	return done, err
}

// becomeReplica takes the first rung that does.
func (i *Instance) becomeReplica(ctx context.Context, opt RejoinOptions) (Rejoined, error) {
	i.control.Lock()
	defer i.control.Unlock()
	if i.Running() {
		return Rejoined{}, errRunning
	}
	if err := i.AwaitTools(ctx); err != nil {
		return Rejoined{}, err
	}
	if err := i.restoreOwnFiles(); err != nil {
		return Rejoined{}, err
	}
	was, unknown := i.localData(ctx)
	done := Rejoined{Was: was}
	if ctx.Err() != nil {
		return done, unknown
	}
	if was.SystemID != 0 && opt.SystemID != 0 && was.SystemID != opt.SystemID && !opt.ReplaceForeign {
		return done, foreign(was.SystemID, opt.SystemID)
	}
	// Where the log is not whole nobody can say what has diverged.
	if !was.Empty && unknown == nil {
		done.Fork, done.Diverged = was.Fork(opt.Target, opt.History)
	}
	reasons := unknown
	for _, done.Rung = range opt.rungs(was, unknown == nil, done.Diverged) {
		err := i.climb(ctx, opt, &done)
		if !errors.Is(err, errCannotRewind) {
			return done, err
		}
		reasons = errors.Join(reasons, err)
	}
	err := fmt.Errorf("%w: from %s to %s", ErrRungs, cmp.Or(opt.From, Follow), cmp.Or(opt.To, Reclone))
	if reasons != nil {
		err = fmt.Errorf("%w: %w", err, reasons)
	}
	return done, err
}

// foreign says that a system identifier is not the cluster's.
func foreign(got, want uint64) error {
	return fmt.Errorf("%w: system identifier %d instead of %d", ErrForeignCluster, got, want)
}

// rungs returns those that are allowed and make sense.
func (o RejoinOptions) rungs(was LocalData, known, diverged bool) []Rung {
	usable := !was.Empty && !was.Broken && known
	makesSense := map[Rung]bool{Follow: usable && !diverged, Rewind: usable && was.CanRewind, Reclone: true}
	all := []Rung{Follow, Rewind, Reclone}
	first, last := slices.Index(all, cmp.Or(o.From, Follow)), slices.Index(all, cmp.Or(o.To, Reclone))
	if first < 0 || last < first {
		return nil
	}
	return slices.DeleteFunc(all[first:last+1], func(r Rung) bool { return !makesSense[r] })
}

// climb makes the files those of a replica in the way of done.Rung. The error is
// errCannotRewind if the next rung may do.
func (i *Instance) climb(ctx context.Context, opt RejoinOptions, done *Rejoined) (err error) {
	if done.Rung == Follow {
		return i.putAside(opt, done.Was)
	}
	source, err := askSource(ctx, opt)
	if err != nil {
		return err
	}
	if done.Diverged && done.Archived == "" && !opt.ReplaceForeign {
		if done.Archived, err = i.archiveTail(ctx, opt, *done); err != nil {
			return fmt.Errorf("what has diverged cannot be kept: %w", err)
		}
	}
	if done.Rung == Rewind {
		return i.rewindFiles(ctx, opt, source, done.Was)
	}
	done.Kept, err = i.replaceByClone(ctx, opt, source, *done)
	return err
}
