package sidebyside

import (
	"runtime"
	"time"
)

// A Meter reads what the process has used up to now. A nil function is the one
// of this process and the machine.
type Meter struct {
	Now       func() time.Time
	CPU       func() time.Duration // user and system time of all threads
	Allocated func() (objects, bytes uint64)
}

// orOwn returns m with nothing missing.
func (m Meter) orOwn() Meter {
	if m.Now == nil {
		m.Now = time.Now
	}
	if m.CPU == nil {
		m.CPU = processCPU
	}
	if m.Allocated == nil {
		m.Allocated = allocated
	}
	return m
}

// allocated counts exactly, at the price of stopping the world for a moment:
// between the slices it disturbs nobody.
func allocated() (objects, bytes uint64) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs, m.TotalAlloc
}
