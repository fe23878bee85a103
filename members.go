package helios

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/heliosdb/helios/topology"
)

// members is what is known of the members that companions have told of, by the
// name they have there.
type members map[string]*member

// A member is one of them.
type member struct {
	addr   string    // as told
	since  time.Time // when it was told of first
	node   string    // the node that it was found to be, under whatever name; "" if none yet
	listed bool      // the newest bulletin tells of it
}

// maxTold is how many nodes are used because companions tell of them: whoever
// speaks in their stead cannot have us dial the world.
const maxTold = 64

// followMembers makes the nodes that companions tell of part of the cluster, and
// takes those out again of which they tell no more and which nobody else has
// named. It believes companions of the cluster that our own probes have found, and
// who is a node of ours under another name has to be known before.
func (c *Cluster) followMembers(view *topology.View, b *topology.Bulletin, who []int, at time.Time) {
	if c.config.CompanionMembers == MembersOff || !view.Settled || len(b.Nodes) == 0 ||
		b.SystemID == 0 || b.SystemID != view.SystemID || b.Epoch < view.Told.Epoch {
		return
	}
	c.members.follow(view, b, who, at)
	told := c.toldNodes()
	for name, n := range told {
		if c.memberLeft(view, b, n) {
			delete(told, name)
		}
	}
	missing := unmatched(view, who, told)
	for i, j := range who {
		r := &b.Nodes[i]
		m := c.members[r.Name]
		switch {
		case j >= 0, r.Role == "witness", r.State != "up", r.StartedAt.IsZero(), m.node != "":
		case missing && at.Sub(m.since) < 2*c.config.ProbeTimeout:
			c.prober.Kick("") // it may be a node of ours that has not been reached yet
		case len(told) >= maxTold:
			c.warnOfStranger(r, fmt.Sprintf("companions tell of more than %d nodes", maxTold))
		default:
			c.admit(r)
		}
	}
}

// follow takes over who is a member in b.
func (ms members) follow(view *topology.View, b *topology.Bulletin, who []int, at time.Time) {
	for _, m := range ms {
		m.listed = false
	}
	for i, j := range who {
		r := &b.Nodes[i]
		m := ms[r.Name]
		if m == nil || m.addr != r.Addr {
			m = &member{addr: r.Addr, since: at}
			ms[r.Name] = m
		}
		m.listed = true
		if j >= 0 && m.node != view.Nodes[j].Name {
			ms.found(m, view.Nodes[j].Name)
		}
	}
	for name, m := range ms {
		if !m.listed {
			delete(ms, name)
		}
	}
}

// found notes which node a member is. It is nobody else then.
func (ms members) found(m *member, node string) {
	for _, other := range ms {
		if other != m && other.node == node {
			other.node = ""
		}
	}
	m.node = node
}

// toldNodes returns the nodes that are part of the cluster only because companions
// tell of them, by name.
func (c *Cluster) toldNodes() map[string]*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	told := map[string]*node{}
	for name, n := range c.nodes {
		if n.told {
			told[name] = n
		}
	}
	return told
}

// unmatched reports whether a node of the view that was named by somebody else is
// none of the members, as far as is known: it may be one under another name.
func unmatched(view *topology.View, who []int, told map[string]*node) bool {
	found := make([]bool, len(view.Nodes))
	for _, j := range who {
		if j >= 0 {
			found[j] = true
		}
	}
	for j := range view.Nodes {
		if !found[j] && told[view.Nodes[j].Name] == nil {
			return true
		}
	}
	return false
}

// admit makes a node that companions tell of part of the cluster. It is connected
// to like the others, with the user, the password and the sslmode of the DSN.
func (c *Cluster) admit(r *topology.Reported) {
	host, err := parseAddress(r.Addr)
	if err == nil && (host.isSocket() || host.String() != r.Addr) {
		err = errors.New("its address is not host:port")
	}
	if err == nil {
		err = c.add(host, topology.Node{Name: r.Addr, Zone: r.Zone, Weight: 1}, true)
	}
	switch {
	case err == nil:
		c.log.Info("companions tell of a node: it is one of the cluster", "node", r.Addr, "member", r.Name, "role", r.Role)
	case !c.closed.Load():
		c.warnOfStranger(r, strings.TrimPrefix(err.Error(), "helios: "))
	}
}

// memberLeft takes n out of the cluster, and reports so, if companions tell of it
// no more, or if it has turned out to be another node of ours under a second name.
// What runs on it may end.
func (c *Cluster) memberLeft(view *topology.View, b *topology.Bulletin, n *node) bool {
	why, routes := c.whyLeft(view, b, n), c.routes.Load()
	if why == "" || routes.primary == n || routes.fenced == n {
		return false
	}
	if err := c.takeOut(n); err != nil {
		return false
	}
	c.log.Info("node is no longer one of the cluster", "node", n.name, "reason", why)
	c.running.Go(func() {
		n.drain(c.ended) //nolint:errcheck // if it fails everything ends
		n.close()
	})
	return true
}

// whyLeft says why n, which only companions have named, is to be taken out; "" if
// it is not.
func (c *Cluster) whyLeft(view *topology.View, b *topology.Bulletin, n *node) string {
	own := view.Index(n.name)
	if own < 0 {
		return ""
	}
	for i := range b.Nodes {
		r := &b.Nodes[i]
		if r.Addr != n.name {
			continue
		}
		for j := range own {
			if view.Nodes[own].SameServer(&view.Nodes[j]) {
				c.members.found(c.members[r.Name], view.Nodes[j].Name)
				return "is the same server as " + view.Nodes[j].Name
			}
		}
		return ""
	}
	return "companions tell of it no more"
}
