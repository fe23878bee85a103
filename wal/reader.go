package wal

import (
	"errors"
	"fmt"
	"io"
)

// readSize is how much a Reader asks for at a time.
const readSize = 128 << 10

// A Reader reads records from a stream of the log's bytes, such as a file of a
// segment. Feed and Next of its decoder are for itself; the rest is for everybody.
// It is not safe for concurrent use.
type Reader struct {
	*Decoder

	from   io.Reader
	buffer []byte
	ended  error // of from
}

// NewReader returns a reader of what from yields, which begins at start: see
// [NewDecoder].
func NewReader(from io.Reader, start LSN) *Reader {
	return &Reader{Decoder: NewDecoder(start), from: from, buffer: make([]byte, readSize)}
}

// Read returns the next record, valid until the next call. The error is io.EOF
// at the end of the stream, io.ErrUnexpectedEOF if a record is unfinished there
// ([Decoder.Unfinished]), what the stream fails with, or one of [Decoder.Err].
func (r *Reader) Read() (*Record, error) {
	for {
		if record := r.Next(); record != nil {
			return record, nil
		}
		if err := r.Err(); err != nil {
			return nil, err
		}
		if r.ended != nil {
			return nil, r.end()
		}
		n, err := r.from.Read(r.buffer)
		r.ended = err
		r.Feed(r.buffer[:n])
	}
}

// end says how the stream ended.
func (r *Reader) end() error {
	if !errors.Is(r.ended, io.EOF) {
		return fmt.Errorf("wal: reading at %s: %w", r.Position(), r.ended)
	}
	if _, unfinished := r.Unfinished(); unfinished {
		return io.ErrUnexpectedEOF
	}
	return io.EOF
}

// EntriesFrom returns the records that begin at from or later, up to limit of
// them. The stream begins at start, which is at or before from and best the start
// of a page. The error is that of [Reader.Read], with the entries before it; nil
// if there may be more.
func EntriesFrom(stream io.Reader, start, from LSN, limit int) ([]Entry, error) {
	var entries []Entry
	for r := NewReader(stream, start); len(entries) < limit; {
		record, err := r.Read()
		if err != nil {
			return entries, err
		}
		if record.LSN >= from {
			entries = append(entries, record.Entry().Clone())
		}
	}
	return entries, nil
}
