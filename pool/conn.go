package pool

import (
	"net"
	"sync/atomic"
)

// Conn is one physical connection to a node. It is used by one goroutine at a
// time, its holder, between Acquire and Release; Abort may be called by anyone.
type Conn struct {
	socket net.Conn
	slot   int32 // index in the pool's slots; written by the pool only
	broken atomic.Bool
}

// Abort closes the socket at once: whoever is reading from the connection gets
// an error. It is safe to call from any goroutine, and more than once.
func (c *Conn) Abort() {
	if c.broken.CompareAndSwap(false, true) && c.socket != nil {
		c.socket.Close() //nolint:errcheck // the connection is given up
	}
}

// Close says goodbye to the server and closes the socket. The holder calls it.
func (c *Conn) Close() { c.Abort() }

// Usable reports whether the connection may serve another statement: it was
// not aborted, and no error or end of stream waits in its socket.
func (c *Conn) Usable() bool { return !c.broken.Load() }
