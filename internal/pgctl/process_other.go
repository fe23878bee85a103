//go:build unix && !linux

package pgctl

import (
	"bytes"
	"fmt"
	"os/exec"
	"syscall"
)

// dieWithParent does nothing: only Linux has a signal for the death of a parent.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}

// processTree returns root and all that descend from it, root first. A process
// that ends meanwhile is left out.
func processTree(root int) ([]proc, error) {
	out, err := exec.Command("ps", "-axo", "pid=,ppid=,state=").Output()
	if err != nil {
		return nil, fmt.Errorf("pgctl: ps: %w", err)
	}
	below := map[int][]proc{}
	var tree []proc
	for line := range bytes.Lines(out) {
		var q proc
		if _, err := fmt.Sscanf(string(line), "%d %d %c", &q.pid, &q.parent, &q.state); err != nil {
			return nil, fmt.Errorf("pgctl: cannot read %q of ps: %w", line, err)
		}
		if q.pid == root {
			tree = append(tree, q)
		}
		below[q.parent] = append(below[q.parent], q)
	}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, below[tree[i].pid]...)
	}
	return tree, nil
}

// reapOrphans does nothing: only Linux makes a process other than the first one
// the parent of orphans, and the first one is no companion there.
func reapOrphans() {}
