package pgctl

import "syscall"

// memoryDir is a file system in memory that every user may write to.
const memoryDir = "/dev/shm"

// tmpfsMagic marks a file system in memory (TMPFS_MAGIC in linux/magic.h).
const tmpfsMagic = 0x01021994

// plentyOfMemory is what has to be free before data goes there, in bytes: a
// cluster of three takes about 300 MB. Containers often have 64 MB in all.
const plentyOfMemory = 4 << 30

// memoryIsPlenty reports whether memoryDir is in memory and has much room.
func memoryIsPlenty() bool {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memoryDir, &fs); err != nil {
		return false
	}
	return fs.Type == tmpfsMagic && fs.Bavail*uint64(fs.Bsize) >= plentyOfMemory
}
