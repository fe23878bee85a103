package relay

import "syscall"

// adviseHuge asks for huge pages.
func adviseHuge(memory []byte) {
	const madvHugepage = 14
	_ = syscall.Madvise(memory, madvHugepage) // without them it is slower, and right
}
