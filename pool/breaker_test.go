package pool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestOnlyAnAbsentNodeCounts(t *testing.T) {
	reset := &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"nothing":                {nil, false},
		"reset":                  {reset, true},
		"end of stream":          {fmt.Errorf("read: %w", io.ErrUnexpectedEOF), true},
		"refused":                {&DialError{"n1", syscall.ECONNREFUSED}, true},
		"unknown name":           {&net.DNSError{Name: "n1"}, true},
		"dial timeout":           {&DialError{"n1", context.DeadlineExceeded}, true},
		"silence kernel saw":     {&net.OpError{Op: "read", Err: syscall.ETIMEDOUT}, true},
		"dial given up":          {&DialError{"n1", context.Canceled}, false},
		"wrong password":         {&DialError{"n1", &pgconn.PgError{Code: "28P01"}}, false},
		"starting up":            {&DialError{"n1", &pgconn.PgError{Code: "57P03"}}, true},
		"shutting down":          {&pgconn.PgError{Code: "57P01"}, true},
		"connection exception":   {&pgconn.PgError{Code: "08006"}, true},
		"too many connections":   {&DialError{"n1", &pgconn.PgError{Code: "53300"}}, false},
		"unique violation":       {&pgconn.PgError{Code: "23505"}, false},
		"query cancelled":        {&pgconn.PgError{Code: "57014"}, false},
		"caller gave up":         {context.Canceled, false},
		"caller's deadline":      {fmt.Errorf("query: %w", context.DeadlineExceeded), false},
		"deadline on a socket":   {&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, false},
		"our own abort":          {&net.OpError{Op: "read", Err: net.ErrClosed}, false},
		"lost":                   {&LostError{Sent: true, Err: io.EOF}, true},
		"lost, idle too long":    {&LostError{Err: io.EOF, LastWords: &pgconn.PgError{Code: "57P05"}}, false},
		"lost, server goes":      {&LostError{Err: io.EOF, LastWords: &pgconn.PgError{Code: "57P01"}}, true},
		"lost, fenced":           {&LostError{Err: errors.New("fenced")}, false},
		"something of the app's": {errors.New("scan"), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Counts(tt.err); got != tt.want {
				t.Errorf("Counts(%v) = %v, want %v", tt.err, got, tt.want)
			}
		})
	}
}

func TestBreakerOpensAfterFailuresInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []bool
		b := NewBreaker("n1", BreakerConfig{Failures: 3, OnChange: func(open bool) { told = append(told, open) }})
		b.Failure(io.EOF)
		b.Failure(io.EOF)
		b.Success()
		b.Failure(io.EOF)
		b.Failure(&pgconn.PgError{Code: "42601"})
		b.Failure(io.EOF)
		if b.Open() {
			t.Fatal("Open() = true after two failures in a row")
		}
		time.Sleep(11 * time.Second)
		b.Failure(io.EOF)
		if b.Open() {
			t.Fatal("Open() = true after failures that lie far apart")
		}
		b.Failure(io.EOF)
		b.Failure(io.EOF)
		if !b.Open() {
			t.Fatal("Open() = false after three failures in a row")
		}
		if want := []bool{true}; !slices.Equal(told, want) {
			t.Errorf("OnChange was told %v, want %v", told, want)
		}
	})
}

// opened returns a breaker that is open.
func opened(t *testing.T, cfg BreakerConfig) *Breaker {
	t.Helper()
	b := NewBreaker("n1", cfg)
	for range max(cfg.Failures, 3) {
		b.Failure(io.EOF)
	}
	if !b.Open() {
		t.Fatal("Open() = false after failures")
	}
	return b
}

func TestOpenBreakerIsClosedByAProbeAtOnceByAStatementLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := opened(t, BreakerConfig{Cooldown: 5 * time.Second})
		b.Success()
		if !b.Open() {
			t.Fatal("a success from before the failures closed the breaker")
		}
		b.Probe(nil)
		if b.Open() {
			t.Fatal("Open() = true after the node answered a probe")
		}

		b = opened(t, BreakerConfig{Cooldown: 5 * time.Second})
		time.Sleep(6 * time.Second)
		if !b.Open() {
			t.Fatal("the breaker closed by itself")
		}
		b.Success()
		if b.Open() {
			t.Fatal("Open() = true after a success, the cooldown being over")
		}
	})
}

func TestBreakerAfterCooldownStaysOpenOnFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []bool
		b := opened(t, BreakerConfig{Cooldown: time.Second, OnChange: func(open bool) { told = append(told, open) }})
		time.Sleep(2 * time.Second)
		b.Failure(io.EOF)
		if !b.Open() {
			t.Error("Open() = false after a failure")
		}
		b.Probe(&pgconn.PgError{Code: "42501"})
		if b.Open() {
			t.Error("Open() = true although the node answered, with an error")
		}
		if want := []bool{true, false}; !slices.Equal(told, want) {
			t.Errorf("OnChange was told %v, want %v", told, want)
		}
	})
}

func TestProbesCountSilence(t *testing.T) {
	b := NewBreaker("n1", BreakerConfig{Failures: 2})
	b.Probe(context.Canceled)
	b.Probe(context.DeadlineExceeded)
	b.Probe(errors.New("unclear"))
	if b.Open() {
		t.Error("Open() = true after one failure")
	}
	b.Probe(os.ErrDeadlineExceeded)
	if !b.Open() {
		t.Error("Open() = false after two probes without an answer")
	}
}

func TestBreakerTellsTheLastStateLast(t *testing.T) {
	last := false
	b := NewBreaker("n1", BreakerConfig{Failures: 1, OnChange: func(open bool) {
		if open == last {
			t.Errorf("OnChange(%v) twice in a row", open)
		}
		last = open
	}})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 500 {
				if i%2 == 0 {
					b.Failure(io.EOF)
				} else {
					b.Probe(nil)
				}
			}
		})
	}
	all.Wait()
	if last != b.Open() {
		t.Errorf("OnChange was told %v last, Open() = %v", last, b.Open())
	}
}

func BenchmarkBreakerOpen(b *testing.B) {
	br := NewBreaker("n1", BreakerConfig{})
	for b.Loop() {
		if br.Open() {
			b.Fatal("open")
		}
	}
}

func BenchmarkBreakerSuccess(b *testing.B) {
	br := NewBreaker("n1", BreakerConfig{})
	for b.Loop() {
		br.Success()
	}
}
