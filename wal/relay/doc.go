// Package relay takes write-ahead log from one PostgreSQL server and hands it
// on to any number of others, which cannot tell a [Relay] from the primary's
// own walsender. Between two relays the WAL travels in checksummed LZ4 frames.
//
// A [Relay] is a [Replicator] (a [Buffer] of WAL, and what its subscribers have
// confirmed) with a source that fills it and a server that empties it. A
// program may use Buffer and Replicator alone.
//
// # Invariants
//
//   - Nothing is sent that the source had not flushed, and nothing but what the
//     source sent: the buffer holds the WAL of one branch of history, in order,
//     without a gap.
//   - The source is never made to wait for a subscriber. Who falls behind the
//     buffer is served from disk or from the source, and returns to memory.
//   - An acknowledgement counts only from a session on the current timeline, and
//     never for more than that session began with or was sent. A standby that
//     stands on a branch that was left behind reports positions that are larger
//     than the truth, and would release synchronous commits that nobody has.
//   - Room that a server's file has and that was not used yet is no WAL, nor is a
//     server (Config.WALOwner) served from its own files: it would acknowledge what it
//     does not have.
//   - Memory never acknowledges a flush. Only a subscriber's disk does, or the
//     relay's own after fsync.
//   - A record is split between messages at page boundaries only, as
//     walsender.c promises.
//   - At a change of timeline its history is known before its first byte is sent.
//   - Memory is bounded by the size of the buffer and a fixed sum for each
//     subscriber.
package relay
