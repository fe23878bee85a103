package relay

import (
	"bytes"
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
	dir := ""
	if seed%2 == 1 {
		dir = t.TempDir()
	}
	m.relays[0] = runRelay(t, m.net, func(c *Config) {
		timeouts(c)
		c.SpoolDir, c.Keep = dir, 100<<20
	}, m.now)
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
	case x == 19 && m.rnd.IntN(2) == 0:
		i := m.rnd.IntN(2)
		m.relays[i] = m.relays[i].restart()
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
	m.checkSpool(head)
	for _, s := range m.subs {
		if s.name == "s1" {
			await(m.t, "its confirmation", func() bool { return get(m.now, func() wal.LSN { return m.now.told["relay"].Flush }) == head })
		}
	}
}

// checkSpool compares what the first relay has on disk with the branch.
func (m *model) checkSpool(head wal.LSN) {
	spool := m.relays[0].spool
	if spool == nil {
		return
	}
	b := m.relays[0].branch.Load()
	await(m.t, "the disk has it as well", func() bool { return spool.Flushed() == wal.Position{Timeline: b.timeline(), LSN: head} })
	at, found, err := spool.Dir().Oldest(b.timeline())
	if err != nil || !found {
		m.t.Fatalf("the spool has nothing: %v", err)
	}
	m.t.Logf("the spool has %s to %s", at, head)
	buf := make([]byte, 256<<10)
	for at < head {
		s, _ := b.span(b.at(at))
		n, err := spool.Dir().ReadAt(buf[:min(wal.LSN(len(buf)), s.end-at)], at, b.owners(at)...)
		if err != nil {
			m.t.Fatalf("the spool at %s: %v", at, err)
		}
		if !bytes.Equal(buf[:n], content(m.now.b, m.now.salt, at, n)) {
			m.t.Fatalf("the spool has other WAL between %s and %s", at, at+wal.LSN(n))
		}
		at += wal.LSN(n)
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
