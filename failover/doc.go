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
//     one is elected, and it has the most, or fetches it before it is promoted: so it
//     has every commit that was acknowledged. The last primary itself has them too, and
//     may always be elected again.
//   - The log and the gate change one after the other, in the order in which what the
//     gate confirms is found by an election after either set ([SyncSet]).
//   - Leases are for primaries that are ready. So nothing was ever acknowledged on the
//     timeline of one that was promoted and never was ready, and such a timeline may be
//     passed over; its number then means nothing ([State.Astray]).
//   - No timeline that was ready is begun twice: only who has WAL of the last one is
//     elected, but by force.
//   - State alone never makes anybody act. Nodes act on an [Assignment] from the
//     current leader; what is replayed from the log after a restart is no such
//     thing.
//
// # When nobody can be sure
//
// Asynchronous commits wait for nobody, so an election cannot know who has them all. It
// takes the best of those that answer, half of the others at least, and nobody who has
// nothing of the last primary's timeline. After an outage of everything that means: a
// standby takes over if no lease can be left and the old primary is not back by then.
// With semi-synchronous commits it waits, as long as it takes, for N - k + 1 of the
// standbys or for the old primary. Whoever cannot wait has force.
//
// # What a node does
//
// The engine counts on it that a companion
//
//   - ignores assignments and orders of an epoch below the highest that it has promised,
//     promises by an fsync, and gives up the lease of every older epoch with it;
//   - ignores assignments that are older, by term and number, than the one it acts on, and
//     says in every report which one that is;
//   - counts its lease from when it sent the report that the assignment answers, and only
//     if that was sent in this run;
//   - confirms only by the gate of its newest assignment, counts only standbys of its own
//     epoch and timeline, begins every epoch with a new gate, and as long as that has not
//     settled, confirms nothing of what was written before;
//   - has the epoch in which it takes or writes WAL on its disk before the first byte, and
//     says it when it is sealed;
//   - fetches only WAL that continues its own, and says so if it cannot;
//   - rewinds its data only for a primary that is ready.
//
// Nothing here reads a clock: the time is an argument, and only differences count.
package failover
