package agent

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

// clockBoottime is CLOCK_BOOTTIME of time.h: unlike CLOCK_MONOTONIC it goes on
// while the machine is suspended.
const clockBoottime = 7

// Boottime returns the time since the machine has started.
func Boottime() time.Duration {
	var ts syscall.Timespec
	// It cannot block: the runtime need not get ready for that, and wake its monitor.
	if _, _, err := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockBoottime, uintptr(unsafe.Pointer(&ts)), 0); err != 0 {
		panic(fmt.Sprintf("agent: clock_gettime(CLOCK_BOOTTIME): %v", err)) // there since Linux 2.6.39
	}
	return time.Duration(ts.Nano())
}
