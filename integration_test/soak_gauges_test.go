package integration_test

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// gauge is what this process uses at one moment.
type gauge struct {
	goroutines int
	heap       int // bytes in use after a collection
	sockets    int
}

// gauges are taken again and again.
type gauges struct {
	taken []gauge
}

// run takes gauges until the context ends.
func (g *gauges) run(until context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.taken = append(g.taken, takeGauge())
		case <-until.Done():
			return
		}
	}
}

func takeGauge() gauge {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return gauge{goroutines: runtime.NumGoroutine(), heap: int(m.HeapAlloc), sockets: openSockets()}
}

// openSockets counts this process's sockets; 0 where that cannot be seen.
func openSockets() int {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// flat compares the medians of the first third and the last, and fails the test
// if something has grown.
func (g *gauges) flat(t testing.TB) {
	t.Helper()
	third := len(g.taken) / 3
	if third == 0 {
		t.Error("no gauge was taken")
		return
	}
	for _, of := range []struct {
		name  string
		value func(gauge) int
		leave int // beside a quarter
	}{
		{"goroutines", func(g gauge) int { return g.goroutines }, 30},
		{"bytes of heap", func(g gauge) int { return g.heap }, 4 << 20},
		{"sockets", func(g gauge) int { return g.sockets }, 20},
	} {
		first, last := median(g.taken[:third], of.value), median(g.taken[len(g.taken)-third:], of.value)
		t.Logf("FIGURES soak: %s: %d in the first third, %d in the last (medians)", of.name, first, last)
		if last > first+first/4+of.leave {
			t.Errorf("%s grew from %d to %d", of.name, first, last)
		}
	}
}

func median(taken []gauge, value func(gauge) int) int {
	values := make([]int, len(taken))
	for i, g := range taken {
		values[i] = value(g)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
