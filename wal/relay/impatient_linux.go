package relay

import (
	"net"
	"syscall"
)

// thinLinearTimeouts is TCP_THIN_LINEAR_TIMEOUTS of linux/tcp.h: with fewer than four
// packets on their way, the first six times a packet is sent again are equally far
// apart.
const thinLinearTimeouts = 16

// rtoMax is TCP_RTO_MAX_MS, of Linux 6.15 and newer: how far apart two attempts are at
// most. The least is a second.
const rtoMax = 44

// makeImpatient makes a TCP connection impatient. Where that cannot be done it is as
// patient as all others.
func makeImpatient(conn net.Conn) {
	socket, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, thinLinearTimeouts, 1)
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, rtoMax, 1000)
	})
}
