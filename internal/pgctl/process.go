package pgctl

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// settleTimeout bounds how long signalled processes may take to stop running.
// It is reached only by one that the kernel keeps in an uninterruptible call.
const settleTimeout = 5 * time.Second

// process is a postmaster that this process watches, and the children it has.
type process struct {
	pid     int
	handle  signaller
	done    chan struct{} // closed when it has ended
	leave   func()        // ends the watching and leaves it alive; nil for one that cannot be left
	running sync.WaitGroup
}

// signaller is what a process is signalled by: never by its number alone, which
// may be another's by then.
type signaller interface{ Signal(sig os.Signal) error }

// waited is shared by whoever waits for a child of ours by its number, and held
// by whoever reaps children that nobody waits for.
var waited sync.RWMutex

// startProcess starts cmd and waits for it in the background. One thread starts
// it and stays until its end: the kernel sends the signal of Pdeathsig when the
// starting thread goes away, not only when the whole parent does.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{done: make(chan struct{})}
	started := make(chan error, 1)
	p.running.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		waited.RLock()
		defer waited.RUnlock()
		err := cmd.Start()
		if err == nil {
			p.handle, p.pid = cmd.Process, cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // that it ended is all that is asked
		}
	})
	return p, <-started
}

// startDetached starts cmd as a process that outlives this one. It is watched as
// one that was found is, so that it can be left.
func startDetached(cmd *exec.Cmd) (*process, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// Only we can reap it, so the number is its own until watch has begun.
	p, err := watch(cmd.Process.Pid)
	if err != nil || p == nil {
		err = errors.Join(err, cmd.Process.Kill(), ignoreExit(cmd.Wait()))
		return nil, cmp.Or(err, errStopped)
	}
	return p, cmd.Process.Release()
}

// ignoreExit drops what a program says by its exit status.
func ignoreExit(err error) error {
	if _, exited := errors.AsType[*exec.ExitError](err); exited {
		return nil
	}
	return err
}

// alive reports whether the process has not ended yet.
func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends sig to the process alone. One that has ended gets nothing and is
// not an error.
func (p *process) signal(sig os.Signal) error {
	if err := p.handle.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// freeze stops the process and everything it started. Each look at the processes
// may find some that were forked before their parent stood still, so it looks
// until all stand.
func (p *process) freeze() (tree []proc, err error) {
	still, err := settle(100*time.Microsecond, func() (still bool, err error) {
		if tree, err = processTree(p.pid); err != nil {
			return false, err
		}
		still = true
		for _, q := range tree {
			if q.runs() {
				still = false
				if err := sendSignal(q.pid, syscall.SIGSTOP); err != nil {
					return false, err
				}
			}
		}
		return still, nil
	})
	switch {
	case err != nil:
		return nil, err
	case !still:
		return tree, fmt.Errorf("pgctl: processes of postmaster %d still run %v after SIGSTOP", p.pid, settleTimeout)
	}
	return tree, nil
}

// settle asks every so often until done says yes or an error comes, for settleTimeout,
// and reports whether it has. It asks once more after that: a machine that stood still
// has given nobody time.
func settle(every time.Duration, done func() (bool, error)) (settled bool, err error) {
	for deadline := time.Now().Add(settleTimeout); ; time.Sleep(every) {
		late := time.Now().After(deadline)
		if settled, err = done(); settled || err != nil || late {
			return settled, err
		}
	}
}

// thaw lets everything stopped by freeze run again.
func (p *process) thaw() error {
	tree, err := processTree(p.pid)
	if err != nil {
		return err
	}
	for _, q := range tree {
		err = errors.Join(err, sendSignal(q.pid, syscall.SIGCONT))
	}
	return err
}

// killTree ends the process and everything it started, so that none of them can
// do anything after the first has died. When it returns all are dead.
func (p *process) killTree() error {
	if !p.alive() {
		return nil
	}
	tree, err := p.freeze()
	for _, q := range tree {
		if q.pid != p.pid {
			err = errors.Join(err, sendSignal(q.pid, syscall.SIGKILL))
		}
	}
	// As long as their parent stands still nobody reaps the children, and their
	// numbers cannot be given to others.
	err = errors.Join(err, p.awaitOrphans(), p.signal(syscall.SIGKILL))
	p.running.Wait()
	for _, q := range tree {
		reap(q.pid)
	}
	return err
}

// reap takes a dead process off the kernel's table where that is our duty: a
// companion that is process 1 of a container, or a subreaper, becomes the parent
// of those whose own has died. Of others' children it does nothing.
func reap(pid int) { _, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) }

// awaitOrphans returns when nothing below the process is alive any more.
func (p *process) awaitOrphans() error {
	gone, err := settle(100*time.Microsecond, func() (bool, error) {
		tree, err := processTree(p.pid)
		return err == nil && !anyAlive(tree, p.pid), err
	})
	if err == nil && !gone {
		err = fmt.Errorf("pgctl: children of postmaster %d live %v after SIGKILL", p.pid, settleTimeout)
	}
	return err
}

// anyAlive reports whether tree holds a living process besides root.
func anyAlive(tree []proc, root int) bool {
	for _, q := range tree {
		if q.pid != root && !q.dead() {
			return true
		}
	}
	return false
}

// sendSignal treats a process that is gone as done.
func sendSignal(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("pgctl: %v to process %d: %w", sig, pid, err)
	}
	return nil
}

// proc is one process as the kernel shows it.
type proc struct {
	pid, parent int
	state       byte   // as ps prints it: R, S, D, T, Z, …
	name        string // of the program, cut off after 15 bytes; only on Linux, as what follows
	start       uint64 // in ticks since the machine booted
}

func (q proc) runs() bool { return !q.dead() && q.state != 'T' && q.state != 't' }
func (q proc) dead() bool { return q.state == 'Z' || q.state == 'X' }
