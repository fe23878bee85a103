package pgctl

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// pidfd is the kernel's own handle of a process, which no other process ever
// gets the number of.
type pidfd struct{ file *os.File }

// Signal implements signaller.
func (h pidfd) Signal(sig os.Signal) error {
	raw, err := h.file.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig.(syscall.Signal), nil, 0) })
	if errors.Is(sent, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return errors.Join(err, os.NewSyscallError("pidfd_send_signal", sent))
}

// ended waits until the process has, reaped or not: a zombie has ended. An error
// says that the file was closed.
func (h pidfd) ended() error {
	raw, err := h.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool { return readable(int(fd)) })
}

// readable reports whether a pidfd says that its process has ended.
func readable(fd int) bool {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n == 1 && err == nil
}

// watch begins to watch a process; nil if there is none, or a dead one. What is
// read of its number afterwards is of the very process as long as it is alive.
func watch(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil, nil //nolint:nilnil // there is none
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EPERM): // an old kernel, or a sandbox
		return watchByStart(pid)
	case err != nil:
		return nil, fmt.Errorf("pgctl: pidfd_open of process %d: %w", pid, err)
	}
	if readable(fd) {
		return nil, unix.Close(fd)
	}
	// A file that does not block waits in the runtime's poller, and not in a
	// thread of its own.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	h := pidfd{os.NewFile(uintptr(fd), fmt.Sprintf("pidfd of %d", pid))}
	p := &process{pid: pid, handle: h, done: make(chan struct{})}
	p.leave = func() { _ = h.file.Close() }
	p.running.Go(func() {
		if h.ended() != nil {
			return // left
		}
		reap(pid)
		close(p.done)
	})
	return p, nil
}

// watchByStart watches a process without help of the kernel: by the moment of
// its start, which another one with its number does not share.
func watchByStart(pid int) (*process, error) {
	q, ok, err := readProc(pid)
	if err != nil || !ok || q.dead() {
		return nil, err
	}
	return watchByLooking(pid, func() bool {
		now, ok, err := readProc(pid)
		return err != nil || ok && !now.dead() && now.start == q.start
	}), nil
}
