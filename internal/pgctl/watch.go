package pgctl

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// watchInterval is how often a process is looked at where the kernel cannot say
// when it ends.
const watchInterval = 5 * time.Millisecond

// byNumber signals a process that cannot be held by anything else.
type byNumber struct {
	pid  int
	same func() bool // it is still the process that was meant
}

// Signal implements signaller.
func (n byNumber) Signal(sig os.Signal) error {
	if !n.same() {
		return os.ErrProcessDone
	}
	err := syscall.Kill(n.pid, sig.(syscall.Signal))
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// watchByLooking watches a process as long as same says that it lives and is
// still the one that was meant.
func watchByLooking(pid int, same func() bool) *process {
	p := &process{pid: pid, handle: byNumber{pid, same}, done: make(chan struct{})}
	left := make(chan struct{})
	p.leave = func() { close(left) }
	p.running.Go(func() {
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		for same() {
			select {
			case <-tick.C:
			case <-left:
				return
			}
		}
		reap(pid)
		close(p.done)
	})
	return p
}
