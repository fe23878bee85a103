//go:build !linux

package agent

import "time"

var started = time.Now()

// Boottime returns the time since this process has started, which may stand still
// while the machine sleeps: only Linux has a clock that surely does not.
func Boottime() time.Duration { return time.Since(started) + 1 }
