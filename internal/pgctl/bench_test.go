package pgctl

import (
	"context"
	"slices"
	"syscall"
	"testing"
	"time"
)

// measure runs step as often as the benchmark wants and reports the least, the
// middle and the greatest of the durations that it returns.
func measure(b *testing.B, step func(ctx context.Context) time.Duration) {
	b.Helper()
	var took []time.Duration
	for b.Loop() {
		ctx, cancel := context.WithTimeout(b.Context(), patience)
		took = append(took, step(ctx))
		cancel()
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(ms(took[0]), "min-ms")
	b.ReportMetric(ms(took[len(took)/2]), "median-ms")
	b.ReportMetric(ms(took[len(took)-1]), "max-ms")
	b.ReportMetric(0, "ns/op")
}

// until returns how long it took a process to end that was just killed.
func until(b *testing.B, i *Instance) time.Duration {
	b.Helper()
	begin := time.Now()
	ok(b, syscall.Kill(i.PID(), syscall.SIGKILL))
	<-i.Done()
	return time.Since(begin)
}

// BenchmarkEndIsSeen is the time from kill -9 of a postmaster to Done.
func BenchmarkEndIsSeen(b *testing.B) {
	i := newDetached(b, "n1")
	initialise(b.Context(), b, i)
	measure(b, func(ctx context.Context) time.Duration {
		ok(b, i.Start(ctx))
		second := adopted(ctx, b, i)
		took := until(b, second)
		second.Release()
		<-i.Done()
		return took
	})
}

// BenchmarkHardStop is how long it takes to end a frozen server after no grace.
func BenchmarkHardStop(b *testing.B) {
	i := newDetached(b, "n1")
	initialise(b.Context(), b, i)
	measure(b, func(ctx context.Context) time.Duration {
		ok(b, i.Start(ctx))
		ok(b, i.Freeze())
		begin := time.Now()
		ok(b, i.HardStop(ctx, 0))
		return time.Since(begin)
	})
}

// BenchmarkRejoin is how long each rung takes, from a stopped server to one that accepts
// connections as a replica.
func BenchmarkRejoin(b *testing.B) {
	for name, bench := range map[string]struct {
		end     func(context.Context, *Instance) error
		diverge bool
		from    Rung
		want    Rung
	}{
		"follow/clean":   {stopFast, false, Follow, Follow},
		"follow/crashed": {crash, false, Follow, Follow},
		"rewind/clean":   {stopFast, true, Follow, Rewind},
		"rewind/crashed": {crash, true, Follow, Rewind},
		"reclone":        {crash, true, Reclone, Reclone},
	} {
		b.Run(name, func(b *testing.B) {
			measure(b, func(ctx context.Context) time.Duration {
				return rejoinOnce(ctx, b, bench.end, bench.diverge, bench.from, bench.want)
			})
		})
	}
}

func stopFast(ctx context.Context, i *Instance) error { return i.Stop(ctx, Fast) }

// rejoinOnce fails over, ends the old primary and has it rejoin.
func rejoinOnce(ctx context.Context, b *testing.B, end func(context.Context, *Instance) error, diverge bool, from, want Rung) time.Duration {
	b.Helper()
	p := failedOver(ctx, b, nil)
	if diverge {
		p.diverge(ctx, b, end)
	} else {
		ok(b, end(ctx, p.old))
		p.promote(ctx, b)
	}
	opt := p.options()
	opt.From = from
	done, err := p.old.Rejoin(ctx, opt)
	if err != nil || done.Rung != want {
		b.Fatalf("Rejoin = %+v, %v; want %s", done, err, want)
	}
	ok(b, p.old.HardStop(ctx, patience))
	ok(b, p.now.HardStop(ctx, patience))
	return done.Prepare + done.Start
}

// BenchmarkPromote is how long a promotion takes, the old primary being frozen.
func BenchmarkPromote(b *testing.B) {
	measure(b, func(ctx context.Context) time.Duration {
		p := failedOver(ctx, b, nil)
		parked, err := p.now.Connect(ctx)
		ok(b, err)
		defer parked.Close(ctx)
		ok(b, p.old.Freeze())
		took, err := p.now.TakeOver(ctx, parked)
		ok(b, err)
		ok(b, p.old.HardStop(ctx, 0))
		ok(b, p.now.HardStop(ctx, patience))
		return took.Took
	})
}
