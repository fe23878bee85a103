// Package pgfake is a scripted PostgreSQL cluster for tests: nodes that speak
// the wire protocol over in-memory connections, keep a primary, replicas,
// timelines and LSNs in order, and fail on demand.
//
// It is made for testing/synctest bubbles. A network round trip costs exactly
// [Cluster].Latency, however many messages travel in it, and nothing else takes
// time, so a promise such as "costs no further round trip" is an exact test.
//
// # Invariants
//
//   - There are no tables: a statement is answered by what the test registered,
//     by the model (transactions, settings, recovery and WAL functions), or with
//     an error that says nobody knows it. A write grows the primary's WAL by
//     [Cluster].WALPerCommit when it commits, as the real server does: at
//     COMMIT, or at the Sync that ends an implicit transaction.
//   - A statement that writes fails on a replica with 25006 before any effect.
//   - After an error everything up to the next Sync is skipped.
//   - Every goroutine belongs to the cluster; [Cluster.Close] waits for them.
//
// Everything exported is safe for concurrent use, except that the exported
// fields of a Cluster are set before its first connection.
package pgfake
