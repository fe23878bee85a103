//go:build unix

package integration_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/heliosdb/helios/internal/pgctl"
	"github.com/heliosdb/helios/internal/pgtest"
	"github.com/heliosdb/helios/wal"
)

// BenchmarkDecoder reads the log that pgbench made a server write, with checksums
// and block references, on one core.
func BenchmarkDecoder(b *testing.B) {
	for _, pages := range []string{"off", "on"} {
		b.Run("load=tpcb/full_page_writes="+pages, func(b *testing.B) {
			start, log := tpcbLog(b, pages)
			b.SetBytes(int64(len(log)))
			b.ReportAllocs()
			records, begun := 0, spentCPU(b)
			for b.Loop() {
				decoder := wal.NewDecoder(start)
				for chunk := log; len(chunk) > 0; {
					n := min(len(chunk), 128<<10)
					decoder.Feed(chunk[:n])
					chunk = chunk[n:]
					for decoder.Next() != nil {
						records++
					}
				}
				if err := decoder.Err(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(records)/(spentCPU(b)-begun).Seconds(), "records/cpu-s")
			b.ReportMetric(float64(records)/float64(b.N), "records/op")
		})
	}
}

// spentCPU returns how long this process has computed: on a busy machine the clock
// on the wall says more of the others.
func spentCPU(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	pgtest.OK(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// tpcbLog returns the whole segments that a server writes while pgbench runs.
func tpcbLog(b *testing.B, pages string) (wal.LSN, []byte) {
	b.Helper()
	c := pgtest.New(b, pgtest.Options{Settings: map[string]string{
		"full_page_writes": pages, "wal_log_hints": "off", "synchronous_commit": "off", "autovacuum": "off", "shared_buffers": "128MB",
	}})
	server := ownServer(b, c.Primary())
	ctx := pgtest.Context(b)
	load := func(args ...string) {
		if out, err := program(ctx, server.Binaries(), "pgbench", append(args, server.ConnString())...).CombinedOutput(); err != nil {
			b.Fatalf("pgbench %q: %v: %s", args, err, out)
		}
	}
	load("-i", "-q")
	conn := c.Primary().Conn(b)
	simply(b, ctx, conn, "CHECKPOINT", "SELECT pg_switch_wal()")
	first, err := pgtest.Value[string](ctx, c.Primary(), "SELECT pg_walfile_name(pg_current_wal_insert_lsn() + 100)")
	pgtest.OK(b, err)
	load("-n", "-c", "2", "-t", "4000")
	last, err := pgtest.Value[string](ctx, c.Primary(), "SELECT pg_walfile_name(pg_switch_wal())")
	pgtest.OK(b, err)
	pgtest.OK(b, c.Stop(ctx, c.Primary(), pgctl.Fast))
	size := wal.SegmentSize(wal.DefaultSegmentSize)
	timeline, start, err := size.Parse(first)
	pgtest.OK(b, err)
	var log []byte
	for at := start; size.Name(timeline, at) <= last; at = size.End(at) {
		segment, err := os.ReadFile(filepath.Join(server.Dir(), "pg_wal", size.Name(timeline, at)))
		pgtest.OK(b, err)
		log = append(log, segment...)
	}
	return start, log
}
