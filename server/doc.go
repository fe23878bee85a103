// Package server is the companion: the process beside each PostgreSQL server that
// keeps the cluster alive.
//
// It wires four things together, each of which can be understood alone. The log
// (failover/consensus) is what all companions agree on. The engine (failover) runs
// at the companion that leads the log, and says what to do. The conductor does it,
// by calls to the other companions and to itself. The node (server/agent) is the
// local PostgreSQL server, which does what its assignment says and nothing else.
//
// A companion has one port. What a connection wants shows in its first byte: HTTP
// for people, programs and other companions; the stream of the consensus; or
// PostgreSQL's protocol, for the standby that streams from here.
//
// # Invariants
//
//   - A node acts on assignments and calls of the leader only, never on the state of
//     the log. What comes from an older term is ignored.
//   - A lease is granted only after it was verified, since the request for it
//     arrived, that this companion leads. Its holder counts from when it asked.
//   - PostgreSQL outlives the companion. A companion that starts finds it running.
//   - When Run returns, nothing that it started is still running, but PostgreSQL.
package server
