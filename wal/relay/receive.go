package relay

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heliosdb/helios/internal/beat"
	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// A receiver is one stream from the source into the buffer.
type receiver struct {
	r      *Relay
	c      *candidate
	frames frameReader
	reply  chan struct{} // holds one: the source wants an answer at once
	// heard is when the source last said anything, in nanoseconds.
	heard atomic.Int64
	asked int         // questions of the source without WAL between them
	first time.Time   // the first of these
	leave atomic.Bool // the source is shutting down
}

// receive takes one timeline's WAL until it ends, and returns the next.
func (r *Relay) receive(ctx context.Context, c *candidate) (wal.Position, error) {
	in := &receiver{r: r, c: c, reply: make(chan struct{}, 1)}
	in.heard.Store(time.Now().UnixNano())
	telling, stop := context.WithCancel(ctx)
	defer stop()
	r.replicator.report(c.isRelay())
	var answering sync.WaitGroup
	defer answering.Wait()
	defer stop()
	answering.Go(func() { in.answer(telling) })
	next, err := in.run()
	if in.leave.Load() && err != nil {
		return next, fmt.Errorf("relay: the source shuts down, and what it waits for is not confirmed: %w", err)
	}
	return next, err
}

// run reads events.
func (in *receiver) run() (wal.Position, error) {
	client := in.c.client
	for {
		e, err := client.Next()
		if err != nil {
			return wal.Position{}, err
		}
		now := time.Now()
		in.heard.Store(now.UnixNano())
		switch e.Kind {
		case replication.KindData:
			err = in.take(e.Start, e.Size, client, now)
		case kindFrame:
			err = in.takeFrame(e.Size, now)
		case replication.KindKeepalive:
			if e.Reply {
				in.question(now)
			}
		case replication.KindEnd:
			return e.Next, nil
		}
		if err != nil {
			return wal.Position{}, err
		}
	}
}

// take puts WAL that the source sends next into the buffer.
func (in *receiver) take(at wal.LSN, size int, from io.Reader, now time.Time) error {
	if size == 0 {
		return nil
	}
	err := in.r.buffer.AppendFrom(at, size, func(p []byte) error {
		_, err := io.ReadFull(from, p)
		in.heard.Store(time.Now().UnixNano()) // a message may take its time on a slow link
		return err
	})
	if err == nil {
		in.arrived(at+wal.LSN(size), now) //nolint:gosec // positive
	}
	return err
}

// arrived notes that there is WAL up to at. A source that goes on is not
// shutting down, however often it has asked.
func (in *receiver) arrived(at wal.LSN, now time.Time) {
	in.asked = 0
	in.leave.Store(false)
	in.r.replicator.arrived(at, now)
}

func (in *receiver) takeFrame(size int, now time.Time) error {
	f, err := in.frames.begin(in.c.client, size)
	if err != nil {
		return err
	}
	if t := in.r.branch.Load().timeline(); f.timeline != t {
		return fmt.Errorf("relay: a frame of timeline %s in the stream of %s", f.timeline, t)
	}
	if err := in.frames.appendTo(in.r.buffer, in.c.client, f); err != nil {
		return err
	}
	in.arrived(f.start+wal.LSN(f.length), now) //nolint:gosec // at most maxFrame
	return nil
}

// shutdownQuestions in a second, with no WAL between them, are what a walsender
// does that waits to be allowed to stop: it asks again as soon as it is
// answered (WalSndDone). In all other cases it asks once in half of
// wal_sender_timeout.
const shutdownQuestions = 3

// question is the source asking for an answer.
func (in *receiver) question(now time.Time) {
	if in.asked == 0 || now.Sub(in.first) > time.Second {
		in.asked, in.first = 0, now
	}
	in.asked++
	if in.asked >= shutdownQuestions {
		in.leave.Store(true)
	}
	select {
	case in.reply <- struct{}{}:
	default:
	}
}

// lastRead is how long is read from a source that takes no answers any more. One that
// has gone away says so as soon as what it had sent is read.
const lastRead = time.Second

// answer tells the source how far the relay is: at once when that changes or it
// asks, and each second.
func (in *receiver) answer(ctx context.Context) {
	every := min(time.Second, in.r.cfg.SourceTimeout/3)
	tick := time.NewTimer(beat.Next(every))
	defer tick.Stop()
	var told told
	for {
		asked, quiet := false, false
		select {
		case <-ctx.Done():
			return
		case <-in.r.replicator.kick:
			quiet = !in.r.replicator.released.Swap(false)
		case <-in.reply:
			asked = true
		case <-tick.C:
			tick.Reset(beat.Next(every))
			if in.silentFor() > in.r.cfg.SourceTimeout {
				in.r.log.WarnContext(ctx, "the source is silent", "from", addr(in.c.cfg), "for", in.silentFor().Round(time.Millisecond))
				in.c.client.Close() //nolint:errcheck // ends the read
				return
			}
		}
		if in.leave.Load() && !in.farewell(ctx) {
			return
		}
		if err := in.tell(&told, asked, quiet); err != nil {
			// What had arrived when the connection broke is taken before the read ends.
			in.c.client.SetReadDeadline(time.Now().Add(lastRead)) //nolint:errcheck // closed already
			return
		}
	}
}

func (in *receiver) silentFor() time.Duration {
	return time.Duration(time.Now().UnixNano() - in.heard.Load())
}

// told is what the source knows.
type told struct {
	anything  bool
	confirmed Confirmation
	feedback  replication.Feedback
	positions []byte
}

// confirmed returns what the source may be told.
func (in *receiver) confirmed() Confirmation {
	r := in.r
	c := r.replicator.Confirmed()
	if r.cfg.Gate == nil {
		return c
	}
	at := r.replicator.Position()
	return r.cfg.Gate(Question{Source: addr(in.c.cfg), Timeline: at.Timeline, Head: at.LSN, Confirmed: c})
}

// tell sends what there is to tell. A quiet one sends nothing if the source knows
// it all.
func (in *receiver) tell(old *told, asked, quiet bool) error {
	r, client := in.r, in.c.client
	c, f := in.confirmed(), r.replicator.Feedback()
	if quiet && old.anything && !in.c.isRelay() && c == old.confirmed && f == old.feedback {
		return nil
	}
	old.anything, old.confirmed = true, c
	if in.c.isRelay() {
		now := encodePositions(r.replicator.positions())
		if !slices.Equal(now, old.positions) {
			if err := client.SendCopy(kindPositions, now); err != nil {
				return err
			}
			old.positions = now
		}
	}
	// An idle primary says nothing of itself for half a minute.
	ping := !asked && in.silentFor() > in.r.cfg.SourceTimeout/4
	status := replication.Status{Write: c.Write, Flush: c.Flush, Apply: c.Apply, SentAt: time.Now(), Reply: ping}
	if err := client.SendStatus(status); err != nil {
		return err
	}
	if f != old.feedback {
		old.feedback = f
		f.SentAt = status.SentAt
		return client.SendFeedback(f)
	}
	return nil
}

// farewell lets the source wait for what the policy withholds, for a while, and
// reports whether it may wait longer. Its questions come as fast as they are
// answered: they are not.
func (in *receiver) farewell(ctx context.Context) bool {
	r := in.r
	head := r.buffer.Head()
	done := func() bool {
		c := in.confirmed()
		// What is not told as flushed counts as written (WalSndDone).
		return c.Flush == head || c.Flush == 0 && c.Write == head
	}
	if done() {
		return true
	}
	grace := r.cfg.ShutdownGrace
	if r.cfg.Acknowledge.Mode == ConfirmNothing && r.cfg.Gate == nil {
		grace = 0 // nobody will ever confirm
	}
	wait := time.NewTimer(grace)
	defer wait.Stop()
	for !done() && in.leave.Load() {
		select {
		case <-ctx.Done():
			return false
		case <-r.replicator.kick:
			continue
		case <-wait.C:
		}
		if !in.leave.Load() {
			break
		}
		level := slog.LevelWarn
		if grace == 0 {
			level = slog.LevelInfo // it is the way it always goes
		}
		r.log.Log(ctx, level, "the source shuts down, and is not kept from it any longer", "from", addr(in.c.cfg), "unconfirmed", head)
		in.c.client.Close() //nolint:errcheck // ends the read
		return false
	}
	return true
}

// report says whether the source, which knows nothing yet, is to hear of every
// subscriber.
func (r *Replicator) report(all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tells = all
	r.kickSource()
}
