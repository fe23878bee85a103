//go:build unix

package relay

import (
	"fmt"
	"syscall"
)

// allocate takes memory from the system, outside the heap.
func allocate(size int) ([]byte, error) {
	data, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("relay: no memory for %d bytes of WAL: %w; a smaller wal_buffer_size needs less", size, err)
	}
	return data, nil
}

// release gives it back. Whoever reads it afterwards is ended by the system.
func release(data []byte) {
	if err := syscall.Munmap(data); err != nil {
		panic(fmt.Sprintf("relay: unmapping what allocate mapped: %v", err))
	}
}
