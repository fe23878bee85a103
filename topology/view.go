package topology

import (
	"slices"

	"github.com/heliosdb/helios/wal"
)

// View is a picture of the whole cluster at one moment. It is immutable once
// published and safe for concurrent use.
type View struct {
	Version  uint64       // grows by one with every view a Board publishes
	SystemID uint64       // of the cluster; 0 until a node has answered
	Timeline wal.Timeline // highest seen; 0 until a node has answered
	History  wal.History  // known beginnings of timelines
	Settings Settings     // of the primary, or of the newest node that answered
	Nodes    []Node       // in the order they were declared
	Primary  int          // index in Nodes of the primary that takes writes; -1 if there is none
	Split    bool         // two primaries on one timeline: writes are refused
	Settled  bool         // every node has answered or failed at least once

	// LastPrimary is the index in Nodes of the node that was last seen as the
	// primary of Timeline, whatever its state is now; -1 if there is none or
	// Split. It is the node to try when all nodes seem down.
	LastPrimary int

	Told Announcement // what companions say; zero without them

	// Abandoned holds the beginnings of timelines above Timeline that were seen, and that
	// nobody goes on with: see Board.Announce. 0/0 is a beginning that is not known.
	Abandoned wal.History

	// announced holds the beginnings of timelines of whose primaries companions have said that
	// they were ready, as Told.Timeline is. They count whatever else was seen.
	announced wal.History
	// rose is what companions had said when Timeline was first seen, or said first after that.
	rose Announcement

	decided   bool // all nodes were heard of once, and one system identifier was told by more of them than any other
	contested bool // they were, and none was
}

// Index returns the index in Nodes of the node with that name; -1 if there is
// none.
func (v *View) Index(name string) int {
	return slices.IndexFunc(v.Nodes, func(n Node) bool { return n.Name == name })
}
