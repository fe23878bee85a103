package relay

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/replication"
	"github.com/heliosdb/helios/wal"
)

// toldBy is what the source was told last.
func toldBy(o *origin) replication.Status {
	return get(o, func() replication.Status { return o.told["relay"] })
}

func TestAGateConfirmsWhatHasArrivedAndHoldsItBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 1)
		var open atomic.Bool
		var asked atomic.Pointer[Question]
		r := runRelay(t, n, func(c *Config) {
			c.Gate = func(q Question) Confirmation {
				asked.Store(&q)
				if !open.Load() {
					return Confirmation{}
				}
				return Confirmation{Write: q.Head, Flush: q.Head, Apply: q.Head}
			}
		}, o)
		head := o.write(5000)
		await(t, "the WAL", func() bool { return r.Replicator().Position() == wal.Position{Timeline: 1, LSN: head} })
		synctest.Wait()
		if got := toldBy(o); got.Flush != 0 {
			t.Errorf("a closed gate confirms %s", got.Flush)
		}
		open.Store(true)
		began := time.Now()
		r.Release()
		await(t, "a confirmation", func() bool { return toldBy(o).Flush == head })
		head = o.write(5000)
		await(t, "the next, without anything else to say", func() bool { s := toldBy(o); return s.Flush == head && s.Apply == head && s.Write == head })
		if took := time.Since(began); took >= time.Second {
			t.Errorf("the source was told after %v, as if nobody had asked for it", took)
		}
		if q := *asked.Load(); q.Source != o.l.Addr().String() || q.Timeline != 1 || q.Confirmed != (Confirmation{}) {
			t.Errorf("the gate was asked %+v, want the source %s, timeline 1 and nothing confirmed", q, o.l.Addr())
		}
	})
}

func TestAQuorumIsOfThoseWhoAreNamed(t *testing.T) {
	a := newAckTest(t, "none")
	for name, at := range map[string]wal.LSN{"s1": 1010, "s2": 1020, "s3": 1030} {
		a.confirm(a.stream(name, 1, 9000), at)
	}
	for _, tt := range []struct {
		k     int
		names []string
		want  wal.LSN
	}{
		{1, []string{"s1", "s2"}, 1020},
		{2, []string{"s1", "s2"}, 1010},
		{2, []string{"s1", "s2", "s3"}, 1020},
		{2, []string{"s1", "gone"}, 0},
		{1, nil, 0},
	} {
		if got := a.r.Quorum(tt.k, tt.names); got.Flush != tt.want {
			t.Errorf("Quorum(%d, %v) has flushed %s, want %s", tt.k, tt.names, got.Flush, tt.want)
		}
	}
}

// A relay without a source takes nothing more, serves what it has, and goes on
// when it has one again.
func TestARelayDoesWithoutASourceForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 1)
		r := runRelayFrom(t, n, func(c *Config) { c.SourceLater = true })
		time.Sleep(10 * time.Second)
		if err := r.SetSource([]*pgconn.Config{n.config(t, o.l.Addr(), "")}); err != nil {
			t.Fatal(err)
		}
		s := newStandby(t, n, r.addr, "s1", wal.Position{Timeline: 1, LSN: testStart})
		await(t, "what there is", s.has(1, o.head()))
		if err := r.SetSource(nil); err != nil {
			t.Fatal(err)
		}
		await(t, "the source is left", func() bool { return o.streams("relay") == 0 && !r.Status().Connected })
		before := o.head()
		after := o.write(5000)
		time.Sleep(10 * time.Second)
		if got := r.Replicator().Position().LSN; got != before {
			t.Errorf("the relay is at %s without a source, want %s", got, before)
		}
		late := newStandby(t, n, r.addr, "s2", wal.Position{Timeline: 1, LSN: testStart})
		await(t, "what there was", late.has(1, before))
		if err := r.SetSource([]*pgconn.Config{n.config(t, o.l.Addr(), "")}); err != nil {
			t.Fatal(err)
		}
		await(t, "the rest", s.has(1, after))
		if s.lost > 0 {
			t.Errorf("the standby lost its connection %d times", s.lost)
		}
	})
}

// The relay next to the primary was away, and the primary's own walsender taken
// in its place. Only the relay hears of the standbys here, so that one goes back.
func TestARelayGoesBackToTheRelayThatIsNamedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		o := newOrigin(t, n, 1)
		l := n.listen()
		_ = l.Close()
		at := l.Addr()
		second := runRelayFrom(t, n, nil, n.config(t, at, ""), n.config(t, o.l.Addr(), ""))
		await(t, "the primary", func() bool { s := second.Status(); return s.Connected && s.Source == o.l.Addr().String() })
		runRelayAt(t, n.reopen(l), nil, n.config(t, o.l.Addr(), ""))
		await(t, "the relay", func() bool { s := second.Status(); return s.Connected && s.Source == at.String() })
		time.Sleep(10 * time.Second)
		if s := second.Status(); s.Source != at.String() || time.Since(s.Since) < 9*time.Second {
			t.Errorf("the source is %s since %v, want it to stay", s.Source, s.Since)
		}
	})
}

// Two promotions took the same number, and the one that is followed has failed.
func TestARelayForgetsABranchThatIsNobodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet()
		past := func(at wal.LSN) string { return fmt.Sprintf("1 %s x", at) }
		failed, other := newOrigin(t, n, 2, past(testStart+500)), newOrigin(t, n, 2, past(testStart+300))
		r := runRelay(t, n, func(c *Config) { c.SourceLater = true }, failed)
		await(t, "a source", func() bool { return r.Status().Connected })
		if err := r.SetSource([]*pgconn.Config{n.config(t, other.l.Addr(), "")}); err != nil {
			t.Fatal(err)
		}
		await(t, "the other is refused", func() bool { return strings.Contains(r.Status().Error, "a different branch of the same number") })
		r.Forget()
		await(t, "the other is followed", func() bool { return r.Status().Connected })
		head := other.write(5000)
		s := newStandby(t, n, r.addr, "s1", wal.Position{Timeline: 2, LSN: testStart + 300})
		await(t, "its WAL", s.has(2, head))
		s.check(other.b, other.salt)
	})
}
