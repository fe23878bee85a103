package helios

import (
	"errors"
	"fmt"
	"time"

	"github.com/heliosdb/helios/router"
	"github.com/heliosdb/helios/topology"
)

// apply follows a new view: what it says takes effect here.
func (c *Cluster) apply(old, view *topology.View) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if view.Version <= c.applied {
		return
	}
	c.applied = view.Version
	before := c.routes.Load()
	c.rebuildLocked(view)
	after := c.routes.Load()
	for i := range view.Nodes {
		if n := c.nodes[view.Nodes[i].Name]; n != nil {
			c.followNodeLocked(n, nodeIn(old, n.name), &view.Nodes[i])
		}
	}
	c.followEpochLocked(old, view)
	c.followPrimaryLocked(before, after)
}

// followNodeLocked acts on what changed for one node.
func (c *Cluster) followNodeLocked(n *node, old, now *topology.Node) {
	was, wasOn := topology.StateUnknown, now.Timeline
	if old != nil {
		was, wasOn = old.State, old.Timeline
	}
	n.down.Store(now.State == topology.StateDown)
	n.load.SetLag(now.Lag)
	if now.Timeline != wasOn {
		n.proofs.turned()
	}
	if was == now.State {
		return
	}
	c.log.Info("node state changed", "node", n.name, "state", now.State.String(), "role", now.Role.String(), "reason", now.Reason)
	switch now.State {
	case topology.StateUp:
		n.pool.Warm()
		if was == topology.StateDown || was == topology.StateRefused {
			now := c.now()
			n.load.Rejoined(now.UnixNano())
			c.readClockUntil(now.Add(router.SlowStart).UnixNano())
		}
	case topology.StateRefused:
		n.pool.Fence(unsent(n.name, errors.New(now.Reason)))
	case topology.StateDown:
		c.running.Go(func() { c.fenceIfStillDown(n) })
	case topology.StateUnknown:
	}
}

// fenceIfStillDown cuts the connections of a node that has stayed down for the
// time of one more probe: what is in flight there would wait for TCP to give
// up. A single failed probe cuts nothing.
func (c *Cluster) fenceIfStillDown(n *node) {
	timer := time.NewTimer(c.config.ProbeTimeout)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-c.ended.Done():
		return
	}
	if v := nodeIn(c.board.Peek(), n.name); v != nil && v.State == topology.StateDown {
		n.pool.Fence(unsent(n.name, fmt.Errorf("node is down: %s", v.Reason)))
	}
}

// followPrimaryLocked acts on a change of the primary.
func (c *Cluster) followPrimaryLocked(before, after *routes) {
	view, held := after.view, before.view.Told.Hold && before.fenced == after.primary
	if after.primary == nil || before.primary == after.primary || held {
		return
	}
	c.fenceReignLocked(after)
	c.log.Info("primary changed", "node", after.primary.name, "timeline", uint32(view.Timeline))
	c.counts.primaryChanges.Add(1)
	for i := range view.Nodes { // a node that was left behind is cut off: nobody waits for it any longer
		v := &view.Nodes[i]
		if v.State == topology.StateDown && c.nodes[v.Name] != nil {
			c.nodes[v.Name].pool.Fence(unsent(v.Name, fmt.Errorf("node is down and %s took over", after.primary.name)))
		}
	}
}

// followEpochLocked tells of what companions have announced.
func (c *Cluster) followEpochLocked(old, view *topology.View) {
	was, is := old.Told, view.Told
	if was.Epoch != is.Epoch {
		c.log.Info("epoch changed", "epoch", is.Epoch, "primary", is.Primary+is.Stranger)
	}
	if was.Hold != is.Hold {
		c.log.Info("companions have writes wait, or go on", "wait", is.Hold, "epoch", is.Epoch)
	}
}

// fenceReignLocked cuts off who was the primary in an earlier epoch, once there
// is another one: what is under way there can end with nothing but its fence. A
// standby has no connections left that were made to the primary it was.
func (c *Cluster) fenceReignLocked(after *routes) {
	former, epoch := c.reigning, after.view.Told.Epoch
	if former != nil && former != after.primary && epoch > c.reign {
		v := nodeIn(after.view, former.name)
		if v != nil && (v.State != topology.StateUp || v.Role != topology.RoleReplica) {
			former.pool.Fence(unsent(former.name, fmt.Errorf("its epoch has ended: %s is the primary of epoch %d", after.primary.name, epoch)))
		}
	}
	c.reigning, c.reign = after.primary, epoch
}
