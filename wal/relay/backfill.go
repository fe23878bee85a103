package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/internal/walfile"
	"github.com/heliosdb/helios/wal"
)

// A backfill serves one subscriber with WAL that is older than the buffer: from
// files while they have it, else from a session of its own with the source.
type backfill struct {
	st     *stream
	buf    []byte // maxMessage bytes
	files  []*walfile.Dir
	client *replication.Client // not nil while it streams from the source
	reader frameReader
	at     wal.LSN // what client sends next
	ahead  bool    // client has sent WAL that the relay has not got to, and is of no more use
	slot   bool    // it holds one of Relay.backfills
}

var backfillBuffers = sync.Pool{New: func() any { return new([maxMessage]byte) }}

// fill sends the subscriber some of the WAL from from on, up to end, that is not
// in the buffer.
func (st *stream) fill(ctx context.Context, b *branch, from, end wal.LSN) error {
	if st.behind == nil {
		st.behind = &backfill{st: st, buf: backfillBuffers.Get().(*[maxMessage]byte)[:], files: st.r.dirs}
		st.r.log.InfoContext(ctx, "a subscriber is older than the buffer", "name", st.s.sub.name, "at", from, "buffer", st.r.buffer.Tail())
	}
	end = min(end, st.r.buffer.Head())
	if sent, err := st.behind.fromFiles(b, from, end); sent || err != nil {
		return err
	}
	err := st.behind.fromSource(ctx, b, from, end)
	if _, refused := errors.AsType[*replication.Error](err); refused && st.reader.Position() > from {
		return nil // it got on: what the source no longer gives may be in a file by now
	}
	return err
}

// close gives back what the backfill holds.
func (f *backfill) close() {
	f.leaveSource()
	backfillBuffers.Put((*[maxMessage]byte)(f.buf))
	f.st.behind = nil
}

// fromFiles sends a message's worth from disk, and reports whether it could.
func (f *backfill) fromFiles(b *branch, from, end wal.LSN) (bool, error) {
	for _, dir := range f.files {
		if dir.Path() == f.st.r.cfg.WALDir && f.st.s.sub.name == f.st.r.cfg.WALOwner {
			continue
		}
		most := min(wal.LSN(len(f.buf)), end-from) //nolint:gosec // positive
		n, err := dir.ReadAt(f.buf[:most], from, b.owners(from)...)
		if err != nil || n == 0 {
			if err != nil && !errors.Is(err, walfile.ErrNotKept) {
				f.st.r.log.Warn("WAL on disk is not used", "dir", dir.Path(), "at", from, "error", err)
			}
			continue
		}
		to := f.settled(dir, b, from, from+wal.LSN(n)) //nolint:gosec // positive
		if to < end {
			to &^= pageSize - 1 // records are split at page boundaries only
		}
		if to <= from {
			continue
		}
		f.leaveSource()
		return true, f.st.deliver(from, f.buf[:to-from], StateBackfill)
	}
	return false, nil
}

// settled returns up to where the WAL that dir has from from to to has surely
// been written. A server that fills its pg_wal may be behind the relay: its last
// page holds what was there before, from some place on. It is written when the
// next one has begun.
func (f *backfill) settled(dir *walfile.Dir, b *branch, from, to wal.LSN) wal.LSN {
	if spool := f.st.r.spool; spool != nil && dir == spool.Dir() {
		return to // it knows
	}
	last := (to - 1).PageStart()
	var header [1]byte
	if _, err := dir.ReadAt(header[:], last+pageSize, b.owners(last+pageSize)...); err == nil {
		return to
	}
	return max(last, from)
}

// fromSource has the source send the WAL from from on, and sends it on until the
// subscriber stands well inside the buffer, or the relay is on another branch.
func (f *backfill) fromSource(ctx context.Context, b *branch, from, end wal.LSN) error {
	if err := f.enterSource(ctx, from); err != nil {
		return err
	}
	defer f.leaveSource()
	client := f.client
	defer context.AfterFunc(ctx, func() { client.Close() })() //nolint:errcheck // nothing is lost with it
	buffer := f.st.r.buffer
	for !f.ahead && f.st.r.branch.Load() == b && f.at < min(end, buffer.middle()) {
		if err := f.st.attend(); err != nil {
			return err
		}
		if err := f.client.SetReadDeadline(time.Now().Add(f.st.r.cfg.SourceTimeout)); err != nil {
			return err
		}
		e, err := f.client.Next()
		if ctx.Err() != nil {
			return errShutdown
		}
		if err != nil {
			return f.refused(err)
		}
		if f.st.r.branch.Load() != b { // while it waited: what comes may be of another one
			return nil
		}
		switch e.Kind {
		case replication.KindData:
			err = f.passOn(e.Start, e.Size)
		case kindFrame:
			err = f.passFrame(e.Size)
		case replication.KindKeepalive:
			err = f.client.SendStatus(replication.Status{Write: f.at, SentAt: time.Now()})
		case replication.KindEnd:
			return nil // the timeline's end, which the stream knows
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// passOn sends size bytes of the client's, in messages that end at pages.
func (f *backfill) passOn(start wal.LSN, size int) error {
	if start != f.at {
		return f.refused(fmt.Errorf("relay: WAL from %s on comes where that from %s on does", start, f.at))
	}
	for size > 0 && !f.ahead {
		n := min(size, len(f.buf)-int(f.at%pageSize))
		if _, err := io.ReadFull(f.client, f.buf[:n]); err != nil {
			return f.refused(err)
		}
		if err := f.send(f.buf[:n]); err != nil {
			return err
		}
		size -= n
	}
	return nil
}

// passFrame sends the WAL in a frame of size bytes.
func (f *backfill) passFrame(size int) error {
	h, data, err := f.reader.read(f.client, size)
	if err == nil && (h.start != f.at || h.timeline != f.st.t) {
		err = fmt.Errorf("%w: WAL of timeline %s from %s on, where that of %s from %s on is to come", errFrame, h.timeline, h.start, f.st.t, f.at)
	}
	if err != nil {
		return f.refused(err)
	}
	return f.send(data)
}

// send sends WAL of the source's, but no more than the relay itself has got to:
// the rest comes from the buffer.
func (f *backfill) send(data []byte) error {
	if most := f.at.Behind(f.st.r.buffer.Head()); uint64(len(data)) > most {
		data, f.ahead = data[:most], true
	}
	for len(data) > 0 {
		if err := f.st.deliver(f.at, data, StateBackfill); err != nil {
			return err
		}
		now := f.st.reader.Position() // a frame that was there may hold less than data
		data = data[now-f.at:]
		f.at = now
	}
	return nil
}

// enterSource opens a stream from the source, when it is this subscriber's turn.
func (f *backfill) enterSource(ctx context.Context, from wal.LSN) error {
	st := f.st
	f.at, f.ahead = from, false
	if err := f.awaitTurn(ctx); err != nil {
		return err
	}
	cfg := st.r.source.Load().cfg
	if cfg == nil {
		return errOrphaned
	}
	ctx, cancel := context.WithTimeout(ctx, st.r.cfg.SourceTimeout)
	defer cancel()
	client, id, err := st.r.dial(ctx, cfg.Copy(), "_backfill")
	if err == nil {
		f.client = client
		_, _, err = client.Start(ctx, "", from, st.t, frameOptions(id, st.r.cfg.Compression))
	}
	if err != nil {
		f.leaveSource()
		return f.refused(err)
	}
	return nil
}

// awaitTurn waits until few enough others are served from the source.
func (f *backfill) awaitTurn(ctx context.Context) error {
	st := f.st
	for !f.slot {
		timer := st.alarm(st.r.cfg.SenderTimeout / 4)
		select {
		case st.r.backfills <- struct{}{}:
			f.slot = true
		case <-timer.C: // others are before it: it is told that it is not forgotten
			if err := st.keepalive(true); err != nil {
				return err
			}
		case err := <-st.listened:
			return &listenError{err}
		case <-st.s.poke:
			if err := st.attend(); err != nil {
				return err
			}
		case <-ctx.Done():
			return errShutdown
		}
	}
	return nil
}

// leaveSource ends the stream from the source, if there is one.
func (f *backfill) leaveSource() {
	if f.client != nil {
		f.client.Close() //nolint:errcheck // nothing is lost with it
		f.client = nil
	}
	if f.slot {
		<-f.st.r.backfills
		f.slot = false
	}
}

// refused tells the subscriber why the source does not give what it needs, in
// the source's words if it has some.
func (f *backfill) refused(err error) error {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		code := pgErr.Code
		if errors.Is(gone(err), errGone) {
			code = codeGone // a relay that asks has nothing else to know it by
			f.st.r.strand(f.st.s.sub.name, f.at)
		}
		return &replication.Error{Code: code, Message: pgErr.Message, Detail: pgErr.Detail, Hint: pgErr.Hint}
	}
	f.st.r.log.Warn("older WAL cannot be had from the source", "name", f.st.s.sub.name, "error", err)
	return &replication.Error{Code: "57P03", Message: fmt.Sprintf("WAL from %s on is older than the relay's buffer, and its source cannot be reached", f.at)}
}
