package integration_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgtest"
)

// The network cuts connections to the primary at any byte of what is asked and
// of what is answered, again and again: a call is executed at most once, and
// what the program is told about it is true.
func TestALostConnectionNeverMeansASecondExecution(t *testing.T) {
	const clients = 8
	calling := int64(10_000)
	if testing.Short() {
		calling = 1000
	}
	c := pgtest.New(t, pgtest.Options{Replicas: 1, Proxied: true})
	all := newCalls(t, c.Primary())
	dbs, closeAll := reckless(t, c)
	ctx := t.Context()

	begun := time.Now()
	var working, failing sync.WaitGroup
	quit, stop := context.WithCancel(ctx)
	cuts := map[string]int{}
	failing.Go(func() { cutAtRandom(t, quit, c.Primary().Proxy, &all.done, cuts) })
	for n := range clients {
		db := dbs[n%len(dbs)]
		working.Go(func() {
			for all.next.Load() < calling {
				on, cancel := ctx, context.CancelFunc(func() {})
				if rand.IntN(20) == 0 { // some lose their patience as well
					on, cancel = context.WithTimeout(ctx, time.Duration(rand.Int64N(int64(10*time.Millisecond))))
				}
				all.one(on, db)
				cancel()
			}
		})
	}
	working.Wait()
	stop()
	failing.Wait()
	pgtest.OK(t, c.Primary().Proxy.Heal())
	closeAll()
	await(t, "the proxy to have delivered what it had", func() bool { return c.Primary().Proxy.Stats().Open == 0 })

	t.Logf("FIGURES cuts: %s in %v", listed(cuts), time.Since(begun).Round(time.Millisecond))
	tally := all.audit(t, "cuts", c.Primary())
	unknown := 0
	for outcome, n := range tally {
		if strings.HasPrefix(outcome, "outcome unknown") {
			unknown += n
		}
	}
	if unknown == 0 || int64(tally["ok"]) < calling/2 {
		t.Errorf("%d calls of unknown outcome and %d that succeeded: too little was tried", unknown, tally["ok"])
	}
}

// cutAtRandom makes the proxy cut connections in one way or another, each time
// that some more calls are done, until ctx ends. It counts what it did.
func cutAtRandom(t testing.TB, ctx context.Context, p *pgtest.Proxy, done *atomic.Int64, cuts map[string]int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for after := int64(5); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if done.Load() < after {
			continue
		}
		name := ""
		switch rand.IntN(16) {
		case 0, 1:
			name = "whole reply"
			p.CutAfter(0)
		case 2, 3, 4, 5, 6, 7:
			name = "within replies"
			p.CutAfter(rand.Int64N(2000))
		case 8, 9, 10, 11, 12:
			name = "within requests"
			p.CutRequestAfter(rand.Int64N(2000))
		case 13:
			name = "all, by a reset"
			p.Reset()
		case 14:
			name = "all"
			p.Cut()
		case 15: // what the server says meanwhile is lost, and then the connections are
			name = "dropped replies"
			p.DropReplies()
			<-tick.C
			p.Cut()
			if err := p.Heal(); err != nil {
				t.Error(err)
			}
		}
		cuts[name]++
		after = done.Load() + 1 + rand.Int64N(20)
	}
}
