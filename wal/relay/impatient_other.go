//go:build !linux

package relay

import "net"

// makeImpatient does nothing: only Linux can.
func makeImpatient(net.Conn) {}
