package relay

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/walfile"
	"github.com/heliosdb/helios/wal"
)

func TestASubscriberOlderThanTheBufferIsServedFromTheSource(t *testing.T) {
	for name, hops := range map[string]int{"one relay": 1, "two relays, with frames": 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet()
				o := newOrigin(t, n, 1)
				cfg, last := n.config(t, o.l.Addr(), ""), net.Addr(nil)
				var relays []*testRelay
				for range hops {
					r := runRelayFrom(t, n, nil, cfg)
					cfg, last = n.config(t, r.addr, ""), r.addr
					relays = append(relays, r)
				}
				for range 6 {
					head := o.write(1<<20 + 77)
					await(t, "the relay has it", func() bool { return relays[hops-1].Status().Head == head })
				}
				s := newStandby(t, n, last, "old", fromStart)
				slow := newStandby(t, n, last, "slow", wal.Position{Timeline: 1, LSN: testStart + 12_345})
				slow.with(func() { slow.slow = 20 * time.Millisecond })
				third := newStandby(t, n, last, "third", wal.Position{Timeline: 1, LSN: testStart + 1})
				third.with(func() { third.slow = time.Millisecond })
				for i := range 40 {
					o.write(100_000 + i)
					time.Sleep(20 * time.Millisecond)
				}
				head := o.head()
				for _, s := range []*standby{s, slow, third} {
					await(t, "all of it for "+s.name, s.has(1, head))
					s.check(o.b, o.salt)
					if s.lost > 0 {
						t.Errorf("%s lost its connection %d times", s.name, s.lost)
					}
				}
				await(t, "no backfill is left", func() bool { return o.streams("relay_backfill") == 0 })
			})
		})
	}
}

// While a subscriber is served from the old primary, which goes on, another is
// promoted before where the relay was. What the old one wrote behind the fork is
// not sent once the relay knows better.
func TestABackfillEndsWhereItsBranchDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		a, b := newOrigin(t, n, 1), newOrigin(t, n, 1)
		r := runRelay(t, n, nil, a)
		for range 8 {
			head := a.write(1 << 20)
			await(t, "the relay has it", func() bool { return r.Status().Head == head })
		}
		fork := a.head() - 2<<20 - 777
		s := newStandby(t, n, r.addr, "old", fromStart)
		s.with(func() { s.slow = 50 * time.Millisecond })
		await(t, "the backfill", func() bool { return a.streams("relay_backfill") == 1 })
		b.set(func() { b.flush = fork })
		b.promote(2, fork)
		b.write(3 << 20)
		if err := r.SetSource([]*pgconn.Config{n.config(t, b.l.Addr(), "")}); err != nil {
			t.Fatal(err)
		}
		await(t, "all of the new timeline", s.has(2, b.head()))
		s.check(b.b, b.salt)
		for _, cut := range s.cuts {
			if cut > fork && cut < fork+100_000 && len(s.switches) == 0 {
				t.Errorf("it was sent WAL of the old timeline up to %s", cut)
			}
		}
	})
}

func TestOlderWALThatCannotBeHadIsRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		breakdown func(*origin)
		want      string
	}{
		"it was removed":     {func(o *origin) { o.set(func() { o.oldest = testStart + 1<<20 }) }, "58P01"},
		"the source is gone": {func(o *origin) { o.stop() }, "57P03"},
		"another cluster":    {func(o *origin) { o.set(func() { o.b = branchOf(o.t, 1); o.b.identity.System = "9"; o.salt = 3 }) }, "57P03"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet()
				o := newOrigin(t, n, 1)
				r := runRelay(t, n, nil, o)
				for range 8 {
					head := o.write(1 << 20)
					await(t, "the relay has it", func() bool { return r.Status().Head == head })
				}
				tt.breakdown(o)
				s := newStandby(t, n, r.addr, "old", fromStart)
				await(t, "it is told", func() bool {
					s.mu.Lock()
					defer s.mu.Unlock()
					return s.refused != nil
				})
				if got := s.refused.Error(); !strings.Contains(got, tt.want) || strings.Contains(got, memPassword) {
					t.Errorf("it was told %q, want %s", got, tt.want)
				}
				if len(s.data) > 0 {
					t.Errorf("it was sent %d bytes", len(s.data))
				}
			})
		})
	}
}

// page returns a page with garbage behind its header.
func page(at wal.LSN, t wal.Timeline, filler byte) []byte {
	p := bytes.Repeat([]byte{filler}, pageSize)
	copy(p, pageHeader(at, t))
	return p
}

// A server that is behind the relay has written its last page in part, and what
// was there before looks like WAL.
func TestTheLastPageOnDiskIsNotBelieved(t *testing.T) {
	const at = wal.LSN(4 * testSegment)
	write := func(t *testing.T, dir string, segment wal.LSN, pages int) {
		t.Helper()
		var file []byte
		for i := range testSegment / pageSize {
			here := segment + wal.LSN(i)*pageSize
			if i >= pages {
				here -= 16 * testSegment // recycled
			}
			file = append(file, page(here, 1, byte(i))...)
		}
		name := filepath.Join(dir, fmt.Sprintf("%08X%08X%08X", 1, uint64(segment)>>32, uint64(segment)%(1<<32)/testSegment))
		if err := os.WriteFile(name, file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const all = testSegment / pageSize
	for name, tt := range map[string]struct {
		pages, next int // in the first segment, and in the second
		from, to    wal.LSN
		want        wal.LSN
	}{
		"within what is settled":                             {10, 0, at, at + 3*pageSize, at + 3*pageSize},
		"within a page":                                      {10, 0, at + 100, at + 3*pageSize + 100, at + 3*pageSize + 100},
		"up to the last page":                                {10, 0, at + 100, at + 9*pageSize, at + 9*pageSize},
		"into the last page":                                 {10, 0, at + 100, at + 9*pageSize + 1, at + 9*pageSize},
		"all of the last page":                               {10, 0, at + 100, at + 10*pageSize, at + 9*pageSize},
		"from within the last page on":                       {10, 0, at + 9*pageSize + 5, at + 10*pageSize, at + 9*pageSize + 5},
		"to the end of the segment, which another follows":   {all, 1, at, at + testSegment, at + testSegment},
		"to the end of the segment, which is the last":       {all, 0, at, at + testSegment, at + testSegment - pageSize},
		"to the end of the segment, behind which is nothing": {all, -1, at, at + testSegment, at + testSegment - pageSize},
	} {
		dir := t.TempDir()
		write(t, dir, at, tt.pages)
		if tt.next >= 0 {
			write(t, dir, at+testSegment, tt.next)
		}
		d := walfile.OpenDir(dir, testSegment, 1)
		f := &backfill{st: &stream{r: &Relay{}}}
		b := branchOf(t, 1)
		buf := make([]byte, tt.to-tt.from)
		if n, err := d.ReadAt(buf, tt.from, 1); n != len(buf) || err != nil {
			t.Fatalf("%s: ReadAt = %d, %v; want %d", name, n, err, len(buf))
		}
		if got := f.settled(d, b, tt.from, tt.to); got != tt.want {
			t.Errorf("%s: settled(%s, %s) = %s, want %s", name, tt.from, tt.to, got, tt.want)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAConfigurationThatCannotWorkIsRefused(t *testing.T) {
	source, err := ParseSource("host=a,b user=u password=" + memPassword)
	if err != nil || len(source) != 2 {
		t.Fatalf("ParseSource = %v, %v", source, err)
	}
	for want, change := range map[string]func(*Config){
		"no source":             func(c *Config) { c.Source = nil },
		"wal_batch_size":        func(c *Config) { c.BatchSize = 100 },
		"wal_buffer_size":       func(c *Config) { c.BufferSize = 100 },
		"a timeout":             func(c *Config) { c.SenderTimeout = -1 },
		"a timeout is negative": func(c *Config) { c.OrphanTimeout = -time.Second },
		"shorter than":          func(c *Config) { c.SourceTimeout = time.Nanosecond },
		"wal_keep":              func(c *Config) { c.Keep = -1 },
		"a quorum":              func(c *Config) { c.Acknowledge = Policy{Mode: ConfirmQuorum} },
		"TLS is required":       func(c *Config) { c.RequireTLS = true },
	} {
		cfg := DefaultConfig()
		cfg.Source = source
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want %q", err, want)
		}
	}
}

func TestNoPasswordIsPrinted(t *testing.T) {
	for _, conninfo := range []string{
		"postgres://u:" + memPassword + "@host:notaport/db",
		"postgres://u:" + memPassword + "@host/db?sslmode=maybe",
		"host=a port=x password=" + memPassword,
		"host=a password='" + memPassword + "' sslmode=perhaps",
		"host=a password='`: " + memPassword + "' sslmode=perhaps",
		"host=a sslrootcert=/nowhere sslmode=verify-full password = " + memPassword,
	} {
		_, err := ParseSource(conninfo)
		if err == nil || strings.Contains(err.Error(), memPassword) || len(err.Error()) < len("relay: source: invalid port") {
			t.Errorf("ParseSource = %v", err)
		}
	}
}
