package walbench

import (
	"os"
	"testing"
)

func TestBothClocksOfAProcessAgree(t *testing.T) {
	for range 200_000_000 / 1000 {
		_ = median([]float64{3, 1, 2})
	}
	exact, err := schedulerTime(os.Getpid())
	if err != nil {
		t.Log("this kernel does not tell:", err)
		return
	}
	coarse, err := statTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// Threads that have ended are in one of them only, and time goes on between
	// the two looks.
	if exact <= 0 || coarse > exact*3/2+1e9 || exact > coarse*3/2+1e9 {
		t.Errorf("the scheduler says %v and /proc/PID/stat %v", exact, coarse)
	}
	if n, err := memoryOf(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("memoryOf = %d, %v, want a megabyte or more", n, err)
	}
}
