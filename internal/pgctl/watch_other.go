//go:build unix && !linux

package pgctl

import (
	"errors"
	"syscall"
)

// watch begins to watch a process; nil if there is none, or a dead one.
func watch(pid int) (*process, error) {
	tree, err := processTree(pid)
	if err != nil || len(tree) == 0 || tree[0].dead() {
		return nil, err
	}
	return watchByLooking(pid, func() bool {
		reap(pid) // a zombie of ours would be found for ever
		return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}), nil
}
