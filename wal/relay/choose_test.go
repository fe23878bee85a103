package relay

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/wal"
)

// vanish has the origin's host be gone from the network: nobody answers there, and
// nobody refuses.
func (o *origin) vanish() {
	o.stop()
	o.net.reopen(o.l)
}

func TestAFailoverIsNotHeldUpByAHostThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		a, b := newOrigin(t, n, 1), newOrigin(t, n, 1)
		r := runRelay(t, n, nil, a, b)
		s := newStandby(t, n, r.addr, "s1", wal.Position{Timeline: 1, LSN: testStart})
		for _, step := range []struct{ goes, stays *origin }{{a, b}, {b, a}, {a, b}} {
			head := step.goes.write(70_000)
			await(t, "all that there is", s.has(1, head))
			step.stays.set(func() { step.stays.flush = head })
			await(t, "it is the source", func() bool { return step.goes.streams("relay") == 1 })
			step.goes.vanish()
			began := time.Now()
			await(t, "the other is followed", func() bool { return step.stays.streams("relay") == 1 })
			if took := time.Since(began); took > time.Second {
				t.Errorf("it took %s, as long as a host takes that does not answer", took)
			}
			head = step.stays.write(1000)
			await(t, "what the other has", s.has(1, head))
			step.goes.set(func() { step.goes.flush = head })
			_ = step.goes.net.reopen(step.goes.l).Close()
			step.goes.restart()
			if step.stays == b { // the first in the configuration does not take over by itself
				continue
			}
			await(t, "the first one again", func() bool { return a.streams("relay") == 1 })
		}
		s.check(b.b, b.salt)
	})
}

// Who is far away, or slow, is not dead: it is found, and waited for then.
func TestASlowPrimaryIsFollowedAgainAfterItWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		primary, standby := newOrigin(t, n, 1), newOrigin(t, n, 1)
		standby.b.identity.InRecovery = true
		slow, quick := n.config(t, primary.l.Addr(), ""), n.config(t, standby.l.Addr(), "")
		slow.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			time.Sleep(4 * chooseGrace)
			return n.dial(ctx, network, addr)
		}
		r := runRelayFrom(t, n, nil, quick, slow)
		await(t, "the primary", func() bool { return primary.streams("relay") == 1 })
		for range 5 {
			n.cut(primary.l.Addr())
			await(t, "the primary again", func() bool { return primary.streams("relay") == 1 && r.Status().Connected })
			time.Sleep(10 * time.Second)
			if got := r.Status(); got.Source != primary.l.Addr().String() || time.Since(got.Since) < 5*time.Second {
				t.Errorf("the relay does not stay with the primary: %+v", got)
			}
		}
	})
}

// lines counts log lines by level and message.
type lines struct {
	slog.Handler
	mu   sync.Mutex
	seen map[string]int // guarded by mu
}

func (l *lines) Enabled(context.Context, slog.Level) bool { return true }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[r.Level.String()+" "+r.Message]++
	return nil
}

func TestThatThereIsNoSourceIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 1)
		log := &lines{seen: make(map[string]int)}
		r := runRelay(t, n, func(c *Config) { c.Log = slog.New(log) }, o)
		for range 3 {
			await(t, "the source", func() bool { return r.Status().Connected })
			o.stop()
			time.Sleep(25 * time.Second)
			o.restart()
		}
		log.mu.Lock()
		defer log.mu.Unlock()
		// When it was lost, and when it turned out that nobody listens there.
		if got := log.seen["WARN the source is lost"]; got != 6 {
			t.Errorf("it was said %d times that the source is lost, want twice each time: %v", got, log.seen)
		}
		if log.seen["DEBUG the source is lost"] < 20 {
			t.Errorf("the tries are not told of at all: %v", log.seen)
		}
	})
}
