package beat_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/heliosdb/helios/internal/beat"
)

func TestTasksMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var met [2][]int64 // in ms
		run := func(task int, begin, every time.Duration) {
			time.Sleep(begin)
			for time.Since(start) < time.Second {
				time.Sleep(beat.Next(every))
				met[task] = append(met[task], time.Since(start).Milliseconds())
			}
		}
		go run(0, 13*time.Millisecond, 200*time.Millisecond)
		go run(1, 271*time.Millisecond, 400*time.Millisecond)
		time.Sleep(1200 * time.Millisecond)
		synctest.Wait()
		for task, want := range [2][]int64{{200, 400, 600, 800, 1000}, {400, 800, 1200}} {
			if !slices.Equal(met[task], want) {
				t.Errorf("task %d ran at %v ms, want %v", task, met[task], want)
			}
		}
	})
}

func TestNextIsNeverNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which begins at a multiple of everything here
		for _, every := range []time.Duration{1, time.Millisecond, time.Second} {
			if got := beat.Next(every); got != every {
				t.Errorf("at a multiple: Next(%v) = %v, want %v", every, got, every)
			}
		}
	})
}
