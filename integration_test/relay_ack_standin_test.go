package integration_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// A standIn is a subscriber that speaks the protocol as a standby does, and
// confirms what the test says. What it receives is summed up and thrown away.
type standIn struct {
	t      testing.TB
	client *replication.Client
	from   wal.LSN
	done   sync.WaitGroup
	quiet  bool                             // it speaks only when it is asked
	check  func(at wal.LSN, p []byte) error // nil, or what looks at the WAL

	mu                  sync.Mutex
	at                  wal.LSN
	sum                 uint32 // CRC-32C of the WAL from from to summed
	summed, stop        wal.LSN
	write, flush, apply bool // what is confirmed of what arrives; the others stay where they are
	told                replication.Status
	err                 error
	changed             chan struct{}
}

// startStandIn subscribes at the start of the segment that the server writes.
func startStandIn(t testing.TB, conninfo string, edit ...func(*standIn)) *standIn {
	t.Helper()
	return startStandInAt(t, conninfo, 0, edit...)
}

// startStandInAt is startStandIn for another position, unless that is 0.
func startStandInAt(t testing.TB, conninfo string, from wal.LSN, edit ...func(*standIn)) *standIn {
	t.Helper()
	s, err := newStandIn(pgtest.Context(t), t, conninfo, from)
	pgtest.OK(t, err)
	for _, e := range edit {
		e(s)
	}
	t.Cleanup(s.leave)
	s.done.Go(s.run)
	return s
}

// newStandIn subscribes, and does not read yet.
func newStandIn(ctx context.Context, t testing.TB, conninfo string, from wal.LSN) (*standIn, error) {
	cfg, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return nil, err
	}
	client, err := replication.Connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	id, err := client.Identify(ctx)
	if err == nil {
		if from == 0 {
			from = id.Flush &^ wal.LSN(id.SegmentSize-1)
		}
		_, _, err = client.Start(ctx, "", from, id.Timeline, "")
	}
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return &standIn{t: t, client: client, from: from, at: from, summed: from, changed: make(chan struct{})}, nil
}

// leave ends the connection.
func (s *standIn) leave() {
	s.client.Close()
	s.done.Wait()
}

// run takes WAL until the connection ends.
func (s *standIn) run() {
	buf := make([]byte, 128<<10)
	for {
		e, err := s.client.Next()
		if err == nil && e.Kind == replication.KindData {
			err = s.take(e, buf)
		}
		if err == nil && (e.Reply || e.Kind == replication.KindData && !s.quiet) {
			err = s.tell()
		}
		if err != nil {
			s.mu.Lock()
			s.err = err
			s.wakeLocked()
			s.mu.Unlock()
			return
		}
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// take sums up one message.
func (s *standIn) take(e replication.Event, buf []byte) error {
	data := buf[:e.Size]
	if _, err := io.ReadFull(s.client, data); err != nil {
		return err
	}
	if s.check != nil {
		if err := s.check(e.Start, data); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Start != s.at {
		return fmt.Errorf("WAL at %s follows what ends at %s", e.Start, s.at)
	}
	s.at += wal.LSN(len(data))
	if s.stop != 0 {
		data = data[:min(uint64(len(data)), s.summed.Behind(s.stop))]
	}
	s.sum = crc32.Update(s.sum, castagnoli, data)
	s.summed += wal.LSN(len(data))
	if s.summed == s.stop {
		s.wakeLocked()
	}
	return nil
}

// sumUpTo waits until everything up to stop has arrived, and returns the checksum
// of what lies between where the subscription began and there. It is called once,
// before more than that is there.
func (s *standIn) sumUpTo(stop wal.LSN) (uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop = stop
	deadline := time.After(2 * time.Minute)
	for s.summed < stop && s.err == nil {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
			s.mu.Lock()
		case <-deadline:
			s.mu.Lock()
			return 0, fmt.Errorf("after two minutes WAL has arrived up to %s, not %s", s.at, stop)
		}
	}
	if s.summed > stop {
		return 0, fmt.Errorf("WAL was summed up to %s, and %s was to be the end", s.summed, stop)
	}
	return s.sum, s.err
}

// position returns how far WAL has arrived.
func (s *standIn) position() wal.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

// arrived returns when WAL has arrived up to at.
func (s *standIn) arrived(at wal.LSN) {
	s.t.Helper()
	await(s.t, "WAL up to "+at.String(), func() bool { return s.position() >= at })
}

func (s *standIn) wakeLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// confirm says which positions move with what arrives from now on, and to what has
// arrived. The others stay where they are.
func (s *standIn) confirm(write, flush, apply bool) {
	s.t.Helper()
	s.mu.Lock()
	s.write, s.flush, s.apply = write, flush, apply
	s.mu.Unlock()
	pgtest.OK(s.t, s.tell())
}

// tell sends a status update.
func (s *standIn) tell() error {
	s.mu.Lock()
	for position, moves := range map[*wal.LSN]bool{&s.told.Write: s.write, &s.told.Flush: s.flush, &s.told.Apply: s.apply} {
		if moves {
			*position = s.at
		}
	}
	s.told.SentAt = time.Now()
	status := s.told
	s.mu.Unlock()
	return s.client.SendStatus(status)
}
