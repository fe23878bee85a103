package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// maxMessage is the most WAL in one message (MAX_SEND_SIZE in walsender.c).
const maxMessage = 16 * pageSize

// A stream is WAL of one timeline on its way to one subscriber.
type stream struct {
	s          *session
	r          *Relay
	t          wal.Timeline
	generation int
	slot       string
	frames     bool // the subscriber is a relay
	lz4        bool // it takes compressed frames
	thrift     thrift
	size       int // most WAL in one message

	reader *Reader
	behind *backfill // not nil while the subscriber is older than the buffer

	header   []byte
	deadline time.Time     // that writes are given
	probe    time.Duration // until the subscriber is asked again how far it is
	probed   wal.LSN       // what it had applied when it was asked
	asked    time.Time     // when it was
	listened chan error    // the listener's end
	heard    atomic.Int64  // when the subscriber said something last, in nanoseconds
	over     atomic.Int64  // until when it is listened to at most, in nanoseconds; 0 while it goes on
	timer    *time.Timer   // of wait
}

// run streams until the timeline ends, one side leaves, or something fails.
func (st *stream) run(ctx context.Context) error {
	s := st.s
	defer func() {
		st.reader.Close()
		if st.timer != nil {
			st.timer.Stop()
		}
	}()
	if err := s.conn.StartCopy(); err != nil {
		return err
	}
	st.listened = make(chan error, 1)
	st.heard.Store(time.Now().UnixNano())
	st.r.serving.Go(func() { st.listened <- st.listen() })
	listening := true
	defer func() {
		if listening { // it may wait for a subscriber that is silent
			st.listenUntil(time.Now()) //nolint:errcheck // closed already
			<-st.listened              //nolint:errcheck // it was ended
		}
	}()
	next, err := st.send(ctx)
	if st.behind != nil {
		st.behind.close()
	}
	switch ended, over := errors.AsType[*listenError](err); {
	case over && errors.Is(ended.err, replication.ErrCopyDone):
		listening = false
		if err := s.conn.SendCopyDone(); err != nil {
			return err
		}
		return s.conn.EndCopy(wal.Position{})
	case over:
		listening = false
		return ended.err
	case err != nil:
		if refused, ok := errors.AsType[*replication.Error](err); ok && s.dead.Load() == nil {
			listening = false
			return st.giveUp(refused)
		}
		return err
	}
	// The timeline is over: both sides say so, then the next is told.
	if err := s.conn.SendCopyDone(); err != nil {
		return err
	}
	listening = false
	if err := <-st.listened; !errors.Is(err, replication.ErrCopyDone) {
		return err
	}
	return s.conn.EndCopy(next)
}

// lingerWait is how long a subscriber that was told that it is over may take to
// leave. Closing at once, with something of it unread, would take the message
// back on its way.
const lingerWait = time.Second

// giveUp tells the subscriber why there is no more, and ends the session.
func (st *stream) giveUp(why *replication.Error) error {
	if err := st.listenUntil(time.Now().Add(lingerWait)); err != nil {
		return err
	}
	if err := st.s.conn.Fail(why); err != nil {
		return err
	}
	<-st.listened                       //nolint:errcheck // the subscriber leaves
	return fmt.Errorf("relay: %v", why) //nolint:errorlint // told already: it is no answer to a command any more
}

// A listenError is why the subscriber is no longer heard.
type listenError struct{ err error }

func (e *listenError) Error() string { return e.err.Error() }
func (e *listenError) Unwrap() error { return e.err }

// next returns where timeline st.t was left; zero while it goes on.
func (st *stream) next(b *branch) wal.Position {
	if b.timeline() == st.t {
		return wal.Position{}
	}
	return b.after(st.t)
}

// send sends until the timeline ends and returns the next.
func (st *stream) send(ctx context.Context) (wal.Position, error) {
	for {
		if err := st.attend(); err != nil {
			return wal.Position{}, err
		}
		from := st.reader.Position()
		data, err := st.reader.Next(st.size)
		// After Next, never before: WAL of a new timeline comes into the buffer
		// after the branch is known to have changed.
		b := st.r.branch.Load()
		if b.generation != st.generation {
			return wal.Position{}, &replication.Error{Code: "57P01", Message: fmt.Sprintf("requested timeline %s is not in this server's history", st.t)}
		}
		end := noEnd
		next := st.next(b)
		if next.Timeline != 0 {
			end = next.LSN
		}
		switch {
		case from >= end:
			return next, nil
		case errors.Is(err, ErrBehind):
			err = st.fill(ctx, b, from, end)
		case errors.Is(err, ErrAhead), err == nil && len(data) == 0:
			err = st.wait(ctx, from, b)
		case err == nil:
			if st.behind != nil {
				st.behind.close()
			}
			data = data[:min(len(data), int(min(end-from, maxFrame)))]
			err = st.deliver(from, data, StateStreaming)
		}
		if err != nil {
			return wal.Position{}, err
		}
	}
}

// attend does what is due besides WAL: it answers the subscriber, and gives up
// if that is gone.
func (st *stream) attend() error {
	if why := st.s.dead.Load(); why != nil {
		return why
	}
	select {
	case err := <-st.listened:
		return &listenError{err}
	default:
	}
	if st.s.pong.Swap(false) {
		return st.keepalive(false)
	}
	if st.untilQuestion(time.Now()) <= 0 {
		return st.ask()
	}
	return nil
}

// untilQuestion returns how long the subscriber may go on saying nothing before
// it is asked whether it is there: WAL that is sent is no question.
func (st *stream) untilQuestion(now time.Time) time.Duration {
	idle := st.r.cfg.SenderTimeout / 2
	heard := time.Unix(0, st.heard.Load())
	if st.asked.After(heard) {
		return idle // once is enough
	}
	return heard.Add(idle).Sub(now)
}

// ask asks the subscriber how far it is.
func (st *stream) ask() error {
	st.asked = time.Now()
	return st.keepalive(true)
}

// renewed returns the deadline of what is done now, and whether it is another
// than before: it is moved now and then, not for each message.
func (st *stream) renewed(before time.Time) (time.Time, bool) {
	most := st.r.cfg.SenderTimeout
	if now := time.Now(); before.Sub(now) < most-min(time.Second, most/8) {
		return now.Add(most), true
	}
	return before, false
}

// write sends whole messages. A subscriber that takes nothing for SenderTimeout
// is given up.
func (st *stream) write(parts ...[]byte) error {
	if deadline, is := st.renewed(st.deadline); is {
		st.deadline = deadline
		if err := st.s.conn.SetWriteDeadline(st.deadline); err != nil {
			return err
		}
		if st.s.dead.Load() != nil { // kill came first, and its deadline counts
			return st.s.dead.Load()
		}
	}
	return st.s.conn.Write(parts...)
}

func (st *stream) keepalive(reply bool) error {
	return st.write(replication.AppendKeepalive(st.header[:0], st.r.buffer.Head(), time.Now(), reply))
}

// deliver sends WAL, and has the reader go on behind it.
func (st *stream) deliver(from wal.LSN, data []byte, state string) error {
	to := from + wal.LSN(len(data))
	head := max(st.r.buffer.Head(), to)
	sub := st.s.sub
	if st.frames {
		return st.deliverFrame(from, data, head, state)
	}
	sub.Sent(to, state) // before it is sent: the answer may be quick
	st.header = replication.AppendDataHeader(st.header[:0], from, head, time.Now(), len(data))
	if err := st.write(st.header, data); err != nil {
		return err
	}
	sub.count(len(st.header)+len(data), len(data))
	st.reader.seek(to)
	return nil
}

// deliverFrame sends a frame with the WAL from from on: that of data, or less if
// a shorter one has been built for another.
func (st *stream) deliverFrame(from wal.LSN, data []byte, head wal.LSN, state string) error {
	began := time.Now()
	packs := st.lz4 && st.thrift.packs(from.Behind(head), began)
	f := st.r.frames.get(frameHead{timeline: st.t, epoch: st.reader.epoch, start: from, end: head, lz4: packs}, data)
	defer f.release()
	packing := time.Since(began)
	sub := st.s.sub
	sub.Sent(f.end, state)
	if err := st.write(f.buf); err != nil {
		return err
	}
	n := int(from.Behind(f.end)) //nolint:gosec // at most maxFrame
	sub.count(len(f.buf), n)
	st.thrift.note(n, len(f.buf), packing)
	st.reader.seek(f.end)
	return nil
}

// wait returns when there may be something to do.
func (st *stream) wait(ctx context.Context, from wal.LSN, seen *branch) error {
	changed := st.r.buffer.Changed()
	if head := st.r.buffer.Head(); head > from || st.r.branch.Load() != seen {
		return nil
	}
	timer := st.alarm(st.untilProbe(from))
	select {
	case <-changed:
	case <-st.s.poke:
	case err := <-st.listened:
		return &listenError{err}
	case <-timer.C:
		return st.ask()
	case <-ctx.Done():
		// What was received is still sent and confirmed; kill ends it.
		select {
		case <-changed:
		case <-st.s.poke:
		case err := <-st.listened:
			return &listenError{err}
		}
	}
	return nil
}

// alarm returns the stream's one timer, which will fire after d.
func (st *stream) alarm(d time.Duration) *time.Timer {
	if st.timer == nil {
		st.timer = time.NewTimer(d)
	} else {
		st.timer.Reset(d)
	}
	return st.timer
}

// maxProbe is how often a subscriber is asked that does not get on.
const maxProbe = time.Second

// untilProbe returns how long to wait before the subscriber is asked how far it
// is: soon while it has not applied what it has, since it does not tell of
// itself when it has; and well before it would have to be taken for dead.
func (st *stream) untilProbe(from wal.LSN) time.Duration {
	idle := max(0, st.untilQuestion(time.Now()))
	if st.r.cfg.LagProbe < 0 || st.frames {
		return idle
	}
	switch applied := st.s.sub.applied(); {
	case applied >= from, applied == 0:
		st.probe = 0
		return idle
	case applied != st.probed || st.probe == 0:
		st.probed, st.probe = applied, st.r.cfg.LagProbe
	case time.Since(st.asked) >= st.probe:
		st.probe = min(st.probe*2, maxProbe)
	}
	return min(st.probe, idle)
}

// listen hears the subscriber until the copy ends.
func (st *stream) listen() error {
	s := st.s
	defer s.wake()
	var deadline time.Time
	for {
		var is bool
		if deadline, is = st.renewed(deadline); is {
			if err := s.conn.SetReadDeadline(deadline); err != nil {
				return err
			}
			if why := s.dead.Load(); why != nil { // kill came first, and its deadline counts
				return why
			}
			if over := st.over.Load(); over != 0 { // likewise listenUntil's
				s.conn.SetReadDeadline(time.Unix(0, over)) //nolint:errcheck // closed already
			}
		}
		payload, err := s.conn.ReadCopy()
		if err != nil {
			return err
		}
		st.heard.Store(time.Now().UnixNano())
		if err := st.hear(payload); err != nil {
			return err
		}
	}
}

// listenUntil has the listener end at by, whatever deadline it is about to set.
func (st *stream) listenUntil(by time.Time) error {
	st.over.Store(by.UnixNano())
	return st.s.conn.SetReadDeadline(by)
}

// hear takes in one message of the subscriber's.
func (st *stream) hear(payload []byte) error {
	s := st.s
	if len(payload) == 0 {
		return io.ErrUnexpectedEOF
	}
	switch payload[0] {
	case replication.KindStatus:
		status, err := replication.ParseStatus(payload)
		if err != nil {
			return err
		}
		believed := s.sub.Acknowledge(Confirmation{Write: status.Write, Flush: status.Flush, Apply: status.Apply})
		if st.slot != "" {
			st.r.slots.confirm(st.slot, believed.Flush)
		}
		if status.Reply {
			s.pong.Store(true)
			s.wake()
		}
		return nil
	case replication.KindFeedback:
		f, err := replication.ParseFeedback(payload)
		if err != nil {
			return err
		}
		f.SentAt = time.Time{}
		s.sub.setFeedback(f)
		return nil
	case kindPositions:
		of, err := parsePositions(payload[1:])
		if err != nil {
			return err
		}
		s.sub.tell(of)
		return nil
	default:
		return &replication.Error{Code: "08P01", Message: fmt.Sprintf("unexpected message type %q in a stream of WAL", payload[0])}
	}
}
