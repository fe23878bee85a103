package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// A refill has the source send to the spool what the buffer no longer holds: a
// disk that was slow for a while must not cost what is to be kept.
type refill struct {
	r      *Relay
	client *replication.Client
	seen   *branch // that the WAL is of
	ahead  bool    // the source has sent WAL that the relay has not got to, and is of no more use
	buf    [maxMessage]byte
}

// refillSpool brings the spool from pos well into the buffer, or to the end of
// its timeline, and returns how much it wrote. The error is errGone if the source
// has removed what is needed.
func (r *Relay) refillSpool(ctx context.Context, b *branch, pos wal.Position) (int, error) {
	cfg := r.source.Load().cfg
	if cfg == nil {
		return 0, errOrphaned
	}
	bounded, cancel := context.WithTimeout(ctx, r.cfg.SourceTimeout)
	defer cancel()
	client, _, err := r.dial(bounded, cfg.Copy(), "_spool")
	if err != nil {
		return 0, err
	}
	defer client.Close() //nolint:errcheck // nothing is lost with it
	r.log.InfoContext(ctx, "the spool is older than the buffer, and is filled from the source", "at", pos, "buffer", r.buffer.Tail())
	started, _, err := client.Start(bounded, "", pos.LSN, pos.Timeline, "")
	if err != nil || !started {
		return 0, gone(err)
	}
	stop := context.AfterFunc(ctx, func() { client.Close() }) //nolint:errcheck // it ends the read
	defer stop()
	f := &refill{r: r, client: client, seen: b}
	err = f.run()
	return int(pos.LSN.Behind(r.spool.Position().LSN)), gone(err) //nolint:gosec // what was written in one go
}

// errGone says that the source has removed the WAL.
var errGone = errors.New("relay: the source has removed the WAL")

// codeGone is how a walsender says so, and this relay.
const codeGone = "58P01"

// gone marks what a stream of WAL ended with as errGone if it is that. The code
// is codeGone where the file is no longer there (WalSndSegmentOpen). Where it was
// removed while it was read (CheckXLogRemoved) the code is made of whatever errno
// was left from before, mostly XX000, which other refusals have as well; what is
// its own is the function's name, which no language changes. Only for streams:
// what has codeGone elsewhere is another file.
func gone(err error) error {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || pgErr.Code != codeGone && pgErr.Routine != "CheckXLogRemoved" {
		return err
	}
	return fmt.Errorf("%w: %w", errGone, err)
}

// end returns how far the spool is filled.
func (f *refill) end() wal.LSN {
	if s, ok := f.seen.span(f.r.spool.Position().Timeline); ok {
		return min(f.r.buffer.middle(), s.end)
	}
	return 0
}

// run writes what the source sends.
func (f *refill) run() error {
	spool := f.r.spool
	for !f.ahead && spool.Position().LSN < f.end() && f.r.branch.Load() == f.seen {
		if err := f.client.SetReadDeadline(time.Now().Add(f.r.cfg.SourceTimeout)); err != nil {
			return err
		}
		e, err := f.client.Next()
		if err != nil {
			return err
		}
		switch e.Kind {
		case replication.KindData:
			err = f.take(e.Start, e.Size)
		case replication.KindKeepalive:
			err = f.client.SendStatus(replication.Status{Write: spool.Position().LSN, SentAt: time.Now()})
		case replication.KindEnd:
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// take writes size bytes that the source sends next, but no more than the relay
// itself has got to.
func (f *refill) take(at wal.LSN, size int) error {
	for size > 0 && !f.ahead {
		n := min(size, len(f.buf))
		if _, err := io.ReadFull(f.client, f.buf[:n]); err != nil {
			return err
		}
		data := f.buf[:min(uint64(n), at.Behind(f.end()))]
		if f.ahead = len(data) < n; len(data) == 0 {
			return nil
		}
		if err := f.r.spool.Write(at, data); err != nil {
			return err
		}
		at += wal.LSN(len(data))
		size -= n
	}
	return nil
}
