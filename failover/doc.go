// Package failover decides who is the primary of a cluster, and when.
//
// There are two halves, and neither does I/O. [State] is what all companions
// agree on: a replicated log of [Command]s, applied in the same order
// everywhere. [Engine] runs at the companion that leads the log. It hears what
// the nodes report and what its own actions came to, and answers with the next
// actions: close an epoch, seal the standbys, choose one, promote it.
//
// # Words
//
// An epoch is a reign: it has at most one primary, and its number only grows. A
// fence closes an epoch: from its commit on nobody takes WAL, confirmations or
// leases of it. To seal a standby is to have it promise that: it takes no more
// WAL of the closed epoch, and says how far it is. A lease is the right to
// confirm commits for a while; the primary asks for it again and again, and counts
// from the moment it asked.
//
// # Invariants
//
//   - There is at most one valid lease at any true time.
//   - A node is elected only in an epoch that was fenced, and only once in it.
//     Who fails to take over is fenced in turn, by the next epoch.
//   - A node is elected only when the lease of the epoch before has surely ended:
//     it ran out by the leader's clock, with room for drift, was given back, or
//     its holder is proven dead. A new leader knows of no leases, so it waits for
//     the longest that there may be.
//   - Where commits wait for k of N standbys, N - k + 1 of them are sealed before
//     one is elected, and it is one that has the most: so it has every commit that
//     was acknowledged.
//   - State alone never makes anybody act. Nodes act on an [Assignment] from the
//     current leader; what is replayed from the log after a restart is no such
//     thing.
//
// Nothing here reads a clock: the time is an argument, and only differences count.
package failover
