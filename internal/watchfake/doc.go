// Package watchfake is scripted companion servers for tests: each serves the
// stream of bulletins that a test has it tell, over HTTP and in-memory
// connections, and fails on demand.
//
// It is made for testing/synctest bubbles: nothing takes time. Every goroutine
// belongs to a [Companion]; its Close waits for them.
package watchfake
