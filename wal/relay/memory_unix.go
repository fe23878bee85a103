//go:build unix

package relay

import (
	"fmt"
	"syscall"
	"unsafe"
)

// hugePage is a page of the larger kind, on most systems.
const hugePage = 2 << 20

// allocate takes memory from the system, outside the heap, of which size bytes
// are to be used. They begin at a huge page, and consist of such if the system
// has them to give: then memory is made ready in one step for each of them, not
// in 512.
func allocate(size int) (mapped, usable []byte, err error) {
	mapped, err = syscall.Mmap(-1, 0, size+hugePage, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, nil, fmt.Errorf("relay: no memory for %d bytes of WAL: %w; a smaller wal_buffer_size needs less", size, err)
	}
	beyond := uintptr(unsafe.Pointer(unsafe.SliceData(mapped))) % hugePage
	usable = mapped[(hugePage-beyond)%hugePage:][:size]
	adviseHuge(usable)
	return mapped, usable, nil
}

// release gives back what allocate mapped. Whoever reads it afterwards is ended
// by the system.
func release(mapped []byte) {
	if err := syscall.Munmap(mapped); err != nil {
		panic(fmt.Sprintf("relay: unmapping what allocate mapped: %v", err))
	}
}
