package pgfake

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A stream is one direction of a connection: an unbounded buffer whose bytes
// become readable a fixed time after they were written. Unlike net.Pipe it
// never blocks a writer, so two sides that both write do not deadlock.
type stream struct {
	mu       sync.Mutex
	changed  sync.Cond
	chunks   []chunk // unread, oldest first
	taken    int     // chunks of which something was read
	delay    time.Duration
	ended    bool      // no further bytes: end of stream after the chunks
	endAt    time.Time // when the reader may know that
	reset    bool      // the connection is gone; chunks are lost
	gone     bool      // the reader closed its side
	held     bool      // nothing arrives until the network heals
	deadline time.Time // of reads; zero for none
}

// A chunk is what one Write sent.
type chunk struct {
	data    []byte
	at      time.Time // readable from then on
	started bool      // counted in taken
}

func newStream() *stream {
	s := &stream{}
	s.changed.L = &s.mu
	return s
}

// wake lets the reader look again. It takes the lock so that a reader between
// its look and its wait is not missed.
func (s *stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed.Broadcast()
}

// update changes the stream and wakes its reader.
func (s *stream) update(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.changed.Broadcast()
}

// read blocks until bytes have arrived; it returns those of one chunk at most.
func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		n, wait, err := s.readLocked(p)
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		if wait > 0 {
			time.AfterFunc(wait, s.wake)
		}
		s.changed.Wait()
	}
}

// readLocked takes what is there. Otherwise it says after which time there may
// be something, 0 if only a change of the stream can bring it.
func (s *stream) readLocked(p []byte) (n int, wait time.Duration, err error) {
	switch {
	case s.gone:
		return 0, 0, net.ErrClosed
	case !s.deadline.IsZero() && !time.Now().Before(s.deadline):
		return 0, 0, os.ErrDeadlineExceeded
	case s.held:
		return 0, 0, nil
	case s.reset:
		return 0, 0, syscall.ECONNRESET
	case len(s.chunks) == 0 && !s.ended:
		return 0, 0, nil
	}
	if wait := time.Until(s.nextLocked()); wait > 0 {
		return 0, wait, nil
	}
	if len(s.chunks) == 0 {
		return 0, 0, io.EOF
	}
	return s.takeLocked(p), 0, nil
}

// nextLocked returns when the first chunk, or else the end, arrives.
func (s *stream) nextLocked() time.Time {
	if len(s.chunks) > 0 {
		return s.chunks[0].at
	}
	return s.endAt
}

// end tells the reader that nothing follows. It takes as long as bytes do.
func (s *stream) end() {
	s.update(func() {
		if !s.ended {
			s.ended, s.endAt = true, time.Now().Add(s.delay)
		}
	})
}

// takeLocked copies from the first chunk; there is one.
func (s *stream) takeLocked(p []byte) int {
	c := &s.chunks[0]
	if !c.started {
		c.started = true
		s.taken++
	}
	n := copy(p, c.data)
	if c.data = c.data[n:]; len(c.data) == 0 {
		s.chunks = s.chunks[1:]
	}
	return n
}

// write sends b. Bytes for a reader that closed its side vanish, as they do in
// a TCP connection whose reset has not come back yet.
func (s *stream) write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.reset && s.held:
		return len(b), nil // nobody hears of the reset
	case s.reset:
		return 0, syscall.ECONNRESET
	case s.ended:
		return 0, net.ErrClosed
	case s.gone || len(b) == 0:
		return len(b), nil
	}
	c := chunk{data: append([]byte(nil), b...)}
	if s.delay > 0 {
		c.at = time.Now().Add(s.delay)
	}
	s.chunks = append(s.chunks, c)
	s.changed.Broadcast()
	return len(b), nil
}

// setDeadline bounds reads, also the one that is waiting.
func (s *stream) setDeadline(t time.Time) {
	s.update(func() { s.deadline = t })
	if wait := time.Until(t); !t.IsZero() && wait > 0 {
		time.AfterFunc(wait, s.wake)
	}
}

// chunksTaken counts the writes of the other side that were begun to be read.
func (s *stream) chunksTaken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// quiet reports that nothing waits: neither bytes nor an end.
func (s *stream) quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.held:
		return true
	case s.reset:
		return false
	case len(s.chunks) == 0 && !s.ended:
		return true
	default:
		return time.Now().Before(s.nextLocked())
	}
}
