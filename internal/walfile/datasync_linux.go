package walfile

import (
	"errors"
	"os"
	"syscall"
)

// datasync makes what a file holds, and its size, last over a crash.
func datasync(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
