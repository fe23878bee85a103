package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

var fromStart = wal.Position{Timeline: 1, LSN: testStart}

func TestWALGoesThroughTheRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 1)
		r := runRelay(t, n, nil, o)
		s := newStandby(t, n, r.addr, "s1", fromStart)
		await(t, "what there is", s.has(1, o.head()))
		ends := map[wal.LSN]bool{o.head(): true}
		for i := range 200 {
			ends[o.write(1+i*137%9000)] = true
			if i%50 == 0 {
				ends[o.write(300_000)] = true
			}
		}
		await(t, "what has come since", s.has(1, o.head()))
		s.check(o.b, o.salt)
		for _, cut := range s.cuts {
			if cut%pageSize != 0 && !ends[cut] {
				t.Errorf("a message ends at %s, within a page, where the source's did not", cut)
			}
		}
	})
}

// Three standbys at a promotion: one far behind on the old timeline, one that
// has everything, and one that has more than the promoted server had.
func TestATimelineEndsForEachSubscriberWhereItStands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		a, b := newOrigin(t, n, 1), newOrigin(t, n, 1)
		b.b.identity.InRecovery = true
		r := runRelay(t, n, quorumOf("s1"), a)
		ahead := newStandby(t, n, r.addr, "ahead", fromStart)
		level := newStandby(t, n, r.addr, "level", fromStart)
		fork := a.write(100_000)
		await(t, "all up to the fork", func() bool { return ahead.has(1, fork)() && level.has(1, fork)() })
		// Of what comes now b gets nothing, and one standby no more.
		level.close()
		a.write(50_001)
		await(t, "all of the old timeline", ahead.has(1, a.head()))
		old := newStandby(t, n, r.addr, "old", fromStart)
		old.with(func() { old.slow = 300 * time.Millisecond })
		s1 := newStandby(t, n, r.addr, "s1", fromStart)
		await(t, "s1 has all of the old timeline", s1.has(1, a.head()))
		await(t, "its confirmation", func() bool { return r.Status().Confirmed.Flush == a.head() })
		again := newStandby(t, n, r.addr, "level", wal.Position{Timeline: 1, LSN: fork})
		again.with(func() { again.mute = true })

		a.stop()
		b.set(func() { b.flush = fork })
		b.promote(2, fork)
		b.write(7000)
		s1.with(func() { s1.mute = true })
		if err := r.SetSource([]*pgconn.Config{n.config(t, b.l.Addr(), "")}); err != nil {
			t.Fatal(err)
		}
		all := []*standby{ahead, old, s1, again}
		await(t, "the new timeline", func() bool {
			for _, s := range all {
				if !s.has(2, b.head())() {
					return false
				}
			}
			return true
		})
		for _, s := range all {
			s.check(b.b, b.salt)
			if got := fmt.Sprint(s.switches); got != fmt.Sprintf("[2:%s]", fork) || s.lost > 0 {
				t.Errorf("%s was switched %s, and lost its connection %d times", s.name, got, s.lost)
			}
		}
		if got := r.Status().Confirmed; got != (Confirmation{}) {
			t.Errorf("%+v is confirmed, and s1 has said nothing on the new timeline", got)
		}
		s1.with(func() { s1.mute = false })
		head := b.write(100)
		await(t, "a confirmation on the new timeline", func() bool { return get(b, func() wal.LSN { return b.told["relay"].Flush }) == head })
	})
}

// A standby that was left behind on the old timeline tells of more than the new
// one has. It comes again and again, and never counts.
func TestADivergedStandbyDoesNotConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 2, "1 0/3000200 x")
		r := runRelay(t, n, quorumOf("s1"), o)
		await(t, "the relay has all", func() bool { return r.Status().Head == o.head() })
		client, err := replication.Connect(context.Background(), n.config(t, r.addr, "s1"))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if started, _, err := client.Start(context.Background(), "", testStart, 1, ""); !started || err != nil {
			t.Fatalf("the stream of the old timeline: %v, %v", started, err)
		}
		far := o.head() + 1<<20
		for range 5 {
			if err := client.SendStatus(replication.Status{Write: far, Flush: far, Apply: far}); err != nil {
				t.Fatal(err)
			}
			o.write(1000)
			time.Sleep(100 * time.Millisecond)
		}
		if got := get(o, func() replication.Status { return o.told["relay"] }); got.Flush != 0 || got.Write != 0 {
			t.Errorf("the source was told %+v", got)
		}
		// The same on the current timeline: what it was sent counts, and no more.
		other, err := replication.Connect(context.Background(), n.config(t, r.addr, "s1"))
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if started, _, err := other.Start(context.Background(), "", testStart, 2, ""); !started || err != nil {
			t.Fatalf("the stream of the new timeline: %v, %v", started, err)
		}
		head := o.head()
		time.Sleep(100 * time.Millisecond)
		if err := other.SendStatus(replication.Status{Write: far, Flush: far, Apply: far}); err != nil {
			t.Fatal(err)
		}
		await(t, "what was sent is believed", func() bool { return get(o, func() wal.LSN { return o.told["relay"].Flush }) == head })
	})
}

func TestWALOfABranchThatWasLeftIsNotSentOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		a := newOrigin(t, n, 2, "1 0/3000200 x")
		b := newOrigin(t, n, 3, "1 0/3000100 x")
		r := runRelay(t, n, nil, a)
		s := newStandby(t, n, r.addr, "s1", wal.Position{Timeline: 1, LSN: testStart})
		head := a.write(2 * testSegment)
		await(t, "the first branch", s.has(2, head))
		b.write(3 * testSegment)
		if err := r.SetSource([]*pgconn.Config{n.config(t, b.l.Addr(), "")}); err != nil {
			t.Fatal(err)
		}
		await(t, "the standby is told that its branch is gone", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.refused != nil && strings.Contains(s.refused.Error(), "not in this server's history")
		})
		time.Sleep(time.Second)
		if got := s.position(); got != (wal.Position{Timeline: 2, LSN: head}) {
			t.Errorf("the standby was sent more: it has %s", got)
		}
		s.check(a.b, a.salt)
		fresh := newStandby(t, n, r.addr, "s2", wal.Position{Timeline: 1, LSN: testStart})
		await(t, "all of the other branch, from before the fork on", fresh.has(3, b.head()))
		fresh.check(b.b, b.salt)
	})
}

func TestAQuestionIsAnsweredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 1)
		r := runRelay(t, n, nil, o)
		s := newStandby(t, n, r.addr, "s1", fromStart)
		await(t, "what there is", s.has(1, o.head()))
		for i := range 3 {
			if err := s.client.SendStatus(replication.Status{Write: o.head(), Reply: true}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // no time passes
			s.with(func() {
				if s.pongs != i+1 {
					t.Errorf("after question %d there are %d answers", i+1, s.pongs)
				}
			})
		}
	})
}

func TestASilentSubscriberIsAskedAndThenDisconnected(t *testing.T) {
	for _, timeout := range []time.Duration{400 * time.Millisecond, 10 * time.Second, time.Minute} {
		for name, tt := range map[string]struct {
			steady bool // WAL keeps coming
			mute   bool
			lost   bool
		}{
			"silent, and idle":                   {false, true, true},
			"silent, while WAL comes":            {true, true, true},
			"answers when it is asked, and idle": {false, false, false},
			"answers when it is asked, with WAL": {true, false, false},
		} {
			t.Run(fmt.Sprintf("%v, %s", timeout, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newMemNet()
					o := newOrigin(t, n, 1)
					r := runRelay(t, n, func(c *Config) { c.SenderTimeout = timeout }, o)
					client, err := replication.Connect(context.Background(), n.config(t, r.addr, "s1"))
					if err != nil {
						t.Fatal(err)
					}
					defer client.Close()
					if _, _, err := client.Start(context.Background(), "", testStart, 1, ""); err != nil {
						t.Fatal(err)
					}
					began := time.Now()
					stop := make(chan struct{})
					defer close(stop)
					go func() {
						tick := time.NewTicker(timeout / 10)
						defer tick.Stop()
						for tt.steady {
							select {
							case <-tick.C:
								o.write(10)
							case <-stop:
								return
							}
						}
					}()
					asked := 0
					for {
						var e replication.Event
						if e, err = client.Next(); err != nil || time.Since(began) > 5*timeout {
							break
						}
						if e.Kind == replication.KindKeepalive && e.Reply {
							asked++
							if !tt.mute {
								if err := client.SendStatus(replication.Status{Write: o.head()}); err != nil {
									t.Fatal(err)
								}
							}
						}
					}
					took := time.Since(began)
					if lost := err != nil; lost != tt.lost || asked == 0 {
						t.Errorf("after %v it was disconnected is %v (%v), want %v; it was asked %d times", took, lost, err, tt.lost, asked)
					}
					if tt.lost && (took < timeout/2 || took > timeout+timeout/2) {
						t.Errorf("it was disconnected after %v, want about %v", took, timeout)
					}
				})
			})
		}
	}
}

// A walreceiver that waits for its startup process after the end of a timeline
// keeps the connection, and says nothing in it.
func TestASessionBetweenTwoStreamsMayBeSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 2, "1 0/3000200 x")
		r := runRelay(t, n, func(c *Config) { c.SenderTimeout = 10 * time.Second }, o)
		client, err := replication.Connect(context.Background(), n.config(t, r.addr, "s1"))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if started, _, err := client.Start(context.Background(), "", testStart, 1, ""); !started || err != nil {
			t.Fatalf("%v, %v", started, err)
		}
		for e := (replication.Event{Kind: 1}); e.Kind != replication.KindEnd; {
			if e, err = client.Next(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		if started, _, err := client.Start(context.Background(), "", testStart+0x200, 2, ""); !started || err != nil {
			t.Errorf("after an hour the stream of the next timeline: %v, %v", started, err)
		}
	})
}

func TestWhatHasArrivedIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 1)
		runRelay(t, n, func(c *Config) { c.Acknowledge = Policy{Mode: ConfirmReceipt} }, o)
		await(t, "the stream", func() bool { return o.streams("relay") == 1 })
		for range 3 {
			time.Sleep(time.Millisecond)
			head := o.write(100)
			synctest.Wait()
			if got := get(o, func() replication.Status { return o.told["relay"] }); got.Write != head || got.Flush != 0 {
				t.Errorf("%+v is told, want %s as written and nothing as flushed", got, head)
			}
		}
	})
}

// A commit waits for what was confirmed while the link was cut.
func TestConfirmationsAreToldWhenALinkComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 1)
		a := runRelay(t, n, quorumOf("s1"), o)
		b := runRelayFrom(t, n, func(c *Config) { c.Name = "b"; quorumOf("s1")(c) }, n.config(t, a.addr, ""))
		s := newStandby(t, n, b.addr, "s1", fromStart)
		s.with(func() { s.mute = true })
		head := o.write(5000)
		await(t, "all of it", s.has(1, head))
		n.cut(a.addr)
		s.with(func() { s.mute = false })
		if err := s.confirm(s.client); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		await(t, "the primary hears of it", func() bool { return get(o, func() wal.LSN { return o.told["relay"].Flush }) == head })
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("that took %v", took)
		}
	})
}

// The link between two relays is cut, within frames more often than not.
func TestALinkMayBeCutWithinAFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 1)
		a := runRelay(t, n, nil, o)
		limited := n.config(t, a.addr, "")
		rnd, lengths := rand.New(rand.NewPCG(1, 3)), rand.New(rand.NewPCG(1, 4))
		limited.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := n.dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &cutConn{Conn: conn, left: 500 + lengths.IntN(60_000)}, nil
		}
		b := runRelayFrom(t, n, func(c *Config) { c.Name = "b" }, limited)
		s := newStandby(t, n, b.addr, "s1", fromStart)
		for range 100 {
			o.write(1 + rnd.IntN(20_000))
			time.Sleep(10 * time.Millisecond)
		}
		await(t, "all of it", s.has(1, o.head()))
		s.check(o.b, o.salt)
		if m := a.Status().Metrics; m.Frames == 0 {
			t.Error("no frames were sent")
		}
		if s.lost > 0 {
			t.Errorf("the standby lost its connection %d times", s.lost)
		}
	})
}

func TestTheEndOfARelayLetsSubscribersFinish(t *testing.T) {
	for name, tt := range map[string]struct {
		mute     bool
		min, max time.Duration
	}{
		"they have everything": {false, 0, 1200 * time.Millisecond},
		"one does not confirm": {true, 2 * time.Second, 4 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet()
				o := newOrigin(t, n, 1)
				r := runRelay(t, n, nil, o)
				s := newStandby(t, n, r.addr, "s1", fromStart)
				idle, err := replication.Connect(context.Background(), n.config(t, r.addr, "idle"))
				if err != nil {
					t.Fatal(err)
				}
				defer idle.Close()
				silent, err := n.dial(context.Background(), "", r.addr.String()) // and never logs in
				if err != nil {
					t.Fatal(err)
				}
				defer silent.Close()
				await(t, "what there is", s.has(1, o.head()))
				s.with(func() { s.mute = tt.mute })
				head := o.write(400_000)
				synctest.Wait()
				took := r.stop()
				if took < tt.min || took > tt.max {
					t.Errorf("it took %v, want %v to %v", took, tt.min, tt.max)
				}
				if r.err != context.Canceled { //nolint:errorlint // as it is
					t.Errorf("Run = %v, want %v", r.err, context.Canceled)
				}
				if got := s.position().LSN; got != head {
					t.Errorf("the standby has WAL up to %s, want all up to %s", got, head)
				}
				await(t, "the standby is told why", func() bool {
					s.mu.Lock()
					defer s.mu.Unlock()
					return s.refused != nil && strings.Contains(s.refused.Error(), "57P01")
				})
			})
		})
	}
}
