//go:build unix && !linux

package pgctl

import (
	"fmt"
	"math"
	"os/exec"
	"strings"
	"time"
)

// startSlack is how far the start of a process may be from what postmaster.pid
// says: both are whole seconds, and the file is written a moment later.
const startSlack = 5 * time.Second

// worksIn reports whether a process is a PostgreSQL server program. Where it
// works cannot be asked for without a tool that may be missing.
func worksIn(pid int, _ string) (bool, error) {
	program, err := exec.Command("ps", "-o", "comm=", "-p", fmt.Sprint(pid)).Output()
	if err != nil {
		return false, ignoreExit(err)
	}
	return isServerProgram(strings.TrimSpace(string(program))), nil
}

// isPostmaster reports whether the process that lock names is a server program
// that started when the file says, and no child of another one.
func isPostmaster(lock lockFile, dir string) (bool, error) {
	if ours, err := worksIn(lock.pid, dir); err != nil || !ours {
		return false, err
	}
	out, err := exec.Command("ps", "-o", "ppid=,lstart=", "-p", fmt.Sprint(lock.pid)).Output()
	if err != nil {
		return false, ignoreExit(err)
	}
	var parent int
	text := strings.TrimSpace(string(out))
	if _, err := fmt.Sscan(text, &parent); err != nil {
		return false, fmt.Errorf("pgctl: cannot read %q of ps: %w", text, err)
	}
	_, begun, _ := strings.Cut(text, " ")
	start, err := time.ParseInLocation("Mon Jan _2 15:04:05 2006", strings.TrimSpace(begun), time.Local)
	if err != nil {
		return false, fmt.Errorf("pgctl: cannot read %q of ps: %w", text, err)
	}
	if math.Abs(float64(start.Sub(lock.start))) > float64(startSlack) {
		return false, nil
	}
	child, err := worksIn(parent, dir)
	return !child, err
}

// commandLine returns nil: ps does not tell arguments with blanks apart, and
// postmaster.opts does.
func commandLine(int) ([]string, error) { return nil, nil }

// stragglers returns none: which directory a process works in is not known here.
func stragglers(string) ([]int, error) { return nil, nil }
