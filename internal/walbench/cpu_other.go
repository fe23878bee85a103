//go:build !linux

package walbench

import (
	"errors"
	"time"
)

// errNoProc says that processor time is not known. What is measured by it is
// left out.
var errNoProc = errors.New("the processor time of other processes is known on Linux only")

func cpuOf(...int) (time.Duration, error) { return 0, errNoProc }

func memoryOf(int) (int64, error) { return 0, errNoProc }

func threadTime() (time.Duration, error) { return 0, errNoProc }

func load() string { return "" }
