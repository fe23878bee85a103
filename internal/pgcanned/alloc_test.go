package pgcanned_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/heliosdb/helios/internal/pgcanned"
	"github.com/heliosdb/helios/internal/rivals"
)

// database/sql itself allocates ten objects for a query of one row and three for
// an Exec (Go 1.26); the rest is the driver's. Unlike a time, the number is the
// same on every machine.
func TestAllocationsPerStatement(t *testing.T) {
	ctx := context.Background() // one that ends costs database/sql a goroutine
	c := pgcanned.NewCluster(2)
	mine, theirs := openHelios(t, c), openStdlib(t, c)
	for name, tt := range map[string]struct {
		most         float64
		mine, theirs rivals.Operation
	}{
		"a read of one row":         {12, mine.Read, theirs.Read},
		"a write with its position": {4, mine.Write, theirs.Write},
	} {
		t.Run(name, func(t *testing.T) {
			got, stdlib := allocations(t, ctx, tt.mine), allocations(t, ctx, tt.theirs)
			if got > tt.most {
				t.Errorf("%s allocates %.1f objects, want at most %.0f; pgx/stdlib allocates %.1f", name, got, tt.most, stdlib)
			}
		})
	}
}

// allocations returns what do allocates once it is warm.
func allocations(t *testing.T, ctx context.Context, do rivals.Operation) float64 {
	t.Helper()
	f := func() {
		if err := do(ctx, 0); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		f()
	}
	return testing.AllocsPerRun(1000, f)
}

func TestTheServerItselfAllocatesNothing(t *testing.T) {
	conn := dial(t, pgcanned.NewCluster(1), "n1")
	answer := make([]byte, 1<<12)
	ask := func(question []byte) []byte {
		if _, err := conn.Write(question); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(answer)
		if err != nil {
			t.Fatal(err)
		}
		return answer[:n]
	}
	ask(encode(t, &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30}))
	ask(encode(t, &pgproto3.Parse{Name: "a", Query: readSQL}, &pgproto3.Sync{}))
	question := encode(t,
		&pgproto3.Bind{PreparedStatement: "a", Parameters: [][]byte{{7}}, ResultFormatCodes: []int16{1}},
		&pgproto3.Execute{}, &pgproto3.Sync{})
	if got := ask(question); !bytes.Contains(got, []byte(pgcanned.Name)) || !bytes.HasSuffix(got, []byte("Z\x00\x00\x00\x05I")) {
		t.Fatalf("answer %q, want a row and then ReadyForQuery", got)
	}
	if got := testing.AllocsPerRun(1000, func() { ask(question) }); got != 0 {
		t.Errorf("an answer allocates %.0f objects, want none", got)
	}
}

// encode returns what a client sends.
func encode(tb testing.TB, messages ...pgproto3.FrontendMessage) []byte {
	tb.Helper()
	var b []byte
	for _, m := range messages {
		var err error
		if b, err = m.Encode(b); err != nil {
			tb.Fatal(err)
		}
	}
	return b
}
