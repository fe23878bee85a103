// Package agent runs one PostgreSQL server as the leader of the cluster assigns
// it: as the primary of an epoch, or as a standby of it.
//
// The parts that decide are apart from the hands: what to do next ([failover.Assignment]
// and what was found of the server go in, one step comes out), whether the lease
// still holds, and how much of the WAL the gate may confirm.
//
// # Invariants
//
//   - Nothing is done to the server before the first assignment of the leader
//     that came after this agent's start. A server found running stays as it is.
//   - A primary whose lease has ended is stopped when there may be another one: if
//     somebody knows one, or so many voters have not been heard for a while that they
//     may have elected one.
//   - A commit is acknowledged only while the lease holds. The lease counts from
//     the moment the report that asked for it was sent, on a clock that goes on
//     while the machine sleeps, and is looked at right before PostgreSQL is told.
//   - The lease is never prolonged by an answer to an older report, to another
//     run's, or by what came unasked.
//   - A promise not to serve an epoch any more is on disk before it is answered.
//   - A server that was given up is stopped so that it cannot come back: every
//     process of it is gone before the next step.
//   - A data directory is deleted only when its successor is complete.
//   - PostgreSQL outlives the agent.
//
// # What the gate does not cover
//
// Transactions that ask for less (synchronous_commit off or local) do not wait for
// it. A process that is frozen after it has looked at its lease, and before the
// message has left, sends that one message when it goes on: at most what had
// arrived until then is confirmed. Only commits that wait for standbys
// (semisync) are safe from that, since the standbys have promised.
package agent
