package relay

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/wal"
)

// A model is a cluster behind two relays: servers that write, are promoted, stop
// and come back, links that are cut, and subscribers of any speed, at the first
// relay and behind the second. Whatever happens, every subscriber has at the end
// the bytes of the branch that won, and none other.
type model struct {
	t      *testing.T
	rnd    *rand.Rand
	net    *memNet
	now    *origin   // the primary
	all    []*origin // those before it too
	relays [2]*testRelay
	subs   []*standby
	names  int
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{t: t, rnd: rand.New(rand.NewPCG(seed, 31)), net: newMemNet()}
	m.now = newOrigin(t, m.net, 1)
	m.all = []*origin{m.now}
	timeouts := func(c *Config) { c.SourceTimeout, c.SenderTimeout = 2*time.Second, 3*time.Second; quorumOf("s1")(c) }
	m.relays[0] = runRelay(t, m.net, timeouts, m.now)
	m.relays[1] = runRelayFrom(t, m.net, func(c *Config) { c.Name = "b"; timeouts(c) }, m.net.config(t, m.relays[0].addr, ""))
	for range 4 {
		m.subscribe()
	}
	return m
}

// subscribe adds a subscriber that has nothing.
func (m *model) subscribe() {
	m.names++
	s := newStandby(m.t, m.net, m.relays[m.rnd.IntN(2)].addr, fmt.Sprintf("s%d", m.names), fromStart)
	s.with(func() {
		s.rewinds = true
		if m.rnd.IntN(2) == 0 {
			s.slow = time.Duration(m.rnd.IntN(40)) * time.Millisecond
		}
	})
	m.subs = append(m.subs, s)
}

// step does one thing.
func (m *model) step() {
	switch x := m.rnd.IntN(20); {
	case x < 9:
		m.now.write(1 + m.rnd.IntN(60_000))
	case x == 9:
		m.now.write(500_000 + m.rnd.IntN(1_500_000))
	case x == 10:
		m.now.set(func() { m.now.cutAfter = m.rnd.IntN(9000) })
	case x == 11:
		m.now.disconnect()
	case x == 12:
		m.net.cut(m.relays[m.rnd.IntN(2)].addr)
	case x == 13 && len(m.subs) < 8:
		m.subscribe()
	case x == 14 && len(m.subs) > 2:
		i := m.rnd.IntN(len(m.subs))
		m.subs[i].close()
		m.subs = append(m.subs[:i], m.subs[i+1:]...)
	case x == 15:
		s := m.subs[m.rnd.IntN(len(m.subs))]
		s.with(func() { s.slow = time.Duration(m.rnd.IntN(40)) * time.Millisecond })
	case x == 16:
		m.now.set(func() { m.now.silent = true })
		m.pause(3000)
		m.now.set(func() { m.now.silent = false })
	case x == 17 && len(m.all) < 6:
		m.failover()
	case x == 18:
		m.now.stop()
		m.pause(500)
		m.now.restart()
	}
	m.pause(60)
}

func (m *model) pause(most int) { time.Sleep(time.Duration(m.rnd.IntN(most)) * time.Millisecond) }

// failover promotes a server that may have less than the relays have. The old
// primary goes on for a while, or for ever, and writes what nobody may get.
func (m *model) failover() {
	old := m.now
	next := newOrigin(m.t, m.net, 1)
	fork := old.head() - wal.LSN(m.rnd.IntN(3))*wal.LSN(m.rnd.IntN(200_000))
	old.mu.Lock()
	begin := old.b.spans[len(old.b.spans)-1].begin
	b := *old.b
	old.mu.Unlock()
	fork = max(fork, begin, testStart)
	next.set(func() { next.b, next.flush = &b, fork })
	next.promote(b.timeline()+1, fork)
	next.write(1 + m.rnd.IntN(50_000))
	if m.rnd.IntN(2) == 0 {
		old.stop()
	} else {
		old.write(1 + m.rnd.IntN(300_000))
	}
	m.now = next
	m.all = append(m.all, next)
	if err := m.relays[0].SetSource([]*pgconn.Config{m.net.config(m.t, next.l.Addr(), "")}); err != nil {
		m.t.Fatal(err)
	}
}

// settle lets everything come to rest and checks it.
func (m *model) settle() {
	m.now.set(func() { m.now.cutAfter = -1 })
	m.now.write(1000)
	head, t := m.now.head(), m.now.b.timeline()
	for _, s := range m.subs {
		await(m.t, fmt.Sprintf("%s has %s, and is to have %s of timeline %s", s.name, s.position(), head, t), s.has(t, head))
		s.check(m.now.b, m.now.salt)
	}
	for _, r := range m.relays {
		await(m.t, "a relay has it as well", func() bool { s := r.Status(); return s.Head == head && s.Timeline == t })
	}
	for _, s := range m.subs {
		if s.name == "s1" {
			await(m.t, "its confirmation", func() bool { return get(m.now, func() wal.LSN { return m.now.told["relay"].Flush }) == head })
		}
	}
}

func TestEverySubscriberHasTheBranchThatWon(t *testing.T) {
	seeds := uint64(8)
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t, seed)
				for range 80 {
					m.step()
				}
				m.settle()
			})
		})
	}
}
