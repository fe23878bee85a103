//go:build linux || darwin

package doctor

import "syscall"

// room returns how many bytes are free, for who is not root, and how many there are.
func room(dir string) (free, total uint64, err error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	block := uint64(s.Bsize)
	return s.Bavail * block, s.Blocks * block, nil
}
