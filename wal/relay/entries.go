package relay

import (
	"context"
	"errors"
	"fmt"

	"github.com/heliosdb/helios/wal"
)

// ErrTruncated says that WAL was taken back, or replaced by that of another
// branch, under somebody who was reading records: some of what he was given may
// not be part of history any more.
var ErrTruncated = errors.New("relay: the WAL was taken back")

// EntriesFrom returns the records that begin at from or later, up to limit of
// them. What it returns is the caller's. It does not wait: fewer than limit is
// what there is. ErrBehind means that the buffer no longer has from.
func (b *Buffer) EntriesFrom(from wal.LSN, limit int) ([]wal.Entry, error) {
	s, err := b.Subscribe(context.Background(), "", from)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	var entries []wal.Entry
	for len(entries) < limit {
		e, ok, err := s.next()
		if err != nil {
			return entries, err
		}
		if !ok {
			break
		}
		entries = append(entries, e.Clone())
	}
	return entries, nil
}

// A Subscription hands out a [Buffer]'s records one by one. It is for one
// goroutine.
type Subscription struct {
	ctx     context.Context //nolint:containedctx // it bounds the subscription
	name    string
	b       *Buffer
	reader  *Reader
	decoder *wal.Decoder
	from    wal.LSN
}

// Subscribe returns the records that begin at from or later, as they arrive,
// until ctx ends. The name is for errors. A subscriber that is slower than the
// WAL finds its place gone (ErrBehind).
func (b *Buffer) Subscribe(ctx context.Context, name string, from wal.LSN) (*Subscription, error) {
	// Only the header of a page tells how the records in it look.
	start := max(from.PageStart(), b.Tail())
	s := &Subscription{ctx: ctx, name: name, b: b, reader: b.Reader(start), decoder: wal.NewDecoder(start), from: from}
	if from < b.Tail() {
		s.Close()
		return nil, s.failed(ErrBehind)
	}
	return s, nil
}

// Next waits for the next record. Its Data is good until the call after. The
// error is the context's when that ends.
func (s *Subscription) Next() (wal.Entry, error) {
	for {
		e, ok, err := s.next()
		if ok || err != nil {
			return e, err
		}
		changed := s.b.Changed()
		if s.b.Head() > s.reader.Position() {
			continue
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
			return wal.Entry{}, s.failed(s.ctx.Err())
		}
	}
}

// next returns the next record if it is there.
func (s *Subscription) next() (wal.Entry, bool, error) {
	for {
		for record := s.decoder.Next(); record != nil; record = s.decoder.Next() {
			if record.LSN >= s.from {
				return record.Entry(), true, nil
			}
		}
		if err := s.decoder.Err(); err != nil {
			return wal.Entry{}, false, s.failed(err)
		}
		epoch := s.reader.epoch
		data, err := s.reader.Next(chunkSize)
		switch {
		case s.reader.epoch != epoch:
			return wal.Entry{}, false, s.failed(ErrTruncated)
		case err == nil && len(data) == 0, errors.Is(err, ErrAhead): // it comes
			return wal.Entry{}, false, nil
		case err != nil:
			return wal.Entry{}, false, s.failed(err)
		}
		s.decoder.Feed(data)
	}
}

func (s *Subscription) failed(err error) error {
	if s.name == "" {
		return err
	}
	return fmt.Errorf("relay: subscriber %s at %s: %w", s.name, s.reader.Position(), err)
}

// Close ends the subscription.
func (s *Subscription) Close() { s.reader.Close() }
