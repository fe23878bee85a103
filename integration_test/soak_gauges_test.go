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

// settled is the life after a third of which pools have as many connections as
// they will ever need. Before, they fill up, and that is no growth.
const settled = 5 * time.Minute

// bounds of what is there at any time, whatever the pools do: they are limited.
const (
	mostGoroutines = 1000
	mostHeap       = 100 << 20
	mostSockets    = 500
)

// flat compares the medians of the first third and the last, and fails the test
// if something has grown, or, in a life that is too short for that, if there is
// more of it than there may ever be.
func (g *gauges) flat(t testing.TB, long bool) {
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
		most  int
	}{
		{"goroutines", func(g gauge) int { return g.goroutines }, 30, mostGoroutines},
		{"bytes of heap", func(g gauge) int { return g.heap }, 4 << 20, mostHeap},
		{"sockets", func(g gauge) int { return g.sockets }, 20, mostSockets},
	} {
		first, last := median(g.taken[:third], of.value), median(g.taken[len(g.taken)-third:], of.value)
		t.Logf("FIGURES soak: %s: %d in the first third, %d in the last (medians)", of.name, first, last)
		limit := of.most
		if long {
			limit = first + first/4 + of.leave
		}
		if last > limit {
			t.Errorf("%s grew from %d to %d, want at most %d", of.name, first, last, limit)
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
