package agent

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// A parked connection stays open, so that asking the server something costs no
// new backend, and no more than one is ever waited for.
type parked struct {
	connect func(context.Context) (*pgx.Conn, error)
	turn    chan struct{} // holds one while somebody uses conn
	conn    *pgx.Conn     // nil if there is none
}

func newParked(connect func(context.Context) (*pgx.Conn, error)) *parked {
	return &parked{connect: connect, turn: make(chan struct{}, 1)}
}

// do runs f with the connection, which is made if there is none. One that broke,
// or on which a query was given up, is not used again.
func (p *parked) do(ctx context.Context, f func(*pgx.Conn) error) error {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-p.turn }()
	if p.conn != nil && p.conn.IsClosed() {
		p.conn = nil
	}
	if p.conn == nil {
		conn, err := p.connect(ctx)
		if err != nil {
			return err
		}
		p.conn = conn
	}
	return f(p.conn)
}

// warm makes the connection if there is none, unless somebody uses it.
func (p *parked) warm(ctx context.Context) {
	select {
	case p.turn <- struct{}{}:
	default:
		return
	}
	defer func() { <-p.turn }()
	if p.conn != nil && !p.conn.IsClosed() {
		return
	}
	p.conn = nil
	if conn, err := p.connect(ctx); err == nil {
		p.conn = conn
	}
}

// drop closes the connection, unless somebody uses it.
func (p *parked) drop() {
	select {
	case p.turn <- struct{}{}:
	default:
		return
	}
	defer func() { <-p.turn }()
	if p.conn != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		p.conn.Close(ctx) //nolint:errcheck // nothing is lost with it
		p.conn = nil
	}
}
