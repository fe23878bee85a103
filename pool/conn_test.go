package pool

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/heliosdb/helios/internal/pgfake"
)

// When an attempt breaks in the middle, pgx sends a cancel request for it behind our back, over
// one more connection of the same dial function, while it makes the next attempt: that one is
// ours.
func TestACancelRequestOfAFailedAttemptIsNotTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := pgfake.NewCluster(1)
		defer cluster.Close()
		node := cluster.Node(1)
		config, err := pgx.ParseConfig("postgres://app@n1:5432/shop?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		config.LookupFunc = cluster.Lookup
		config.Fallbacks = []*pgconn.FallbackConfig{{Host: "n1", Port: 5432}}
		var dials atomic.Int32
		ours := make(chan net.Conn, 1)
		canceled := make(chan struct{})
		config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			client, server := net.Pipe()
			switch dials.Add(1) {
			case 1: // breaks in the middle of its start
				go func() {
					server.Read(make([]byte, 1024))
					server.Close()
				}()
				return client, nil
			default:
				if ctx.Value(connecting{}) == nil { // comes when ours has been dialed
					defer close(canceled)
					ours <- <-ours
					return client, errors.Join(server.Close())
				}
				conn, err := node.Dial(ctx, network, addr)
				ours <- conn
				<-canceled
				return conn, err
			}
		}
		conn, err := Dial(t.Context(), DialOptions{Config: config, Traffic: &Traffic{}, StatementCapacity: 3})
		if err != nil {
			t.Fatal(err)
		}
		if want := <-ours; conn.socket != want || conn.wire.Conn != want {
			t.Error("the connection has the socket of a cancel request")
		}
		conn.Close()
		synctest.Wait()
	})
}
