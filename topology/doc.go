// Package topology describes a cluster as seen at one moment.
//
// # Invariants
//
//   - A [View] is immutable once published; readers share it without locks.
//   - Versions only grow: a reader that has seen version 7 never acts on 6.
package topology
