package pgctl

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// dieWithParent asks the kernel to send sig when this process is gone, however it
// went: or rather the thread that starts the child.
func dieWithParent(attr *syscall.SysProcAttr, sig syscall.Signal) { attr.Pdeathsig = sig }

// processTree returns root and all that descend from it, root first. A process
// that ends meanwhile is left out.
func processTree(root int) ([]proc, error) {
	q, ok, err := readProc(root)
	if err != nil || !ok {
		return nil, err
	}
	tree := []proc{q}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", root, root))
	if err != nil && !gone(err) {
		return nil, err
	}
	for field := range strings.FieldsSeq(string(children)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		below, err := processTree(pid)
		if err != nil {
			return nil, err
		}
		tree = append(tree, below...)
	}
	return tree, nil
}

// readProc reads one process's state, parent and start; ok is false if it is gone.
func readProc(pid int) (q proc, ok bool, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if gone(err) {
		return proc{}, false, nil
	}
	if err != nil {
		return proc{}, false, err
	}
	q = proc{pid: pid}
	// The name stands in parentheses and may hold any byte, even ')'.
	end := bytes.LastIndexByte(stat, ')')
	rest := stat[end+1:]
	if _, err := fmt.Sscanf(string(rest), " %c %d", &q.state, &q.parent); err != nil {
		return proc{}, false, fmt.Errorf("pgctl: cannot read %q: %w", stat, err)
	}
	q.name = string(stat[bytes.IndexByte(stat, '(')+1 : end])
	if fields := bytes.Fields(rest); len(fields) >= 20 { // the name is field 2, starttime 22
		q.start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	}
	return q, true, err
}

// reapOrphans takes off the kernel's table what postmasters left that died before
// their children, where those became ours.
func reapOrphans() {
	if !waited.TryLock() {
		return // another time: it might be a program of ours that somebody waits for
	}
	defer waited.Unlock()
	children, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		return
	}
	for _, list := range children {
		pids, _ := os.ReadFile(list) // a thread that has ended has none
		for field := range strings.FieldsSeq(string(pids)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				continue
			}
			q, ok, err := readProc(pid)
			if ok && err == nil && q.dead() && isServerProgram(q.name) {
				reap(pid)
			}
		}
	}
}
