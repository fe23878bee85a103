// Package walbench measures the WAL relay next to what PostgreSQL has itself:
// walsenders of the primary and cascading standbys.
//
// It starts all servers that it needs. Relays, and clients that read WAL and
// throw it away, are processes of their own: the program starts itself again,
// and [Child] is where they begin. So the processor time of each part is known.
//
// # Invariants
//
//   - What is compared is measured by turns in one run. A ratio is the median of
//     the ratios within the rounds, so that whatever else the machine did
//     concerns both sides of it.
//   - Who is not measured stands still: processes that have no turn are stopped
//     (SIGSTOP) where they would otherwise receive the same WAL.
//   - What a child started ends with it, and a child ends with its parent.
//   - What was not measured is left out.
package walbench
