// Package router decides what a statement is and which node may answer it.
// It does no I/O and starts no goroutine.
package router
