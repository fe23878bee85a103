//go:build !linux

package walfile

import "os"

// datasync makes what a file holds, and its size, last over a crash.
func datasync(f *os.File) error { return f.Sync() }
