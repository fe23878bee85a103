package pgcanned_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgcanned"
)

// The names are made for benchstat: -col /driver, -col /lsn and -col /check put
// side by side what is to be compared.

// clients are how many goroutines do the same at once.
var clients = []int{1, 8, 32}

func BenchmarkRead(b *testing.B) {
	compare(b, func(o operations) operation { return o.read })
}

func BenchmarkList(b *testing.B) {
	compare(b, func(o operations) operation { return o.list })
}

func BenchmarkWrite(b *testing.B) {
	compare(b, func(o operations) operation { return o.write })
}

func BenchmarkTransaction(b *testing.B) {
	compare(b, func(o operations) operation { return o.transaction })
}

// compare has every driver do what choose says.
func compare(b *testing.B, choose func(operations) operation) {
	c := pgcanned.NewCluster(2)
	drivers := []struct {
		name string
		do   operation
	}{
		{"helios", choose(onDB(openHelios(b, c)))},
		{"stdlib", choose(onDB(openStdlib(b, c)))},
		{"pgxpool", choose(onPool(openPool(b, c)))},
	}
	for _, n := range clients {
		for _, d := range drivers {
			b.Run(fmt.Sprintf("clients=%d/driver=%s", n, d.name), func(b *testing.B) { measure(b, n, d.do) })
		}
	}
}

// BenchmarkToken is what the position of a write costs.
func BenchmarkToken(b *testing.B) {
	c := pgcanned.NewCluster(2)
	for _, n := range clients {
		for _, mode := range []string{"off", "eager"} {
			do := onDB(openHelios(b, c, "consistency=eventual", "lsn="+mode)).write
			b.Run(fmt.Sprintf("clients=%d/lsn=%s", n, mode), func(b *testing.B) { measure(b, n, do) })
		}
	}
}

// BenchmarkCheck is what a read costs that has its replica prove, each time,
// that it has replayed a newer position than it has proved before.
func BenchmarkCheck(b *testing.B) {
	c := pgcanned.NewCluster(2)
	seen := helios.NewSession()
	reads := map[string]operation{
		"off": onDB(openHelios(b, c, "consistency=eventual")).read,
		"on":  onDB(openHelios(b, c, "consistency=session")).read,
	}
	for _, n := range clients {
		for _, check := range []string{"off", "on"} {
			b.Run(fmt.Sprintf("clients=%d/check=%s", n, check), func(b *testing.B) {
				inSession := helios.WithSession(context.Background(), seen)
				measure(b, n, func(context.Context) error {
					seen.Advance(helios.Token{SystemID: pgcanned.SystemID, Timeline: pgcanned.Timeline, LSN: c.Grow()})
					return reads[check](inSession)
				})
			})
		}
	}
}

// measure has n goroutines do the same, with a context that cannot end: a
// cancellable one costs database/sql a goroutine for each query.
func measure(b *testing.B, n int, do operation) {
	ctx := context.Background()
	if err := do(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	if n == 1 {
		for b.Loop() {
			if err := do(ctx); err != nil {
				b.Fatal(err)
			}
		}
		return
	}
	b.SetParallelism(max(1, n/runtime.GOMAXPROCS(0)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := do(ctx); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
