package systemd

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"
)

// How often, and for how long, a port is tried that does not listen yet.
const (
	tryEvery = 50 * time.Millisecond
	dialFor  = time.Second
)

// Notify tells the service manager a state, such as READY=1.
func Notify(ctx context.Context, state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if name[0] == '@' {
		name = "\x00" + name[1:]
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unixgram", name)
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	defer conn.Close() //nolint:errcheck // a datagram is sent or not
	_, err = conn.Write([]byte(state))
	return err
}

// ReadyOnceOpen says that the program is ready as soon as it accepts connections at
// address, host:port.
func ReadyOnceOpen(ctx context.Context, address string) error {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	tick := time.NewTicker(tryEvery)
	defer tick.Stop()
	for {
		if open(ctx, address) {
			return Notify(ctx, "READY=1")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// open reports whether somebody accepts connections at address.
func open(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, dialFor)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address) // net takes an unspecified host for this machine
	if err != nil {
		return false
	}
	conn.Close() //nolint:errcheck // nothing was sent
	return true
}
