//go:build unix && !linux

package relay

// adviseHuge leaves it to the system.
func adviseHuge([]byte) {}
