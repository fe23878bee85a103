package consensus_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
	"github.com/heliosdb/helios/failover/consensus"
)

// BenchmarkIdle is what three nodes on loopback cost that have nothing to do: each
// iteration is a second.
func BenchmarkIdle(b *testing.B) {
	for _, profile := range []string{"lan", "lan-fast", "wan"} {
		b.Run("timings="+profile, func(b *testing.B) {
			timings, err := consensus.TimingsOf(profile)
			if err != nil {
				b.Fatal(err)
			}
			threeOnLoopback(b, timings)
			before := used(b)
			for b.Loop() {
				<-time.After(time.Second)
			}
			b.ReportMetric((used(b)-before).Seconds()/b.Elapsed().Seconds()/3*100, "%core/node")
		})
	}
}

// BenchmarkPropose is a commit on three nodes on loopback, synced on all disks.
func BenchmarkPropose(b *testing.B) {
	nodes := threeOnLoopback(b, consensus.Timings{})
	for b.Loop() {
		if err := nodes[0].Propose(b.Context(), failover.Command{Pause: new(true)}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerify asks three nodes on loopback who leads.
func BenchmarkVerify(b *testing.B) {
	nodes := threeOnLoopback(b, consensus.Timings{})
	for b.Loop() {
		if err := nodes[0].Verify(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// used returns the CPU time of this process.
func used(tb testing.TB) time.Duration {
	tb.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
