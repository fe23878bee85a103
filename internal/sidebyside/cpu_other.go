//go:build !unix

package sidebyside

import "time"

// processCPU is not known on this system.
func processCPU() time.Duration { return 0 }
