package helios

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/wal"
)

// A storm breaks what it can of a cluster while clients work.
type storm struct {
	*stage
	dice       *rand.Rand
	promotions atomic.Int64
}

// blow does one thing that may happen to a cluster.
func (s *storm) blow() {
	node := s.Node(1 + s.dice.IntN(len(s.Nodes())))
	switch s.dice.IntN(9) {
	case 0:
		node.Reset()
	case 1:
		node.Terminate()
	case 2:
		node.Inject("~^INSERT", 1, cut)
	case 3:
		node.Inject("COMMIT", 1, cut)
	case 4:
		node.Inject("~^SELECT", 1, cut)
	case 5:
		node.StopReplay()
	case 6:
		node.FollowImmediately()
	case 7:
		node.BlackHole()
		time.Sleep(time.Duration(s.dice.IntN(400)) * time.Millisecond)
		node.Heal()
	case 8:
		s.failOver()
	}
}

// failOver kills the primary and promotes another node; the old primary comes
// back as its replica.
func (s *storm) failOver() {
	old := s.Primary()
	next := s.Nodes()[s.dice.IntN(len(s.Nodes()))]
	if next == old {
		return
	}
	s.promotions.Add(1)
	old.Kill()
	time.Sleep(time.Duration(s.dice.IntN(300)) * time.Millisecond)
	s.Promote(next)
	for _, node := range s.Nodes() {
		if node != next {
			node.Follow(next)
		}
	}
	s.promotions.Add(1)
	time.Sleep(time.Second)
}

// A ledger holds what clients were told about their writes.
type ledger struct {
	mu            sync.Mutex
	done, unknown map[string]bool // by text
}

// write makes one write and notes what it was told.
func (l *ledger) write(ctx context.Context, s *stage, text string) bool {
	_, err := s.db.ExecContext(ctx, text)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.done[text] = true
	case errors.Is(err, ErrOutcomeUnknown), errors.Is(err, ErrWriteLost):
		l.unknown[text] = true
	case !SafeToRetry(err):
		s.Errorf("%s: %v says neither that it had no effect nor that nobody knows", text, err)
	}
	return err == nil
}

// audit compares what clients were told with what was executed.
func (l *ledger) audit(s *stage) {
	times := map[string]int{}
	for _, e := range s.Log() {
		if strings.HasPrefix(e.SQL, "INSERT") && e.Error == "" {
			times[e.SQL]++
		}
	}
	for text, n := range times {
		if n > 1 {
			s.Errorf("%s was executed %d times", text, n)
		}
		if !l.done[text] && !l.unknown[text] {
			s.Errorf("%s was executed, and its client was told that it was not", text)
		}
	}
	for text := range l.done {
		if times[text] == 0 {
			s.Errorf("%s was acknowledged and never executed", text)
		}
	}
}

func TestNoStormMakesAWriteHappenTwiceOrAReadStale(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			play(t, 3, "probe_timeout=200ms&pool_max_conns=4", func(st *stage) {
				s := &storm{stage: st, dice: rand.New(rand.NewPCG(seed, 1))}
				book := &ledger{done: map[string]bool{}, unknown: map[string]bool{}}
				var clients sync.WaitGroup
				for client := range 6 {
					clients.Go(func() { s.client(book, client) })
				}
				calm := make(chan struct{})
				go func() {
					defer close(calm)
					for range 40 {
						time.Sleep(time.Duration(50+s.dice.IntN(200)) * time.Millisecond)
						s.blow()
					}
				}()
				clients.Wait()
				<-calm
				synctest.Wait()
				book.audit(st)
				if len(book.done) < 100 {
					s.Errorf("%d writes were acknowledged: the storm was too strong to test anything", len(book.done))
				}
				time.Sleep(time.Minute)
				for range 40 { // as many faults may still lie in wait
					if book.write(s.Context(), st, insert) {
						return
					}
				}
				s.Error("no write succeeds after the storm")
			})
		})
	}
}

// client writes and reads what it wrote.
func (s *storm) client(book *ledger, client int) {
	session := NewSession()
	for i := range 60 {
		ctx, cancel := context.WithTimeout(WithSession(s.Context(), session), 3*time.Second)
		before := s.promotions.Load()
		wrote := book.write(ctx, s.stage, fmt.Sprintf("INSERT INTO t VALUES (%d, %d)", client, i))
		token := session.Token()
		var lsn int64
		err := s.db.QueryRowContext(ctx, visible).Scan(&lsn)
		if wrote && err == nil && before == s.promotions.Load() && wal.LSN(lsn) < token.LSN {
			s.Errorf("client %d read %v after it had written %v", client, wal.LSN(lsn), token.LSN)
		}
		cancel()
		time.Sleep(50 * time.Millisecond)
	}
}
