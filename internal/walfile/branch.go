package walfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/heliosdb/helios/wal"
)

// change holds everything that moves the position while do runs, and then looks
// at the files again, whether it failed or not.
func (s *Spool) change(do func() error) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.ready(); err != nil {
		return failed(err)
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	return failed(s.reloadLocked(do()))
}

// Reset empties the spool, which from then on begins at a position: the start of
// a segment. What it held is removed with the histories of timelines, because a
// segment of a branch that nobody follows, or that does not join what comes,
// serves nobody, and a restore_command would mistake it for the cluster's. The
// histories of t and its past are to be given anew, by SaveHistory.
func (s *Spool) Reset(at wal.LSN, t wal.Timeline) error {
	if at == 0 || t == 0 || s.dir.offset(at) != 0 {
		return fmt.Errorf("walfile: a spool cannot begin at %s of timeline %s: want the start of a segment", at, t)
	}
	return s.change(func() error {
		if err := s.removeHistories(); err != nil {
			return err
		}
		return s.moveLocked(at, wal.Position{Timeline: t, LSN: at})
	})
}

// moveLocked says that the spool begins and ends elsewhere. What is beyond is
// cut off when the files are looked at next.
func (s *Spool) moveLocked(start wal.LSN, end wal.Position) error {
	c := s.control
	c.Start, c.Flushed = start, end
	return s.saveControlLocked(c)
}

func (s *Spool) removeHistories() error {
	entries, err := os.ReadDir(s.disk.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if isHistoryName(e.Name()) {
			if err := s.disk.remove(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// Truncate forgets what the spool holds from a position on, which has to be on
// its current timeline. What is before it is flushed.
func (s *Spool) Truncate(at wal.LSN) error {
	return s.change(func() error {
		if err := s.flushLocked(); err != nil {
			return err
		}
		return s.truncateLocked(at)
	})
}

// truncateLocked needs everything flushed.
func (s *Spool) truncateLocked(at wal.LSN) error {
	oldest, end := s.oldest(), s.control.Flushed
	if at < oldest || at > end.LSN || end.LSN == 0 {
		return fmt.Errorf("cut at %s: the spool holds %s to %s", at, oldest, end.LSN)
	}
	h, err := s.dir.pastOf(end.Timeline)
	if err != nil {
		return err
	}
	if begin, ok := h.Begin(end.Timeline); ok && at < begin {
		return fmt.Errorf("cut at %s: timeline %s begins at %s", at, end.Timeline, begin)
	}
	if at == end.LSN {
		return nil
	}
	return s.moveLocked(s.control.Start, wal.Position{Timeline: end.Timeline, LSN: at})
}

// SwitchTimeline ends the current timeline at a position and goes on there with
// t, whose history file it keeps. What the spool has beyond is cut off: it is no
// part of t. As in PostgreSQL the segment in which t begins is copied under its
// name. The old timeline's stays, as a .partial that ends at the switch.
func (s *Spool) SwitchTimeline(t wal.Timeline, at wal.LSN, historyFile []byte) error {
	h, err := wal.ParseHistory(t, historyFile)
	if err != nil {
		return err
	}
	if begin, ok := h.Begin(t); !ok || begin != at {
		return fmt.Errorf("walfile: switch to timeline %s at %s: its history says %s", t, at, begin)
	}
	return s.change(func() error {
		if err := s.flushLocked(); err != nil {
			return err
		}
		if old := s.control.Flushed.Timeline; t <= old || old == 0 {
			return fmt.Errorf("switch to timeline %s: the spool is on timeline %s", t, old)
		}
		if err := s.truncateLocked(at); err != nil {
			return err
		}
		if err := s.loadLocked(); err != nil { // cuts the file
			return err
		}
		if err := s.disk.replace(historyName(t), bytes.NewReader(historyFile)); err != nil {
			return err
		}
		if err := s.copyTailLocked(wal.Position{Timeline: t, LSN: at}); err != nil {
			return err
		}
		return s.moveLocked(s.control.Start, wal.Position{Timeline: t, LSN: at})
	})
}

// copyTailLocked copies the segment in which a timeline ends at the position of
// begin, up to there, under the name of the next one (XLogInitNewTimeline in
// xlog.c). Until control says so it counts for nothing.
func (s *Spool) copyTailLocked(begin wal.Position) error {
	offset := s.dir.offset(begin.LSN)
	if offset == 0 {
		return nil
	}
	from := s.segmentAt(s.control.Flushed).name(s.cfg.SegmentSize)
	f, err := os.Open(s.disk.file(from + partialSuffix))
	if errors.Is(err, os.ErrNotExist) {
		f, err = os.Open(s.disk.file(from))
	}
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	to := s.segmentAt(begin)
	to.partial = true
	return s.disk.replace(to.name(s.cfg.SegmentSize), io.NewSectionReader(f, 0, offset))
}

// SaveHistory keeps the history file of a timeline, for [Dir.History]. A standby
// asks for those of every timeline between its own and ours.
func (s *Spool) SaveHistory(t wal.Timeline, historyFile []byte) error {
	if _, err := wal.ParseHistory(t, historyFile); err != nil {
		return err
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	return failed(s.disk.replace(historyName(t), bytes.NewReader(historyFile)))
}
