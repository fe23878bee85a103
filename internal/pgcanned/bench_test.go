package pgcanned_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/heliosdb/helios"
	"github.com/heliosdb/helios/internal/pgcanned"
	"github.com/heliosdb/helios/internal/rivals"
)

// The names are made for benchstat: -col /driver, -col /lsn and -col /check put
// side by side what is to be compared.

// clients are how many goroutines do the same at once.
var clients = []int{1, 8, 32}

func BenchmarkRead(b *testing.B) {
	compare(b, func(d *rivals.Driver) rivals.Operation { return d.Read })
}

func BenchmarkList(b *testing.B) {
	compare(b, func(d *rivals.Driver) rivals.Operation { return d.List })
}

func BenchmarkWrite(b *testing.B) {
	compare(b, func(d *rivals.Driver) rivals.Operation { return d.Write })
}

func BenchmarkTransaction(b *testing.B) {
	compare(b, func(d *rivals.Driver) rivals.Operation { return d.Transaction })
}

// compare has every driver do what choose says.
func compare(b *testing.B, choose func(*rivals.Driver) rivals.Operation) {
	c := pgcanned.NewCluster(2)
	drivers := []*rivals.Driver{openStdlib(b, c), openHelios(b, c), openPool(b, c)}
	for _, n := range clients {
		for _, d := range drivers {
			b.Run(fmt.Sprintf("clients=%d/driver=%s", n, d.Name), func(b *testing.B) {
				measure(b, context.Background(), n, choose(d))
			})
		}
	}
}

// BenchmarkCancellable is a read with a context that may end, as that of a
// request does. It costs database/sql a goroutine.
func BenchmarkCancellable(b *testing.B) {
	c := pgcanned.NewCluster(2)
	for _, d := range []*rivals.Driver{openStdlib(b, c), openHelios(b, c), openPool(b, c)} {
		b.Run("clients=1/driver="+d.Name, func(b *testing.B) { measure(b, b.Context(), 1, d.Read) })
	}
}

// BenchmarkToken is what the position of a write costs.
func BenchmarkToken(b *testing.B) {
	c := pgcanned.NewCluster(2)
	for _, n := range clients {
		for _, mode := range []string{"off", "eager"} {
			write := openHelios(b, c, "consistency=eventual", "lsn="+mode).Write
			b.Run(fmt.Sprintf("clients=%d/lsn=%s", n, mode), func(b *testing.B) {
				measure(b, context.Background(), n, write)
			})
		}
	}
}

// BenchmarkCheck is what a read costs that has its replica prove, each time,
// that it has replayed a newer position than it has proved before.
func BenchmarkCheck(b *testing.B) {
	c := pgcanned.NewCluster(2)
	seen := helios.NewSession()
	ctx := helios.WithSession(context.Background(), seen)
	reads := map[string]rivals.Operation{
		"off": openHelios(b, c, "consistency=eventual").Read,
		"on":  openHelios(b, c, "consistency=session").Read,
	}
	for _, n := range clients {
		for _, check := range []string{"off", "on"} {
			b.Run(fmt.Sprintf("clients=%d/check=%s", n, check), func(b *testing.B) {
				measure(b, ctx, n, func(ctx context.Context, i int) error {
					seen.Advance(helios.Token{SystemID: pgcanned.SystemID, Timeline: pgcanned.Timeline, LSN: c.Grow()})
					return reads[check](ctx, i)
				})
			})
		}
	}
}

// BenchmarkServer is what of all the others is the server's own part, and no
// driver's.
func BenchmarkServer(b *testing.B) {
	const position = "SELECT pg_current_wal_flush_lsn(), pg_current_wal_insert_lsn(), current_setting('synchronous_commit'), pg_walfile_name(pg_current_wal_insert_lsn())"
	texts := []string{readSQL, "UPDATE users SET name = 'x' WHERE id = 1", "BEGIN", "COMMIT", position}
	conn := dial(b, pgcanned.NewCluster(1), "n1")
	answer := make([]byte, 1<<12)
	ask := func(question []byte) {
		if _, err := conn.Write(question); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.Read(answer); err != nil {
			b.Fatal(err)
		}
	}
	ask(encode(b, &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30}))
	for i, text := range texts {
		ask(encode(b, &pgproto3.Parse{Name: strconv.Itoa(i), Query: text}, &pgproto3.Sync{}))
	}
	for _, tt := range []struct {
		name  string
		texts []int // what is executed in one flush
	}{{"read", []int{0}}, {"write", []int{1}}, {"write+token", []int{2, 1, 3, 4}}} {
		var messages []pgproto3.FrontendMessage
		for _, i := range tt.texts {
			bind := &pgproto3.Bind{PreparedStatement: strconv.Itoa(i), ResultFormatCodes: []int16{1}}
			if i == 0 {
				bind.Parameters = [][]byte{{0, 0, 0, 1}}
			}
			messages = append(messages, bind, &pgproto3.Execute{})
		}
		question := encode(b, append(messages, &pgproto3.Sync{})...)
		b.Run("answer="+tt.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ask(question)
			}
		})
	}
}

// measure has n goroutines do the same.
func measure(b *testing.B, ctx context.Context, n int, do rivals.Operation) {
	if err := do(ctx, 0); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	if n == 1 {
		for b.Loop() {
			if err := do(ctx, 0); err != nil {
				b.Fatal(err)
			}
		}
		return
	}
	b.SetParallelism(max(1, n/runtime.GOMAXPROCS(0)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := do(ctx, 0); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
