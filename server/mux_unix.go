//go:build unix

package server

import (
	"io"
	"net"
	"os"
	"syscall"
)

// peekSocket looks at the first byte that has arrived at a socket, and leaves it
// there. It returns false for what is no socket.
func peekSocket(conn net.Conn) (first byte, ok bool, err error) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return 0, false, nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	var seen error
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		switch {
		case err == syscall.EAGAIN || err == syscall.EINTR:
			return false // the runtime waits until there is something
		case err != nil:
			seen = os.NewSyscallError("recvfrom", err)
		case n == 0:
			seen = io.EOF
		default:
			first = b[0]
		}
		return true
	})
	if err == nil {
		err = seen
	}
	return first, true, err
}
