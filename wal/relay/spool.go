package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/heliosdb/helios/internal/walfile"
	"github.com/heliosdb/helios/wal"
)

// openSpool opens the spool for the cluster of b, and returns where the buffer
// begins: where the spool ends, if that is part of b, else at, where the spool
// then begins too.
func (r *Relay) openSpool(ctx context.Context, b *branch, at wal.LSN) (wal.LSN, wal.Timeline, error) {
	if err := r.openDirs(b); err != nil || r.spool == nil {
		return at, b.timeline(), err
	}
	if r.branch.Load() != nil {
		return at, b.timeline(), nil // fillSpool writes, and sees for itself
	}
	has := r.spool.Position()
	if has.LSN == 0 {
		return at, b.timeline(), r.resetSpool(b, at)
	}
	if err := r.checkSpool(b, has); err != nil {
		return 0, 0, err
	}
	if s, _ := b.span(has.Timeline); has.LSN > s.end {
		r.log.WarnContext(ctx, "what the spool holds behind the fork is not part of the source's history, and is taken back",
			"dir", r.cfg.SpoolDir, "fork", s.end, "was", has, "timeline", b.timeline())
		if err := r.spool.Truncate(s.end); err != nil {
			return 0, 0, err
		}
		has.LSN = s.end
	}
	r.log.InfoContext(ctx, "the spool goes on", "dir", r.cfg.SpoolDir, "at", has)
	return has.LSN, has.Timeline, nil
}

// checkSpool returns an error if the source's WAL does not continue the spool's:
// it may be a primary that was left behind, and what the spool has beyond it may
// have been acknowledged. It is not for the relay to throw that away.
func (r *Relay) checkSpool(b *branch, has wal.Position) error {
	refused := func(format string, args ...any) error {
		return fmt.Errorf("relay: the spool in %s ends at %s, and %s; follow another source, or move that directory away",
			r.cfg.SpoolDir, has, fmt.Sprintf(format, args...))
	}
	_, ok := b.span(has.Timeline)
	switch {
	case has.Timeline > b.timeline():
		return refused("the source is on timeline %s: a primary that was left behind", b.timeline())
	case !ok:
		return refused("timeline %s is not in the history of the source's, %s", has.Timeline, b.timeline())
	case has.Timeline == b.timeline() && has.LSN > b.identity.Flush:
		return refused("the source only at %s", b.identity.Flush)
	}
	kept, err := r.spool.Dir().History(has.Timeline)
	if file, ok := b.files[has.Timeline]; err == nil && ok && !bytes.Equal(kept, file) {
		return refused("the source has another history of that timeline")
	}
	return nil
}

// errUnusable says that the spool cannot be opened, and will not by itself.
var errUnusable = errors.New("relay: spool")

// openDirs opens, once it is known which cluster they are of, the directories
// that older WAL is read from.
func (r *Relay) openDirs(b *branch) error {
	if r.dirs != nil {
		return nil
	}
	system, err := strconv.ParseUint(b.identity.System, 10, 64)
	if err != nil {
		return fmt.Errorf("relay: the source's system identifier %q is no number", b.identity.System)
	}
	r.dirs = []*walfile.Dir{}
	if r.cfg.SpoolDir != "" {
		spool, err := walfile.OpenSpool(r.cfg.SpoolDir, walfile.SpoolConfig{
			SegmentSize: b.identity.SegmentSize, System: system, Keep: r.cfg.Keep, MaxKeep: 2 * r.cfg.Keep,
		})
		if err != nil {
			r.dirs = nil
			return fmt.Errorf("%w: %w", errUnusable, err)
		}
		saved, err := spool.LoadSlots()
		if err != nil {
			r.dirs = nil
			return errors.Join(err, spool.Close())
		}
		r.spool = spool
		r.dirs = append(r.dirs, spool.Dir())
		r.slots.load(saved, spool.SaveSlots)
	}
	if r.cfg.WALDir != "" {
		r.dirs = append(r.dirs, walfile.OpenDir(r.cfg.WALDir, b.identity.SegmentSize, system))
	}
	return nil
}

// resetSpool empties the spool, which begins again at the start of the segment
// with at.
func (r *Relay) resetSpool(b *branch, at wal.LSN) error {
	at &^= wal.LSN(b.identity.SegmentSize - 1)
	if err := r.spool.Reset(at, b.owners(at)[0]); err != nil {
		return err
	}
	return r.saveHistories(b)
}

func (r *Relay) saveHistories(b *branch) error {
	for t, file := range b.files {
		if err := r.spool.SaveHistory(t, file); err != nil {
			return err
		}
	}
	return nil
}

// spoolRetry is how long to wait after the spool's disk failed.
const spoolRetry = time.Second

// fillSpool writes what comes into the buffer to the spool, until ctx ends and
// everything is written.
func (r *Relay) fillSpool(ctx context.Context) {
	select {
	case <-r.known:
	case <-ctx.Done():
		return
	}
	if r.spool == nil {
		return
	}
	reader := r.buffer.Reader(r.spool.Position().LSN)
	defer func() { reader.Close() }()
	said := "" // in the log, since something was written
	for {
		wrote, err := r.spoolSome(ctx, reader)
		switch {
		case errors.Is(err, ErrClosed):
			return
		case err != nil:
			// What could not be written is written later, if the buffer still has it.
			r.log.Log(ctx, unlessSaid(slog.LevelError, err, said), "the spool cannot be written", "dir", r.cfg.SpoolDir, "error", err)
			said = err.Error()
			reader.seek(r.spool.Position().LSN)
			select {
			case <-time.After(spoolRetry):
			case <-ctx.Done():
				return
			}
		case !wrote:
			changed := r.buffer.Changed()
			if r.buffer.Head() > reader.Position() {
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		default:
			said = ""
		}
	}
}

// unlessSaid returns the level for an error, that of details if it is the one
// that was told last.
func unlessSaid(level slog.Level, err error, said string) slog.Level {
	if err.Error() == said {
		return slog.LevelDebug
	}
	return level
}

// spoolSome writes what there is, flushes it, and says so. It reports whether
// there was anything to do.
func (r *Relay) spoolSome(ctx context.Context, reader *Reader) (bool, error) {
	const most = 4 << 20 // for one flush
	wrote := 0
	for wrote < most {
		n, err := r.spoolStep(ctx, reader)
		if err != nil {
			return false, err
		}
		if n == 0 {
			break
		}
		wrote += n
	}
	if wrote == 0 {
		return false, nil
	}
	if _, err := r.spool.Sync(); err != nil {
		return false, err
	}
	r.replicator.spool(r.spool.Flushed())
	r.spool.SetFloor(r.slots.oldest())
	return true, nil
}

// spoolStep writes one piece, or follows the branch to its next timeline. It
// returns how much it did, 0 if there is nothing to do.
func (r *Relay) spoolStep(ctx context.Context, reader *Reader) (int, error) {
	from := reader.Position()
	data, err := reader.Next(chunkSize)
	b := r.branch.Load() // after Next, as in stream.send
	pos := r.spool.Position()
	s, ok := b.span(pos.Timeline)
	switch {
	case !ok, errors.Is(err, ErrBehind), err == nil && len(data) > 0 && from != pos.LSN:
		return r.mendSpool(ctx, b, reader, pos)
	case b.timeline() != pos.Timeline && from >= s.end:
		next := b.after(pos.Timeline)
		if err := r.saveHistories(b); err != nil {
			return 0, err
		}
		err := r.spool.SwitchTimeline(next.Timeline, next.LSN, b.files[next.Timeline])
		reader.seek(next.LSN)
		return 1, err
	case errors.Is(err, ErrAhead):
		return 0, nil // taken back: the branch tells soon
	case err != nil || len(data) == 0:
		return 0, err
	}
	if most := s.end - from; wal.LSN(len(data)) > most {
		data = data[:most]
	}
	if err := r.spool.Write(from, data); err != nil {
		return 0, err
	}
	reader.seek(from + wal.LSN(len(data)))
	return len(data), nil
}

// mendSpool does what there is to do when the buffer does not continue the spool.
func (r *Relay) mendSpool(ctx context.Context, b *branch, reader *Reader, pos wal.Position) (int, error) {
	if _, ok := b.span(pos.Timeline); ok {
		n, err := r.refillSpool(ctx, b, pos)
		if !errors.Is(err, errGone) {
			reader.seek(r.spool.Position().LSN)
			return n, err
		}
	}
	return r.restartSpool(ctx, b, reader, pos)
}

// restartSpool begins the spool anew at the first segment that the buffer has
// all of: what it held is of another branch, or too far back to be continued.
func (r *Relay) restartSpool(ctx context.Context, b *branch, reader *Reader, pos wal.Position) (int, error) {
	size := wal.LSN(b.identity.SegmentSize)
	at := (r.buffer.Tail() + size - 1) &^ (size - 1)
	if r.buffer.Head() <= at {
		reader.seek(r.buffer.Head()) // it comes
		return 0, nil
	}
	r.log.WarnContext(ctx, "the spool cannot go on where it stands, and begins anew", "dir", r.cfg.SpoolDir, "was", pos, "now", at)
	if err := r.resetSpool(b, at); err != nil {
		return 0, err
	}
	reader.seek(at)
	return 1, nil
}
