// Package watch puts on a [topology.Board] what it can find out about the nodes
// of a cluster. [Prober] asks every node by SQL, as an ordinary user, over a
// connection of its own. [Listener] listens to the bulletins of companion
// servers, where there are any: they come at once when something changes, and the
// prober goes on beside them.
//
// # Invariants
//
//   - A node that hangs delays nobody but itself: every node has its own
//     goroutine, connection and deadline.
//   - Nothing is left running when Run returns.
//   - A node whose connection limit is reached is not down, and no observation
//     says so.
//   - A bulletin that is older than one heard before is never told, whoever tells
//     it.
//   - Nothing that a companion is sent, such as a token, gets into a log or an
//     error, even if it is sent back.
//
// # What an ordinary user learns
//
// Role, positions and system identifier come at once, and so does a primary's
// timeline. A replica tells everybody only up to which position it is sure of
// which timeline, in its control file: that is brought up to date by its
// restart points, and by the replay of a statement that drops a relation, so it
// may be some minutes late after a failover. Until then the replica's
// [topology.Node] has the older timeline, and positions compare with care. To
// know at once, GRANT pg_monitor (or pg_read_all_stats) to the user.
//
// Where a timeline began is told by the promoted node to a connection that saw
// it in recovery before. A connection made later learns it with
// GRANT EXECUTE ON FUNCTION pg_read_file(text, bigint, bigint, boolean).
package watch
