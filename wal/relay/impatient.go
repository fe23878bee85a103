package relay

import (
	"context"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// An impatient connection sends again what was lost after the same short while each
// time as long as it is little, and never later than a second after the last attempt:
// commits wait for the answer, and a network that comes and goes is there for moments,
// which the longer and longer pauses of TCP miss one after the other.

// impatiently returns cfg with connections that are impatient.
func impatiently(cfg *pgconn.Config) *pgconn.Config {
	dial := cfg.DialFunc
	if dial == nil {
		return cfg
	}
	cfg = cfg.Copy()
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err == nil {
			makeImpatient(conn)
		}
		return conn, err
	}
	return cfg
}
