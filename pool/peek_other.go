//go:build !unix

package pool

import "net"

// peeker cannot look into a socket on this system: a dead connection is found
// by its first use.
type peeker struct{ self quieter }

func (p *peeker) init(conn net.Conn) {
	p.self, _ = conn.(quieter)
}

// quiet reports true where nothing is known.
func (p *peeker) quiet() bool { return p.self == nil || p.self.Quiet() }
