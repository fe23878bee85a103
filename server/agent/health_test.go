package agent

import (
	"context"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/wal"
)

func TestAServerIsHungAfterTwoSilentQuestionsWithoutWAL(t *testing.T) {
	type look struct {
		answered bool
		at       wal.LSN
		took     time.Duration
		want     bool
	}
	const all = time.Second
	for name, looks := range map[string][]look{
		"it answers":                 {{true, 1, 0, false}, {true, 1, 0, false}, {true, 1, 0, false}},
		"silent once":                {{true, 1, 0, false}, {false, 1, all, false}, {true, 1, 0, false}, {false, 1, all, false}},
		"silent twice":               {{true, 1, 0, false}, {false, 1, all, false}, {false, 1, all, true}},
		"it still is after that":     {{false, 1, all, false}, {false, 1, all, true}, {false, 1, all, true}},
		"silent, and writes WAL":     {{false, 1, all, false}, {false, 2, all, false}, {false, 3, all, false}, {false, 4, all, false}},
		"and then writes none":       {{false, 1, all, false}, {false, 2, all, false}, {false, 2, all, false}, {false, 2, all, true}},
		"it wrote before the first":  {{true, 1, 0, false}, {false, 5, all, false}, {false, 5, all, true}},
		"an answer after a long one": {{false, 1, all, false}, {false, 1, all, true}, {true, 1, 0, false}, {false, 1, all, false}},
		"no room for connections":    {{false, 1, 0, false}, {false, 1, 0, false}, {false, 1, 0, false}, {false, 1, all, false}, {false, 1, all, true}},
		"the machine has paused":     {{false, 1, time.Minute, false}, {true, 1, 0, false}, {false, 1, all, false}},
	} {
		t.Run(name, func(t *testing.T) {
			s := suspicion{patience: 2 * time.Second}
			var now time.Duration
			for i, l := range looks {
				asked := now
				now += l.took
				if got := s.after(l.answered, wal.Position{Timeline: 1, LSN: l.at}, asked, now); got != l.want {
					t.Errorf("look %d, answered %v at %s: hung %v, want %v", i, l.answered, l.at, got, l.want)
				}
			}
		})
	}
}

func TestSilenceIsNoAnswerInTime(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"an answer":                  {nil, true},
		"a refusal":                  {&pgconn.PgError{Code: "57P03"}, true},
		"nobody listens yet":         {fmt.Errorf("dial: %w", syscall.ECONNREFUSED), true},
		"there is no socket yet":     {fmt.Errorf("dial: %w", syscall.ENOENT), true},
		"the connection has ended":   {io.ErrUnexpectedEOF, true},
		"nobody takes connections":   {fmt.Errorf("dial: %w", syscall.EAGAIN), false},
		"the time has passed":        {fmt.Errorf("query: %w", context.DeadlineExceeded), false},
		"it has, for the connection": {errSilent, false},
	} {
		if got := lives(tt.err); got != tt.want {
			t.Errorf("%s: lives(%v) = %v, want %v", name, tt.err, got, tt.want)
		}
	}
}

func TestOlderAssignmentsAreKnownByTermAndNumber(t *testing.T) {
	base := failover.Assignment{Term: 5, Number: 9, Epoch: 7, Phase: failover.PhaseElected}
	for name, tt := range map[string]struct {
		edit func(*failover.Assignment)
		want bool
	}{
		"the same":                         {func(*failover.Assignment) {}, false},
		"an older leader's, a newer epoch": {func(a *failover.Assignment) { a.Term, a.Epoch = 4, 8 }, true},
		"a newer leader's first":           {func(a *failover.Assignment) { a.Term, a.Number = 6, 1 }, false},
		"an earlier one":                   {func(a *failover.Assignment) { a.Number = 8 }, true},
		"a later one":                      {func(a *failover.Assignment) { a.Number = 10 }, false},
		"of an older epoch":                {func(a *failover.Assignment) { a.Epoch, a.Number = 6, 10 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			a := base
			tt.edit(&a)
			if got := older(a, base); got != tt.want {
				t.Errorf("older(%+v, %+v) = %v, want %v", a, base, got, tt.want)
			}
		})
	}
}

func TestARequestForTheLeaseIsRemembered(t *testing.T) {
	var r requests
	for i := range uint64(200) {
		if got := r.add(100, i%2 == 0); got != i+1 {
			t.Fatalf("report %d has number %d", i+1, got)
		}
	}
	for seq, want := range map[uint64]bool{0: false, 1: false, 136: false, 137: true, 138: false, 199: true, 200: false, 201: false} {
		if at, got := r.sent(seq); got != want || got && at != 100 {
			t.Errorf("sent(%d) = %v, %v, want %v", seq, at, got, want)
		}
	}
}

func TestAServerThatWasStartedHasTimeToAnswer(t *testing.T) {
	var g grace
	for i, step := range []struct {
		answered bool
		at       time.Duration
		want     bool
	}{
		{false, 5 * time.Second, false},
		{false, 14 * time.Second, false},
		{false, 15 * time.Second, true}, // it had long enough
		{true, 16 * time.Second, true},
		{true, 60 * time.Second, true},
		{false, 61 * time.Second, false}, // another one
		{true, 62 * time.Second, true},
	} {
		if got := g.over(step.answered, step.at); got != step.want {
			t.Errorf("step %d: over(%v, %v) = %v, want %v", i, step.answered, step.at, got, step.want)
		}
	}
}
