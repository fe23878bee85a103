package integration_test

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
	"github.com/heliosdb/helios/wal/relay"
)

// A hundred subscribers of every kind get every byte, and the primary has one
// walsender.
func TestAHundredSubscribersShareOneWalsender(t *testing.T) {
	c := pgtest.New(t, pgtest.Options{Replicas: 2})
	ctx := storyContext(t)
	primary := c.Primary()
	r := startRelay(t, primary.Server().Conninfo(""), func(cfg *relay.Config) { cfg.Name = "crowded" })
	for _, s := range c.Replicas() {
		streamFrom(ctx, t, s, r.conninfo(s.Name))
	}
	for range 5 {
		startReceivewal(t, r, "")
	}
	crowd := make([]*standIn, 93)
	for n := range crowd {
		crowd[n] = startStandIn(t, r.conninfo(fmt.Sprintf("s%d", n)))
	}
	await(t, "a hundred that stream", func() bool { return streaming(r.Relay) == 100 })

	rows := 200_000
	if testing.Short() {
		rows = 16_000
	}
	for range 4 {
		pgtest.OK(t, primary.Exec(ctx, "CREATE TABLE IF NOT EXISTS load (n int, filler text)"))
		pgtest.OK(t, primary.Exec(ctx, "INSERT INTO load SELECT n, md5(n::text) FROM generate_series(1, $1) n", rows/4))
		senders, err := pgtest.Value[[]string](ctx, primary, "SELECT array_agg(application_name) FROM pg_stat_replication")
		pgtest.OK(t, err)
		if len(senders) != 1 || senders[0] != "crowded" {
			t.Errorf("the primary has the walsenders %q, want that of the relay", senders)
		}
	}
	at := writtenOn(ctx, t, primary)
	want := sumOfPrimary(ctx, t, primary, crowd[0].from, at)
	for n, s := range crowd {
		got, err := s.sumUpTo(at)
		pgtest.OK(t, err)
		if got != want {
			t.Errorf("subscriber %d got WAL with the checksum %x, want %x", n, got, want)
		}
	}
	awaitSame(ctx, t, primary, c.Replicas()...)
	await(t, "everybody was sent everything", func() bool {
		return !slices.ContainsFunc(r.Status().Subscribers, func(s relay.SubscriberMetrics) bool { return s.Sent < at })
	})
	if got := streaming(r.Relay); got != 100 {
		t.Errorf("%d subscribers stream at the end, want 100", got)
	}
	t.Logf("FIGURES %d MB of WAL to 100 subscribers", crowd[0].from.Behind(at)>>20)
}

// streaming returns how many subscribers are sent WAL from memory.
func streaming(r *relay.Relay) (n int) {
	for _, s := range r.Status().Subscribers {
		if s.State == relay.StateStreaming {
			n++
		}
	}
	return n
}

// sumOfPrimary returns the checksum of WAL as the primary itself sends it.
func sumOfPrimary(ctx context.Context, t testing.TB, primary *pgtest.Node, from, to wal.LSN) uint32 {
	t.Helper()
	s := startStandInAt(t, primary.Server().Conninfo("reference"), from, func(s *standIn) { s.quiet = true })
	sum, err := s.sumUpTo(to)
	pgtest.OK(t, err)
	s.leave()
	return sum
}

// A buffer of a gigabyte and more goes round under load, and nobody gets a wrong
// byte: not who keeps up, nor who comes late and has to be given what the buffer
// has dropped.
func TestABufferGoesRoundWithoutAByteWrong(t *testing.T) {
	size, rounds, prompt := int64(1<<30), int64(3), 4
	switch {
	case testing.Short():
		size = 16 << 20
	case racing(): // it looks at every byte that is moved, and takes ten times as long
		rounds, prompt = 1, 1
	}
	w := startWellspring(t)
	r := startRelay(t, w.conninfo(), func(cfg *relay.Config) { cfg.BufferSize = size })
	watch := func(s *standIn) { s.check, s.quiet = checkWater, true }
	var readers []*standIn
	for range prompt {
		readers = append(readers, startStandIn(t, r.conninfo("reader"), watch))
	}
	step := size / 16
	var end wal.LSN
	for flowed := int64(0); flowed < rounds*size+size/3; flowed += step {
		end = w.flow(step)
		if flowed >= size && flowed < size+step || flowed >= 2*size && flowed < 2*size+step {
			readers = append(readers, startStandInAt(t, r.conninfo("late"), wellBegin, watch))
		}
		for _, s := range readers[:prompt] { // else most of them would soon be late
			await(t, "readers come near the head", func() bool { return s.position()+wal.LSN(size/2) >= end }) //nolint:gosec // positive
		}
	}
	for n, s := range readers {
		if _, err := s.sumUpTo(end); err != nil {
			t.Fatalf("reader %d: %v", n, err)
		}
	}
	m := r.Status().Metrics
	if held := int64(m.Tail.Behind(m.Head)); held > size || held < size-(2<<20) {
		t.Errorf("the buffer holds %d bytes, want about %d", held, size)
	}
	if m.Memory > size+(8<<20) {
		t.Errorf("the buffer takes %d bytes of memory, want no more than %d and a little", m.Memory, size)
	}
	t.Logf("FIGURES %d MB through a buffer of %d MB to %d readers, %d MB of memory", m.Bytes>>20, size>>20, len(readers), m.Memory>>20)
}

// racing reports whether the race detector is on, which multiplies what memory
// things take.
func racing() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
