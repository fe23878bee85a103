package helios

import (
	"errors"
	"sync"
	"time"

	"github.com/heliosdb/helios/pool"
)

// A guard gives a connection up on which nothing comes in while its node answers
// no probes. What is under way when a node goes down is cut by its fence; what is
// sent to it afterwards, because its caller named it or because no node answers,
// has nobody else to end it before TCP gives up.
type guard struct {
	node    *node
	conn    *pool.Conn
	silence time.Duration

	mu    sync.Mutex
	timer *time.Timer // guarded by mu
	heard int64       // guarded by mu; bytes received when it was looked at last
	over  bool        // guarded by mu; the statement has ended
}

// patientProbes is for how many probe timeouts in a row a guard hears nothing
// before it acts: a statement may take longer than a probe.
const patientProbes = 5

// errSilent is why a guard gives a connection up.
var errSilent = errors.New("node is down and silent")

// guard watches conn until the guard is ended, if its node is down.
func (c *Cluster) guard(n *node, conn *pool.Conn) *guard {
	if !n.down.Load() {
		return nil
	}
	g := &guard{node: n, conn: conn, silence: patientProbes * c.config.ProbeTimeout, heard: conn.Received()}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.timer = time.AfterFunc(g.silence, g.look)
	return g
}

// look is where the timer leads.
func (g *guard) look() {
	g.mu.Lock()
	defer g.mu.Unlock()
	heard := g.conn.Received()
	switch {
	case g.over, !g.node.down.Load(): // should it go down again, it is fenced
	case heard != g.heard:
		g.heard = heard
		g.timer.Reset(g.silence)
	default:
		g.conn.Abort(unsent(g.node.name, errSilent))
	}
}

// end lets the connection go on. A nil guard has nothing to end.
func (g *guard) end() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	g.timer.Stop()
}
