//go:build unix && !linux

package netns

import (
	"context"
	"errors"
	"net"
	"os/exec"
)

// Subnet has the addresses of all hosts of every network.
const Subnet = "10.77.0.0/24"

// errLinux is why there is no network.
var errLinux = errors.New("network namespaces take Linux")

// A Network cannot be made here: New returns none.
type Network struct{}

// Available returns why there can be no networks here.
func Available() error { return errLinux }

// New returns why there can be no network here.
func New(...string) (*Network, error) { return nil, errLinux }

// Addr returns nothing.
func (*Network) Addr(string) string { return "" }

// Wrap does nothing.
func (*Network) Wrap(string, *exec.Cmd) {}

// Dial returns a function that opens nothing.
func (*Network) Dial(string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) { return nil, errLinux }
}

// Isolate does nothing.
func (*Network) Isolate(string) error { return errLinux }

// Heal does nothing.
func (*Network) Heal() error { return errLinux }

// Close does nothing.
func (*Network) Close() error { return nil }
