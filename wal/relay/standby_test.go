package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// A standby receives WAL, follows its timelines, keeps every byte and confirms
// what it has.
type standby struct {
	t    *testing.T
	name string
	net  *memNet
	addr net.Addr
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	client   *replication.Client
	from     wal.LSN // of the first byte of data
	data     []byte
	timeline wal.Timeline
	rewinds  bool          // once it was refused it goes back to the server's history
	mute     bool          // nothing is confirmed by itself, and no question answered
	slow     time.Duration // after each message
	refused  error         // by the server, last
	lost     int           // connections that ended
	events   int
	pings    int // questions
	pongs    int // keepalives without one
	switches []wal.Position
	cuts     []wal.LSN // where messages ended
}

// newStandby starts one that has nothing before from, and goes on until the test
// ends.
func newStandby(t *testing.T, n *memNet, addr net.Addr, name string, from wal.Position) *standby {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	s := &standby{t: t, name: name, net: n, addr: addr, stop: stop, from: from.LSN, timeline: from.Timeline}
	s.done.Go(func() {
		for ctx.Err() == nil {
			err := s.connect(ctx)
			s.mu.Lock()
			s.lost++
			if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
				s.refused = pgErr
			}
			s.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	t.Cleanup(s.close)
	return s
}

func (s *standby) close() {
	s.stop()
	s.done.Wait()
}

// with runs do under the lock.
func (s *standby) with(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

func (s *standby) position() wal.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return wal.Position{Timeline: s.timeline, LSN: s.from + wal.LSN(len(s.data))}
}

// has reports whether it has all WAL of a timeline up to there.
func (s *standby) has(t wal.Timeline, at wal.LSN) func() bool {
	return func() bool { return s.position() == wal.Position{Timeline: t, LSN: at} }
}

func (s *standby) connect(ctx context.Context) error {
	login, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client, err := replication.Connect(login, s.net.config(s.t, s.addr, s.name))
	if err != nil {
		return err
	}
	defer client.Close()
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	behind := false
	s.with(func() { s.client, behind = client, s.refused != nil && s.rewinds })
	if behind {
		if err := s.rewind(ctx, client); err != nil {
			return err
		}
	}
	for {
		at := s.position()
		started, next, err := client.Start(ctx, "", at.LSN, at.Timeline, "")
		if err == nil && started {
			next, err = s.receive(client)
		}
		if err != nil {
			return err
		}
		if next.Timeline == 0 {
			return io.EOF
		}
		if _, err := client.History(ctx, next.Timeline); err != nil {
			return err
		}
		s.with(func() {
			s.switches = append(s.switches, next)
			s.timeline = next.Timeline
			s.cut(next.LSN)
		})
	}
}

// cut forgets what lies behind at, if it has that: it stands on a branch that was
// left behind.
func (s *standby) cut(at wal.LSN) {
	if at < s.from+wal.LSN(len(s.data)) {
		s.data = s.data[:max(at, s.from)-s.from]
	}
}

// rewind goes back to where the server's history left that of the standby.
func (s *standby) rewind(ctx context.Context, client *replication.Client) error {
	id, err := client.Identify(ctx)
	if err != nil || id.Timeline == 1 {
		return err
	}
	file, err := client.History(ctx, id.Timeline)
	if err != nil {
		return err
	}
	b, err := newBranch(id, file)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if span, ok := b.span(s.timeline); ok {
		s.cut(span.end)
	}
	return nil
}

func (s *standby) receive(client *replication.Client) (wal.Position, error) {
	for {
		e, err := client.Next()
		if err != nil {
			return wal.Position{}, err
		}
		switch e.Kind {
		case replication.KindEnd:
			return e.Next, nil
		case replication.KindKeepalive:
			s.with(func() {
				if e.Reply {
					s.pings++
				} else {
					s.pongs++
				}
			})
			if e.Reply {
				err = s.confirm(client)
			}
		case replication.KindData:
			if err = s.take(client, e); err == nil {
				err = s.confirm(client)
			}
		}
		if err != nil {
			return wal.Position{}, err
		}
	}
}

func (s *standby) take(client *replication.Client, e replication.Event) error {
	data, err := io.ReadAll(io.LimitReader(client, int64(e.Size)))
	if err != nil || len(data) != e.Size {
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if here := s.from + wal.LSN(len(s.data)); e.Start != here {
		s.t.Errorf("%s has WAL up to %s, and is sent that from %s on", s.name, here, e.Start)
	}
	s.data = append(s.data, data...)
	s.cuts = append(s.cuts, e.Start+wal.LSN(e.Size))
	s.events++
	if slow := s.slow; slow > 0 {
		s.mu.Unlock()
		<-time.After(slow)
		s.mu.Lock()
	}
	return nil
}

func (s *standby) confirm(client *replication.Client) error {
	s.mu.Lock()
	mute := s.mute
	s.mu.Unlock()
	if mute {
		return nil
	}
	at := s.position().LSN
	return client.SendStatus(replication.Status{Write: at, Flush: at, Apply: at, SentAt: time.Now()})
}

// check compares every byte with the branch's.
func (s *standby) check(b *branch, salt byte) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	want := content(b, salt, s.from, len(s.data))
	if bytes.Equal(s.data, want) {
		return
	}
	for i := range want {
		if s.data[i] != want[i] {
			s.t.Errorf("%s has %d bytes from %s on, and from %s on they are wrong", s.name, len(s.data), s.from, s.from+wal.LSN(i))
			return
		}
	}
}
