package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/wal"
)

// quorumOf has the relay confirm what one subscriber has.
func quorumOf(name string) func(*Config) {
	return func(c *Config) { c.Acknowledge = Policy{Mode: ConfirmQuorum, K: 1, Names: []string{name}} }
}

func TestTheSourceIsTheNewestTimelineThenThePrimaryThenTheFirst(t *testing.T) {
	type server struct {
		timeline wal.Timeline
		standby  bool
		down     bool
	}
	for name, tt := range map[string]struct {
		servers []server
		want    int
	}{
		"the first of two equal ones":        {[]server{{1, false, false}, {1, false, false}}, 0},
		"the primary behind a standby":       {[]server{{1, true, false}, {1, false, false}}, 1},
		"a standby of a newer timeline":      {[]server{{1, false, false}, {2, true, false}}, 1},
		"the newest of three":                {[]server{{2, false, false}, {1, false, false}, {3, true, false}}, 2},
		"the one that answers":               {[]server{{2, false, true}, {1, true, false}}, 1},
		"the first standby, if all are that": {[]server{{1, true, true}, {1, true, false}, {1, true, false}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet()
				var origins []*origin
				for _, s := range tt.servers {
					var past []string
					for i := wal.Timeline(1); i < s.timeline; i++ {
						past = append(past, fmt.Sprintf("%d %s x", i, testStart+wal.LSN(i)*10))
					}
					o := newOrigin(t, n, s.timeline, past...)
					o.b.identity.InRecovery = s.standby
					if s.down {
						o.stop()
					}
					origins = append(origins, o)
				}
				r := runRelay(t, n, nil, origins...)
				await(t, "a source", func() bool { return r.Status().Connected })
				if got, want := r.Status().Source, origins[tt.want].l.Addr().String(); got != want {
					t.Errorf("the source is %s, want %s", got, want)
				}
				for i, o := range origins {
					synctest.Wait()
					if got := o.streams("relay"); (got == 1) != (i == tt.want) {
						t.Errorf("server %d has %d connections of the relay", i, got)
					}
				}
			})
		})
	}
}

func TestASourceThatCannotBeHadIsTriedMoreAndMoreSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 1)
		cfg := n.config(t, o.l.Addr(), "")
		var mu sync.Mutex
		var at []time.Duration
		began := time.Now()
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(began).Round(time.Millisecond))
			return n.dial(ctx, network, addr)
		}
		o.stop()
		r := runRelayFrom(t, n, nil, cfg)
		time.Sleep(4 * time.Second)
		mu.Lock()
		got := fmt.Sprint(at)
		mu.Unlock()
		if want := "[0s 50ms 150ms 350ms 750ms 1.55s 2.55s 3.55s]"; got != want {
			t.Errorf("it was tried at %s, want %s", got, want)
		}
		if s := r.Status(); s.Connected || !strings.Contains(s.Error, "connection refused") || strings.Contains(s.Error, memPassword) {
			t.Errorf("the status is connected %v, %q", s.Connected, s.Error)
		}
		o.restart()
		await(t, "the source is back", func() bool { return r.Status().Connected })
	})
}

func TestASilentSourceIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		a, b := newOrigin(t, n, 1), newOrigin(t, n, 1)
		r := runRelay(t, n, func(c *Config) { c.SourceTimeout = 4 * time.Second }, a, b)
		s := newStandby(t, n, r.addr, "s1", wal.Position{Timeline: 1, LSN: testStart})
		await(t, "what there is", s.has(1, a.head()))
		time.Sleep(30 * time.Second) // an idle source answers when it is asked
		if got := r.Status(); !got.Connected || time.Since(got.Since) < 30*time.Second {
			t.Fatalf("an idle source was left: %+v", got)
		}
		a.set(func() { a.silent = true })
		began := time.Now()
		await(t, "the other source", func() bool { return r.Status().Source == b.l.Addr().String() && r.Status().Connected })
		// The timeout since the answer before, and the second between two looks: who was
		// silent is not waited for again.
		if took := time.Since(began); took < 3*time.Second || took > 6*time.Second {
			t.Errorf("it was left after %v, want 3 to 6 s", took)
		}
		b.write(5000)
		await(t, "what the other has", s.has(1, b.head()))
		s.check(b.b, b.salt)
		if s.lost > 0 {
			t.Errorf("the standby lost its connection %d times", s.lost)
		}
	})
}

// A walsender that waits to be allowed to stop asks as fast as it is answered.
func TestAShutdownWaitsForConfirmationsForAWhileOnly(t *testing.T) {
	for name, tt := range map[string]struct {
		change   func(*Config)
		mute     bool
		min, max time.Duration
	}{
		"the standby has confirmed":    {quorumOf("s1"), false, 0, 200 * time.Millisecond},
		"the standby is mute":          {quorumOf("s1"), true, 3 * time.Second, 3200 * time.Millisecond},
		"nobody will ever confirm":     {nil, false, 0, 200 * time.Millisecond},
		"receipt is enough":            {func(c *Config) { c.Acknowledge = Policy{Mode: ConfirmReceipt} }, true, 0, 200 * time.Millisecond},
		"the gate keeps it for itself": {func(c *Config) { quorumOf("s1")(c); c.Gate = func(Question) Confirmation { return Confirmation{} } }, false, 3 * time.Second, 3200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet()
				o := newOrigin(t, n, 1)
				r := runRelay(t, n, func(c *Config) {
					c.ShutdownGrace = 3 * time.Second
					if tt.change != nil {
						tt.change(c)
					}
				}, o)
				s := newStandby(t, n, r.addr, "s1", wal.Position{Timeline: 1, LSN: testStart})
				await(t, "what there is", s.has(1, o.head()))
				s.with(func() { s.mute = tt.mute })
				head := o.write(5000)
				await(t, "the last of it", s.has(1, head))
				_ = o.l.Close() // no new connections, as PostgreSQL does then
				began := time.Now()
				o.set(func() { o.stopping = true })
				await(t, "the relay has left", func() bool { return o.streams("relay") == 0 })
				if took := time.Since(began); took < tt.min || took > tt.max {
					t.Errorf("the source could stop after %v, want %v to %v", took, tt.min, tt.max)
				}
			})
		})
	}
}

// When the standby confirms within the grace, the source hears of it.
func TestAShutdownEndsWhenTheLastConfirmationComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 1)
		r := runRelay(t, n, quorumOf("s1"), o)
		s := newStandby(t, n, r.addr, "s1", wal.Position{Timeline: 1, LSN: testStart})
		await(t, "what there is", s.has(1, o.head()))
		s.with(func() { s.mute = true })
		head := o.write(5000)
		await(t, "the last of it", s.has(1, head))
		_ = o.l.Close()
		o.set(func() { o.stopping = true })
		time.Sleep(2 * time.Second)
		if o.streams("relay") != 1 {
			t.Fatal("the relay has left before its time")
		}
		s.with(func() { s.mute = false })
		if err := s.confirm(s.client); err != nil {
			t.Fatal(err)
		}
		await(t, "the source may stop", func() bool { return o.streams("relay") == 0 })
		if got := get(o, func() wal.LSN { return o.told["relay"].Flush }); got != head {
			t.Errorf("the source was told %s, want %s", got, head)
		}
	})
}

// A source that only asks often is not shutting down.
func TestASourceThatAsksOftenIsNotLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 1)
		r := runRelay(t, n, quorumOf("s1"), o)
		s := newStandby(t, n, r.addr, "s1", wal.Position{Timeline: 1, LSN: testStart})
		s.with(func() { s.mute = true })
		await(t, "what there is", s.has(1, o.head()))
		for range 40 {
			o.set(func() { o.stopping = true }) // asks
			synctest.Wait()
			o.set(func() { o.stopping = false })
			o.write(100)
			time.Sleep(300 * time.Millisecond)
		}
		if got := r.Status(); !got.Connected || time.Since(got.Since) < 10*time.Second {
			t.Errorf("the source was left: %+v", got)
		}
	})
}

func TestSubscribersAreTurnedAwayWhileThereIsNoSource(t *testing.T) {
	for name, breakdown := range map[string]func(*origin){
		"it is down":                         func(o *origin) { o.stop() },
		"it is silent":                       func(o *origin) { o.set(func() { o.silent = true }) },
		"it takes connections and ends them": func(o *origin) { o.set(func() { o.cutAfter = 10 }); o.write(1); go flap(o) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet()
				o := newOrigin(t, n, 1)
				r := runRelay(t, n, func(c *Config) { c.OrphanTimeout = 10 * time.Second }, o)
				s := newStandby(t, n, r.addr, "s1", wal.Position{Timeline: 1, LSN: testStart})
				await(t, "what there is", s.has(1, o.head()))
				breakdown(o)
				time.Sleep(9 * time.Second)
				s.with(func() {
					if s.refused != nil {
						t.Errorf("it was turned away before its time: %v", s.refused)
					}
				})
				time.Sleep(15 * time.Second)
				var refused error
				s.with(func() { refused = s.refused })
				if pgErr, ok := errors.AsType[*pgconn.PgError](refused); !ok || pgErr.Code != "57P03" || pgErr.Severity != "FATAL" {
					t.Errorf("it was told %v, want that there is no source", refused)
				}
				cfg := n.config(t, r.addr, "psql")
				if c, err := pgconn.ConnectConfig(context.Background(), cfg); err == nil {
					t.Error("a session began, after which libpq tries no other host")
					_ = c.Close(context.Background())
				}
				o.set(func() { o.cutAfter = -2; o.silent = false })
				o.stop()
				o.restart()
				head := o.write(5000)
				await(t, "it is let in again", s.has(1, head))
				s.check(o.b, o.salt)
			})
		})
	}
}

// flap has the source end every stream with its first byte, until cutAfter is
// -2.
func flap(o *origin) {
	for get(o, func() int { return o.cutAfter }) != -2 {
		time.Sleep(20 * time.Millisecond)
		o.set(func() {
			if o.cutAfter == -1 {
				o.cutAfter = 10
				o.flush++
			}
		})
	}
	o.set(func() { o.cutAfter = -1 })
}

func TestTheSourceCanBeChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		a, b := newOrigin(t, n, 1), newOrigin(t, n, 1)
		r := runRelay(t, n, nil, a)
		s := newStandby(t, n, r.addr, "s1", wal.Position{Timeline: 1, LSN: testStart})
		for i := range 20 {
			from, to := a, b
			if i%2 == 1 {
				from, to = b, a
			}
			head := from.write(70_000)
			if i%3 == 0 {
				await(t, "all of the one source", s.has(1, head))
			}
			to.set(func() { to.flush = head })
			if err := r.SetSource([]*pgconn.Config{n.config(t, to.l.Addr(), "")}); err != nil {
				t.Fatal(err)
			}
			await(t, "the other source", func() bool { return to.streams("relay") == 1 && from.streams("relay") == 0 })
		}
		head := a.write(5000)
		await(t, "all of both", s.has(1, head))
		s.check(a.b, a.salt)
		if s.lost > 0 {
			t.Errorf("the standby lost its connection %d times", s.lost)
		}
		if err := r.SetSource(nil); err == nil {
			t.Error("no source was taken for one")
		}
	})
}

// What the source no longer has cannot be had: the relay goes on with what
// there is.
func TestARelayThatIsTooFarBehindBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 1)
		r := runRelay(t, n, nil, o)
		s := newStandby(t, n, r.addr, "s1", wal.Position{Timeline: 1, LSN: testStart})
		await(t, "what there is", s.has(1, o.head()))
		o.stop()
		o.write(3 * testSegment)
		o.set(func() { o.oldest = testStart + 2*testSegment })
		o.restart()
		await(t, "the relay goes on", func() bool { return r.Status().Head == o.head() })
		await(t, "the standby is told that its WAL is gone", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.refused != nil && strings.Contains(s.refused.Error(), "already been removed")
		})
		fresh := newStandby(t, n, r.addr, "s2", wal.Position{Timeline: 1, LSN: testStart + 2*testSegment})
		await(t, "a newer one is served", fresh.has(1, o.write(1000)))
		fresh.check(o.b, o.salt)
	})
}

func TestAnotherClusterAndAnOldPrimaryAreRefused(t *testing.T) {
	for name, change := range map[string]func(*origin){
		"another cluster":                   func(o *origin) { o.b.identity.System = "2"; o.salt = 9 },
		"a primary that was left behind":    func(o *origin) { o.b = branchOf(o.t, 1); o.b.identity.SegmentSize = testSegment },
		"another branch of the same number": func(o *origin) { o.b = branchOf(o.t, 2, "1 0/3000100 x"); o.b.identity.SegmentSize = testSegment },
		"other segments":                    nil,
	} {
		if change == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet()
				good, bad := newOrigin(t, n, 2, "1 0/3000200 x"), newOrigin(t, n, 2, "1 0/3000200 x")
				change(bad)
				r := runRelay(t, n, nil, good)
				s := newStandby(t, n, r.addr, "s1", wal.Position{Timeline: 1, LSN: testStart})
				await(t, "what there is", s.has(2, good.head()))
				bad.set(func() { bad.flush = good.flush + 10_000 })
				if err := r.SetSource([]*pgconn.Config{n.config(t, bad.l.Addr(), "")}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				if got := r.Status(); got.Connected || got.Head != good.head() || strings.Contains(got.Error, memPassword) {
					t.Errorf("the relay follows it: %+v", got)
				}
				good.write(1000)
				if err := r.SetSource([]*pgconn.Config{n.config(t, good.l.Addr(), "")}); err != nil {
					t.Fatal(err)
				}
				await(t, "the good one again", s.has(2, good.head()))
				s.check(good.b, good.salt)
			})
		})
	}
}
