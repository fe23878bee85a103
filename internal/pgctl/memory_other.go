//go:build unix && !linux

package pgctl

// memoryDir is never used: no such directory is common to other systems.
const memoryDir = ""

func memoryIsPlenty() bool { return false }
